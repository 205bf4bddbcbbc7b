"""Traps of scvi-tools and Lightning that this package avoids, each shown on a trained model."""

from __future__ import annotations

import copy
import gc
import sys
import types
import weakref

import anndata as ad
import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from _cohort import FIT, make_cohort
from scvi import settings

import scset_tools as sst
from scset_tools.train import SaveBestModel

SMALL = {"n_hidden": 8, "n_latent": 4, "n_inducing": 2, "n_layers": 1, "n_cells": 20, "n_heads": 2}
FLAT = {"lr": 1e-30, "lr_schedule": "constant", "weight_decay": 0.0}
"""Plan of a run that learns nothing, so that validation never gets better than in its first epoch."""


def build(adata=None, *, setup=None, **arguments):
    adata = make_cohort() if adata is None else adata
    sst.MAESTRO.setup_anndata(adata, **{"sample_key": "sample", "labels_key": "condition", **(setup or {})})
    return sst.MAESTRO(adata, **{"random_state": 0, **SMALL, **arguments})


def same_weights(a, b):
    a, b = a.module.state_dict(), b.module.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def model():
    """Trained for one epoch; shared, not to be trained further."""
    model = build()
    model.train(**{**FIT, "max_epochs": 1})
    return model


# ---- memory


def embed(model, adata):
    model.get_sample_representation(adata)


def attend(model, adata):
    model.get_attention(adata)


def to_samples(model, adata):
    return model.to_sample_adata(adata)


def reconstruct(model, adata):
    model.reconstruct("new00", adata=adata)


def fail(model, adata):
    adata.obs["condition"] = "unseen"
    with pytest.raises(ValueError, match="was not trained on"):
        model.get_sample_representation(adata)


@pytest.mark.parametrize("use", [embed, attend, to_samples, reconstruct, fail])
@pytest.mark.parametrize("has_data", [True, False], ids=["with_data", "loaded_without_data"])
def test_an_anndata_that_was_only_embedded_is_released(model, tmp_path, use, has_data):
    if not has_data:
        model.save(tmp_path / "m")
        model = sst.MAESTRO.load(tmp_path / "m", adata=False)
    adata = make_cohort(3, seed=1, prefix="new")
    reference = weakref.ref(adata)
    use(model, adata)
    del adata
    gc.collect()
    assert reference() is None


def test_the_anndata_of_the_model_stays_registered(model):
    model.get_sample_representation()
    model.get_sample_representation(make_cohort(3, seed=1))
    assert model.get_anndata_manager(model.adata) is model.adata_manager
    assert model.get_sample_representation().shape == (8, 4)


# ---- views, names, storages


@pytest.fixture
def whole() -> ad.AnnData:
    return make_cohort()


@pytest.fixture
def part(whole) -> ad.AnnData:
    """A view of three of the samples."""
    return whole[whole.obs["sample"].isin(["s01", "s04", "s06"])]


def test_a_view_can_be_embedded(model, whole, part):
    want = model.get_sample_representation()
    rep = model.get_sample_representation(part)
    assert list(rep.index) == ["s01", "s04", "s06"]
    np.testing.assert_allclose(rep, want.loc[rep.index], rtol=1e-4, atol=1e-6)
    assert list(model.get_attention(part).index) == list(part.obs_names)
    assert not [c for c in whole.obs if c.startswith("_scvi")]


def test_a_view_can_be_embedded_by_a_model_without_data(model, part, tmp_path):
    model.save(tmp_path / "m")
    bare = sst.MAESTRO.load(tmp_path / "m", adata=False)
    pd.testing.assert_frame_equal(bare.get_sample_representation(part), model.get_sample_representation(part))


def test_a_view_is_not_registered(model, part, tmp_path):
    with pytest.raises(ValueError, match=r"adata = adata.copy\(\)"):
        sst.MAESTRO.setup_anndata(part, "sample")
    model.save(tmp_path / "m")
    with pytest.raises(ValueError, match=r"adata = adata.copy\(\)"):
        sst.MAESTRO.load(tmp_path / "m", adata=part)


class Name(str):
    __slots__ = ()


@pytest.mark.parametrize("kind", ["integers", "str_subclass", "string_dtype"])
def test_names_of_samples_that_are_not_plain_text(kind):
    adata = make_cohort()
    text = adata.obs["sample"].astype(str)
    make = {
        "integers": lambda: text.str[1:].astype(int),
        "str_subclass": lambda: pd.Series([Name(s) for s in text], index=text.index, dtype=object),
        "string_dtype": lambda: text.astype("string"),
    }[kind]
    adata.obs["sample"] = make()
    model = build(adata)
    names = [str(i) for i in range(8)] if kind == "integers" else [f"s{i:02d}" for i in range(8)]
    assert model.sample_names == names
    model.train(**{**FIT, "max_epochs": 1, "external_indexing": [names[2:], names[:2]]})
    assert model.train_samples_ == names[2:]
    assert list(model.get_sample_representation(samples=[names[5], names[0]]).index) == [names[5], names[0]]
    assert list(model.get_sample_representation(samples=adata.obs["sample"].unique()[:1])) == [0, 1, 2, 3]
    samples = model.to_sample_adata()
    assert list(samples.obs_names) == names
    assert samples.obs["n_cells"].sum() == adata.n_obs


def test_the_order_of_categories_does_not_change_the_split():
    splits = []
    for reverse in (False, True):
        adata = make_cohort()
        adata.obs["sample"] = adata.obs["sample"].cat.reorder_categories(
            sorted(adata.obs["sample"].cat.categories, reverse=reverse)
        )
        model = build(adata)
        model.train(**{**FIT, "max_epochs": 1})
        splits.append(model.train_samples_)
        assert list(model.get_sample_representation().index) == sorted(model.sample_names)
    assert splits[0] == splits[1]


@pytest.mark.parametrize("store", [sp.csc_matrix, sp.csr_array, np.asfortranarray])
def test_x_is_not_converted(store):
    adata = make_cohort()
    adata.X = store(adata.X.astype(np.float64))
    x = adata.X
    model = build(adata)
    model.is_trained_ = True
    model.get_sample_representation()
    assert adata.X is x
    assert x.dtype == np.float64


def test_backed_rows_land_in_their_sample(model, tmp_path):
    adata = make_cohort()
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    names = ["s06", "s02", "s07"]
    got = model.get_sample_representation(backed, samples=names)
    attention = model.get_attention(backed)
    backed.file.close()
    pd.testing.assert_frame_equal(got, model.get_sample_representation(samples=names))
    pd.testing.assert_frame_equal(attention, model.get_attention())


# ---- training


class Modes(pl.Callback):
    """Whether student and teacher are in training mode in each step."""

    def __init__(self):
        self.student, self.teacher = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.student.append(all(m.training for m in pl_module.module.student.modules()))
        self.teacher.append(any(m.training for m in pl_module.module.teacher.modules()))


def test_every_run_trains_in_training_mode(tmp_path):
    modes = Modes()
    given = [modes]
    model = build()
    model.train(**FIT, callbacks=given)
    assert not model.module.training
    model.train(**FIT, callbacks=given)
    model.save(tmp_path / "m")
    sst.MAESTRO.load(tmp_path / "m", adata=model.adata).train(**FIT, callbacks=given)
    assert modes.student == [True] * 12
    assert modes.teacher == [False] * 12
    assert given == [modes]  # scvi-tools appends to the list it is given


def test_a_second_run_keeps_metrics_that_the_first_did_not_have():
    model = build()
    model.train(**{**FIT, "train_size": 1.0})
    assert "loss_validation" not in model.history
    model.train(**{**FIT, "max_epochs": 3})
    assert list(model.history["loss_train"].index) == [0, 1, 2, 3, 4]
    assert list(model.history["loss_validation"].index) == [2, 3, 4]
    for name, frame in model.history.items():
        assert frame.dtypes.tolist() == [np.dtype(float)], name
        assert frame.notna().all().all(), name


class Broken(pl.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        msg = "broken"
        raise RuntimeError(msg)


def test_a_second_run_that_fails_leaves_the_history_of_the_first(capsys):
    model = build()
    model.train(**FIT)
    with pytest.raises(RuntimeError, match="broken"):
        model.train(**FIT, callbacks=[Broken()])
    assert model.is_trained
    assert list(model.history["loss_train"].index) == [0, 1]
    assert "Exception raised" not in capsys.readouterr().out  # what scvi-tools prints, beside the error itself


def test_defaults_of_the_trainer_are_for_samples(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    model = build(distillation_weight=0, standardize_latent=False)  # running means would move
    model.train(**{**FIT, "max_epochs": 9}, early_stopping=True, early_stopping_patience=2, plan_kwargs=FLAT)
    assert model.trainer.early_stopping_callback.monitor == "loss_validation"
    assert len(model.history["loss_validation"]) == 3  # the first epoch and a patience of two, validated each time
    assert model.trainer.check_val_every_n_epoch == 1
    assert torch.backends.cudnn.benchmark is False


def test_the_best_model_can_be_loaded(tmp_path):
    best = SaveBestModel(load_best_on_end=True, dirpath=str(tmp_path))
    model = build()
    model.train(**{**FIT, "max_epochs": 4}, callbacks=[best], plan_kwargs={"lr": 0.05})
    assert [p.name for p in tmp_path.iterdir()] == [best.best_model_path.rsplit("/", 1)[1]]
    loaded = sst.MAESTRO.load(best.best_model_path, adata=model.adata)
    assert same_weights(loaded, model)
    assert loaded.train_samples_ == model.train_samples_
    assert float(best.best_model_score) == pytest.approx(model.history["loss_validation"]["loss_validation"].min())


def test_what_watches_validation_needs_validation_samples():
    model = build()
    everything = {**FIT, "train_size": 1.0}
    with pytest.raises(
        ValueError, match="early_stopping watches 'loss_validation', but there are no validation samples"
    ):
        model.train(**everything, early_stopping=True)
    with pytest.raises(
        ValueError, match=r"lr_schedule='plateau' watches 'loss_validation'.*lr_scheduler_metric='loss_train'"
    ):
        model.train(**everything, plan_kwargs={"lr_schedule": "plateau"})
    with pytest.raises(ValueError, match=r"SaveBestModel watches 'loss_validation'.*monitor='loss_train'"):
        model.train(**everything, enable_checkpointing=True)
    model.train(**everything, plan_kwargs={"lr_schedule": "plateau", "lr_scheduler_metric": "loss_train"})
    assert list(model.history["loss_train"].index) == [0, 1]


class Seen(pl.Callback):
    """Samples of each epoch."""

    def __init__(self):
        self.epochs = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.epochs.setdefault(trainer.current_epoch, []).extend(batch.sample.tolist())


def test_a_limit_of_cells_loses_no_sample_in_any_epoch():
    seen = Seen()
    model = build(make_cohort(10), mask_rates=(0.5,), masking="random", distillation_weight=0)
    model.train(
        **{**FIT, "max_epochs": 4, "train_size": 1.0}, callbacks=[seen], datasplitter_kwargs={"max_cells_per_batch": 65}
    )
    assert [sorted(s) for s in seen.epochs.values()] == [list(range(10))] * 4
    sampler = model.trainer.train_dataloader.sampler
    needed = [len(sampler._fill(sampler._order(epoch))) for epoch in range(4)]
    assert max(needed) > needed[0]  # Lightning, which counts once, would have dropped a batch


def test_the_seed_of_the_settings_is_used(monkeypatch):
    def trained(seed, **arguments):
        monkeypatch.setattr(type(settings), "seed", seed, raising=False)
        torch.manual_seed(np.random.default_rng().integers(2**31))
        model = build(random_state=None, dropout_rate=0.1)
        model.train(**{**FIT, "max_epochs": 1, "seed": None, **arguments})
        return model

    first, again, other = trained(3), trained(3), trained(4)
    assert same_weights(first, again)
    assert not same_weights(first, other)
    assert first.train_samples_ == again.train_samples_


def test_mlflow_finds_what_it_logs(model, monkeypatch):
    from scvi.utils import _mlflow

    logged = {}
    fake = types.ModuleType("mlflow")
    fake.__spec__ = types.SimpleNamespace(name="mlflow")
    fake.log_params = lambda params, run_id: logged.update(params)
    fake.log_metric = lambda *args, **kwargs: logged.setdefault("metrics", []).append(args)
    fake.log_dict = fake.log_text = fake.log_artifact = lambda *args, **kwargs: None
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    trainer = model.trainer
    logger = getattr(_mlflow.mlflow_logger, "__wrapped__", _mlflow.mlflow_logger)
    logger(
        model=model,
        trainer=trainer,
        training_plan=copy.copy(trainer.lightning_module),
        data_splitter=trainer.datamodule,
        run_id="run",
    )
    assert logged["lr"] == 1e-3
    assert (logged["n_train"], logged["n_val"], logged["batch_size"]) == (6, 2, 4)
    assert logged["sample_key"] == "sample"
    assert logged["n_latent"] == 4

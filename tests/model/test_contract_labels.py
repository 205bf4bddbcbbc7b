"""What every model promises of labels: the same calls, results and invariances for each kind of label."""

from __future__ import annotations

import anndata as ad
import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from _cohort import FIT, make_cohort
from test_contract import MODELS, assert_same_weights, fit, weights

KINDS = {"condition": "class", "stage": "ordinal", "age": "continuous", "time": "time_to_event"}
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "seed": 0}
TUNE = {"max_epochs": 2, "batch_size": 4, "event_key": {"time": "event"}, **QUIET}


@pytest.fixture(params=MODELS, ids=str)
def kind(request):
    return request.param


def labelled(n_samples=8, **kwargs):
    """The cohort with a label of each kind; one sample lacks all of them."""
    adata = make_cohort(n_samples, **kwargs)
    number = adata.obs["sample"].astype(str).str[-2:].astype(int)
    adata.obs["stage"] = pd.Categorical(
        np.array(["low", "mid", "high"])[number % 3], categories=["low", "mid", "high"], ordered=True
    )
    adata.obs["time"] = 1.0 + number % 5
    adata.obs["event"] = number % 3 > 0
    for column in ("condition", "stage", "age", "time"):
        adata.obs[column] = adata.obs[column].where(number != 7)
    return adata


def tuned(kind, adata=None, *, mode="end_to_end", keys=KINDS, **arguments):
    """A model fine-tuned from random weights."""
    adata = labelled() if adata is None else adata
    cls, build = MODELS[kind]
    cls.setup_anndata(adata, "sample", batch_key="batch")
    model = cls(adata, random_state=0, **build)
    model.finetune(keys, mode=mode, **{**TUNE, **arguments})
    return model


@pytest.fixture(scope="session")
def learned():
    """Each model fine-tuned end to end to four labels; shared, not to be changed."""
    models = {}

    def get(kind):
        if kind not in models:
            models[kind] = tuned(kind)
        return models[kind]

    return get


def assert_same_predictions(a, b, **kwargs):
    a, b = (f.to_frame() if isinstance(f, pd.Series) else f for f in (a, b))
    b = b.loc[a.index]
    pd.testing.assert_frame_equal(a, b, atol=1e-4, rtol=1e-4, **kwargs)


def state(model):
    """Weights of everything that was fine-tuned."""
    (fit,) = model.fits_
    return {**(fit["encoder"] or {}), **{f"{h['name']}.{k}": v for h in fit["heads"] for k, v in h["head"].items()}}


# ---- results


def test_results_are_frames_by_sample_name(kind, learned):
    model = learned(kind)
    predicted = model.predict()
    assert list(predicted.columns) == list(KINDS)
    assert list(predicted.index) == [f"s{i:02d}" for i in range(8)]
    assert predicted.index.name == "sample"
    assert set(predicted["condition"]) <= {"case", "control"}
    assert set(predicted["stage"]) <= {"low", "mid", "high"}
    assert predicted["age"].dtype == predicted["time"].dtype == np.float64
    for label, columns in {"condition": ["case", "control"], "stage": ["low", "mid", "high"]}.items():
        p = model.predict_proba(label_key=label)
        assert list(p.columns) == columns
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
        assert p.index.equals(predicted.index)
    survival = model.predict_proba(label_key="time")
    assert list(survival.columns) == sorted(survival.columns)
    assert (survival.to_numpy()[:, :-1] >= survival.to_numpy()[:, 1:]).all()
    assert set(survival.columns) <= set(model.adata.obs.loc[model.adata.obs["event"], "time"])
    with pytest.raises(ValueError, match="'age' is a number, which has no probabilities"):
        model.predict_proba(label_key="age")
    with pytest.raises(ValueError, match="Name the label, label_key="):
        model.predict_proba()
    with pytest.raises(KeyError, match="'hospital' is not predicted by this model"):
        model.predict(label_key="hospital")


METRICS = {"condition": "balanced_accuracy", "stage": "mae", "age": "r2", "time": "concordance"}


@pytest.mark.parametrize("label", KINDS)
def test_evaluation_is_one_table_for_every_kind(kind, learned, label):
    model = learned(kind)
    with pytest.warns(UserWarning, match=r"7 of 7 samples were trained on \(first: \['s00'"):
        table = model.evaluate(label_key=label)
    assert list(table.columns) == ["mean", "sd", "n_samples"]
    assert (table["n_samples"] == 7).all()
    assert (table["sd"] == 0).all()
    assert METRICS[label] in table.index
    new = labelled(6, seed=3, prefix="new")
    drawn = model.evaluate(new, label_key=label, n_cells=5, n_draws=3)
    assert drawn.loc[METRICS[label], "sd"] >= 0
    by_hand = model.predict(new, label_key=label)[label]
    if label == "age":
        truth = new.obs.groupby("sample", observed=True)["age"].first()
        want = np.abs(by_hand - truth[by_hand.index]).mean()
        assert model.evaluate(new, label_key="age").loc["mae", "mean"] == pytest.approx(want)


def test_history_has_loss_and_quality_of_each_label(kind):
    model = tuned(kind, validation_size=0.3, early_stopping=True, early_stopping_patience=1, stratify=True)
    parts = {"train", "validation"}
    names = {f"{name}_{part}" for name in ("loss", "accuracy_stage", "error_age", "concordance_time") for part in parts}
    assert names <= set(model.finetune_history_)
    assert model.finetune_history_["loss_train"].dtypes.tolist() == [np.dtype(float)]


# ---- what is learned is a function of the sets of cells


def test_order_of_cells_and_batch_mates_do_not_matter(kind, learned):
    model, adata = learned(kind), labelled()
    shuffled = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    want = model.predict()
    assert_same_predictions(model.predict(shuffled), want)
    assert_same_predictions(model.predict(batch_size=1), want)
    some = model.predict(samples=["s05", "s01"])
    assert list(some.index) == ["s05", "s01"]
    assert_same_predictions(some, want)


@pytest.mark.parametrize("storage", ["csr_matrix", "csc_array", "backed_csr"])
def test_storage_does_not_matter(kind, learned, storage, tmp_path):
    model, adata = learned(kind), labelled()
    if storage == "backed_csr":
        adata.X = sp.csr_matrix(adata.X)
        adata.write_h5ad(tmp_path / "a.h5ad")
        adata = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    else:
        adata.X = getattr(sp, storage)(adata.X)
    assert_same_predictions(model.predict(adata), model.predict())
    if adata.isbacked:
        adata.file.close()


def test_order_of_rows_workers_and_seed(kind, learned):
    want = state(learned(kind))
    again = state(tuned(kind))
    assert want.keys() == again.keys()
    assert all(torch.equal(want[k], again[k]) for k in want)
    with_workers = state(tuned(kind, datasplitter_kwargs={"num_workers": 2}))
    assert all(torch.equal(want[k], with_workers[k]) for k in want)
    other = state(tuned(kind, seed=1))
    assert not torch.equal(want["condition.layers.0.weight"], other["condition.layers.0.weight"])
    adata = labelled()
    shuffled = adata[np.random.default_rng(1).permutation(adata.n_obs)].copy()
    assert_same_predictions(tuned(kind, shuffled).predict(), learned(kind).predict())


def test_saved_and_loaded_and_asked_about_new_samples(kind, learned, tmp_path):
    model = learned(kind)
    new = make_cohort(3, seed=5, prefix="new")
    del new.obs["condition"]
    want = model.predict(new)
    model.save(tmp_path / "m")
    loaded = type(model).load(tmp_path / "m", adata=False)
    pd.testing.assert_frame_equal(loaded.predict(new), want)
    pd.testing.assert_frame_equal(
        loaded.predict_proba(new, label_key="time"), model.predict_proba(new, label_key="time")
    )
    assert {name: one.mode for name, one in loaded.heads.items()} == dict.fromkeys(KINDS, "end_to_end")
    assert loaded.finetune_history_.keys() == model.finetune_history_.keys()
    assert not torch.equal(state(loaded)["condition.layers.0.weight"], torch.zeros(1))
    one = new[new.obs["sample"] == "new01"].copy()
    assert_same_predictions(loaded.predict(one), want.loc[["new01"]])


# ---- modes


@pytest.mark.parametrize("mode", ["frozen", "partial", "end_to_end"])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_modes_and_heads_after_training(kind, mode, head):
    """The model's own weights and vectors stay; an encoder that learns is a copy that changes where it should."""
    adata = labelled()
    model = fit(kind, adata, train_size=1.0)
    before, vectors = weights(model), model.get_sample_representation()
    model.finetune(KINDS, mode=mode, head=head, **TUNE)
    after = weights(model)
    assert all(np.array_equal(before[k], after[k]) for k in before)
    pd.testing.assert_frame_equal(model.get_sample_representation(), vectors)
    (fit_,) = model.fits_
    assert set(fit_["samples"]) == {f"s{i:02d}" for i in range(7)}  # those with a label
    moved = set(fit_["encoder"] or {})
    one = model.heads["condition"]
    assert one.head.is_linear == (head == "linear")
    if mode == "frozen":
        assert not moved
        assert one.module is model.module
    else:
        assert one.module is not model.module
        names = {id(p): name for name, p in one.module.named_parameters()}
        of_part = {names[id(p)] for part in one.module.partial_modules() for p in part.parameters()}
        assert moved
        assert (moved <= of_part) == (mode == "partial")
    model.train(**{**FIT, "max_epochs": 1})
    assert model.fits_ is None


def test_samples_without_a_label_are_as_good_as_absent(kind):
    adata = labelled()
    model = fit(kind, adata, train_size=1.0)
    model.finetune({"condition": "class"}, penalty=1.0, **QUIET)
    part = adata[adata.obs["sample"] != "s07"].copy()
    with_all = model.predict_proba(label_key="condition")
    model.finetune({"condition": "class"}, adata=part, penalty=1.0, **QUIET)
    assert_same_predictions(model.predict_proba(label_key="condition"), with_all)


def test_the_split_of_training_is_kept(kind):
    adata = labelled()
    model = fit(kind, adata, external_indexing=[["s00", "s01", "s02", "s03", "s05"], ["s04"], ["s06"]], train_size=None)
    model.finetune({"condition": "class"}, mode="partial", **TUNE)
    assert set(model.fits_[-1]["samples"]) == {"s00", "s01", "s02", "s03", "s05"}
    assert "loss_validation" in model.finetune_history_
    table = model.evaluate(label_key="condition", samples=model.test_samples_)
    assert (table["n_samples"] == 1).all()


def test_half_precision_and_a_second_label(kind):
    model = tuned(kind, keys={"condition": "class"}, precision="bf16-mixed")
    model.finetune({"age": "continuous"}, mode="partial", **{k: v for k, v in TUNE.items() if k != "event_key"})
    assert list(model.predict().columns) == ["condition", "age"]
    model.finetune({"condition": "class"}, mode="partial", **TUNE)
    assert {name: one.mode for name, one in model.heads.items()} == {"age": "partial", "condition": "partial"}
    assert len(model.fits_) == 2
    assert np.isfinite(model.predict()["age"]).all()


def test_an_interrupted_fine_tuning_goes_on_from_its_checkpoint(kind, tmp_path):
    whole = state(tuned(kind, keys={"condition": "class"}, max_epochs=3))
    stop = {"callbacks": [_Stop()], "checkpoint_dir": tmp_path / "run"}
    with pytest.raises(RuntimeError, match="stopped by the test"):
        tuned(kind, keys={"condition": "class"}, max_epochs=3, **stop)
    resumed = state(tuned(kind, keys={"condition": "class"}, max_epochs=3, checkpoint_dir=tmp_path / "run"))
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


class _Stop(pl.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            raise RuntimeError("stopped by the test")


def test_labels_of_cells_are_for_models_with_vectors_of_cells(kind, fitted_cells):
    model = fitted_cells(kind)
    if kind != "selfguidedmae":
        with pytest.raises(ValueError, match="has vectors of samples, not of cells"):
            model.finetune("cell_type", level="cell", **QUIET)
        return
    model.finetune("cell_type", level="cell", max_epochs=2, **QUIET)
    predicted = model.predict()
    assert predicted.index.equals(model.adata.obs_names)
    model.annotate_predictions()
    assert list(model.adata.obs["selfguidedmae_cell_type"]) == list(predicted["cell_type"])
    assert_same_weights(model, fitted_cells(kind))


@pytest.fixture
def fitted_cells():
    return lambda kind: fit(kind, labelled())

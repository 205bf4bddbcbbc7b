"""A checkpoint is taken up again by its own run alone, and an interrupted training is what it is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from _cohort import FIT, make_cohort

import scset_tools as sst

SMALL = {"n_hidden": 8, "n_latent": 4, "n_inducing": 2, "n_layers": 1, "n_cells": 20, "n_heads": 2, "random_state": 0}


def maestro(adata=None, *, setup=None, **build):
    adata = make_cohort() if adata is None else adata
    sst.MAESTRO.setup_anndata(adata, "sample", **(setup or {"labels_key": "condition"}))
    return sst.MAESTRO(adata, **{**SMALL, **build})


def renamed():
    adata = make_cohort()
    adata.obs["sample"] = adata.obs["sample"].cat.rename_categories({"s03": "other"})
    return adata


def fewer_cells():
    return make_cohort()[5:].copy()


def other_values():
    adata = make_cohort()
    adata.X = np.asarray(adata.X) * 2
    return adata


def other_labels():
    adata = make_cohort()
    adata.obs["condition"] = adata.obs["condition"].cat.rename_categories({"case": "control", "control": "case"})
    return adata


def other_features():
    adata = make_cohort()
    adata.var_names = [f"other_{i}" for i in range(adata.n_vars)]
    return adata


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    model = maestro()
    model.train(**FIT, checkpoint_dir=folder)
    return folder, model


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(lambda: maestro(renamed()), r"samples \(1 of then are gone: \['s03'\]; 1 are new", id="samples"),
        pytest.param(lambda: maestro(fewer_cells()), r"number of cells \(s0\d: \d+ then, \d+ now", id="sizes"),
        pytest.param(lambda: maestro(other_values()), "values of some cells", id="values"),
        pytest.param(lambda: maestro(other_labels()), r"labels of samples \(s0\d: '\w+' then", id="labels"),
        pytest.param(lambda: maestro(other_features()), r"features \(5 of then are gone: \['marker_0'", id="features"),
        pytest.param(lambda: maestro(n_latent=2), r"arguments of the model \(n_latent: 4 then, 2 now", id="arguments"),
        pytest.param(
            lambda: maestro(setup={"labels_key": "study"}),
            r"labels_key: {'condition': 'class'} then, {'study': 'class'} now",
            id="setup",
        ),
    ],
)
def test_another_run_does_not_go_on_from_a_checkpoint(run, make, says):
    folder, _ = run
    model = make()
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    content = (folder / "last.ckpt").read_bytes()
    with pytest.raises(ValueError, match=says) as error:
        model.train(**FIT, checkpoint_dir=folder)
    assert f"{folder} holds the state of another run" in str(error.value)
    assert not model.is_trained
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert (folder / "last.ckpt").read_bytes() == content


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"seed": 5}, r"split \(s0\d: 'training' then, 'validation' now"),
        ({"batch_size": 2}, r"arguments of the training \(batch_size: 4 then, 2 now"),
        ({"plan_kwargs": {"lr": 0.5}}, r"lr: [\d.]+ then, 0.5 now"),
        ({"gradient_clip_val": 0.5}, r"gradient_clip_val: 1.0 then, 0.5 now"),
        ({"max_epochs": 1}, r"run\d* holds the state after 2 epochs, more than max_epochs=1. Ask for as many"),
    ],
)
def test_other_arguments_of_training_are_not_passed_over(run, arguments, says):
    with pytest.raises(ValueError, match=says):
        maestro().train(**{**FIT, **arguments}, checkpoint_dir=run[0])


def test_another_model_does_not_go_on_from_a_checkpoint(run):
    adata = make_cohort()
    sst.PaSCient.setup_anndata(adata, "sample", labels_key="condition")
    model = sst.PaSCient(adata, n_hidden=8, n_latent=4, random_state=0)
    with pytest.raises(ValueError, match=r"model \('MAESTRO' then, 'PaSCient' now\)"):
        model.train(**FIT, checkpoint_dir=run[0])


@pytest.mark.parametrize(
    "same",
    [
        pytest.param(
            lambda: maestro(make_cohort()[np.random.default_rng(1).permutation(make_cohort().n_obs)].copy()), id="rows"
        ),
        pytest.param(lambda: maestro(_as_text(make_cohort())), id="dtypes"),
    ],
)
def test_the_same_run_goes_on_whatever_the_order_of_rows_and_the_types_of_columns(run, same, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / "run")
    model = same()
    model.train(**{**FIT, "max_epochs": 3}, checkpoint_dir=folder)
    assert len(model.history["loss_train"]) == 3
    pd.testing.assert_frame_equal(model.history["loss_train"].iloc[:2], run[1].history["loss_train"])


def _as_text(adata):
    for column in ("sample", "condition"):
        adata.obs[column] = adata.obs[column].astype(str).astype(object)
    return adata


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-200], lambda c: b"", lambda c: c[:500] + b"?" + c[501:], lambda c: b"PK text"]
)
def test_a_damaged_checkpoint_is_named_with_the_way_out(run, tmp_path, damage):
    folder = shutil.copytree(run[0], tmp_path / "run")
    (folder / "last.ckpt").write_bytes(damage((folder / "last.ckpt").read_bytes()))
    with pytest.raises(ValueError, match=r"run/last.ckpt cannot be read; delete it to start anew"):
        maestro().train(**FIT, checkpoint_dir=folder)


def test_a_file_of_torch_that_is_no_checkpoint_of_ours(run, tmp_path):
    torch.save({"weights": torch.zeros(3)}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"last.ckpt cannot be read; delete it to start anew"):
        maestro().train(**FIT, checkpoint_dir=tmp_path)


def test_a_folder_that_cannot_be_written_is_found_before_the_first_epoch(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file cannot be written"):
        maestro().train(**FIT, checkpoint_dir=tmp_path / "file")


def few_other_values():
    """Five cells of one sample, which are no more than others."""
    adata = make_cohort()
    adata.X = np.asarray(adata.X).copy()
    adata.X[np.flatnonzero(adata.obs["sample"] == "s03")[-5:]] *= 2
    return adata


def test_some_cells_of_one_sample_with_other_values_are_another_run(run):
    with pytest.raises(ValueError, match="checksum of the values of some cells"):
        maestro(few_other_values()).train(**FIT, checkpoint_dir=run[0])


def test_frozen_parts_are_a_part_of_the_run(run):
    model = maestro()
    model.freeze(["pooling"])
    with pytest.raises(ValueError, match=r"frozen parts \(1 are new: \['pooling'\]\)"):
        model.train(**FIT, checkpoint_dir=run[0])


# ---- fine-tuning

OTHER = {
    "label": ({"label_key": "other"}, r"labels \(condition: .* then, none now; other: none then"),
    "mode": ({"mode": "partial"}, r"mode: 'end_to_end' then, 'partial' now"),
    "head": ({"head": "mlp", "n_hidden": 4}, "n_layers: 0 then, 2 now; n_hidden: none then, 4 now"),
    "class_weight": ({"class_weight": None}, "class_weight: 'balanced' then, None now"),
}


def _finetune(model, folder, **how):
    model.finetune(
        **{"label_key": "condition", "mode": "end_to_end", **{**FIT, "max_epochs": 1}, **how}, checkpoint_dir=folder
    )


@pytest.fixture(scope="module", params=["MAESTRO", "ScSet"])
def finetuned(request, tmp_path_factory):
    """A model that was fine-tuned, and the folder of that run."""
    adata, folder = make_cohort(), tmp_path_factory.mktemp("finetuned")
    adata.obs["other"] = adata.obs["sample"].isin(["s00", "s01", "s02", "s06"]).map({True: "case", False: "control"})
    cls = getattr(sst, request.param)
    cls.setup_anndata(adata, "sample")
    small = SMALL if cls is sst.MAESTRO else {"n_latent": 4, "n_heads": 2, "n_cells": 8, "random_state": 0}
    model = cls(adata, **small)
    model.train(**{**FIT, "max_epochs": 1})
    _finetune(model, folder)
    return model, folder


@pytest.mark.parametrize("other", OTHER)
def test_another_fine_tuning_does_not_go_on_from_a_checkpoint(finetuned, other):
    model, folder = finetuned
    arguments, says = OTHER[other]
    with pytest.raises(ValueError, match=says) as error:
        _finetune(model, folder, **arguments)
    assert f"{folder} holds the state of another run" in str(error.value)


def test_a_head_on_frozen_vectors_belongs_to_its_labels_and_encoder(finetuned, tmp_path):
    model, _ = finetuned
    how = {"mode": "frozen", "head": "mlp"}
    _finetune(model, tmp_path, **how)
    with pytest.raises(ValueError, match="labels"):
        _finetune(model, tmp_path, **how, label_key="other")
    weight = next(model.module.parameters())
    with torch.no_grad():
        weight.mul_(1.01)
    try:
        with pytest.raises(ValueError, match="checksum of the encoder"):
            _finetune(model, tmp_path, **how)
    finally:
        with torch.no_grad():
            weight.div_(1.01)


# ---- interruptions


class Interrupt(pl.Callback):
    """Stop in the third epoch."""

    def __init__(self, error):
        self.error = error

    def on_train_batch_start(self, trainer, *args):
        if trainer.current_epoch == 2:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt("no power"), RuntimeError("no power")])
def test_an_interruption_arrives_as_it_is_and_the_model_knows_how_far_it_came(error, capsys, tmp_path):
    model, handler = maestro(), signal.getsignal(signal.SIGINT)
    with pytest.raises(type(error), match=r"no power|^$"):
        model.train(**{**FIT, "max_epochs": 5}, callbacks=[Interrupt(error)])
    assert signal.getsignal(signal.SIGINT) is handler
    assert "NameError" not in capsys.readouterr().out
    assert not model.is_trained
    assert len(model.history["loss_train"]) == 2
    with pytest.warns(UserWarning, match="is partly trained: its training was stopped after 2 of 5 epochs"):
        model.get_sample_representation()
    model.save(str(tmp_path / "model"))
    with pytest.warns(UserWarning, match="is partly trained"):
        sst.MAESTRO.load(str(tmp_path / "model"), adata=make_cohort()).get_attention()
    model.train(**FIT)
    assert model.stopped_after_ is None


def test_an_interrupted_fine_tuning_goes_on_to_the_same_head(finetuned, tmp_path):
    model, _ = finetuned
    _finetune(model, None, max_epochs=4)
    once = model.predict_proba()
    with pytest.raises(RuntimeError, match="no power"):
        _finetune(model, tmp_path, max_epochs=4, callbacks=[Interrupt(RuntimeError("no power"))])
    _finetune(model, tmp_path, max_epochs=4)
    pd.testing.assert_frame_equal(model.predict_proba(), once)


def test_an_interruption_before_the_first_step_leaves_random_weights():
    class AtOnce(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            raise KeyboardInterrupt

    model = maestro()
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        model.train(**FIT, callbacks=[AtOnce()])
    with pytest.warns(UserWarning, match="is not trained: its vectors come from random weights"):
        model.get_sample_representation()


def test_a_terminated_training_does_not_end_with_status_0(tmp_path):
    script = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import lightning.pytorch as pl
from _cohort import FIT, make_cohort
import scset_tools as sst
class Stop(pl.Callback):
    def on_train_batch_start(self, trainer, *args):
        os.kill(os.getpid(), signal.SIGTERM)
adata = make_cohort(4)
sst.MAESTRO.setup_anndata(adata, "sample")
sst.MAESTRO(adata, n_hidden=8, n_latent=4, n_inducing=2, n_layers=1, n_heads=2).train(**FIT, callbacks=[Stop()])
"""
    command = [sys.executable, "-W", "ignore", "-c", script, os.path.dirname(__file__)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path)
    assert done.returncode == 143, done.stderr[-2000:]


def test_a_device_without_float64_is_refused_before_anything_is_read():
    with pytest.raises(ValueError, match=r"accelerator='mps' is not supported: .* Use 'cpu'"):
        maestro().train(**{**FIT, "accelerator": "mps"})


# ---- what a run starts from


def _copy(folder, to):
    return shutil.copytree(folder, to / "run")


def test_a_trained_model_does_not_take_up_the_run_of_an_untrained_one(run, tmp_path):
    """Its weights would be gone, and nobody would be told."""
    folder, model = _copy(run[0], tmp_path), maestro()
    model.train(**FIT)
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    with pytest.raises(ValueError, match=r"weights at the start \('random weights' then, 'trained weights \w+' now"):
        model.train(**{**FIT, "max_epochs": 3}, checkpoint_dir=folder)
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())


def test_an_untrained_model_does_not_take_up_the_run_of_a_trained_one(tmp_path):
    model = maestro()
    model.train(**FIT)
    model.train(**FIT, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"weights at the start \('trained weights \w+' then, 'random weights' now"):
        maestro().train(**FIT, checkpoint_dir=tmp_path)


def test_a_model_that_was_trained_elsewhere_since_does_not_go_back(run, tmp_path):
    folder, model = _copy(run[0], tmp_path), maestro()
    model.train(**{**FIT, "max_epochs": 3}, checkpoint_dir=folder)
    model.train(**FIT)
    with pytest.raises(ValueError, match="weights at the start"):
        model.train(**{**FIT, "max_epochs": 4}, checkpoint_dir=folder)


@pytest.mark.parametrize("is_saved", [False, True])
def test_a_model_goes_on_with_its_own_run(run, is_saved, tmp_path):
    """After its end, for more epochs, and after an interruption; the same object, or saved and loaded."""
    folder, model = tmp_path / "run", maestro()
    fit = {**FIT, "plan_kwargs": {"lr_schedule": "constant"}}  # one that does not depend on the number of epochs

    def again(model):
        if not is_saved:
            return model
        model.save(tmp_path / "model", overwrite=True)
        return sst.MAESTRO.load(tmp_path / "model", adata=make_cohort())

    model.train(**fit, checkpoint_dir=folder)
    model = again(model)
    with pytest.raises(RuntimeError, match="no power"):
        model.train(**{**fit, "max_epochs": 4}, checkpoint_dir=folder, callbacks=[Interrupt(RuntimeError("no power"))])
    model = again(model)
    model.train(**{**fit, "max_epochs": 4}, checkpoint_dir=folder)
    once = maestro()
    once.train(**{**fit, "max_epochs": 4})
    for (name, a), b in zip(once.module.state_dict().items(), model.module.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_second_training_goes_on_in_another_process(tmp_path):
    """It starts from trained weights, which a model that was saved before has as well."""
    model = maestro()
    model.train(**FIT)
    model.save(tmp_path / "model")
    with pytest.raises(RuntimeError, match="no power"):
        model.train(
            **{**FIT, "max_epochs": 4}, checkpoint_dir=tmp_path, callbacks=[Interrupt(RuntimeError("no power"))]
        )
    loaded = sst.MAESTRO.load(tmp_path / "model", adata=make_cohort())
    loaded.train(**{**FIT, "max_epochs": 4}, checkpoint_dir=tmp_path)
    assert len(loaded.history["loss_train"]) == 2 + 4


def test_a_run_from_pretrained_weights_belongs_to_these(run, tmp_path):
    def start(source):
        adata = make_cohort()
        sst.MAESTRO.setup_anndata(adata, "sample", labels_key="condition")
        return sst.MAESTRO.from_pretrained(adata, source)

    source, other = run[1], maestro(random_state=1)
    other.train(**FIT)
    with pytest.raises(RuntimeError, match="no power"):
        start(source).train(
            **{**FIT, "max_epochs": 4}, checkpoint_dir=tmp_path, callbacks=[Interrupt(RuntimeError("no power"))]
        )
    with pytest.raises(ValueError, match=r"weights at the start \('pretrained weights"):
        start(other).train(**{**FIT, "max_epochs": 4}, checkpoint_dir=tmp_path)
    start(source).train(**{**FIT, "max_epochs": 4}, checkpoint_dir=tmp_path)

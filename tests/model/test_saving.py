"""A saved model appears whole, holds no code, and is read without running any."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from _cohort import FIT, make_cohort

import scset_tools as sst
from scset_tools.model._saved_file import decoded, encoded

pytestmark = pytest.mark.platform

SIZES = {
    "MAESTRO": {"n_hidden": 8, "n_latent": 4, "n_inducing": 2, "n_layers": 1, "n_cells": 20, "n_heads": 2},
    "PaSCient": {"n_hidden": 8, "n_latent": 4},
    "ScSet": {},
    "SelfGuidedMAE": {},
}


def fit(name):
    adata = make_cohort()
    adata.X = np.rint(np.asarray(adata.X) * 3) + 1
    cls = getattr(sst, name)
    cls.setup_anndata(adata, "sample", labels_key="condition")
    model = cls(adata, random_state=0, **SIZES[name])
    model.train(**{**FIT, "max_epochs": 1})
    return model


@pytest.fixture(scope="module")
def model():
    return fit("MAESTRO")


class Evil:
    def __reduce__(self):
        return os.makedirs, (os.environ["EVIL"], 0o777, True)


@pytest.mark.parametrize("name", sorted(SIZES))
def test_what_a_model_saves_is_read_without_code(name, tmp_path):
    model = fit(name)
    model.save(tmp_path / "model")
    loaded = getattr(sst, name).load(tmp_path / "model", adata=model.adata)
    pd.testing.assert_frame_equal(loaded.get_sample_representation(), model.get_sample_representation())
    assert loaded.history.keys() == model.history.keys()
    for metric, frame in model.history.items():
        pd.testing.assert_frame_equal(loaded.history[metric], frame)


@pytest.mark.parametrize("where", ["attribute", "weights"])
def test_code_in_a_file_is_not_run_unless_trusted(model, tmp_path, monkeypatch, where):
    monkeypatch.setenv("EVIL", str(tmp_path / "ran"))
    model.save(tmp_path / "model")
    content = torch.load(tmp_path / "model" / "model.pt", weights_only=False)
    content["attr_dict" if where == "attribute" else "model_state_dict"]["evil_"] = Evil()
    torch.save(content, tmp_path / "model" / "model.pt")
    with pytest.raises(ValueError, match=r"holds more than weights, numbers and text .*trust=True"):
        sst.MAESTRO.load(tmp_path / "model", adata=False)
    assert not (tmp_path / "ran").exists()
    if where == "attribute":
        sst.MAESTRO.load(tmp_path / "model", adata=False, trust=True)
        assert (tmp_path / "ran").exists()


def test_a_bare_pickle_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("EVIL", str(tmp_path / "ran"))
    (tmp_path / "model.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match=r"model.pt (holds more than|cannot be read)"):
        sst.MAESTRO.load(tmp_path, adata=False)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda c: b"", lambda c: b"text"])
def test_a_damaged_model_is_named(model, tmp_path, damage):
    model.save(tmp_path / "model")
    path = tmp_path / "model" / "model.pt"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"model.pt (cannot be read as a saved model|holds more)"):
        sst.MAESTRO.load(tmp_path / "model", adata=False)


def test_a_model_of_another_class_is_named(model, tmp_path):
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"holds a MAESTRO, not a PaSCient: load it by MAESTRO.load"):
        sst.PaSCient.load(tmp_path / "model", adata=False)


def test_overwriting_replaces_the_model_and_its_cells_alone(model, tmp_path):
    folder = tmp_path / "model"
    model.save(folder, save_anndata=True)
    model.save(folder, prefix="other_", overwrite=True)
    (folder / "notes.txt").write_text("kept")
    (folder / "figures").mkdir()
    (folder / "figures" / "a.png").write_text("kept too")
    with pytest.raises(ValueError, match=r"already exists. Save to another directory, or pass overwrite=True"):
        model.save(folder)
    model.save(folder, overwrite=True)
    assert sorted(p.name for p in folder.iterdir()) == ["figures", "model.pt", "notes.txt", "other_model.pt"]
    assert (folder / "figures" / "a.png").read_text() == "kept too"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert sst.MAESTRO.load(folder, adata=False, prefix="other_").is_trained


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("[enforce fail at inline_container.cc:603]")]
)
def test_a_full_disk_leaves_the_model_that_was_there(model, tmp_path, monkeypatch, error):
    folder = tmp_path / "model"
    model.save(folder, save_anndata=True)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(content, path, **kwargs):
        with open(path, "wb") as file:
            file.write(b"half")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="model cannot be written"):
        model.save(folder, overwrite=True)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_frames_come_back_from_plain_types():
    frame = pd.DataFrame({"a": [1.5, np.nan], 2: [1, 2], "t": ["x", None]}, index=pd.Index(["r", "s"], name="row"))
    back = decoded(encoded({"deep": [frame, {"n": 1}]}))["deep"][0]
    pd.testing.assert_frame_equal(back, frame)
    assert encoded((1, "x")) == (1, "x")

"""A model goes through the local format of scvi-hub and comes back the same."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from _cohort import FIT, make_cohort

import scset_tools as sst

scvi_hub = pytest.importorskip("scvi.hub", reason="scvi.hub needs huggingface_hub", exc_type=ImportError)

SMALL = {"n_hidden": 16, "n_latent": 6, "n_inducing": 4, "n_cells": 20, "n_heads": 2, "random_state": 0}


@pytest.fixture(scope="module")
def model():
    adata = make_cohort()
    sst.MAESTRO.setup_anndata(adata, "sample", labels_key="condition")
    model = sst.MAESTRO(adata, **SMALL)
    model.train(**FIT)
    return model


@pytest.mark.parametrize("save_anndata", [True, False])
def test_a_folder_is_read_back_by_scvi_hub(model, tmp_path, save_anndata):
    folder = tmp_path / "hub"
    sst.model.to_hub(model, folder, license_info="cc-by-4.0", description="Made-up blood.", save_anndata=save_anndata)
    hub = scvi_hub.HubModel(str(folder))
    hub.load_model(adata=None if save_anndata else False)
    loaded = hub.model
    assert type(loaded) is sst.MAESTRO
    rep = loaded.get_sample_representation(None if save_anndata else make_cohort())
    pd.testing.assert_frame_equal(rep, model.get_sample_representation())
    metadata = json.loads((folder / "_scvi_required_metadata.json").read_text())
    assert metadata["model_cls_name"] == "MAESTRO"
    assert metadata["model_parent_module"] == "scset_tools.model"
    new = make_cohort(3, seed=5, prefix="new")
    hub.load_model(adata=new)
    assert hub.model.sample_names == ["new00", "new01", "new02"]


def test_the_card_says_what_the_model_is(model, tmp_path):
    hub = sst.model.to_hub(model, tmp_path / "hub", license_info="cc-by-4.0", description="Made-up blood.")
    card = (tmp_path / "hub" / "README.md").read_text()
    assert hub.model_card.data.license == "cc-by-4.0"
    assert "model_cls_name:MAESTRO" in hub.model_card.data.tags
    for text in ("Made-up blood.", '"n_inducing": 4', '"condition": "class"', "trained on 6 samples of `sample`"):
        assert text in card
    assert "{" + "description}" not in card


def test_neither_cells_nor_names_leave_unasked(model, tmp_path):
    adata, before = make_cohort(), (list(model.sample_names), list(model.train_samples_))
    sst.model.to_hub(model, tmp_path / "hub", license_info="mit")
    assert sorted(p.name for p in (tmp_path / "hub").iterdir()) == [
        "README.md",
        "_scvi_required_metadata.json",
        "model.pt",
    ]
    content = b"".join(p.read_bytes() for p in (tmp_path / "hub").iterdir())
    assert [n for n in before[0] if n.encode() in content] == []
    assert (list(model.sample_names), list(model.train_samples_)) == before
    loaded = sst.MAESTRO.load(tmp_path / "hub", adata=False)
    pd.testing.assert_frame_equal(loaded.get_sample_representation(adata), model.get_sample_representation())
    sst.model.to_hub(model, tmp_path / "named", license_info="mit", sample_names=True)
    assert ", ".join(before[1]) in (tmp_path / "named" / "README.md").read_text()
    assert sst.MAESTRO.load(tmp_path / "named", adata=False).sample_names == before[0]


def test_a_failure_leaves_the_shared_model_whole(model, tmp_path, monkeypatch):
    sst.model.to_hub(model, tmp_path / "hub", license_info="mit")
    before = {p.name: p.read_bytes() for p in (tmp_path / "hub").iterdir()}

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scvi_hub.HubModel, "save", full)
    with pytest.raises(OSError, match="hub cannot be written: No space left on device"):
        sst.model.to_hub(model, tmp_path / "hub", license_info="mit", overwrite=True)
    assert {p.name: p.read_bytes() for p in (tmp_path / "hub").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["hub"]


def test_what_cannot_be_shared(model, tmp_path):
    adata = make_cohort()
    sst.MAESTRO.setup_anndata(adata, "sample")
    with pytest.raises(ValueError, match="This MAESTRO is not trained: there is nothing to share"):
        sst.model.to_hub(sst.MAESTRO(adata, **SMALL), tmp_path / "hub", license_info="mit")
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match=r"there is there already. Take another name, or pass overwrite=True"):
        sst.model.to_hub(model, tmp_path / "there", license_info="mit")
    sst.model.to_hub(model, tmp_path / "there", license_info="mit", overwrite=True)
    assert (tmp_path / "there" / "README.md").is_file()

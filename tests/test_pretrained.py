"""Weights that come with the package: small, safe to read, silent about donors, and a start for other cohorts."""

from __future__ import annotations

import pickletools
import zipfile
from importlib.resources import files

import anndata as ad
import numpy as np
import pytest
import torch

import scset_tools as sst

NAME = "maestro-cytometry-small"
COHORTS = ("hiv_flow_flowtype", "krieg_melanoma_cytof_imubac", "bcrxl_cytof_bodenmiller_full")


@pytest.fixture(scope="module")
def cohort():
    adata = sst.datasets.cytometry_cohort(n_donors=3, n_cells=60, rng=5)
    sst.pp.standardize_markers(adata, "batch")
    return adata


def set_up(adata, **arguments):
    adata = adata.copy()
    adata.obs["tube"] = adata.obs["sample"].to_numpy()
    sst.MAESTRO.setup_anndata(adata, "tube", **{"layer": "standardized", "panel": "open", **arguments})
    return adata


def test_what_there_is():
    table = sst.pretrained.list()
    assert table.index.tolist() == [NAME]
    row = table.loc[NAME]
    assert row["model"] == "MAESTRO"
    assert row["megabytes"] < 5
    assert row["license"] == "bsd-3-clause"
    assert row["n_markers"] == len(sst.pretrained.load(NAME).get_var_names())
    with pytest.raises(ValueError, match=rf"name='maestro' is not one of \['{NAME}'\]"):
        sst.pretrained.load("maestro")
    with pytest.raises(ValueError, match="is not one of"):
        sst.pretrained.card("../model")


def test_the_card_says_what_it_was_made_of():
    card, model = sst.pretrained.card(NAME), sst.pretrained.load(NAME)
    for part in (
        "### Cohorts",
        "### Markers",
        "### Does it help?",
        "### Limits",
        "benchmarks/pretrain.py --part weights",
    ):
        assert part in card
    for licence in ("Artistic-2.0", "MIT", "BSD-3-Clause"):
        assert licence in card
    table = card.split("### Cohorts")[1].split("###")[0]
    assert "none stated" not in table
    assert "bcrxl" not in table
    assert (
        f"Limits\n\n- Not for diagnosis or any decision on a person. 4 cohorts and {len(model.sample_names)} samples"
        in card
    )
    assert all(marker in card for marker in model.get_var_names())
    assert "To be measured" not in card


def test_names_are_those_of_the_table():
    markers = sst.pretrained.load(NAME).get_var_names()
    empty = ad.AnnData(np.zeros((1, len(markers)), np.float32))
    empty.var_names = markers
    table = sst.pp.marker_names(empty)
    assert table["is_known"].all()
    assert table["marker"].tolist() == list(markers)


def test_nothing_of_donors_is_in_the_files(shared_data):
    model = sst.pretrained.load(NAME)
    assert sorted(model.sample_names) == sorted(f"sample_{i}" for i in range(len(model.sample_names)))
    folder = files("scset_tools.pretrained") / NAME
    with zipfile.ZipFile(str(folder / "model.pt")) as archive:
        pickle = archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))
    texts = {arg for _, arg, _ in pickletools.genops(pickle) if isinstance(arg, str)}
    for name in COHORTS:
        obs = ad.read_h5ad(shared_data / f"{name}.h5ad", backed="r").obs
        named = {str(v) for c in ("sample", "patient", "donor") if c in obs for v in obs[c].unique() if len(str(v)) > 2}
        assert named
        assert not {text for text in texts if text in named}
        assert not [v for v in named if len(v) > 4 and v in sst.pretrained.card(NAME)]


def test_reading_runs_nothing(monkeypatch):
    asked = []
    read = torch.load

    def load(*args, **kwargs):
        asked.append(kwargs.get("weights_only"))
        return read(*args, **kwargs)

    monkeypatch.setattr(torch, "load", load)
    sst.pretrained.load(NAME)
    assert asked
    assert asked[0] is True  # all that is in the file is looked at before scvi-tools reads it again


def test_a_cohort_is_embedded_as_it_is(cohort):
    model = sst.pretrained.load(NAME)
    bare = ad.AnnData(cohort.layers["standardized"], obs=cohort.obs, var=cohort.var)
    with pytest.warns(UserWarning, match="of 26 markers in adata are unknown to the model and are not read"):
        want = model.get_sample_representation(bare)
    assert np.isfinite(want.to_numpy()).all()
    with pytest.warns(UserWarning, match="unknown to the model"):
        started = sst.pretrained.load(NAME, set_up(cohort))
    np.testing.assert_allclose(started.get_sample_representation(), want, atol=1e-5)


def test_a_cohort_is_learned_with_its_own_markers(cohort):
    model = sst.pretrained.load(NAME, set_up(cohort, labels_key="condition"), new_markers="learn", freeze=["block_1"])
    assert "LYZ" in model.get_var_names()
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "seed": 0}
    model.train(1, n_cells=256, **quiet)
    model.finetune(mode="partial", max_epochs=1, **quiet)
    assert model.predict().shape == (6, 1)


def test_what_does_not_fit_is_told_before_training(cohort):
    with pytest.warns(UserWarning, match=r"may not be on the scale of the pretraining.*standardize_markers"):
        sst.pretrained.load(NAME, set_up(cohort, layer=None), new_markers="learn")
    raw = cohort.copy()
    raw.X = 5 * np.sinh(raw.X)
    with pytest.raises(ValueError, match=r"are not on the scale of the pretraining.*standardize_markers"):
        sst.pretrained.load(NAME, set_up(raw, layer=None), new_markers="learn")
    other = cohort.copy()
    other.var_names = [f"gene {i}" for i in range(other.n_vars)]
    with pytest.raises(ValueError, match=r"no marker in common with the pretrained model: it has \['gene 0'"):
        sst.pretrained.load(NAME, set_up(other))
    with pytest.raises(ValueError, match=r"\['freeze'\] say what becomes of a cohort: give adata="):
        sst.pretrained.load(NAME, freeze=["markers"])

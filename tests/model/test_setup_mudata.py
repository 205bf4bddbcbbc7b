"""A model on one modality of a MuData gives what it gives on the AnnData of that modality."""

from __future__ import annotations

import mudata as md
import numpy as np
import pandas as pd
import pytest
from _cohort import FIT, make_cohort

import scset_tools as sst
from scset_tools.model._setup_mudata import obs_keys

pytestmark = pytest.mark.platform

SMALL = {"n_hidden": 16, "n_latent": 6, "n_inducing": 4, "n_cells": 20, "n_heads": 2, "random_state": 0}
LIFTED = ["sample", "condition", "batch"]


def make_mudata(n_samples=8, *, seed=0, prefix="s"):
    """Two modalities: rna lacks some cells of adt and has its rows in another order; columns stand in mdata.obs alone."""
    whole = make_cohort(n_samples, seed=seed, prefix=prefix)
    rng = np.random.default_rng(1)
    rna, adt = whole[rng.permutation(whole.n_obs)[5:]].copy(), whole[:, :3].copy()
    adt.X = adt.X + 1
    adt.var_names = [f"protein_{j}" for j in range(3)]
    shared = whole.obs[LIFTED]
    for part in (rna, adt):
        part.obs = part.obs[["study"]]
    mdata = md.MuData({"rna": rna, "adt": adt})
    for column in LIFTED:
        mdata.obs[column] = shared[column].reindex(mdata.obs_names)
    return mdata


def as_anndata(mdata, modality="rna"):
    """The modality with its columns, made by names and not by positions."""
    adata = mdata[modality].copy()
    for column in LIFTED:
        adata.obs[column] = mdata.obs[column].reindex(adata.obs_names)
    return adata


@pytest.fixture(scope="module")
def fitted():
    mdata = make_mudata()
    want = as_anndata(mdata)
    sst.MAESTRO.setup_mudata(mdata, "sample", modality="rna", labels_key="condition", batch_key="batch")
    model = sst.MAESTRO(mdata, **SMALL)
    model.train(**FIT)
    sst.MAESTRO.setup_anndata(want, "sample", labels_key="condition", batch_key="batch")
    reference = sst.MAESTRO(want, **SMALL)
    reference.train(**FIT)
    return mdata, model, reference


def test_results_are_those_of_the_anndata(fitted):
    mdata, model, reference = fitted
    pd.testing.assert_frame_equal(model.get_sample_representation(), reference.get_sample_representation())
    assert model.adata is mdata["rna"]
    assert model.modality_ == "rna"
    for given in (None, mdata, mdata["rna"]):
        samples = model.to_sample_adata(given)
        pd.testing.assert_frame_equal(samples.obs, reference.to_sample_adata().obs)
        assert samples.uns["maestro"]["modality"] == "rna"


def test_a_new_mudata_is_embedded_and_annotated_in_its_modality(fitted):
    _, model, reference = fitted
    new = make_mudata(3, seed=5, prefix="new")
    del new.obs["condition"]
    adata = as_anndata(make_mudata(3, seed=5, prefix="new"))
    pd.testing.assert_frame_equal(model.get_sample_representation(new), reference.get_sample_representation(adata))
    model.annotate_attention(new)
    assert new["rna"].obs["maestro_attention"].notna().all()
    assert "maestro_attention" not in new["adt"].obs


@pytest.mark.parametrize("given", ["mudata", "anndata", False, None])
def test_save_and_load(fitted, tmp_path, given):
    _, model, reference = fitted
    model.save(tmp_path / "m", save_anndata=True)
    data = {"mudata": make_mudata(), "anndata": as_anndata(make_mudata())}.get(given, given)
    loaded = sst.MAESTRO.load(tmp_path / "m", adata=data)
    rep = loaded.get_sample_representation(make_mudata() if given is False else None)
    pd.testing.assert_frame_equal(rep, reference.get_sample_representation())
    assert loaded.modality_ == "rna"
    if given == "mudata":
        assert loaded.adata is data["rna"]


def test_a_written_mudata_keeps_its_columns(fitted, tmp_path):
    mdata, model, _ = fitted
    mdata.write_h5mu(tmp_path / "c.h5mu")
    read = md.read_h5mu(tmp_path / "c.h5mu")
    pd.testing.assert_frame_equal(model.get_sample_representation(read), model.get_sample_representation())


def test_each_model_class_has_its_own_modality():
    class Other(sst.MAESTRO):
        """Another model."""

    mdata = make_mudata()
    sst.MAESTRO.setup_mudata(mdata, "sample", modality="rna")
    Other.setup_mudata(mdata, "sample", modality="adt")
    assert sst.MAESTRO(mdata, **SMALL).adata is mdata["rna"]
    assert Other(mdata, **SMALL).adata is mdata["adt"]
    sst.MAESTRO.setup_mudata(mdata, "sample", modality="adt")
    assert sst.MAESTRO(mdata, **SMALL).get_var_names().tolist() == ["protein_0", "protein_1", "protein_2"]


def test_a_column_in_the_modality_needs_no_copy():
    mdata = make_mudata()
    mdata["rna"].obs["donor"] = as_anndata(mdata).obs["sample"].to_numpy()
    sst.MAESTRO.setup_mudata(mdata, "donor", modality="rna")
    assert "donor" not in mdata.obs
    assert sst.MAESTRO(mdata, **SMALL).sample_names == [f"s{i:02d}" for i in range(8)]


def test_text_and_categories_agree():
    mdata = make_mudata()
    mdata["rna"].obs["sample"] = as_anndata(mdata).obs["sample"].astype(str)
    sst.MAESTRO.setup_mudata(mdata, "sample", modality="rna")
    assert sst.MAESTRO(mdata, **SMALL).sample_names == [f"s{i:02d}" for i in range(8)]


def _disagree(mdata):
    mdata["rna"].obs["sample"] = as_anndata(mdata).obs["sample"].astype(str)
    mdata["rna"].obs.iloc[[2, 4], -1] = "elsewhere"


def _prefixed(mdata):
    mdata["rna"].obs["donor"] = "d"
    mdata.obs["rna:donor"] = "d"


def _out_of_date(mdata):
    mdata.mod["rna"] = mdata["rna"][:-4].copy()


@pytest.mark.parametrize(
    ("spoil", "arguments", "error", "message"),
    [
        (None, {"modality": "atac"}, KeyError, r"'atac' is not a modality of the MuData. Modalities: \['rna', 'adt'\]"),
        (None, {"sample_key": "donor"}, KeyError, "'donor' is a column of neither mdata.obs .'sample', .* nor mdata"),
        (None, {"batch_key": "plate"}, KeyError, "'plate' is a column of neither"),
        (_disagree, {}, ValueError, r"differ in 2 of \d+ cells \(first: .*Rename or drop one"),
        (_prefixed, {"sample_key": "rna:donor"}, ValueError, "is the copy in mdata.obs .* name it 'donor'"),
        (_out_of_date, {}, ValueError, r"does not know all \d+ cells .* mdata.update"),
    ],
    ids=["modality", "sample", "batch", "disagree", "prefixed", "out of date"],
)
def test_bad_mudata(spoil, arguments, error, message):
    mdata = make_mudata()
    if spoil is not None:
        spoil(mdata)
    with pytest.raises(error, match=message):
        sst.MAESTRO.setup_mudata(mdata, **{"sample_key": "sample", "modality": "rna", **arguments})


def test_not_a_mudata():
    with pytest.raises(TypeError, match=r"MAESTRO.setup_mudata takes a MuData, but was given AnnData"):
        sst.MAESTRO.setup_mudata(make_cohort(), "sample", modality="rna")
    with pytest.raises(ValueError, match=r"was given a view of a MuData. Copy it first"):
        sst.MAESTRO.setup_mudata(make_mudata()[:50], "sample", modality="rna")
    features = md.MuData({"a": make_cohort(seed=0, prefix="a"), "b": make_cohort(seed=1, prefix="b")}, axis=1)
    with pytest.raises(ValueError, match=r"needs a MuData whose modalities share cells .axis=0., .* axis=1"):
        sst.MAESTRO.setup_mudata(features, "sample", modality="a")


def test_a_mudata_without_setup_and_a_model_without_modality(fitted):
    with pytest.raises(ValueError, match=r"not set up for MAESTRO: call MAESTRO.setup_mudata"):
        sst.MAESTRO(make_mudata(), **SMALL)
    _, _, reference = fitted
    with pytest.raises(TypeError, match=r"was set up on an AnnData, but was given a MuData .*'rna', 'adt'"):
        reference.get_sample_representation(make_mudata())
    with pytest.raises(TypeError, match=r"MAESTRO.setup_anndata takes an AnnData, .* setup_mudata"):
        sst.MAESTRO.setup_anndata(make_mudata(), "sample")


def test_new_data_without_the_modality_or_the_sample(fitted):
    _, model, _ = fitted
    with pytest.raises(KeyError, match=r"'rna' is not a modality"):
        model.get_sample_representation(md.MuData({"adt": make_cohort()}))
    new = make_mudata()
    del new.obs["sample"]
    with pytest.raises(KeyError, match=r"'sample' is not a column of adata.obs"):
        model.get_sample_representation(new)


def test_columns_that_arguments_name():
    arguments = {
        "sample_key": "s",
        "labels_key": ["a", "b"],
        "extra_keys": {"c": "class"},
        "batch_key": None,
        "layer": "x",
    }
    assert list(obs_keys(arguments)) == ["s", "a", "b", "c"]


def test_columns_of_the_mudata_that_changed_since_are_noticed():
    mdata = make_mudata()
    sst.MAESTRO.setup_mudata(mdata, "sample", modality="rna", labels_key="condition")
    model = sst.MAESTRO(mdata, **SMALL)
    model.is_trained_ = True
    want = model.get_sample_representation()
    condition = mdata.obs["condition"].copy()
    mdata.obs["condition"] = "x"
    for use in (model.get_sample_representation, lambda: model.train(**FIT)):
        with pytest.raises(
            ValueError, match=r"mdata\.obs\['condition'\] and mdata\['rna'\]\.obs\['condition'\] differ in"
        ):
            use()
    mdata.obs["condition"] = condition
    pd.testing.assert_frame_equal(model.get_sample_representation(), want)

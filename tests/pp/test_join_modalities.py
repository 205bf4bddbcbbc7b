"""Modalities of the same cells as one AnnData: by names, complete, and back."""

from __future__ import annotations

import mudata as md
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import scset_tools as sst

# mudata's own: a gene and a protein have one name
pytestmark = [
    pytest.mark.filterwarnings("ignore:Cannot join columns with the same name:UserWarning"),
    pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning"),
]


def planted(n_samples: int = 24, *, seed: int = 0, n_cells: int = 60) -> md.MuData:
    """Cases and controls whose cells differ in neither modality, but in which cells are high in both."""
    rng = np.random.default_rng(seed)
    rna, adt, obs = [], [], []
    for i in range(n_samples):
        is_case = i % 2 == 1
        rna_high = rng.permutation(np.arange(n_cells) % 2 == 0)
        adt_high = rna_high if is_case else ~rna_high
        rna.append(rng.normal(size=(n_cells, 3)) * 0.5 + 3 * rna_high[:, None])
        adt.append(rng.normal(size=(n_cells, 2)) * 0.5 + 3 * adt_high[:, None])
        obs += [(f"s{i:02d}", "case" if is_case else "control")] * n_cells
    names = [f"c{j}" for j in range(len(obs))]
    table = pd.DataFrame(obs, columns=["sample", "condition"], index=names).astype("category")
    mdata = md.MuData(
        {
            "rna": AnnData(np.concatenate(rna).astype("f4"), obs=pd.DataFrame(index=names)),
            "adt": AnnData(np.concatenate(adt).astype("f4"), obs=pd.DataFrame(index=names)),
        }
    )
    mdata["rna"].var_names = ["CD4", "g1", "g2"]
    mdata["adt"].var_names = ["CD4", "CD8"]
    mdata.obs = table
    return mdata


def test_cells_are_matched_by_name_whatever_their_order():
    mdata = planted(4)
    order = np.random.default_rng(1).permutation(mdata.n_obs)
    shuffled = md.MuData({"rna": mdata["rna"][order].copy(), "adt": mdata["adt"].copy()})
    shuffled.obs = mdata.obs.loc[shuffled.obs_names]
    want = np.hstack([mdata["rna"].X, mdata["adt"].X])
    for given in (mdata, shuffled):
        joined = sst.pp.join_modalities(given, "sample")
        np.testing.assert_array_equal(joined[mdata.obs_names].X, want)
        assert list(joined.var_names) == ["CD4@rna", "g1@rna", "g2@rna", "CD4@adt", "CD8@adt"]
        assert joined.obs.loc[mdata.obs_names, "condition"].tolist() == mdata.obs["condition"].tolist()


def test_sparse_stays_sparse_and_representations_take_the_place_of_features():
    mdata = planted(4)
    for part in mdata.mod.values():
        part.X = sparse.csr_matrix(part.X)
    assert sparse.issparse(sst.pp.join_modalities(mdata, "sample").X)
    mdata["rna"].obsm["X_pca"] = np.ones((mdata.n_obs, 2))
    joined = sst.pp.join_modalities(mdata, "sample", use_rep={"rna": "X_pca"})
    assert list(joined.var_names) == ["0@rna", "1@rna", "CD4@adt", "CD8@adt"]
    assert joined.X.dtype == np.float32


def test_cells_that_a_modality_lacks_are_left_out_with_a_warning():
    mdata = planted(4)
    fewer = md.MuData({"rna": mdata["rna"].copy(), "adt": mdata["adt"][3:].copy()})
    fewer.obs = mdata.obs.loc[fewer.obs_names]
    with pytest.warns(UserWarning, match=r"3 of 240 cells are left out, .* \(in 1 samples, first: \['s00'\]\)"):
        joined = sst.pp.join_modalities(fewer, "sample")
    assert list(joined.obs_names) == list(mdata.obs_names[3:])


def test_a_sample_without_a_modality_has_nan_there_and_its_panel_says_so():
    mdata = planted(4)
    has = (mdata.obs["sample"] != "s02").to_numpy()
    part = md.MuData({"rna": mdata["rna"].copy(), "adt": mdata["adt"][has].copy()})
    part.obs = mdata.obs.loc[part.obs_names]
    joined = sst.pp.join_modalities(part, "sample")
    is_there = np.isfinite(joined.X[:, 3:]).all(axis=1)
    np.testing.assert_array_equal(is_there, joined.obs["sample"] != "s02")
    measured = pd.DataFrame(joined.uns["panels"]["measured"], index=joined.uns["panels"]["sample"])
    assert measured.loc["s02"].tolist() == [True] * 3 + [False] * 2
    assert measured.drop("s02").all(axis=None)


@pytest.mark.parametrize("cls", [sst.MAESTRO, sst.ScSet])
def test_a_sample_without_a_modality_is_embedded_by_an_open_panel(cls):
    mdata = planted(6)
    has = (mdata.obs["sample"] != "s02").to_numpy()
    part = md.MuData({"rna": mdata["rna"].copy(), "adt": mdata["adt"][has].copy()})
    part.obs = mdata.obs.loc[part.obs_names]
    joined = sst.pp.join_modalities(part, "sample")
    cls.setup_anndata(joined, sample_key="sample", panel="open")
    model = cls(joined, random_state=0)
    model.train(1, accelerator="cpu", enable_progress_bar=False, seed=0)
    assert np.isfinite(model.get_sample_representation().to_numpy()).all()


def test_results_go_back_to_the_cells_and_features_of_each_modality():
    mdata = planted(4)
    fewer = md.MuData({"rna": mdata["rna"].copy(), "adt": mdata["adt"][3:].copy()})
    fewer.obs = mdata.obs.loc[fewer.obs_names]
    with pytest.warns(UserWarning, match="left out"):
        joined = sst.pp.join_modalities(fewer, "sample")
    joined.obs["score"] = np.arange(joined.n_obs, dtype=float)
    joined.obsm["attention"] = np.arange(2 * joined.n_obs, dtype=np.float32).reshape(-1, 2)
    joined.var["weight"] = [1.0, 2.0, 3.0, 4.0, 5.0]
    joined.varm["by_class"] = pd.DataFrame({"case": joined.var["weight"]}, index=joined.var_names)
    sst.pp.to_modalities(joined, fewer)
    rna, adt = fewer["rna"], fewer["adt"]
    assert rna.obs["score"].isna().sum() == 3
    assert rna.obs.loc["c3", "score"] == adt.obs.loc["c3", "score"] == 0
    np.testing.assert_array_equal(rna.obsm["attention"][3:], joined.obsm["attention"])
    assert np.isnan(rna.obsm["attention"][:3]).all()
    assert rna.var["weight"].to_dict() == {"CD4": 1, "g1": 2, "g2": 3}
    assert adt.varm["by_class"]["case"].to_dict() == {"CD4": 4, "CD8": 5}
    assert "modality" not in rna.var


def test_the_joint_vector_tells_what_neither_modality_does():
    mdata = planted()
    score = {}
    for name in ("rna", "adt", "joint", "joined first"):
        how = {"modalities": ["rna", "adt"]} if name == "joint" else {"modality": name}
        if name == "joined first":
            cells = sst.pp.join_modalities(mdata, "sample")
            sst.MAESTRO.setup_anndata(cells, sample_key="sample")
        else:
            cells = mdata
            sst.MAESTRO.setup_mudata(mdata, "sample", labels_key="condition", **how)
        model = sst.MAESTRO(cells, random_state=0, n_cells=60)
        model.train(2, accelerator="cpu", enable_progress_bar=False, seed=0)
        samples = model.to_sample_adata()
        score[name] = sst.tl.probe(samples, "condition", tune=False, n_repeats=1).folds["balanced_accuracy"].mean()
    assert min(score["joint"], score["joined first"]) >= 0.9, score
    assert max(score["rna"], score["adt"]) < 0.75, score


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ("unpaired", ValueError, r"In 4 of 4 samples the modalities .* no cell in common .* tl\.join_samples"),
        ("unknown", KeyError, r"'atac' is not a modality"),
        ("one", ValueError, "two modalities at least"),
        ("no key", KeyError, r"'donor' is a column of neither"),
        ("two samples", ValueError, r"puts 1 cells into another sample .* first: \['c0'\]"),
        ("rep", KeyError, "use_rep names .*'protein'"),
        ("twice", ValueError, r"1 features of the modality 'adt' are there twice, first: \['CD4'\]"),
        ("missing", ValueError, "sample"),
    ],
)
def test_what_cannot_be_joined_is_named(change, error, match):
    mdata, arguments, key = planted(4), {}, "sample"
    if change == "unpaired":
        adt = mdata["adt"].copy()
        adt.obs_names = [f"other-{c}" for c in adt.obs_names]
        both = md.MuData({"rna": mdata["rna"].copy(), "adt": adt})
        both.obs["sample"] = [mdata.obs["sample"][c.removeprefix("other-")] for c in both.obs_names]
        mdata = both
    elif change == "unknown":
        arguments = {"modalities": ["rna", "atac"]}
    elif change == "one":
        arguments = {"modalities": ["rna"]}
    elif change == "no key":
        key = "donor"
    elif change == "two samples":
        mdata["adt"].obs["sample"] = ["s03", *mdata.obs["sample"].astype(str)[1:]]
    elif change == "rep":
        arguments = {"use_rep": {"protein": "X_pca"}}
    elif change == "twice":
        mdata["adt"].var_names = ["CD4", "CD4"]
    elif change == "missing":
        mdata.obs["sample"] = mdata.obs["sample"].astype(object).where(np.arange(mdata.n_obs) > 2)
    with pytest.raises(error, match=match):
        sst.pp.join_modalities(mdata, key, **arguments)


def test_an_anndata_is_told_what_is_wanted():
    cells = planted(2)["rna"]
    with pytest.raises(TypeError, match="takes a MuData"):
        sst.pp.join_modalities(cells, "sample", modalities=["rna", "adt"])
    with pytest.raises(ValueError, match=r"takes an AnnData from pp\.join_modalities"):
        sst.pp.to_modalities(cells, planted(2))


def test_a_model_that_is_given_two_modalities_is_told_how_to_join_them():
    with pytest.raises(TypeError, match=r"reads one modality, .* pp\.join_modalities\(mdata, sample_key\)"):
        sst.MAESTRO.setup_mudata(planted(2), "sample", modality=["rna", "adt"])

"""Samples that lack markers: what every model that takes an open panel promises."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from _cohort import FIT

import scset_tools as sst
from scset_tools import pp

MODELS = {
    "maestro": (sst.MAESTRO, {"n_hidden": 16, "n_latent": 6, "n_inducing": 4, "n_cells": 20, "n_heads": 2}),
    "scset": (sst.ScSet, {"n_hidden": 16, "n_latent": 6, "n_cells": 20, "n_heads": 2}),
}
MARKERS = ["CD3", "CD4", "CD8", "CD19", "CD56", "HLA-DR"]


@pytest.fixture(params=MODELS, ids=str)
def kind(request):
    return request.param


def cells(markers=MARKERS, *, n_samples=8, n=40, lacks=None, seed=0) -> ad.AnnData:
    """Cells of two kinds; ``lacks``: sample to markers that are missing in it."""
    rng = np.random.default_rng(seed)
    sample = np.repeat([f"s{i:02d}" for i in range(n_samples)], n)
    which = rng.random(len(sample)) < np.repeat(np.linspace(0.2, 0.8, n_samples), n)
    x = rng.normal(size=(len(sample), len(MARKERS))) + 3 * which[:, None] * np.array([1, 1, 0, -1, 0, 1])
    obs = pd.DataFrame({"sample": sample, "condition": np.where(np.repeat(np.arange(n_samples), n) % 2, "a", "b")})
    obs["batch"] = np.where(np.repeat(np.arange(n_samples), n) < n_samples // 2, "x", "y")
    obs.index = [f"c{i}" for i in range(len(obs))]
    adata = ad.AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=MARKERS))
    for name, missing in (lacks or {}).items():
        rows = np.flatnonzero((adata.obs["sample"] == name).to_numpy())
        adata.X[np.ix_(rows, adata.var_names.get_indexer(missing))] = np.nan
    return adata[:, list(markers)].copy()


LACKS = {"s01": ["CD4"], "s02": ["CD8", "HLA-DR"], "s05": ["CD56"]}


def fit(kind, adata, **build):
    cls, arguments = MODELS[kind]
    cls.setup_anndata(adata, "sample", labels_key="condition", panel="open")
    model = cls(adata, random_state=0, **{**arguments, **build})
    model.train(**FIT)
    return model


@pytest.fixture(scope="module")
def fitted():
    models = {}

    def get(kind):
        if kind not in models:
            models[kind] = fit(kind, cells(lacks=LACKS))
        return models[kind]

    return get


def same(a, b, atol=1e-5):
    a, b = a.to_numpy(), b.loc[a.index].to_numpy()
    assert np.abs(a - b).max() <= atol * np.abs(b).max()


def test_vectors_are_finite_and_markers_have_an_order_of_their_own(kind, fitted):
    rep = fitted(kind).get_sample_representation()
    assert rep.shape == (8, 6)
    assert np.isfinite(rep.to_numpy()).all()
    assert list(fitted(kind).get_var_names()) == sorted(MARKERS)


def test_order_of_markers_does_not_matter_in_training(kind, fitted):
    turned = fit(kind, cells(MARKERS[::-1], lacks=LACKS))
    same(turned.get_sample_representation(), fitted(kind).get_sample_representation())


def test_order_of_markers_does_not_matter_in_inference(kind, fitted):
    order = [3, 0, 5, 1, 4, 2]
    same(
        fitted(kind).get_sample_representation(cells([MARKERS[i] for i in order], lacks=LACKS)),
        fitted(kind).get_sample_representation(),
    )


def test_an_absent_column_and_one_of_nan_are_the_same(kind, fitted):
    every = {f"s{i:02d}": ["CD8", "CD56"] for i in range(8)}
    as_nan = cells(lacks=every)
    absent = as_nan[:, [m for m in MARKERS if m not in ("CD8", "CD56")]].copy()
    masked = as_nan.copy()
    masked.layers["_nan_mask"] = (~np.isnan(masked.X)).astype(np.float32)
    masked.X = np.nan_to_num(masked.X)
    said = masked.copy()
    del said.layers["_nan_mask"]
    said.uns["panels"] = {
        "sample": np.array([f"s{i:02d}" for i in range(8)]),
        "marker": np.array(MARKERS),
        "measured": np.tile([m not in ("CD8", "CD56") for m in MARKERS], (8, 1)),
    }
    rep = fitted(kind).get_sample_representation(as_nan)
    for other in (absent, masked, said):
        pd.testing.assert_frame_equal(fitted(kind).get_sample_representation(other), rep)
    zeros = fitted(kind).get_sample_representation(cells()).to_numpy()  # not zero, not as if all were there
    assert np.abs(zeros - rep.to_numpy()).max() > 1e-3 * np.abs(zeros).max()


def test_names_of_markers_are_found_by_what_they_stand_for(kind, fitted):
    adata = cells(lacks=LACKS)
    adata.var_names = ["CD3-FITC", "145Nd_CD4", "CD8a", "cd19", "NCAM1", "HLADR"]
    same(fitted(kind).get_sample_representation(adata), fitted(kind).get_sample_representation())


def test_order_of_cells_batch_mates_and_pieces_do_not_matter(kind, fitted, monkeypatch):
    model, adata = fitted(kind), cells(lacks=LACKS)
    shuffled = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    rep = model.get_sample_representation()
    same(model.get_sample_representation(shuffled), rep)
    same(model.get_sample_representation(batch_size=1), rep)
    monkeypatch.setattr("scset_tools.model._inference.MAX_CELLS", 15)
    same(model.get_sample_representation(), rep)


@pytest.mark.parametrize("storage", ["csr_matrix", "backed", "sparse backed", "zarr", "sparse zarr", "float64"])
def test_storage_does_not_matter(kind, fitted, storage, tmp_path):
    import scipy.sparse as sp

    adata = cells(lacks=LACKS)
    if "sparse" in storage or storage == "csr_matrix":
        adata.X = sp.csr_matrix(adata.X)
    if "backed" in storage:
        adata.write_h5ad(tmp_path / "a.h5ad")
        adata = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    elif "zarr" in storage:
        adata.write_zarr(tmp_path / "a.zarr")
        adata = pp.read_store(tmp_path / "a.zarr")
    elif storage == "float64":
        adata.X = adata.X.astype(np.float64)
    rep = fitted(kind).get_sample_representation(adata)
    if adata.isbacked:
        adata.file.close()
    same(rep, fitted(kind).get_sample_representation())


def test_saved_and_loaded(kind, fitted, tmp_path):
    model = fitted(kind)
    model.save(tmp_path / "m")
    loaded = MODELS[kind][0].load(tmp_path / "m", adata=cells(lacks=LACKS))
    pd.testing.assert_frame_equal(loaded.get_sample_representation(), model.get_sample_representation())
    fewer = cells(MARKERS[:3], lacks={})
    alone = MODELS[kind][0].load(tmp_path / "m", adata=fewer)
    pd.testing.assert_frame_equal(alone.get_sample_representation(), model.get_sample_representation(fewer))


def test_finetuned_and_explained(kind, fitted):
    model = fit(kind, cells(lacks=LACKS))
    found = model.get_attributions("condition", head="probe", n_steps=4, tolerance=1.0)
    values = dict(zip(found.feature_names, np.moveaxis(found.values, -1, 0), strict=True))
    samples = list(found.samples)
    for name, missing in LACKS.items():
        for marker in missing:
            assert (values[marker][samples.index(name)] == 0).all()
    assert np.isfinite(found.values).all()
    assert np.abs(found.values).max() > 0
    model.annotate_attributions("condition", n_steps=4, tolerance=1.0)
    assert model.adata.var.filter(like="attribution").notna().all(axis=None)
    model.finetune("condition", mode="end_to_end", max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    assert np.isfinite(model.predict_proba(label_key="condition").to_numpy()).all()
    assert model.get_attention().notna().all(axis=None)


def test_cells_are_written_with_all_markers_that_are_known():
    maestro = fit("maestro", cells(lacks=LACKS))
    cut = maestro.reconstruct("s02", mask_rate=0.5)
    x = pd.DataFrame(cut.X, columns=cut.var_names)
    role = cut.obs["role"].to_numpy()
    assert x.loc[role == "hidden", ["CD8", "HLA-DR"]].isna().all(axis=None)
    assert x[role == "predicted"].notna().all(axis=None)
    scset = fit("scset", cells(lacks=LACKS))
    assert np.isfinite(scset.sample_cells(10, sample="s02", n_steps=3).X).all()


def test_moments_are_those_of_the_cells_that_have_the_marker(kind):
    adata = cells(lacks={**LACKS, **{f"s{i:02d}": ["CD19"] for i in range(4)}})
    cls, arguments = MODELS[kind]
    cls.setup_anndata(adata, "sample", batch_key="batch", panel="open")
    model = cls(adata, random_state=0, **arguments)
    x = pd.DataFrame(adata.X, columns=adata.var_names)[sorted(MARKERS)]
    by = x.groupby(adata.obs["batch"].to_numpy())
    wanted = by.mean()
    assert wanted.loc["x"].isna()["CD19"]
    wanted = wanted.fillna(wanted.mean())  # a batch without it stands where the others do
    np.testing.assert_allclose(model.module.mean.numpy(), wanted.to_numpy(), atol=1e-5)
    sd = by.std(ddof=0)
    np.testing.assert_allclose(model.module.scale.numpy(), sd.fillna(sd.mean()).to_numpy(), rtol=1e-5)


# ---- what is wrong is told before training


def test_a_marker_is_there_in_all_cells_of_a_sample_or_in_none(kind):
    adata = cells()
    adata.X[3, 2] = np.nan
    with pytest.raises(
        ValueError, match=r"adata.X is missing for a part .*marker 'CD8' in 1 of 40 cells of sample 's00'"
    ):
        MODELS[kind][0].setup_anndata(adata, "sample", panel="open")
    adata.X[:40] = np.nan
    with pytest.raises(ValueError, match=r"1 of 8 samples have no marker at all .*'s00'"):
        MODELS[kind][0].setup_anndata(adata, "sample", panel="open")


def test_other_bad_input(kind, fitted):
    cls = MODELS[kind][0]
    adata = cells()
    adata.X[3, 2] = np.inf
    with pytest.raises(ValueError, match=r"not finite \(first: cell 'c3' of sample 's00', feature 'CD8'\)"):
        cls.setup_anndata(adata, "sample", panel="open")
    adata = cells()
    adata.X[:, 2] = np.nan
    with pytest.raises(ValueError, match=r"1 of 6 markers are measured in no sample \(first: \['CD8'\]\)"):
        cls.setup_anndata(adata, "sample", panel="open")
    with pytest.raises(ValueError, match="are not finite"):  # a fixed panel takes none of it
        cls.setup_anndata(adata, "sample")
    adata = cells()
    adata.var_names = ["CD3", "CD3E-FITC", "CD8", "CD19", "CD56", "HLA-DR"]
    with pytest.raises(
        ValueError, match=r"1 markers stand in more than one column, first 'CD3': \['CD3', 'CD3E-FITC'\]"
    ):
        cls.setup_anndata(adata, "sample", panel="open")
    with pytest.raises(ValueError, match=r"1 markers stand in more than one column, first 'CD3'"):
        fitted(kind).get_sample_representation(adata)
    adata.var_names = [f"gene{i}" for i in range(6)]
    with pytest.raises(
        ValueError, match=r"no marker in common with the model: it has \['gene0'.*the model knows \['CD19'"
    ):
        fitted(kind).get_sample_representation(adata)
    adata.var_names = [*MARKERS[:4], "CD99", "CD5"]
    with pytest.warns(UserWarning, match=r"2 of 6 markers in adata are unknown to the model .*\['CD99', 'CD5'\]"):
        rep = fitted(kind).get_sample_representation(adata)
    same(rep, fitted(kind).get_sample_representation(adata[:, MARKERS[:4]].copy()))
    adata = cells()
    adata.uns["panels"] = {"sample": np.array(["s00"]), "measured": np.ones((2, 2))}
    with pytest.raises(ValueError, match=r"uns\['panels'\] is not a record of panels"):
        cls.setup_anndata(adata, "sample", panel="open")
    adata = cells()
    adata.obsm["X_pca"] = adata.X.copy()
    with pytest.raises(ValueError, match="not from obsm"):
        cls.setup_anndata(adata, "sample", use_rep="X_pca", panel="open")
    with pytest.raises(ValueError, match="panel='any' is not one of"):
        cls.setup_anndata(adata, "sample", panel="any")


def test_columns_that_moved_after_the_set_up(kind):
    adata = cells()
    cls, arguments = MODELS[kind]
    cls.setup_anndata(adata, "sample", panel="open")
    model = cls(adata, random_state=0, **arguments)
    adata.var_names = adata.var_names[::-1]
    with pytest.raises(ValueError, match="no longer those that were registered, or in another order"):
        model.train(**FIT)
    adata = cells()
    cls.setup_anndata(adata, "sample", panel="open")
    model = cls(adata, random_state=0, **arguments)
    adata.X[5, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        model.train(**FIT)


@pytest.mark.parametrize("cls", [sst.SelfGuidedMAE])
def test_other_models_say_that_they_take_none(cls):
    with pytest.raises(ValueError, match="reads a fixed panel"):
        cls.setup_anndata(cells(), "sample", panel="open")


def test_a_share_is_a_share():
    adata = cells()
    sst.MAESTRO.setup_anndata(adata, "sample", panel="open")
    with pytest.raises(ValueError, match=r"marker_dropout_rate=1.5"):
        sst.MAESTRO(adata, marker_dropout_rate=1.5)


def test_two_cohorts_are_trained_together(kind):
    a, b = cells(MARKERS[:4]), cells(MARKERS[2:], seed=1)
    both = pp.concat_panels({"a": a, "b": b}, sample_key="sample")
    pp.standardize_markers(both, "cohort")
    cls, arguments = MODELS[kind]
    cls.setup_anndata(both, "sample", layer="standardized", panel="open")
    model = cls(both, random_state=0, **arguments)
    model.train(**FIT)
    assert np.isfinite(model.get_sample_representation().to_numpy()).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.get_sample_representation(both[both.obs["cohort"] == "b"].copy())

"""A store of cohorts whose panels differ: what was not measured stays missing, and models read it as from memory."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scset_tools as sst
from scset_tools.data import _known
from scset_tools.pp import _store_run, _store_writer

pytestmark = pytest.mark.platform


def cohort(name: str, markers: list[str], seed: int, n: int = 80) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame(
        {"sample": rng.choice([f"{name}{i}" for i in range(3)], n)}, index=[f"{name}_{i}" for i in range(n)]
    )
    return ad.AnnData(rng.normal(size=(n, len(markers))).astype(np.float32), obs, pd.DataFrame(index=markers))


@pytest.fixture
def parts(monkeypatch):
    """Two cohorts that share two of four markers; many blocks."""
    monkeypatch.setattr(_store_writer, "ROWS_PER_CHUNK", 4)
    monkeypatch.setattr(_store_run, "ROWS_AT_ONCE", 8)
    return [cohort("a", ["CD3", "CD4", "CD8"], 0), cohort("b", ["CD19", "CD8", "CD4"], 1)]


SMALL = {
    "sample_key": "sample",
    "panel": "open",
    "join": "outer",
    "progress": False,
    "max_bytes": 30 * 4 * _store_run.BYTES_PER_VALUE,
}


def test_markers_that_a_source_lacks_are_missing_and_models_read_them_as_from_memory(tmp_path, parts):
    both = sst.pp.concat_panels(dict(zip("ab", parts, strict=True)), sample_key="sample")
    path = sst.pp.write_store(parts, tmp_path / "c.zarr", **SMALL)
    store = sst.pp.read_store(path)
    x = ad.AnnData(store.X[:], store.obs, store.var)[[n.split("-")[-1] for n in both.obs_names], both.var_names]
    np.testing.assert_array_equal(np.asarray(x.X), both.X)
    said = store.uns["panels"]
    measured = pd.DataFrame(said["measured"], said["sample"], said["marker"])
    assert measured.loc["a0", ["CD3", "CD19"]].tolist() == [True, False]
    assert measured.loc["b2", ["CD3", "CD19"]].tolist() == [False, True]
    assert measured[["CD4", "CD8"]].to_numpy().all()
    assert not _known.known_of(store.X)["is_finite"]
    assert "feature_mean" not in store.uns["store"]
    np.testing.assert_allclose(store.obs["store_total"], np.nansum(store.X[:], axis=1), rtol=1e-5)
    vectors = []
    for cells, key in ((x.copy(), "sample"), (store, "sample")):
        sst.MAESTRO.setup_anndata(cells, key, panel="open")
        model = sst.MAESTRO(cells, n_hidden=8, n_latent=4, n_inducing=2, random_state=0)
        model.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu", seed=0)
        vectors.append(model.get_sample_representation().sort_index())
    pd.testing.assert_frame_equal(*vectors, atol=1e-5)
    with pytest.raises(ValueError, match="not finite"):  # which a model of a fixed panel does not take
        sst.ScSet.setup_anndata(store, "sample")


def test_what_a_source_calls_not_measured_is_missing(tmp_path, parts):
    parts[0].uns["panels"] = {
        "sample": np.array(["a0", "a1", "a2"]),
        "marker": np.array(["CD3", "CD4", "CD8"]),
        "measured": np.array([[True, True, True], [True, False, True], [True, True, True]]),
    }
    store = sst.pp.read_store(sst.pp.write_store(parts[0], tmp_path / "c.zarr", **SMALL))
    x = pd.DataFrame(store.X[:], store.obs["sample"].to_numpy(), store.var_names)
    assert x.loc["a1", "CD4"].isna().all()
    assert x.drop(columns="CD4").notna().all(axis=None)
    assert x.loc[["a0", "a2"]].notna().all(axis=None)


def test_a_stopped_run_goes_on_with_what_it_counted(tmp_path, parts, monkeypatch):
    paths = []
    for i, part in enumerate(parts):
        paths.append(tmp_path / f"{i}.h5ad")
        part.write_h5ad(paths[-1])
    whole = sst.pp.read_store(sst.pp.write_store(paths, tmp_path / "whole.zarr", **SMALL))
    written = []
    block = _store_run.StoreRun._block

    def stop(self, *at):
        written.append(at)
        if len(written) == 3:
            raise KeyboardInterrupt("now")
        return block(self, *at)

    monkeypatch.setattr(_store_run.StoreRun, "_block", stop)
    with pytest.raises(KeyboardInterrupt, match="now"):
        sst.pp.write_store(paths, tmp_path / "c.zarr", **SMALL)
    again = sst.pp.read_store(sst.pp.write_store(paths, tmp_path / "c.zarr", **SMALL))
    assert written[2] == written[3]
    np.testing.assert_array_equal(again.X[:], whole.X[:])
    np.testing.assert_array_equal(again.uns["panels"]["measured"], whole.uns["panels"]["measured"])
    assert not whole.uns["panels"]["measured"].all()


@pytest.mark.parametrize("panel", ["fixed", "open"])
def test_what_is_wrong_with_a_panel_is_named(tmp_path, parts, panel):
    how = {**SMALL, "panel": panel}
    adata = parts[0]
    adata.X[5, 1] = np.nan
    words = {
        "fixed": r"has 1 values that are not finite.*'a_5'.*CD4.*pass panel='open'",
        "open": "part of the cells of a sample.*'CD4'",
    }
    with pytest.raises(ValueError, match=words[panel]):
        sst.pp.write_store(adata, tmp_path / "c.zarr", **how)
    adata.X[5, 1] = np.inf
    with pytest.raises(ValueError, match=r"has 1 values that are not finite.*'a_5'"):
        sst.pp.write_store(adata, tmp_path / "c.zarr", **how)
    assert not (tmp_path / "c.zarr").exists()
    adata.X[5, 1] = 0
    adata.layers["_nan_mask"] = np.ones_like(adata.X)
    if panel == "open":
        with pytest.raises(ValueError, match=r"layers\['_nan_mask'\].*set these values to NaN"):
            sst.pp.write_store(adata, tmp_path / "c.zarr", **how)
    with pytest.raises(ValueError, match="panel='wide' is not one of"):
        sst.pp.write_store(adata, tmp_path / "c.zarr", **{**how, "panel": "wide"})

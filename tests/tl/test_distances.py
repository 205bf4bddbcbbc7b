"""Distances are scipy's, written where the rest of the room reads them."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

import scset_tools as sst


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, 4))
    obs = {"label": ["a", "b", "c"] * 3}
    return ad.AnnData(x.astype(np.float32), obs=obs, obsm={"X_maestro": x[:, :3]})


@pytest.mark.parametrize(
    ("use_rep", "metric", "key_added", "key"),
    [
        ("X_maestro", "euclidean", None, "maestro_distances"),
        (None, "cosine", None, "sample_distances"),
        ("X", "euclidean", None, "sample_distances"),
        ("X_maestro", "correlation", "mine", "mine"),
    ],
)
def test_they_are_those_of_scipy(samples, use_rep, metric, key_added, key):
    assert sst.tl.distances(samples, use_rep, metric=metric, key_added=key_added) is None
    x = samples.obsm["X_maestro"] if use_rep == "X_maestro" else samples.X
    np.testing.assert_allclose(samples.obsp[key], squareform(pdist(x, metric)), atol=1e-6)
    assert samples.obsp[key].dtype == np.float32
    assert samples.uns[key] == {"use_rep": use_rep or "X", "metric": metric}


def test_they_are_read_back_and_written_to_a_file(samples, tmp_path):
    sst.tl.distances(samples, "X_maestro")
    samples.write_h5ad(tmp_path / "s.h5ad")
    read = ad.read_h5ad(tmp_path / "s.h5ad")
    want = sst.tl.get_distances(samples, use_rep="X_maestro")
    np.testing.assert_allclose(sst.tl.get_distances(read, obsp_key="maestro_distances"), want, atol=1e-6)


def test_one_sample(samples):
    one = samples[:1].copy()
    sst.tl.distances(one)
    assert one.obsp["sample_distances"].tolist() == [[0.0]]


def test_bad_input(samples):
    with pytest.raises(KeyError, match=r"'X_no' is not in adata.obsm"):
        sst.tl.distances(samples, "X_no")
    with pytest.raises(ValueError, match="Unknown Distance Metric"):
        sst.tl.distances(samples, metric="no metric")
    samples.X[2] = np.nan
    with pytest.raises(ValueError, match="missing or infinite values in 1 of 9 samples"):
        sst.tl.distances(samples)
    assert "sample_distances" not in samples.obsp


def test_blocks_of_rows_change_nothing(samples, monkeypatch):
    monkeypatch.setattr("scset_tools.tl._distances._ROWS", 2)
    for metric in ("euclidean", "seuclidean", "mahalanobis", "cityblock"):
        sst.tl.distances(samples, "X_maestro", metric=metric)
        x = samples.obsm["X_maestro"].astype(float)
        np.testing.assert_allclose(
            samples.obsp["maestro_distances"], squareform(pdist(x, metric)), rtol=1e-5, atol=1e-6
        )
    samples.obsm["X_maestro"][4] = 1.0
    with pytest.raises(ValueError, match=r"'correlation' distance is not defined for .* of 9 samples"):
        sst.tl.distances(samples, "X_maestro", metric="correlation")


def test_memory_is_that_of_the_result(samples):
    """Not the double-precision copies that scipy's condensed and square forms need: five times as much."""
    import tracemalloc

    many = ad.AnnData(np.random.default_rng(0).normal(size=(1500, 8)).astype(np.float32))
    tracemalloc.start()
    sst.tl.distances(many)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * many.obsp["sample_distances"].nbytes + 8 * 1500 * 256

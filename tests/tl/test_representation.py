"""Reading a representation or distances of a sample-level AnnData."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from scipy.spatial.distance import cdist

from scset_tools.tl import get_distances, get_representation


@pytest.fixture
def samples() -> AnnData:
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    out = AnnData(x, obs=pd.DataFrame(index=[f"s{i}" for i in range(6)]))
    out.obsm["X_a"] = 2 * x
    out.obsm["X_frame"] = pd.DataFrame(3 * x, index=out.obs_names, columns=list("abc"))
    out.obsm["X_sparse"] = sparse.csr_matrix(4 * x)
    out.obsp["d"] = cdist(x, x)
    return out


@pytest.mark.parametrize(("key", "factor"), [(None, 1), ("X", 1), ("X_a", 2), ("X_frame", 3), ("X_sparse", 4)])
def test_representation_is_a_dense_float_copy(samples: AnnData, key: str | None, factor: int) -> None:
    x = get_representation(samples, key)
    assert x.dtype == np.float64
    np.testing.assert_allclose(x, factor * samples.X, rtol=1e-6)
    x[:] = 0
    assert np.abs(get_representation(samples, key)).sum() > 0


def test_representation_refuses_what_it_cannot_read(samples: AnnData) -> None:
    with pytest.raises(KeyError, match=r"'X_b' is not in adata\.obsm"):
        get_representation(samples, "X_b")
    with pytest.raises(TypeError, match="takes an AnnData"):
        get_representation(samples.X)
    samples.X[[1, 4], 0] = [np.nan, np.inf]
    with pytest.raises(ValueError, match=r"2 of 6 samples \(first: \['s1', 's4'\]\)"):
        get_representation(samples)
    samples.obsm["X_text"] = pd.DataFrame({"a": list("abcdef")}, index=samples.obs_names)
    with pytest.raises(
        TypeError, match=r"Column 'a' of samples\.obsm\['X_text'\] holds (object|str) values .* must hold numbers"
    ):
        get_representation(samples, "X_text")
    samples.obsm["X_complex"] = np.full((6, 1), 1 + 2j)
    with pytest.raises(ValueError, match="complex128, but must hold real numbers"):
        get_representation(samples, "X_complex")
    with pytest.raises(KeyError, match=r"samples.X is empty.*X_a"):
        get_representation(AnnData(obs=samples.obs, obsm={"X_a": samples.obsm["X_a"]}))
    samples.obsm["X_none"] = np.zeros((6, 0))
    with pytest.raises(ValueError, match=r"shape \(6, 0\)"):
        get_representation(samples, "X_none")
    samples.obsm["X_cube"] = np.zeros((6, 2, 2))
    with pytest.raises(ValueError, match=r"must have shape \(n_samples=6, n_features\)"):
        get_representation(samples, "X_cube")


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "cityblock"])
def test_distances_of_a_representation_are_scipys(samples: AnnData, metric: str) -> None:
    d = get_distances(samples, use_rep="X_a", metric=metric)
    x = samples.obsm["X_a"].astype(float)
    np.testing.assert_allclose(d, cdist(x, x, metric=metric), atol=1e-10)


def test_one_sample_has_distance_zero_to_itself(samples: AnnData) -> None:
    np.testing.assert_array_equal(get_distances(samples[:1].copy()), [[0.0]])


def test_stored_distances(samples: AnnData) -> None:
    np.testing.assert_array_equal(get_distances(samples, obsp_key="d"), samples.obsp["d"])
    samples.obsp["full"] = sparse.csr_matrix(samples.obsp["d"])
    np.testing.assert_array_equal(get_distances(samples, obsp_key="full"), samples.obsp["d"])


def test_stored_distances_are_checked(samples: AnnData) -> None:
    d = samples.obsp["d"]
    with pytest.raises(KeyError, match=r"'nope' is not in samples\.obsp"):
        get_distances(samples, obsp_key="nope")
    with pytest.raises(ValueError, match="not both"):
        get_distances(samples, use_rep="X_a", obsp_key="d")
    graph = d.copy()
    graph[0, 3] = 0
    samples.obsp["graph"] = sparse.csr_matrix(graph)
    with pytest.raises(ValueError, match="29 of 30 pairs of samples: a neighbour graph"):
        get_distances(samples, obsp_key="graph")
    for name, (i, j), value, message in [
        ("nan", (2, 3), np.nan, r"1 of 6 rows \(first: \['s2'\]\)"),
        ("negative", (1, 2), -9.0, "must hold distances, not similarities"),
        ("asymmetric", (0, 5), 99.0, "samples 's0' and 's5' are 99 apart one way"),
    ]:
        bad = d.copy()
        bad[i, j] = value
        samples.obsp[name] = bad
        with pytest.raises(ValueError, match=message):
            get_distances(samples, obsp_key=name)
    samples.obsp["similar"] = d.max() - d
    with pytest.raises(ValueError, match="looks like a matrix of similarities"):
        get_distances(samples, obsp_key="similar")
    samples.X[3] = 0
    with pytest.raises(ValueError, match=r"'cosine' distance is not defined for .* of 6 samples"):
        get_distances(samples, metric="cosine")


@pytest.mark.parametrize("kind", ["Int64", "masked"])
def test_what_is_missing_is_not_read_as_what_lies_there(samples: AnnData, kind: str) -> None:
    if kind == "Int64":
        samples.obsm["X_odd"] = pd.DataFrame({"a": pd.array([1, 2, None, 4, 5, 6], "Int64")}, index=samples.obs_names)
    else:
        samples.obsm["X_odd"] = np.ma.masked_equal(np.arange(6.0)[:, None], 2)
        assert isinstance(samples.obsm["X_odd"], np.ma.MaskedArray)
    with pytest.raises(ValueError, match=r"missing or infinite values in 1 of 6 samples \(first: \['s2'\]\)"):
        get_representation(samples, "X_odd")

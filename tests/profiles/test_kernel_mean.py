from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import rbf_kernel

from scset_tools import profiles


def test_inner_products_approach_mean_kernels(adata: ad.AnnData) -> None:
    out = profiles.kernel_mean(adata, sample_key="sample", n_components=20_000, bandwidth=2.5)
    kernel = rbf_kernel(adata.X, gamma=1 / (2 * 2.5**2))
    samples = adata.obs["sample"].to_numpy()
    expected = [[kernel[np.ix_(samples == a, samples == b)].mean() for b in out.obs_names] for a in out.obs_names]
    np.testing.assert_allclose(out.X @ out.X.T, expected, atol=0.03)


def test_bandwidth_is_the_median_distance_between_training_cells(adata: ad.AnnData) -> None:
    profile = profiles.KernelMean(sample_key="sample").fit(adata, samples=["s1", "s3"])
    cells = adata.X[adata.obs["sample"].isin(["s1", "s3"]).to_numpy()]
    assert profile.bandwidth_ == pytest.approx(np.median(pdist(cells)), rel=1e-5)


@pytest.mark.parametrize(("n", "value"), [(1, 1.0), (5, 1.0)])
def test_bandwidth_of_equal_cells_is_one(n: int, value: float) -> None:
    cells = ad.AnnData(np.ones((n, 2), dtype=np.float32), obs={"s": ["a"] * n})
    assert profiles.KernelMean(sample_key="s").fit(cells).bandwidth_ == value


def test_bandwidth_of_mostly_equal_cells_is_not_zero() -> None:
    x = np.zeros((10, 2), dtype=np.float32)
    x[0] = 3, 4
    cells = ad.AnnData(x, obs={"s": ["a"] * 10})
    assert profiles.KernelMean(sample_key="s").fit(cells).bandwidth_ == 5.0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"bandwidth": 0.0}, "bandwidth=0.0 must be a finite number above 0"),
        ({"n_components": 0}, "n_components=0 must be a whole number of 1 or more"),
    ],
)
def test_errors(adata: ad.AnnData, args: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        profiles.kernel_mean(adata, sample_key="sample", **args)

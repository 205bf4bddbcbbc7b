from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from scset_tools import profiles
from scset_tools.data._index import order_by_name


def _labels(profile: profiles.Profile, x: np.ndarray) -> np.ndarray:
    return cdist(x, profile.cluster_centers_).argmin(1)


def test_fractions_equal_loop_over_nearest_centres(adata: ad.AnnData) -> None:
    profile = profiles.KMeansFractions(sample_key="sample", n_clusters=4)
    out = profile.fit_transform(adata)
    for i, s in enumerate(out.obs_names):
        labels = _labels(profile, adata.X[(adata.obs["sample"] == s).to_numpy()])
        np.testing.assert_allclose(out.X[i], np.bincount(labels, minlength=4) / len(labels), rtol=1e-6)


def test_means_equal_loop_and_fill_empty_clusters(adata: ad.AnnData) -> None:
    train = ["s0", "s1", "s2", "s3"]
    profile = profiles.KMeansMeans(sample_key="sample", n_clusters=7).fit(adata, samples=train)
    out = profile.transform(adata).X.reshape(6, 7, 5)
    labels, samples, is_train = (
        _labels(profile, adata.X),
        adata.obs["sample"].to_numpy(),
        adata.obs["sample"].isin(train),
    )
    n_filled = 0
    for j in range(7):
        has = [s for s in train if ((labels == j) & (samples == s)).any()]
        fill = np.mean([adata.X[(labels == j) & (samples == s)].mean(0) for s in has], axis=0)
        for i, s in enumerate(sorted(set(samples))):
            cells = adata.X[(labels == j) & (samples == s)]
            n_filled += len(cells) == 0
            np.testing.assert_allclose(out[i, j], cells.mean(0) if len(cells) else fill, rtol=1e-4, atol=1e-5)
    assert n_filled > 0
    assert is_train.sum() == 96


def test_cluster_that_no_fitted_cell_is_in_stands_at_its_centre(adata: ad.AnnData) -> None:
    from scset_tools.profiles._mean import mean_where_present

    means, sizes, centres = np.ones((2, 3, 4)), np.array([[1, 0, 0], [2, 3, 0]]), np.full((3, 4), 9.0)
    out = mean_where_present(means, sizes, otherwise=centres)
    np.testing.assert_array_equal(out, [[1] * 4, [1] * 4, [9] * 4])


def test_clusters_are_those_of_full_k_means() -> None:
    x, _ = make_blobs(6000, n_features=10, centers=15, cluster_std=1.5, random_state=1)
    adata = ad.AnnData(x.astype(np.float32), obs={"s": np.repeat(["a", "b", "c"], 2000)})
    profile = profiles.KMeansFractions(sample_key="s", n_clusters=15, n_fit_cells=3000).fit(adata)
    full = KMeans(15, n_init=5, random_state=0).fit(x)
    assert adjusted_rand_score(full.labels_, _labels(profile, x)) > 0.9


def test_share_of_cells_is_drawn_from_the_training_samples_only(adata: ad.AnnData) -> None:
    profile = profiles.KMeansFractions(sample_key="sample", n_clusters=1, n_fit_cells=20, rng=5)
    centre = profile.fit(adata, samples=["s0"]).cluster_centers_[0]
    by_name = order_by_name(adata.obs_names)
    of_s0 = by_name[(adata.obs["sample"] == "s0").to_numpy()[by_name]]
    drawn = np.random.default_rng(5).choice(40, 20, replace=False, shuffle=False)
    np.testing.assert_allclose(centre, adata.X[of_s0[drawn]].mean(0), rtol=1e-5)


@pytest.mark.parametrize("name", ["KMeansFractions", "KMeansMeans", "MixtureFractions", "OTKE", "KernelMean"])
def test_order_of_rows_means_nothing_to_what_is_fitted_to_drawn_cells(adata: ad.AnnData, name: str) -> None:
    profile = getattr(profiles, name)(sample_key="sample")
    want = profile.fit_transform(adata)
    other = profile.fit_transform(adata[np.random.default_rng(1).permutation(adata.n_obs)].copy())
    np.testing.assert_allclose(other[want.obs_names].X, want.X, rtol=1e-4, atol=1e-5)


def test_centred_log_ratio_of_clusters(adata: ad.AnnData) -> None:
    raw, clr = (profiles.kmeans_fractions(adata, sample_key="sample", n_clusters=3, scale=s) for s in ("raw", "clr"))
    counts = raw.X * raw.obs["n_cells"].to_numpy()[:, None] + 0.5
    np.testing.assert_allclose(clr.X, np.log(counts) - np.log(counts).mean(1, keepdims=True), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("n_clusters", "match"),
    [
        (0, "n_clusters=0 must be a whole number of 1 or more"),
        (32, "between 1 and the number of training cells, but is 32 for 31 cells"),
    ],
)
def test_number_of_clusters_must_fit(adata: ad.AnnData, n_clusters: int, match: str) -> None:
    profile = profiles.KMeansFractions(sample_key="sample", n_clusters=n_clusters)
    with pytest.raises(ValueError, match=match):
        profile.fit(adata, samples=["s1", "s2"])

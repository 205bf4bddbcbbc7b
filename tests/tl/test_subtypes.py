"""Hierarchical subtypes against scipy's tree and scikit-learn's scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy.cluster.hierarchy import is_valid_linkage, leaves_list
from scipy.spatial.distance import cdist
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score

from scset_tools import tl


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    kind = rng.integers(3, size=36)
    x = rng.normal(size=(36, 4)) + 8 * np.eye(3, 4)[kind]
    obs = pd.DataFrame({"kind": kind.astype(str), "random": rng.permutation(kind)}, index=[f"s{i}" for i in range(36)])
    out = AnnData(x, obs=obs)
    out.obsp["d"] = cdist(x, x)
    return out


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("method", ["ward", "average", "complete", "single"])
def test_clusters_are_scikit_learns(samples, method, k):
    tl.subtypes(samples, n_clusters=k, method=method)
    expected = AgglomerativeClustering(k, linkage=method).fit_predict(samples.X)
    assert adjusted_rand_score(expected, samples.obs["subtypes"]) == 1
    assert list(samples.obs["subtypes"].cat.categories) == [str(i + 1) for i in range(k)]


def test_planted_kinds_are_found_without_being_told(samples):
    tl.subtypes(samples, label_keys=["kind", "random"])
    scores = samples.uns["subtypes"]["scores"]
    assert samples.obs["subtypes"].nunique() == 3
    assert scores.loc["kind", "ari"] == scores.loc["kind", "nmi"] == pytest.approx(1)
    assert abs(scores.loc["random", "ari"]) < 0.15
    found, label = samples.obs["subtypes"].to_numpy(), samples.obs["random"].to_numpy()
    assert scores.loc["random", "ari"] == pytest.approx(adjusted_rand_score(label, found))
    assert scores.loc["random", "nmi"] == pytest.approx(normalized_mutual_info_score(label, found))
    silhouette = samples.uns["subtypes"]["silhouette"].set_index("n_clusters")["silhouette"]
    assert silhouette.idxmax() == 3
    assert silhouette[3] == pytest.approx(silhouette_score(samples.X, found))


def test_stored_distances_give_the_same_tree(samples):
    tl.subtypes(samples, method="average", key_added="vectors")
    tl.subtypes(samples, obsp_key="d", key_added="distances")
    np.testing.assert_allclose(samples.uns["vectors"]["linkage"], samples.uns["distances"]["linkage"])
    assert samples.uns["distances"]["params"] == {"method": "average", "n_clusters": 3, "obsp_key": "d"}


def test_tree_is_what_a_clustermap_takes_and_names_follow_it(samples):
    tl.subtypes(samples, n_clusters=4)
    stored = samples.uns["subtypes"]
    assert is_valid_linkage(stored["linkage"])
    assert list(stored["sample_names"]) == list(samples.obs_names)
    along = samples.obs["subtypes"].to_numpy()[leaves_list(stored["linkage"])]
    assert list(pd.unique(along)) == ["1", "2", "3", "4"]
    assert (np.diff(along.astype(int)) >= 0).all()


def test_result_is_written_to_h5ad(samples, tmp_path):
    tl.subtypes(samples, label_keys="kind")
    samples.write_h5ad(tmp_path / "samples.h5ad")
    read = read_h5ad(tmp_path / "samples.h5ad")
    assert list(read.obs["subtypes"]) == list(samples.obs["subtypes"])
    np.testing.assert_array_equal(read.uns["subtypes"]["linkage"], samples.uns["subtypes"]["linkage"])
    assert read.uns["subtypes"]["scores"].loc["kind", "ari"] == pytest.approx(1)


def test_missing_labels_are_left_out_of_the_scores(samples):
    samples.obs["partial"] = samples.obs["kind"].where(np.arange(36) % 3 > 0)
    samples.obs["empty"] = np.nan
    tl.subtypes(samples, label_keys=["partial", "empty"])
    scores = samples.uns["subtypes"]["scores"]
    assert scores.loc["partial", "n_samples"] == 24
    assert scores.loc["partial", "ari"] == pytest.approx(1)
    assert scores.loc["empty", "n_samples"] == 0
    assert np.isnan(scores.loc["empty", "ari"])


def test_identical_samples_are_cut_into_as_many_clusters_as_asked(samples):
    samples.X = np.ones((36, 4))
    tl.subtypes(samples, n_clusters=3)
    assert samples.obs["subtypes"].nunique() == 3


def test_errors_come_before_anything_is_written(samples):
    with pytest.raises(ValueError, match="Ward's criterion needs vectors"):
        tl.subtypes(samples, obsp_key="d", method="ward")
    with pytest.raises(KeyError, match="'nope' is not a column"):
        tl.subtypes(samples, label_keys="nope")
    with pytest.raises(ValueError, match="method must be one of"):
        tl.subtypes(samples, method="median")
    with pytest.raises(ValueError, match="36 samples cannot be clustered into 37 subtypes"):
        tl.subtypes(samples, n_clusters=37)
    with pytest.raises(ValueError, match="2 samples cannot be clustered into any number of"):
        tl.subtypes(samples[:2].copy())
    assert "subtypes" not in samples.obs
    assert "subtypes" not in samples.uns

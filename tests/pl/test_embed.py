"""PCA against scikit-learn; UMAP only that it is seeded and separates what is far apart."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from scset_tools.pl._embed import embed


def test_pca_equals_scikit_learn_up_to_sign():
    x = np.random.default_rng(0).normal(size=(20, 6)) * [5, 4, 3, 1, 1, 1]
    xy, names = embed(x, "pca", rng=0)
    reference = PCA(2).fit(x)
    np.testing.assert_allclose(np.abs(xy), np.abs(reference.transform(x)), atol=1e-9)
    shares = reference.explained_variance_ratio_
    assert names == [f"PC1 ({shares[0]:.0%})", f"PC2 ({shares[1]:.0%})"]


def test_pca_does_not_flip_with_the_order_of_rows():
    x = np.random.default_rng(1).normal(size=(15, 4))
    order = np.random.default_rng(2).permutation(15)
    np.testing.assert_allclose(embed(x[order], "pca", rng=0)[0], embed(x, "pca", rng=0)[0][order], atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 5), (4, 1), (3, 0)])
def test_pca_of_next_to_nothing(shape):
    xy, names = embed(np.ones(shape), "pca", rng=0)
    np.testing.assert_array_equal(xy, np.zeros((shape[0], 2)))
    assert names == ["PC1 (0%)", "PC2 (0%)"]


def test_umap_is_given_a_seed_and_no_more_neighbours_than_there_are(quick_umap):
    x = np.random.default_rng(0).normal(size=(40, 3))
    xy, names = embed(x[:8], "umap", rng=3)
    embed(x, "umap", rng=np.random.default_rng(3))
    embed(x, "umap", rng=4)
    assert names == ["UMAP 1", "UMAP 2"]
    assert xy.dtype == np.float64
    assert [call["n_neighbors"] for call in quick_umap] == [7, 15, 15]
    seeds = [call["random_state"] for call in quick_umap]
    assert seeds[0] == seeds[1] != seeds[2]


@pytest.mark.slow
def test_umap_is_seeded_and_separates_two_clouds():
    x = np.random.default_rng(0).normal(size=(24, 5)) + np.repeat([0, 50], 12)[:, None]
    xy, names = embed(x, "umap", rng=3)
    np.testing.assert_array_equal(xy, embed(x, "umap", rng=3)[0])
    assert names == ["UMAP 1", "UMAP 2"]
    distances = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert ((distances.argmin(axis=1) >= 12) == (np.arange(24) >= 12)).all()


def test_errors():
    with pytest.raises(ValueError, match=r"at least 5 samples, there are 4: use basis='pca'"):
        embed(np.ones((4, 3)), "umap", rng=0)
    with pytest.raises(ValueError, match="basis='tsne' must be 'pca' or 'umap'"):
        embed(np.ones((4, 3)), "tsne", rng=0)

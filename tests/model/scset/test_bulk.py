"""Bulk profiles: vectors and cells of them, alignment by name, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from _cohort import FIT, make_cohort
from anndata import AnnData

import scset_tools as sst
from scset_tools.model.scset._bulk import BulkHead

SMALL = {"n_hidden": 16, "n_latent": 6, "n_cells": 40, "n_heads": 2, "random_state": 0}


def counts(n_samples: int = 12, **arguments):
    """Counts of cells of which T cells have more of the first two markers: profiles are shares, in which a rise of all would not show."""
    adata = make_cohort(n_samples, **arguments)
    is_t = (adata.obs["cell_type"] == "T").to_numpy()
    adata.X = (
        np.random.default_rng(1).poisson(np.where(is_t[:, None] & (np.arange(5) < 2), 40.0, 10.0)).astype(np.float32)
    )
    return adata


def pseudobulk(adata) -> pd.DataFrame:
    return adata.to_df().groupby(adata.obs["sample"].astype(str)).sum()


@pytest.fixture(scope="module")
def model():
    adata = counts()
    sst.ScSet.setup_anndata(adata, "sample")
    model = sst.ScSet(adata, **SMALL)
    model.train(**{**FIT, "train_size": 1.0})
    model.fit_bulk(n_mixtures=5)
    return model


def test_vectors_of_profiles_are_like_those_of_their_cells(model):
    z, guess = model.get_sample_representation(), model.get_bulk_representation(pseudobulk(model.adata))
    assert list(guess.index) == list(z.index)
    # what a profile can tell is the composition, along which the conditions differ; the rest is of single cells
    is_case = np.arange(12) % 2 == 1
    along = z[is_case].mean() - z[~is_case].mean()
    assert np.corrcoef(z @ along, guess @ along)[0, 1] > 0.7
    assert 0 < model.bulk_["error"] < 1
    new = counts(seed=5, prefix="n")
    z, guess = model.get_sample_representation(new), model.get_bulk_representation(pseudobulk(new))
    assert np.corrcoef(z @ along, guess @ along)[0, 1] > 0.6


def test_scale_and_order_of_a_profile_mean_nothing(model):
    bulk = pseudobulk(model.adata)
    want = model.get_bulk_representation(bulk)
    given = AnnData(3.0 * bulk.iloc[:, ::-1])
    given.var_names, given.obs_names = bulk.columns[::-1], bulk.index
    np.testing.assert_allclose(model.get_bulk_representation(given), want, atol=1e-5)
    more = bulk.assign(unknown=1000.0)  # genes that the model does not know are left aside
    np.testing.assert_allclose(model.get_bulk_representation(more), want, atol=1e-5)


def test_cells_of_profiles(model, tmp_path):
    bulk = pseudobulk(model.adata).iloc[:2]
    cells = model.sample_cells(6, bulk=bulk, n_steps=3)
    by_hand = model.sample_cells(6, representation=model.get_bulk_representation(bulk), n_steps=3)
    np.testing.assert_allclose(cells.X, by_hand.X)
    assert list(cells.obs["sample"].cat.categories) == ["s00", "s01"]
    model.save(tmp_path / "model")
    again = sst.ScSet.load(tmp_path / "model", adata=False)
    np.testing.assert_allclose(again.sample_cells(6, bulk=bulk, n_steps=3).X, cells.X, atol=1e-6)
    with pytest.raises(ValueError, match="not several"):
        model.sample_cells(6, bulk=bulk, sample="s00")


def test_missing_genes_are_told_and_count_as_average(model):
    bulk = pseudobulk(model.adata)
    share = bulk["marker_3"].sum() / bulk.to_numpy().sum()
    with pytest.warns(
        UserWarning, match=r"1 of the 5 genes .*\['marker_3'\].* of the counts of training. Coverage: 80.0%"
    ):
        found = model.get_bulk_representation(bulk.drop(columns="marker_3"))
    assert 0.1 < share < 0.3
    z = model.get_bulk_representation(bulk)
    assert np.corrcoef(found.to_numpy().ravel(), z.to_numpy().ravel())[0, 1] > 0.8


def test_means_are_read_as_they_are():
    adata = make_cohort(8)
    adata.X = adata.X - 2.0
    sst.ScSet.setup_anndata(adata, "sample")
    model = sst.ScSet(adata, **SMALL)
    with pytest.raises(ValueError, match="This ScSet is not trained"):
        model.fit_bulk()
    model.train(**FIT)
    mean = adata.to_df().groupby(adata.obs["sample"].astype(str)).mean()
    with pytest.raises(ValueError, match="does not read bulk profiles yet: call fit_bulk"):
        model.get_bulk_representation(mean)
    with pytest.raises(ValueError, match=r"values='counts' adds adata.X up, but sample 's0\d' has negative values"):
        model.fit_bulk()
    model.fit_bulk(values="mean", n_mixtures=2)
    assert model.get_bulk_representation(mean).shape == (8, 6)
    assert len(model.bulk_["support"]) == 3 * 6  # of the training samples
    model.train(**FIT)
    assert model.bulk_ is None  # the vectors are others


def test_bad_profiles_are_refused(model):
    bulk = pseudobulk(model.adata)
    with pytest.raises(TypeError, match="bulk must be a DataFrame of samples x genes or an AnnData, but is ndarray"):
        model.get_bulk_representation(bulk.to_numpy())
    with pytest.raises(ValueError, match="bulk has none of the 5 genes that the model knows"):
        model.get_bulk_representation(bulk.T)
    with pytest.raises(ValueError, match=r"bulk has 1 genes more than once \(first: \['marker_0'\]\)"):
        model.get_bulk_representation(pd.concat([bulk, bulk["marker_0"]], axis=1))
    for value, where in ((np.nan, "s03"), (-1.0, "s03")):
        wrong = bulk.copy()
        wrong.loc["s03", "marker_1"] = value
        with pytest.raises(
            ValueError, match=rf"1 values that are missing, infinite or negative in 1 samples \(first: \['{where}'\]\)"
        ):
            model.get_bulk_representation(wrong)
    with pytest.raises(ValueError, match="values='sum' is not one of"):
        model.fit_bulk(values="sum")


def test_the_head_is_kernel_ridge_regression():
    """Against scikit-learn with the same kernel, and a penalty that does best on samples left out."""
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.metrics.pairwise import rbf_kernel

    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6))
    z = np.stack([x[:, 0] ** 2, x[:, 1]], 1) + 0.1 * rng.normal(size=(40, 2))
    head = BulkHead.fit(x, z, np.arange(40) // 4, genes=list("abcdef"), values="mean")
    gamma = 1 / (2 * head.width**2)
    kernel = head.support @ head.support.T + rbf_kernel(head.support, gamma=gamma)
    fits = [
        KernelRidge(alpha=40 * penalty, kernel="precomputed").fit(kernel, z - z.mean(0)).predict(kernel) + z.mean(0)
        for penalty in np.logspace(-4, 1, 11)
    ]
    found = head(x, np.arange(6))
    assert min(np.abs(f - found).max() for f in fits) < 1e-6
    assert head.error < 0.6

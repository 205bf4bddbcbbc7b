"""A sample-level AnnData is an ordinary AnnData: scanpy works on it, and distances travel in both directions."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

import scset_tools as sst


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
def test_fewer_samples_than_scanpys_components():
    """As documented, with the representation named; without it scanpy asks for 50 components of 48 samples."""
    import scanpy as sc

    few = ad.AnnData(np.random.default_rng(0).normal(size=(48, 60)).astype(np.float32))
    few.obsm["X_model"] = few.X.copy()
    sc.pp.neighbors(few, n_neighbors=10, use_rep="X_model")
    assert few.obsp["distances"].shape == (48, 48)


@pytest.fixture(scope="module")
def samples():
    adata = sst.datasets.composition_cohort(n_samples=16, n_cells=60)
    sst.MAESTRO.setup_anndata(adata, sample_key="sample")
    model = sst.MAESTRO(adata, n_hidden=16, n_latent=8, n_inducing=4, n_cells=30, random_state=0)
    model.train(2, accelerator="cpu", enable_progress_bar=False, seed=0)
    return model.to_sample_adata()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
@pytest.mark.filterwarnings("ignore:n_jobs value 1 overridden:UserWarning")
def test_scanpy(samples, tmp_path):
    import matplotlib.pyplot as plt
    import scanpy as sc

    sc.pp.neighbors(samples, n_neighbors=5, use_rep="X_maestro")
    sc.tl.umap(samples)
    ax = sc.pl.umap(samples, color="subtype", show=False)
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"subtype_0", "subtype_1"}
    assert samples.obsm["X_umap"].shape == (16, 2)
    plt.close("all")
    samples.write_h5ad(tmp_path / "s.h5ad")
    assert "X_umap" in ad.read_h5ad(tmp_path / "s.h5ad").obsm


def test_distances_of_other_tools_and_of_ours(samples):
    """As a table named by samples, in any order: the form in which patpy and others give distances."""
    import pandas as pd

    sst.tl.distances(samples, "X_maestro")
    ours = pd.DataFrame(samples.obsp["maestro_distances"], samples.obs_names, samples.obs_names)
    theirs = ours.sample(frac=1, random_state=0).sample(frac=1, axis=1, random_state=1)
    samples.obsp["other_distances"] = theirs.loc[samples.obs_names, samples.obs_names].to_numpy()
    keys = ["maestro_distances", "other_distances"]
    result = sst.tl.benchmark(
        samples, keys, "subtype", probes="knn", cv=4, n_repeats=1, tune=False, progress=False
    ).summary()
    assert result["mean"].nunique() == 1
    assert sorted(result["representation"]) == keys
    np.testing.assert_allclose(
        sst.tl.get_distances(samples, obsp_key="other_distances"), samples.obsp["maestro_distances"]
    )


def test_a_neighbour_graph_is_not_taken_for_distances(samples):
    sc = pytest.importorskip("scanpy")
    graph = samples.copy()
    sc.pp.neighbors(graph, n_neighbors=5)
    with pytest.raises(ValueError, match="a neighbour graph"):
        sst.tl.get_distances(graph, obsp_key="distances")

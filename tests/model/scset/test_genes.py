"""Generated latents come back as genes."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scvi
import torch
from _cohort import FIT, make_cohort

import scset_tools as sst

SMALL = {"n_hidden": 16, "n_latent": 6, "n_cells": 20, "n_heads": 2, "random_state": 0}


def with_pca(n_comps: int = 6, **options):
    adata = make_cohort(n_features=12)
    sc.pp.pca(adata, n_comps=n_comps, **options)
    return adata


def fitted(adata, use_rep="X_pca"):
    sst.ScSet.setup_anndata(adata, "sample", use_rep=use_rep)
    model = sst.ScSet(adata, **SMALL)
    model.train(**FIT)
    return model


def test_components_are_inverted(tmp_path):
    adata = with_pca(11)
    model = fitted(adata)
    model.register_decoder()
    true = adata.copy()
    latents = model.sample_cells(4, sample="s00", n_steps=3)
    cells = model.to_genes(latents)
    assert list(cells.var_names) == list(adata.var_names)
    assert cells.obs.equals(latents.obs)
    np.testing.assert_allclose(cells.obsm["X_latent"], latents.X)
    want = latents.X @ adata.varm["PCs"].T + adata.X.mean(0)
    np.testing.assert_allclose(cells.X, want, rtol=1e-4, atol=1e-4)
    # true cells come back as far as the components go
    latents = ad.AnnData(true.obsm["X_pca"][:5].astype(np.float32), obs=true.obs.iloc[:5], var=latents.var)
    assert np.corrcoef(model.to_genes(latents).X.ravel(), np.asarray(true.X[:5]).ravel())[0, 1] > 0.95
    model.save(tmp_path / "model")
    again = sst.ScSet.load(tmp_path / "model", adata=False)
    np.testing.assert_allclose(again.to_genes(latents).X, model.to_genes(latents).X)


def test_latents_that_were_chosen_keep_their_components():
    adata = with_pca()
    adata.var["highly_variable"] = [True] * 10 + [False] * 2
    sc.pp.pca(adata, n_comps=6, mask_var="highly_variable")
    sst.pp.highly_variable_latents(adata, "X_pca", kept=[4, 1])
    model = fitted(adata, "X_pca_hv")
    model.register_decoder()
    cells = model.sample_cells(3, sample="s01", n_steps=3)
    genes = model.to_genes(cells)
    assert list(genes.var_names) == list(adata.var_names[:10])  # the others have no loadings
    want = cells.X @ adata.varm["PCs"][:10, [4, 1]].T + adata.X[:, :10].mean(0)
    np.testing.assert_allclose(genes.X, want, rtol=1e-4, atol=1e-4)


def test_what_does_not_belong_together_is_refused():
    adata = with_pca()
    model = fitted(adata)
    cells = model.sample_cells(3, sample="s01", n_steps=2)
    with pytest.raises(ValueError, match="No decoder is registered"):
        model.to_genes(cells)
    other = adata.copy()
    other.layers["logs"] = np.log1p(other.X)
    with pytest.raises(ValueError, match=r"adata.layers\['logs'\] is not what adata.obsm\['X_pca'\] was computed from"):
        model.register_decoder(other, layer="logs")
    with pytest.raises(KeyError, match=r"'loadings' is not in adata.varm. Keys: \['PCs'\]"):
        model.register_decoder(varm_key="loadings")
    model.register_decoder()
    with pytest.raises(ValueError, match="The cells have 12 features"):
        model.to_genes(adata)
    plain = make_cohort()
    sst.ScSet.setup_anndata(plain, "sample")
    with pytest.raises(ValueError, match=r"reads the features of adata\.X or a layer"):
        sst.ScSet(plain, **SMALL).register_decoder()
    adata.obsm["X_named"] = adata.to_df().iloc[:, :3].rename(columns=lambda name: f"a{name[-1]}x")
    sst.ScSet.setup_anndata(adata, "sample", use_rep="X_named")
    with pytest.raises(ValueError, match=r"3 of 3 columns of adata.obsm.'X_named'. have names without a number"):
        sst.ScSet(adata, **SMALL).register_decoder()


@pytest.mark.filterwarnings("ignore")  # of scvi-tools, about a model that is not trained
def test_scvi_decodes_with_latents_that_were_left_out_at_their_mean():
    adata = make_cohort(n_features=4)
    adata.X = np.round(10 * adata.X)
    scvi.model.SCVI.setup_anndata(adata)
    decoder = scvi.model.SCVI(adata, n_latent=3, n_hidden=8)
    decoder.is_trained_ = True
    decoder.module.eval()
    adata.obsm["X_scVI"] = decoder.get_latent_representation()
    sst.pp.highly_variable_latents(adata, "X_scVI", kept=[1, 0])
    model = fitted(adata, "X_scVI_hv")
    model.register_decoder(decoder)
    cells = model.sample_cells(3, sample="s01", n_steps=2)
    left_out = np.full(3, adata.obsm["X_scVI"][:, 2].mean())
    z = torch.tensor(np.stack([cells.X[:, 1], cells.X[:, 0], left_out], 1), dtype=torch.float32)
    with torch.no_grad():
        scale = decoder.module.decoder("gene", z, torch.zeros(3, 1), torch.zeros(3, 1, dtype=torch.int64))[0]
    genes = model.to_genes(cells)
    assert list(genes.var_names) == list(adata.var_names)
    np.testing.assert_allclose(genes.X, 1e4 * scale.numpy(), rtol=1e-3)
    adata.obsm["X_six"] = adata.to_df().iloc[:, :2].set_axis(["scVI_0", "scVI_5"], axis=1)
    other = fitted(adata, "X_six")
    with pytest.raises(ValueError, match=r"The scVI model has 3 latents, but this ScSet reads the latent 5"):
        other.register_decoder(decoder)

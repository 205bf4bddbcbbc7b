"""SelfGuidedMAE at default settings on real cells: guided masks guide, in training and not only before it."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch

import scset_tools as sst
from scset_tools.data._cells import MixedCellDataset

N_EPOCHS = 6


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    """Logarithms of normalised counts of 350 blood cells, which come with scanpy: 250 genes, neither rare nor in every cell."""
    whole = sc.datasets.pbmc68k_reduced().raw.to_adata()[::2]
    expressed = np.asarray((whole.X > 0).sum(0)).ravel()
    adata = whole[:, np.argsort(-expressed)[250:500]].copy()
    sc.pp.filter_cells(adata, min_genes=2)
    adata.obs["donor"] = [f"d{i % 5}" for i in range(adata.n_obs)]
    return adata


def build(cells, **arguments) -> sst.SelfGuidedMAE:
    adata = cells.copy()
    sst.SelfGuidedMAE.setup_anndata(adata, "donor")
    return sst.SelfGuidedMAE(adata, values="normalized", random_state=0, **arguments)


@pytest.fixture(scope="module")
def guided(cells):
    """By candidates: a model at its defaults, and the masks of its last epochs."""
    models = {}
    for candidates in ("expressed", "all"):
        model = build(cells, mask_candidates=candidates)
        quiet = {"accelerator": "cpu", "enable_progress_bar": False, "seed": 0, "stop_at_plateau": False}
        model.train(N_EPOCHS, **quiet)
        models[candidates] = model
    return models


def masks_of_weights(model: sst.SelfGuidedMAE, n_epochs: int = 5) -> pd.DataFrame:
    """How often the masks of these weights hide each gene; nothing is trained."""
    for buffer in model.module.counts.buffers():
        buffer.zero_()
    dataset = MixedCellDataset(model.adata_manager, seed=1, expect_counts=False)
    with torch.no_grad():
        for epoch in range(n_epochs):
            batch = dataset.cells(np.arange(model.adata.n_obs), epoch)
            tokens = model.module.tokens(batch)
            hidden = model.module.hide(tokens, model.module.encoder.embed(tokens), batch.seed)
            model.module.counts.add(tokens, hidden, n_cells=batch.n_cells)
    return model.get_masking_frequency()


def z_variance(table: pd.DataFrame, *, among: str) -> float:
    """Variance over genes of the z of the share in which each was hidden: 1 by chance alone."""
    if among == "expressed":
        table = table[table["times_expressed"] >= 100]
        share, n = table["share_masked_expressed"], table["times_expressed"]
    else:
        share, n = table["share_masked"], table["times_masked"].max() / table["share_masked"].max()
    p = (share * n).sum() / (n * np.ones(len(share))).sum()
    return float(((share - p) / np.sqrt(p * (1 - p) / n)).var())


@pytest.mark.parametrize("among", ["expressed", "all"])
def test_guided_masks_choose_and_random_ones_do_not(cells, guided, among):
    in_training = guided[among].get_masking_frequency()  # of all epochs, the first included
    assert z_variance(in_training, among=among) > 2
    after = masks_of_weights(guided[among])
    assert z_variance(after, among=among) > 10
    random = masks_of_weights(build(cells, masking="random", mask_candidates=among))
    assert 0.7 < z_variance(random, among=among) < 1.4


def test_masks_of_all_genes_find_the_expressed_ones(shared_data):
    """The paper's Figure 2: where all genes are candidates random masks fall on zeros, and guided ones learn to find the others."""
    adata = ad.read_h5ad(shared_data / "pancreas_atlas_hormone2cell.h5ad")
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=300, batch_key="study")
    adata = adata[:, adata.var["highly_variable"]].copy()
    sc.pp.filter_cells(adata, min_genes=2)
    sst.SelfGuidedMAE.setup_anndata(adata, "donor_id")
    model = sst.SelfGuidedMAE(adata, values="normalized", mask_candidates="all", random_state=0)
    model.train(5, n_cells=40, accelerator="cpu", enable_progress_bar=False, seed=0, stop_at_plateau=False)
    counts = model.module.counts
    density = float(counts.times_expressed.sum() / (counts.n_cells * adata.n_vars))
    share = float(counts.times_masked_expressed.sum() / counts.times_masked.sum())
    assert share > 1.25 * density


def test_importance_stays_uneven_and_is_logged(guided):
    for model in guided.values():
        perplexity = model.history["perplexity_train"].iloc[:, 0]
        assert perplexity.iloc[0] < 0.99
        assert perplexity.iloc[-1] < perplexity.iloc[0]  # it gets sharper, not more even


def test_latents_attend_to_different_genes(guided):
    """The term of diversity acts: the overlap of the latents falls in training, and not without the term."""
    model = guided["expressed"]
    overlap = model.history["overlap_train"].iloc[:, 0]
    assert overlap.iloc[-1] < 0.8 * overlap.iloc[0]
    batch = model._dataset(model.adata).cells(np.arange(64))
    tokens = model.module.tokens(batch)
    with torch.no_grad():
        embedded = model.module.encoder.embed(tokens)
        _, attention = model.module.encoder.latents(embedded, tokens.is_real)
    favourite = tokens.gene.gather(1, attention.argmax(-1))  # of each latent in each cell
    assert np.mean([len(set(row)) for row in favourite.tolist()]) > 8


def test_the_term_of_diversity_pulls_about_as_hard_as_the_reconstruction(cells, guided):
    """Its gradient on what forms the attention is no rounding error beside that of the reconstruction."""
    module = guided["expressed"].module
    batch = guided["expressed"]._dataset(guided["expressed"].adata).cells(np.arange(128))
    latents = module.encoder.latents
    parameters = [latents.latents, latents.to_q.weight, latents.to_k.weight]
    metrics = module.train().loss(batch).extra_metrics
    sizes = {}
    for name, weight in (("reconstruction", 1.0), ("overlap", module.attention_weight)):
        gradients = torch.autograd.grad(weight * metrics[name], parameters, retain_graph=True)
        sizes[name] = float(torch.cat([g.flatten() for g in gradients]).norm())
    assert 0.01 < sizes["overlap"] / sizes["reconstruction"] < 100


def test_a_mask_that_does_not_guide_says_so(cells):
    model = build(cells[:60], importance_spread=0.0, attention_weight=0.0)
    with pytest.warns(UserWarning, match=r"nearly a random one.* 1\.0000 of an even one.*larger importance_spread"):
        model.train(1, accelerator="cpu", enable_progress_bar=False, seed=0)

"""MAESTRO acts, at its defaults: it learns what random weights do not see, keeps its rank, and its decoder reads the vector."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV

import scset_tools as sst
from scset_tools.model.maestro._views import student_views

QUICK = {"enable_progress_bar": False, "accelerator": "cpu", "seed": 0}


def effective_rank(vectors: np.ndarray) -> float:
    values = np.linalg.svd(vectors - vectors.mean(0), compute_uv=False) ** 2
    return float(values.sum() ** 2 / (values**2).sum())


def opposed_cohort(n_samples: int = 72, n_cells: int = 150):
    """Two kinds of cells; one marker shifts up in one kind and down in the other, by an amount of the sample."""
    rng = np.random.default_rng(0)
    adata = sst.datasets.varied_cohort(n_samples=n_samples, n_cells=n_cells, n_features=5, n_features_shifted=0, rng=0)
    kinds = sorted(adata.obs["cell_type"].unique())[:2]
    shift = rng.normal(scale=1.5, size=n_samples)
    code = adata.obs["sample"].cat.codes.to_numpy()
    sign = np.where(adata.obs["cell_type"] == kinds[0], 1.0, np.where(adata.obs["cell_type"] == kinds[1], -1.0, 0.0))
    share = [np.bincount(code, weights=sign == s, minlength=n_samples) for s in (1.0, -1.0)]
    # equal and opposite sums: the mean of all cells does not move
    balance = np.where(sign > 0, np.minimum(1, share[1] / share[0].clip(1))[code], np.minimum(1, share[0] / share[1].clip(1))[code])
    adata.X[:, 0] += (sign * balance * shift[code]).astype(np.float32)
    return adata, shift


@pytest.fixture(scope="module")
def cohort():
    return opposed_cohort()


@pytest.fixture(scope="module")
def untrained(cohort):
    sst.MAESTRO.setup_anndata(cohort[0], sample_key="sample")
    return sst.MAESTRO(cohort[0], random_state=0)


@pytest.fixture(scope="module")
def trained(cohort):
    sst.MAESTRO.setup_anndata(cohort[0], sample_key="sample")
    model = sst.MAESTRO(cohort[0], random_state=0)
    model.train(max_epochs=6, **QUICK)
    return model


def r2_of_shift(vectors: np.ndarray, shift: np.ndarray) -> float:
    """R2 of a ridge regression on the held-out third of the samples."""
    n = 2 * len(shift) // 3
    vectors = (vectors - vectors[:n].mean(0)) / (vectors[:n].std(0) + 1e-8)
    predicted = RidgeCV(np.logspace(-2, 4, 13)).fit(vectors[:n], shift[:n]).predict(vectors[n:])
    return 1 - np.square(shift[n:] - predicted).sum() / np.square(shift[n:] - shift[:n].mean()).sum()


@pytest.mark.filterwarnings("ignore:This MAESTRO is not trained")
def test_training_finds_what_the_mean_and_random_weights_do_not_see(cohort, untrained, trained):
    adata, shift = cohort
    mean = sst.profiles.Mean(sample_key="sample").fit(adata).transform(adata).X
    before = r2_of_shift(untrained.get_sample_representation().to_numpy(), shift)
    after = r2_of_shift(trained.get_sample_representation().to_numpy(), shift)
    assert r2_of_shift(np.asarray(mean), shift) < 0.4
    assert after > 0.6
    assert after > before + 0.2


@pytest.mark.filterwarnings("ignore:This MAESTRO is not trained")
def test_training_does_not_lose_rank(untrained, trained):
    before = effective_rank(untrained.get_sample_representation().to_numpy())
    after = effective_rank(trained.get_sample_representation().to_numpy())
    assert after > 0.8 * before


def test_distillation_brings_crops_near_to_the_whole_sample(trained):
    losses = trained.history["distillation_train"].iloc[:, 0]
    assert losses.iloc[-3:].mean() < 0.7 * losses.iloc[:2].mean()


@torch.no_grad()
def test_the_decoder_reads_the_vector_of_its_own_sample(trained):
    """Hidden cells decoded from the vector of another sample lie further from the truth."""
    module = trained.module.eval()
    batch = trained._dataset(trained.adata)[0, list(range(24))]
    x = module.standardize(batch)
    views = student_views(batch.x, batch.ptr, batch.seed, n_cells=module.n_cells, mask_rates=(0.5,))
    z = module.encode_views(x, views)
    own = float(module._reconstruction_loss(x, views, z))
    other = float(module._reconstruction_loss(x, views, z.roll(1, dims=0)))
    assert other > 1.05 * own


@torch.no_grad()
def test_a_decoder_seed_does_not_know_the_row(trained):
    """Sorted cells or shuffled ones: which seed answers to a hidden cell is as good as drawn."""
    batch = trained._dataset(trained.adata)[0, [0]]
    order = batch.x[:, 0].argsort()
    batch = replace(batch, x=batch.x[order])
    views = [
        student_views(batch.x, batch.ptr, torch.tensor([seed]), n_cells=150, mask_rates=(0.5,)) for seed in range(40)
    ]
    # mean slot of the lower and of the upper half of the rows: 74.5 each if slots do not know rows
    lower = np.mean([view.slot[:75].float().mean() for view in views])
    assert abs(lower - 74.5) < 5

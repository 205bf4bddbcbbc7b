"""MAESTRO acts, at its defaults: it learns what random weights do not see, keeps its rank, and its decoder reads the vector."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from _shifts import r2_of_shifts

import scset_tools as sst
from scset_tools._spread import effective_rank
from scset_tools.model.maestro._views import student_views

QUICK = {"enable_progress_bar": False, "accelerator": "cpu", "seed": 0}


@pytest.fixture(scope="module")
def cohort():
    return sst.datasets.varied_cohort(n_samples=192, n_cells=200, n_features=6, n_features_shifted=3, rng=0)


@pytest.fixture(scope="module")
def untrained(cohort):
    sst.MAESTRO.setup_anndata(cohort, sample_key="sample")
    return sst.MAESTRO(cohort, random_state=0)


@pytest.fixture(scope="module")
def trained(cohort):
    sst.MAESTRO.setup_anndata(cohort, sample_key="sample")
    model = sst.MAESTRO(cohort, random_state=0)
    model.train(max_epochs=6, **QUICK)
    return model


@pytest.mark.filterwarnings("ignore:This MAESTRO is not trained")
def test_training_finds_shifts_that_the_mean_and_random_weights_do_not_see(cohort, untrained, trained):
    mean = sst.profiles.Mean(sample_key="sample").fit(cohort).transform(cohort).X
    without = sst.MAESTRO(cohort, random_state=0, n_tokens=0)
    for name, vectors in {
        "mean": np.asarray(mean),
        "untrained": untrained.get_sample_representation().to_numpy(),
        "without tokens": without.get_sample_representation().to_numpy(),
    }.items():
        assert r2_of_shifts(vectors, cohort) < 0.4, name
    assert r2_of_shifts(trained.get_sample_representation().to_numpy(), cohort) > 0.55


@pytest.mark.filterwarnings("ignore:This MAESTRO is not trained")
def test_training_keeps_rank_where_it_once_lost_it(untrained, trained):
    before = effective_rank(untrained.get_sample_representation().to_numpy())
    after = effective_rank(trained.get_sample_representation().to_numpy())
    assert after > before


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
    assert other > 1.04 * own


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

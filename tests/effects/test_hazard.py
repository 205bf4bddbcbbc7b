"""A planted hazard is found from the cells alone."""

from __future__ import annotations

import numpy as np
import pytest

import scset_tools as sst
from scset_tools._metrics import survival_metrics

N_TEST = 40


@pytest.fixture(scope="module")
def cohort():
    """120 samples; the log hazard follows the share of one cell type, times are exponential, a third is censored."""
    cells = sst.datasets.varied_cohort(n_samples=120, n_cells=40, rng=0)
    truth = cells.uns["truth"]
    share = np.log(truth["proportions"][:, 0] + 0.02)
    log_hazard = 4.0 * (share - share.mean()) / share.std()
    rng = np.random.default_rng(0)
    time = rng.exponential(np.exp(-log_hazard))
    end = np.quantile(time, 2 / 3) * rng.uniform(0.5, 2.0, len(time))
    row = {name: i for i, name in enumerate(truth["samples"])}
    of_cell = cells.obs["sample"].astype(str).map(row).to_numpy()
    cells.obs["time"] = np.minimum(time, end)[of_cell]
    cells.obs["event"] = (time <= end)[of_cell]
    return cells, list(truth["samples"]), log_hazard, np.minimum(time, end), time <= end


@pytest.mark.slow
def test_end_to_end_training_from_random_weights_finds_it(cohort):
    cells, names, log_hazard, time, is_event = cohort
    best = survival_metrics(time[-N_TEST:], is_event[-N_TEST:], log_hazard[-N_TEST:])["concordance"]
    sst.PaSCient.setup_anndata(cells, "sample")
    model = sst.PaSCient(cells, n_hidden=32, n_latent=16, random_state=0)
    model.finetune(
        "time",
        event_key="event",
        mode="end_to_end",
        samples=names[:-N_TEST],
        max_epochs=25,
        batch_size=40,
        lr=3e-3,
        seed=0,
        accelerator="cpu",
        enable_progress_bar=False,
    )
    found = model.evaluate(samples=names[-N_TEST:]).loc["concordance", "mean"]
    assert best > 0.8
    assert found > 0.75
    # without the labels there is nothing to find
    shuffled = cells.copy()
    order = np.random.default_rng(1).permutation(len(names))
    of_cell = shuffled.obs["sample"].astype(str).map({n: i for i, n in enumerate(names)}).to_numpy()
    shuffled.obs["time"], shuffled.obs["event"] = time[order][of_cell], is_event[order][of_cell]
    model.finetune(
        "time",
        event_key="event",
        adata=shuffled,
        mode="end_to_end",
        samples=names[:-N_TEST],
        max_epochs=25,
        batch_size=40,
        lr=3e-3,
        seed=0,
        accelerator="cpu",
        enable_progress_bar=False,
    )
    assert model.evaluate(samples=names[-N_TEST:]).loc["concordance", "mean"] < 0.7

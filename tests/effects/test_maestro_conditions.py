"""Covariates of MAESTRO act at default settings: a batch leaves the vectors where that is asked for, and the treatment stays."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import cross_val_score

import scset_tools as sst

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "seed": 0, "watch_health": False}
EFFECTS = {"treatment_shift": 1.0, "batch_shift": 0.6, "n_features": 8, "n_features_shifted": 2, "shift": 0.3}


@pytest.fixture(scope="module")
def cells():
    """24 samples of 80 real blood cells: half of them treated, half of them of another batch."""
    return sst.datasets.varied_cohort(n_samples=24, n_cells=80, rng=0, **EFFECTS)


def vectors(cells, max_epochs, **arguments):
    adata = cells.copy()
    sst.MAESTRO.setup_anndata(adata, "sample", covariate_keys=["treatment", "batch"])
    model = sst.MAESTRO(adata, random_state=0, **arguments)
    model.train(max_epochs, **QUIET)
    return model, model.get_sample_representation()


def accuracy(z, cells, key) -> float:
    known = cells.obs.groupby("sample", observed=True)[key].first().loc[z.index]
    return cross_val_score(RidgeClassifier(), z, known.astype(str), cv=4).mean()


def share_of(z, cells, key) -> float:
    """Share of the variance of the vectors that lies between two classes."""
    known = cells.obs.groupby("sample", observed=True)[key].first().loc[z.index].astype(str)
    means = z.groupby(known).mean().to_numpy()
    return float(np.square(means[0] - means[1]).sum() / 4 / z.to_numpy().var(axis=0).sum())


def test_a_batch_that_the_decoder_is_told_stays_in_the_vectors_until_it_is_weighed(cells):
    """Told alone it stays: the kinds of cells are read from the cells, and the teacher holds the student to them."""
    _, told = vectors(cells, 6)
    model, weighed = vectors(cells, 30, batch_weight={"batch": 1.0})
    assert accuracy(told, cells, "batch") > 0.9
    assert share_of(told, cells, "batch") > 0.1
    assert accuracy(weighed, cells, "batch") < 0.75  # chance is 0.5, of 24 samples
    assert share_of(weighed, cells, "batch") < 0.03
    assert accuracy(weighed, cells, "treatment") > 0.9
    assert model.history["dependence_train"].iloc[-1, 0] < 0.3

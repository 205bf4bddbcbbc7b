"""Covariates of ScSet act at default settings: asked cells are those of the treatment, guidance strengthens, and a batch leaves the vectors."""

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


def trained(cells, **arguments) -> sst.ScSet:
    adata = cells.copy()
    sst.ScSet.setup_anndata(adata, "sample", covariate_keys=["treatment", "batch"])
    model = sst.ScSet(adata, random_state=0, **arguments)
    model.train(100, **QUIET)
    return model


@pytest.fixture(scope="module")
def model(cells):
    return trained(cells)


@pytest.fixture(scope="module")
def corrected(cells):
    return trained(cells, batch_weight=1.0)


def shift_of(own, asked, cells) -> np.ndarray:
    """How far each cell type lies from its own cells, (types, features)."""
    for generated in (own, asked):
        sst.tl.transfer_labels(generated, cells, "cell_type")
    rows = []
    for name in cells.uns["truth"]["cell_types"]:
        rows.append(np.subtract(*(g.X[(g.obs["cell_type"] == name).to_numpy()].mean(0) for g in (asked, own))))
    return np.stack(rows)


def test_asked_cells_are_those_of_the_treatment(model, cells):
    truth = cells.uns["truth"]["treatment_effect"]
    untreated = cells.obs.loc[cells.obs["treatment"] == "control", "sample"].astype(str).unique()[:6]
    own = model.sample_cells(80, sample=list(untreated), n_steps=20)
    asked = model.sample_cells(80, sample=list(untreated), covariates={"treatment": "treated"}, n_steps=20)
    found = shift_of(own, asked, cells)
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.8
    assert 0.5 < (found * truth).sum() / (truth**2).sum() < 1.5


def test_guidance_strengthens_what_is_asked(model, cells):
    truth = cells.uns["truth"]["treatment_effect"].mean(0)
    vectors = model.get_sample_representation()
    middle = vectors.mean(axis=0).to_frame("middle").T  # of both treatments: what is told decides
    along = []
    for guidance in (0.0, 2.0):
        arms = [
            model.sample_cells(
                300, representation=middle, covariates={"treatment": t}, guidance=guidance, n_steps=20
            ).X.mean(0)
            for t in ("treated", "control")
        ]
        along.append(float((arms[0] - arms[1]) @ truth / (truth @ truth)))
    assert along[0] > 0.1
    assert along[1] > 1.5 * along[0]


def test_covariates_leave_the_vectors(model, corrected):
    accuracy = {}
    for name, fitted in (("plain", model), ("corrected", corrected)):
        z = fitted.get_sample_representation()
        batch = fitted.adata.obs.groupby("sample", observed=True)["batch"].first().loc[z.index]
        accuracy[name] = cross_val_score(RidgeClassifier(), z, batch, cv=4).mean()
    assert accuracy["plain"] > 0.9
    assert accuracy["corrected"] < 0.75  # chance is 0.5, of 24 samples
    assert corrected.history["dependence_train"].iloc[-1, 0] < 0.3

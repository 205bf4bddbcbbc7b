"""Vectors of new samples and cells under other covariates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from _cohort import FIT, make_cohort

import scset_tools as sst
from scset_tools.model._covariates import Covariate
from scset_tools.model.scset._prior import VectorPrior

SMALL = {"n_hidden": 16, "n_latent": 6, "n_cells": 20, "n_heads": 2, "random_state": 0}
COVARIATES = [Covariate("group", "class", "covariate_0", ("a", "b")), Covariate("age", "continuous", "covariate_1")]


@pytest.fixture(scope="module")
def model():
    adata = make_cohort()
    sst.ScSet.setup_anndata(
        adata, "sample", covariate_keys={"condition": "class", "age": "continuous", "cell_type": "cell"}
    )
    model = sst.ScSet(adata, **SMALL)
    model.train(**{**FIT, "train_size": 1.0})
    return model


def known(n: int = 400):
    """Vectors of two features: group b lies 3 higher in the first, a year adds 0.1 to the second."""
    rng = np.random.default_rng(0)
    values = pd.DataFrame({"group": rng.integers(0, 2, n).astype(float), "age": rng.normal(50, 10, n)})
    noise = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], n)
    return values, np.stack([3 * values["group"], 0.1 * values["age"]], 1) + noise


def test_the_prior_is_the_regression_that_made_the_vectors():
    values, z = known()
    prior = VectorPrior.fit(z, values, COVARIATES)
    asked = pd.DataFrame({"group": [0.0, 1.0, 1.0], "age": [50.0, 50.0, 60.0]})
    expected = prior.expected(asked, COVARIATES)
    np.testing.assert_allclose(np.diff(expected, axis=0), [[3, 0], [0, 1]], atol=0.25)
    np.testing.assert_allclose(prior.residual, [[1, 0.6], [0.6, 1]], atol=0.15)
    drawn = prior.draw(pd.concat([asked.iloc[1:2]] * 5000), COVARIATES, np.random.default_rng(1))
    np.testing.assert_allclose(drawn.mean(0), expected[1], atol=0.06)
    np.testing.assert_allclose(np.cov(drawn.T), prior.residual, atol=0.08)
    unsaid = pd.DataFrame({"group": [np.nan], "age": [np.nan]})
    np.testing.assert_allclose(prior.expected(unsaid, COVARIATES)[0], z.mean(0), atol=1e-9)


def test_drawn_effects_are_as_uncertain_as_the_regression():
    values, z = known(40)
    prior = VectorPrior.fit(z, values, COVARIATES)
    asked, since = (pd.DataFrame({"group": [g], "age": [50.0]}) for g in (1.0, 0.0))
    rng = np.random.default_rng(0)
    moved = [
        (prior.expected(asked, COVARIATES, effects=e) - prior.expected(since, COVARIATES, effects=e))[0]
        for e in (prior.drawn_effects(rng) for _ in range(2000))
    ]
    standard_error = np.sqrt(1 / (values["group"] == 0).sum() + 1 / (values["group"] == 1).sum())
    np.testing.assert_allclose(np.std(moved, axis=0), standard_error, rtol=0.25)


def test_new_samples_are_drawn(model):
    vectors = model.sample_vectors(200, covariates={"condition": "case"})
    assert vectors.shape == (200, 6)
    assert list(vectors.index[:2]) == ["new_0", "new_1"]
    z = model.get_sample_representation()
    assert (np.abs(vectors.mean() - z.mean()) < 3 * z.std() + 0.1).all()
    pd.testing.assert_frame_equal(model.sample_vectors(200, covariates={"condition": "case"}), vectors)
    assert (
        model.sample_cells(3, representation=vectors.iloc[:2], covariates={"condition": "case"}, n_steps=2).n_obs == 6
    )
    bare = make_cohort()
    sst.ScSet.setup_anndata(bare, "sample")
    plain = sst.ScSet(bare, **SMALL)
    with pytest.raises(ValueError, match="This ScSet is not trained"):
        plain.sample_vectors()
    plain.train(**FIT)
    assert plain.sample_vectors(2).shape == (2, 6)
    with pytest.raises(ValueError, match="n=0 must be a whole number of 1 or more"):
        plain.sample_vectors(0)


def test_counterfactual_cells_come_in_two_arms(model):
    cells = model.counterfactual(["s00", "s02"], "condition", "case", n_cells=6, n_draws=3, n_steps=3)
    assert cells.shape == (2 * 6 * 2 * 3, 5)
    table = cells.obs.groupby("arm", observed=True)["condition"].unique()
    assert list(table["own"]) == ["control"]
    assert list(table["asked"]) == ["case"]
    assert cells.obs.groupby(["draw", "arm", "sample"], observed=True).size().eq(6).all()
    first = cells[(cells.obs["draw"] == 0) & (cells.obs["arm"] == "own")]
    other = cells[(cells.obs["draw"] == 1) & (cells.obs["arm"] == "own")]
    assert np.abs(first.X - other.X).max() > 0.05  # other noise
    older = model.counterfactual("s00", "age", 25.0, n_cells=2, n_draws=1, n_steps=2)
    assert sorted(older.obs["age"].unique()) == [20.0, 25.0]


def test_a_vector_moves_as_the_training_samples_differ(model):
    own = model._own_values(None, ["s00"])
    told = own.assign(condition=0.0)  # "case"
    prior = model._prior()
    want = prior.expected(told, model._covariates) - prior.expected(own, model._covariates)
    np.testing.assert_allclose(model._moved(own, told), want, rtol=1e-5)
    assert np.abs(want).max() > 0
    unknown = own.assign(condition=np.nan)
    np.testing.assert_array_equal(model._moved(unknown, told), 0)
    z = model.get_sample_representation(samples=["s00"])
    by_hand = model.sample_cells(
        4, representation=z + want.astype(np.float32), covariates={"condition": "case", "age": 20.0}, n_steps=3
    )
    np.testing.assert_allclose(
        model.sample_cells(4, sample="s00", covariates={"condition": "case"}, n_steps=3).X, by_hand.X, atol=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (["s00", "s01"], "condition", "case"),
            ValueError,
            r"1 of 2 samples have condition='case' already \(first: \['s01'\]\)",
        ),
        (("s00", "condition", "new"), ValueError, "which no sample of training has"),
        (("s00", "dose", 1), KeyError, "'dose'. is no covariate of this model"),
        (("s00", "cell_type", "B"), ValueError, "'cell_type' is a covariate of cells"),
        (("nope", "condition", "case"), KeyError, "1 of 1 samples are not in the data"),
    ],
)
def test_what_cannot_be_asked_is_refused(model, arguments, error, message):
    with pytest.raises(error, match=message):
        model.counterfactual(*arguments, n_cells=2, n_draws=1)


def test_a_sample_without_the_covariate_has_no_counterfactual(model):
    cells = make_cohort()
    cells.obs["condition"] = cells.obs["condition"].where(cells.obs["sample"] != "s02")
    with pytest.raises(ValueError, match=r"'condition' is missing for 1 of 1 samples \(first: \['s02'\]\)"):
        model.counterfactual("s02", "condition", "case", adata=cells, n_cells=2, n_draws=1)
    with pytest.raises(ValueError, match="n_draws=0 must be a whole number of 1 or more"):
        model.counterfactual("s00", "condition", "case", n_draws=0)

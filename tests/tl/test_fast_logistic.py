"""Permutations solved together give the scores of the probe fitted fold by fold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scset_tools import tl
from scset_tools.tl import _probe
from scset_tools.tl._fast_logistic import is_fast


def cohort(n: int, p: int, seed: int = 0, *, is_grouped: bool = False) -> AnnData:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 2)
    x = rng.normal(size=(n, p)) + 0.7 * y[:, None] * (np.arange(p) == 0)
    x[:, -1] = 3.0  # a constant feature
    donor = np.arange(n) // (2 if is_grouped else 1)
    obs = pd.DataFrame({"y": np.array(["a", "b"])[y], "donor": donor}, index=[f"s{i}" for i in range(n)])
    return AnnData(x, obs=obs)


CASES = {
    "few features": (cohort(40, 5), {}),
    "more features than samples": (cohort(24, 60), {}),
    "donors": (cohort(40, 6, is_grouped=True), {"groups_key": "donor"}),
    "untuned": (cohort(40, 5), {"tune": False}),
    "auroc": (cohort(40, 5), {"metric": "auroc"}),
    "leave one out": (cohort(12, 3), {"cv": 12, "metric": "accuracy"}),
    "asked grid": (cohort(40, 5), {"grid": {"C": [1e4, 1e-2, 1.0]}, "inner_cv": 5}),
    "rare": (cohort(30, 4)[:20], {"cv": 3}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_scores_of_permutations_are_those_of_the_slow_way(name, monkeypatch):
    samples, kwargs = CASES[name]
    options = {"cv": 4, "n_repeats": 1, "n_permutations": 3} | kwargs
    fast = tl.probe(samples, "y", **options)
    monkeypatch.setattr(_probe, "is_fast", lambda *args, **kwargs: False)
    slow = tl.probe(samples, "y", **options)
    np.testing.assert_allclose(fast.null, slow.null, atol=1e-12)
    assert fast.p_value == slow.p_value


def test_probabilities_are_those_of_scikit_learn():
    samples = cohort(40, 5)
    labels = _probe.read_target(samples, "y")
    groups = np.arange(40)
    folds = _probe.make_folds(labels.strata(4), groups, cv=4, n_repeats=1, seed=0)
    run = {"x": samples.X, "groups": groups, "tune": True, "seed": 0}
    together = _probe._fit_together(labels, folds, **run)
    for one, fold in zip(together, folds, strict=True):
        alone = _probe.fit_fold(labels, fold, probe="logistic", is_distance=False, **run)
        assert one.params == alone.params
        np.testing.assert_array_equal(one.values, alone.values)
        np.testing.assert_allclose(one.scores, alone.scores, atol=1e-4)


def test_what_it_does_not_know_goes_the_slow_way():
    labels = _probe.read_target(cohort(20, 2), "y")
    folds = _probe.make_folds(labels.strata(2), np.arange(20), cv=2, n_repeats=1, seed=0)
    assert is_fast("logistic", labels, folds, is_distance=False)
    assert not is_fast("ridge", labels, folds, is_distance=False)
    assert not is_fast("logistic", labels, folds, is_distance=True)
    one = np.flatnonzero(labels.values == 0)
    bare = [_probe.Fold(0, 0, one, folds[0].test)]
    assert not is_fast("logistic", labels, bare, is_distance=False)

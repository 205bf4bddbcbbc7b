"""Folds: complete, grouped, stratified, reproducible; and what makes them impossible."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scset_tools.tl._splits import make_folds, read_groups, seed_of, usable_cv
from scset_tools.tl._targets import Target


def make_target(values: list, *, event: list | None = None) -> Target:
    classes = () if event is not None else tuple(sorted(set(values)))
    codes = np.array(values, dtype=float) if event is not None else np.array([classes.index(v) for v in values])
    kind = "time_to_event" if event is not None else "class"
    return Target("y", kind, np.arange(len(values)), codes, None if event is None else np.array(event), classes, 0)


@pytest.mark.parametrize("n_groups", [60, 20, 7])
def test_each_repeat_tests_every_sample_once_and_never_cuts_a_group(n_groups: int) -> None:
    rng = np.random.default_rng(0)
    groups = np.concatenate([np.arange(n_groups), rng.integers(n_groups, size=60 - n_groups)])
    strata = rng.integers(3, size=60)
    folds = make_folds(strata, groups, cv=5, n_repeats=3, seed=1)
    assert [(f.repeat, f.fold) for f in folds] == [(r, k) for r in range(3) for k in range(5)]
    for r in range(3):
        tested = np.concatenate([f.test for f in folds if f.repeat == r])
        assert sorted(tested) == list(range(60))
    for f in folds:
        assert sorted([*f.train, *f.test]) == list(range(60))
        assert not set(groups[f.train]) & set(groups[f.test])
    assert {tuple(f.test) for f in folds[:5]} != {tuple(f.test) for f in folds[5:10]}


def test_folds_are_stratified() -> None:
    strata = np.array([0] * 40 + [1] * 10)
    for f in make_folds(strata, np.arange(50), cv=5, n_repeats=2, seed=0):
        assert np.bincount(strata[f.test]).tolist() == [8, 2]


def test_folds_depend_on_the_seed_alone() -> None:
    strata, groups = np.arange(30) % 2, np.arange(30) // 2
    one, same, other = (make_folds(strata, groups, cv=3, n_repeats=2, seed=s) for s in (5, 5, 6))
    assert [f.test.tolist() for f in one] == [f.test.tolist() for f in same]
    assert [f.test.tolist() for f in one] != [f.test.tolist() for f in other]
    assert seed_of(3) == seed_of(np.random.default_rng(3))


def test_as_many_folds_as_groups_is_leave_one_group_out_once() -> None:
    groups = np.array([0, 0, 1, 2, 2, 2])
    folds = make_folds(np.arange(6) % 2, groups, cv=3, n_repeats=4, seed=0)
    assert [f.test.tolist() for f in folds] == [[0, 1], [2], [3, 4, 5]]


def test_groups_are_read_and_must_be_complete() -> None:
    obs = pd.DataFrame({"d": pd.Categorical(["x", None, "y", "x"])}, index=list("abcd"))
    samples = AnnData(np.zeros((4, 1)), obs=obs)
    assert read_groups(samples, "d", np.array([0, 2, 3])).tolist() == [0, 1, 0]
    assert read_groups(samples, None, np.array([0, 2, 3])).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"missing for 1 of 4 labelled samples \(first: \['b'\]"):
        read_groups(samples, "d", np.arange(4))


def test_more_folds_than_groups_are_lowered_with_a_warning() -> None:
    target = make_target(["a", "b"] * 5)
    three_donors = np.array([0, 0, 1, 1, 2, 2, 2, 2, 1, 0])
    with pytest.warns(
        UserWarning, match=r"cv is lowered from 5 to 3, because there are 3 groups of 10 labelled samples"
    ):
        assert usable_cv(target, three_donors, 5) == 3
    with pytest.warns(UserWarning, match="cv is lowered from 99 to 5, because 'a' of 'y' occurs in 5 groups only"):
        assert usable_cv(target, np.arange(10), 99) == 5
    with pytest.raises(ValueError, match="are in one group"):
        usable_cv(target, np.zeros(10), 2)


def test_rare_class_lowers_cv_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="cv is lowered from 5 to 3, because 'b' of 'y' occurs in 3 groups only"):
        assert usable_cv(make_target(["a"] * 9 + ["b"] * 3), np.arange(12), 5) == 3
    with pytest.warns(
        UserWarning, match=r"lowered from 5 to 2, because the 2 seen events of samples.obs\['y'\] are in 2 groups"
    ):
        assert usable_cv(make_target([1.0] * 8, event=[True] * 2 + [False] * 6), np.arange(8), 5) == 2
    assert usable_cv(make_target(["a", "b"] * 5), np.arange(10), 5) == 5


def test_class_in_one_group_is_reported_and_does_not_lower_cv() -> None:
    with pytest.warns(UserWarning, match=r"1 classes of samples.obs\['y'\] occur in one group only: \['c'\]"):
        assert usable_cv(make_target(["a", "b"] * 5 + ["c", "c"]), np.array([*range(10), 10, 10]), 5) == 5
    with pytest.raises(ValueError, match=r"Fewer than two classes .* \{'a': 9, 'b': 1\}"):
        usable_cv(make_target(["a"] * 9 + ["b"]), np.arange(10), 5)
    with pytest.raises(ValueError, match="cannot be told from the group"):
        usable_cv(make_target(["a"] * 4 + ["b"] * 4), np.repeat([0, 1], 4), 2)


def test_a_group_may_span_classes() -> None:
    assert usable_cv(make_target(["a", "b"] * 5), np.repeat(np.arange(5), 2), 5) == 5


def test_no_fold_is_empty_even_if_one_group_has_nearly_all() -> None:
    groups = np.array([0] * 50 + [1, 2, 3])
    for f in make_folds(np.arange(53) % 2, groups, cv=3, n_repeats=5, seed=0):
        assert len(f.test) > 0
        assert len(f.train) > 0


def test_repeats_of_grouped_folds_differ_and_are_stratified() -> None:
    """Donors of distinct sizes: an assignment by size would give the same folds in every repeat."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), np.arange(1, 21))
    strata = (rng.permutation(20) % 2)[groups]
    folds = make_folds(strata, groups, cv=4, n_repeats=10, seed=0)
    partitions = {frozenset(tuple(f.test) for f in folds[4 * r : 4 * r + 4]) for r in range(10)}
    assert len(partitions) == 10
    shares = np.array([strata[f.test].mean() for f in folds])
    sizes = np.array([len(f.test) for f in folds])
    assert np.abs(shares - strata.mean()).max() < 0.25
    assert sizes.max() < 2 * 210 / 4

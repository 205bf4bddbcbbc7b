"""Parts of samples: groups stay whole, strata stay balanced, nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scset_tools.data._split import split_samples


@settings(deadline=None, max_examples=100)
@given(
    groups=st.lists(st.integers(0, 8), min_size=3, max_size=40).filter(lambda g: len(set(g)) > 2),
    train_size=st.floats(0.2, 0.7),
    validation_size=st.none() | st.floats(0.0, 0.3),
    seed=st.integers(0, 99),
)
def test_parts_are_disjoint_complete_and_never_cut_a_group(groups, train_size, validation_size, seed):
    groups = np.array(groups)
    parts = split_samples(len(groups), train_size, validation_size, groups=groups, rng=seed)
    assert sorted(np.concatenate(parts)) == list(range(len(groups)))
    held = [set(groups[p]) for p in parts]
    assert sum(map(len, held)) == len(set(groups))
    assert all((np.diff(p) > 0).all() for p in parts)
    assert len(parts[0]) > 0


@settings(deadline=None, max_examples=200)
@given(n=st.integers(2, 300), train_size=st.floats(0.5, 1.0))
def test_without_a_test_share_no_sample_is_left_over(n, train_size):
    train, validation, test = split_samples(n, train_size)
    assert len(test) == 0
    assert len(train) + len(validation) == n
    assert abs(len(validation) - n * (1 - train_size)) <= 1
    train, validation, test = split_samples(n, train_size, 1 - train_size)
    assert len(test) == 0


def test_shares_are_shares_of_samples_or_of_groups():
    assert [len(p) for p in split_samples(20, 0.5, 0.25)] == [10, 5, 5]
    assert [len(p) for p in split_samples(20, 0.9)] == [18, 2, 0]
    assert [len(p) for p in split_samples(20, 1.0)] == [20, 0, 0]
    assert [len(p) for p in split_samples(5, 0.5, 0.0)] == [2, 0, 3]
    assert [len(p) for p in split_samples(3, 0.95)] == [2, 1, 0]  # a share, however small, is at least one sample
    groups = np.repeat(np.arange(4), [1, 2, 3, 10])
    parts = split_samples(16, 0.5, 0.25, groups=groups)
    assert [len(set(groups[p])) for p in parts] == [2, 1, 1]


@pytest.mark.parametrize("seed", range(5))
def test_strata_come_in_like_proportions(seed):
    strata = np.random.default_rng(seed).permutation(np.repeat(["x", "y", "z"], [20, 40, 60]))
    for part in split_samples(120, 0.6, 0.2, strata=strata, rng=seed):
        counts = {s: (strata[part] == s).sum() for s in "xyz"}
        for s, share in (("x", 1 / 6), ("y", 1 / 3), ("z", 1 / 2)):
            assert abs(counts[s] - share * len(part)) <= 1


def test_a_group_counts_as_the_class_of_its_first_sample():
    groups = np.repeat(np.arange(12), 3)
    strata = np.where(groups % 2, "case", "control")
    for part in split_samples(36, 0.5, 0.25, groups=groups, strata=strata, rng=1):
        held = np.unique(groups[part])
        assert abs((held % 2).sum() - len(held) / 2) <= 1


def test_missing_strata_are_a_stratum_of_their_own():
    strata = np.array([0.0, np.nan] * 10)
    for part in split_samples(20, 0.5, strata=strata, rng=0):
        assert np.isnan(strata[part]).sum() * 2 == len(part)


def test_a_seed_repeats_the_split_and_another_draws_another():
    a, b, c = (split_samples(40, 0.5, rng=seed)[0].tolist() for seed in (1, 1, 2))
    assert a == b != c
    assert split_samples(40, 0.5, rng=np.random.default_rng(1))[0].tolist() == a
    in_order = split_samples(10, 0.7, 0.2, shuffle=False)
    assert [p.tolist() for p in in_order] == [[2, 3, 4, 5, 6, 7, 8], [0, 1], [9]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 0.0), r"train_size=0.0 must be in \(0, 1\]"),
        ((10, 1.1), r"train_size=1.1 must be in \(0, 1\]"),
        ((10, 0.9, 0.2), "train_size=0.9 must be .* with validation_size=0.2 add up to at most 1"),
        ((10, 0.9, -0.1), "validation_size=-0.1 add up to at most 1"),
        ((1, 0.9), "leave nothing to train on: there are 1 samples. Give train_size=1"),
    ],
)
def test_shares_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        split_samples(*arguments)


def test_one_group_cannot_be_split():
    with pytest.raises(ValueError, match="leave nothing to train on: there are 1 groups"):
        split_samples(9, 0.9, groups=np.zeros(9))

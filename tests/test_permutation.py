"""Permuted labels keep what is exchangeable and nothing else."""

from __future__ import annotations

import itertools
import warnings
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from scset_tools._permutation import n_rearrangements, permute_labels, smallest_p, warn_of_few_rearrangements
from scset_tools.tl._permuted_tests import rank_p_values


def test_samples_without_groups_are_permuted_freely() -> None:
    labels = np.arange(10) % 2
    draws = [permute_labels(labels, np.arange(10), np.random.default_rng(s)) for s in range(200)]
    assert all(sorted(p) == list(range(10)) for p in draws)
    assert abs(np.mean([labels[p][0] for p in draws]) - 0.5) < 0.15


def test_label_constant_in_groups_moves_between_groups_as_one() -> None:
    groups = np.array([4, 4, 4, 2, 2, 9])
    labels = np.array([0, 0, 0, 1, 1, 1])
    seen = set()
    for s in range(100):
        permuted = labels[permute_labels(labels, groups, np.random.default_rng(s))]
        assert all(len(set(permuted[groups == g])) == 1 for g in (2, 4, 9))
        assert sorted(permuted[[0, 3, 5]]) == [0, 1, 1]
        seen.add(tuple(permuted))
    assert len(seen) == 3


def test_paired_design_keeps_its_pairs() -> None:
    groups, labels = np.repeat(np.arange(8), 2), np.tile([0, 1], 8)
    seen = set()
    for s in range(50):
        permuted = labels[permute_labels(labels, groups, np.random.default_rng(s))]
        assert all(sorted(permuted[groups == g]) == [0, 1] for g in range(8))
        seen.add(tuple(permuted))
    assert len(seen) > 30


def drawn(codes: list, groups: list, n: int = 4000) -> Counter:
    codes, rng = np.asarray(codes), np.random.default_rng(0)
    return Counter(tuple(codes[permute_labels(codes, np.asarray(groups), rng)].tolist()) for _ in range(n))


def enumerated(codes: list, groups: list) -> set:
    """All labelings of groups of one size that exchange whole groups and shuffle within them."""
    members = [[c for c, g in zip(codes, groups, strict=True) if g == h] for h in dict.fromkeys(groups)]
    out = set()
    for order in itertools.permutations(members):
        for parts in itertools.product(*(set(itertools.permutations(m)) for m in order)):
            out.add(tuple(itertools.chain(*parts)))
    return out


@pytest.mark.parametrize(
    ("codes", "groups"),
    [
        pytest.param([0, 0, 0, 1, 1], [0, 1, 2, 3, 4], id="samples"),
        pytest.param([0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2], id="pairs"),
        pytest.param([0, 0, 1, 1, 0, 1], [0, 0, 1, 1, 2, 2], id="pure-and-mixed"),
        pytest.param([0, 1, 2, 3], [0, 0, 1, 1], id="numbers"),
    ],
)
def test_labelings_and_their_number_are_those_of_enumeration(codes: list, groups: list) -> None:
    found, every = drawn(codes, groups), enumerated(codes, groups)
    assert set(found) == every
    assert n_rearrangements(np.asarray(codes), np.asarray(groups)) == len(every)
    counts = np.array(list(found.values()))  # all equally likely
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 3 * len(every) + 10


def test_donors_of_unequal_size_exchange_labels_although_one_is_mixed() -> None:
    sizes = np.arange(2, 12)
    groups, codes = np.repeat(np.arange(10), sizes), np.repeat(np.arange(10) % 2, sizes)
    codes[0] = 1
    rng = np.random.default_rng(0)
    for _ in range(50):
        shuffled = codes[permute_labels(codes, groups, rng)]
        n_mixed = sum(len(np.unique(shuffled[groups == g])) > 1 for g in range(10))
        assert n_mixed <= 1  # the make-up of nine donors is pure, whoever takes it over
    assert n_rearrangements(codes, groups) == 10 * 126 * 2


def test_permutations_of_unequal_mixed_groups_hold_their_level() -> None:
    """A donor effect in labels and values, and nothing else: p-values are no smaller than they should be."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), rng.integers(1, 7, 12))
    p = []
    for _ in range(200):
        codes = (rng.random(len(groups)) < rng.beta(0.3, 0.3, 12)[groups]).astype(int)
        x = rng.normal(size=12)[groups] + 0.3 * rng.normal(size=len(groups))

        def statistic(y: np.ndarray, x: np.ndarray = x) -> float:
            return abs(np.corrcoef(y, x)[0, 1]) if 0 < y.sum() < len(y) else 0.0

        null = [statistic(codes[permute_labels(codes, groups, rng)]) for _ in range(59)]
        p.append((1 + np.sum(np.asarray(null) >= statistic(codes) - 1e-12)) / 60)
    assert 0.01 <= np.mean(np.asarray(p) <= 0.1) <= 0.16


def test_the_smallest_p_value_is_counted_and_said() -> None:
    codes, groups = np.array([0, 0, 0, 1, 1, 1]), np.arange(6)
    assert smallest_p(codes, groups, is_class=True) == pytest.approx(2 / 20)  # the labels may trade places
    assert smallest_p(codes, groups, is_class=False) == pytest.approx(1 / 20)
    assert smallest_p(np.array([0, 0, 1]), np.arange(3), is_class=True) == pytest.approx(1 / 3)
    with pytest.warns(UserWarning, match=r"6 samples can be arranged in 20 ways only: no p-value below 0.1"):
        warn_of_few_rearrangements(codes, groups, 99, label_key="y", is_class=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_few_rearrangements(codes, groups, 5, label_key="y", is_class=True)


def all_labelings(codes: np.ndarray, groups: np.ndarray) -> set[tuple[int, ...]]:
    """By brute force: donors exchange their make-up, and shuffle it within. Sizes are equal, or donors have one label each."""
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    found = set()
    for order in itertools.permutations(range(len(members))):
        within = []
        for to, source in zip(members, order, strict=True):
            given = codes[members[source]]
            given = given if len(given) == len(to) else np.full(len(to), given[0])
            within.append(set(itertools.permutations(given)))
        for parts in itertools.product(*within):
            out = np.empty(len(codes), dtype=int)
            for to, part in zip(members, parts, strict=True):
                out[to] = part
            found.add(tuple(out.tolist()))
    return found


def small_design(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Labels and donors of up to five donors: two visits each, with whatever labels; or any sizes, with one label each."""
    n_groups, n_classes = int(rng.integers(2, 6)), int(rng.integers(2, 4))
    if rng.random() < 0.5:
        size = int(rng.integers(1, 3))
        groups = np.repeat(np.arange(n_groups), size)
        return rng.integers(0, n_classes, len(groups)), groups
    sizes = rng.integers(1, 4, n_groups)
    return np.repeat(rng.integers(0, n_classes, n_groups), sizes), np.repeat(np.arange(n_groups), sizes)


@pytest.mark.parametrize("n_designs", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_the_labelings_are_the_enumerated_ones(n_designs: int) -> None:
    for seed in range(n_designs):
        rng = np.random.default_rng(seed)
        codes, groups = small_design(rng)
        if len(np.unique(codes)) < 2:
            continue
        listed = all_labelings(codes, groups)
        assert n_rearrangements(codes, groups) == len(listed)
        drawn = Counter(tuple(codes[permute_labels(codes, groups, rng)].tolist()) for _ in range(60))
        assert set(drawn) <= listed
        # labelings that are the true one with classes renamed are no evidence against it
        renamed = {tuple(int(to[c]) for c in codes) for to in itertools.permutations(range(codes.max() + 1))}
        least = len(renamed & listed) / len(listed)
        assert smallest_p(codes, groups, is_class=True) == pytest.approx(least)


@pytest.mark.parametrize("n_designs", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_permutation_p_values_are_the_enumerated_ones(n_designs: int) -> None:
    """Rank-sum tests of two columns, 499 permutations against all arrangements of the labels; five standard errors apart at most."""
    for seed in range(n_designs):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(4, 9))
        y = np.concatenate([[0, 1], rng.integers(0, 2, n - 2)])
        x = np.column_stack([rng.normal(size=n) + y, rng.integers(0, 3, n)])
        x[0, 1] = 3.0  # not constant
        got = rank_p_values(
            x, y.astype(float), is_class=True, order=np.arange(n), blocks=np.zeros(n), n_permutations=499, seed=seed
        )
        ranks = stats.rankdata(x, axis=0)
        sums = np.stack([ranks[list(c)].sum(axis=0) for c in itertools.combinations(range(n), int(y.sum()))])
        middle = ranks.mean(axis=0) * y.sum()
        exact = (np.abs(sums - middle) >= np.abs(ranks[y == 1].sum(axis=0) - middle) - 1e-9).mean(axis=0)
        assert (np.abs(got - exact) <= 5 * np.sqrt(exact * (1 - exact) / 499) + 1 / 500).all(), seed

"""Permuted labels keep what is exchangeable and nothing else."""

from __future__ import annotations

import numpy as np

from scset_tools._labels import permute_labels


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

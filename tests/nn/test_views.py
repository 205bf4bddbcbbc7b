"""Random and farthest-point views against brute-force loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scset_tools.nn import cell_uniform, farthest_point_view, random_view


def boundaries(sizes: list[int]) -> torch.Tensor:
    return torch.tensor(np.concatenate([[0], np.cumsum(sizes)]), dtype=torch.int64)


def slow_farthest_points(x: np.ndarray, n_points: int, start: int) -> list[int]:
    """All distances anew at each step; ties go to the earlier cell."""
    chosen = [start]
    while len(chosen) < n_points:
        best, best_distance = -1, -1.0
        for i in range(len(x)):
            nearest = min(((x[i] - x[j]) ** 2).sum() for j in chosen)
            if i not in chosen and nearest > best_distance:
                best, best_distance = i, nearest
        chosen.append(best)
    return chosen


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=5),
    n_cells=st.integers(1, 35),
    seed=st.integers(0, 10**6),
)
def test_random_view(sizes: list[int], n_cells: int, seed: int):
    u = torch.tensor(np.random.default_rng(seed).random(sum(sizes)))
    ptr = boundaries(sizes)
    index, ptr_view = random_view(ptr, n_cells, u=u)
    expected = []
    for start, n in zip(ptr[:-1].tolist(), sizes, strict=True):
        smallest = np.argsort(u[start : start + n].numpy())[:n_cells]
        expected.append(start + np.sort(smallest))
    assert index.tolist() == np.concatenate(expected).tolist()
    assert ptr_view.tolist() == boundaries([len(e) for e in expected]).tolist()
    assert index.dtype == ptr_view.dtype == torch.int64


def test_random_view_is_uniform_over_cells():
    n_samples, n = 4000, 10
    ptr = torch.arange(n_samples + 1) * n
    index, _ = random_view(ptr, 3, u=cell_uniform(torch.arange(n_samples), ptr, stream=0))
    share = np.bincount(index.numpy() % n, minlength=n) / n_samples
    # Standard error of each share is sqrt(.3 * .7 / 4000) = 0.007.
    np.testing.assert_allclose(share, 0.3, atol=0.03)


def test_random_view_ignores_batch_mates():
    seed, ptr = torch.tensor([3, 4, 5]), boundaries([50, 0, 20])
    index, _ = random_view(ptr, 8, u=cell_uniform(seed, ptr, stream=0))
    alone, _ = random_view(boundaries([20]), 8, u=cell_uniform(seed[2:], boundaries([20]), stream=0))
    assert torch.equal(index[8:] - 50, alone)


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 14), min_size=1, max_size=4),
    n_cells=st.integers(1, 16),
    is_on_grid=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_farthest_point_view(sizes: list[int], n_cells: int, is_on_grid: bool, seed: int):
    """On the grid there are many duplicates and ties, and all distances are exact."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 3, size=(sum(sizes), 2)).astype(float) if is_on_grid else rng.normal(size=(sum(sizes), 3))
    start = [int(rng.integers(n)) if n else 0 for n in sizes]
    ptr = boundaries(sizes)
    index, ptr_view = farthest_point_view(torch.tensor(x), ptr, n_cells, start=torch.tensor(start))
    expected = []
    for first, n, s in zip(ptr[:-1].tolist(), sizes, start, strict=True):
        block = x[first : first + n]
        kept = list(range(n)) if n <= n_cells else slow_farthest_points(block, n_cells, s)
        expected.append(first + np.sort(np.array(kept, dtype=int)))
    assert index.tolist() == np.concatenate(expected).tolist()
    assert ptr_view.tolist() == boundaries([len(e) for e in expected]).tolist()


def test_rare_cluster_is_always_covered():
    """One rare cell in 500, far away: the second point finds it from any start, where a random view seldom would."""
    x = torch.randn(500, 5, generator=torch.Generator().manual_seed(0))
    x[123] = 20.0
    for start in range(0, 500, 25):
        index, _ = farthest_point_view(x, boundaries([500]), 2, start=torch.tensor([start]))
        assert 123 in index.tolist()


def test_duplicates_are_not_drawn_twice():
    x = torch.zeros(6, 2)
    index, _ = farthest_point_view(x, boundaries([6]), 4, start=torch.tensor([5]))
    assert index.tolist() == [0, 1, 2, 5]


def test_half_precision_input():
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    half, _ = farthest_point_view(x, boundaries([60]), 20, start=torch.tensor([1]))
    full, _ = farthest_point_view(x.double(), boundaries([60]), 20, start=torch.tensor([1]))
    assert torch.equal(half, full)


def test_no_samples():
    nothing = torch.zeros(0, dtype=torch.int64)
    for index, ptr_view in (
        random_view(boundaries([]), 3, u=torch.zeros(0)),
        farthest_point_view(torch.zeros(0, 2), boundaries([]), 3, start=nothing),
    ):
        assert index.shape == (0,)
        assert ptr_view.tolist() == [0]


def test_errors():
    with pytest.raises(ValueError, match="n_cells must be at least 1, got 0"):
        random_view(boundaries([3]), 0, u=torch.zeros(3))
    with pytest.raises(ValueError, match="start 5 of sample 0 is not a position among its 5 cells"):
        farthest_point_view(torch.zeros(5, 1), boundaries([5]), 2, start=torch.tensor([5]))

"""Ragged batches against plain Python loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scset_tools.nn import (
    from_padded,
    ptr_from_sizes,
    sample_of_cell,
    segment_mean,
    segment_softmax,
    segment_sum,
    sizes,
    to_padded,
)

SIZES = st.lists(st.integers(0, 6), min_size=0, max_size=6)


def _batch(counts: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(counts), 3, dtype=torch.float64, generator=generator)
    return x, ptr_from_sizes(counts)


@settings(max_examples=50, deadline=None)
@given(SIZES)
def test_ptr_sizes_and_sample_of_cell_describe_the_same_sets(counts):
    ptr = ptr_from_sizes(counts)
    assert ptr.dtype == torch.int64
    assert ptr.tolist() == [sum(counts[:i]) for i in range(len(counts) + 1)]
    assert sizes(ptr).tolist() == counts
    long = [i for i, count in enumerate(counts) for _ in range(count)]
    assert sample_of_cell(ptr).tolist() == long
    assert sample_of_cell(ptr, n_cells=len(long)).tolist() == long


@settings(max_examples=50, deadline=None)
@given(SIZES)
def test_to_padded_places_every_cell_and_from_padded_inverts_it(counts):
    x, ptr = _batch(counts)
    dense, is_real = to_padded(x, ptr)
    assert dense.shape == (len(counts), max(counts, default=0), 3)
    for i, count in enumerate(counts):
        assert is_real[i].tolist() == [True] * count + [False] * (dense.shape[1] - count)
        assert torch.equal(dense[i, :count], x[ptr[i] : ptr[i + 1]])
        assert (dense[i, count:] == 0).all()
    back, back_ptr = from_padded(dense, is_real)
    assert torch.equal(back, x)
    assert torch.equal(back_ptr, ptr)


@settings(max_examples=50, deadline=None)
@given(SIZES)
def test_segment_operations_equal_a_loop(counts):
    x, ptr = _batch(counts)
    parts = [x[ptr[i] : ptr[i + 1]] for i in range(len(counts))]
    total, mean, weights = segment_sum(x, ptr), segment_mean(x, ptr), segment_softmax(x, ptr)
    assert total.shape == mean.shape == (len(counts), 3)
    assert weights.shape == x.shape
    for i, part in enumerate(parts):
        torch.testing.assert_close(total[i], part.sum(0))
        torch.testing.assert_close(mean[i], part.sum(0) / max(len(part), 1))
        expected = part.exp() / part.exp().sum(0)
        torch.testing.assert_close(weights[ptr[i] : ptr[i + 1]], expected)


def test_real_slots_may_lie_anywhere_and_the_others_may_hold_nan():
    dense = torch.tensor([[[1.0], [float("nan")], [2.0]], [[float("nan")]] * 3], requires_grad=True)
    is_real = torch.tensor([[True, False, True], [False, False, False]])
    x, ptr = from_padded(dense, is_real)
    assert x.flatten().tolist() == [1.0, 2.0]
    assert ptr.tolist() == [0, 2, 2]
    x.square().sum().backward()
    assert dense.grad.flatten().tolist() == [2.0, 0.0, 4.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("operation", [segment_sum, segment_mean, segment_softmax, lambda x, ptr: to_padded(x, ptr)[0]])
def test_gradients(operation):
    x, ptr = _batch([2, 0, 3])
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda values: operation(values, ptr), (x,))


def test_segment_softmax_survives_huge_scores_and_minus_infinity():
    scores = torch.tensor([1e30, 1e30, -torch.inf, -torch.inf, 0.0, -torch.inf], requires_grad=True)
    weights = segment_softmax(scores, ptr_from_sizes([2, 2, 2]))
    assert weights.tolist() == [0.5, 0.5, 0.0, 0.0, 1.0, 0.0]
    (weights * torch.arange(6.0)).sum().backward()
    assert torch.isfinite(scores.grad).all()


def test_half_precision_is_summed_in_float32():
    x = torch.full((5000, 1), 0.01, dtype=torch.bfloat16)
    expected = x.double().sum()
    total = segment_sum(x, ptr_from_sizes([5000]))
    assert total.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits: its own running sum would stall near 2.
    assert abs(total.item() - expected) <= 2**-8 * expected


def test_a_large_set_beside_a_single_cell():
    x = torch.rand(100_001, 2, generator=torch.Generator().manual_seed(0))
    mean = segment_mean(x, ptr_from_sizes([100_000, 1]))
    torch.testing.assert_close(mean[0].double(), x[:100_000].double().mean(0), rtol=1e-6, atol=0)
    assert torch.equal(mean[1], x[100_000])


@pytest.mark.parametrize(
    ("ptr", "message"),
    [
        pytest.param([0, 2], r"run from 0 to the number of cells \(3\), but it runs from 0 to 2", id="short"),
        pytest.param([1, 3], "it runs from 1 to 3", id="late start"),
        pytest.param([], "it runs from nothing", id="empty"),
        pytest.param([0, 4, 3], "must not decrease, but falls from 4 to 3 at 1", id="decreasing"),
    ],
)
def test_boundaries_that_do_not_fit(ptr, message):
    with pytest.raises(ValueError, match=message):
        segment_sum(torch.ones(3, 1), torch.tensor(ptr, dtype=torch.int64))


def test_messages_of_the_converters():
    with pytest.raises(ValueError, match="must not be negative, found -1 for sample 1"):
        ptr_from_sizes([2, -1])
    with pytest.raises(ValueError, match=r"one entry per sample, found shape \(1, 2\)"):
        ptr_from_sizes([[1, 2]])
    with pytest.raises(ValueError, match=r"boolean of shape \(2, 3\).*found torch.float32"):
        from_padded(torch.ones(2, 3, 1), torch.ones(2, 3))

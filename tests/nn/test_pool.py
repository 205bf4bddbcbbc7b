"""Pools against loops over samples and cells written from the formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scset_tools.nn import (
    FeatureSoftmaxPool,
    GatedAttentionPool,
    LinearAttentionPool,
    MeanPool,
    NonLinearAttentionPool,
    SumPool,
    ptr_from_sizes,
    stream_pool,
    stream_pool_weights,
)

N = 4
SIZES = st.lists(st.integers(0, 6), min_size=1, max_size=5)
POOLS = {
    "mean": lambda: MeanPool(),
    "sum": lambda: SumPool(),
    "linear": lambda: LinearAttentionPool(N),
    "feature_softmax": lambda: FeatureSoftmaxPool(),
    "nonlinear": lambda: NonLinearAttentionPool(N, n_hidden=7),
    "abmil": lambda: GatedAttentionPool(N, n_hidden=5),
    "gated": lambda: GatedAttentionPool(N, n_hidden=5, is_gate_scalar=True),
}


@pytest.fixture(params=POOLS)
def kind(request):
    return request.param


def make(kind):
    torch.manual_seed(0)
    return POOLS[kind]().double()


def batch(counts, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sum(counts), N, dtype=torch.float64, generator=generator), ptr_from_sizes(counts)


def score_by_hand(kind, pool, z):
    """Score of one cell, with plain numbers, from the formula of each pool: a list with one entry or one per feature."""
    w = {name: p.detach().tolist() for name, p in pool.named_parameters()}

    def affine(name, x):
        rows, bias = w[f"{name}.weight"], w.get(f"{name}.bias")
        return [
            sum(a * b for a, b in zip(row, x, strict=True)) + (bias[i] if bias else 0.0) for i, row in enumerate(rows)
        ]

    def network(name, x):
        return affine(f"{name}.3", [math.tanh(v) for v in affine(f"{name}.0", x)])[0]

    def sigmoid(v):
        return 1 / (1 + math.exp(-v))

    if kind in ("mean", "sum"):
        return [0.0]
    if kind == "linear":
        return affine("score", z)
    if kind == "feature_softmax":
        return z
    if kind == "nonlinear":
        return [network("score", z)]
    if kind == "gated":
        return [network("value", z) * sigmoid(network("gate", z))]
    gated = [math.tanh(v) * sigmoid(u) for v, u in zip(affine("value", z), affine("gate", z), strict=True)]
    return affine("score", gated)


def slow_pool(kind, pool, cells):
    """Pooled vector and weights of one sample, cell by cell."""
    scores = [score_by_hand(kind, pool, z) for z in cells]
    width = len(scores[0]) if scores else 1
    weights = []
    for s in scores:
        if kind == "sum":
            weights.append([1.0])
        else:
            weights.append([math.exp(s[k]) / sum(math.exp(t[k]) for t in scores) for k in range(width)])
    pooled = [sum(w[f % width] * z[f] for w, z in zip(weights, cells, strict=True)) for f in range(N)]
    return pooled, weights


@settings(max_examples=15, deadline=None)
@given(SIZES)
def test_pools_equal_a_loop_over_cells(counts):
    z, ptr = batch(counts)
    for kind in POOLS:
        pool = make(kind)
        pooled, weights = pool(z, ptr)
        assert pooled.shape == (len(counts), N)
        assert weights.shape == (len(z), N if kind == "feature_softmax" else 1)
        for i in range(len(counts)):
            rows = slice(int(ptr[i]), int(ptr[i + 1]))
            want, want_weights = slow_pool(kind, pool, z[rows].tolist())
            torch.testing.assert_close(pooled[i], torch.tensor(want, dtype=torch.float64))
            torch.testing.assert_close(
                weights[rows], torch.tensor(want_weights, dtype=torch.float64).view_as(weights[rows])
            )


def test_a_sample_does_not_see_its_batch_mates(kind):
    pool = make(kind)
    z, ptr = batch([3, 0, 5, 1])
    together = pool(z, ptr)[0]
    other = z.clone()
    other[3:8] = 1e6
    changed = pool(other, ptr)[0]
    torch.testing.assert_close(changed[[0, 1, 3]], together[[0, 1, 3]], rtol=0, atol=0)
    order = torch.tensor([2, 0, 1, 7, 6, 5, 4, 3, 8])
    torch.testing.assert_close(pool(z[order], ptr)[0], together)


def test_an_empty_sample_is_zero_with_finite_gradients(kind):
    pool = make(kind)
    z, ptr = batch([0, 2])
    z.requires_grad_()
    pooled = pool(z, ptr)[0]
    assert (pooled[0] == 0).all()
    pooled.square().sum().backward()
    assert torch.isfinite(z.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in pool.parameters())


def test_log_weight_is_as_good_as_repeated_cells(kind):
    pool = make(kind)
    z, _ = batch([3])
    repeats = torch.tensor([1, 4, 2])
    want = pool(z.repeat_interleave(repeats, 0), ptr_from_sizes([7]))[0]
    got = pool(z, ptr_from_sizes([3]), log_weight=repeats.double().log())[0]
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("pieces", [[9], [1, 8], [0, 4, 0, 5], [1] * 9])
def test_streaming_equals_one_piece(kind, pieces):
    pool = make(kind)
    z, ptr = batch([9])
    z = z * 30  # scores far apart: the running maximum has to be right
    pooled, weights = pool(z, ptr)
    torch.testing.assert_close(stream_pool(pool, iter(z.split(pieces))), pooled)
    torch.testing.assert_close(stream_pool_weights(pool, lambda: iter(z.split(pieces))), weights)


def test_streaming_without_cells(kind):
    pool = make(kind)
    assert stream_pool(pool, [torch.zeros(0, N)]).tolist() == [[0.0] * N]
    with pytest.raises(ValueError, match="was given no piece"):
        stream_pool(pool, [])


def test_half_precision_is_summed_in_full(kind):
    pool = make(kind).bfloat16()
    z = torch.ones(5000, N, dtype=torch.bfloat16)
    pooled = pool(z, ptr_from_sizes([5000]))[0]
    assert pooled.dtype == torch.bfloat16
    want = torch.full((1, N), 5000.0 if kind == "sum" else 1.0)
    torch.testing.assert_close(pooled.float(), want, rtol=0.01, atol=0)


def test_the_layer_before_the_scores_can_be_applied_by_itself(kind):
    pool = make(kind)
    z, ptr = batch([4, 0, 5])
    layer = pool.score_layer()
    if layer is None:
        assert kind in ("mean", "sum", "feature_softmax")
        with pytest.raises(NotImplementedError, match="has no linear layer before its scores"):
            pool.scores_after(z)
        return
    u = torch.nn.functional.linear(z, *layer)
    torch.testing.assert_close(pool.scores_after(u), pool.scores(z))
    torch.testing.assert_close(pool.pool_scored(z, u, ptr), pool(z, ptr)[0])


def test_learning_can_begin_at_the_mean(kind):
    pool = make(kind)
    z, ptr = batch([4, 0, 5])
    before = pool(z, ptr)[0]
    pool.start_even()
    pooled, _ = pool(z, ptr)
    if kind in ("sum", "feature_softmax"):
        torch.testing.assert_close(pooled, before)
        return
    torch.testing.assert_close(pooled, MeanPool()(z, ptr)[0])
    if kind != "mean":
        pooled.square().sum().backward()
        assert any(bool(p.grad.abs().sum() > 0) for p in pool.parameters()), "it can leave the mean"

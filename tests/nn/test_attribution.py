"""Gradients and integrated gradients against closed forms, numpy's quadrature and captum."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from scset_tools.nn import MLP, average_gradient, gradient, gradient_x_input, integrated_gradients, segment_sum
from scset_tools.nn._attribution import _gauss_legendre

W = torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64)


def ragged(sizes: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.tensor(np.random.default_rng(seed).normal(size=(sum(sizes), 3)))
    return x, torch.tensor(np.concatenate([[0], np.cumsum(sizes)]), dtype=torch.int64)


def linear(x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
    return segment_sum((x @ W)[:, None], ptr)[:, 0] + 3.0


def quadratic(x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
    """Square of the sum over cells of w.x: cells of a sample act together."""
    return segment_sum((x @ W)[:, None], ptr)[:, 0] ** 2


@pytest.fixture
def network():
    """Attention over the cells of each sample, smooth and far from linear."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        value, weight, head = MLP(3, 8, activation=nn.Tanh).double(), MLP(3, 1).double(), MLP(8, 1).double()

    def f(x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
        w = weight(x).exp()
        pooled = segment_sum(w * value(x), ptr) / segment_sum(w, ptr).clamp_min(1e-12)
        return head(pooled)[:, 0]

    return f


@pytest.mark.parametrize("n_steps", [1, 2, 5, 20, 50])
def test_quadrature_is_numpys(n_steps: int):
    nodes, weights = np.polynomial.legendre.leggauss(n_steps)
    ours = _gauss_legendre(n_steps)
    np.testing.assert_allclose(ours[0], (nodes + 1) / 2, atol=1e-13)
    np.testing.assert_allclose(ours[1], weights / 2, atol=1e-13)


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(0, 6), min_size=1, max_size=4), seed=st.integers(0, 10**6), n_steps=st.integers(1, 5))
def test_linear_score(sizes: list[int], seed: int, n_steps: int):
    """The attribution of a linear score is weight * (x - baseline), whatever the number of steps."""
    x, ptr = ragged(sizes, seed)
    baseline = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(gradient(linear, x, ptr), W.expand_as(x))
    torch.testing.assert_close(gradient_x_input(linear, x, ptr), W * x)
    result = integrated_gradients(linear, x, ptr, baseline=baseline, n_steps=n_steps)
    torch.testing.assert_close(result.attributions, W * (x - baseline))
    torch.testing.assert_close(result.f_input, linear(x, ptr))
    torch.testing.assert_close(result.f_baseline, linear(baseline.expand_as(x), ptr))
    assert result.completeness_error.max() < 1e-8


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(0, 6), min_size=1, max_size=4), seed=st.integers(0, 10**6))
def test_quadratic_score(sizes: list[int], seed: int):
    """For f = S^2, S = sum of w.x: gradient 2 S w; along the path from b its mean is (S_x + S_b) w."""
    x, ptr = ragged(sizes, seed)
    b, _ = ragged(sizes, seed + 1)
    of_cell = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    s_x, s_b = ((linear(v, ptr) - 3.0)[of_cell, None] for v in (x, b))
    torch.testing.assert_close(gradient(quadratic, x, ptr), 2 * s_x * W)
    torch.testing.assert_close(average_gradient(quadratic, x, ptr, baseline=b, n_steps=1), (s_x + s_b) * W)
    result = integrated_gradients(quadratic, x, ptr, baseline=b, n_steps=3)
    torch.testing.assert_close(result.attributions, (s_x + s_b) * W * (x - b))


def test_completeness_error_is_measured(network):
    """Two steps are too few for this network, and the error says so; thirty are enough."""
    x, ptr = ragged([4, 1, 9])
    x = 4 * x
    coarse = integrated_gradients(network, x, ptr, n_steps=2)
    difference = network(x, ptr) - network(torch.zeros_like(x), ptr)
    total = torch.stack([part.sum() for part in coarse.attributions.split([4, 1, 9])])
    torch.testing.assert_close(coarse.completeness_error, ((total - difference).abs() / difference.abs()).detach())
    assert coarse.completeness_error.max() > 0.01
    assert integrated_gradients(network, x, ptr, n_steps=30).completeness_error.max() < 0.01


def test_single_precision_is_complete(network):
    x, ptr = ragged([50, 30])
    single = integrated_gradients(lambda v, p: network(v.double(), p).float(), x.float(), ptr)
    assert single.attributions.dtype == torch.float32
    assert single.completeness_error.max() < 0.01


def test_batch_mates_do_not_matter(network):
    x, ptr = ragged([4, 0, 9])
    together = integrated_gradients(network, x, ptr)
    alone = integrated_gradients(network, x[4:], torch.tensor([0, 9]))
    torch.testing.assert_close(together.attributions[4:], alone.attributions)
    torch.testing.assert_close(together.f_input[2:], alone.f_input)


def test_empty_set_has_no_error(network):
    x, ptr = ragged([4, 0])
    assert integrated_gradients(network, x, ptr).completeness_error[1] == 0


def test_equal_to_captum(network):
    captum = pytest.importorskip("captum.attr")
    x, ptr = ragged([12])
    baseline = ragged([12], seed=1)[0]

    def dense(sets: torch.Tensor) -> torch.Tensor:
        """Captum stacks the steps along the first axis: each is a set of its own."""
        n, size, width = sets.shape
        return network(sets.reshape(n * size, width), torch.arange(n + 1) * size)

    theirs = captum.IntegratedGradients(dense).attribute(x[None], baselines=baseline[None], n_steps=50)[0]
    ours = integrated_gradients(network, x, ptr, baseline=baseline, n_steps=50).attributions
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)
    assert ours.abs().max() > 1e-3
    leaf = x[None].clone().requires_grad_()
    saliency = captum.Saliency(dense).attribute(leaf, abs=False)[0]
    torch.testing.assert_close(gradient(network, x, ptr), saliency)
    product = captum.InputXGradient(dense).attribute(leaf)[0]
    torch.testing.assert_close(gradient_x_input(network, x, ptr), product.detach())


def test_linear_first_layer_needs_the_hidden_gradient_alone(network):
    """(x - b) * (mean gradient over h) W equals the attribution over x."""
    w = torch.tensor(np.random.default_rng(0).normal(size=(3, 7)))
    x = torch.tensor(np.random.default_rng(1).normal(size=(9, 7)))
    ptr = torch.tensor([0, 4, 9])
    whole = integrated_gradients(lambda v, p: network(v @ w.T, p), x, ptr).attributions
    torch.testing.assert_close(x * (average_gradient(network, x @ w.T, ptr) @ w), whole)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_works_inside_prediction_loops(network, context):
    expected = integrated_gradients(network, *ragged([4, 3]), n_steps=3)
    with context():
        x, ptr = ragged([4, 3])
        result = integrated_gradients(network, x * 1.0, ptr, n_steps=3)
    torch.testing.assert_close(result.attributions, expected.attributions)


def test_leaves_inputs_and_parameters_alone():
    net = nn.Linear(3, 1).double()
    x, ptr = ragged([5])
    x.requires_grad_()
    before = x.detach().clone()
    result = integrated_gradients(lambda v, p: segment_sum(net(v), p)[:, 0], x, ptr, n_steps=2)
    assert torch.equal(x.detach(), before)
    assert x.grad is None
    assert net.weight.grad is None
    assert not any(getattr(result, field.name).requires_grad for field in dataclasses.fields(result))
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        result.f_input = x


def test_memory_is_one_step_at_a_time():
    """The score sees batches of the size of x only."""
    x, ptr = ragged([6])
    seen = []

    def f(v: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        seen.append(v.shape)
        return linear(v, p)

    integrated_gradients(f, x, ptr, n_steps=7)
    assert seen == [x.shape] * 9


def test_several_scores_share_the_forward_passes(network):
    x, ptr = ragged([4, 1, 3])
    baseline, n_passes = torch.tensor([0.3, 0.0, -1.0], dtype=torch.float64), 0

    def both(v, p):
        nonlocal n_passes
        n_passes += 1
        return torch.stack([network(v, p), quadratic(v, p), linear(v, p)], 1)

    found = integrated_gradients(both, x, ptr, baseline=baseline, n_steps=12)
    assert n_passes == 12 + 2  # as many as for one score
    for i, f in enumerate((network, quadratic, linear)):
        want = integrated_gradients(f, x, ptr, baseline=baseline, n_steps=12)
        torch.testing.assert_close(found.attributions[i], want.attributions)
        torch.testing.assert_close(found.f_input[:, i], want.f_input)
        torch.testing.assert_close(found.completeness_error[:, i], want.completeness_error, rtol=1e-3, atol=1e-12)
    torch.testing.assert_close(gradient(both, x, ptr)[1], gradient(quadratic, x, ptr))


def test_errors():
    x, ptr = ragged([2, 2])
    with pytest.raises(TypeError, match=r"x must be floating point to have a gradient, got torch\.int64"):
        gradient(linear, x.long(), ptr)
    with pytest.raises(ValueError, match=r"one score per sample, shape \(2,\), or several, .* got \(4, 3\)"):
        gradient(lambda v, p: v, x, ptr)
    with pytest.raises(ValueError, match="cut off from x"):
        gradient(lambda v, p: linear(v.detach(), p), x, ptr)
    unrelated = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="cut off from x"):
        gradient(lambda v, p: unrelated * 2, x, ptr)
    with pytest.raises(ValueError, match="n_steps must be at least 1, got 0"):
        integrated_gradients(linear, x, ptr, n_steps=0)
    with pytest.raises(ValueError, match=r"baseline must have shape \(3,\) or \(4, 3\), got \(4,\)"):
        integrated_gradients(linear, x, ptr, baseline=torch.zeros(4))

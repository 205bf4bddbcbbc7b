"""Attributions through a linear first layer against integrated gradients of the whole network, closed forms and captum."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from scset_tools.nn import (
    NonLinearAttentionPool,
    SparseLinear,
    attribute_through_linear,
    gradient_x_input,
    integrated_gradients,
    ptr_from_sizes,
)

N_GENES, WIDTH = 9, 6


@dataclass
class Rows:
    indptr: torch.Tensor
    indices: torch.Tensor
    values: torch.Tensor


def compressed(dense):
    is_stored = dense != 0
    ptr = torch.cat([torch.zeros(1, dtype=torch.int64), is_stored.sum(1).cumsum(0)])
    return Rows(ptr, is_stored.nonzero()[:, 1], dense[is_stored])


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = SparseLinear(N_GENES, WIDTH)
        self.pool = NonLinearAttentionPool(WIDTH)
        self.last = nn.Sequential(nn.Linear(WIDTH, 5), nn.PReLU(), nn.Linear(5, 1))
        self.double()

    def behind(self, h, ptr):
        return self.last(self.pool(h, ptr)[0])[:, 0]

    def forward(self, x, ptr):
        return self.behind(self.first(x), ptr)


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def cells():
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(12, N_GENES, dtype=torch.float64, generator=generator) * 3
    x[torch.rand(12, N_GENES, generator=generator) < 0.6] = 0
    return x, ptr_from_sizes([5, 1, 6])


def through(network, x, ptr, **arguments):
    with torch.no_grad():
        hidden = network.first(x)
    layer = network.first
    return attribute_through_linear(
        network.behind, x, ptr, hidden=hidden, weight=layer.weight, bias=layer.bias, **arguments
    )


@pytest.mark.parametrize("has_baseline", [False, True])
def test_equal_to_integrated_gradients_of_the_whole_network(network, cells, has_baseline):
    x, ptr = cells
    baseline = torch.rand(N_GENES, dtype=torch.float64) if has_baseline else None
    want = integrated_gradients(network, x, ptr, baseline=baseline, n_steps=20)
    for given in (x, compressed(x)):
        found = through(network, given, ptr, baseline=baseline, n_steps=20)
        dense = found.values()
        if dense.ndim == 1:
            full = torch.zeros_like(x)
            full[x != 0] = dense
            dense = full
        torch.testing.assert_close(dense, want.attributions, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.cells, want.attributions.sum(1))
        torch.testing.assert_close(found.f_input, want.f_input)
        torch.testing.assert_close(found.f_baseline, want.f_baseline)
        torch.testing.assert_close(found.completeness_error, want.completeness_error, rtol=1e-4, atol=1e-9)
        assert float(found.completeness_error.max()) < 0.01


@pytest.mark.parametrize("block_bytes", [2**24, 100])
@pytest.mark.parametrize("has_baseline", [False, True])
def test_sums_over_groups_equal_a_loop(network, cells, has_baseline, block_bytes, monkeypatch):
    monkeypatch.setattr("scset_tools.nn._attribution_linear.BLOCK_BYTES", block_bytes)
    x, ptr = cells
    baseline = torch.rand(N_GENES, dtype=torch.float64) if has_baseline else None
    group = torch.tensor([0, 2, 2, -1, 0, 3, 3, 3, -1, 0, 2, 2])
    full = through(network, x, ptr, baseline=baseline).values()
    want = torch.stack([full[group == g].sum(0) for g in range(5)])
    for given in (x, compressed(x)):
        found = through(network, given, ptr, baseline=baseline)
        torch.testing.assert_close(found.sums(group, 5), want)


def test_what_is_zero_from_zero_has_no_attribution(network, cells):
    x, ptr = cells
    found = through(network, compressed(x), ptr)
    assert found.values().shape == ((x != 0).sum(),)
    assert (through(network, x, ptr).values()[x == 0] == 0).all()


def test_one_gradient_at_the_input_is_gradient_times_input(network, cells):
    x, ptr = cells
    found = through(network, x, ptr, is_integrated=False)
    torch.testing.assert_close(found.values(), gradient_x_input(network, x, ptr))


def test_a_linear_score_gives_weight_times_input_exactly(cells):
    x, ptr = cells
    layer = SparseLinear(N_GENES, WIDTH).double()
    down = torch.randn(WIDTH, dtype=torch.float64)

    def behind(h, ptr):
        return torch.stack([part.mean(0) @ down for part in h.split(ptr.diff().tolist())])

    found = attribute_through_linear(behind, x, ptr, hidden=layer(x), weight=layer.weight, bias=layer.bias, n_steps=1)
    size = ptr.diff().repeat_interleave(ptr.diff())[:, None]
    torch.testing.assert_close(found.values(), x * (layer.weight @ down) / size)
    assert float(found.completeness_error.max()) < 1e-10


def test_equal_to_captum(network, cells):
    captum = pytest.importorskip("captum.attr")
    x, ptr = cells
    ends = ptr.tolist()
    for i in range(3):
        own = x[ends[i] : ends[i + 1]]
        alone = ptr_from_sizes([len(own)])
        # captum wants one row per example: a sample is one example of cells x genes
        ig = captum.IntegratedGradients(lambda a: torch.cat([network(s, ptr_from_sizes([len(s)])) for s in a]))
        want = ig.attribute(own[None], n_steps=50, method="gausslegendre")[0]
        torch.testing.assert_close(through(network, own, alone, n_steps=50).values(), want, rtol=0, atol=1e-6)


def test_several_scores_at_once_equal_each_alone(network, cells):
    x, ptr = cells
    group = torch.tensor([0, 2, 2, -1, 0, 3, 3, 3, -1, 0, 2, 2])

    def two(h, ptr):
        return torch.stack([network.behind(h, ptr), network.behind(h, ptr).square()], 1)

    with torch.no_grad():
        hidden = network.first(x)
    both = attribute_through_linear(two, compressed(x), ptr, hidden=hidden, weight=network.first.weight, n_steps=9)
    for i, one in enumerate(both.split()):
        alone = attribute_through_linear(
            lambda h, p, i=i: two(h, p)[:, i], compressed(x), ptr, hidden=hidden, weight=network.first.weight, n_steps=9
        )
        torch.testing.assert_close(one.values(), alone.values())
        torch.testing.assert_close(both.sums(group, 4)[i], alone.sums(group, 4))
        torch.testing.assert_close(both.completeness_error[:, i], alone.completeness_error, rtol=1e-3, atol=1e-9)


def test_shapes_are_checked(network, cells):
    x, ptr = cells
    with pytest.raises(ValueError, match=r"baseline must have shape \(9,\), got \(4,\)"):
        through(network, x, ptr, baseline=torch.zeros(4))
    with pytest.raises(ValueError, match="but ptr ends at 12 cells"):
        attribute_through_linear(network.behind, x, ptr, hidden=torch.zeros(3, WIDTH), weight=network.first.weight)


@pytest.mark.parametrize("has_baseline", [False, True])
def test_a_second_layer_applied_once_gives_the_same(network, cells, has_baseline):
    x, ptr = cells
    baseline = torch.rand(N_GENES, dtype=torch.float64) if has_baseline else None
    want = through(network, x, ptr, baseline=baseline, n_steps=20)
    pool = network.pool

    def behind_two(both, ptr):
        return network.last(pool.pool_scored(both[:, :WIDTH], both[:, WIDTH:], ptr))[:, 0]

    layer = network.first
    found = attribute_through_linear(
        behind_two,
        x,
        ptr,
        hidden=layer(x),
        weight=layer.weight,
        bias=layer.bias,
        baseline=baseline,
        second=pool.score_layer(),
        n_steps=20,
    )
    torch.testing.assert_close(found.values(), want.values())
    torch.testing.assert_close(found.completeness_error, want.completeness_error, rtol=1e-3, atol=1e-9)

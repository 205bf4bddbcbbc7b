"""The layer on compressed rows against torch's linear layer on dense ones."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from scset_tools.data._sparse import SparseRows
from scset_tools.nn import SparseLinear, sampled_product, sparse_product


@dataclass
class Rows:
    indptr: torch.Tensor
    indices: torch.Tensor
    values: torch.Tensor


def compressed(n_rows, n_columns, *, density=0.4, seed=0, index=torch.int64):
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(n_rows, n_columns, dtype=torch.float64, generator=generator)
    dense[torch.rand(n_rows, n_columns, generator=generator) > density] = 0
    is_stored = dense != 0
    ptr = torch.cat([torch.zeros(1, dtype=torch.int64), is_stored.sum(1).cumsum(0)])
    return Rows(ptr.to(index), is_stored.nonzero()[:, 1].to(index), dense[is_stored]), dense


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 6), st.integers(1, 70), st.sampled_from([0.0, 0.1, 1.0]))
def test_products_equal_dense_ones(n_rows, width, density):
    rows, dense = compressed(n_rows, 9, density=density)
    weight = torch.randn(9, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(sparse_product(rows, weight), dense @ weight)
    left = torch.randn(n_rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    want = (left @ weight.T)[dense != 0]
    torch.testing.assert_close(sampled_product(rows, left, weight), want)


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_gradients_are_those_of_the_dense_layer(index):
    rows, dense = compressed(7, 11, index=index)
    dense.requires_grad_()
    rows.values.requires_grad_()
    torch.manual_seed(0)
    layer = SparseLinear(11, 40).double()
    upstream = torch.randn(7, 40, dtype=torch.float64)
    (layer(rows) * upstream).sum().backward()
    sparse_grads = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    (layer(dense) * upstream).sum().backward()
    for a, b in zip(sparse_grads, (p.grad for p in layer.parameters()), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(rows.values.grad, dense.grad[dense.detach() != 0])
    torch.testing.assert_close(layer(dense), F.linear(dense, layer.weight.T, layer.bias))


def test_a_few_rows_at_a_time_give_the_same(monkeypatch):
    rows, dense = compressed(13, 8)
    left, weight = torch.randn(13, 5, dtype=torch.float64), torch.randn(8, 5, dtype=torch.float64)
    whole = sampled_product(rows, left, weight)
    monkeypatch.setattr("scset_tools.nn._sparse_linear.BLOCK_BYTES", 64)
    torch.testing.assert_close(sampled_product(rows, left, weight), whole)
    torch.testing.assert_close(whole, (left @ weight.T)[dense != 0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_are_summed_in_float32_or_better(dtype):
    rows, dense = compressed(4, 300, density=1.0)
    torch.manual_seed(0)
    layer = SparseLinear(300, 33).to(dtype)
    rows.values = rows.values.float()
    out = layer(rows)
    assert out.dtype == dtype
    want = dense @ layer.weight.double() + layer.bias.double()
    torch.testing.assert_close(out.double(), want, rtol=0.02, atol=0.02)
    out.square().sum().backward()
    assert layer.weight.grad.dtype == dtype


def test_initial_weights_have_the_spread_of_torch():
    torch.manual_seed(0)
    ours, theirs = SparseLinear(400, 300), torch.nn.Linear(400, 300)
    assert ours.weight.std().item() == pytest.approx(theirs.weight.std().item(), rel=0.02)
    assert ours.weight.abs().max().item() <= 400**-0.5


def test_initial_weights_are_as_small_as_asked():
    def weights(**kwargs):
        torch.manual_seed(0)
        return SparseLinear(100, 50, **kwargs)

    as_torch, small = weights(), weights(init_scale=0.1)
    assert as_torch.weight.abs().max() <= 0.1, "1 / sqrt(n_input), as torch.nn.Linear"
    torch.testing.assert_close(small.weight, 0.1 * as_torch.weight)
    torch.testing.assert_close(small.bias, as_torch.bias)


def test_location_and_scale_act_before_the_weights_and_older_weights_are_of_features_as_they_are():
    rows, dense = compressed(7, 11)
    location, scale = torch.linspace(-2, 3, 11, dtype=torch.float64), torch.linspace(0.5, 4, 11, dtype=torch.float64)
    layer = SparseLinear(11, 5, location=location, scale=scale).double()
    want = F.linear((dense - location) / scale, layer.weight.T, layer.bias)
    torch.testing.assert_close(layer(dense), want)
    torch.testing.assert_close(layer(rows), want)
    (layer(rows) * want.detach()).sum().backward()
    by_rows = layer.weight.grad.clone()
    layer.zero_grad()
    (want * want.detach()).sum().backward()
    torch.testing.assert_close(by_rows, layer.weight.grad)
    older = {name: value for name, value in layer.state_dict().items() if name in ("weight", "bias")}
    layer.load_state_dict(older)
    torch.testing.assert_close(layer(dense), F.linear(dense, layer.weight.T, layer.bias))


def test_weights_are_folded_as_soon_as_there_is_something_to_fold():
    _, dense = compressed(7, 11)
    plain = SparseLinear(11, 5).double()
    assert plain.folded()[0] is plain.weight
    location = torch.linspace(-2, 3, 11, dtype=torch.float64)
    plain.standardize(location, 2.0)
    want = F.linear((dense - location) / 2.0, plain.weight.T, plain.bias)
    torch.testing.assert_close(plain(dense), want)
    torch.testing.assert_close(copy.deepcopy(plain)(dense), want)
    loaded = SparseLinear(11, 5).double()
    loaded.load_state_dict(plain.state_dict())
    torch.testing.assert_close(loaded(dense), want)


def test_half_precision_under_autocast_as_a_dense_layer():
    """Rows are read in half precision and added up in float32: 800 values of one sign lose no more than one of them would."""
    torch.manual_seed(0)
    layer = SparseLinear(1_000, 16, location=torch.full((1_000,), 0.4), scale=torch.full((1_000,), 0.5))
    x = torch.rand(30, 1_000) * (torch.rand(30, 1_000) < 0.8)
    rows = SparseRows.from_dense(x)
    results = {}
    for name, enabled, cells in (("float", False, rows), ("half", True, rows), ("dense", True, x)):
        layer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            out = layer(cells)
        out.float().square().sum().backward()
        results[name] = out.detach().float(), layer.weight.grad.clone()
        assert out.dtype == (torch.bfloat16 if enabled else torch.float32)
    for half, dense, whole in zip(results["half"], results["dense"], results["float"], strict=True):
        off = float((half - whole).abs().max() / whole.abs().max())
        assert off < 0.02
        assert off <= 2 * float((dense - whole).abs().max() / whole.abs().max())

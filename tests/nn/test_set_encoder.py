"""The set encoder against its own blocks and the laws of a set function."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scset_tools.nn import SetEncoder, ptr_from_sizes, to_padded


def make(**arguments):
    torch.manual_seed(0)
    encoder = SetEncoder(5, 8, 3, **({"n_heads": 2, "n_inducing": 2} | arguments)).double()
    with torch.no_grad():
        for p in encoder.parameters():
            p += 0.2 * torch.randn_like(p)
    return encoder


def cells(n, seed=0):
    return torch.randn(n, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_hand(encoder, x):
    rows = x @ encoder.lift.weight.T + encoder.lift.bias
    for layer in encoder.layers:
        rows = layer.spread(rows, layer.gather(layer.inducing, rows))
    pooled = encoder.pool.mab(encoder.pool.seeds, rows)
    return (pooled @ encoder.project.weight.T + encoder.project.bias)[0]


@settings(max_examples=20, deadline=None)
@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_equation_8_for_ragged_and_dense_batches(counts):
    encoder, x, ptr = make(n_layers=2), cells(sum(counts)), ptr_from_sizes(counts)
    expected = torch.stack([by_hand(encoder, x[a:b]) for a, b in itertools.pairwise(ptr)])
    torch.testing.assert_close(encoder(x, ptr), expected)
    dense, is_real = to_padded(x, ptr)
    dense = dense.masked_fill(~is_real[..., None], torch.nan)
    torch.testing.assert_close(encoder(dense, is_real=is_real), expected)
    torch.testing.assert_close(encoder(x, ptr, _layout="padded"), expected)


def test_order_of_cells_batch_mates_and_multiplicity():
    encoder, x = make(), cells(6)
    alone = encoder(x)
    torch.testing.assert_close(encoder(x.flip(0)), alone)
    torch.testing.assert_close(encoder(torch.cat([x, 100 * x[:2]]), ptr_from_sizes([6, 2]))[:1], alone)
    copies = torch.tensor([3, 1, 1, 2, 1, 5])
    torch.testing.assert_close(encoder(x, log_weight=copies.double().log()), encoder(x.repeat_interleave(copies, 0)))


def test_no_samples_and_empty_samples():
    encoder = make()
    assert encoder(cells(0), ptr_from_sizes([])).shape == (0, 3)
    result = encoder(cells(2), ptr_from_sizes([0, 2]))
    assert torch.isfinite(result).all()
    torch.testing.assert_close(result[0], encoder(cells(0))[0])


def test_attention_sums_to_one_and_follows_the_pooled_values():
    encoder, x = make(), cells(7)
    ptr = ptr_from_sizes([4, 0, 3])
    weights = encoder.get_attention(x, ptr)
    assert weights.shape == (7, 2)
    torch.testing.assert_close(weights[:4].sum(0), torch.ones(2, dtype=x.dtype))
    torch.testing.assert_close(weights[4:].sum(0), torch.ones(2, dtype=x.dtype))

    rows = encoder.lift(x[:4])
    for layer in encoder.layers:
        rows = layer(rows)
    attention = encoder.pool.mab.attention
    values = attention.value(rows).view(4, 2, 4)
    heads = (weights[:4, :, None] * values).sum(0).flatten()
    pooled = encoder.pool.mab._finish(encoder.pool.seeds + attention.output(heads))
    torch.testing.assert_close(encoder.project(pooled), encoder(x[:4]))

    copies = torch.tensor([1, 2, 1, 3, 1, 1, 4])
    weighted = encoder.get_attention(x, ptr, log_weight=copies.double().log())
    repeated = encoder.get_attention(x.repeat_interleave(copies, 0), ptr_from_sizes([7, 0, 6]))
    torch.testing.assert_close((weighted / copies[:, None]).repeat_interleave(copies, 0), repeated)


def test_gradients_reach_every_weight_and_the_cells():
    encoder, x = make(n_layers=1), cells(4).requires_grad_()
    ptr = ptr_from_sizes([3, 1])
    assert torch.autograd.gradcheck(lambda values: encoder(values, ptr), (x,))
    encoder(x, ptr).square().sum().backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in encoder.parameters())


def test_published_width_runs_in_bfloat16():
    torch.manual_seed(0)
    encoder = SetEncoder(30, 64, 16, n_inducing=40)
    x, ptr = torch.randn(700, 30), ptr_from_sizes([500, 200])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = encoder(x, ptr)
    exact = encoder(x, ptr)
    assert (rough.float() - exact).norm() < 0.05 * exact.norm()


def test_number_of_heads_must_divide_the_width():
    with pytest.raises(ValueError, match=r"`n_heads` \(4\) must divide the width \(30\)"):
        SetEncoder(5, 30, 3)

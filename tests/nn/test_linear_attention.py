from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scset_tools.nn import LinearAttention, LinearAttentionBlock, orthogonal_projection, softmax_features


@torch.no_grad()
def slow(layer: LinearAttention, x: torch.Tensor, is_real: torch.Tensor, phi) -> torch.Tensor:
    """``sum_j phi(q) phi(k_j) v_j / sum_j phi(q) phi(k_j)`` by loops over cells, heads, queries and keys."""
    out = torch.zeros(*x.shape[:2], layer.n_heads * layer.dim_head)
    for c in range(len(x)):
        for h in range(layer.n_heads):
            part = slice(h * layer.dim_head, (h + 1) * layer.dim_head)
            q, k, v = (f(x[c])[:, part] for f in (layer.to_q, layer.to_k, layer.to_v))
            for i in range(x.shape[1]):
                weight = [float(phi(q[i]) @ phi(k[j])) * float(is_real[c, j]) for j in range(x.shape[1])]
                out[c, i, part] = sum(w * v[j] for j, w in enumerate(weight)) / sum(weight)
    return layer.to_out(out)


def test_elu_attention_against_loops():
    torch.manual_seed(0)
    layer = LinearAttention(6, 2)
    x = torch.randn(3, 5, 6)
    is_real = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 1]]).bool()
    want = slow(layer, x, is_real, lambda z: torch.where(z > 0, z + 1, z.exp()))
    torch.testing.assert_close(layer(x, is_real=is_real).detach(), want, rtol=1e-4, atol=1e-5)


def test_random_features_against_loops():
    torch.manual_seed(0)
    layer = LinearAttention(6, 2, n_features=7)
    x = torch.randn(2, 4, 6)
    is_real = torch.ones(2, 4, dtype=torch.bool)

    def phi(z):  # without the shifts, which cancel, up to eps
        z = z * 3**-0.25
        return torch.exp(layer.projection @ z - z @ z / 2)

    torch.testing.assert_close(layer(x).detach(), slow(layer, x, is_real, phi), rtol=5e-3, atol=5e-3)


def test_features_estimate_the_softmax_kernel():
    generator = torch.Generator().manual_seed(0)
    d = 8
    projection = orthogonal_projection(20_000, d, generator=generator)
    x = 0.35 * torch.randn(1, 1, 6, d, generator=generator).double()  # the estimate is heavy-tailed for long vectors
    q = softmax_features(x, projection, is_query=True, eps=0)
    k = softmax_features(x, projection, is_query=False, eps=0)
    estimate = (q @ k.transpose(-1, -2))[0, 0]
    estimate = estimate / estimate.sum(1, keepdim=True)
    want = (x[0, 0] @ x[0, 0].T / math.sqrt(d)).softmax(1)
    np.testing.assert_allclose(estimate, want, atol=0.01)


def test_directions_are_orthogonal_within_blocks():
    projection = orthogonal_projection(7, 3, generator=torch.Generator().manual_seed(0))
    assert projection.shape == (7, 3)
    for start in (0, 3):
        block = torch.nn.functional.normalize(projection[start : start + 3], dim=1)
        torch.testing.assert_close(block @ block.T, torch.eye(3), rtol=0, atol=1e-5)
    lengths = orthogonal_projection(4_000, 4, generator=torch.Generator().manual_seed(1)).norm(dim=1)
    assert abs(float(lengths.square().mean()) - 4) < 0.2  # as of Gaussian vectors


@pytest.mark.parametrize("n_features", [None, 9])
def test_batch_mates_and_padding_do_not_matter(n_features):
    torch.manual_seed(0)
    layer = LinearAttention(6, 2, n_features=n_features)
    a, b = torch.randn(1, 4, 6), 30 * torch.randn(1, 7, 6)
    x = torch.cat([torch.cat([a, 9 * torch.ones(1, 3, 6)], 1), b])
    is_real = torch.arange(7) < torch.tensor([[4], [7]])
    torch.testing.assert_close(layer(x, is_real=is_real)[0, :4], layer(a)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_features", [None, 9])
def test_few_queries_read_what_all_would(n_features):
    torch.manual_seed(0)
    block = LinearAttentionBlock(6, 2, n_features=n_features)
    x = torch.randn(2, 5, 6)
    torch.testing.assert_close(block(x, queries=x[:, [3, 1]]), block(x)[:, [3, 1]])


def test_sums_over_keys_can_be_updated():
    torch.manual_seed(0)
    layer = LinearAttention(6, 2)
    x, new = torch.randn(1, 5, 6), torch.randn(1, 1, 6)
    k, v = layer.key_value(x)
    new_k, new_v = layer.key_value(new)
    context, total = layer.summarise(k, v)
    for sign, (phi, value) in ((1, (new_k, new_v)), (-1, (k[:, :, 2:3], v[:, :, 2:3]))):
        change = layer.summarise(sign * phi, value)
        context, total = context + change[0], total + change[1]
    replaced = x.clone()
    replaced[:, 2] = new[:, 0]
    torch.testing.assert_close(layer.read(x, context, total), layer(replaced, queries=x), rtol=1e-4, atol=1e-5)


def test_no_keys_give_the_bias():
    layer = LinearAttention(6, 2)
    out = layer(torch.zeros(1, 0, 6), queries=torch.randn(1, 2, 6))
    torch.testing.assert_close(out, layer.to_out.bias.expand(1, 2, 6))


def test_width_that_heads_do_not_divide():
    with pytest.raises(ValueError, match=r"`n_heads` \(4\) must divide the width \(6\)"):
        LinearAttention(6, 4)
    assert LinearAttention(6, 4, dim_head=2)(torch.zeros(1, 3, 6)).shape == (1, 3, 6)
    assert LinearAttention.default_n_features(64) == 266


def test_a_cell_without_keys_has_a_finite_gradient():
    torch.manual_seed(0)
    layer = LinearAttention(8, 2)
    x = torch.randn(2, 3, 8, requires_grad=True)
    is_real = torch.tensor([[True, True, False], [False, False, False]])
    layer(x, is_real=is_real).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)

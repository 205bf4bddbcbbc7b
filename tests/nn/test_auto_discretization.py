from __future__ import annotations

import numpy as np
import pytest
import torch

from scset_tools.nn import AutoDiscretization


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return AutoDiscretization(6, 5, alpha=0.7)


def slow(layer: AutoDiscretization, v: float) -> np.ndarray:
    """The formula of the paper, one number at a time."""
    w1, b1 = layer.lift.weight.detach().double().numpy()[:, 0], layer.lift.bias.detach().double().numpy()
    w2, b2 = layer.mix.weight.detach().double().numpy(), layer.mix.bias.detach().double().numpy()
    h = [w1[i] * v + b1[i] for i in range(5)]
    h = [x if x > 0 else 0.1 * x for x in h]
    logits = [0.7 * h[i] + sum(w2[i, j] * h[j] for j in range(5)) + b2[i] for i in range(5)]
    weight = np.exp(logits) / np.exp(logits).sum()
    return weight @ layer.bins.detach().double().numpy()


def test_against_the_formula(layer):
    values = torch.tensor([[0.0, 1.5, -2.0], [7.3, 0.01, 30.0]])
    want = np.array([[slow(layer, float(v)) for v in row] for row in values])
    np.testing.assert_allclose(layer(values).detach(), want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.weights(values).detach().sum(-1), 1, rtol=1e-6)


def test_hidden_and_padding_have_embeddings_of_their_own(layer):
    value = torch.tensor([1.0, 2.0, 3.0])
    out = layer(value, is_hidden=torch.tensor([False, True, False]), is_padding=torch.tensor([False, False, True]))
    torch.testing.assert_close(out[0], layer(value[:1])[0])
    torch.testing.assert_close(out[1], layer.hidden)
    torch.testing.assert_close(out[2], layer.padding)
    out.sum().backward()
    torch.testing.assert_close(layer.hidden.grad, torch.ones(6))


def test_near_values_have_near_embeddings(layer):
    a, b, c = layer(torch.tensor([1.0, 1.01, 9.0])).detach()
    assert (a - b).norm() < 0.05 * (a - c).norm()


def test_bfloat16_weights_are_computed_in_float32(layer):
    low = layer.to(torch.bfloat16)(torch.tensor([2.0], dtype=torch.bfloat16))
    assert low.dtype == torch.bfloat16
    assert torch.isfinite(low).all()

"""Layers against their formula in numpy; copy, save, pickle and moving average of the head."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from scset_tools.nn import MLP, ProjectionHead, ema_update


@pytest.fixture(autouse=True)
def _seed():
    """Initial weights come from torch's global generator, as everywhere in torch."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def gelu(a: np.ndarray) -> np.ndarray:
    return a * norm.cdf(a)


def slow_mlp(net: MLP, x: np.ndarray) -> np.ndarray:
    linear = [layer for layer in net if isinstance(layer, nn.Linear)]
    for layer in linear[:-1]:
        x = gelu(x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy())
    return x @ linear[-1].weight.detach().numpy().T + linear[-1].bias.detach().numpy()


@pytest.mark.parametrize("n_layers", [0, 1, 3])
def test_mlp_is_its_formula(n_layers: int):
    net = MLP(4, 3, n_hidden=7, n_layers=n_layers).double()
    assert sum(isinstance(layer, nn.Linear) for layer in net) == n_layers + 1
    x = torch.randn(5, 4, dtype=torch.float64)
    np.testing.assert_allclose(net(x).detach().numpy(), slow_mlp(net, x.numpy()), atol=1e-12)


def test_mlp_activation_and_dropout():
    net = MLP(4, 3, n_layers=2, activation=nn.PReLU, dropout_rate=0.5)
    assert len([layer for layer in net if isinstance(layer, nn.PReLU)]) == 2
    x = torch.randn(5, 4)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_head_is_cosine_similarity_to_prototypes():
    head = ProjectionHead(6, 9, n_hidden=8, n_bottleneck=5).double()
    with torch.no_grad():
        head.prototype.mul_(torch.rand(9, 1, dtype=torch.float64) + 1)  # lengths must not matter
    z = torch.randn(4, 6, dtype=torch.float64)
    b = slow_mlp(head.mlp, z.numpy())
    w = head.prototype.detach().numpy()
    expected = b @ w.T / np.linalg.norm(b, axis=1)[:, None] / np.linalg.norm(w, axis=1)
    out = head(z)
    np.testing.assert_allclose(out.detach().numpy(), expected, atol=1e-12)
    assert out.abs().max() <= 1


def test_head_equals_weight_norm_with_unit_lengths():
    head = ProjectionHead(6, 9)
    last = nn.utils.parametrizations.weight_norm(nn.Linear(64, 9, bias=False), dim=0)
    with torch.no_grad():
        last.parametrizations.weight.original0.fill_(1.0)
        last.parametrizations.weight.original1.copy_(head.prototype)
    z = torch.randn(4, 6)
    torch.testing.assert_close(head(z), last(nn.functional.normalize(head.mlp(z), dim=-1)))


def test_head_copies_saves_pickles_and_averages():
    head = ProjectionHead(6, 9)
    z = torch.randn(4, 6)
    file = io.BytesIO()
    torch.save(head.state_dict(), file)
    file.seek(0)
    loaded = ProjectionHead(6, 9)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for other in (copy.deepcopy(head), loaded, pickle.loads(pickle.dumps(head))):
        assert torch.equal(other(z), head(z))

    teacher, student = copy.deepcopy(head), ProjectionHead(6, 9)
    ema_update(teacher, student, 0.7)
    torch.testing.assert_close(teacher.prototype.detach(), (0.7 * head.prototype + 0.3 * student.prototype).detach())


def test_prototypes_learn():
    head = ProjectionHead(6, 9)
    head(torch.randn(4, 6))[:, 0].sum().backward()
    gradient = head.prototype.grad[0]
    assert gradient.abs().sum() > 0
    # The output does not depend on the length, so the gradient is orthogonal to the vector.
    assert abs(float(gradient @ head.prototype[0].detach())) < 1e-5


def test_errors():
    with pytest.raises(ValueError, match="n_layers must be 0 or larger, got -1"):
        MLP(2, 2, n_layers=-1)

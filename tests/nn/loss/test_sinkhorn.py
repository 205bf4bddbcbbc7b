from __future__ import annotations


import ot
import pytest
import torch

from scset_tools.nn.loss import SinkhornLoss

SOLVERS = ["scaling", "exact"]


def mixture(n: int, *, seed: int, d: int = 30, width: float = 1.0, drift: float = 0.0) -> torch.Tensor:
    """Cells of nine types, always the same; ``drift`` moves the types and changes their shares, as a decoder would."""
    types = torch.Generator().manual_seed(0)
    centers = 2 * torch.randn(9, d, generator=types)
    shares = torch.randn(9, generator=types)
    widths = 0.4 + 0.6 * torch.rand(9, d, generator=types)
    cells = torch.Generator().manual_seed(seed)
    centers = centers + drift * torch.randn(9, d, generator=cells)
    shares = torch.softmax(shares + drift / 2 * torch.randn(9, generator=cells), dim=0)
    kinds = torch.multinomial(shares, n, replacement=True, generator=cells)
    return centers[kinds] + width * widths[kinds] * torch.randn(n, d, generator=cells)


def exact_transport(x: torch.Tensor, y: torch.Tensor) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Value and gradients of exact transport from POT's plan, in double precision."""
    x, y = x.detach().double(), y.detach().double()
    cost = (x[:, None] - y[None]).square().sum(dim=2)
    plan = torch.from_numpy(ot.emd(ot.unif(len(x)), ot.unif(len(y)), cost.numpy(), numItermax=10_000_000))
    x_gradient = 2 * (x / len(x) - plan @ y)
    return (plan * cost).sum().item(), x_gradient, 2 * (y / len(y) - plan.T @ x)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(a.double().flatten(), b.double().flatten(), dim=0).item()


def leaves(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [tensor.clone().requires_grad_() for tensor in tensors]


class TestAgainstExactTransport:
    def test_default_at_1000_cells_is_within_5_percent_and_points_the_same_way(self) -> None:
        x, y = leaves(mixture(1000, seed=1), mixture(1000, seed=2, width=0.6, drift=0.5))
        loss = SinkhornLoss()(x, y)
        loss.sum().backward()
        value, x_gradient, y_gradient = exact_transport(x, y)
        assert value <= loss.item() * (1 + 1e-6)
        assert loss.item() == pytest.approx(value, rel=0.05)
        assert cosine(y.grad, y_gradient) >= 0.98
        assert cosine(x.grad, x_gradient) >= 0.98

    @pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 7), (2, 1), (40, 90), (90, 40), (150, 150)])
    @pytest.mark.parametrize("solver", SOLVERS)
    def test_other_sizes(self, solver: str, n: int, m: int) -> None:
        x, y = leaves(mixture(n, seed=1, d=5), mixture(m, seed=2, d=5))
        loss = SinkhornLoss(solver=solver)(x, y)
        loss.sum().backward()
        value, x_gradient, y_gradient = exact_transport(x, y)
        assert loss.item() == pytest.approx(value, rel=1e-5 if solver == "exact" else 0.05)
        assert value <= loss.item() * (1 + 1e-5)
        assert cosine(x.grad, x_gradient) >= 0.98
        assert cosine(y.grad, y_gradient) >= 0.98

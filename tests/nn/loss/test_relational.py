"""The relational loss against the divergence of two Gaussians, and what it does to vectors that collapse or spread."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from scset_tools.nn.loss import RelationalLoss


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gram(z: torch.Tensor, ridge: float) -> torch.Tensor:
    z = z - z.mean(0)
    g = z @ z.T
    return g / g.diagonal().mean() + ridge * torch.eye(len(z), dtype=z.dtype)


def test_it_is_twice_the_divergence_of_gaussian_processes_and_the_disagreement():
    z, teacher = draw(0, 6, 4), draw(1, 6, 4)
    zero = torch.zeros(6, dtype=torch.float64)
    kl = kl_divergence(MultivariateNormal(zero, gram(z, 0.1)), MultivariateNormal(zero, gram(teacher, 0.1)))
    centred, target = z - z.mean(0), teacher - teacher.mean(0)
    expected = 2 * float(kl) / 6 + float((centred - target).square().sum() / target.square().sum())
    assert float(RelationalLoss(ridge=0.1)(z[None], teacher)) == pytest.approx(expected, rel=1e-5)


def test_it_is_the_mean_over_views_and_zero_where_all_agree():
    loss, teacher = RelationalLoss(), draw(0, 5, 3)
    views = torch.stack([draw(1, 5, 3), draw(2, 5, 3)])
    one_by_one = [float(loss(view[None], teacher)) for view in views]
    assert float(loss(views, teacher)) == pytest.approx(np.mean(one_by_one), rel=1e-6)
    assert float(loss(teacher[None] + 3.0, teacher)) == pytest.approx(
        0, abs=1e-6
    )  # a common shift says nothing of samples


def test_a_lost_direction_costs_and_so_does_a_flat_geometry():
    loss, teacher = RelationalLoss(ridge=0.01), draw(0, 8, 4) * torch.tensor([3.0, 1.0, 1.0, 0.5])
    lost = teacher * torch.tensor([1.0, 1.0, 1.0, 0.0])
    flat = torch.linalg.svd(teacher - teacher.mean(0), full_matrices=False).U
    assert float(loss(lost[None], teacher)) > 0.1
    assert float(loss(flat[None], teacher)) > 0.1


@pytest.mark.parametrize("n", [0, 1])
def test_without_two_samples_there_is_no_geometry(n):
    z = draw(0, 1, n, 3).requires_grad_()
    value = RelationalLoss()(z, draw(1, n, 3))
    value.backward()
    assert value.detach() == 0
    assert not z.grad.any()


def test_vectors_that_are_all_alike_have_a_finite_gradient():
    z = torch.zeros(1, 4, 3, requires_grad=True)
    RelationalLoss()(z, draw(1, 4, 3)).backward()
    assert torch.isfinite(z.grad).all()


def test_a_ridge_of_zero_is_refused():
    with pytest.raises(ValueError, match="ridge"):
        RelationalLoss(ridge=0.0)

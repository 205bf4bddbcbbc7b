"""Straight paths and their integration, on mixtures whose velocity is known exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scset_tools.nn import cell_normal, flow_path, flow_steps

WEIGHTS, MEANS, SD = (0.3, 0.7), ((-2.0, 1.0), (1.5, -0.5)), 0.3


def test_a_path_is_a_straight_line():
    noise, x = torch.randn(4, 3).double(), torch.randn(4, 3).double()
    for t, want in ((0.0, noise), (1.0, x), (0.25, 0.75 * noise + 0.25 * x)):
        state, velocity = flow_path(noise, x, torch.full((4,), t))
        torch.testing.assert_close(state, want)
        torch.testing.assert_close(velocity, x - noise)


def exact_velocity(x, t):
    """E[x1 - x0 | x_t] for a mixture of Gaussians at time 1 and standard normal numbers at time 0."""
    weights, means = torch.tensor(WEIGHTS).double(), torch.tensor(MEANS).double()
    variance = (1 - t) ** 2 + (t * SD) ** 2
    apart = x[:, None] - t * means  # (n, k, d)
    share = torch.softmax(weights.log() - apart.square().sum(-1) / (2 * variance), 1)[..., None]
    cell = means + t * SD**2 / variance * apart
    noise = (1 - t) / variance * apart
    return (share * (cell - noise)).sum(1)


def test_the_flow_leads_to_the_mixture():
    x = cell_normal(torch.tensor([3]), torch.tensor([0, 4000]), 2, stream=0)
    *_, (t, x) = flow_steps(exact_velocity, x, n_steps=25)
    assert t == 1.0
    nearest = torch.cdist(x, torch.tensor(MEANS).double()).argmin(1)
    for k, weight in enumerate(WEIGHTS):
        own = x[nearest == k]
        assert len(own) / len(x) == pytest.approx(weight, abs=0.05)
        np.testing.assert_allclose(own.mean(0), MEANS[k], atol=0.1)
        np.testing.assert_allclose(own.std(0), SD, rtol=0.1)


def test_the_midpoint_rule_is_of_second_order():
    """dx/dt = x from 1 leads to e; halving the steps of a second order rule quarters the error."""
    errors = []
    for n in (10, 20, 40):
        *_, (_, x) = flow_steps(lambda x, t: x, torch.ones(1, 1).double(), n_steps=n)
        errors.append(abs(float(x) - np.e))
    np.testing.assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 4, rtol=0.1)


def test_bad_steps():
    with pytest.raises(ValueError, match="`n_steps` must be 1 or more, found 0"):
        next(flow_steps(exact_velocity, torch.zeros(1, 2), n_steps=0))

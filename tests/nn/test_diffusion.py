"""Schedules, forward process and posterior against closed forms; samplers on mixtures whose noise is known exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from scset_tools.nn import NoiseSchedule, cell_normal, ddim_steps, ddpm_steps

KINDS = ["cosine", "linear", "quadratic"]
WEIGHTS, MEANS, SD = (0.2, 0.5, 0.3), ((-2.0, 0.0), (1.0, 1.5), (2.0, -1.5)), 0.3


# ---- schedules


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_steps", [10, 1000])
def test_a_schedule_goes_from_clean_to_noise(kind, n_steps):
    schedule = NoiseSchedule(kind, n_steps)
    assert schedule.beta.shape == schedule.alpha_bar.shape == (n_steps + 1,)
    assert float(schedule.beta[0]) == 0.0
    assert float(schedule.alpha_bar[0]) == 1.0
    beta = schedule.beta[1:]
    assert ((beta > 0) & (beta <= 0.999)).all()
    np.testing.assert_allclose(schedule.alpha_bar[1:], np.cumprod(1 - beta.numpy()))
    assert float(schedule.alpha_bar[-1]) < 5e-2
    if n_steps == 1000:
        assert float(schedule.alpha_bar[-1]) < 2e-3


def test_cosine_is_that_of_nichol_and_dhariwal():
    schedule = NoiseSchedule("cosine", 1000)
    f = np.array([math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)])
    np.testing.assert_allclose(schedule.alpha_bar[:-1], (f / f[0])[:-1], rtol=1e-10)
    # the last step would remove everything, and is cut at 0.999
    np.testing.assert_allclose(schedule.alpha_bar[-1], f[-2] / f[0] * 0.001, rtol=1e-6)


def test_linear_and_quadratic_end_where_ddpm_does():
    for kind, power in (("linear", 1.0), ("quadratic", 0.5)):
        beta = NoiseSchedule(kind, 1000).beta[1:].numpy()
        np.testing.assert_allclose(beta[[0, -1]], [1e-4, 0.02])
        np.testing.assert_allclose(beta[500] ** power, np.linspace(1e-4**power, 0.02**power, 1000)[500])


def test_bad_schedules():
    with pytest.raises(ValueError, match=r"'exponential' is not one of \['cosine', 'linear', 'quadratic'\]"):
        NoiseSchedule("exponential")
    with pytest.raises(ValueError, match="`n_steps` must be 2 or more, found 1"):
        NoiseSchedule("cosine", 1)
    with pytest.raises(ValueError, match="`n_steps` must be 1 to 1000, found 1001"):
        NoiseSchedule("cosine", 1000).spaced(1001)


def test_steps_are_spread_evenly():
    schedule = NoiseSchedule("cosine", 1000)
    assert schedule.spaced(4) == [1000, 750, 500, 250, 0]
    assert schedule.spaced(1000) == list(range(1000, -1, -1))
    assert schedule.spaced(3) == [1000, 667, 333, 0]


# ---- forward process and posterior


@pytest.mark.parametrize("kind", KINDS)
def test_noise_in_one_go_is_noise_step_by_step(kind):
    """Eq. 2 applied t times has the mean and the variance of the closed form."""
    schedule = NoiseSchedule(kind, 100)
    factor, variance = 1.0, 0.0
    for t in range(1, 101):
        beta = float(schedule.beta[t])
        factor, variance = math.sqrt(1 - beta) * factor, (1 - beta) * variance + beta
        state = schedule.add_noise(torch.tensor([[2.0]]).double(), torch.tensor([t]), torch.tensor([[0.0]]).double())
        assert float(state) == pytest.approx(2 * factor)
        spread = schedule.add_noise(torch.tensor([[0.0]]).double(), torch.tensor([t]), torch.tensor([[1.0]]).double())
        assert float(spread) ** 2 == pytest.approx(variance)


def test_each_cell_has_its_own_step():
    schedule = NoiseSchedule()
    x, noise, t = torch.randn(3, 2), torch.randn(3, 2), torch.tensor([1, 400, 1000])
    want = torch.cat([schedule.add_noise(x[[i]], t[[i]], noise[[i]]) for i in range(3)])
    torch.testing.assert_close(schedule.add_noise(x, t, noise), want)


def test_the_clean_cell_undoes_the_noise():
    schedule = NoiseSchedule()
    x, noise = torch.randn(5, 3).double(), torch.randn(5, 3).double()
    for t in (1, 500, 999):
        state = schedule.add_noise(x, torch.full((5,), t), noise)
        torch.testing.assert_close(schedule.clean(state, t, noise), x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [2, 37, 100])
def test_posterior_is_bayes_rule_for_gaussians(kind, t):
    """q(x_{t-1} | x_t, x_0) is the product of q(x_{t-1} | x_0) and q(x_t | x_{t-1}), both Gaussian in x_{t-1}."""
    schedule = NoiseSchedule(kind, 100)
    before, beta = float(schedule.alpha_bar[t - 1]), float(schedule.beta[t])
    x0, xt = 0.7, -1.2
    precision = 1 / (1 - before) + (1 - beta) / beta
    mean = (math.sqrt(before) * x0 / (1 - before) + math.sqrt(1 - beta) * xt / beta) / precision
    got, variance = schedule.posterior(torch.tensor([[xt]]).double(), torch.tensor([[x0]]).double(), t)
    assert float(got) == pytest.approx(mean, rel=1e-5)  # of the 16 digits, 1 - alpha_bar loses those of alpha_bar
    assert variance == pytest.approx(1 / precision, rel=1e-5)


@pytest.mark.parametrize("t", [1, 2, 500, 999])
def test_mean_of_a_reverse_step_is_equation_6(t):
    schedule = NoiseSchedule()
    x, noise = torch.randn(4, 2).double(), torch.randn(4, 2).double()
    beta, kept = float(schedule.beta[t]), float(schedule.alpha_bar[t])
    want = (x - beta / math.sqrt(1 - kept) * noise) / math.sqrt(1 - beta)
    torch.testing.assert_close(schedule.posterior(x, schedule.clean(x, t, noise), t)[0], want)


# ---- samplers, with the exact noise of a mixture of Gaussians


def exact_noise(schedule):
    """E[noise | x_t] when clean cells are a mixture: each component stays Gaussian at every step."""
    weights, means = torch.tensor(WEIGHTS).double(), torch.tensor(MEANS).double()

    def predict(x, t):
        kept = float(schedule.alpha_bar[t])
        variance = kept * SD**2 + 1 - kept
        apart = x[:, None] - math.sqrt(kept) * means
        share = torch.softmax(weights.log() - apart.square().sum(-1) / (2 * variance), 1)
        score = -(share[..., None] * apart).sum(1) / variance
        return -math.sqrt(1 - kept) * score

    return predict


def start(n, seed):
    return cell_normal(torch.tensor([seed]), torch.tensor([0, n]), 2, stream=0)


def sample_ddpm(n=4000, kind="cosine", n_steps=1000, seed=0, **arguments):
    schedule = NoiseSchedule(kind, n_steps)

    def noise(t):
        return cell_normal(torch.tensor([seed]), torch.tensor([0, n]), 2, stream=t + 1)

    *_, (t, x) = ddpm_steps(schedule, exact_noise(schedule), start(n, seed), noise=noise, **arguments)
    assert t == 0
    return x


def sample_ddim(n=4000, kind="cosine", n_steps=50, seed=1, **arguments):
    schedule = NoiseSchedule(kind, 1000)
    *_, (t, x) = ddim_steps(schedule, exact_noise(schedule), start(n, seed), n_steps=n_steps, **arguments)
    assert t == 0
    return x


def assert_is_the_mixture(x):
    """Proportions within 0.05, means within 0.1 (and the spread within a tenth)."""
    nearest = torch.cdist(x, torch.tensor(MEANS).double()).argmin(1)
    for k, weight in enumerate(WEIGHTS):
        own = x[nearest == k]
        assert len(own) / len(x) == pytest.approx(weight, abs=0.05)
        np.testing.assert_allclose(own.mean(0), MEANS[k], atol=0.1)
        np.testing.assert_allclose(own.std(0), SD, rtol=0.1)


@pytest.mark.parametrize(("kind", "n_steps"), [("cosine", 1000), ("linear", 250), ("quadratic", 250)])
def test_ddpm_recovers_a_mixture(kind, n_steps):
    assert_is_the_mixture(sample_ddpm(kind=kind, n_steps=n_steps))


@pytest.mark.parametrize("kind", KINDS)
def test_ddim_recovers_a_mixture_in_50_steps(kind):
    assert_is_the_mixture(sample_ddim(kind=kind))


def mmd(x, y, bandwidth=1.0):
    """Squared maximum mean discrepancy with a Gaussian kernel, unbiased."""

    def kernel(a, b):
        return torch.exp(-torch.cdist(a, b).square() / (2 * bandwidth**2))

    n, m = len(x), len(y)
    within = (kernel(x, x).sum() - n) / (n * (n - 1)) + (kernel(y, y).sum() - m) / (m * (m - 1))
    return float(within - 2 * kernel(x, y).mean())


def permutation_p_value(x, y, n_permutations=200, seed=0):
    observed, both = mmd(x, y), torch.cat([x, y])
    generator = torch.Generator().manual_seed(seed)
    null = []
    for _ in range(n_permutations):
        order = torch.randperm(len(both), generator=generator)
        null.append(mmd(both[order[: len(x)]], both[order[len(x) :]]))
    return (1 + sum(v >= observed for v in null)) / (1 + n_permutations)


def test_ddim_agrees_with_ddpm_in_distribution():
    x, y = sample_ddpm(400), sample_ddim(400)
    assert permutation_p_value(x, y) > 0.05
    # the test has power: a mixture with other proportions is told apart
    assert permutation_p_value(x, y[y[:, 0] > -1]) < 0.05


def test_ddim_is_a_function_of_the_starting_noise():
    torch.testing.assert_close(sample_ddim(50), sample_ddim(50))
    assert not torch.equal(sample_ddim(50), sample_ddim(50, seed=2))


def test_bounds_hold_the_clean_cell():
    low, high = torch.tensor([-1.0, -1.0]), torch.tensor([1.0, 1.0])
    for sample in (sample_ddpm, sample_ddim):
        x = sample(200, bounds=(low, high))
        assert x.min() >= -1
        assert x.max() <= 1
    wide = (torch.full((2,), -9.0), torch.full((2,), 9.0))
    torch.testing.assert_close(
        sample_ddim(100, bounds=wide, n_steps=20), sample_ddim(100, n_steps=20), atol=0.2, rtol=0
    )


def test_steps_are_handed_out_from_noise_to_cells():
    schedule = NoiseSchedule("linear", 10)
    visited = [t for t, _ in ddpm_steps(schedule, exact_noise(schedule), start(3, 0), noise=lambda t: 0.0)]
    assert visited == list(range(10, -1, -1))
    visited = [t for t, _ in ddim_steps(schedule, exact_noise(schedule), start(3, 0), n_steps=5)]
    assert visited == [10, 8, 6, 4, 2, 0]


# ---- random numbers


def test_normal_numbers_are_normal_and_belong_to_the_sample():
    seed, ptr = torch.tensor([5, 9]), torch.tensor([0, 3000, 5000])
    x = cell_normal(seed, ptr, 3, stream=2)
    assert x.shape == (5000, 3)
    assert torch.isfinite(x).all()
    assert stats.kstest(x.flatten(), "norm").pvalue > 0.01
    assert abs(np.corrcoef(x.T)[0, 1]) < 0.05
    torch.testing.assert_close(cell_normal(seed[1:], torch.tensor([0, 2000]), 3, stream=2), x[3000:], rtol=0, atol=0)
    assert not torch.equal(cell_normal(seed, ptr, 3, stream=3), x)

"""Partial likelihood, baseline hazard and concordance against a slow loop, statsmodels, scikit-survival and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.metrics import concordance_index_censored
from sksurv.util import Surv
from statsmodels.duration.hazard_regression import PHReg

from scset_tools.model.supervise._cox import baseline_hazard, concordance, cox_loss


def made(n: int = 60, *, seed: int = 0, n_times: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log hazards, times with many ties, and events."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=n), rng.integers(1, n_times + 1, n).astype(float), rng.random(n) < 0.6


def slow(h: np.ndarray, time: np.ndarray, is_event: np.ndarray, ties: str) -> float:
    """The sum of the formula, event by event, divided by the number of events."""
    total = 0.0
    for t in np.unique(time[is_event]):
        tied = np.flatnonzero((time == t) & is_event)
        at_risk, of_tied = np.exp(h[time >= t]).sum(), np.exp(h[tied]).sum()
        for position, i in enumerate(tied):
            taken = position / len(tied) * of_tied if ties == "efron" else 0.0
            total += np.log(at_risk - taken) - h[i]
    return total / is_event.sum()


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("n_times", [3, 12, 10_000])
def test_loss_is_that_of_a_slow_loop_and_of_statsmodels(ties: str, n_times: int) -> None:
    h, time, is_event = made(n_times=n_times)
    got = float(cox_loss(torch.tensor(h), torch.tensor(time), torch.tensor(is_event), ties=ties))
    assert got == pytest.approx(slow(h, time, is_event, ties), rel=1e-10)
    model = PHReg(time, h[:, None], status=is_event.astype(int), ties=ties)
    assert got == pytest.approx(-model.loglike(np.ones(1)) / is_event.sum(), rel=1e-8)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_gradient_is_that_of_differences(ties: str) -> None:
    h, time, is_event = made(12, n_times=4)
    x = torch.tensor(h, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda v: cox_loss(v, torch.tensor(time), torch.tensor(is_event), ties=ties), (x,), eps=1e-6, atol=1e-7
    )


def test_three_samples_by_hand() -> None:
    """Events at 1 and 2, one sample censored at 3: log(1 + 1 + 1) and log(1 + 1) with equal hazards."""
    zero, time = torch.zeros(3), torch.tensor([1.0, 2.0, 3.0])
    loss = cox_loss(zero, time, torch.tensor([True, True, False]))
    assert float(loss) == pytest.approx((np.log(3) + np.log(2)) / 2)


def test_no_event_no_loss_and_large_hazards_do_not_overflow() -> None:
    x = torch.tensor([500.0, -500.0, 800.0], requires_grad=True)
    time = torch.tensor([1.0, 2.0, 3.0])
    none = cox_loss(x, time, torch.zeros(3, dtype=torch.bool))
    assert float(none.detach()) == 0.0
    loss = cox_loss(x, time, torch.ones(3, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == pytest.approx((300 + 1300 + 0) / 3)
    assert torch.isfinite(x.grad).all()


def test_order_of_samples_does_not_matter() -> None:
    h, time, is_event = (torch.tensor(v) for v in made())
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    assert float(cox_loss(h[order], time[order], is_event[order])) == pytest.approx(float(cox_loss(h, time, is_event)))


def test_baseline_is_that_of_scikit_survival() -> None:
    rng = np.random.default_rng(0)
    x, (_, time, is_event) = rng.normal(size=(60, 2)), made()
    fitted = CoxPHSurvivalAnalysis(ties="breslow").fit(x, Surv.from_arrays(is_event, time))
    times, hazard = baseline_hazard(torch.tensor(fitted.predict(x)), torch.tensor(time), torch.tensor(is_event))
    want = fitted.cum_baseline_hazard_
    np.testing.assert_allclose(hazard, want(times.numpy()), rtol=1e-8)
    assert set(times.tolist()) == set(time[is_event])


def test_concordance_is_that_of_scikit_survival() -> None:
    h, time, is_event = made(80)
    h = np.round(h, 1)  # with ties of the hazard
    value, n = concordance(torch.tensor(h), torch.tensor(time), torch.tensor(is_event))
    want = concordance_index_censored(is_event, time, h)
    assert float(value) == pytest.approx(want[0])
    # at one time two events are not comparable, as there
    assert n == sum(want[1:4])
    assert np.isnan(float(concordance(torch.zeros(2), torch.ones(2), torch.zeros(2))[0]))

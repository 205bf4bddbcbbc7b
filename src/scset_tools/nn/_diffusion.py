"""Denoising diffusion of cells: noise schedules, the forward process, its posterior, and two samplers (ScSet section 3.1).

Steps are numbered as in the paper: step 0 is a clean cell, step ``T`` is noise, and ``beta[t]`` leads from ``t - 1`` to ``t``.
Samplers are generators over the steps, so that whoever reads them decides which intermediate states to keep.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from scset_tools.nn._ragged import to_device

__all__ = ["SCHEDULES", "NoiseSchedule", "ddim_steps", "ddpm_steps"]

Predict = Callable[[Tensor, int], Tensor]
"""Predicted noise of cells (cells, features) at a step."""

MAX_BETA = 0.999
"""Largest step of the cosine schedule, whose last one would otherwise divide by zero (Nichol and Dhariwal, section 3.2)."""


def _cosine(n_steps: int) -> Tensor:
    r"""``alpha_bar(t) = f(t) / f(0)``, ``f(t) = cos^2((t / T + s) / (1 + s) \pi / 2)`` with ``s = 0.008``, as steps."""
    at = torch.arange(n_steps + 1, dtype=torch.float64) / n_steps
    f = torch.cos((at + 0.008) / 1.008 * math.pi / 2).square()
    return (1 - f[1:] / f[:-1]).clamp(max=MAX_BETA)


def _linear(n_steps: int) -> Tensor:
    """From 1e-4 to 0.02 for 1,000 steps, scaled for others so that the last step is noise all the same."""
    scale = 1000 / n_steps
    return torch.linspace(scale * 1e-4, scale * 0.02, n_steps, dtype=torch.float64).clamp(max=MAX_BETA)


def _quadratic(n_steps: int) -> Tensor:
    """The same ends, linear in the square root."""
    scale = 1000 / n_steps
    root = torch.linspace((scale * 1e-4) ** 0.5, (scale * 0.02) ** 0.5, n_steps, dtype=torch.float64)
    return root.square().clamp(max=MAX_BETA)


SCHEDULES = {"cosine": _cosine, "linear": _linear, "quadratic": _quadratic}


class NoiseSchedule:
    r"""How much noise a cell has at each step, and what follows from it in closed form.

    Parameters
    ----------
    kind
        ``"cosine"`` (the paper), ``"linear"`` or ``"quadratic"``.
    n_steps
        Number of steps :math:`T`.

    Attributes
    ----------
    beta, alpha_bar
        Variance of each step, and :math:`\bar\alpha_t = \prod_{s \le t} (1 - \beta_s)`, float64 of shape (T + 1,); at step 0
        they are 0 and 1.

    Raises
    ------
    ValueError
        If there is no such schedule, or ``n_steps`` is less than 2.
    """

    kinds = tuple(SCHEDULES)

    def __init__(self, kind: str = "cosine", n_steps: int = 1000) -> None:
        if kind not in SCHEDULES:
            raise ValueError(f"The schedule {kind!r} is not one of {sorted(SCHEDULES)}.")
        if n_steps < 2:
            raise ValueError(f"`n_steps` must be 2 or more, found {n_steps}.")
        self.kind, self.n_steps = kind, n_steps
        self.beta = torch.cat([torch.zeros(1, dtype=torch.float64), SCHEDULES[kind](n_steps)])
        self.alpha_bar = (1 - self.beta).cumprod(0)
        self._moved = (
            self.alpha_bar
        )  # where it was last needed: single steps are read on the host, all of them on a device

    def add_noise(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        r"""State at step ``t``: :math:`\sqrt{\bar\alpha_t}\, x + \sqrt{1 - \bar\alpha_t}\, \epsilon` (eq. 2, all steps at once).

        Parameters
        ----------
        x
            Clean cells, (cells, features).
        t
            Step of each cell, int64 (cells,).
        noise
            Standard normal numbers, (cells, features).
        """
        if self._moved.device != x.device:
            self._moved = to_device(self.alpha_bar, x.device)
        kept = self._moved[t][:, None]
        return kept.sqrt().to(x.dtype) * x + (1 - kept).sqrt().to(x.dtype) * noise

    def clean(self, x: Tensor, t: int, noise: Tensor) -> Tensor:
        r"""The clean cell that a noise amounts to: :math:`(x_t - \sqrt{1 - \bar\alpha_t}\, \epsilon) / \sqrt{\bar\alpha_t}`.

        Parameters
        ----------
        x
            Cells at step ``t``, (cells, features).
        t
            The step.
        noise
            Their noise, (cells, features).
        """
        kept = float(self.alpha_bar[t])
        return (x - (1 - kept) ** 0.5 * noise) / kept**0.5

    def posterior(self, x: Tensor, clean: Tensor, t: int) -> tuple[Tensor, float]:
        r"""Mean and variance of the state at ``t - 1`` given that at ``t`` and the clean cell.

        :math:`\mu = \frac{\sqrt{\bar\alpha_{t-1}} \beta_t}{1 - \bar\alpha_t} x_0 + \frac{\sqrt{1 - \beta_t} (1 -
        \bar\alpha_{t-1})}{1 - \bar\alpha_t} x_t` and :math:`\sigma_t^2 = \frac{1 - \bar\alpha_{t-1}}{1 - \bar\alpha_t} \beta_t`.
        With ``clean`` from a predicted noise, the mean is that of eq. 6.

        Parameters
        ----------
        x
            Cells at step ``t``, (cells, features).
        clean
            Clean cells, (cells, features).
        t
            The step, 1 or more.
        """
        beta, now, before = float(self.beta[t]), float(self.alpha_bar[t]), float(self.alpha_bar[t - 1])
        mean = (before**0.5 * beta * clean + (1 - beta) ** 0.5 * (1 - before) * x) / (1 - now)
        return mean, (1 - before) / (1 - now) * beta

    def spaced(self, n_steps: int) -> list[int]:
        """At most ``n_steps`` steps from ``T`` down to 0, spread evenly; 0 is not counted.

        Parameters
        ----------
        n_steps
            Number of steps to take.
        """
        if not 1 <= n_steps <= self.n_steps:
            raise ValueError(f"`n_steps` must be 1 to {self.n_steps}, found {n_steps}.")
        return torch.linspace(self.n_steps, 0, n_steps + 1, dtype=torch.float64).round().to(torch.int64).tolist()


def ddpm_steps(
    schedule: NoiseSchedule,
    predict: Predict,
    x: Tensor,
    *,
    noise: Callable[[int], Tensor],
    bounds: tuple[Tensor, Tensor] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Ancestral sampling through all steps (eq. 5-6), with the variance of the posterior.

    Parameters
    ----------
    schedule
        Noise schedule.
    predict
        Predicts the noise of cells at a step.
    x
        Standard normal numbers, the cells at step ``T``, (cells, features).
    noise
        Gives the standard normal numbers (cells, features) of a step.
    bounds
        Smallest and largest value of each feature of a clean cell, each (features,). The clean cell that a predicted noise
        amounts to is held within: near step ``T`` it is the small difference of two large numbers.

    Yields
    ------
    Steps from ``T`` down to 0, and the cells there.
    """
    yield schedule.n_steps, x
    for t in range(schedule.n_steps, 0, -1):
        clean = _clamp(schedule.clean(x, t, predict(x, t)), bounds)
        x, variance = schedule.posterior(x, clean, t)
        if t > 1:  # at the last step the variance is zero
            x = x + variance**0.5 * noise(t)
        yield t - 1, x


def ddim_steps(
    schedule: NoiseSchedule,
    predict: Predict,
    x: Tensor,
    *,
    n_steps: int = 50,
    bounds: tuple[Tensor, Tensor] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Deterministic sampling through a few steps (DDIM, eq. 12 with eta = 0): noise decides at the start alone.

    Parameters
    ----------
    schedule
        Noise schedule of the training.
    predict
        Predicts the noise of cells at a step.
    x
        Standard normal numbers, the cells at step ``T``, (cells, features).
    n_steps
        Number of steps to take.
    bounds
        As for :func:`ddpm_steps`.

    Yields
    ------
    The steps taken, from ``T`` down to 0, and the cells there.

    References
    ----------
    Song, Meng, Ermon (2021). Denoising diffusion implicit models. ICLR.
    """
    taken = schedule.spaced(n_steps)
    yield taken[0], x
    for t, following in itertools.pairwise(taken):
        now, then = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[following])
        clean = _clamp(schedule.clean(x, t, predict(x, t)), bounds)
        direction = (x - now**0.5 * clean) / (1 - now) ** 0.5  # the predicted noise, or what of it the bounds leave
        x = then**0.5 * clean + (1 - then) ** 0.5 * direction
        yield following, x


def _clamp(x: Tensor, bounds: tuple[Tensor, Tensor] | None) -> Tensor:
    return x if bounds is None else torch.clamp(x, bounds[0].to(x), bounds[1].to(x))

r"""Entropic transport between equally large clouds, batched.

Both solvers look for potentials :math:`f, g` with which the plan relative to the product of the uniform marginals,

.. math:: D_{ij} = \exp((f_i + g_j - \|x_i - y_j\|^2) / \epsilon), \qquad P_{ij} = D_{ij} / (n m),

has rows and columns of mean one. They hand it over as ``kernel, u, v`` with :math:`D_{ij} = u_i K_{ij} v_j`, so that a
product of the plan with the points is one product of the kernel.

Legend: b = clouds in the batch, n = points of x, m = points of y, d = features. Everything is in units in which the
clouds have a spread of about one; the temperature is the current value of epsilon.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# At this temperature a single sweep is nearly converged, wherever the potentials start.
_FIRST_TEMPERATURE = 0.25
# A Newton step may change the logarithm of a scaling by this much: within it the quadratic model holds well enough.
_LARGEST_STEP = 3.0
# Further below the largest entry of its row nothing counts, and an exponential that underflows takes 50 times as long
# on the CPU.
_LEAST_EXPONENT = -70.0
# Marginal error at which the annealing goes on to the next temperature.
_STAGE_TOLERANCE = 5e-3


class Plan(NamedTuple):
    """A transport plan relative to the product of its uniform marginals, ``u[:, :, None] * kernel * v[:, None, :]``."""

    kernel: Tensor  # (b, n, m)
    u: Tensor  # (b, n)
    v: Tensor  # (b, m)
    f: Tensor  # (b, n), potentials whose mean sum is the value of the dual problem
    g: Tensor  # (b, m)
    marginal_error: Tensor  # (b,), share of the mass that lies in a wrong row


def solve_scaling(
    x: Tensor, y: Tensor, *, epsilon: float, annealing: float, n_iterations: int, tolerance: float, n_cg: int = 8
) -> Plan:
    """Scale the rows and columns of a kernel matrix, with a Newton step after each sweep.

    At each temperature on the way from 0.25 to ``epsilon`` the potentials are absorbed into the kernel, then rounds of
    a Sinkhorn sweep and a Newton step on the dual (``n_cg`` conjugate-gradient iterations) follow. All of a round are
    products of the kernel with vectors; the marginal error is looked at once per round.

    Why Newton: the sweeps take thousands of iterations to move a little mass between far-apart cell types, and these few
    directions are what conjugate gradients find first.

    Parameters
    ----------
    x, y
        Clouds, (b, n, d) and (b, m, d).
    epsilon
        Last temperature.
    annealing
        Factor from one temperature to the next, in (0, 1).
    n_iterations
        Most rounds at one temperature.
    tolerance
        Marginal error at which the last temperature is left.
    n_cg
        Iterations of conjugate gradients per round; 0 for plain sweeps.
    """
    f, g = x.new_zeros(x.shape[:2]), y.new_zeros(y.shape[:2])
    kernel = x.new_empty(x.shape[0], x.shape[1], y.shape[1])
    temperatures = _temperatures(epsilon, annealing)
    for temperature in temperatures:
        _absorb(x, y, f, g, temperature=temperature, kernel=kernel)
        is_last = temperature == temperatures[-1]
        scaling = _Scaling(kernel)
        scaling.fit(n_iterations, tolerance=tolerance if is_last else max(tolerance, _STAGE_TOLERANCE), n_cg=n_cg)
        f += temperature * scaling.u.log()
        g += temperature * scaling.v.log()
    return Plan(kernel, scaling.u, scaling.v, f, g, scaling.error)


def solve_log(x: Tensor, y: Tensor, *, epsilon: float, annealing: float, n_iterations: int, tolerance: float) -> Plan:
    """Update the potentials by soft minima: the textbook's algorithm, slower and without any kernel to look after.

    One sweep per temperature on the way down and up to ``n_iterations`` at ``epsilon``, where the marginal error is
    looked at every tenth time. Parameters as in :func:`solve_scaling`.
    """
    f, g = x.new_zeros(x.shape[:2]), y.new_zeros(y.shape[:2])
    kernel = x.new_empty(x.shape[0], x.shape[1], y.shape[1])
    temperatures = _temperatures(epsilon, annealing)
    for temperature in temperatures:
        is_last = temperature == temperatures[-1]
        for iteration in range(n_iterations if is_last else 1):
            _exponents(x, y, f, g, temperature=temperature, out=kernel)
            row_log_mean = torch.logsumexp(kernel, dim=2) - math.log(y.shape[1])
            if is_last and iteration % 10 == 9 and _is_below(_row_error(row_log_mean.exp()), tolerance):
                break
            f -= temperature * row_log_mean
            kernel -= row_log_mean.unsqueeze(2)
            g -= temperature * (torch.logsumexp(kernel, dim=1) - math.log(x.shape[1]))
    kernel = _exponents(x, y, f, g, temperature=epsilon, out=kernel).exp_()
    return Plan(kernel, torch.ones_like(f), torch.ones_like(g), f, g, _row_error(kernel.mean(dim=2)))


def _temperatures(epsilon: float, annealing: float) -> list[float]:
    """From 0.25 down to ``epsilon`` in equal ratios of ``annealing`` or milder."""
    n_steps = max(0, math.ceil(math.log(epsilon / _FIRST_TEMPERATURE) / math.log(annealing)))
    return [epsilon * (_FIRST_TEMPERATURE / epsilon) ** (1 - i / n_steps) for i in range(n_steps)] + [epsilon]


def _exponents(x: Tensor, y: Tensor, f: Tensor, g: Tensor, *, temperature: float, out: Tensor) -> Tensor:
    """Write ``(f_i + g_j - |x_i - y_j|^2) / temperature`` into ``out`` (b, n, m)."""
    if x.dtype != torch.float64 and not _products_are_exact():
        out.copy_(torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square_())
        return out.neg_().add_(f.unsqueeze(2)).add_(g.unsqueeze(1)).div_(temperature)
    # The sum is the product of points with two more features: one pass over the memory instead of four.
    of_x = ((f - x.square().sum(dim=2)) / temperature).unsqueeze(2)
    of_y = ((g - y.square().sum(dim=2)) / temperature).unsqueeze(2)
    left = torch.cat([x * (2 / temperature), of_x, torch.ones_like(of_x)], dim=2)
    right = torch.cat([y, torch.ones_like(of_y), of_y], dim=2)
    return torch.bmm(left, right.transpose(1, 2), out=out)


def _products_are_exact() -> bool:
    """Whether matrix products use all digits of float32; TF32 or bfloat16 would leave none after the exponential."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # torch >= 2.9 refuses to answer where the precision was set per backend
        return False


def _absorb(x: Tensor, y: Tensor, f: Tensor, g: Tensor, *, temperature: float, kernel: Tensor) -> None:
    """Write the kernel of the potentials, moving ``f`` and ``g`` in place so that 1 is its largest entry everywhere.

    Rows first, then columns: a column only rises, and nowhere above 1, so each row and each column ends with a largest
    entry of 1. No sum over either can overflow or vanish, however far apart the points are.
    """
    _exponents(x, y, f, g, temperature=temperature, out=kernel)
    for potential, dim in ((f, 2), (g, 1)):
        largest = kernel.amax(dim=dim, keepdim=True)
        kernel -= largest
        potential -= temperature * largest.squeeze(dim)
    kernel.clamp_min_(_LEAST_EXPONENT).exp_()


class _Scaling:
    """Scalings ``u, v`` of the rows and columns of a kernel; the columns have mean one after each method."""

    def __init__(self, kernel: Tensor) -> None:
        self.kernel, self.transposed = kernel, kernel.transpose(1, 2)
        self.tiny = torch.finfo(kernel.dtype).tiny * 1e4
        self._move_to(kernel.new_ones(kernel.shape[:2]))

    def fit(self, n_rounds: int, *, tolerance: float, n_cg: int) -> None:
        for _ in range(n_rounds):
            if _is_below(self.error, tolerance):
                return
            self._move_to(self.u / self.row_mean.clamp_min(self.tiny))
            if n_cg:
                self._newton(n_cg)

    def _mean_over_columns(self, v: Tensor) -> Tensor:
        return torch.bmm(self.kernel, v.unsqueeze(2)).squeeze(2) / self.kernel.shape[2]

    def _mean_over_rows(self, u: Tensor) -> Tensor:
        return torch.bmm(self.transposed, u.unsqueeze(2)).squeeze(2) / self.kernel.shape[1]

    def _move_to(self, u: Tensor) -> None:
        self.u = u
        self.v = self._mean_over_rows(u).clamp_min(self.tiny).reciprocal()
        self.row_mean = u * self._mean_over_columns(self.v)
        self.error = _row_error(self.row_mean)

    def _newton(self, n_cg: int) -> None:
        step = self._newton_step(n_cg)
        largest = step.abs().amax(dim=1, keepdim=True)
        step = step * (_LARGEST_STEP / largest.clamp_min(_LARGEST_STEP))
        u, v, row_mean, error = self.u, self.v, self.row_mean, self.error
        self._move_to(u * step.exp())
        # With fitted columns the dual is the mean of the potentials: a set whose step lowers it stays where it was.
        is_worse = (step.mean(dim=1) + (self.v / v).log().mean(dim=1) < 0).unsqueeze(1)
        self.u, self.v = torch.where(is_worse, u, self.u), torch.where(is_worse, v, self.v)
        self.row_mean = torch.where(is_worse, row_mean, self.row_mean)
        self.error = torch.where(is_worse.squeeze(1), error, self.error)

    def _newton_step(self, n_cg: int) -> Tensor:
        """Change of ``log u`` towards rows of mean one while the columns stay fitted, (b, n).

        Conjugate gradients on ``diag(row_mean) - D D' / (n m)``, the negative Hessian of the dual, with its diagonal as
        preconditioner.
        """
        diagonal = self.row_mean.clamp_min(self.tiny)
        step = torch.zeros_like(self.u)
        residual = 1 - self.row_mean
        direction = residual / diagonal
        product = (residual * direction).sum(dim=1, keepdim=True)
        v_squared = self.v.square()
        for _ in range(n_cg):
            through = self._mean_over_columns(v_squared * self._mean_over_rows(self.u * direction))
            image = diagonal * direction - self.u * through
            curvature = (direction * image).sum(dim=1, keepdim=True)
            # Both vanish for a set that has converged: its step stays as it is.
            length = torch.where(curvature > self.tiny, product / curvature.clamp_min(self.tiny), 0.0)
            step = step + length * direction
            residual = residual - length * image
            scaled = residual / diagonal
            next_product = (residual * scaled).sum(dim=1, keepdim=True)
            direction = scaled + next_product / product.clamp_min(self.tiny) * direction
            product = next_product
        return step


def _row_error(row_mean: Tensor) -> Tensor:
    """Share of the mass that would have to move to other rows, (b,)."""
    return (row_mean - 1).abs().mean(dim=1) / 2


def _is_below(error: Tensor, tolerance: float) -> bool:
    """Whether all sets have converged: the one place of the loop that waits for the device."""
    return bool((error < tolerance).all())

r"""Entropic transport between clouds, batched; clouds of several sizes are padded to the largest.

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

from scset_tools.nn.loss._sinkhorn_sets import Behind, Cells, Now

# The mean squared distance of what :class:`SinkhornLoss` solves is at most 200 units, of a set and itself.
_LARGEST_FIRST = 50.0
# At this share of the mean squared distance a single sweep is nearly converged, wherever the potentials start.
_FIRST_TEMPERATURE = 0.25
# A Newton step may change the logarithm of a scaling by this much: within it the quadratic model holds well enough.
_LARGEST_STEP = 3.0
# Further below the largest entry of its row nothing counts, and an exponential that underflows takes 50 times as long
# on the CPU.
_LEAST_EXPONENT = -70.0
# Scalings stay within this factor of 1, so that no product of three of them leaves float32; the next absorption takes up
# what is left.
_LARGEST_SCALING = 1e15
# Marginal error at which the annealing goes on to the next temperature.
_STAGE_TOLERANCE = 4e-3


class Plan(NamedTuple):
    """A transport plan relative to the product of its uniform marginals, ``u[:, :, None] * kernel * v[:, None, :]``."""

    kernel: Tensor  # (b, n, m)
    u: Tensor  # (b, n)
    v: Tensor  # (b, m)
    f: Tensor  # (b, n), potentials whose mean sum is the value of the dual problem
    g: Tensor  # (b, m)
    marginal_error: Tensor  # (b,), share of the mass that lies in a wrong row


def solve_scaling(
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    annealing: float,
    n_iterations: int,
    tolerance: float,
    n_cg: int = 8,
    cells: tuple[Cells, Cells] | None = None,
    look: type[Now | Behind] = Now,
) -> Plan:
    """Scale the rows and columns of a kernel matrix, with Newton steps between the sweeps.

    At each temperature on the way from a quarter of the mean cost to ``epsilon`` the potentials are absorbed into the
    kernel; then follow rounds of a sweep, a Newton step on the dual (``n_cg`` iterations of conjugate gradients) and
    another sweep. All of a round are products of the kernel with vectors; the marginal error is looked at once per round.

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
    cells
        Which slots of ``x`` and ``y`` hold cells, where the clouds are padded; zeros elsewhere.
    look
        When it is looked whether all clouds are done: at once, or a round later, so that a GPU is not left without work. The
        result is the same: a cloud that is done waits for the others.
    """
    of_x, of_y = cells or (Cells(x.shape[1]), Cells(y.shape[1]))
    f, g = of_x.potential(x), of_y.potential(y)
    kernel = x.new_empty(x.shape[0], x.shape[1], y.shape[1])
    first = _first_temperature(x, y, of_x, of_y, epsilon=epsilon)
    n_stages = 1 + _n_steps(first.max().item() if look is Now else _LARGEST_FIRST, epsilon, annealing)
    temperatures: list[Tensor] = []
    change_f, change_g = torch.zeros_like(f), torch.zeros_like(g)
    stages = look()
    # what clouds that have been at the last temperature came with and left with
    done: tuple[Tensor, ...] | None = None
    for stage in range(n_stages):
        is_end = stage == n_stages - 1
        temperature = torch.full_like(first, epsilon) if is_end else (first * annealing**stage).clamp_min(epsilon)
        temperatures.append(temperature)
        before_f, before_g = f, g
        # The potentials are nearly linear in the temperature.
        ratio = _ratio_of_changes(temperatures, stage)
        f, g = f + ratio * change_f, g + ratio * change_g
        was_last = None if stage == 0 else temperatures[stage - 1] == epsilon  # (b, 1)
        if done is not None:  # the kernel of a cloud that waits comes out as it was
            f, g = torch.where(was_last, done[0], f), torch.where(was_last, done[1], g)
        came = f, g
        f, g = f.clone(), g.clone()
        log_u = _absorb(x, y, f, g, temperature=temperature, kernel=kernel, of_x=of_x, of_y=of_y)
        is_last = temperature.squeeze(1) == epsilon
        stages.tell(is_last)
        scaling = _Scaling(kernel, log_u, of_x, of_y)
        scaling.fit(
            n_iterations,
            tolerance=torch.where(is_last, tolerance, max(tolerance, _STAGE_TOLERANCE)),
            n_cg=n_cg,
            look=look(),
            waits=None if was_last is None else was_last.squeeze(1),
        )
        u, v, error = scaling.u.squeeze(2), scaling.v.squeeze(2), scaling.error
        f, g = f + temperature * of_x.fill(u, 1.0).log(), g + temperature * of_y.fill(v, 1.0).log()
        left: tuple[Tensor, ...] = (*came, u, v, error, f, g)
        if done is not None:
            left = tuple(
                torch.where(was_last if new.ndim == 2 else was_last.squeeze(1), old, new)
                for old, new in zip(done, left, strict=True)
            )
        done, (u, v, error, f, g) = left, left[2:]
        if stages.answer():  # of the flags from before the rounds
            break
        change_f, change_g = f - before_f, g - before_g
    return Plan(kernel, u, v, f, g, error)


def solve_log(x: Tensor, y: Tensor, *, epsilon: float, annealing: float, n_iterations: int, tolerance: float) -> Plan:
    """Update the potentials by soft minima: the textbook's algorithm, slower and without any kernel to look after.

    One sweep per temperature on the way down and up to ``n_iterations`` at ``epsilon``, where the marginal error is
    looked at every tenth time. Parameters as in :func:`solve_scaling`.
    """
    f, g = x.new_zeros(x.shape[:2]), y.new_zeros(y.shape[:2])
    kernel = x.new_empty(x.shape[0], x.shape[1], y.shape[1])
    is_done = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    first = _first_temperature(x, y, Cells(x.shape[1]), Cells(y.shape[1]), epsilon=epsilon)
    n_steps = _n_steps(first.max().item(), epsilon, annealing)
    for step in range(n_steps + 1):
        temperature = (
            (first * annealing**step).clamp_min(epsilon) if step < n_steps else torch.full_like(first, epsilon)
        )
        has_arrived = (temperature == epsilon).squeeze(1)
        is_last = bool(has_arrived.all())
        for iteration in range(n_iterations if is_last else 1):
            _exponents(x, y, f, g, temperature=temperature, out=kernel)
            row_log_mean = torch.logsumexp(kernel, dim=2) - math.log(y.shape[1])
            if is_last and iteration % 10 == 9:
                is_done = is_done | (_row_error(row_log_mean.exp()) < tolerance)
                if bool(is_done.all()):
                    break
            kernel -= row_log_mean.unsqueeze(2)
            column_log_mean = torch.logsumexp(kernel, dim=1) - math.log(x.shape[1])
            # A set at the last temperature, or converged, waits for the others: batch mates do not change its plan.
            waits = (is_done if is_last else has_arrived).unsqueeze(1)
            f -= temperature * row_log_mean.masked_fill(waits, 0)
            g -= temperature * column_log_mean.masked_fill(waits, 0)
    kernel = _exponents(x, y, f, g, temperature=temperature, out=kernel).exp_()
    return Plan(kernel, torch.ones_like(f), torch.ones_like(g), f, g, _row_error(kernel.mean(dim=2)))


def _first_temperature(x: Tensor, y: Tensor, of_x: Cells, of_y: Cells, *, epsilon: float) -> Tensor:
    """The first temperature of each set, a share of its mean squared distance, (b, 1).

    Its own, whatever its batch mates: where outliers cost a hundred times the usual, the potentials have as much further to go.
    Sets that arrive early stay at ``epsilon``.
    """
    spread = of_x.mean(x.square().sum(dim=2, keepdim=True)) + of_y.mean(y.square().sum(dim=2, keepdim=True))
    return (_FIRST_TEMPERATURE * spread.squeeze(2)).clamp_min(epsilon)


def _n_steps(largest: float, epsilon: float, annealing: float) -> int:
    """Steps from the largest first temperature of all sets down to ``epsilon``."""
    return math.ceil(math.log(epsilon / largest) / math.log(annealing)) if math.isfinite(largest) else 0


def _ratio_of_changes(temperatures: list[Tensor], stage: int) -> Tensor | float:
    """Change of the temperature at this stage by that at the stage before, (b, 1); the first two have none to go by."""
    if stage < 2:
        return 0.0
    change, last_change = (
        temperatures[stage] - temperatures[stage - 1],
        temperatures[stage - 1] - temperatures[stage - 2],
    )
    return torch.where(last_change == 0, 0.0, change / last_change)


def _exponents(x: Tensor, y: Tensor, f: Tensor, g: Tensor, *, temperature: Tensor, out: Tensor) -> Tensor:
    """Write ``(f_i + g_j - |x_i - y_j|^2) / temperature`` into ``out`` (b, n, m)."""
    if x.dtype != torch.float64 and not _products_are_exact():
        out.copy_(torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square_())
        return out.neg_().add_(f.unsqueeze(2)).add_(g.unsqueeze(1)).div_(temperature.unsqueeze(2))
    # The sum is the product of points with two more features: one pass over the memory instead of four.
    of_x = ((f - x.square().sum(dim=2)) / temperature).unsqueeze(2)
    of_y = ((g - y.square().sum(dim=2)) / temperature).unsqueeze(2)
    left = torch.cat([x * (2 / temperature).unsqueeze(2), of_x, torch.ones_like(of_x)], dim=2)
    right = torch.cat([y, torch.ones_like(of_y), of_y], dim=2)
    return torch.bmm(left, right.transpose(1, 2), out=out)


def _products_are_exact() -> bool:
    """Whether matrix products use all digits of float32; TF32 or bfloat16 would leave none after the exponential."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # torch >= 2.9 refuses to answer where the precision was set per backend
        return False


def _absorb(
    x: Tensor, y: Tensor, f: Tensor, g: Tensor, *, temperature: Tensor, kernel: Tensor, of_x: Cells, of_y: Cells
) -> Tensor:
    """Write the kernel of the potentials, moving ``f`` and ``g`` in place so that 1 is its largest entry everywhere.

    Rows first, then columns: a column only rises, and nowhere above 1, so each row and each column ends with a largest
    entry of 1. No sum over either can overflow or vanish, however far apart the points are. Returns the logarithm of the
    scaling of the rows that undoes their move, (b, n).
    """
    _exponents(x, y, f, g, temperature=temperature, out=kernel)
    # of an empty slot nothing is taken away: its entries stay far below all others
    largest_of_rows = of_x.fill(kernel.amax(dim=2), 0.0)
    kernel -= largest_of_rows.unsqueeze(2)
    f -= temperature * largest_of_rows
    largest_of_columns = of_y.fill(kernel.amax(dim=1), 0.0)
    kernel -= largest_of_columns.unsqueeze(1)
    g -= temperature * largest_of_columns
    kernel.clamp_min_(_LEAST_EXPONENT).exp_()
    return largest_of_rows


class _Scaling:
    """Scalings ``u, v`` of the rows and columns of a kernel; the columns have mean one after each method.

    Vectors are kept as single columns, (b, n, 1) and (b, m, 1): small sets spend their time on the number of calls. The scaling
    of an empty slot is 0, which keeps it out of all products.
    """

    def __init__(self, kernel: Tensor, log_u: Tensor, of_x: Cells, of_y: Cells) -> None:
        self.kernel, self.transposed = kernel, kernel.transpose(1, 2)
        self.of_x, self.of_y = of_x, of_y
        self.n, self.m = of_x.n, of_y.n
        # the sum of a column that is fitted, and the mean of an empty row, which counts as fitted
        self.n_of_column = self.n if of_y.real is None else of_y.real * self.n
        self.of_empty_row = None if of_x.real is None else 1 - of_x.real
        self.least = 1 / _LARGEST_SCALING if of_x.real is None else of_x.real / _LARGEST_SCALING
        self.most = _LARGEST_SCALING if of_x.real is None else of_x.real * _LARGEST_SCALING
        self.radius = kernel.new_full((len(kernel), 1, 1), _LARGEST_STEP)
        log_u = log_u.unsqueeze(2)
        self._move_to((log_u - of_x.mean(log_u)).exp())

    def fit(
        self, n_rounds: int, *, tolerance: Tensor, n_cg: int, look: Now | Behind, waits: Tensor | None = None
    ) -> None:
        """Rounds until all sets are as good as ``tolerance`` (b,), or at most so many; those that ``waits`` (b,) names stay as they are."""
        for _ in range(n_rounds):
            is_done = self.error < tolerance
            if waits is not None:
                is_done = is_done | waits
            if look.asked(is_done):
                return
            before = self._state()
            # Newton's model is good near fitted rows, and its step leaves single rows that one more sweep repairs.
            self._sweep()
            if n_cg:
                self._newton(n_cg)
                self._sweep()
            # A set that has converged waits for the others: batch mates do not change its plan.
            self._go_back(before, where=is_done)

    def _move_to(self, u: Tensor) -> None:
        self.u = u.clamp(self.least, self.most)
        self.v = self.n_of_column / torch.bmm(self.transposed, self.u).clamp_min(1 / _LARGEST_SCALING)
        self.row_mean = self.u * torch.bmm(self.kernel, self.v) / self.m
        if self.of_empty_row is not None:
            self.row_mean = self.row_mean + self.of_empty_row

    @property
    def error(self) -> Tensor:
        """Share of the mass that lies in a wrong row, (b,)."""
        return self.of_x.mean((self.row_mean - 1).abs()).flatten() / 2

    def _sweep(self) -> None:
        self._move_to(self.u / self.row_mean)

    def _newton(self, n_cg: int) -> None:
        # Cell by cell: shortening the whole step for the sake of a few cells would hold up all others.
        step = torch.clamp(self._newton_step(n_cg), -self.radius, self.radius)
        before = self._state()
        self._move_to(self.u * step.exp())
        # With fitted columns the dual is the mean of the potentials. A set whose step lowers it, or is no number, stays
        # where it was and tries a shorter one next time.
        gain = self._mean_log(self.of_x, self.u / before[0]) + self._mean_log(self.of_y, self.v / before[1])
        is_worse = ~(gain >= 0)
        self._go_back(before, where=is_worse)
        self.radius = torch.where(is_worse[:, None, None], self.radius / 4, 2 * self.radius).clamp_max(_LARGEST_STEP)

    @staticmethod
    def _mean_log(cells: Cells, ratio: Tensor) -> Tensor:
        if cells.real is not None:
            ratio = torch.where(cells.real > 0, ratio, 1.0)
        return cells.mean(ratio.log()).flatten()

    def _state(self) -> tuple[Tensor, ...]:
        return self.u, self.v, self.row_mean

    def _go_back(self, state: tuple[Tensor, ...], *, where: Tensor) -> None:
        """Take the earlier state of the sets named by ``where`` (b,)."""
        where = where[:, None, None]
        self.u, self.v, self.row_mean = (
            torch.where(where, old, new) for old, new in zip(state, self._state(), strict=True)
        )

    def _newton_step(self, n_cg: int) -> Tensor:
        """Change of ``log u`` towards rows of mean one while the columns stay fitted, (b, n, 1).

        Conjugate gradients on the negative Hessian of the dual, ``diag(row_mean) - D D' / (n m)``, divided by the root of
        its diagonal from both sides.
        """
        precision, tiny = torch.finfo(self.kernel.dtype).eps, torch.finfo(self.kernel.dtype).tiny
        # The floor keeps a row that is nearly empty from filling the numbers; its step is cut short anyway.
        root = self.row_mean.clamp_min(1e-6).sqrt()
        of_rows = self.u / root
        of_columns = self.v.clamp_max(_LARGEST_SCALING).square() / (self.n * self.m)
        step = torch.zeros_like(root)
        residual = direction = (1 - self.row_mean) / root
        product = _dot(residual, residual)
        for iteration in range(n_cg):
            through = torch.bmm(self.kernel, of_columns * torch.bmm(self.transposed, of_rows * direction))
            image = torch.addcmul(direction, of_rows, through, value=-1)
            curvature = _dot(direction, image)
            # Where a set has converged there is only rounding left, and curvature of either sign: its step stays.
            length = torch.where(curvature > precision * product, product / curvature, 0.0)
            step = torch.addcmul(step, length, direction)
            if iteration == n_cg - 1:
                break
            residual = torch.addcmul(residual, length, image, value=-1)
            last_product, product = product, _dot(residual, residual)
            direction = torch.addcmul(residual, product / last_product.clamp_min(tiny), direction)
        return step / root


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of single columns, (b, 1, 1)."""
    return torch.bmm(a.transpose(1, 2), b)


def _row_error(row_mean: Tensor) -> Tensor:
    """Share of the mass that would have to move to other rows, (b,)."""
    return (row_mean - 1).abs().mean(dim=1) / 2

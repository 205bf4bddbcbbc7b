"""Optimal transport between the original and the reconstructed cells (MAESTRO eq. 10, Algorithm 2, appendix C.2)."""

from __future__ import annotations

import itertools
import warnings
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from scset_tools.nn import _ragged
from scset_tools.nn._memory import rows_at_once
from scset_tools.nn.loss._sinkhorn_exact import exact_targets
from scset_tools.nn.loss._sinkhorn_sets import Behind, Cells, Now, Side, groups_of
from scset_tools.nn.loss._sinkhorn_solver import Plan, solve_log, solve_scaling

_SOLVERS = ("auto", "scaling", "log", "exact")
# Pairs of cells up to which, on a CPU, the network simplex is quicker than scaling to the same accuracy (benchmarks/sinkhorn.py).
_EXACT_PAIRS = 500 * 500
# Entries of the kernel that a CPU works on at a time: it is fastest while the kernel stays in its cache. A GPU is fastest while all
# its cores have work: there its memory decides.
_CPU_ENTRIES = 2**18
_BYTES = 4  # of an entry
# Share of misplaced mass above which a caller should know that the plan is not converged.
_WARN_ERROR = 0.05


class SinkhornLoss(nn.Module):
    r"""Entropic transport cost between two sets of cells, whatever the order of the cells in either.

    .. math::
        L = \sum_{ij} P_{ij} \|x_i - y_j\|^2, \qquad
        P = \arg\min_P \sum_{ij} P_{ij} \|x_i - y_j\|^2 + \epsilon s \, \mathrm{KL}(P \,\|\, 1/(nm))

    over the plans P with uniform marginals 1/n and 1/m, where s is the spread of the two sets around their own centres: one
    ``epsilon`` serves all cohorts, and neither a shift nor a change of units changes the plan.

    The plan is found without a graph; by the envelope theorem the gradient is that of the cost at the fixed plan,
    :math:`\partial L / \partial y_j = 2 \sum_i P_{ij} (y_j - x_i)`, and nothing of size n x m survives the forward pass.
    It differs from the derivative of L itself by the derivative of the entropy, which vanishes with ``epsilon``.
    Whatever mass the solver leaves misplaced is put in place before the cost is taken, so the loss is never below exact
    transport.

    Parameters
    ----------
    epsilon
        Temperature, in units of the spread of the sets. In 30 dimensions the partners of 1,000 cells are settled late:
        against exact transport, the gradient has a cosine of about 0.78 at 0.01, 0.94 at 0.001 and 0.98 to 0.99 at the
        default of 0.0001; the value is 13 %, 1 % and less than 1 % too high once converged (``benchmarks/sinkhorn.py``).
    solver
        ``"auto"``: ``"exact"`` for sets of up to 500 x 500 cells on a CPU, ``"scaling"`` for larger ones and on a GPU.
        ``"scaling"``: stabilised scaling with Newton steps; ``"log"``: soft minima in log space, which need an
        ``epsilon`` of 0.01 and above to converge in reasonable time; ``"exact"``: network simplex of POT on the CPU,
        without entropy.
    debiased
        Return the Sinkhorn divergence :math:`S = T(x, y) - T(x, x) / 2 - T(y, y) / 2` of the regularised values T
        (Feydy et al. 2019), as the published code does. It triples the time. At the default ``epsilon`` there is no bias
        to remove; it helps from 0.01 upwards, where x and y nearly coincide.
    annealing
        Factor from one temperature of the solver to the next, in (0, 1).
    n_iterations
        Most iterations of the solver: Newton rounds at each temperature (``"scaling"``) or sweeps at the last
        (``"log"``). Default 10 and 1,000.
    tolerance
        Share of the mass in a wrong row at which the solver stops.

    Attributes
    ----------
    marginal_error
        Share of the mass that the solver left in wrong rows in the last call, (samples,); a warning is given above 0.05.

    Raises
    ------
    ValueError
        If an argument is outside its range, or ``debiased`` is asked for with ``solver="exact"``.
    """

    marginal_error: Tensor

    def __init__(
        self,
        *,
        epsilon: float = 1e-4,
        solver: Literal["auto", "scaling", "log", "exact"] = "auto",
        debiased: bool = False,
        annealing: float = 0.2,
        n_iterations: int | None = None,
        tolerance: float = 3e-3,
    ) -> None:
        super().__init__()
        if solver not in _SOLVERS:
            raise ValueError(f"solver must be one of {', '.join(_SOLVERS)}, got {solver!r}.")
        if epsilon <= 0 or tolerance <= 0:
            raise ValueError(f"epsilon and tolerance must be positive, got {epsilon} and {tolerance}.")
        if not 0 < annealing < 1:
            raise ValueError(f"annealing must lie between 0 and 1, got {annealing}.")
        if n_iterations is not None and n_iterations < 1:
            raise ValueError(f"n_iterations must be at least 1, got {n_iterations}.")
        if debiased and solver == "exact":
            raise ValueError(
                "debiased=True removes the bias of the entropy, and solver='exact' has none: drop one of the two."
            )
        self.epsilon = epsilon
        self.solver = solver
        self.debiased = debiased
        self.annealing = annealing
        self.n_iterations = n_iterations if n_iterations is not None else {"log": 1000}.get(solver, 10)
        self.tolerance = tolerance
        self.marginal_error = torch.zeros(0)
        self._unseen: list[Tensor] = []  # errors of calls that nobody looked at

    def extra_repr(self) -> str:
        return f"epsilon={self.epsilon}, solver={self.solver!r}, debiased={self.debiased}"

    def forward(self, x: Tensor, y: Tensor, *, x_ptr: Tensor | None = None, y_ptr: Tensor | None = None) -> Tensor:
        """Cost of moving each set of x onto the set of y of the same sample.

        Parameters
        ----------
        x, y
            Cells, (cells of x, features) and (cells of y, features). Anything narrower than float32 is computed in
            float32, under autocast too.
        x_ptr, y_ptr
            Boundaries of the sets, int64 (samples + 1,). By default all cells are one set.

        Returns
        -------
        Tensor
            One value per sample, (samples,), at least 0; 0 where either set is empty. In squared units of the features.

        Raises
        ------
        ValueError
            If the features or the numbers of samples differ, or boundaries do not fit the cells.
        """
        if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
            raise ValueError(
                f"x and y must be (cells, features) with the same features, got {tuple(x.shape)} and {tuple(y.shape)}."
            )
        x_bounds, y_bounds = _bounds(x, x_ptr, name="x"), _bounds(y, y_ptr, name="y")
        if len(x_bounds) != len(y_bounds):
            raise ValueError(
                f"x has {len(x_bounds) - 1} samples and y has {len(y_bounds) - 1}: pass x_ptr and y_ptr of the same."
            )
        with torch.autocast(device_type=x.device.type, enabled=False), torch.no_grad():
            result = self._solve_all(_at_least_float(x), _at_least_float(y), x_bounds, y_bounds)
        self.marginal_error = result.marginal_error
        worst = self._worst_of(result.marginal_error)
        if worst > _WARN_ERROR:
            warnings.warn(
                f"transport is not converged: {worst:.0%} of the mass of a sample had to be put in place after "
                f"{self.n_iterations} iterations; raise n_iterations, annealing or epsilon ({self.epsilon}).",
                RuntimeWarning,
                stacklevel=2,
            )
        n_x, n_y = (_ragged.to_device(torch.tensor(bounds).diff(), x.device) for bounds in (x_bounds, y_bounds))
        return _AtFixedPlan.apply(x, y, result.value, result.x_gradient, result.y_gradient, n_x, n_y)

    def _worst_of(self, marginal_error: Tensor) -> float:
        """The largest error since the last look: at once on a CPU, of 16 calls on a GPU, which has to be waited for."""
        self._unseen.append(marginal_error)
        if len(self._unseen) < (1 if marginal_error.device.type == "cpu" and not _ragged._AS_ON_GPU else 16):
            return 0.0
        unseen, self._unseen = torch.cat(self._unseen), []
        return unseen.max().item() if len(unseen) else 0.0

    def _solve_all(self, x: Tensor, y: Tensor, x_bounds: list[int], y_bounds: list[int]) -> _Result:
        value = x.new_zeros(len(x_bounds) - 1)
        result = _Result(value, torch.zeros_like(x), torch.zeros_like(y), torch.zeros_like(value))
        way = _way(x.device)
        is_padded = way.is_padded and self.solver in ("auto", "scaling")
        for samples in groups_of(x_bounds, y_bounds, limit=way.limit, is_padded=is_padded):
            of_x, of_y = (Side(bounds, samples, x.device) for bounds in (x_bounds, y_bounds))
            part = self._solve(of_x.gather(x), of_y.gather(y), of_x.cells, of_y.cells)
            which = _ragged.to_device(torch.tensor(samples), x.device)
            value.index_copy_(0, which, part.value.to(value))
            result.marginal_error.index_copy_(0, which, part.marginal_error.to(value))
            of_x.scatter(result.x_gradient, part.x_gradient)
            of_y.scatter(result.y_gradient, part.y_gradient)
        return result

    def _solve(self, x: Tensor, y: Tensor, of_x: Cells, of_y: Cells) -> _Result:
        """Values and gradients of sets, (b, n, d) and (b, m, d)."""
        # A shift changes the cost by a constant and not the plan, so each set is brought to its own centre; in double precision,
        # for far from the origin a mean of floats is off by more than the cells are apart.
        x_center, y_center = of_x.mean(x.double()), of_y.mean(y.double())
        shift = x_center - y_center
        x, y = of_x.only((x.double() - x_center).to(x)), of_y.only((y.double() - y_center).to(y))
        unit = _spread(x, y, of_x, of_y).sqrt()[:, None, None]
        x, y = x / unit, y / unit
        result = self._transport(x, y, of_x, of_y)
        if self.debiased:
            for_x, for_y = self._transport(x, x, of_x, of_x), self._transport(y, y, of_y, of_y)
            result = _Result(
                (result.value - for_x.value / 2 - for_y.value / 2).clamp_min(0),
                result.x_gradient - (for_x.x_gradient + for_x.y_gradient) / 2,
                result.y_gradient - (for_y.x_gradient + for_y.y_gradient) / 2,
                torch.stack([result.marginal_error, for_x.marginal_error, for_y.marginal_error]).amax(dim=0),
            )
        return _Result(
            result.value * unit.double().flatten() ** 2 + shift.square().sum(dim=(1, 2)),
            result.x_gradient * unit + (2 * shift / of_x.n).to(x),
            result.y_gradient * unit - (2 * shift / of_y.n).to(y),
            result.marginal_error,
        )

    def _transport(self, x: Tensor, y: Tensor, of_x: Cells, of_y: Cells) -> _Result:
        """Values and gradients in the coordinates of the solver."""
        dual, way = None, _way(x.device)
        is_small = way.is_exact and not self.debiased and x.shape[1] * y.shape[1] <= _EXACT_PAIRS
        if self.solver == "exact" or (self.solver == "auto" and is_small):
            pairs = [exact_targets(*pair) for pair in zip(x, y, strict=True)]
            x_target, y_target = (torch.stack(targets) for targets in zip(*pairs, strict=True))
            error = x.new_zeros(len(x))
        else:
            more: dict[str, Any] = {"cells": (of_x, of_y), "look": way.look}
            solve: Any = solve_log if self.solver == "log" else partial(solve_scaling, **more)
            plan = solve(
                x,
                y,
                epsilon=self.epsilon,
                annealing=self.annealing,
                n_iterations=self.n_iterations,
                tolerance=self.tolerance,
            )
            error = plan.marginal_error
            x_target, y_target = _targets(plan, x, y, of_x, of_y)
            if self.debiased:
                f, g = (of_x.fill(plan.f, 0.0), of_y.fill(plan.g, 0.0))
                dual = (of_x.mean(f.double()[..., None]) + of_y.mean(g.double()[..., None])).flatten()
        # sum P |x - y|^2 with the marginals at hand; in double precision because the three terms nearly cancel where x = y.
        cost = of_x.mean(_squared(x.double())) + of_y.mean(_squared(y.double()))
        cost = (cost - 2 * of_y.mean((y.double() * y_target).sum(dim=2, keepdim=True))).clamp_min(0).flatten()
        return _Result(
            cost if dual is None else dual,
            2 * (x - x_target) / of_x.n,
            2 * (y - y_target) / of_y.n,
            error,
        )


class _Result(NamedTuple):
    value: Tensor  # (samples,)
    x_gradient: Tensor  # like x
    y_gradient: Tensor  # like y
    marginal_error: Tensor  # (samples,)


class _AtFixedPlan(torch.autograd.Function):
    """Values that are already there, with the gradients that belong to them."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, value: Tensor, x_gradient: Tensor, y_gradient: Tensor, n_x: Tensor, n_y: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x_gradient, y_gradient, n_x, n_y)
        ctx.dtypes = x.dtype, y.dtype
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        x_gradient, y_gradient, n_x, n_y = ctx.saved_tensors
        gradients: list[Tensor | None] = [None, None]
        for i, (gradient, n_cells) in enumerate(((x_gradient, n_x), (y_gradient, n_y))):
            if ctx.needs_input_grad[i]:
                per_cell = grad_output.repeat_interleave(n_cells, output_size=len(gradient))
                gradients[i] = (gradient * per_cell.unsqueeze(1)).to(ctx.dtypes[i])
        return (*gradients, None, None, None, None, None)


def _targets(plan: Plan, x: Tensor, y: Tensor, of_x: Cells, of_y: Cells) -> tuple[Tensor, Tensor]:
    """Mean partner of each point of x (b, n, d) and of y (b, m, d) under the plan, rounded to exact marginals.

    The rounding of Altschuler et al. (2017): rows, then columns that hold too much are scaled down, and what is missing
    is spread as the product of the two lacks.
    """
    kernel, u, v = plan.kernel, plan.u, plan.v
    n, m = of_x.n, of_y.n
    transposed = kernel.transpose(1, 2)

    def along_rows(values: Tensor) -> Tensor:
        return u.unsqueeze(2) * torch.bmm(kernel, v.unsqueeze(2) * values) / m

    def along_columns(values: Tensor) -> Tensor:
        return v.unsqueeze(2) * torch.bmm(transposed, u.unsqueeze(2) * values) / n

    x_one, y_one = torch.ones_like(u).unsqueeze(2), torch.ones_like(v).unsqueeze(2)
    u = u / along_rows(y_one).squeeze(2).clamp_min(1)
    v = v / along_columns(x_one).squeeze(2).clamp_min(1)
    x_lack = of_x.only((1 - along_rows(y_one)).clamp_min(0))
    y_lack = of_y.only((1 - along_columns(x_one)).clamp_min(0))
    # Without a lack there is nothing to spread, and both quotients are 0.
    tiny = torch.finfo(u.dtype).tiny
    x_extra = (x_lack * x).sum(dim=1, keepdim=True) / x_lack.sum(dim=1, keepdim=True).clamp_min(tiny)
    y_extra = (y_lack * y).sum(dim=1, keepdim=True) / y_lack.sum(dim=1, keepdim=True).clamp_min(tiny)
    return along_rows(y) + x_lack * y_extra, along_columns(x) + y_lack * x_extra


def _spread(x: Tensor, y: Tensor, of_x: Cells, of_y: Cells) -> Tensor:
    """Squared distance at which the sets scatter, (b,): medians, so that outliers do not blur everybody else.

    At least a hundredth of the mean squared distance, and 1 where all cells of each set coincide.
    """
    mean, median = x.new_zeros(len(x)), x.new_zeros(len(x))
    for points, cells in ((x, of_x), (y, of_y)):
        mean += cells.mean(_squared(points)).flatten()
        median += cells.median(_squared(points - cells.median(points))).flatten()
    spread = torch.maximum(median, mean / 100)
    return torch.where(spread > 0, spread, 1.0)


def _bounds(x: Tensor, ptr: Tensor | None, *, name: str) -> list[int]:
    bounds = [0, len(x)] if ptr is None else _ragged.bounds(ptr)
    is_rising = all(low <= high for low, high in itertools.pairwise(bounds))
    if not bounds or bounds[0] != 0 or bounds[-1] != len(x) or not is_rising:
        raise ValueError(
            f"{name}_ptr must rise from 0 to the {len(x)} cells of {name}, got {bounds[:5]} ... {bounds[-2:]}."
        )
    return bounds


def _squared(points: Tensor) -> Tensor:
    """Squared length of each point, (b, n, 1)."""
    return points.square().sum(dim=2, keepdim=True)


class _Way(NamedTuple):
    """How sets are solved on a kind of device.

    A CPU takes sets of equal sizes together, as many as its cache holds, and looks after each round whether they are done. A GPU
    pads sets of all sizes to as few batches as memory allows, since each operation costs the same whatever it works on, and
    is left with a round's work when the host looks.
    """

    limit: int  # entries of the kernel
    is_padded: bool
    is_exact: bool
    look: type[Now | Behind]


def _way(device: torch.device) -> _Way:
    if device.type == "cuda":
        return _Way(rows_at_once(device, 2 * _BYTES, on_cpu=0), is_padded=True, is_exact=False, look=Behind)
    return _Way(_CPU_ENTRIES, is_padded=False, is_exact=True, look=Now)


def _at_least_float(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()

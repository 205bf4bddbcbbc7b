"""Exact transport on the CPU, for clouds of a few thousand points."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["exact_targets"]


def exact_targets(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Where an optimal plan sends each point, on average, by POT's network simplex.

    Parameters
    ----------
    x, y
        Two clouds, (n, d) and (m, d).

    Returns
    -------
    Mean partner of each point of x (n, d), and of each point of y (m, d); NaN where a distance is not finite.

    Raises
    ------
    ImportError
        If POT is not installed.
    RuntimeError
        If the solver stops before the optimum.
    """
    try:
        import ot
    except ImportError as error:
        raise ImportError("solver='exact' needs POT: pip install pot, or use solver='scaling'.") from error

    a, b = (torch.full((len(points),), 1 / len(points), dtype=torch.float64).numpy() for points in (x, y))
    cost = torch.cdist(x.double(), y.double()).square().cpu()
    if not cost.isfinite().all():  # the simplex would stop anywhere: let the caller's numbers show instead
        return torch.full_like(x, torch.nan), torch.full_like(y, torch.nan)
    plan, log = ot.emd(a, b, cost.numpy(), numItermax=10_000_000, log=True)
    if log["warning"] is not None:
        raise RuntimeError(f"exact transport of {len(x)} to {len(y)} points failed: {log['warning']}")
    plan = torch.from_numpy(plan).to(x)
    return len(x) * (plan @ y), len(y) * (plan.T @ x)

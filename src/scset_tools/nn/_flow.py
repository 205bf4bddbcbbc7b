"""Flow matching: straight paths from noise to cells, and the integration along the learned velocity (ScSet, ablation)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

__all__ = ["flow_path", "flow_steps"]


def flow_path(noise: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """State at time ``t`` between noise and cell, and the velocity to learn: ``(1 - t) noise + t x`` and ``x - noise``.

    Parameters
    ----------
    noise
        Standard normal numbers, the state at time 0, (cells, features).
    x
        Cells, the state at time 1, (cells, features).
    t
        Time of each cell in [0, 1], (cells,).

    Returns
    -------
    State and velocity, each (cells, features).
    """
    t = t[:, None].to(x.dtype)
    return (1 - t) * noise + t * x, x - noise


def flow_steps(
    velocity: Callable[[Tensor, float], Tensor], x: Tensor, *, n_steps: int = 50
) -> Iterator[tuple[float, Tensor]]:
    """Integrate from noise (time 0) to cells (time 1) by the midpoint rule: two calls of ``velocity`` per step.

    Parameters
    ----------
    velocity
        Velocity of cells (cells, features) at a time.
    x
        Standard normal numbers, (cells, features).
    n_steps
        Number of steps.

    Yields
    ------
    Times from 0 to 1, and the cells there.
    """
    if n_steps < 1:
        raise ValueError(f"`n_steps` must be 1 or more, found {n_steps}.")
    yield 0.0, x
    size = 1 / n_steps
    for i in range(n_steps):
        t = i * size
        middle = x + 0.5 * size * velocity(x, t)
        x = x + size * velocity(middle, t + 0.5 * size)
        yield (i + 1) / n_steps, x

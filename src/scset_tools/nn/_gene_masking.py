"""Which genes of a cell to hide: drawn without replacement, in proportion to weights, from numbers of the cell alone."""

from __future__ import annotations

import torch
from torch import Tensor

from scset_tools.nn._ragged import require


def n_hidden_genes(n_genes: Tensor, rate: float) -> Tensor:
    """How many of a cell's genes to hide: ``floor(rate * n)``, at least one of two or more, and never all.

    Parameters
    ----------
    n_genes
        Number of genes to choose from, int64 (cells,).
    rate
        Share to hide, in [0, 1]. 0 hides none.

    Returns
    -------
    int64 (cells,); 0 for a cell with one gene or none, which would have nothing left to be seen.

    Raises
    ------
    ValueError
        If the rate is outside [0, 1].
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must lie in [0, 1], got {rate}.")
    if rate == 0:
        return torch.zeros_like(n_genes)
    # 0.29 * 100 is 28.999...: floor must not lose a gene to rounding
    wanted = torch.floor(n_genes.double() * rate + 1e-9).long().clamp_min(1)
    return torch.minimum(wanted, n_genes - 1).clamp_min(0)


def draw_without_replacement(
    weight: Tensor, n_draws: Tensor, u: Tensor, *, is_real: Tensor | None = None, n_most: int | None = None
) -> tuple[Tensor, Tensor]:
    """Draw positions of each row one after the other, each in proportion to the weights of those that are left.

    Every position waits for an exponential time of its own rate, ``-log(u) / weight``, and the first ``n_draws`` are taken:
    that is the multinomial draw without replacement, in one step and from numbers that come in as arguments. No gradient
    flows through it.

    Parameters
    ----------
    weight
        Weights, not negative and not necessarily normalised, (cells, positions). A position of weight 0 is drawn only after
        all others, at random.
    n_draws
        How many to draw from each row, int64 (cells,).
    u
        One uniform number of [0, 1) per position, (cells, positions); float64, for ties to be out of the question.
    is_real
        True where a position may be drawn, (cells, positions). Default: everywhere.
    n_most
        The largest of ``n_draws``, or more, where the caller knows it: a GPU need not be asked for it.

    Returns
    -------
    index
        Drawn positions in the order of the draws, int64 (cells, ``n_most``).
    is_drawn
        True where ``index`` holds a draw and no filling, (cells, ``n_most``).

    Raises
    ------
    ValueError
        If a row has fewer positions than are to be drawn.
    """
    available = torch.full_like(n_draws, weight.shape[1]) if is_real is None else is_real.sum(1, dtype=n_draws.dtype)

    def complaint() -> str:
        i = int((n_draws > available).nonzero()[0])
        return f"cell {i} has {int(available[i])} positions, cannot draw {int(n_draws[i])} of them."

    require(n_draws <= available, complaint)
    rate = weight.detach().double().clamp_min(1e-200)
    waiting = -torch.log(u.double().clamp_min(1e-300)) / rate
    if is_real is not None:
        waiting = waiting.masked_fill(~is_real, torch.inf)
    if n_most is None:
        n_most = int(n_draws.max()) if len(n_draws) else 0
    index = waiting.topk(n_most, dim=1, largest=False).indices
    return index, torch.arange(n_most, device=index.device) < n_draws[:, None]

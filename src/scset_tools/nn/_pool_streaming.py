"""Pool one sample of any size in bounded memory: a softmax over a stream of cells, exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scset_tools.nn._pool import SumPool

if TYPE_CHECKING:
    from scset_tools.nn._pool import Pool

__all__ = ["stream_pool", "stream_pool_weights"]


def stream_pool(pool: Pool, chunks: Iterable[Tensor]) -> Tensor:
    """Pool a sample whose cells come in pieces; equal to the pool of all of them at once, up to rounding.

    Keeps a running maximum of the scores and sums relative to it, so that one pass suffices. No gradient.

    Parameters
    ----------
    pool
        A pool in evaluation mode.
    chunks
        Embedded cells in pieces of shape (n_i, features).

    Returns
    -------
    Tensor
        (1, features), in the dtype of the pieces.

    Raises
    ------
    ValueError
        If there is no piece at all, not even an empty one: then the number of features is unknown.
    """
    top = total = pooled = None
    for z in chunks:
        if pooled is None:
            pooled, dtype = z.new_zeros(1, z.shape[1], dtype=torch.float64), z.dtype
        if len(z) == 0:
            continue
        with torch.no_grad():
            scores = pool.scores(z).to(torch.float32 if z.dtype != torch.float64 else z.dtype)
            highest = scores.amax(0, keepdim=True)
            if isinstance(pool, SumPool):
                highest = torch.zeros_like(highest)
            new_top = highest if top is None else torch.maximum(top, highest)
            shrink = torch.zeros_like(new_top).double() if top is None else (top - new_top).double().exp()
            weights = (scores - new_top).exp()
            here = weights.T @ z.to(weights.dtype) if weights.shape[1] == 1 else (weights * z).sum(0, keepdim=True)
            pooled = pooled * shrink + here.double()
            total = weights.sum(0, keepdim=True).double() + (0 if total is None else total * shrink)
            top = new_top
    if pooled is None:
        raise ValueError("stream_pool was given no piece: yield one of shape (0, features) for a sample without cells.")
    if total is not None and not isinstance(pool, SumPool):
        pooled = pooled / total
    return pooled.to(dtype)


def stream_pool_weights(pool: Pool, chunks: Callable[[], Iterable[Tensor]]) -> Tensor:
    """Weight of every cell of one sample that comes in pieces, as the second result of the pool.

    Parameters
    ----------
    pool
        A pool in evaluation mode.
    chunks
        Called once: gives embedded cells in pieces of shape (n_i, features).

    Returns
    -------
    Tensor
        (cells, 1) or (cells, features).
    """
    with torch.no_grad():
        scores = torch.cat([pool.scores(z) for z in chunks()])
        if isinstance(pool, SumPool):
            return scores.exp()
        return scores.float().softmax(0).to(scores.dtype) if scores.dtype != torch.float64 else scores.softmax(0)

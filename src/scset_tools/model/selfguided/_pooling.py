"""From the vectors of cells to the vector of their sample, over a stream of cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

Cells = Callable[[], Iterator[torch.Tensor]]
"""Vectors of the cells of one sample in pieces (n_i, n_output); each call starts over."""


def mean_pool(cells: Cells) -> torch.Tensor:
    """Mean of the cells, (1, n_output); summed in float64, so that the cut into pieces does not matter."""
    total: Any = 0.0
    count, dtype = 0, torch.float32
    for x in cells():
        total, count, dtype = total + x.double().sum(0), count + len(x), x.dtype
    return (total / count).to(dtype).unsqueeze(0)


def attention_pool(cells: Cells) -> torch.Tensor:
    """Cells weighted by their likeness to the mean cell: ``softmax(x m / sqrt(d))`` over the sample, (1, n_output).

    One step of attention with the mean as its query. It has no weights of its own: nothing in the reconstruction of genes
    would train them.
    """
    mean = mean_pool(cells).double()[0]
    total, weight, dtype = torch.zeros_like(mean), mean.new_zeros(()), torch.float32
    top = mean.new_full((), -math.inf)
    for x in cells():
        dtype, x = x.dtype, x.double()
        score = x @ mean / math.sqrt(len(mean))
        # the running maximum of a streamed softmax, which cancels: a constant to the gradient
        new_top = torch.maximum(top, score.max()).detach()
        shrink = (top - new_top).exp()
        w = (score - new_top).exp()
        total, weight, top = total * shrink + w @ x, weight * shrink + w.sum(), new_top
    return (total / weight).to(dtype).unsqueeze(0)


def attention_weights(cells: Cells) -> torch.Tensor:
    """Weight of each cell in :func:`attention_pool`, (cells, 1); they sum to 1."""
    mean = mean_pool(cells).double()[0]
    score = torch.cat([x.double() @ mean / math.sqrt(len(mean)) for x in cells()])
    return score.softmax(0).to(torch.float32).unsqueeze(1)


SAMPLE_POOLINGS = {"mean": mean_pool, "attention": attention_pool}

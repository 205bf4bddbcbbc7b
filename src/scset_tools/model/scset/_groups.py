"""Samples that are larger than the encoder reads at once, in equal groups of cells.

Full attention over a large sample costs the square of its number of cells, and shows the encoder more cells than it was
trained with. A large sample is therefore cut into groups, and its vector is the mean of theirs: all cells count, and the cost
of a cell does not grow. Which cell goes to which group is decided by a hash of its features, so that the vector is a function
of the set: it does not depend on the order of the cells, nor on how they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

import torch

from scset_tools.nn import content_hash, host_sizes, ptr_from_sizes

MAX_BUFFERED = 32_768
"""Most cells that are held at once when a sample is read in pieces."""

Chunks = Callable[[], Iterator[torch.Tensor]]
"""The cells of one sample in pieces (n_i, features); each call starts over."""


@dataclass(frozen=True)
class Groups:
    """Rows of a batch in an order in which the cells of a group lie together."""

    order: torch.Tensor | None
    """Row of each cell in that order, (cells,); None where it is the order of the batch."""

    ptr: torch.Tensor
    """Boundaries of the groups in that order, (groups + 1,)."""

    n_groups: list[int]
    """Number of groups of each sample."""


def group_of_rank(n: int, n_cells: int, device: torch.device) -> torch.Tensor:
    """Group of the cell of each rank: ``ceil(n / n_cells)`` groups whose sizes differ by 1 at most, int64 (n,)."""
    n_groups = max(1, -(-n // n_cells))
    return torch.arange(n, device=device) * n_groups // max(1, n)


def group_cells(x: torch.Tensor, ptr: torch.Tensor, n_cells: int) -> Groups:
    """Cut samples with more than ``n_cells`` cells into groups.

    Parameters
    ----------
    x
        Cells of all samples, (cells, features).
    ptr
        Boundaries of the samples, (samples + 1,).
    n_cells
        Most cells of a group.
    """
    counts = host_sizes(ptr)
    if max(counts, default=0) <= n_cells:
        return Groups(None, ptr, [1] * len(counts))
    orders, sizes, n_groups = [], [], []
    for start, n in zip(accumulate(counts, initial=0), counts, strict=False):
        if n <= n_cells:
            orders.append(torch.arange(start, start + n, device=x.device))
            sizes.append(n)
            n_groups.append(1)
            continue
        orders.append(start + content_hash(x[start : start + n]).argsort(stable=True))
        own = group_of_rank(n, n_cells, torch.device("cpu")).bincount().tolist()
        sizes += own
        n_groups.append(len(own))
    return Groups(torch.cat(orders), ptr_from_sizes(sizes, device=x.device), n_groups)


def stream_groups(
    chunks: Chunks, n_cells: int, *, max_buffered: int = MAX_BUFFERED
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """The groups of one sample of any size, some at a time; they are those of :func:`group_cells`.

    The cells are read once for their hashes (8 bytes each are kept) and once more for every ``max_buffered`` cells.

    Parameters
    ----------
    chunks
        Gives the cells in pieces; each call starts over.
    n_cells
        Most cells of a group.
    max_buffered
        Most cells that are held at once; at least one group is.

    Yields
    ------
    Cells (n, features), boundaries of their groups, and the positions of the cells in the sample (n,).
    """
    hashes = torch.cat([content_hash(part) for part in chunks()])
    n = len(hashes)
    rank = torch.empty_like(hashes)
    rank[hashes.argsort(stable=True)] = torch.arange(n, device=hashes.device)
    group = group_of_rank(n, n_cells, hashes.device)
    n_groups = int(group[-1]) + 1 if n else 0
    at_once = max(1, max_buffered // n_cells)
    for first in range(0, n_groups, at_once):
        bounds = torch.searchsorted(group, torch.tensor([first, first + at_once], device=group.device))
        low, high = bounds.tolist()
        cells, ranks, positions, start = [], [], [], 0
        for part in chunks():
            own = rank[start : start + len(part)]
            is_wanted = (own >= low) & (own < high)
            cells.append(part[is_wanted])
            ranks.append(own[is_wanted])
            positions.append(start + is_wanted.nonzero().squeeze(1))
            start += len(part)
        order = torch.cat(ranks).argsort()
        sizes = (group[low:high] - first).bincount()
        yield torch.cat(cells)[order], ptr_from_sizes(sizes), torch.cat(positions)[order]

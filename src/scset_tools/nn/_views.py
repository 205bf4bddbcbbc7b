"""Views: crops of a set to a bounded number of cells, at random or spread out over the set."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from scset_tools.nn._masking import random_mask
from scset_tools.nn._ragged import bounds, host_sizes, ptr_from_sizes, require, rows_where


def random_view(ptr: Tensor, n_cells: int, u: Tensor) -> tuple[Tensor, Tensor]:
    """Draw cells of each set without replacement: those with the smallest random numbers.

    Parameters
    ----------
    ptr
        int64 boundaries of the sets, (samples + 1,).
    n_cells
        Largest number of cells to keep per set; smaller sets are kept whole.
    u
        One random number per cell, (cells,), for instance of :func:`cell_uniform`.

    Returns
    -------
    index : Tensor
        Rows of the kept cells, int64 (kept,), ascending.
    ptr_view : Tensor
        int64 boundaries of the sets within ``index``, (samples + 1,).

    Raises
    ------
    ValueError
        If ``n_cells`` is not positive.
    """
    n_kept, ptr_view = _view_sizes(ptr, n_cells)
    return rows_where(random_mask(ptr, n_kept, u), bounds(ptr_view)[-1]), ptr_view


def farthest_point_view(x: Tensor, ptr: Tensor, n_cells: int, *, start: Tensor) -> tuple[Tensor, Tensor]:
    """Keep cells that are far from each other, so that rare cells stay in sight (greedy farthest-point sampling).

    From the start cell on, each step adds the cell with the largest squared Euclidean distance to its nearest kept cell
    (the earlier cell on ties), until ``n_cells`` are kept.

    Parameters
    ----------
    x
        Cells of all sets, (cells, features).
    ptr
        int64 boundaries of the sets, (samples + 1,).
    n_cells
        Largest number of cells to keep per set; smaller sets are kept whole.
    start
        Position of the first kept cell within its set, int64 (samples,); not read for sets that are kept whole.

    Returns
    -------
    index : Tensor
        Rows of the kept cells, int64 (kept,), ascending: the order of choice is not kept.
    ptr_view : Tensor
        int64 boundaries of the sets within ``index``, (samples + 1,).

    Raises
    ------
    ValueError
        If ``n_cells`` is not positive or a start cell lies outside its set.

    Notes
    -----
    A set of n cells costs ``n_cells`` passes over its n x features values, one after the other. Crop sets of hundreds of
    thousands of cells with :func:`random_view` first.
    """
    _, ptr_view = _view_sizes(ptr, n_cells)
    is_cropped = ptr_view.diff() < ptr.diff()

    def complaint() -> str:
        i = int(is_outside.nonzero()[0])
        return f"start {int(start[i])} of sample {i} is not a position among its {int(ptr.diff()[i])} cells."

    is_outside = is_cropped & ((start < 0) | (start >= ptr.diff()))
    require(~is_outside, complaint)
    chosen = []
    for i, ((begin, end), k) in enumerate(zip(itertools.pairwise(bounds(ptr)), host_sizes(ptr_view), strict=True)):
        if end - begin == k:
            chosen.append(torch.arange(begin, end, device=ptr.device))
            continue
        chosen.append(begin + _farthest_points(x[begin:end].detach(), k, start=start[i]).sort().values)
    index = torch.cat(chosen) if chosen else ptr.new_zeros(0)
    return index, ptr_view


def _farthest_points(x: Tensor, n_points: int, *, start: Tensor) -> Tensor:
    """Positions in order of choice, (n_points,). Every number stays on the device: no step waits for the host."""
    # Half precision would round most distances to a few values.
    x = x if x.dtype == torch.float64 else x.float()
    # One row per feature: the sum over features then runs along contiguous cells, twice as fast.
    x = x.T.contiguous()  # (features, cells)
    points = torch.empty(n_points, dtype=torch.int64, device=x.device)
    distance = x.new_full((x.shape[1],), torch.inf)
    newest = start.reshape(1)
    for step in range(n_points):
        points[step : step + 1] = newest
        torch.minimum(distance, (x - x[:, newest]).square_().sum(dim=0), out=distance)
        # Below any distance: a kept cell is not chosen again, even where the rest are its duplicates.
        distance[newest] = -1.0
        newest = distance.argmax().reshape(1)
    return points


def _view_sizes(ptr: Tensor, n_cells: int) -> tuple[Tensor, Tensor]:
    """Cells kept per set and the boundaries they make."""
    if n_cells < 1:
        raise ValueError(f"n_cells must be at least 1, got {n_cells}.")
    n_kept = ptr.diff().clamp_max(n_cells)
    return n_kept, ptr_from_sizes(n_kept, known=[min(n, n_cells) for n in host_sizes(ptr)])

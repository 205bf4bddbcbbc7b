"""Augmentations of counts, drawn from the seed of each sample: thinning to a random depth, and hidden genes.

What is drawn depends on (seed of the sample, cell, gene) alone: not on batch mates, devices, or whether zeros are stored.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scset_tools.nn._ragged import sample_of_cell
from scset_tools.nn._random import _GAMMA, _mix, _signed, _to_uniform, cell_uniform
from scset_tools.nn._sparse_linear import CompressedRows

__all__ = ["hide_genes", "log_normalize", "thin_counts"]

_DEPTH_STREAM, _READ_STREAM, _GENE_STREAM = 11, 12, 13


def log_normalize(x: CompressedRows, *, target_sum: float = 1e4) -> Tensor:
    """Values of ``log(1 + target_sum * count / total count of the cell)``; a cell without counts stays zero.

    Parameters
    ----------
    x
        Counts in compressed rows.
    target_sum
        Counts per cell after scaling.

    Returns
    -------
    Tensor
        (n_values,), in the type of the counts; totals are taken in float32.
    """
    row, values = _row_of_value(x), x.values.float()  # half precision stops adding ones at 256
    total = values.new_zeros(len(x.indptr) - 1).index_add_(0, row, values)
    return torch.log1p(values * (target_sum / total.clamp_min(torch.finfo(total.dtype).tiny))[row]).to(x.values.dtype)


def thin_counts(x: CompressedRows, ptr: Tensor, seed: Tensor, *, depth: tuple[float, float]) -> Tensor:
    """Draw each cell's reads anew, with replacement, to a random depth: multinomial counts.

    Parameters
    ----------
    x
        Counts in compressed rows.
    ptr
        Boundaries of the samples, (samples + 1,).
    seed
        int64 seed of each sample, (samples,).
    depth
        Fewest and most reads of a cell, drawn uniformly; never more than the cell has.

    Returns
    -------
    Tensor
        New counts in the same places, (n_values,).

    Raises
    ------
    ValueError
        If ``depth`` is no range of positive numbers.
    """
    low, high = depth
    if not 0 < low <= high:
        raise ValueError(f"depth must be a range of positive numbers, got {depth}.")
    counts = x.values.double().clamp_min(0)
    n_cells, row = len(x.indptr) - 1, _row_of_value(x)
    total = counts.new_zeros(n_cells).index_add_(0, row, counts)
    n_reads = (low + (high - low) * cell_uniform(seed, ptr, stream=_DEPTH_STREAM)).round()
    n_reads = torch.minimum(n_reads, total.floor()).long()
    # reads of all cells laid end to end: a uniform number in a cell's stretch falls on one of its genes
    end = counts.cumsum(0)
    start_of_cell = torch.cat([end.new_zeros(1), end])[x.indptr.long()[:-1]]
    cell = torch.repeat_interleave(torch.arange(n_cells, device=counts.device), n_reads)
    sample = sample_of_cell(ptr, n_cells=n_cells)
    per_sample = torch.zeros(len(seed), dtype=torch.int64, device=counts.device).index_add_(0, sample, n_reads)
    read_ptr = torch.cat([per_sample.new_zeros(1), per_sample.cumsum(0)])
    at = start_of_cell[cell] + cell_uniform(seed, read_ptr, stream=_READ_STREAM) * total[cell]
    hit = torch.searchsorted(end, at, right=True).clamp_max(max(len(end) - 1, 0))
    return torch.bincount(hit, minlength=len(end)).to(x.values.dtype)


def hide_genes(x: CompressedRows, ptr: Tensor, seed: Tensor, *, rate: float) -> Tensor:
    """Set a random share of the values to zero, each by itself.

    Parameters
    ----------
    x
        Cells in compressed rows.
    ptr
        Boundaries of the samples, (samples + 1,).
    seed
        int64 seed of each sample, (samples,).
    rate
        Share of the genes of a cell that are hidden, in [0, 1).

    Returns
    -------
    Tensor
        (n_values,).

    Raises
    ------
    ValueError
        If ``rate`` is outside [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be in [0, 1), got {rate}.")
    # hashed once more with the gene, so that it does not matter whether zeros are stored
    of_cell = (cell_uniform(seed, ptr, stream=_GENE_STREAM) * 2.0**53).long()[_row_of_value(x)]
    drawn = _to_uniform(_mix(of_cell + (x.indices.long() + 1) * _signed(_GAMMA)))
    return x.values.masked_fill(drawn < rate, 0)


def _row_of_value(x: CompressedRows) -> Tensor:
    rows = torch.arange(len(x.indptr) - 1, device=x.indptr.device)
    return torch.repeat_interleave(rows, x.indptr.diff(), output_size=len(x.values))

"""Which cells of a set to hide: blocks of similar cells (MAESTRO Alg. 1, App. C.1) or cells at random.

No function here draws: pivots and uniform numbers come in as arguments, so hiding depends on the sample alone.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from scset_tools.nn._ragged import require, sample_of_cell


def rank_within_set(key: Tensor, ptr: Tensor, *, descending: bool = False) -> Tensor:
    """Rank of every cell within its own set.

    Parameters
    ----------
    key
        Values to rank, (cells,).
    ptr
        int64 boundaries of the sets, (samples + 1,).
    descending
        Give rank 0 to the largest value of the set instead of the smallest.

    Returns
    -------
    Tensor
        int64, (cells,): a permutation of 0 ... n - 1 in each set of n cells. Ties keep the order of the cells.
    """
    sample = sample_of_cell(ptr, n_cells=len(key))
    order = torch.argsort(key, stable=True, descending=descending)
    # Sets are contiguous, so a stable sort by set leaves each set at its own place with its cells in the order of key.
    order = order[torch.argsort(sample[order], stable=True)]
    position = torch.arange(len(key), device=key.device) - ptr[sample]
    return torch.empty_like(position).scatter_(0, order, position)


def n_hidden_cells(ptr: Tensor, rate: float | Tensor) -> Tensor:
    """Number of cells to hide in each set, floor(rate * n), at least one cell staying visible.

    Parameters
    ----------
    ptr
        int64 boundaries of the sets, (samples + 1,).
    rate
        Share of cells to hide, in [0, 1]: one number, or one per sample (samples,).

    Returns
    -------
    Tensor
        int64, (samples,); 0 for a set without cells.

    Raises
    ------
    ValueError
        If a rate is outside [0, 1].
    """
    precision = torch.finfo(rate.dtype).eps if isinstance(rate, Tensor) else 0.0
    if isinstance(rate, Tensor):
        given = rate.to(dtype=torch.float64, device=ptr.device)
        require((given >= 0) & (given <= 1), lambda: f"rate must lie in [0, 1], got {given.tolist()}.")
        rate = given
    elif not 0 <= rate <= 1:
        raise ValueError(f"rate must lie in [0, 1], got {rate}.")
    sizes = ptr.diff()
    # 0.29 * 100 is 28.999..., and 0.7 in float32 is below 0.7: floor must not lose a whole cell to rounding.
    n_hidden = torch.floor(rate * sizes.double() * (1 + precision / 2) + 1e-9).long()
    return torch.minimum(n_hidden, sizes - 1).clamp_min(0)


def block_mask(x: Tensor, ptr: Tensor, n_hidden_cells: Tensor, *, pivot: Tensor) -> Tensor:
    """Hide blocks of mutually similar cells (MAESTRO Algorithm 1 and Appendix C.1), per set.

    The cells of a set are ordered by descending cosine similarity to the set's pivot cell; in that order, blocks of
    ``b = max(1, floor(m / (n / m)))`` hidden cells alternate with ``b`` visible ones until ``m`` cells are hidden.

    Parameters
    ----------
    x
        Cells of all sets, (cells, features).
    ptr
        int64 boundaries of the sets, (samples + 1,).
    n_hidden_cells
        m, how many cells to hide in each set, int64 (samples,); see :func:`n_hidden_cells`.
    pivot
        Position of the pivot cell within its set, int64 (samples,); not read for a set without cells.

    Returns
    -------
    Tensor
        bool, (cells,): True for a hidden cell; exactly ``n_hidden_cells`` of them in each set.

    Raises
    ------
    ValueError
        If a set has fewer cells than it should hide, or a pivot lies outside its set.

    Notes
    -----
    The alternating layout of C.1 alone can hide fewer than m cells when more than half of a set is to be hidden, while
    both the text and Algorithm 1 ask for m. The missing ones are then taken from the visible blocks, most similar first.
    The running sum of C.1 is read in the order of similarity. The pivot has similarity 1, so it is hidden whenever m > 0
    (a duplicate of it that comes earlier in the set may precede it).
    A cell whose features are all zero has no direction: its similarity is defined as 0.
    """
    sizes = ptr.diff()
    _require_hideable(n_hidden_cells, sizes)
    is_outside = ((pivot < 0) | (pivot >= sizes)) & (sizes > 0)

    def complaint() -> str:
        i = int(is_outside.nonzero()[0])
        return f"pivot {int(pivot[i])} of sample {i} is not a position among its {int(sizes[i])} cells."

    require(~is_outside, complaint)

    sample = sample_of_cell(ptr, n_cells=len(x))
    similarity = _cosine_to_pivot(x.detach(), (ptr[:-1] + pivot)[sample])
    rank = rank_within_set(similarity, ptr, descending=True)

    # m * m // n is floor(m / (n / m)) without rounding.
    block = (n_hidden_cells * n_hidden_cells // sizes.clamp_min(1)).clamp_min(1)
    pair, within = sizes // (2 * block), sizes % (2 * block)
    n_in_layout = pair * block + torch.minimum(within, block)
    n_missing = (n_hidden_cells - n_in_layout).clamp_min(0)

    block, m, n_missing = block[sample], n_hidden_cells[sample], n_missing[sample]
    pair, within = rank // (2 * block), rank % (2 * block)
    is_in_layout = within < block
    # How many cells of the same kind (hidden blocks, visible blocks) come before this one in the order of similarity.
    n_before = pair * block + torch.where(is_in_layout, within, within - block)
    return n_before < torch.where(is_in_layout, m, n_missing)


def random_mask(ptr: Tensor, n_hidden_cells: Tensor, u: Tensor) -> Tensor:
    """Hide cells at random: in each set those with the smallest random numbers.

    Parameters
    ----------
    ptr
        int64 boundaries of the sets, (samples + 1,).
    n_hidden_cells
        How many cells to hide in each set, int64 (samples,).
    u
        One random number per cell, (cells,), for instance of :func:`cell_uniform`.

    Returns
    -------
    Tensor
        bool, (cells,): True for a hidden cell; exactly ``n_hidden_cells`` of them in each set.

    Raises
    ------
    ValueError
        If a set has fewer cells than it should hide.
    """
    _require_hideable(n_hidden_cells, ptr.diff())
    return rank_within_set(u, ptr) < n_hidden_cells[sample_of_cell(ptr, n_cells=len(u))]


def _cosine_to_pivot(x: Tensor, pivot_row: Tensor) -> Tensor:
    """Cosine similarity of each cell to the row ``pivot_row`` of its set, 0 where either has no direction."""
    # Half precision has too few digits to order thousands of cells.
    x = x if x.dtype == torch.float64 else x.float()
    direction = F.normalize(x, dim=1)
    return (direction * direction[pivot_row]).sum(dim=1)


def _require_hideable(n_hidden_cells: Tensor, sizes: Tensor) -> None:
    is_wrong = (n_hidden_cells > sizes) | (n_hidden_cells < 0)

    def complaint() -> str:
        i = int(is_wrong.nonzero()[0])
        return (
            f"sample {i} has {int(sizes[i])} cells, cannot hide {int(n_hidden_cells[i])} of them: "
            "take the numbers from n_hidden_cells(ptr, rate)."
        )

    require(~is_wrong, complaint)

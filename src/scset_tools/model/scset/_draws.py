"""Which cells of a sample a step of training uses."""

from __future__ import annotations

import torch

from scset_tools.nn import (
    cell_normal,
    cell_uniform,
    host_sizes,
    ptr_from_sizes,
    rank_within_set,
    rows_where,
    sample_of_cell,
)

STREAM_SPLIT, STREAM_TILT = 20, 24
"""Sequences of a sample's seed; the others are those of :mod:`scset_tools.model.scset._module`."""


def tilted_half(
    x: torch.Tensor, ptr: torch.Tensor, seed: torch.Tensor, *, tilt: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Half of the cells of each sample (two at least), those of one side of it more likely than others.

    A direction of the features is drawn for each sample, and its cells are drawn without replacement with odds that change
    by ``exp(tilt)`` or so from one side to the other: a sample of another composition, made of true cells.

    Parameters
    ----------
    x
        Cells, (cells, features).
    ptr
        Boundaries of the samples, (samples + 1,).
    seed
        Seed of each sample, (samples,).
    tilt
        Strength.

    Returns
    -------
    Rows of the cells and their boundaries.
    """
    sample = sample_of_cell(ptr)
    own = ptr_from_sizes([1] * (len(ptr) - 1), device=ptr.device)
    direction = cell_normal(seed, own, x.shape[1] + 1, stream=STREAM_TILT)  # and how far it tilts
    direction, strength = direction[:, 1:], direction[:, 0] * tilt
    direction = direction / direction.norm(dim=1, keepdim=True) * strength[:, None]
    side = (x.to(direction.dtype).nan_to_num(0.0) * direction[sample]).sum(1)
    u = cell_uniform(seed, ptr, stream=STREAM_TILT)
    score = side - torch.log(-torch.log(u.clamp(1e-300, 1 - 1e-16)))  # Gumbel: the largest are a draw with these odds
    n_kept = ((ptr.diff() + 1) // 2).clamp(min=2).minimum(ptr.diff())
    is_kept = rank_within_set(score, ptr, descending=True) < n_kept[sample]
    known = [min(max((n + 1) // 2, 2), n) for n in host_sizes(ptr)]
    return rows_where(is_kept, sum(known)), ptr_from_sizes(n_kept, known=known)


def anchors_and_targets(
    ptr: torch.Tensor, seed: torch.Tensor, *, n_cells: int, n_targets: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Disjoint anchor and target cells of each sample.

    A sample gives ``n_targets`` targets, or a quarter of its cells where these are fewer than four times as many (one at
    least), and of the others at most ``n_cells`` anchors.

    Parameters
    ----------
    ptr
        Boundaries of the samples, (samples + 1,).
    seed
        Seed of each sample, (samples,).
    n_cells, n_targets
        Most anchors and most targets of a sample.

    Returns
    -------
    Rows of the anchors and their boundaries, rows of the targets and their boundaries.
    """
    counts = ptr.diff()
    own_targets = (counts // 4).clamp(1, n_targets).minimum(counts)
    own_anchors = (counts - own_targets).clamp(max=n_cells)
    sample = sample_of_cell(ptr)
    rank = rank_within_set(cell_uniform(seed, ptr, stream=STREAM_SPLIT), ptr)
    is_target = rank < own_targets[sample]
    is_anchor = ~is_target & (rank < (own_targets + own_anchors)[sample])
    sizes = host_sizes(ptr)
    of_targets = [min(max(n // 4, 1), n_targets, n) for n in sizes]
    of_anchors = [min(n - k, n_cells) for n, k in zip(sizes, of_targets, strict=True)]
    return (
        rows_where(is_anchor, sum(of_anchors)),
        ptr_from_sizes(own_anchors, known=of_anchors),
        rows_where(is_target, sum(of_targets)),
        ptr_from_sizes(own_targets, known=of_targets),
    )

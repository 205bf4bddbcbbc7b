"""Student views: crops of each sample with a part of their cells hidden, all views of a step as one ragged batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from scset_tools.nn import (
    block_mask,
    cell_uniform,
    farthest_point_view,
    host_sizes,
    n_hidden_cells,
    on_host,
    ptr_from_sizes,
    random_mask,
    random_view,
    rank_within_set,
    rows_where,
    sample_of_cell,
    sample_uniform,
    to_device,
)

LOG_OF_NONE = -1e4
"""Log-weight of a token that stands for no cell: finite, and its weight in a softmax is exactly zero."""
MASKINGS = ("block", "random")
VIEWS = ("random", "farthest")
FARTHEST_POOL = 8
"""The farthest points are looked for among this many times as many cells, drawn at random: the search visits all of them
once for every point that it takes."""


@dataclass(frozen=True)
class StudentViews:
    """Crops of the samples with hidden cells: set ``v`` of ``n_views`` is ``index[ptr[v]:ptr[v + 1]]``.

    Attributes
    ----------
    index
        Row in the batch of each cell of each view, (cells of all views,), int64.
    ptr
        Where each view begins and ends, (views + 1,), int64.
    is_hidden
        Whether a cell is hidden from the student, (cells of all views,), bool.
    slot
        Which seed of the decoder answers to each cell: a permutation of each view (Algorithm 1, step 6), (cells of all views,).
        Its position would tell the decoder which rows are hidden, and with it what they hold where rows are in order.
    sample_of_view
        Position in the batch of the sample of each view, (views,), int64; the first ``n_samples`` views are one of each sample.
    n_samples
        Number of samples in the batch.
    n_hidden
        Number of hidden cells of each view, (views,), int64.
    sizes, sizes_hidden
        Number of cells, and of hidden cells, of each view as Python numbers.
    """

    index: torch.Tensor
    ptr: torch.Tensor
    is_hidden: torch.Tensor
    slot: torch.Tensor
    sample_of_view: torch.Tensor
    n_samples: int
    n_hidden: torch.Tensor
    sizes: list[int]
    sizes_hidden: list[int]

    @cached_property
    def hidden(self) -> torch.Tensor:
        """Places of the hidden cells among those of all views, ascending."""
        return rows_where(self.is_hidden, sum(self.sizes_hidden))

    @cached_property
    def visible(self) -> torch.Tensor:
        """Places of the cells in sight, ascending."""
        return rows_where(~self.is_hidden, sum(self.sizes) - sum(self.sizes_hidden))

    @property
    def sizes_visible(self) -> list[int]:
        """Number of cells in sight of each view."""
        return [n - m for n, m in zip(self.sizes, self.sizes_hidden, strict=True)]

    @cached_property
    def ptr_hidden(self) -> torch.Tensor:
        """Where the hidden cells of each view begin and end, (views + 1,)."""
        return ptr_from_sizes(self.n_hidden, known=self.sizes_hidden)

    @cached_property
    def ptr_visible(self) -> torch.Tensor:
        """Where the cells in sight of each view begin and end, (views + 1,)."""
        return ptr_from_sizes(self.ptr.diff() - self.n_hidden, known=self.sizes_visible)


def student_views(
    x: torch.Tensor,
    ptr: torch.Tensor,
    seed: torch.Tensor,
    *,
    n_cells: int,
    mask_rates: Sequence[float],
    masking: str = "block",
    views: Sequence[str] = ("random",),
    one_rate: bool = False,
    unmasked: bool = False,
) -> StudentViews:
    """Crop each sample and hide cells of each crop at every rate, or at one of them (MAESTRO 3.2.1; rates of F.4).

    Parameters
    ----------
    x
        Cells of all samples, (cells, features).
    ptr
        Where each sample begins and ends, (samples + 1,).
    seed
        Seed of each sample, (samples,): what is drawn for a sample depends on nothing else.
    n_cells
        Most cells of a crop; a smaller sample is taken whole.
    mask_rates
        Shares of the cells to hide, one view for each.
    masking
        ``"block"`` hides blocks of similar cells (Algorithm 1), ``"random"`` cells at random.
    views
        Crops to take: ``"random"`` cells, or ``"farthest"`` points, which keep rare cells in sight.
    one_rate
        Whether each sample gets one view of each crop, at a rate drawn for it, instead of one at every rate.
    unmasked
        Whether the first view of each crop hides nothing.
    """
    index, sizes, sizes_hidden, hidden, slots = [], [], [], [], []
    stream = 0
    own_seed = on_host(
        seed
    )  # how many cells are hidden is found on the host as well, which the shapes of a step are known to
    for crop in views:
        cells, ptr_crop = _crop(crop, x, ptr, seed, n_cells=n_cells, stream=stream)
        stream += 3
        rates: list[float | torch.Tensor] = list(mask_rates)
        if one_rate:
            drawn = (sample_uniform(own_seed, stream=stream) * len(mask_rates)).long()
            rates = [torch.tensor(mask_rates, dtype=torch.float64)[drawn]]
            stream += 1
        of_crop = host_sizes(ptr_crop)
        for rate in [0.0, *rates] if unmasked else rates:
            known = n_hidden_cells(ptr_from_sizes(of_crop), rate)
            n_hidden = to_device(known, ptr.device)
            if masking == "block":
                pivot = _position(sample_uniform(seed, stream=stream), ptr_crop)
                is_hidden = block_mask(x[cells], ptr_crop, n_hidden, pivot=pivot)
            else:
                is_hidden = random_mask(ptr_crop, n_hidden, cell_uniform(seed, ptr_crop, stream=stream))
            slots.append(rank_within_set(cell_uniform(seed, ptr_crop, stream=stream + 1), ptr_crop))
            stream += 2
            index.append(cells)
            sizes += of_crop
            sizes_hidden.append(known)
            hidden.append(is_hidden)
    n_samples = len(ptr) - 1
    all_hidden = torch.cat(sizes_hidden)
    return StudentViews(
        index=torch.cat(index),
        ptr=ptr_from_sizes(sizes, device=ptr.device),
        is_hidden=torch.cat(hidden),
        slot=torch.cat(slots),
        sample_of_view=torch.arange(n_samples, device=ptr.device).repeat(len(hidden)),
        n_samples=n_samples,
        n_hidden=to_device(all_hidden, ptr.device),
        sizes=sizes,
        sizes_hidden=all_hidden.tolist(),
    )


def hide(
    x: torch.Tensor, views: StudentViews, hidden_token: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The sets that the student sees: visible cells, and one token in place of all hidden cells of a view.

    The hidden cells of a view are replaced by the same token, so that they stay equal in every layer: the token is given
    once, with the logarithm of its number as weight in every attention over the set. This is exact.

    Parameters
    ----------
    x
        Cells of the batch, (cells, features).
    views
        Crops and what is hidden of them.
    hidden_token
        What a hidden cell is replaced by, (features,), or (views, features).

    Returns
    -------
    Cells and tokens (n, features), boundaries (views + 1,), and log-weights (n,): 0 for a cell, log m for a token that
    stands for m cells.
    """
    n_views = len(views.ptr) - 1
    view_of_cell = sample_of_cell(views.ptr_visible, n_cells=len(views.visible))
    view = torch.cat([view_of_cell, torch.arange(n_views, device=x.device)])
    order = torch.argsort(view, stable=True)
    visible = x[views.index[views.visible]]
    tokens = hidden_token.to(x.dtype).expand(n_views, -1)
    log_weight = torch.cat([x.new_zeros(len(visible)), views.n_hidden.to(x.dtype).log().clamp_min(LOG_OF_NONE)])
    ptr = ptr_from_sizes(views.ptr_visible.diff() + 1, known=[n + 1 for n in views.sizes_visible])
    return torch.cat([visible, tokens])[order], ptr, log_weight[order]


def _crop(
    crop: str, x: torch.Tensor, ptr: torch.Tensor, seed: torch.Tensor, *, n_cells: int, stream: int
) -> tuple[torch.Tensor, torch.Tensor]:
    if crop == "random":
        return random_view(ptr, n_cells, cell_uniform(seed, ptr, stream=stream))
    pool, ptr_pool = random_view(ptr, FARTHEST_POOL * n_cells, cell_uniform(seed, ptr, stream=stream + 1))
    start = _position(sample_uniform(seed, stream=stream + 2), ptr_pool)
    chosen, ptr_crop = farthest_point_view(x[pool], ptr_pool, n_cells, start=start)
    return pool[chosen], ptr_crop


def _position(u: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
    """A position within each set from a uniform number, (samples,)."""
    n = ptr.diff()
    return torch.minimum((u * n).long(), n - 1).clamp_min(0)

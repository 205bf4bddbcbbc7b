"""Which genes of each cell are hidden in a step: expressed ones by importance, unexpressed ones at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from scset_tools.nn import cell_uniform, draw_without_replacement, n_hidden_genes, ptr_from_sizes

if TYPE_CHECKING:
    from scset_tools.model.selfguided._tokens import Tokens

MASKINGS = ("self_guided", "random")
STREAM_LATENTS, STREAM_EXPRESSED, STREAM_ZERO = 1, 2, 3


@dataclass(frozen=True)
class HiddenGenes:
    """What is hidden of each cell.

    Attributes
    ----------
    is_visible
        True for the expressed genes that stay in sight, (cells, tokens).
    gene, value
        Hidden genes and their true values, expressed ones first, (cells, hidden).
    is_real
        True where a slot holds a hidden gene, (cells, hidden).
    is_expressed
        True where the hidden gene is an expressed one, (cells, hidden).
    """

    is_visible: torch.Tensor
    gene: torch.Tensor
    value: torch.Tensor
    is_real: torch.Tensor
    is_expressed: torch.Tensor


def used_latents(seed: torch.Tensor, n_latents: int) -> torch.Tensor:
    """The random half of the latents that guides the mask of each cell, at least one: bool (cells, n_latents)."""
    u = _uniform(seed, n_latents, STREAM_LATENTS)
    n_used = torch.full_like(seed, max(1, n_latents // 2))
    index, is_drawn = draw_without_replacement(torch.ones_like(u), n_used, u)
    return torch.zeros(len(seed), n_latents, dtype=torch.bool, device=seed.device).scatter_(1, index, is_drawn)


def hide_genes(
    tokens: Tokens,
    seed: torch.Tensor,
    *,
    importance: torch.Tensor | None,
    rate: float,
    zero_rate: float,
    is_measured: torch.Tensor,
) -> HiddenGenes:
    """Draw the hidden genes of each cell from its own seed.

    Parameters
    ----------
    tokens
        Expressed genes.
    seed
        Seed of each cell, (cells,).
    importance
        Weights of the expressed genes, (cells, tokens); None for equal ones.
    rate, zero_rate
        Shares of the expressed and of the unexpressed genes that are hidden.
    is_measured
        True for the genes of the vocabulary that the data measure, (genes,): of the others a zero means nothing.
    """
    n_cells, n_genes = len(seed), len(is_measured)
    u = torch.ones(tokens.is_real.shape, dtype=torch.float64, device=seed.device)
    u[tokens.is_real] = cell_uniform(seed, ptr_from_sizes(tokens.n_real), stream=STREAM_EXPRESSED)
    weight = torch.ones_like(u) if importance is None else importance
    hidden, is_hidden = draw_without_replacement(weight, n_hidden_genes(tokens.n_real, rate), u, is_real=tokens.is_real)
    is_visible = tokens.is_real.scatter(1, hidden, tokens.is_real.gather(1, hidden) & ~is_hidden)

    is_zero = is_measured.repeat(n_cells, 1)
    row = torch.arange(n_cells, device=seed.device)[:, None].expand_as(tokens.gene)
    is_zero[row[tokens.is_real], tokens.gene[tokens.is_real]] = False
    n_zero = is_zero.sum(1)
    # unlike an expressed gene, a hidden zero takes nothing from sight: all may go
    n_hidden_zero = torch.floor(n_zero.double() * zero_rate + 1e-9).long()
    zero, is_hidden_zero = draw_without_replacement(
        is_zero.double(), n_hidden_zero, _uniform(seed, n_genes, STREAM_ZERO), is_real=is_zero
    )
    return HiddenGenes(
        is_visible=is_visible,
        gene=torch.cat([tokens.gene.gather(1, hidden), zero], 1),
        value=torch.cat([tokens.value.gather(1, hidden), tokens.value.new_zeros(zero.shape)], 1),
        is_real=torch.cat([is_hidden, is_hidden_zero], 1),
        is_expressed=torch.cat([is_hidden, torch.zeros_like(is_hidden_zero)], 1),
    )


def _uniform(seed: torch.Tensor, n: int, stream: int) -> torch.Tensor:
    """``n`` numbers of [0, 1) for each cell, (cells, n), float64."""
    ptr = torch.arange(len(seed) + 1, device=seed.device) * n
    return cell_uniform(seed, ptr, stream=stream).view(len(seed), n)

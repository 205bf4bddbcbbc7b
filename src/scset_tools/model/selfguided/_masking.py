"""Which genes of each cell are hidden in a step, by importance or evenly: among the expressed ones, or among all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from scset_tools.model.selfguided._latents import n_used_latents
from scset_tools.nn import cell_uniform, draw_without_replacement, n_hidden_genes, ptr_from_sizes, scaled_ptr

if TYPE_CHECKING:
    from scset_tools.model.selfguided._tokens import Tokens

MASKINGS = ("self_guided", "random")
CANDIDATES = ("expressed", "all")
STREAM_LATENTS, STREAM_EXPRESSED, STREAM_ZERO, STREAM_ANY = 1, 2, 3, 4


@dataclass(frozen=True)
class HiddenGenes:
    """What is hidden of each cell.

    Attributes
    ----------
    is_visible
        True for the expressed genes that stay in sight, (cells, tokens).
    gene, value
        Hidden genes and their true values, (cells, hidden).
    is_real
        True where a slot holds a hidden gene, (cells, hidden).
    is_expressed
        True where the hidden gene is an expressed one, (cells, hidden).
    n_visible
        Most expressed genes of a cell that stay in sight, if that does not depend on what was drawn.
    """

    is_visible: torch.Tensor
    gene: torch.Tensor
    value: torch.Tensor
    is_real: torch.Tensor
    is_expressed: torch.Tensor
    n_visible: int | None = None


def used_latents(seed: torch.Tensor, n_latents: int) -> torch.Tensor:
    """The random half of the latents that guides the mask of each cell, at least one: bool (cells, n_latents)."""
    u = _uniform(seed, n_latents, STREAM_LATENTS)
    n_used = n_used_latents(n_latents)
    index, is_drawn = draw_without_replacement(torch.ones_like(u), torch.full_like(seed, n_used), u, n_most=n_used)
    return torch.zeros(len(seed), n_latents, dtype=torch.bool, device=seed.device).scatter_(1, index, is_drawn)


def hide_genes(
    tokens: Tokens,
    seed: torch.Tensor,
    *,
    importance: tuple[torch.Tensor, torch.Tensor] | None,
    candidates: str,
    rate: float,
    zero_rate: float,
    is_measured: torch.Tensor,
    n_measured: int | None = None,
) -> HiddenGenes:
    """Draw the hidden genes of each cell from its own seed.

    Parameters
    ----------
    tokens
        Expressed genes.
    seed
        Seed of each cell, (cells,).
    importance
        Weights of the expressed genes, (cells, tokens), and of all others, (cells, genes); None for equal ones.
    candidates
        ``"expressed"``: the weights choose among the expressed genes, and zeros are drawn evenly. ``"all"``: they choose among
        all genes, as many in all.
    rate, zero_rate
        Shares of the expressed and of the unexpressed genes that are hidden.
    is_measured
        True for the genes of the vocabulary that the data measure, (genes,): of the others a zero means nothing.
    n_measured
        Their number, all expressed genes among them, where the caller knows it: a GPU need not be asked for it.
    """
    n_hidden = n_hidden_genes(tokens.n_real, rate)
    is_zero = absent_genes(tokens, is_measured)
    # unlike an expressed gene, a hidden zero takes nothing from sight: all may go
    n_hidden_zero = _n_hidden_zeros(is_zero.sum(1), zero_rate)
    most = _Most.of(tokens.sizes, n_measured, rate=rate, zero_rate=zero_rate)
    if candidates == "all":
        return _hide_any(
            tokens, seed, n_hidden + n_hidden_zero, is_zero=is_zero, importance=importance, n_most=most.together
        )
    u = torch.ones(tokens.is_real.shape, dtype=torch.float64, device=seed.device)
    ptr = ptr_from_sizes(tokens.n_real, known=tokens.sizes)
    u = u.masked_scatter(tokens.is_real, cell_uniform(seed, ptr, stream=STREAM_EXPRESSED))
    weight = torch.ones_like(u) if importance is None else importance[0]
    hidden, is_hidden = draw_without_replacement(weight, n_hidden, u, is_real=tokens.is_real, n_most=most.expressed)
    is_visible = tokens.is_real.scatter(1, hidden, tokens.is_real.gather(1, hidden) & ~is_hidden)
    zero, is_hidden_zero = draw_without_replacement(
        is_zero.double(),
        n_hidden_zero,
        _uniform(seed, is_zero.shape[1], STREAM_ZERO),
        is_real=is_zero,
        n_most=most.zero,
    )
    return HiddenGenes(
        is_visible=is_visible,
        gene=torch.cat([tokens.gene.gather(1, hidden), zero], 1),
        value=torch.cat([tokens.value.gather(1, hidden), tokens.value.new_zeros(zero.shape)], 1),
        is_real=torch.cat([is_hidden, is_hidden_zero], 1),
        is_expressed=torch.cat([is_hidden, torch.zeros_like(is_hidden_zero)], 1),
        n_visible=most.visible,
    )


def _n_hidden_zeros(n_zero: torch.Tensor, rate: float) -> torch.Tensor:
    return torch.floor(n_zero.double() * rate + 1e-9).long()


@dataclass(frozen=True)
class _Most:
    """What the cell has of which most is hidden, or left in sight; None where the sizes are not known on the host."""

    expressed: int | None = None
    zero: int | None = None
    together: int | None = None
    visible: int | None = None

    @classmethod
    def of(cls, sizes: list[int] | None, n_measured: int | None, *, rate: float, zero_rate: float) -> _Most:
        if not sizes:
            return cls()
        n = torch.tensor(sizes)
        hidden = n_hidden_genes(n, rate)
        expressed, visible = int(hidden.max()), int((n - hidden).max())
        if n_measured is None:
            return cls(expressed, None, None, visible)
        zero = _n_hidden_zeros(n_measured - n, zero_rate)
        return cls(expressed, int(zero.max()), int((hidden + zero).max()), visible)


def _hide_any(
    tokens: Tokens,
    seed: torch.Tensor,
    n_hidden: torch.Tensor,
    *,
    is_zero: torch.Tensor,
    importance: tuple[torch.Tensor, torch.Tensor] | None,
    n_most: int | None,
) -> HiddenGenes:
    """Draw among all genes at once; the expressed gene that would be drawn last stays in sight."""
    n_genes = is_zero.shape[1]
    place = tokens.gene.clamp_max(n_genes)  # padding writes to one column more

    def spread(of_tokens: torch.Tensor) -> torch.Tensor:
        return of_tokens.new_zeros(len(seed), n_genes + 1).scatter(1, place, of_tokens)[:, :n_genes]

    is_expressed, value = spread(tokens.is_real), spread(tokens.value)
    weight = torch.ones_like(value) if importance is None else spread(importance[0]) + importance[1]
    gene, is_drawn = draw_without_replacement(
        weight, n_hidden, _uniform(seed, n_genes, STREAM_ANY), is_real=is_zero | is_expressed, n_most=n_most
    )
    is_expressed_drawn = is_expressed.gather(1, gene) & is_drawn
    takes_all = (is_expressed_drawn.sum(1) == tokens.n_real) & (tokens.n_real > 0)
    order = torch.arange(gene.shape[1], device=gene.device)
    last = (is_expressed_drawn * order).amax(1, keepdim=True) if gene.shape[1] else order.expand(len(seed), 0)
    is_spared = takes_all[:, None] & (order == last)
    is_drawn, is_expressed_drawn = is_drawn & ~is_spared, is_expressed_drawn & ~is_spared
    # positions that fill up a row may repeat a gene: they write to the column of padding
    is_hidden = torch.zeros(len(seed), n_genes + 1, dtype=torch.bool, device=seed.device)
    is_hidden.scatter_(1, gene.masked_fill(~is_drawn, n_genes), value=True)
    is_hidden[:, n_genes] = False
    return HiddenGenes(
        is_visible=tokens.is_real & ~is_hidden.gather(1, place),
        gene=gene,
        value=value.gather(1, gene) * is_drawn,
        is_real=is_drawn,
        is_expressed=is_expressed_drawn,
    )


def absent_genes(tokens: Tokens, is_measured: torch.Tensor) -> torch.Tensor:
    """True for the measured genes, (genes,) or (cells, genes), that are not among the tokens of a cell, (cells, genes)."""
    n_genes = is_measured.shape[-1]
    is_zero = F.pad(is_measured.expand(len(tokens.gene), -1), (0, 1))  # one column more takes what padding writes
    return is_zero.scatter(1, tokens.gene.clamp_max(n_genes), value=False)[:, :n_genes]


def _uniform(seed: torch.Tensor, n: int, stream: int) -> torch.Tensor:
    """``n`` numbers of [0, 1) for each cell, (cells, n), float64."""
    ptr = scaled_ptr(ptr_from_sizes([1] * len(seed), device=seed.device), n)
    return cell_uniform(seed, ptr, stream=stream).view(len(seed), n)

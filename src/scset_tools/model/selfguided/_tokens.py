"""Expressed genes of a batch of cells as padded tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from scset_tools.nn import host_sizes


@dataclass(frozen=True)
class Tokens:
    """Genes of cells, padded to the longest cell of the batch.

    Attributes
    ----------
    gene
        Number of each gene, (cells, tokens), int64; padding has the number of the padding embedding.
    value
        What the encoder reads, (cells, tokens); 0 for padding.
    is_real
        True where a slot holds a token, (cells, tokens).
    """

    gene: torch.Tensor
    value: torch.Tensor
    is_real: torch.Tensor

    @property
    def n_real(self) -> torch.Tensor:
        """Number of tokens of each cell, (cells,)."""
        return self.is_real.sum(1)

    def take(self, index: torch.Tensor, is_real: torch.Tensor, *, padding: int) -> Tokens:
        """The tokens at these positions of each cell, (cells, n); those not real become padding."""
        gene = self.gene.gather(1, index).masked_fill(~is_real, padding)
        return Tokens(gene, self.value.gather(1, index).masked_fill(~is_real, 0), is_real)

    def append(self, gene: torch.Tensor, value: torch.Tensor) -> Tokens:
        """The same with further tokens at the end of every cell: (n,) genes and (cells, n) values."""
        n_cells = len(self.gene)
        return Tokens(
            torch.cat([self.gene, gene.expand(n_cells, -1)], 1),
            torch.cat([self.value, value.to(self.value.dtype)], 1),
            torch.cat([self.is_real, torch.ones_like(value, dtype=torch.bool)], 1),
        )


def pad(gene: torch.Tensor, value: torch.Tensor, ptr: torch.Tensor, *, padding: int) -> Tokens:
    """Padded tokens of ragged ones: (tokens,), (tokens,) and boundaries (cells + 1,)."""
    sizes = ptr.diff()
    n_most = max(host_sizes(ptr), default=0)
    is_real = torch.arange(n_most, device=ptr.device) < sizes[:, None]
    padded_gene = gene.new_full(is_real.shape, padding).masked_scatter(is_real, gene)
    padded_value = value.new_zeros(is_real.shape).masked_scatter(is_real, value)
    return Tokens(padded_gene, padded_value, is_real)


def front(is_kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of the kept tokens of each row, in order and without gaps, and where they are real: (cells, most kept)."""
    n_kept = is_kept.sum(1)
    n_most = int(n_kept.max()) if len(n_kept) else 0
    index = torch.argsort(is_kept, dim=1, descending=True, stable=True)[:, :n_most]
    return index, torch.arange(n_most, device=is_kept.device) < n_kept[:, None]

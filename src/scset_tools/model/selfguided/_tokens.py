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
    sizes
        Number of tokens of each cell as Python numbers, where they are known.
    """

    gene: torch.Tensor
    value: torch.Tensor
    is_real: torch.Tensor
    sizes: list[int] | None = None

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
            None if self.sizes is None else [n + len(gene) for n in self.sizes],
        )


def pad(gene: torch.Tensor, value: torch.Tensor, ptr: torch.Tensor, *, padding: int) -> Tokens:
    """Padded tokens of ragged ones: (tokens,), (tokens,) and boundaries (cells + 1,)."""
    sizes = host_sizes(ptr)
    is_real = torch.arange(max(sizes, default=0), device=ptr.device) < ptr.diff()[:, None]
    padded_gene = gene.new_full(is_real.shape, padding).masked_scatter(is_real, gene)
    padded_value = value.new_zeros(is_real.shape).masked_scatter(is_real, value)
    return Tokens(padded_gene, padded_value, is_real, sizes)


def front(is_kept: torch.Tensor, n_most: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of the kept tokens of each row, in order and without gaps, and where they are real: (cells, most kept).

    ``n_most`` is the most that a row keeps, where the caller knows it: a GPU need not be asked for it.
    """
    n_kept = is_kept.sum(1)
    if n_most is None:
        n_most = int(n_kept.max()) if len(n_kept) else 0
    index = torch.argsort(is_kept, dim=1, descending=True, stable=True)[:, :n_most]
    return index, torch.arange(n_most, device=is_kept.device) < n_kept[:, None]

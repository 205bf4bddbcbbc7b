"""How often each gene was hidden in training, and with what value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import nn

if TYPE_CHECKING:
    from scset_tools.model.selfguided._masking import HiddenGenes
    from scset_tools.model.selfguided._tokens import Tokens

SCALE = 2**20
"""Values are summed as whole multiples of its inverse: sums that no order of the batches and no precision of the weights
can change."""

COLUMNS = ("times_masked", "times_masked_expressed", "times_expressed", "value_sum")


class MaskingCounts(nn.Module):
    """Counts over all training steps and processes, saved with the model.

    Parameters
    ----------
    n_genes
        Number of genes of the vocabulary.

    Attributes
    ----------
    is_shared
        Whether several processes train together, each of which adds what all of them hid.
    """

    n_cells: torch.Tensor
    is_shared = False

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        for name in COLUMNS:
            self.register_buffer(name, torch.zeros(n_genes, dtype=torch.int64))
        self.register_buffer("n_cells", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def add(self, tokens: Tokens, hidden: HiddenGenes, *, n_cells: int) -> None:
        """Count what a training step hides, in all processes that take it."""
        value = (hidden.value.double() * SCALE).round().long()
        parts: tuple[tuple[torch.Tensor, torch.Tensor, torch.Tensor | int], ...] = (
            (hidden.gene, hidden.is_real, 1),
            (hidden.gene, hidden.is_expressed, 1),
            (tokens.gene, tokens.is_real, 1),
            (hidden.gene, hidden.is_real, value),
        )
        last = len(self.times_masked)
        more = self.times_masked.new_zeros(len(parts), last + 1)
        for row, (index, counts, amount) in zip(more, parts, strict=True):
            # what does not count adds nothing to the last column: a choice of entries would make the host wait for their number
            row.index_add_(0, torch.where(counts, index, last).flatten(), torch.where(counts, amount, 0).flatten())
        more[0, -1] = n_cells
        if self.is_shared:
            # now, not at the end: buffers of the first process replace those of the others before each step
            torch.distributed.all_reduce(more)
        for name, row in zip(COLUMNS, more, strict=True):
            getattr(self, name).add_(row[:-1])
        self.n_cells += more[0, -1]


def frequency_table(counts: MaskingCounts, gene_ids: torch.Tensor, features: np.ndarray) -> pd.DataFrame:
    """The counts of the features of the data, indexed by their names; NaN for a feature without a match."""
    number = gene_ids.cpu().numpy()
    n_cells = int(counts.n_cells)

    def column(name: str) -> np.ndarray:
        values = getattr(counts, name).cpu().numpy().astype(np.float64)
        return np.where(number >= 0, values[number], np.nan)

    masked, expressed = column("times_masked"), column("times_expressed")
    with np.errstate(divide="ignore", invalid="ignore"):
        return pd.DataFrame(
            {
                "times_masked": masked,
                "share_masked": masked / n_cells,
                "times_expressed": expressed,
                "share_masked_expressed": column("times_masked_expressed") / expressed,
                "mean_when_masked": column("value_sum") / SCALE / masked,
            },
            index=pd.Index(features),
        )

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


class MaskingCounts(nn.Module):
    """Counts over all training steps, saved with the model.

    Parameters
    ----------
    n_genes
        Number of genes of the vocabulary.
    """

    n_cells: torch.Tensor

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        for name in ("times_masked", "times_masked_expressed", "times_expressed", "value_sum"):
            self.register_buffer(name, torch.zeros(n_genes, dtype=torch.int64))
        self.register_buffer("n_cells", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def add(self, tokens: Tokens, hidden: HiddenGenes, *, n_cells: int) -> None:
        """Count what a training step hides."""
        self.n_cells += n_cells
        gene = hidden.gene[hidden.is_real]
        value = (hidden.value[hidden.is_real].double() * SCALE).round().long()
        expressed = hidden.gene[hidden.is_expressed]
        seen = tokens.gene[tokens.is_real]
        for name, index, amount in (
            ("times_masked", gene, torch.ones_like(gene)),
            ("times_masked_expressed", expressed, torch.ones_like(expressed)),
            ("times_expressed", seen, torch.ones_like(seen)),
            ("value_sum", gene, value),
        ):
            getattr(self, name).index_add_(0, index, amount)


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

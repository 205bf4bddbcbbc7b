"""A continuous value as a soft mixture of learned bins (xTrimoGene, scFoundation)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AutoDiscretization(nn.Module):
    r"""Embed a number as a weighted mean of bin embeddings, with weights that a small network reads off the number.

    ``h = LeakyReLU(W1 v + b1)``, ``w = softmax(alpha h + W2 h + b2)``, ``e = w E``: near values get near embeddings, and
    where the borders of the bins lie is learned. A hidden value and a padded slot have an embedding of their own.

    Parameters
    ----------
    dim
        Width of the embedding.
    n_bins
        Number of bins, rows of ``E``.
    alpha
        Weight of the direct path from ``h`` to the logits.
    negative_slope
        Slope of the LeakyReLU below zero.

    Notes
    -----
    The form of scFoundation (Hao et al. 2024), so that its weights fit.
    """

    def __init__(self, dim: int, n_bins: int = 100, *, alpha: float = 1.0, negative_slope: float = 0.1) -> None:
        super().__init__()
        self.alpha, self.negative_slope = alpha, negative_slope
        self.lift = nn.Linear(1, n_bins)
        self.mix = nn.Linear(n_bins, n_bins)
        self.bins = nn.Parameter(torch.randn(n_bins, dim))
        self.hidden = nn.Parameter(torch.randn(dim))
        self.padding = nn.Parameter(torch.randn(dim))

    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """The learned embeddings, for an initialisation of one's own: of bins, of hidden values, of padding."""
        return self.bins, self.hidden, self.padding

    def weights(self, value: Tensor) -> Tensor:
        """Share of each bin.

        Parameters
        ----------
        value
            Numbers of any shape (...).

        Returns
        -------
        Shape (..., n_bins); sums to 1 over bins, computed in float32 or better.
        """
        h = F.leaky_relu(self.lift(value.unsqueeze(-1)), self.negative_slope)
        logits = self.mix(h) + self.alpha * h
        return logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32)).to(logits.dtype)

    def forward(self, value: Tensor, *, is_hidden: Tensor | None = None, is_padding: Tensor | None = None) -> Tensor:
        """Embed numbers.

        Parameters
        ----------
        value
            Numbers of any shape (...), in the type of the weights.
        is_hidden, is_padding
            Boolean, the shape of ``value``: where the embedding for hidden values, or for padding, is to stand instead.

        Returns
        -------
        Shape (..., dim).
        """
        embedded = self.weights(value) @ self.bins
        for is_special, special in ((is_hidden, self.hidden), (is_padding, self.padding)):
            if is_special is not None:
                embedded = torch.where(is_special.unsqueeze(-1), special.to(embedded.dtype), embedded)
        return embedded

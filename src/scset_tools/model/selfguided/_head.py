"""Cell-type head on the vector of a cell."""

from __future__ import annotations

import torch
from torch import nn


class CellTypeHead(nn.Module):
    """Two linear layers with a ReLU between them, on standardised vectors (paper, appendix C: hidden width 256).

    Parameters
    ----------
    n_input, n_classes, n_hidden
        Widths.

    Notes
    -----
    The published code puts a batch norm before the layers. Here location and scale of the training cells' vectors, as they
    are when fine-tuning begins, are fixed: a prediction depends on no batch mates, in training neither.
    """

    def __init__(self, n_input: int, n_classes: int, *, n_hidden: int = 256) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_input))
        self.register_buffer("scale", torch.ones(n_input))
        self.layers = nn.Sequential(nn.Linear(n_input, n_hidden), nn.ReLU(), nn.Linear(n_hidden, n_classes))

    @torch.no_grad()
    def standardize(self, vectors: torch.Tensor) -> None:
        """Take location and scale from vectors (cells, n_input); a constant feature is left at zero."""
        vectors = vectors.double()
        scale = vectors.std(0, correction=0)
        self.mean.copy_(vectors.mean(0))
        self.scale.copy_(scale.where(scale > 1e-9 * vectors.abs().amax(0).clamp_min(1e-9), torch.ones_like(scale)))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Logits (cells, n_classes) of vectors (cells, n_input)."""
        return self.layers((vectors - self.mean) / self.scale)

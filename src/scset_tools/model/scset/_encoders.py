"""Encoders of ScSet: from the cells of each sample to one vector (ScSet section 3.2 and Table 1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from scset_tools.nn import MLP, GatedAttentionPool, MarkerEmbedding, SetEncoder, TransformerEncoder, segment_mean, sizes


class GatedAttentionEncoder(nn.Module):
    """``MLP of each cell -> gated attention -> Linear`` (ABMIL, Ilse et al. 2018).

    Parameters
    ----------
    n_input
        Number of features of a cell.
    n_latent
        Width of the embedded cells, and length of the vector.
    dropout_rate
        Dropout inside the network of the cells.
    """

    def __init__(self, n_input: int, n_latent: int, *, dropout_rate: float = 0.0) -> None:
        super().__init__()
        self.cell = MLP(n_input, n_latent, n_hidden=n_latent, dropout_rate=dropout_rate)
        self.pool = GatedAttentionPool(n_latent, n_hidden=n_latent)
        self.project = nn.Linear(n_latent, n_latent)

    def forward(self, x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
        """Vectors of samples, (samples, n_latent), from cells (cells, n_input) with boundaries (samples + 1,)."""
        return self.project(self.pool(self.cell(x), ptr)[0])

    def get_attention(self, x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
        """Weight of each cell, (cells, 1); those of a sample sum to 1."""
        return self.pool(self.cell(x), ptr)[1]


class MeanEncoder(nn.Module):
    """``mean of the cells -> Linear``: the average, as a condition of the same decoder.

    Parameters
    ----------
    n_input
        Number of features of a cell.
    n_latent
        Length of the vector.
    """

    def __init__(self, n_input: int, n_latent: int) -> None:
        super().__init__()
        self.project = nn.Linear(n_input, n_latent)

    def forward(self, x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
        """Vectors of samples, (samples, n_latent), from cells (cells, n_input) with boundaries (samples + 1,)."""
        return self.project(segment_mean(x, ptr))

    def get_attention(self, x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
        """Weight of each cell, (cells, 1): one over the number of cells."""
        return (1 / sizes(ptr)).repeat_interleave(sizes(ptr), output_size=len(x))[:, None]


def _transformer(
    n_input: int, n_latent: int, *, n_layers: int, n_heads: int, dropout_rate: float, is_open: bool = False
) -> nn.Module:
    lift = MarkerEmbedding(n_input, n_latent) if is_open else None
    return TransformerEncoder(
        n_input, n_latent, n_layers=n_layers, n_heads=n_heads, dropout_rate=dropout_rate, lift=lift
    )


def _set_transformer(
    n_input: int, n_latent: int, *, n_layers: int, n_heads: int, dropout_rate: float, is_open: bool = False
) -> nn.Module:
    lift = MarkerEmbedding(n_input, n_latent) if is_open else None
    sizes = {"n_layers": n_layers, "n_heads": n_heads, "dropout_rate": dropout_rate}
    return SetEncoder(n_input, n_latent, n_latent, **sizes, lift=lift)


def _abmil(n_input: int, n_latent: int, *, n_layers: int, n_heads: int, dropout_rate: float) -> nn.Module:
    del n_layers, n_heads  # it has no attention blocks
    return GatedAttentionEncoder(n_input, n_latent, dropout_rate=dropout_rate)


def _mean(n_input: int, n_latent: int, *, n_layers: int, n_heads: int, dropout_rate: float) -> nn.Module:
    del n_layers, n_heads, dropout_rate
    return MeanEncoder(n_input, n_latent)


ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "transformer": _transformer,
    "set_transformer": _set_transformer,
    "abmil": _abmil,
    "mean": _mean,
}

OPEN_ENCODERS = ("transformer", "set_transformer")
"""Those that read cells which lack features."""


def last_modules(encoder: nn.Module) -> tuple[nn.Module, ...]:
    """The last block of an encoder with what comes after it; of one without blocks what pools the cells."""
    if isinstance(encoder, TransformerEncoder):
        return (encoder.pool.layers[-1],)
    if isinstance(encoder, SetEncoder):
        return encoder.layers[-1], encoder.pool, encoder.project
    return tuple(getattr(encoder, name) for name in ("pool", "project") if hasattr(encoder, name))

"""Encoder of a cell: its expressed genes as tokens of a transformer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from scset_tools.model.selfguided._latents import LatentCrossAttention, Zeros
from scset_tools.model.selfguided._tokens import Tokens
from scset_tools.nn import AutoDiscretization

POOLS = ("mean", "max", "all")
INITIAL_SPREAD = 0.05
"""Standard deviation of the first embeddings of genes and values."""


class GeneEncoder(nn.Module):
    """Transformer over the expressed genes of a cell (xTrimoGene, scFoundation), with latents that read it first.

    A token is the embedding of its value plus that of its gene. Blocks normalise after each branch, as scFoundation's do.

    Parameters
    ----------
    n_positions
        Number of genes, and of read-depth tokens, that have an embedding; one more is for padding.
    n_hidden, n_layers, n_heads, n_ff
        Width, number of blocks, attention heads, inner width of the feed-forward layers.
    n_bins, bin_alpha
        As for :class:`~scset_tools.nn.AutoDiscretization`.
    latents
        Latent module, or None.
    dropout_rate
        Dropout in the blocks.
    """

    def __init__(
        self,
        n_positions: int,
        *,
        n_hidden: int,
        n_layers: int,
        n_heads: int,
        n_ff: int,
        n_bins: int,
        bin_alpha: float,
        latents: LatentCrossAttention | None,
        dropout_rate: float,
    ) -> None:
        super().__init__()
        self.value_embedding = AutoDiscretization(n_hidden, n_bins, alpha=bin_alpha)
        self.gene_embedding = nn.Embedding(n_positions + 1, n_hidden)
        self.latents = latents
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(n_hidden, n_heads, n_ff, dropout=dropout_rate, batch_first=True)
            for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(n_hidden)
        # embeddings of length 1 would take thousands of steps to turn
        for table in (self.gene_embedding.weight, *self.value_embedding.tables()):
            nn.init.normal_(table, std=INITIAL_SPREAD)
        self.calibrate_latents()

    @torch.no_grad()
    def calibrate_latents(self) -> None:
        """Give the importance of genes the spread asked for on the embeddings as they are."""
        if self.latents is not None:
            genes = self.gene_embedding.weight[: self.padding]
            values = torch.arange(len(genes), device=genes.device) % 5  # logarithms of normalised counts, and zero
            self.latents.calibrate(genes + self.value_embedding(values.to(self.dtype)))

    @property
    def padding(self) -> int:
        """Number of the padding embedding."""
        return self.gene_embedding.num_embeddings - 1

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.norm.weight.dtype

    def embed(self, tokens: Tokens) -> torch.Tensor:
        """Embedding of each token, (cells, tokens, n_hidden)."""
        value = self.value_embedding(tokens.value.to(self.dtype), is_padding=~tokens.is_real)
        return value + self.gene_embedding(tokens.gene)

    def forward(
        self, x: torch.Tensor, is_real: torch.Tensor, zeros: Zeros | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Contextual tokens (cells, tokens, n_hidden) of embedded ones, and the attention of each latent on them.

        ``zeros`` are the genes that are not expressed, if the latents are to attend to them as well.
        """
        attention = None
        if self.latents is not None:
            added, attention = self.latents(x, is_real, zeros)
            x = x + added.unsqueeze(1)
        is_padding = ~is_real
        is_padding = torch.cat([is_padding[:, :1] & False, is_padding[:, 1:]], 1)  # a cell of padding alone gets no NaN
        with _fused_kernels(enabled=x.is_cuda):
            for layer in self.layers:
                x = layer(x, src_key_padding_mask=is_padding)
        return self.norm(x), attention


@contextmanager
def _fused_kernels(*, enabled: bool) -> Iterator[None]:
    """Torch's fused path of inference, or not: on a CPU it takes 1.4 times as long as the plain one, to the same result."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(enabled and before)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def pool_tokens(x: torch.Tensor, is_real: torch.Tensor, how: str, *, n_depth: int) -> torch.Tensor:
    """One vector per cell of its tokens (cells, tokens, n_hidden): mean, maximum, or both after the read-depth tokens.

    ``"all"`` is scFoundation's cell embedding: total-depth token, target-depth token, maximum and mean over genes.
    """
    n_real = is_real.sum(1)
    place = torch.arange(is_real.shape[1], device=x.device)
    is_gene = (place < (n_real - n_depth)[:, None]).unsqueeze(-1)  # the read-depth tokens come last
    top = x.masked_fill(~is_gene, -torch.inf).amax(1)
    top = top.masked_fill(top == -torch.inf, 0)
    if how == "max":
        return top
    mean = (x * is_gene).sum(1) / (n_real - n_depth).clamp_min(1).unsqueeze(1).to(x.dtype)
    if how == "mean":
        return mean
    last = [x[torch.arange(len(x), device=x.device), n_real - i] for i in range(1, n_depth + 1)]
    return torch.cat([*last, top, mean], 1)

"""From the hidden states of a sample's cells to one vector: every aggregator with the same four calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from scset_tools.nn import (
    FeatureSoftmaxPool,
    GatedAttentionPool,
    LinearAttentionPool,
    MeanPool,
    NonLinearAttentionPool,
    Pool,
    SetEncoder,
    SumPool,
    TransformerBlock,
    host_sizes,
    ptr_from_sizes,
    stream_attention,
    stream_embed,
    stream_pool,
    stream_pool_weights,
)

Chunks = Callable[[], Iterator[Tensor]]
"""Hidden states of one sample in pieces (n_i, width); each call starts over."""


class PoolAggregator(nn.Module):
    """A weighted sum of the hidden states.

    Parameters
    ----------
    pool
        What gives the weights.
    n_slots
        If given, samples with fewer cells are filled up to this number with cells without counts, which get their share of the
        attention, as in the published code, where the softmax ignores the padding mask.
    """

    def __init__(self, pool: Pool, n_slots: int | None = None) -> None:
        super().__init__()
        self.pool, self.n_slots = pool, n_slots

    def forward(self, h: Tensor, ptr: Tensor, empty: Tensor | None = None) -> Tensor:
        """One vector per sample, (samples, width).

        Parameters
        ----------
        h
            Hidden states, (cells, width).
        ptr
            Boundaries, (samples + 1,).
        empty
            Hidden state of a cell without counts, (width,); read if there are ``n_slots``.
        """
        if self.n_slots is None or empty is None:
            return self.pool(h, ptr)[0]
        sizes = ptr.diff()
        known = host_sizes(ptr)
        parts = [part for own in h.split(known) for part in (own, empty[None].to(h.dtype))]
        n_missing = (self.n_slots - sizes).clamp_min(0)
        log_weight = torch.zeros(len(h) + len(sizes), device=h.device)
        last = ptr[1:] + torch.arange(len(sizes), device=h.device)
        log_weight[last] = n_missing.to(log_weight.dtype).log()
        return self.pool(
            torch.cat(parts), ptr_from_sizes(sizes + 1, known=[n + 1 for n in known]), log_weight=log_weight
        )[0]

    def weights(self, h: Tensor, ptr: Tensor) -> Tensor:
        """Weight of each cell, (cells, 1); the mean over features where each feature has its own."""
        return self.pool(h, ptr)[1].mean(1, keepdim=True)

    def in_pieces(self, chunks: Chunks, empty: Tensor | None = None) -> Tensor:
        """The vector of one sample of any size in bounded memory, (1, width)."""
        if self.n_slots is None or empty is None:
            return stream_pool(self.pool, chunks())
        h = torch.cat(list(chunks()))  # no more than the slots, or nothing is filled up
        return self(h, ptr_from_sizes([len(h)]), empty)

    def weights_in_pieces(self, chunks: Chunks) -> Tensor:
        """The weights of one sample of any size, (cells, 1)."""
        return stream_pool_weights(self.pool, chunks).mean(1, keepdim=True)


class TransformerAggregator(nn.Module):
    """Blocks of self-attention among the cells of a sample, then their mean.

    The paper sums; the mean is that sum over the number of cells, so that samples of different sizes compare.

    Parameters
    ----------
    width, n_heads, n_layers, dropout_rate
        As for :class:`~scset_tools.nn.TransformerBlock`, and the number of blocks.
    """

    def __init__(self, width: int, *, n_heads: int, n_layers: int, dropout_rate: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerBlock(width, n_heads, dropout_rate=dropout_rate) for _ in range(n_layers)
        )
        self.pool = MeanPool()

    def forward(self, h: Tensor, ptr: Tensor, empty: Tensor | None = None) -> Tensor:
        """One vector per sample, (samples, width)."""
        for layer in self.layers:
            h = layer(h, ptr)
        return self.pool(h, ptr)[0]

    def weights(self, h: Tensor, ptr: Tensor) -> Tensor:
        """Weight of each cell in the mean, (cells, 1)."""
        return self.pool(h, ptr)[1]

    def in_pieces(self, chunks: Chunks, empty: Tensor | None = None) -> Tensor:
        """The vector of one sample, (1, width). Every cell meets every other: hidden states of the whole sample are held."""
        h = torch.cat(list(chunks()))
        return self(h, ptr_from_sizes([len(h)]))

    def weights_in_pieces(self, chunks: Chunks) -> Tensor:
        """The weights of one sample, (cells, 1)."""
        return stream_pool_weights(self.pool, chunks)


class SetTransformerAggregator(nn.Module):
    """Set Transformer: ISAB blocks, and pooling by attention (PMA) with one seed.

    Parameters
    ----------
    width, n_heads, n_layers, n_inducing, dropout_rate
        As for :class:`~scset_tools.nn.SetEncoder`.
    """

    def __init__(self, width: int, *, n_heads: int, n_layers: int, n_inducing: int, dropout_rate: float) -> None:
        super().__init__()
        self.encoder = SetEncoder(
            width,
            width,
            width,
            n_layers=n_layers,
            n_heads=n_heads,
            n_inducing=n_inducing,
            dropout_rate=dropout_rate,
        )

    def forward(self, h: Tensor, ptr: Tensor, empty: Tensor | None = None) -> Tensor:
        """One vector per sample, (samples, width)."""
        return self.encoder(h, ptr)

    def weights(self, h: Tensor, ptr: Tensor) -> Tensor:
        """Weight of each cell in the pooling, (cells, n_heads)."""
        return self.encoder.get_attention(h, ptr)

    def in_pieces(self, chunks: Chunks, empty: Tensor | None = None) -> Tensor:
        """The vector of one sample of any size in bounded memory, (1, width)."""
        return stream_embed(self.encoder, chunks)

    def weights_in_pieces(self, chunks: Chunks) -> Tensor:
        """The weights of one sample of any size, (cells, n_heads)."""
        return stream_attention(self.encoder, chunks)


POOLS: dict[str, Callable[[int], Pool]] = {
    "mean": lambda width: MeanPool(),
    "sum": lambda width: SumPool(),
    "linear_attention": LinearAttentionPool,
    "feature_softmax": lambda width: FeatureSoftmaxPool(),
    "attention": NonLinearAttentionPool,
    "gated_attention": lambda width: GatedAttentionPool(width, n_hidden=width, is_gate_scalar=True),
    "abmil": lambda width: GatedAttentionPool(width, n_hidden=width),
}
AGGREGATORS = (*POOLS, "transformer", "set_transformer")


def make_aggregator(
    name: str, width: int, *, n_heads: int, n_layers: int, n_inducing: int, dropout_rate: float, n_slots: int | None
) -> nn.Module:
    """The aggregator of a name in ``AGGREGATORS``.

    Parameters
    ----------
    name
        One of ``AGGREGATORS``.
    width
        Width of the hidden states.
    n_heads, n_layers, n_inducing, dropout_rate
        Of the transformers.
    n_slots
        See :class:`PoolAggregator`.
    """
    if name == "transformer":
        return TransformerAggregator(width, n_heads=n_heads, n_layers=n_layers, dropout_rate=dropout_rate)
    if name == "set_transformer":
        return SetTransformerAggregator(
            width, n_heads=n_heads, n_layers=n_layers, n_inducing=n_inducing, dropout_rate=dropout_rate
        )
    pool = POOLS[name](width)
    # attention that begins somewhere else in every run ends somewhere else: attributions of seeds would not agree
    pool.start_even()
    return PoolAggregator(pool, n_slots)

"""Embed one sample of any size in bounded memory: attention over a stream of cells.

The inducing points and the pooling seed see the whole sample only through a softmax over its cells, and a softmax can
be summed block by block with a running maximum. A set encoder of ``n`` layers therefore needs ``n + 1`` passes over the
cells. What a pass needs of a cell is its hidden state under the layers so far: kept for the first cells, up to a fixed
size, and recomputed from the input for the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F

from scset_tools.nn._memory import rows_at_once
from scset_tools.nn._ragged import accumulation_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from scset_tools.nn._attention import MAB
    from scset_tools.nn._set_encoder import SetEncoder

__all__ = ["stream_attention", "stream_embed"]

# Rows handled at once on a CPU: large enough for fast products, small enough that the rows of a block stay in cache between
# the operations of a layer. Fixed, so that the result does not depend on how the caller cuts the cells.
_BLOCK = 2048


def stream_embed(
    encoder: SetEncoder,
    chunks: Callable[[], Iterable[torch.Tensor]],
    *,
    cache_bytes: int = 128 * 2**20,
) -> torch.Tensor:
    """Embed one sample without ever holding all of its cells.

    The result is that of ``encoder(x)`` in evaluation mode, up to rounding, and bit for bit the same however the cells
    are cut into chunks. No gradient, no dropout. Under autocast the products are in half precision; what adds up over cells is in
    single precision or better.

    Parameters
    ----------
    encoder
        A :class:`SetEncoder`.
    chunks
        Called without arguments, once per layer and once for the pooling at most; each call returns a fresh iterator
        over the cells of the sample, always in the same order, as floating point tensors of shape (n_i, n_input).
    cache_bytes
        Size up to which hidden states are kept between passes, those of the first cells. A sample that fits costs one
        evaluation per layer and cell; beyond it cells are recomputed from the input in every pass.

    Returns
    -------
    Shape (1, n_latent). A stream without cells gives the embedding of an empty sample.
    """
    with torch.no_grad():
        stream = _Stream(encoder, chunks, cache_bytes)
        pooled = _gather(encoder.pool.mab, encoder.pool.seeds, stream.blocks())
        return encoder.project(pooled)


def stream_attention(
    encoder: SetEncoder,
    chunks: Callable[[], Iterable[torch.Tensor]],
    *,
    cache_bytes: int = 128 * 2**20,
) -> torch.Tensor:
    """Weight of every cell in the pooling step of one sample, as ``encoder.get_attention(x)``, in bounded memory.

    Parameters
    ----------
    encoder, chunks, cache_bytes
        As for :func:`stream_embed`.

    Returns
    -------
    Shape (cells, n_heads), in the order of the stream; each column sums to one.
    """
    with torch.no_grad():
        stream = _Stream(encoder, chunks, cache_bytes)
        attention, seeds = encoder.pool.mab.attention, encoder.pool.seeds
        queries = attention.fold_queries(seeds)
        scores = [_wide(block @ queries.T) for block in stream.blocks()]  # (n_i, n_heads)
        return torch.cat(scores or [queries.new_zeros(0, attention.n_heads)]).softmax(0)


class _Stream:
    """The cells of a sample under all layers, block by block; building it runs the passes of the layers."""

    def __init__(self, encoder: SetEncoder, chunks: Callable[[], Iterable[torch.Tensor]], cache_bytes: int) -> None:
        self._encoder = encoder
        self._chunks = chunks
        weight = cast("torch.Tensor", encoder.lift.weight)
        self._n_rows = block_rows(encoder)
        self._n_cached = max(cache_bytes, 0) // (self._n_rows * weight.shape[0] * weight.element_size())  # blocks
        self._cache: list[torch.Tensor] = []
        self._is_complete = False  # the cache holds every cell
        self._spreads: list[_Spread] = []
        for layer in encoder.blocks:
            induced = _gather(layer.gather, layer.inducing, self.blocks())
            self._spreads.append(_Spread(layer.spread, induced))

    def blocks(self) -> Iterator[torch.Tensor]:
        """Hidden states (n_i, d) after the layers known so far; call it once after each new layer."""
        for index, block in enumerate(self._cache):
            if self._spreads:
                self._cache[index] = self._spreads[-1](block)
            yield self._cache[index]
        if self._is_complete:
            return
        skip, n_blocks = len(self._cache), 0
        for n_blocks, cells in enumerate(_cut(self._chunks(), self._encoder.lift.weight, self._n_rows), start=1):
            if n_blocks <= skip:
                continue
            hidden = self._encoder.lift(cells).to(cells.dtype)
            for spread in self._spreads:
                hidden = spread(hidden)
            if not self._spreads and len(self._cache) < self._n_cached:
                self._cache.append(hidden)
            yield hidden
        self._is_complete = n_blocks == len(self._cache)


class _Spread:
    """The second half of an ISAB, cells reading a fixed induced set, on blocks that it may overwrite."""

    def __init__(self, mab: MAB, induced: torch.Tensor) -> None:
        self._mab = mab
        attention = mab.attention
        self._is_folded = _is_folding_cheaper(mab, len(induced))
        if self._is_folded:
            self._keys, self._values = attention.fold_keys(induced)  # (h * m, d)
        else:
            self._keys = _split_heads(attention.key(induced), attention.n_heads)  # (h, m, e)
            self._values = _split_heads(attention.value(induced), attention.n_heads)

    def __call__(self, cells: torch.Tensor) -> torch.Tensor:
        mab, attention = self._mab, self._mab.attention
        if self._is_folded:
            scores = (cells @ self._keys.T).unflatten(-1, (attention.n_heads, -1))  # (n, h, m)
            summed = _added(cells, scores.softmax(-1).flatten(1), self._values)
        else:
            queries = _split_heads(attention.query(cells), attention.n_heads)  # (h, n, e)
            heads = F.scaled_dot_product_attention(queries[None], self._keys[None], self._values[None])[0]
            summed = _added(cells, heads.transpose(0, 1).flatten(1), attention.output.weight.T)
        hidden = mab.norm_attention(summed)
        gate, value = mab.feed_forward.gate_and_value(hidden).chunk(2, -1)
        return mab.norm_output(_added(hidden, F.silu(gate).mul_(value), mab.feed_forward.output.weight.T)).to(
            cells.dtype
        )


def _gather(mab: MAB, tokens: torch.Tensor, blocks: Iterable[torch.Tensor]) -> torch.Tensor:
    """``MAB(tokens, cells)`` for tokens (m, d) and a stream of cells: (m, d)."""
    attention = mab.attention
    is_folded = _is_folding_cheaper(mab, len(tokens))
    if is_folded:
        queries = attention.fold_queries(tokens)[None]  # (1, h * m, d)
    else:
        queries = _split_heads(attention.query(tokens), attention.n_heads) * attention.scale  # (h, m, e)
    top = _wide(queries.new_full((*queries.shape[:2], 1), -torch.inf))
    total = torch.zeros_like(top, dtype=torch.float64)
    pooled = torch.zeros_like(queries, dtype=torch.float64)
    for block in blocks:
        keys = block[None] if is_folded else _split_heads(attention.key(block), attention.n_heads)
        values = block[None] if is_folded else _split_heads(attention.value(block), attention.n_heads)
        scores = _wide(queries @ keys.mT)  # (1, h * m, n) or (h, m, n)
        new_top = torch.maximum(top, scores.amax(-1, keepdim=True))
        shrink = (top - new_top).double().exp()
        weights = scores.sub_(new_top).exp_()
        total.mul_(shrink).add_(weights.sum(-1, keepdim=True))
        pooled.mul_(shrink).add_(weights @ values)
        top = new_top
    # Without any cell the total is zero, and attention over nothing is zero.
    pooled = (pooled / total.masked_fill(total == 0, 1)).to(tokens.dtype)
    if is_folded:
        attended = attention.unfold_values(pooled[0])
    else:
        attended = attention.output(pooled.transpose(0, 1).flatten(1))
    hidden = mab.norm_attention(tokens + attended)
    return mab.norm_output(hidden + mab.feed_forward(hidden))


def block_rows(encoder: SetEncoder) -> int:
    """Rows handled at once: of what a layer makes of a cell, half a dozen times its hidden state, and its scores.

    Parameters
    ----------
    encoder
        The encoder.
    """
    attention = encoder.pool.mab.attention
    n_scores = attention.n_heads * max((len(layer.inducing) for layer in encoder.blocks), default=1)
    weight = encoder.project.weight
    return rows_at_once(weight.device, 4 * (8 * weight.shape[1] + 2 * n_scores), on_cpu=_BLOCK)


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x.to(accumulation_dtype(x))


def _added(rows: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``rows + a @ b``, written over the rows unless the product is in another precision than they."""
    return rows + a @ b if torch.is_autocast_enabled(rows.device.type) else rows.addmm_(a, b)


def _split_heads(rows: torch.Tensor, n_heads: int) -> torch.Tensor:
    """Rows (n, h * e) as (h, n, e)."""
    return rows.unflatten(-1, (n_heads, -1)).transpose(0, 1)


def _is_folding_cheaper(mab: MAB, n_tokens: int) -> bool:
    """Whether scores at full width for every head cost less per cell than projecting the cell."""
    n_heads, dim = mab.attention.n_heads, mab.attention.key.in_features
    return n_heads * n_tokens <= dim + n_tokens


def _cut(chunks: Iterable[torch.Tensor], like: torch.Tensor, n_rows: int) -> Iterator[torch.Tensor]:
    """The rows of all chunks in blocks of ``n_rows``, the last one shorter, with dtype and device of ``like``."""
    held: list[torch.Tensor] = []
    n_held = 0
    for chunk in chunks:
        if chunk.ndim != 2 or chunk.shape[1] != like.shape[1]:
            raise ValueError(f"Every chunk must have shape (cells, {like.shape[1]}), found {tuple(chunk.shape)}.")
        start = 0
        while start < len(chunk):
            part = chunk[start : start + n_rows - n_held]
            start += len(part)
            n_held += len(part)
            held.append(part)
            if n_held == n_rows:
                yield (part if len(held) == 1 else torch.cat(held)).to(like)
                held, n_held = [], 0
    if held:
        yield torch.cat(held).to(like)

"""Attention blocks over sets of cells: MAB, SAB, ISAB and PMA (MAESTRO section 3.1, eq. 1-7).

Every block takes a ragged batch (rows of all samples and ``ptr``) or a dense one (samples, slots, width), with the
same result. Two exact rewritings keep the cost per cell low, chosen by counting multiplications:

- few queries, many keys (inducing points, seeds): ``Q_h (S W_K)^T = (Q_h W_K^T) S^T`` and ``A (S W_V) = (A S) W_V``,
  so no cell is ever projected to a key or a value;
- many queries, few keys (cells reading the induced set): the same on the other side, so no cell is ever projected to
  a query, and ``A (V W_O)`` takes the place of the output projection.

Legend of the comments: b samples, n cells or queries, m inducing points, seeds or keys, h heads, e width of a head,
d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from ._ragged import _accumulation_dtype, _check_ptr, from_padded, ptr_from_sizes, segment_softmax, to_padded

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ISAB", "MAB", "PMA", "SAB"]


@dataclass(frozen=True)
class _Sets:
    """How packed rows fall into samples, read from the device once per forward pass."""

    sizes: list[int]
    # "uniform": all sizes equal, one batched call. "loop": one call per sample. "padded": one call on padded rows.
    layout: str

    @classmethod
    def of(cls, sizes: list[int], device: torch.device, layout: str | None = None) -> _Sets:
        if layout is None:
            ragged = "padded" if device.type == "cuda" else "loop"
            layout = "uniform" if len(set(sizes)) <= 1 else ragged
        return cls(sizes, layout)

    @property
    def is_uniform(self) -> bool:
        return len(set(self.sizes)) <= 1

    def dense(self, rows: torch.Tensor) -> torch.Tensor:
        """View packed rows as (samples, size, ...); only for uniform sizes."""
        size = self.sizes[0] if self.sizes else 0
        return rows.reshape(len(self.sizes), size, *rows.shape[1:])


def _pack(
    x: torch.Tensor,
    ptr: torch.Tensor | None,
    is_real: torch.Tensor | None,
    *,
    layout: str | None = None,
) -> tuple[torch.Tensor, _Sets]:
    """Rows and sets of either spelling of a batch: (cells, d) with ``ptr``, or (samples, slots, d) with ``is_real``."""
    if x.ndim == 2 and is_real is None:
        counts = [len(x)] if ptr is None else _check_ptr(x, ptr)
    elif x.ndim == 3 and ptr is None:
        counts = [x.shape[1]] * x.shape[0] if is_real is None else is_real.sum(1).tolist()
        x = x.flatten(0, 1) if is_real is None else from_padded(x, is_real)[0]
    else:
        raise ValueError(
            f"Expected x of shape (cells, dim) with `ptr`, or (samples, slots, dim) with `is_real`, found shape "
            f"{tuple(x.shape)} with ptr={'None' if ptr is None else 'given'}, "
            f"is_real={'None' if is_real is None else 'given'}."
        )
    return x, _Sets.of(counts, x.device, layout)


def _pack_weight(log_weight: torch.Tensor | None, x: torch.Tensor, is_real: torch.Tensor | None) -> torch.Tensor | None:
    """The log multiplicities of the rows that ``_pack`` returns, shape (cells,)."""
    if log_weight is None:
        return None
    if log_weight.shape != x.shape[:-1]:
        raise ValueError(
            f"`log_weight` must have one entry per key, shape {tuple(x.shape[:-1])}, found {tuple(log_weight.shape)}."
        )
    return log_weight.flatten() if is_real is None else log_weight[is_real]


def _unpack(rows: torch.Tensor, x: torch.Tensor, is_real: torch.Tensor | None) -> torch.Tensor:
    """Rows back in the spelling in which ``x`` came; slots that are not real hold zeros."""
    if is_real is None:
        return rows.view(*x.shape[:-1], rows.shape[-1])
    return rows.new_zeros(*is_real.shape, rows.shape[-1]).masked_scatter(is_real[..., None], rows)


class _MultiHeadAttention(nn.Module):
    """Multi-head attention with output projection, without biases (MAESTRO eq. 1-2).

    Attention over an empty set of keys is zero.
    """

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        if n_heads < 1 or dim % n_heads:
            raise ValueError(f"`n_heads` ({n_heads}) must divide the width ({dim}).")
        self.n_heads = n_heads
        self.scale = (dim // n_heads) ** -0.5
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)

    def forward(
        self,
        x: torch.Tensor,
        x_sets: _Sets | None,
        y: torch.Tensor,
        y_sets: _Sets,
        log_weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Rows of ``x`` attend to the rows of ``y`` of the same sample; -> one row per query.

        ``x_sets`` None means that every sample asks the same queries ``x`` (m, d); -> (b * m, d).
        """
        d, h = x.shape[-1], self.n_heads
        n_samples, n_keys = len(y_sets.sizes), sum(y_sets.sizes)
        n_queries = n_samples * len(x) if x_sets is None else sum(x_sets.sizes)
        if x_sets is None:
            n_pairs = len(x) * n_keys
        else:
            n_pairs = sum(a * b for a, b in zip(x_sets.sizes, y_sets.sizes, strict=True))
        plain = 2 * d * d * (n_queries + n_keys) + 2 * d * n_pairs
        folded = 4 * d * d * min(n_queries, n_keys) + 2 * d * h * n_pairs
        if folded <= plain:
            if n_queries <= n_keys and (x_sets is None or x_sets.is_uniform):
                return self._few_queries(x, x_sets, y, y_sets, log_weight)
            if n_keys <= n_queries and x_sets is not None and y_sets.is_uniform:
                return self._few_keys(x, x_sets, y, y_sets, log_weight)
        if x_sets is None:
            x_sets = _Sets.of([len(x)] * n_samples, x.device)
            x = x.expand(n_samples, *x.shape).flatten(0, 1)
        return self._plain(x, x_sets, y, y_sets, log_weight)

    def fold_queries(self, x: torch.Tensor) -> torch.Tensor:
        """Queries (..., m, d) carried through W_Q and back through W_K: (..., h * m, d), scaled, to meet raw cells."""
        q = self.query(x).unflatten(-1, (self.n_heads, -1)).transpose(-2, -3)  # (..., h, m, e)
        return (q @ _heads(self.key.weight, self.n_heads) * self.scale).flatten(-3, -2)

    def fold_keys(self, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of (..., m, d) that raw queries can meet, each (..., h * m, d): W_Q and W_O are inside."""
        k = self.key(y).unflatten(-1, (self.n_heads, -1)).transpose(-2, -3)  # (..., h, m, e)
        v = self.value(y).unflatten(-1, (self.n_heads, -1)).transpose(-2, -3)
        keys = k @ _heads(self.query.weight, self.n_heads) * self.scale
        values = v @ _heads(self.output.weight.T, self.n_heads)
        return keys.flatten(-3, -2), values.flatten(-3, -2)

    def unfold_values(self, pooled: torch.Tensor) -> torch.Tensor:
        """Averages of raw cells (..., h * m, d), one per head and query, through W_V and W_O: (..., m, d)."""
        w = _heads(self.value.weight, self.n_heads).transpose(-1, -2)  # (h, d, e)
        heads = pooled.unflatten(-2, (self.n_heads, -1)) @ w  # (..., h, m, e)
        return self.output(heads.transpose(-2, -3).flatten(-2))

    def scores(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Scaled scores of every row of ``y`` (n, d) for the shared queries ``x`` (m, d): (n, h, m)."""
        return (y @ self.fold_queries(x).T).unflatten(-1, (self.n_heads, len(x)))

    def _few_queries(
        self, x: torch.Tensor, x_sets: _Sets | None, y: torch.Tensor, y_sets: _Sets, log_weight: torch.Tensor | None
    ) -> torch.Tensor:
        folded = self.fold_queries(x if x_sets is None else x_sets.dense(x))  # (h*m, d) or (b, h*m, d)

        def pool(queries: torch.Tensor, cells: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            scores = queries @ cells.mT  # (b, h*m, n)
            return _softmax(scores if bias is None else scores + bias[:, None], cells.dtype) @ cells

        queries = folded.expand(len(y_sets.sizes), -1, -1)
        pooled = _over_keys(pool, queries, y, y_sets, log_weight)  # (b, h*m, d)
        return self.unfold_values(pooled).flatten(0, 1)

    def _few_keys(
        self, x: torch.Tensor, x_sets: _Sets, y: torch.Tensor, y_sets: _Sets, log_weight: torch.Tensor | None
    ) -> torch.Tensor:
        keys, values = self.fold_keys(y_sets.dense(y))  # (b, h*m, d)
        bias = None if log_weight is None else y_sets.dense(log_weight)  # (b, m)

        def read(
            cells: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None
        ) -> torch.Tensor:
            scores = (cells @ keys.mT).unflatten(-1, (self.n_heads, -1))  # (b, n, h, m)
            weights = _softmax(scores if bias is None else scores + bias[:, None, None], cells.dtype)
            return weights.flatten(-2) @ values

        if x_sets.layout == "uniform":
            return read(x_sets.dense(x), keys, values, bias).flatten(0, 1)
        if x_sets.layout == "padded":
            dense, is_real = to_padded(x, ptr_from_sizes(x_sets.sizes).to(x.device))
            return read(dense, keys, values, bias)[is_real]
        return torch.cat(
            [
                read(part[None], keys[i : i + 1], values[i : i + 1], None if bias is None else bias[i : i + 1])[0]
                for i, part in enumerate(x.split(x_sets.sizes))
            ]
        )

    def _plain(
        self, x: torch.Tensor, x_sets: _Sets, y: torch.Tensor, y_sets: _Sets, log_weight: torch.Tensor | None
    ) -> torch.Tensor:
        q, kv = self.query(x), torch.cat([self.key(y), self.value(y)], -1)

        def attend(queries: torch.Tensor, cells: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            if cells.shape[1] == 0:
                return torch.zeros_like(queries)
            k, v = cells.chunk(2, -1)
            split = [t.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for t in (queries, k, v)]  # (b, h, n, e)
            bias = None if bias is None else bias[:, None, None].to(queries.dtype)
            return F.scaled_dot_product_attention(*split, attn_mask=bias).transpose(1, 2).flatten(-2)

        if x_sets.is_uniform:
            heads = _over_keys(attend, x_sets.dense(q), kv, y_sets, log_weight).flatten(0, 1)
        elif x_sets.layout == "padded":
            dense, is_real = to_padded(q, ptr_from_sizes(x_sets.sizes).to(q.device))
            heads = _over_keys(attend, dense, kv, _Sets.of(y_sets.sizes, q.device, "padded"), log_weight)[is_real]
        else:
            weights = [None] * len(y_sets.sizes) if log_weight is None else log_weight.split(y_sets.sizes)
            parts = zip(q.split(x_sets.sizes), kv.split(y_sets.sizes), weights, strict=True)
            heads = torch.cat([attend(a[None], b[None], None if w is None else w[None])[0] for a, b, w in parts])
        return self.output(heads)


def _over_keys(
    attend: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor],
    queries: torch.Tensor,
    y: torch.Tensor,
    sets: _Sets,
    log_weight: torch.Tensor | None,
) -> torch.Tensor:
    """Call ``attend(queries (b, m, d), keys (b, n, d), bias (b, n))`` on ragged keys in the layout of ``sets``."""
    if sets.layout == "uniform":
        return attend(queries, sets.dense(y), None if log_weight is None else sets.dense(log_weight))
    if sets.layout == "padded":
        ptr = ptr_from_sizes(sets.sizes).to(y.device)
        dense, is_real = to_padded(y, ptr)
        bias = torch.zeros(is_real.shape, device=y.device) if log_weight is None else to_padded(log_weight, ptr)[0]
        # An empty sample keeps one zero row as its only key: its value is zero, and no row of the softmax is empty.
        is_key = is_real | ~is_real.any(1, keepdim=True)
        return attend(queries, dense, bias.masked_fill(~is_key, -torch.inf))
    weights = [None] * len(sets.sizes) if log_weight is None else log_weight.split(sets.sizes)
    parts = zip(queries, y.split(sets.sizes), weights, strict=True)
    return torch.cat([attend(q[None], part[None], None if w is None else w[None]) for q, part, w in parts])


def _heads(weight: torch.Tensor, n_heads: int) -> torch.Tensor:
    """A weight (h * e, d) as (h, e, d)."""
    return weight.unflatten(0, (n_heads, -1))


def _softmax(scores: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Softmax over the last dimension in float32 or better, returned as ``dtype``."""
    return torch.softmax(scores, -1, dtype=_accumulation_dtype(scores)).to(dtype)


class _GatedProduct(torch.autograd.Function):
    """``(silu(gate) * value) W3^T`` that keeps only its input for the backward pass.

    The plain operations would keep ``silu(gate)`` and the product as well, half as much again as everything else a
    block keeps per cell, and join the two halves of the gradient by a copy.
    """

    @staticmethod
    def forward(gate_and_value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        gate, value = gate_and_value.chunk(2, -1)
        return F.silu(gate).mul_(value) @ weight.T

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, torch.Tensor], output: torch.Tensor) -> None:
        del output  # recomputed from the inputs
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate_and_value, weight = ctx.saved_tensors
        gate, value = gate_and_value.chunk(2, -1)
        result = torch.empty_like(gate_and_value)
        to_gate, to_value = result.chunk(2, -1)
        inner = gradient @ weight
        opened = F.silu(gate)
        torch.mul(inner, opened, out=to_value)
        torch.ops.aten.silu_backward.grad_input(inner.mul_(value), gate, grad_input=to_gate)
        return result, gradient.T @ opened.mul_(value)


class _SwiGLU(nn.Module):
    """Feed-forward ``W3 (silu(W1 x) * W2 x)`` without biases, on rows (n, d)."""

    def __init__(self, dim: int, n_ff: int) -> None:
        super().__init__()
        self.gate_and_value = nn.Linear(dim, 2 * n_ff, bias=False)  # W1 and W2 in one product
        self.output = nn.Linear(n_ff, dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.gate_and_value(x)
        return _GatedProduct.apply(inner, self.output.weight.to(inner.dtype))  # autocast decides the dtype of inner


class MAB(nn.Module):
    """Multi-head attention block: the queries ``x`` read the set ``y`` (MAESTRO eq. 3-4).

    ``H = LayerNorm(x + MHA(x, y, y))``, ``MAB(x, y) = LayerNorm(H + FF(H))``, with ``FF`` a SwiGLU layer. The linear
    maps have no biases, so attention over an empty ``y`` adds zero and the result stays finite.

    Parameters
    ----------
    dim
        Width of queries, keys and result; a multiple of ``n_heads``.
    n_heads
        Number of attention heads.
    n_ff
        Inner width of the feed-forward layer; ``2 * dim`` by default.
    dropout_rate
        Dropout on the two branches that are added to the residual stream.
    """

    def __init__(self, dim: int, n_heads: int = 4, *, n_ff: int | None = None, dropout_rate: float = 0.0) -> None:
        super().__init__()
        self.attention = _MultiHeadAttention(dim, n_heads)
        self.feed_forward = _SwiGLU(dim, 2 * dim if n_ff is None else n_ff)
        self.norm_attention = nn.LayerNorm(dim)
        self.norm_output = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout_rate)

    def forward(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        ptr: torch.Tensor | None = None,
        *,
        y_ptr: torch.Tensor | None = None,
        is_real: torch.Tensor | None = None,
        y_is_real: torch.Tensor | None = None,
        log_weight: torch.Tensor | None = None,
        _layout: str | None = None,
    ) -> torch.Tensor:
        """Let each row of ``x`` attend to the rows of ``y`` of its own sample.

        Parameters
        ----------
        x
            Queries: (cells, dim) with ``ptr``, or (samples, slots, dim) with ``is_real``. Without ``ptr``, two
            dimensions are one sample.
        y
            Keys, in either spelling, not necessarily that of ``x``; as many samples as ``x``.
        ptr, y_ptr
            Boundaries of ragged ``x`` and ``y``, shape (samples + 1,).
        is_real, y_is_real
            True where a slot of dense ``x`` or ``y`` holds a cell, shape (samples, slots); all of them by default.
        log_weight
            Log multiplicity of each key, the shape of ``y`` without its last dimension: a key with ``log(k)`` counts
            as ``k`` equal keys, exactly. Finite numbers.

        Returns
        -------
        Shape of ``x``. Slots that are not real hold zeros.
        """
        x_rows, x_sets = _pack(x, ptr, is_real, layout=_layout)
        y_rows, y_sets = _pack(y, y_ptr, y_is_real, layout=_layout)
        if len(x_sets.sizes) != len(y_sets.sizes):
            raise ValueError(
                f"`x` and `y` must hold the same samples, found {len(x_sets.sizes)} in x and {len(y_sets.sizes)} in y."
            )
        rows = self._forward(x_rows, x_sets, y_rows, y_sets, _pack_weight(log_weight, y, y_is_real))
        return _unpack(rows, x, is_real)

    def _forward(
        self, x: torch.Tensor, x_sets: _Sets | None, y: torch.Tensor, y_sets: _Sets, log_weight: torch.Tensor | None
    ) -> torch.Tensor:
        attended = self.dropout(self.attention(x, x_sets, y, y_sets, log_weight))
        if x_sets is None:  # the same queries for every sample
            x = x.expand(len(y_sets.sizes), *x.shape).flatten(0, 1)
        return self._finish(x + attended)

    def _finish(self, summed: torch.Tensor) -> torch.Tensor:
        hidden = self.norm_attention(summed)
        return self.norm_output(hidden + self.dropout(self.feed_forward(hidden)))


class SAB(nn.Module):
    """Self-attention block, ``MAB(x, x)`` (MAESTRO eq. 7): quadratic in the number of cells of a sample.

    Parameters
    ----------
    dim, n_heads, n_ff, dropout_rate
        As for :class:`MAB`.
    """

    def __init__(self, dim: int, n_heads: int = 4, *, n_ff: int | None = None, dropout_rate: float = 0.0) -> None:
        super().__init__()
        self.mab = MAB(dim, n_heads, n_ff=n_ff, dropout_rate=dropout_rate)

    def forward(
        self,
        x: torch.Tensor,
        ptr: torch.Tensor | None = None,
        *,
        is_real: torch.Tensor | None = None,
        log_weight: torch.Tensor | None = None,
        _layout: str | None = None,
    ) -> torch.Tensor:
        """Let the cells of each sample attend to each other.

        Parameters
        ----------
        x
            (cells, dim) with ``ptr``, or (samples, slots, dim) with ``is_real``.
        ptr
            Boundaries, shape (samples + 1,).
        is_real
            True where a slot holds a cell, shape (samples, slots).
        log_weight
            Log multiplicity of each cell as a key, the shape of ``x`` without its last dimension.

        Returns
        -------
        Shape of ``x``, permuted like the cells of ``x``.
        """
        rows, sets = _pack(x, ptr, is_real, layout=_layout)
        rows = self.mab._forward(rows, sets, rows, sets, _pack_weight(log_weight, x, is_real))
        return _unpack(rows, x, is_real)


class ISAB(nn.Module):
    """Induced set-attention block, ``MAB(x, H)`` with ``H = MAB(I, x)`` (MAESTRO eq. 5): linear in the cells.

    Parameters
    ----------
    dim, n_heads, n_ff, dropout_rate
        As for :class:`MAB`.
    n_inducing
        Number of learnable inducing points ``I``.
    """

    def __init__(
        self,
        dim: int,
        n_heads: int = 4,
        *,
        n_inducing: int = 32,
        n_ff: int | None = None,
        dropout_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.inducing = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_inducing, dim)))
        self.gather = MAB(dim, n_heads, n_ff=n_ff, dropout_rate=dropout_rate)
        self.spread = MAB(dim, n_heads, n_ff=n_ff, dropout_rate=dropout_rate)

    def forward(
        self,
        x: torch.Tensor,
        ptr: torch.Tensor | None = None,
        *,
        is_real: torch.Tensor | None = None,
        log_weight: torch.Tensor | None = None,
        _layout: str | None = None,
    ) -> torch.Tensor:
        """Let the cells of each sample exchange information through the inducing points.

        Parameters
        ----------
        x
            (cells, dim) with ``ptr``, or (samples, slots, dim) with ``is_real``.
        ptr
            Boundaries, shape (samples + 1,).
        is_real
            True where a slot holds a cell, shape (samples, slots).
        log_weight
            Log multiplicity of each cell, the shape of ``x`` without its last dimension: ``k`` equal cells can be
            given once with ``log(k)``, exactly.

        Returns
        -------
        Shape of ``x``, permuted like the cells of ``x``.
        """
        rows, sets = _pack(x, ptr, is_real, layout=_layout)
        rows = self._forward(rows, sets, _pack_weight(log_weight, x, is_real))
        return _unpack(rows, x, is_real)

    def _forward(self, x: torch.Tensor, sets: _Sets, log_weight: torch.Tensor | None) -> torch.Tensor:
        induced = self.gather._forward(self.inducing, None, x, sets, log_weight)  # (b * m, d)
        induced_sets = _Sets.of([len(self.inducing)] * len(sets.sizes), x.device)
        return self.spread._forward(x, sets, induced, induced_sets, None)


class PMA(nn.Module):
    """Pooling by multi-head attention, ``MAB(seeds, x)`` with learnable seeds (MAESTRO eq. 6).

    An empty sample gives the finite value that follows from attention adding zero: the same vector for every empty
    sample, a function of the weights alone.

    Parameters
    ----------
    dim, n_heads, n_ff, dropout_rate
        As for :class:`MAB`.
    n_seeds
        Number of learnable seeds, hence of vectors per sample.
    """

    def __init__(
        self,
        dim: int,
        n_heads: int = 4,
        *,
        n_seeds: int = 1,
        n_ff: int | None = None,
        dropout_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.seeds = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_seeds, dim)))
        self.mab = MAB(dim, n_heads, n_ff=n_ff, dropout_rate=dropout_rate)

    def forward(
        self,
        x: torch.Tensor,
        ptr: torch.Tensor | None = None,
        *,
        is_real: torch.Tensor | None = None,
        log_weight: torch.Tensor | None = None,
        _layout: str | None = None,
    ) -> torch.Tensor:
        """Pool the cells of each sample.

        Parameters
        ----------
        x
            (cells, dim) with ``ptr``, or (samples, slots, dim) with ``is_real``.
        ptr
            Boundaries, shape (samples + 1,).
        is_real
            True where a slot holds a cell, shape (samples, slots).
        log_weight
            Log multiplicity of each cell, the shape of ``x`` without its last dimension.

        Returns
        -------
        Shape (samples, n_seeds, dim), the same for any order of the cells.
        """
        rows, sets = _pack(x, ptr, is_real, layout=_layout)
        return self._forward(rows, sets, _pack_weight(log_weight, x, is_real))

    def _forward(self, x: torch.Tensor, sets: _Sets, log_weight: torch.Tensor | None) -> torch.Tensor:
        pooled = self.mab._forward(self.seeds, None, x, sets, log_weight)
        return pooled.view(len(sets.sizes), *self.seeds.shape)

    def get_attention(
        self, x: torch.Tensor, ptr: torch.Tensor | None = None, *, log_weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Weight of every cell in the pooling of its sample.

        Parameters
        ----------
        x
            Shape (cells, dim).
        ptr
            Boundaries, shape (samples + 1,); one sample by default.
        log_weight
            Log multiplicity of each cell, shape (cells,).

        Returns
        -------
        Shape (cells, n_heads, n_seeds). The weights of a sample sum to one; a row with ``log_weight`` ``log(k)``
        carries the weight of all its ``k`` cells.
        """
        rows, sets = _pack(x, ptr, None)
        bias = _pack_weight(log_weight, x, None)
        scores = self.mab.attention.scores(self.seeds, rows)
        scores = scores.to(_accumulation_dtype(scores))
        return segment_softmax(scores if bias is None else scores + bias[:, None, None], ptr_from_sizes(sets.sizes))

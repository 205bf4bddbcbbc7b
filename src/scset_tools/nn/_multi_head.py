"""Multi-head attention between sets (MAESTRO eq. 1-2), at the lower of two costs.

Two exact rewritings keep the cost per cell low, chosen by counting multiplications:

- few queries, many keys (inducing points, seeds): ``Q_h (S W_K)^T = (Q_h W_K^T) S^T`` and ``A (S W_V) = (A S) W_V``,
  so no cell is ever projected to a key or a value;
- many queries, few keys (cells reading the induced set): the same on the other side, so no cell is ever projected to
  a query, and ``A (V W_O)`` takes the place of the output projection.

Legend of the comments: b samples, n cells or queries, m inducing points, seeds or keys, h heads, e width of a head,
d width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from scset_tools.nn._packed import PackedSets
from scset_tools.nn._ragged import accumulation_dtype, compute_dtype
from scset_tools.nn._varlen import attend_packed, can_fuse

if TYPE_CHECKING:
    from collections.abc import Callable


class MultiHeadAttention(nn.Module):
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
        y: torch.Tensor,
        *,
        x_sets: PackedSets | None,
        y_sets: PackedSets,
        log_weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Rows of ``x`` attend to the rows of ``y`` of the same sample; -> one row per query.

        ``x_sets`` None means that every sample asks the same queries ``x`` (m, d); -> (b * m, d).
        """
        d, h = x.shape[-1], self.n_heads
        of_x = PackedSets.of([len(x)] * len(y_sets.sizes), x.device) if x_sets is None else x_sets
        if can_fuse(compute_dtype(x), of_x, y_sets, dim_head=d // h, device=x.device):
            return self._fused(x, x_sets, of_x, y, y_sets, log_weight)
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
            x = x.expand(n_samples, *x.shape).flatten(0, 1)
        return self._plain(x, of_x, y, y_sets, log_weight)

    def _fused(
        self,
        x: torch.Tensor,
        x_sets: PackedSets | None,
        of_x: PackedSets,
        y: torch.Tensor,
        y_sets: PackedSets,
        log_weight: torch.Tensor | None,
    ) -> torch.Tensor:
        """Without any padding or matrix of scores: what projecting each cell costs more is less than these would."""
        q = self.query(x)
        if x_sets is None:
            q = q.expand(len(of_x.sizes), *q.shape).flatten(0, 1)
        q, k, v = (rows.unflatten(-1, (self.n_heads, -1)) for rows in (q, self.key(y), self.value(y)))
        return self.output(attend_packed(q, k, v, q_sets=of_x, k_sets=y_sets, log_weight=log_weight).flatten(-2))

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
        self,
        x: torch.Tensor,
        x_sets: PackedSets | None,
        y: torch.Tensor,
        y_sets: PackedSets,
        log_weight: torch.Tensor | None,
    ) -> torch.Tensor:
        folded = self.fold_queries(x if x_sets is None else x_sets.dense(x))  # (h*m, d) or (b, h*m, d)

        def pool(queries: torch.Tensor, cells: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            scores = queries @ cells.mT  # (b, h*m, n)
            return _softmax(scores if bias is None else scores + bias[:, None], cells.dtype) @ cells

        queries = folded.expand(len(y_sets.sizes), -1, -1)
        pooled = _over_keys(pool, queries, y, y_sets, log_weight)  # (b, h*m, d)
        return self.unfold_values(pooled).flatten(0, 1)

    def _few_keys(
        self, x: torch.Tensor, x_sets: PackedSets, y: torch.Tensor, y_sets: PackedSets, log_weight: torch.Tensor | None
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
        if x_sets.is_padded:
            return x_sets.from_padded(read(x_sets.to_padded(x)[0], keys, values, bias))
        n_samples, (rows,) = x_sets.runs()
        biases = [None] * len(n_samples) if bias is None else bias.split(n_samples)
        parts = zip(n_samples, x.split(rows), keys.split(n_samples), values.split(n_samples), biases, strict=True)
        return torch.cat([read(_in_sets(cells, n), k, v, w).flatten(0, 1) for n, cells, k, v, w in parts])

    def _plain(
        self, x: torch.Tensor, x_sets: PackedSets, y: torch.Tensor, y_sets: PackedSets, log_weight: torch.Tensor | None
    ) -> torch.Tensor:
        q, kv = self.query(x), torch.cat([self.key(y), self.value(y)], -1)

        def attend(queries: torch.Tensor, cells: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            if cells.shape[1] == 0:
                return torch.zeros_like(queries)
            k, v = cells.chunk(2, -1)
            q, k, v = (t.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for t in (queries, k, v))  # (b, h, n, e)
            bias = None if bias is None else bias[:, None, None].to(queries.dtype)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(-2)

        if x_sets.is_uniform:
            heads = _over_keys(attend, x_sets.dense(q), kv, y_sets, log_weight).flatten(0, 1)
        elif x_sets.is_padded:
            padded = PackedSets.of(y_sets.sizes, q.device, "padded")
            heads = x_sets.from_padded(_over_keys(attend, x_sets.to_padded(q)[0], kv, padded, log_weight))
        else:
            n_samples, (of_x, of_y) = x_sets.runs(y_sets)
            weights = [None] * len(n_samples) if log_weight is None else log_weight.split(of_y)
            parts = zip(n_samples, q.split(of_x), kv.split(of_y), weights, strict=True)
            heads = torch.cat(
                [
                    attend(_in_sets(a, n), _in_sets(b, n), None if w is None else w.view(n, len(w) // n)).flatten(0, 1)
                    for n, a, b, w in parts
                ]
            )
        return self.output(heads)


def _over_keys(
    attend: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor],
    queries: torch.Tensor,
    y: torch.Tensor,
    sets: PackedSets,
    log_weight: torch.Tensor | None,
) -> torch.Tensor:
    """Call ``attend(queries (b, m, d), keys (b, n, d), bias (b, n))`` on ragged keys in the layout of ``sets``."""
    if sets.layout == "uniform":
        return attend(queries, sets.dense(y), None if log_weight is None else sets.dense(log_weight))
    if sets.is_padded:
        dense, is_real = sets.to_padded(y)
        bias = torch.zeros(is_real.shape, device=y.device) if log_weight is None else sets.to_padded(log_weight)[0]
        # An empty sample keeps one zero row as its only key: its value is zero, and no row of the softmax is empty.
        is_key = is_real | ~is_real.any(1, keepdim=True)
        return attend(queries, dense, bias.masked_fill(~is_key, -torch.inf))
    n_samples, (rows,) = sets.runs()
    weights = [None] * len(n_samples) if log_weight is None else log_weight.split(rows)
    parts = zip(n_samples, queries.split(n_samples), y.split(rows), weights, strict=True)
    return torch.cat([attend(q, _in_sets(c, n), None if w is None else w.view(n, len(w) // n)) for n, q, c, w in parts])


def _in_sets(rows: torch.Tensor, n_samples: int) -> torch.Tensor:
    """Rows of samples of equal size as (n_samples, size, d)."""
    return rows.view(n_samples, len(rows) // n_samples, rows.shape[1])


def _heads(weight: torch.Tensor, n_heads: int) -> torch.Tensor:
    """A weight (h * e, d) as (h, e, d)."""
    return weight.unflatten(0, (n_heads, -1))


def _softmax(scores: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Softmax over the last dimension in float32 or better, returned as ``dtype``."""
    return torch.softmax(scores, -1, dtype=accumulation_dtype(scores)).to(dtype)

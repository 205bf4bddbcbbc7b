"""Transformer blocks over sets with a [CLS] token (ScSet eq. 7-8), exact for ragged sets.

Of the last block only the state of [CLS] is read. A single query meets the cells through weights folded into it
(``(W_Q c)_h (W_K x)_h = ((W_Q c)_h W_K,h) x``), so there no cell is projected, normalised or passed through a
feed-forward layer: a block that pools costs next to nothing beside one that mixes.

Legend of the comments: b samples, n cells, h heads, e width of a head, d width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from scset_tools.nn._multi_head import _over_keys, _softmax
from scset_tools.nn._packed import PackedSets, pack
from scset_tools.nn._ragged import accumulation_dtype, ptr_from_sizes, segment_softmax
from scset_tools.nn._varlen import attend_packed, can_fuse

__all__ = ["TransformerBlock", "TransformerEncoder", "TransformerPool"]


class TransformerBlock(nn.Module):
    """Post-norm transformer block over the cells of each sample (ScSet eq. 7-8).

    ``H = LayerNorm(x + MHSA(x))``, ``block(x) = LayerNorm(H + FFN(H))`` with ``FFN`` two linear layers around a GELU.
    The same function as :class:`torch.nn.TransformerEncoderLayer` with ``norm_first=False, activation="gelu"``, apart
    from dropout on single attention weights, which the fused kernels do not have on every device.

    Parameters
    ----------
    dim
        Width of the cells; a multiple of ``n_heads``.
    n_heads
        Number of attention heads.
    n_ff
        Inner width of the feed-forward layer; ``2 * dim`` by default (512 for the paper's 256).
    dropout_rate
        Dropout on what both branches add, and inside the feed-forward layer.
    """

    def __init__(self, dim: int, n_heads: int = 4, *, n_ff: int | None = None, dropout_rate: float = 0.0) -> None:
        super().__init__()
        if n_heads < 1 or dim % n_heads:
            raise ValueError(f"`n_heads` ({n_heads}) must divide the width ({dim}).")
        self.n_heads = n_heads
        n_ff = 2 * dim if n_ff is None else n_ff
        self.query_key_value = nn.Linear(dim, 3 * dim)
        nn.init.xavier_uniform_(self.query_key_value.weight)
        nn.init.zeros_(self.query_key_value.bias)
        self.output = nn.Linear(dim, dim)
        self.norm_attention = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, n_ff), nn.GELU(), nn.Dropout(dropout_rate), nn.Linear(n_ff, dim)
        )
        self.norm_output = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout_rate)

    def forward(
        self, x: torch.Tensor, ptr: torch.Tensor | None = None, *, is_real: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Let the cells of each sample attend to each other.

        Parameters
        ----------
        x
            (cells, dim) with ``ptr``, or (samples, slots, dim) with ``is_real``. Without ``ptr``, two dimensions are
            one sample.
        ptr
            Boundaries, shape (samples + 1,).
        is_real
            True where a slot holds a cell, shape (samples, slots).

        Returns
        -------
        Shape of ``x``, permuted like the cells of ``x``. Slots that are not real hold zeros.
        """
        rows, sets = pack(x, ptr, is_real)
        rows = self._mix(rows, sets)
        if is_real is None:
            return rows.view(x.shape)
        return rows.new_zeros(*is_real.shape, rows.shape[-1]).masked_scatter(is_real[..., None], rows)

    def _mix(self, rows: torch.Tensor, sets: PackedSets) -> torch.Tensor:
        """The block on packed rows, (n, d)."""
        return self._finish(rows, self.output(self._attend(self.query_key_value(rows), sets)))

    def _read(self, tokens: torch.Tensor, rows: torch.Tensor, sets: PackedSets) -> torch.Tensor:
        """The block for one token (b, d) of each sample, which is also one of the rows (n, d) of its sample; (b, d)."""

        def pool(queries: torch.Tensor, cells: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            scores = queries @ cells.mT  # (b, h, n)
            return _softmax(scores if bias is None else scores + bias[:, None], cells.dtype) @ cells

        _, _, value = self.query_key_value.weight.chunk(3)
        averages = _over_keys(pool, self._folded_queries(tokens), rows, sets, None)  # (b, h, d)
        # the weights sum to one, so the bias of the values passes through the average
        bias = self.query_key_value.bias.chunk(3)[2]
        heads = averages.unsqueeze(-2) @ value.unflatten(0, (self.n_heads, -1)).mT  # (b, h, 1, e)
        return self._finish(tokens, self.output(heads.flatten(1) + bias.to(heads.dtype)))

    def _scores(self, tokens: torch.Tensor, rows: torch.Tensor, sets: PackedSets) -> torch.Tensor:
        """Scores of the rows of each sample for its token, up to a constant per head and sample, (n, h)."""
        queries = self._folded_queries(tokens)
        parts = [r @ q.T for r, q in zip(rows.split(sets.sizes), queries, strict=True)]
        return torch.cat(parts) if parts else rows.new_zeros(0, self.n_heads)

    def _folded_queries(self, tokens: torch.Tensor) -> torch.Tensor:
        """Queries of tokens (b, d) carried back through W_K, scaled, to meet raw cells: (b, h, d)."""
        # the bias of the keys adds the same number to all scores of a query, which the softmax takes out
        query, key, _ = self.query_key_value.weight.chunk(3)
        q = F.linear(tokens, query, self.query_key_value.bias.chunk(3)[0]).unflatten(-1, (self.n_heads, 1, -1))
        folded = q @ key.unflatten(0, (self.n_heads, -1))  # (b, h, 1, d)
        return folded.squeeze(-2) * (tokens.shape[-1] // self.n_heads) ** -0.5

    def _attend(self, qkv: torch.Tensor, sets: PackedSets) -> torch.Tensor:
        """Self-attention within samples from packed (n, 3 * d) to (n, d)."""

        def attend(dense: torch.Tensor, is_key: torch.Tensor | None = None) -> torch.Tensor:
            q, k, v = dense.unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)  # each (b, h, n, e)
            mask = None if is_key is None else is_key[:, None, None]
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(-2)

        if not len(qkv):
            return qkv[:, : qkv.shape[1] // 3]
        if not sets.is_uniform and can_fuse(
            qkv.dtype, sets, sets, dim_head=qkv.shape[1] // 3 // self.n_heads, device=qkv.device
        ):
            q, k, v = qkv.unflatten(-1, (3, self.n_heads, -1)).unbind(1)
            return attend_packed(q, k, v, q_sets=sets, k_sets=sets).flatten(-2)
        if sets.is_padded and not sets.is_uniform:
            dense, is_real = sets.to_padded(qkv)
            # an empty sample attends to its padding, which nobody reads, so that no row of the softmax is empty
            return sets.from_padded(attend(dense, is_real | ~is_real.any(1, keepdim=True)))
        n_samples, (n_rows,) = sets.runs()
        parts = zip(n_samples, qkv.split(n_rows), strict=True)
        return torch.cat([attend(part.unflatten(0, (n, -1))).flatten(0, 1) for n, part in parts if len(part)])

    def _finish(self, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        hidden = self.norm_attention(x + self.dropout(attended))
        return self.norm_output(hidden + self.dropout(self.feed_forward(hidden)))


class TransformerPool(nn.Module):
    """``[CLS] + cells -> n_layers x transformer block -> state of [CLS]`` (ScSet section 3.2).

    An empty sample gives a finite vector that depends on the weights alone.

    Parameters
    ----------
    dim, n_heads, n_ff, dropout_rate
        As for :class:`TransformerBlock`.
    n_layers
        Number of blocks; 1 or more. All but the last cost the square of the number of cells of a sample.
    """

    def __init__(
        self,
        dim: int,
        n_heads: int = 4,
        *,
        n_layers: int = 2,
        n_ff: int | None = None,
        dropout_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if n_layers < 1:
            raise ValueError(f"`n_layers` must be 1 or more, found {n_layers}.")
        self.cls = nn.Parameter(0.02 * torch.randn(dim))
        self.layers = nn.ModuleList(
            TransformerBlock(dim, n_heads, n_ff=n_ff, dropout_rate=dropout_rate) for _ in range(n_layers)
        )

    def forward(
        self,
        x: torch.Tensor,
        ptr: torch.Tensor | None = None,
        *,
        is_real: torch.Tensor | None = None,
        _layout: str | None = None,
    ) -> torch.Tensor:
        """Pool the cells of each sample.

        Parameters
        ----------
        x
            (cells, dim) with ``ptr``, or (samples, slots, dim) with ``is_real``. Without ``ptr``, two dimensions are
            one sample.
        ptr
            Boundaries, shape (samples + 1,).
        is_real
            True where a slot holds a cell, shape (samples, slots).

        Returns
        -------
        Shape (samples, dim), the same for any order of the cells.
        """
        rows, sets, first = self._mixed(x, ptr, is_real, _layout)
        return self.layers[-1]._read(rows[first], rows, sets)

    def get_attention(self, x: torch.Tensor, ptr: torch.Tensor | None = None) -> torch.Tensor:
        """Weight of every cell in what [CLS] reads in the last block.

        Parameters
        ----------
        x
            Shape (cells, dim).
        ptr
            Boundaries, shape (samples + 1,); one sample by default.

        Returns
        -------
        Shape (cells, n_heads). Among cells: the share that [CLS] gives to itself is left out, and the weights of a
        sample sum to one for each head.
        """
        rows, sets, first = self._mixed(x, ptr, None, None)
        scores = self.layers[-1]._scores(rows[first], rows, sets)
        is_cell = torch.ones(len(rows), dtype=torch.bool, device=rows.device).index_fill(0, first, value=False)
        scores = scores[is_cell].to(accumulation_dtype(scores))
        return segment_softmax(scores, ptr_from_sizes([n - 1 for n in sets.sizes]))

    def _mixed(
        self, x: torch.Tensor, ptr: torch.Tensor | None, is_real: torch.Tensor | None, layout: str | None
    ) -> tuple[torch.Tensor, PackedSets, torch.Tensor]:
        """Packed rows before the last block, [CLS] first in each sample; their sets; and where [CLS] lies."""
        cells, sets = pack(x, ptr, is_real, layout=layout)
        token = self.cls[None].to(cells.dtype)
        rows = torch.cat([part for own in cells.split(sets.sizes) for part in (token, own)] or [cells])
        sets = PackedSets.of([n + 1 for n in sets.sizes], cells.device, layout)
        for layer in self.layers[:-1]:
            rows = layer._mix(rows, sets)
        return rows, sets, sets.ptr(rows.device)[:-1]


class TransformerEncoder(nn.Module):
    """``Linear -> [CLS] + cells -> transformer blocks -> state of [CLS]``: the encoder of ScSet (section 3.2).

    The vector of a sample is the same for any order of its cells and for any other samples in the batch. Time grows
    with the square of the number of cells of a sample, memory with the number.

    Parameters
    ----------
    n_input
        Number of features of a cell.
    n_latent
        Width of the blocks and length of the vector; a multiple of ``n_heads``.
    n_layers
        Number of blocks.
    n_heads
        Number of attention heads.
    n_ff
        Inner width of the feed-forward layers; ``2 * n_latent`` by default.
    dropout_rate
        Dropout inside the blocks.
    lift
        Embeds cells (cells, n_input) to (cells, n_latent), as :class:`MarkerEmbedding`; a linear map by default.

    Examples
    --------
    >>> import torch
    >>> from scset_tools.nn import TransformerEncoder, ptr_from_sizes
    >>> encoder = TransformerEncoder(30, 8)
    >>> encoder(torch.randn(7, 30), ptr_from_sizes([3, 4])).shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        n_input: int,
        n_latent: int,
        *,
        n_layers: int = 2,
        n_heads: int = 4,
        n_ff: int | None = None,
        dropout_rate: float = 0.0,
        lift: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.n_input, self.n_latent = n_input, n_latent
        self.lift = nn.Linear(n_input, n_latent) if lift is None else lift
        self.pool = TransformerPool(n_latent, n_heads, n_layers=n_layers, n_ff=n_ff, dropout_rate=dropout_rate)

    def forward(
        self,
        x: torch.Tensor,
        ptr: torch.Tensor | None = None,
        *,
        is_real: torch.Tensor | None = None,
        _layout: str | None = None,
    ) -> torch.Tensor:
        """Embed every sample of a batch.

        Parameters
        ----------
        x
            (cells, n_input) with ``ptr``, or (samples, slots, n_input) with ``is_real``. Without ``ptr``, two
            dimensions are one sample.
        ptr
            Boundaries, shape (samples + 1,).
        is_real
            True where a slot holds a cell, shape (samples, slots).

        Returns
        -------
        Shape (samples, n_latent).
        """
        return self.pool(self.lift(x), ptr, is_real=is_real, _layout=_layout)

    def get_attention(self, x: torch.Tensor, ptr: torch.Tensor | None = None) -> torch.Tensor:
        """Weight of every cell in what [CLS] reads in the last block.

        Parameters
        ----------
        x
            Shape (cells, n_input).
        ptr
            Boundaries, shape (samples + 1,); one sample by default.

        Returns
        -------
        Shape (cells, n_heads); the weights of a sample sum to one for each head.
        """
        return self.pool.get_attention(self.lift(x), ptr)

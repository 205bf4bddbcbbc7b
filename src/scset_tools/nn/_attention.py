"""Attention blocks over sets of cells: MAB, SAB, ISAB and PMA (MAESTRO section 3.1, eq. 3-7).

Every block takes a ragged batch (rows of all samples and ``ptr``) or a dense one (samples, slots, width), with the
same result.
"""

from __future__ import annotations

import torch
from torch import nn

from scset_tools.nn._multi_head import MultiHeadAttention
from scset_tools.nn._packed import PackedSets, pack, pack_weight, unpack
from scset_tools.nn._ragged import accumulation_dtype, ptr_from_sizes, segment_softmax
from scset_tools.nn._swiglu import SwiGLU

__all__ = ["ISAB", "MAB", "PMA", "SAB"]


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
        self.attention = MultiHeadAttention(dim, n_heads)
        self.feed_forward = SwiGLU(dim, 2 * dim if n_ff is None else n_ff)
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
        x_rows, x_sets = pack(x, ptr, is_real, layout=_layout)
        y_rows, y_sets = pack(y, y_ptr, y_is_real, layout=_layout)
        if len(x_sets.sizes) != len(y_sets.sizes):
            raise ValueError(
                f"`x` and `y` must hold the same samples, found {len(x_sets.sizes)} in x and {len(y_sets.sizes)} in y."
            )
        rows = self._forward(x_rows, x_sets, y_rows, y_sets, pack_weight(log_weight, y, y_is_real))
        return unpack(rows, x, is_real)

    def _forward(
        self,
        x: torch.Tensor,
        x_sets: PackedSets | None,
        y: torch.Tensor,
        y_sets: PackedSets,
        log_weight: torch.Tensor | None,
    ) -> torch.Tensor:
        attended = self.dropout(self.attention(x, y, x_sets=x_sets, y_sets=y_sets, log_weight=log_weight))
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
        rows, sets = pack(x, ptr, is_real, layout=_layout)
        rows = self.mab._forward(rows, sets, rows, sets, pack_weight(log_weight, x, is_real))
        return unpack(rows, x, is_real)


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
        rows, sets = pack(x, ptr, is_real, layout=_layout)
        rows = self._forward(rows, sets, pack_weight(log_weight, x, is_real))
        return unpack(rows, x, is_real)

    def _forward(self, x: torch.Tensor, sets: PackedSets, log_weight: torch.Tensor | None) -> torch.Tensor:
        induced = self.gather._forward(self.inducing, None, x, sets, log_weight)  # (b * m, d)
        induced_sets = PackedSets.of([len(self.inducing)] * len(sets.sizes), x.device)
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
        rows, sets = pack(x, ptr, is_real, layout=_layout)
        return self._forward(rows, sets, pack_weight(log_weight, x, is_real))

    def _forward(self, x: torch.Tensor, sets: PackedSets, log_weight: torch.Tensor | None) -> torch.Tensor:
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
        rows, sets = pack(x, ptr, None)
        bias = pack_weight(log_weight, x, None)
        scores = self.mab.attention.scores(self.seeds, rows)
        scores = scores.to(accumulation_dtype(scores))
        return segment_softmax(scores if bias is None else scores + bias[:, None, None], ptr_from_sizes(sets.sizes))

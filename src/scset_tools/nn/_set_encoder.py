"""The set transformer that maps a sample to one vector (MAESTRO eq. 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import nn

from scset_tools.nn._attention import ISAB, PMA
from scset_tools.nn._packed import pack, pack_weight

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

__all__ = ["SetEncoder"]


class SetEncoder(nn.Module):
    """``Linear -> n_layers x ISAB -> PMA with one seed -> Linear`` (MAESTRO eq. 8).

    The embedding of a sample is the same for any order of its cells and for any other samples in the batch. An empty
    sample gets a finite vector that depends on the weights alone.

    Parameters
    ----------
    n_input
        Number of features of a cell.
    n_hidden
        Width of the attention blocks; a multiple of ``n_heads``.
    n_latent
        Length of the embedding.
    n_layers
        Number of ISAB blocks.
    n_heads
        Number of attention heads.
    n_inducing
        Number of inducing points of each ISAB.
    n_ff
        Inner width of the feed-forward layers; ``2 * n_hidden`` by default.
    dropout_rate
        Dropout inside the attention blocks.
    lift
        Embeds cells (cells, n_input) to (cells, n_hidden), as :class:`MarkerEmbedding`; a linear map by default.

    Examples
    --------
    >>> import torch
    >>> from scset_tools.nn import SetEncoder, ptr_from_sizes
    >>> encoder = SetEncoder(30, 32, 8)
    >>> encoder(torch.randn(7, 30), ptr_from_sizes([3, 4])).shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        n_input: int,
        n_hidden: int,
        n_latent: int,
        *,
        n_layers: int = 3,
        n_heads: int = 4,
        n_inducing: int = 32,
        n_ff: int | None = None,
        dropout_rate: float = 0.0,
        lift: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.n_input = n_input
        self.n_latent = n_latent
        self.lift = nn.Linear(n_input, n_hidden) if lift is None else lift
        self.layers = nn.ModuleList(
            ISAB(n_hidden, n_heads, n_inducing=n_inducing, n_ff=n_ff, dropout_rate=dropout_rate)
            for _ in range(n_layers)
        )
        self.pool = PMA(n_hidden, n_heads, n_ff=n_ff, dropout_rate=dropout_rate)
        self.project = nn.Linear(n_hidden, n_latent)

    @property
    def blocks(self) -> Iterable[ISAB]:
        """The ISAB blocks in order."""
        return cast("Iterable[ISAB]", self.layers)

    def forward(
        self,
        x: torch.Tensor,
        ptr: torch.Tensor | None = None,
        *,
        is_real: torch.Tensor | None = None,
        log_weight: torch.Tensor | None = None,
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
            True where a slot of a dense batch holds a cell, shape (samples, slots).
        log_weight
            Log multiplicity of each cell, the shape of ``x`` without its last dimension: ``k`` equal cells can be
            given once with ``log(k)``, exactly.

        Returns
        -------
        Shape (samples, n_latent).
        """
        rows, sets = pack(x, ptr, is_real, layout=_layout)
        weight = pack_weight(log_weight, x, is_real)
        rows = self.lift(rows)
        for layer in self.blocks:
            rows = layer._forward(rows, sets, weight)
        return self.project(self.pool._forward(rows, sets, weight)[:, 0])

    def get_attention(
        self, x: torch.Tensor, ptr: torch.Tensor | None = None, *, log_weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Weight of every cell in the pooling step.

        Parameters
        ----------
        x
            Shape (cells, n_input).
        ptr
            Boundaries, shape (samples + 1,); one sample by default.
        log_weight
            Log multiplicity of each cell, shape (cells,).

        Returns
        -------
        Shape (cells, n_heads); the weights of a sample sum to one for each head.
        """
        rows, sets = pack(x, ptr, None)
        rows = self.lift(rows)
        for layer in self.blocks:
            rows = layer._forward(rows, sets, log_weight)
        return self.pool.get_attention(rows, ptr, log_weight=log_weight)[..., 0]

"""Attention whose cost is linear in the number of tokens: feature maps in place of the softmax.

With ``phi`` positive, ``softmax(q k^T) v`` is replaced by ``phi(q) (sum_j phi(k_j) v_j^T) / phi(q) (sum_j phi(k_j))``. Both
sums are over keys alone, so they can be taken once and updated: :meth:`LinearAttention.summarise` gives them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def softmax_features(
    x: Tensor, projection: Tensor, *, is_query: bool, is_real: Tensor | None = None, eps: float = 1e-4
) -> Tensor:
    r"""Positive random features of the softmax kernel (FAVOR+, Choromanski et al. 2021, lemma 1).

    ``m^-1/2 (exp(W x' - |x'|^2 / 2 - c) + eps)`` with ``x' = d^-1/4 x``, so that the product of two of them estimates
    ``exp(q k / sqrt(d))`` up to a factor. The shift ``c`` against overflow is the largest ``W x'`` of the token for a query,
    and of all heads and tokens of the cell for a key: one for all keys, since they are summed.

    Parameters
    ----------
    x
        Queries or keys, (cells, heads, tokens, d).
    projection
        Random directions ``W``, (m, d); see :func:`orthogonal_projection`.
    is_query
        Whether ``x`` are queries.
    is_real
        True where a token is no padding, (cells, tokens); the others do not count for the shift of keys.
    eps
        Added to each feature.

    Returns
    -------
    Shape (cells, heads, tokens, m).

    Notes
    -----
    scFoundation's code takes the shift of keys over the whole batch, which through ``eps`` lets batch mates change a result;
    here it is taken over the cell, which is the same for a batch of one cell.
    """
    x = x * x.shape[-1] ** -0.25
    dash = x @ projection.to(x.dtype).T
    if is_query:
        shift = dash.detach().amax(-1, keepdim=True)
    else:
        seen = dash.detach()
        if is_real is not None:
            seen = seen.masked_fill(~is_real[:, None, :, None], -torch.inf)
        shift = seen.amax((1, 2, 3), keepdim=True)
        shift = shift.masked_fill(shift == -torch.inf, 0)
    features = torch.exp(dash - x.square().sum(-1, keepdim=True) / 2 - shift) + eps
    return features * projection.shape[0] ** -0.5


def elu_features(x: Tensor) -> Tensor:
    """The positive feature map ``elu(x) + 1`` (Katharopoulos et al. 2020).

    Parameters
    ----------
    x
        Any shape.
    """
    return F.elu(x) + 1


def orthogonal_projection(n_features: int, dim: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Random directions that are orthogonal within blocks, with the lengths of Gaussian vectors.

    Parameters
    ----------
    n_features
        Number of directions.
    dim
        Their length.
    generator
        Source of the draws. Default: torch's own.

    Returns
    -------
    Shape (n_features, dim).
    """
    blocks = []
    for _ in range(-(-n_features // dim)):
        q, r = torch.linalg.qr(torch.randn(dim, dim, generator=generator))
        # as it comes, the signs of q follow from the algorithm, and its rows lean to one side
        blocks.append((q * r.diagonal().sign()).T)
    length = torch.randn(n_features, dim, generator=generator).norm(dim=1, keepdim=True)
    return length * torch.cat(blocks)[:n_features]


class LinearAttention(nn.Module):
    """Multi-head attention of linear cost.

    Parameters
    ----------
    dim
        Width of the tokens.
    n_heads
        Number of heads.
    dim_head
        Width of a head. Default: ``dim / n_heads``.
    n_features
        Number of random features of the softmax kernel (FAVOR+). Default: no random features, but ``elu(x) + 1``.
    bias
        Whether queries, keys and values have biases.
    """

    projection: Tensor | None

    def __init__(
        self,
        dim: int,
        n_heads: int = 4,
        *,
        dim_head: int | None = None,
        n_features: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if dim_head is None and dim % n_heads:
            raise ValueError(f"`n_heads` ({n_heads}) must divide the width ({dim}), unless `dim_head` is given.")
        self.n_heads = n_heads
        self.dim_head = dim // n_heads if dim_head is None else dim_head
        n_inner = self.n_heads * self.dim_head
        self.to_q = nn.Linear(dim, n_inner, bias=bias)
        self.to_k = nn.Linear(dim, n_inner, bias=bias)
        self.to_v = nn.Linear(dim, n_inner, bias=bias)
        self.to_out = nn.Linear(n_inner, dim)
        projection = None if n_features is None else orthogonal_projection(n_features, self.dim_head)
        self.register_buffer("projection", projection)

    @staticmethod
    def default_n_features(dim_head: int) -> int:
        """The number of random features of the Performer, ``floor(d ln d)``, at least 1.

        Parameters
        ----------
        dim_head
            Width of a head.
        """
        return max(1, int(dim_head * math.log(dim_head)))

    def key_value(self, x: Tensor, *, is_real: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features of the keys and values of tokens.

        Parameters
        ----------
        x
            Tokens, (cells, tokens, dim).
        is_real
            True where a token is no padding, (cells, tokens).

        Returns
        -------
        phi_k
            Shape (cells, heads, tokens, features); zero where not real.
        v
            Shape (cells, heads, tokens, dim_head).
        """
        k, v = self._split(self.to_k(x)), self._split(self.to_v(x))
        phi = self._features(k, is_query=False, is_real=is_real)
        if is_real is not None:
            phi = phi * is_real[:, None, :, None].to(phi.dtype)
        return phi, v

    @staticmethod
    def summarise(phi_k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The two sums over keys that all queries read.

        Parameters
        ----------
        phi_k, v
            As returned by :meth:`key_value`.

        Returns
        -------
        context
            ``sum_j phi(k_j) v_j^T``, (cells, heads, features, dim_head).
        total
            ``sum_j phi(k_j)``, (cells, heads, features).
        """
        return phi_k.transpose(-1, -2) @ v, phi_k.sum(-2)

    def read(self, x: Tensor, context: Tensor, total: Tensor) -> Tensor:
        """What queries read from the sums over keys.

        Parameters
        ----------
        x
            Tokens that ask, (cells, queries, dim).
        context, total
            As returned by :meth:`summarise`.

        Returns
        -------
        Shape (cells, queries, dim). Where there is no key, the bias of the last map alone.
        """
        phi_q = self._features(self._split(self.to_q(x)), is_query=True)
        weight = phi_q @ total.unsqueeze(-1)
        # 1 and not the smallest number where there is no key: its square, in the gradient, is 0
        weight = torch.where(weight > 0, weight, torch.ones_like(weight))
        out = (phi_q @ context) / weight
        return self.to_out(out.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, *, queries: Tensor | None = None, is_real: Tensor | None = None) -> Tensor:
        """Let tokens attend to all tokens of their cell.

        Parameters
        ----------
        x
            Tokens, (cells, tokens, dim).
        queries
            Tokens that ask, (cells, queries, dim). Default: ``x``.
        is_real
            True where a token of ``x`` is no padding, (cells, tokens).

        Returns
        -------
        The shape of the queries.
        """
        return self.read(x if queries is None else queries, *self.summarise(*self.key_value(x, is_real=is_real)))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, self.dim_head)).transpose(1, 2)

    def _features(self, x: Tensor, *, is_query: bool, is_real: Tensor | None = None) -> Tensor:
        if self.projection is None:
            return elu_features(x)
        return softmax_features(x, self.projection, is_query=is_query, is_real=is_real)


class LinearAttentionBlock(nn.Module):
    """Pre-norm block: ``x + attention(norm(x))``, then ``x + FF(norm(x))`` with GELU.

    Parameters
    ----------
    dim, n_heads, dim_head, n_features, bias
        As for :class:`LinearAttention`.
    n_ff
        Inner width of the feed-forward layer. Default: ``4 * dim``.
    """

    def __init__(
        self,
        dim: int,
        n_heads: int = 4,
        *,
        dim_head: int | None = None,
        n_features: int | None = None,
        bias: bool = True,
        n_ff: int | None = None,
    ) -> None:
        super().__init__()
        n_ff = 4 * dim if n_ff is None else n_ff
        self.norm_attention = nn.LayerNorm(dim)
        self.attention = LinearAttention(dim, n_heads, dim_head=dim_head, n_features=n_features, bias=bias)
        self.norm_feed_forward = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(nn.Linear(dim, n_ff), nn.GELU(), nn.Linear(n_ff, dim))

    def forward(self, x: Tensor, *, queries: Tensor | None = None) -> Tensor:
        """Let tokens, or the queries given, attend to all tokens of their cell.

        Parameters
        ----------
        x
            Tokens, (cells, tokens, dim).
        queries
            Tokens that ask, (cells, queries, dim). Default: ``x``.

        Returns
        -------
        The shape of the queries.
        """
        keys = self.norm_attention(x)
        asking = keys if queries is None else self.norm_attention(queries)
        return self.finish(x if queries is None else queries, self.attention(keys, queries=asking))

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add what was read, then the feed-forward layer.

        Parameters
        ----------
        x, attended
            Tokens and what they read, (cells, tokens, dim).
        """
        x = x + attended
        return x + self.feed_forward(self.norm_feed_forward(x))

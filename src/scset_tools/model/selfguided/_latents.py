"""Learned latents that read a cell: what they attend to is worth hiding, and what they read helps the encoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from scset_tools.model.selfguided._tokens import front


def n_used_latents(n_latents: int) -> int:
    """Number of latents that guide the mask of a cell: half of them, at least one."""
    return max(1, n_latents // 2)


N_CALIBRATE = 2048
"""Most tokens by which the scale of the attention is set."""


@dataclass(frozen=True)
class Zeros:
    """Genes that a cell does not express, for its latents to read as well.

    Attributes
    ----------
    embedded
        Embedding of the value zero plus that of the gene, (genes, dim).
    is_measured
        True for the genes that the data measure, (genes,).
    is_there
        True for the measured genes that the cell does not express and that are in sight, (cells, genes).
    """

    embedded: torch.Tensor
    is_measured: torch.Tensor
    is_there: torch.Tensor


class LatentCrossAttention(nn.Module):
    """``N`` latent vectors attend to the tokens of a cell (Self-guided masking, section 3).

    Two things come of the same attention. **Importance**: attention summed over heads and over a random half of the latents,
    for the mask. **Summary**: each latent is updated by what it read, ``LayerNorm(z + A V)``, the latents are averaged, and an
    adapter maps the mean to the width of the encoder, where it is added to every token. Through the summary the
    reconstruction trains the latents; through the importance no gradient flows.

    Parameters
    ----------
    dim
        Width of the tokens.
    n_latents, n_latent_hidden, n_heads
        Number of latents ``N``, their width ``D_z``, and the number of attention heads.
    importance_spread
        Relative standard deviation of the importance over genes before training. 0 would be an even one.

    Notes
    -----
    Tokens are normalised before they are read, and queries and keys have length 1: so how sharp the attention is depends on a
    learned scale of each head, and not on how large the embeddings of the genes happen to be. It starts where the sum over
    heads and half of the latents has the spread asked for: the more there are to sum, the sharper each must be.

    With ``zeros`` the latents attend to the genes that a cell does not express as well. Such a gene has the same key and value
    in every cell: what all of them add up to is computed once per batch, and each cell takes away those that it does express.

    The paper names the adapter and does not define it. The last layer of this one starts at zero, so that a pretrained
    encoder starts unchanged.
    """

    def __init__(
        self, dim: int, *, n_latents: int, n_latent_hidden: int, n_heads: int, importance_spread: float = 0.3
    ) -> None:
        super().__init__()
        if n_latent_hidden % n_heads:
            msg = f"n_latent_heads={n_heads} must divide n_latent_hidden={n_latent_hidden}."
            raise ValueError(msg)
        self.n_heads, self.importance_spread = n_heads, importance_spread
        self.norm_tokens = nn.LayerNorm(dim)
        self.latents = nn.Parameter(torch.randn(n_latents, n_latent_hidden))
        self.to_q = nn.Linear(n_latent_hidden, n_latent_hidden, bias=False)
        self.to_k = nn.Linear(dim, n_latent_hidden, bias=False)
        self.to_v = nn.Linear(dim, n_latent_hidden, bias=False)
        self.log_scale = nn.Parameter(torch.zeros(n_heads))
        self.norm = nn.LayerNorm(n_latent_hidden)
        self.adapter = nn.Sequential(nn.Linear(n_latent_hidden, dim), nn.GELU(), nn.Linear(dim, dim))
        nn.init.zeros_(self.adapter[2].weight)
        nn.init.zeros_(self.adapter[2].bias)

    @torch.no_grad()
    def calibrate(self, x: torch.Tensor) -> None:
        """Set the scales so that the importance of these tokens (tokens, dim) has the spread asked for.

        Keys of embeddings that share a direction, as pretrained ones do, differ little: the scale makes up for it.
        """
        cosine = self._cosine(self.norm_tokens(x[:N_CALIBRATE]).unsqueeze(0))[0]  # (heads, latents, tokens)
        scale = 1 / cosine.std(-1, correction=0).mean(-1).clamp_min(1e-6)  # logits of standard deviation 1
        cosine = cosine[:, : n_used_latents(len(self.latents))] * scale[:, None, None]
        low, high = 0.0, 30.0
        for _ in range(30):
            middle = (low + high) / 2
            weight = (cosine * middle).softmax(-1).sum((0, 1))
            is_too_even = float(weight.std(correction=0) / weight.mean()) < self.importance_spread
            low, high = (middle, high) if is_too_even else (low, middle)
        self.log_scale.copy_((scale * high).log())

    def _cosine(self, x: torch.Tensor) -> torch.Tensor:
        """Cosine of each query with the keys of normalised tokens (cells, tokens, dim): (cells, heads, latents, tokens)."""
        q = self.to_q(self.latents).unflatten(-1, (self.n_heads, -1)).transpose(0, 1)  # (heads, latents, d)
        k = self.to_k(x).unflatten(-1, (self.n_heads, -1))  # (cells, tokens, heads, d)
        return F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).permute(0, 2, 3, 1)

    def _scores(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, (cells, heads, latents, tokens), float32 or better."""
        cosine = self._cosine(x)
        cosine = cosine.to(torch.promote_types(cosine.dtype, torch.float32))
        return cosine * self.log_scale.to(cosine.dtype).exp()[:, None, None]

    def attention(
        self, x: torch.Tensor, is_real: torch.Tensor, zeros: Zeros | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Attention of each latent to the normalised tokens (cells, tokens, dim) and to the genes that are not expressed.

        Returns
        -------
        On the tokens, (cells, heads, latents, tokens); and two factors whose product is that on the zeros, of each cell (cells,
        heads, latents) and of each gene (heads, latents, genes). Of a cell and latent all sum to 1. Without ``zeros`` there
        are no genes in the last.
        """
        scores = self._scores(x)
        # the lowest number in place of -inf: a cell without tokens gets no NaN
        scores = scores.masked_fill(~is_real[:, None, None, :], torch.finfo(scores.dtype).min)
        if zeros is None:
            return scores.softmax(-1), scores.new_zeros(scores.shape[:3]), scores.new_zeros(*scores.shape[1:3], 0)
        dtype = scores.dtype
        # in double precision: the gene with the highest score may be expressed in a cell, and so no candidate there, and what is left is
        # then many orders of magnitude below the top, beyond the range of single precision
        scores, blank = scores.double(), self._scores(self.norm_tokens(zeros.embedded).unsqueeze(0))[0].double()
        top_blank = blank.amax(-1)
        top = torch.maximum(scores.amax(-1), top_blank) if scores.shape[-1] else top_blank.expand(len(scores), -1, -1)
        on_tokens = (scores - top.unsqueeze(-1)).exp()
        of_gene = (blank - top_blank.unsqueeze(-1)).exp() * zeros.is_measured
        of_cell = (top_blank - top).exp()
        total = on_tokens.sum(-1) + of_cell * torch.einsum("cg,hng->chn", zeros.is_there.to(of_gene.dtype), of_gene)
        total = torch.where(total > 1e-100, total, torch.ones_like(total))  # a cell without anything to attend to
        return (
            (on_tokens / total.unsqueeze(-1)).to(dtype),
            (of_cell / total).clamp_max(1e30).to(dtype),
            of_gene.to(dtype),
        )

    def _values(self, x: torch.Tensor) -> torch.Tensor:
        """Values of normalised tokens (cells, tokens, dim): (cells, heads, tokens, d)."""
        return self.to_v(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)

    def _read_zeros(self, of_cell: torch.Tensor, of_gene: torch.Tensor, zeros: Zeros) -> torch.Tensor:
        """What each latent reads of the genes that are not expressed, (cells, heads, latents, d)."""
        v = self._values(self.norm_tokens(zeros.embedded).unsqueeze(0))[0]  # (heads, genes, d)
        of_gene = of_gene.to(v.dtype)
        index, is_taken = front(zeros.is_measured & ~zeros.is_there)  # (cells, taken)
        taken = (of_gene[:, :, index] * is_taken).permute(2, 0, 1, 3) @ v[:, index].transpose(0, 1)
        return of_cell.to(v.dtype).unsqueeze(-1) * (of_gene @ v - taken)

    @torch.no_grad()
    def importance(
        self, x: torch.Tensor, is_real: torch.Tensor, is_used: torch.Tensor, *, zeros: Zeros | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention summed over heads, and over the latents used (cells, latents).

        Returns
        -------
        On each token, (cells, tokens), and on each gene that is not expressed, (cells, genes), 0 for those that are.
        """
        on_tokens, of_cell, of_gene = self.attention(self.norm_tokens(x), is_real, zeros)
        used = is_used.to(of_cell.dtype)
        of_tokens = torch.einsum("chnt,cn->ct", on_tokens, used) * is_real
        of_zeros = torch.einsum("chn,hng->cg", of_cell * used.unsqueeze(1), of_gene)
        return of_tokens, of_zeros if zeros is None else of_zeros * zeros.is_there

    def forward(
        self, x: torch.Tensor, is_real: torch.Tensor, zeros: Zeros | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the adapter adds to every token, (cells, dim), and each latent's attention on them, (cells, latents, tokens)."""
        x = self.norm_tokens(x)
        attention, of_cell, of_gene = self.attention(x, is_real, zeros)
        v = self._values(x)
        read = attention.to(v.dtype) @ v  # (cells, heads, latents, d)
        if zeros is not None:
            read = read + self._read_zeros(of_cell, of_gene, zeros)
        summary = self.norm(self.latents + read.transpose(1, 2).flatten(2)).mean(1)
        return self.adapter(summary), attention.mean(1)


def overlap(attention: torch.Tensor) -> torch.Tensor:
    """How alike the latents' attention is: mean cosine of two of them, from 0 (no token in common) to 1 (the same), (cells,).

    Parameters
    ----------
    attention
        Attention of each latent, (cells, latents, tokens). Even attention has an overlap of 1.
    """
    n = attention.shape[1]
    if n < 2:
        return attention.new_zeros(len(attention))
    unit = attention / attention.square().sum(-1, keepdim=True).clamp_min(1e-24).sqrt()
    return (unit.sum(1).square().sum(-1) - n) / (n * (n - 1))


def relative_perplexity(weight: torch.Tensor, is_candidate: torch.Tensor) -> torch.Tensor:
    """Perplexity of weights as a share of the number of candidates: 1 if they are even, ``1 / n`` if one has all, (cells,).

    Parameters
    ----------
    weight
        Weights that are not negative, (cells, candidates).
    is_candidate
        True where there is a candidate, (cells, candidates). A cell with fewer than two counts as 1.
    """
    n = is_candidate.sum(1)
    p = weight * is_candidate
    p = p / p.sum(1, keepdim=True).clamp_min(1e-24)
    entropy = -(p * p.clamp_min(1e-24).log()).sum(1)
    return torch.where(n > 1, entropy.exp() / n.clamp_min(1), torch.ones_like(entropy))

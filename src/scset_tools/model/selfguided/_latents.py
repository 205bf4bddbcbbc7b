"""Learned latents that read a cell: what they attend to is worth hiding, and what they read helps the encoder."""

from __future__ import annotations

import torch
from torch import nn


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

    Notes
    -----
    The paper names the adapter and does not define it. The last layer of this one starts at zero, so that a pretrained
    encoder starts unchanged.
    """

    def __init__(self, dim: int, *, n_latents: int, n_latent_hidden: int, n_heads: int) -> None:
        super().__init__()
        if n_latent_hidden % n_heads:
            msg = f"n_latent_heads={n_heads} must divide n_latent_hidden={n_latent_hidden}."
            raise ValueError(msg)
        self.n_heads = n_heads
        self.latents = nn.Parameter(torch.randn(n_latents, n_latent_hidden))
        self.to_q = nn.Linear(n_latent_hidden, n_latent_hidden, bias=False)
        self.to_k = nn.Linear(dim, n_latent_hidden, bias=False)
        self.to_v = nn.Linear(dim, n_latent_hidden, bias=False)
        self.norm = nn.LayerNorm(n_latent_hidden)
        self.adapter = nn.Sequential(nn.Linear(n_latent_hidden, dim), nn.GELU(), nn.Linear(dim, dim))
        nn.init.zeros_(self.adapter[2].weight)
        nn.init.zeros_(self.adapter[2].bias)

    def attention(self, x: torch.Tensor, is_real: torch.Tensor) -> torch.Tensor:
        """Attention of each latent to the tokens (cells, tokens, dim): (cells, heads, latents, tokens), float32 or better."""
        q = self.to_q(self.latents).unflatten(-1, (self.n_heads, -1)).transpose(0, 1)  # (heads, latents, d)
        k = self.to_k(x).unflatten(-1, (self.n_heads, -1)).permute(0, 2, 3, 1)  # (cells, heads, d, tokens)
        scores = (q * q.shape[-1] ** -0.5) @ k
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        # the lowest number in place of -inf: a cell without tokens gets no NaN
        return scores.masked_fill(~is_real[:, None, None, :], torch.finfo(scores.dtype).min).softmax(-1)

    @torch.no_grad()
    def importance(self, x: torch.Tensor, is_real: torch.Tensor, is_used: torch.Tensor) -> torch.Tensor:
        """Attention on each token summed over heads, and over the latents used (cells, latents): (cells, tokens)."""
        per_latent = self.attention(x, is_real).sum(1)  # (cells, latents, tokens)
        return (per_latent * is_used.unsqueeze(-1)).sum(1) * is_real

    def forward(self, x: torch.Tensor, is_real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the adapter adds to every token, (cells, dim), and the mean attention on each token, (cells, tokens)."""
        attention = self.attention(x, is_real)
        v = self.to_v(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (cells, heads, tokens, d)
        read = (attention.to(v.dtype) @ v).transpose(1, 2).flatten(2)  # (cells, latents, n_latent_hidden)
        summary = self.norm(self.latents + read).mean(1)
        return self.adapter(summary), attention.mean((1, 2))


def concentration(attention: torch.Tensor, is_real: torch.Tensor) -> torch.Tensor:
    """How concentrated attention is on few tokens: ``1 - H(p) / log(n)``, from 0 (even) to 1 (one token), (cells,).

    Parameters
    ----------
    attention
        Attention of a cell, summing to 1, (cells, tokens).
    is_real
        True where a slot holds a token, (cells, tokens). A cell with fewer than two tokens counts as 0.
    """
    n_real = is_real.sum(1)
    # the slope of p log p at 0 is infinite, and padding is at 0
    entropy = -(attention * attention.clamp_min(1e-12).log()).sum(1)
    return torch.where(n_real > 1, 1 - entropy / n_real.clamp_min(2).to(entropy.dtype).log(), torch.zeros_like(entropy))

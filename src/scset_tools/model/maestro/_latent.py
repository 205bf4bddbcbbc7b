"""Where the vectors of training lie, and how far from each other."""

from __future__ import annotations

from typing import Any

import torch

LATENT_DECAY = 0.95
"""Share of the running location and scale of the vectors that stays in a step."""


@torch.no_grad()
def move_towards(
    encoded: torch.Tensor, location: torch.Tensor, scale: torch.Tensor, *, n_steps: torch.Tensor, which: Any = ...
) -> None:
    """Move a running location and scale towards those of a batch: one scale for all dimensions, which keeps the geometry.

    Parameters
    ----------
    encoded
        Vectors of the batch, two at least, (sets, n_latent).
    location, scale, n_steps
        What is moved, (n_latent,), () and (), or a row of each for each kind of sets.
    which
        Kind of sets.
    """
    encoded = encoded.to(location.dtype)
    rate = torch.where(n_steps[which] == 0, 1.0, 1 - LATENT_DECAY).to(encoded)
    location[which] = location[which].lerp(encoded.mean(dim=0), rate)
    variance = encoded.var(dim=0, correction=0).mean().clamp_min(1e-12)
    scale[which] = scale[which].square().lerp(variance, rate).sqrt()
    n_steps[which] += 1

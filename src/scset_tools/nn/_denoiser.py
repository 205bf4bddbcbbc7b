"""The network that predicts noise: a residual MLP whose layers are steered by time and sample (ScSet section 3.1)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scset_tools.nn._ragged import ptr_from_sizes, sample_of_cell

__all__ = ["Denoiser", "sinusoidal_embedding"]


def sinusoidal_embedding(t: Tensor, dim: int, *, max_period: float = 10_000.0) -> Tensor:
    """Cosines and sines of a time at geometrically spaced frequencies from 1 to ``1 / max_period``.

    Parameters
    ----------
    t
        Times, (n,).
    dim
        Width of the embedding; even.
    max_period
        The lowest frequency is its inverse.

    Returns
    -------
    (n, dim), float32 or better.
    """
    if dim % 2:
        raise ValueError(f"`dim` must be even, found {dim}.")
    t = t.to(torch.promote_types(t.dtype, torch.float32))
    half = dim // 2
    frequency = torch.exp(-math.log(max_period) / half * torch.arange(half, device=t.device, dtype=t.dtype))
    angle = t[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], 1)


class _AddProduct(torch.autograd.Function):
    """``a + b * c`` of equal shapes; the gradient of :func:`torch.addcmul` multiplies everything by one once more."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        ctx.save_for_backward(b, c)
        return torch.addcmul(a, b, c)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        b, c = ctx.saved_tensors
        return g, g * c, g * b


def _add_product(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``a + b * c``, with or without broadcasting."""
    return _AddProduct.apply(a, b, c) if a.shape == b.shape == c.shape else torch.addcmul(a, b, c)


class Denoiser(nn.Module):
    """Residual MLP with adaptive layer normalisation.

    Each block computes ``h + gate * MLP((1 + scale) * LayerNorm(h) + shift)``. Shift, scale and gate are a linear map of
    ``MLP(embedded time) + MLP(vector of the sample)``. A linear map of a sum is the sum of two maps: the part of the time is
    computed once for each distinct time and the part of the sample once for each sample, however many cells share them.

    Parameters
    ----------
    n_input
        Number of features of a cell.
    n_latent
        Length of a sample's vector.
    n_hidden
        Width of the blocks.
    n_blocks
        Number of blocks.
    n_time
        Width of the sinusoidal embedding of the time.
    dropout_rate
        Dropout inside the blocks.
    lift
        Embeds noisy cells (..., n_input) to (..., n_hidden), as :class:`MarkerEmbedding`; a linear map by default.
    """

    def __init__(
        self,
        n_input: int,
        n_latent: int,
        *,
        n_hidden: int = 256,
        n_blocks: int = 5,
        n_time: int = 128,
        dropout_rate: float = 0.0,
        lift: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.n_hidden, self.n_blocks, self.n_time = n_hidden, n_blocks, n_time
        self.time = nn.Sequential(nn.Linear(n_time, n_hidden), nn.SiLU(), nn.Linear(n_hidden, n_hidden), nn.SiLU())
        self.sample = nn.Sequential(nn.Linear(n_latent, n_hidden), nn.SiLU(), nn.Linear(n_hidden, n_hidden), nn.SiLU())
        # shift, scale and gate of all blocks, then shift and scale before the output
        self.modulation = nn.Linear(n_hidden, (3 * n_blocks + 2) * n_hidden)
        self.input = nn.Linear(n_input, n_hidden) if lift is None else lift
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(n_hidden, n_hidden), nn.SiLU(), nn.Dropout(dropout_rate), nn.Linear(n_hidden, n_hidden)
            )
            for _ in range(n_blocks)
        )
        self.output = nn.Linear(n_hidden, n_input)
        is_scale = torch.tensor([*[0.0, 1.0, 0.0] * n_blocks, 0.0, 1.0]).repeat_interleave(n_hidden)
        self.register_buffer("_is_scale", is_scale, persistent=False)
        nn.init.zeros_(self.output.weight)  # the first prediction is no noise at all
        nn.init.zeros_(self.output.bias)

    def of_time(self, t: Tensor) -> Tensor:
        """Part of shifts, scales and gates that belongs to times, (n, (3 * n_blocks + 2) * n_hidden).

        Parameters
        ----------
        t
            Times, (n,).
        """
        embedded = self.time(sinusoidal_embedding(t, self.n_time).to(self.modulation.weight.dtype))
        return F.linear(embedded, self.modulation.weight)

    def of_sample(self, z: Tensor) -> Tensor:
        """Part of shifts, scales and gates that belongs to samples, (n, (3 * n_blocks + 2) * n_hidden).

        Parameters
        ----------
        z
            Vectors of samples, (n, n_latent).
        """
        return self.modulation(self.sample(z))

    def forward(
        self,
        x: Tensor,
        of_time: Tensor,
        of_sample: Tensor,
        *,
        which_time: Tensor | None = None,
        n_rows: list[int] | None = None,
        which_sample: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise (or the velocity) of cells.

        Parameters
        ----------
        x
            Noisy cells, those of a sample one after the other, (cells, n_input).
        of_time
            Result of :meth:`of_time`, (times, ...).
        of_sample
            Result of :meth:`of_sample`, (samples, ...).
        which_time
            Row of ``of_time`` that belongs to each cell, int64 (cells,). Default: the first, for all.
        n_rows
            Number of cells of each sample. Default: the same for all.
        which_sample
            Row of ``of_sample`` that belongs to each cell, int64 (cells,), in the place of ``n_rows``.

        Returns
        -------
        (cells, n_input).
        """
        is_even = which_sample is None and (n_rows is None or len(set(n_rows)) <= 1)
        if is_even:  # (samples, cells of each, features): what belongs to a sample is never copied to its cells
            x = x.unflatten(0, (len(of_sample), len(x) // max(1, len(of_sample))))
            of_sample = of_sample[:, None]
            which_time = None if which_time is None else which_time.view(x.shape[:2])
        elif which_sample is None:
            which_sample = sample_of_cell(ptr_from_sizes(n_rows or [], device=x.device), n_cells=len(x))
        # one is added to the scales here, where there is a row per sample, and not where there is one per cell
        of_sample = of_sample + self._is_scale.to(of_sample.dtype)
        times, samples = self._parts(of_time), self._parts(of_sample)

        def steer(which: int) -> Tensor:
            """One of the shifts, scales and gates, to be broadcast against the cells."""
            sample = samples[which] if is_even else samples[which].index_select(0, which_sample)
            return sample + (times[which] if which_time is None else F.embedding(which_time, times[which]))

        h = self.input(x)
        for i, block in enumerate(self.blocks):
            shift, scale, gate = steer(3 * i), steer(3 * i + 1), steer(3 * i + 2)
            h = _add_product(h, gate, block(_add_product(shift, F.layer_norm(h, h.shape[-1:]), scale)))
        shift, scale = steer(3 * self.n_blocks), steer(3 * self.n_blocks + 1)
        out = self.output(_add_product(shift, F.layer_norm(h, h.shape[-1:]), scale))
        return out.flatten(0, 1) if is_even else out

    def _parts(self, table: Tensor) -> tuple[Tensor, ...]:
        """Shifts, scales and gates one after the other, (..., n_hidden) each, every one in memory of its own.

        Rows of one table of all are gathered and added up across strides, in the forward pass and in the gradient: a tenth more of
        a training step.
        """
        return table.unflatten(-1, (-1, self.n_hidden)).movedim(-2, 0).contiguous().unbind(0)

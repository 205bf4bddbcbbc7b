"""Cells as sets of markers: what is not measured is absent, not zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scset_tools.nn._random import cell_uniform, sample_uniform

__all__ = ["MarkerEmbedding", "drop_markers"]

FIRST_SHARE = 0.3
"""Size of the curved part of a new embedding against the straight one."""


class MarkerEmbedding(nn.Module):
    r"""Embed cells whose markers differ from sample to sample.

    A cell is the set :math:`O` of its measured markers. Each is embedded from its value and its name, and the cell is their mean:

    .. math:: h = b + \frac{\sqrt{M}}{|O|} \sum_{j \in O} \sum_r \phi_r(x_j) \, V_r e_j ,

    with a learned vector :math:`e_j` for the name of marker j, and a small network of the value that all markers share:
    :math:`\phi(x) = (1, x, \tanh(a_1 x + b_1), \ldots)`. The sum over values and names is a product of matrices, so that it costs about what
    ``Linear(M, n_output)`` does, which it contains. A value of NaN is a marker that is not measured: it takes no part, and gets no gradient.

    Parameters
    ----------
    n_markers
        Number :math:`M` of markers that are known.
    n_output
        Width of the result, and length of the vectors of names.
    n_curves
        Number of hyperbolic tangents in :math:`\phi`.

    Examples
    --------
    >>> import torch
    >>> from scset_tools.nn import MarkerEmbedding
    >>> x = torch.randn(5, 30)
    >>> x[:, 3] = torch.nan
    >>> MarkerEmbedding(30, 16)(x).shape
    torch.Size([5, 16])
    """

    def __init__(self, n_markers: int, n_output: int, *, n_curves: int = 4) -> None:
        super().__init__()
        self.n_markers, self.n_output = n_markers, n_output
        self.names = nn.Parameter(torch.randn(n_markers, n_output))
        size = torch.tensor([FIRST_SHARE, 1.0, *[FIRST_SHARE] * n_curves])
        value = torch.randn(2 + n_curves, n_output, n_output) * (size / (3 * n_output) ** 0.5)[:, None, None]
        self.values = nn.Parameter(value)
        self.slope = nn.Parameter(torch.ones(n_curves))
        self.offset = nn.Parameter(torch.linspace(-1.5, 1.5, n_curves))
        self.bias = nn.Parameter(torch.zeros(n_output))

    @property
    def weight(self) -> Tensor:
        """What a unit of each marker adds in the straight part, (n_output, n_markers), as of a linear layer."""
        return (self.names @ self.values[1]).T

    def forward(self, x: Tensor) -> Tensor:
        """Embed cells.

        Parameters
        ----------
        x
            Markers of each cell, NaN where it is not measured, (..., n_markers).

        Returns
        -------
        (..., n_output). A cell without any marker gets the bias.
        """
        is_measured = ~x.isnan()
        there = is_measured.to(x.dtype)
        x = torch.where(is_measured, x, 0)
        vectors = self.names @ self.values  # (2 + n_curves, n_markers, n_output)
        curves = torch.tanh(x[..., None] * self.slope.to(x.dtype) + self.offset.to(x.dtype)) * there[..., None]
        total = there @ vectors[0] + x @ vectors[1] + curves.flatten(-2) @ vectors[2:].transpose(0, 1).flatten(0, 1)
        return self.bias + total * (self.n_markers**0.5 / there.sum(-1, keepdim=True).clamp_min(1))

    def extra_repr(self) -> str:
        """Sizes, as torch prints them."""
        return f"n_markers={self.n_markers}, n_output={self.n_output}, n_curves={len(self.slope)}"


def drop_markers(x: Tensor, ptr: Tensor, seed: Tensor, *, rate: float, stream: int) -> Tensor:
    """Hide markers of whole samples, as if their panel lacked them.

    Parameters
    ----------
    x
        Markers of each cell, NaN where it is not measured, (cells, n_markers).
    ptr
        Boundaries of the samples, (samples + 1,).
    seed
        Seed of each sample, (samples,): what is drawn for it depends on nothing else.
    rate
        Largest share of the markers that a sample loses: the share is drawn evenly between 0 and this.
    stream
        Which of the independent sequences of the seed to read.

    Returns
    -------
    The cells with NaN for what is dropped; at least one measured marker of each sample stays.
    """
    n_samples, n_markers = len(seed), x.shape[1]
    places = torch.arange(n_samples + 1, device=ptr.device) * n_markers
    u = cell_uniform(seed, places, stream=stream).view(n_samples, n_markers)
    share = rate * sample_uniform(seed, stream=stream)
    first = ptr[:-1].clamp_max(max(0, len(x) - 1))
    u = torch.where(x[first].isnan(), -1.0, u)  # what is not measured cannot be the one that stays
    is_dropped = (u < share[:, None]) & (u < u.amax(dim=1, keepdim=True))
    return x.masked_fill(is_dropped.repeat_interleave(ptr.diff(), dim=0, output_size=len(x)), torch.nan)

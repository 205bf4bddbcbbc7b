r"""Attributions through a linear first layer: integrated in its output, carried back to the features once.

With :math:`h = x W + b` the path from baseline to input is a straight line in h as well, so the gradient with respect to x,
averaged along the path, is the averaged gradient with respect to h times :math:`W^\top`. A step then costs what the network
costs behind its first layer, and cells x genes are never held per step; where the input and the baseline are zero, the
attribution is zero and is not computed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from scset_tools.nn._attribution import Score, average_gradient, completeness_error, gradient
from scset_tools.nn._sparse_linear import CompressedRows, sampled_product

__all__ = ["LinearAttributions", "attribute_through_linear"]

BLOCK_BYTES = 2**24
"""Most bytes of a dense block of cells x features."""


@dataclass(frozen=True, eq=False)
class LinearAttributions:
    """Attributions of a ragged batch, kept as the gradient behind the first layer; see ``values()`` and ``sums()``.

    Of several scores at once, all shapes of cells have the scores as their first dimension, those of samples as their last.
    """

    x: Tensor | CompressedRows
    """The input, (cells, features)."""
    weight: Tensor
    """Of the first layer, (features, width)."""
    baseline: Tensor | None
    """Where the path began, (features,); None for zeros."""
    hidden_gradient: Tensor
    """Gradient with respect to the output of the first layer, averaged along the path, (cells, width)."""
    cells: Tensor
    """Contribution of each cell, summed over features, (cells,)."""
    f_input: Tensor
    """Scores of the samples, (samples,)."""
    f_baseline: Tensor
    """Scores with every cell replaced by the baseline, (samples,)."""
    completeness_error: Tensor
    """|sum of attributions - (f_input - f_baseline)| relative to |f_input - f_baseline|, (samples,)."""

    def values(self) -> Tensor:
        """Attributions of the stored values of sparse input with a baseline of zeros (n_values,), else (cells, features)."""
        if self.hidden_gradient.ndim == 3:
            return torch.stack([one.values() for one in self.split()])
        if self.baseline is None and not isinstance(self.x, Tensor):
            wide = torch.promote_types(self.x.values.dtype, self.weight.dtype)
            return sampled_product(self.x, self.hidden_gradient, self.weight).to(wide) * self.x.values.to(wide)
        blocks = [self._block(start, stop) for start, stop in self._bounds()]
        return torch.cat(blocks) if blocks else self.weight.new_zeros(0, len(self.weight))

    def sums(self, group: Tensor, n_groups: int) -> Tensor:
        """Attributions of each feature summed over groups of cells, (n_groups, features), float64.

        Parameters
        ----------
        group
            Number of the group of each cell, (cells,); cells with a negative one are left out.
        n_groups
            Number of groups.
        """
        if self.hidden_gradient.ndim == 3:
            return torch.stack([one.sums(group, n_groups) for one in self.split()])
        n_features = len(self.weight)
        out = torch.zeros(n_groups * n_features, dtype=torch.float64, device=self.weight.device)
        if self.baseline is None and not isinstance(self.x, Tensor):
            rows = torch.arange(len(group), device=group.device)
            of_value = group[torch.repeat_interleave(rows, self.x.indptr.diff(), output_size=len(self.x.values))]
            is_in = of_value >= 0
            place = of_value * n_features + self.x.indices
            out.index_add_(0, place[is_in], self.values()[is_in].double())
            return out.view(n_groups, n_features)
        out = out.view(n_groups, n_features)
        for start, stop in self._bounds():
            is_in = group[start:stop] >= 0
            out.index_add_(0, group[start:stop][is_in], self._block(start, stop)[is_in].double())
        return out

    def split(self) -> list[LinearAttributions]:
        """Those of each score, of several."""
        return [
            replace(
                self,
                hidden_gradient=self.hidden_gradient[i],
                cells=self.cells[i],
                f_input=self.f_input[:, i],
                f_baseline=self.f_baseline[:, i],
                completeness_error=self.completeness_error[:, i],
            )
            for i in range(len(self.hidden_gradient))
        ]

    def _bounds(self) -> list[tuple[int, int]]:
        n_cells = len(self.hidden_gradient)
        step = max(1, BLOCK_BYTES // (4 * max(len(self.weight), 1)))
        return [(start, min(start + step, n_cells)) for start in range(0, n_cells, step)]

    def _block(self, start: int, stop: int) -> Tensor:
        """Attributions of some cells, dense."""
        product = self.hidden_gradient[start:stop] @ self.weight.T
        if isinstance(self.x, Tensor):
            x = self.x[start:stop].to(product.dtype)
        else:
            ptr = self.x.indptr.long()[start : stop + 1]
            row = torch.repeat_interleave(torch.arange(stop - start, device=ptr.device), ptr.diff())
            at = slice(int(ptr[0]), int(ptr[-1]))
            x = torch.zeros_like(product)
            x[row, self.x.indices[at].long()] = self.x.values[at].to(product.dtype)
        return product.mul_(x if self.baseline is None else x - self.baseline.to(product.dtype))


def attribute_through_linear(
    f: Score,
    x: Tensor | CompressedRows,
    ptr: Tensor,
    *,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    baseline: Tensor | None = None,
    second: tuple[Tensor, Tensor | None] | None = None,
    n_steps: int = 50,
    is_integrated: bool = True,
) -> LinearAttributions:
    """Integrated gradients of each sample's score with respect to the input of a linear first layer.

    Parameters
    ----------
    f
        Score as a function of the output of the first layer, ``f(hidden, ptr) -> (samples,)``, or several, ``(samples, scores)``.
    x
        Cells, (cells, features), dense or in compressed rows.
    ptr
        Boundaries of the samples, (samples + 1,).
    hidden
        Output of the first layer for these cells, bias included, (cells, width).
    weight
        Of the first layer, (features, width): ``hidden = x @ weight + bias``.
    bias
        Of the first layer, (width,). Default: none.
    baseline
        Where the path starts, one vector for all cells, (features,). Zeros by default.
    second
        Weight (k, width) and bias (k,) of a linear layer that the score applies to ``hidden`` and that is better applied once than
        in every step. Then ``f`` is called with ``hidden`` and the output of this layer side by side, (cells, width + k).
    n_steps
        Number of gradients to average.
    is_integrated
        False takes the gradient at the input instead: gradient times (input - baseline).

    Returns
    -------
    LinearAttributions
        Without graphs.

    Raises
    ------
    ValueError
        If shapes disagree, or as :func:`average_gradient`.
    """
    if hidden.shape[1] != weight.shape[1] or len(hidden) != int(ptr[-1]):
        raise ValueError(
            f"hidden has shape {tuple(hidden.shape)}, but ptr ends at {int(ptr[-1])} cells and weight has shape "
            f"{tuple(weight.shape)}."
        )
    if baseline is not None and baseline.shape != weight.shape[:1]:
        raise ValueError(f"baseline must have shape ({len(weight)},), got {tuple(baseline.shape)}.")
    with torch.no_grad():
        weight, hidden = weight.detach(), hidden.detach()
        bias = weight.new_zeros(weight.shape[1]) if bias is None else bias.detach()
        start = bias if baseline is None else bias + baseline.to(weight) @ weight
        point, origin = hidden, start
        if second is not None:
            point, origin = (torch.cat([h, F.linear(h, *second)], dim=1) for h in (hidden, start[None]))
            origin = origin[0]
    if is_integrated:
        slope = average_gradient(f, point, ptr, baseline=origin, n_steps=n_steps)
    else:
        slope = gradient(f, point, ptr)
    with torch.no_grad():
        if second is not None:
            slope = slope[..., : hidden.shape[1]] + slope[..., hidden.shape[1] :] @ second[0]
        cells = ((hidden - start) * slope).sum(-1, dtype=torch.float64)
        f_input, f_baseline = f(point, ptr), f(origin.expand_as(point), ptr)
        error = completeness_error(cells, ptr, f_input=f_input, f_baseline=f_baseline)
    return LinearAttributions(x, weight, baseline, slope, cells, f_input, f_baseline, error)

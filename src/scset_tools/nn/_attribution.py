"""What each value of each cell contributes to the score of its sample: gradients and integrated gradients.

A score is any function ``f(x, ptr) -> (samples,)`` of a ragged batch in which the score of a sample depends on its own
cells alone, so one backward pass of the summed scores gives the gradients of all samples. A function may give several scores at
once, ``(samples, scores)``: they share the forward passes, and results get the scores as their first dimension. Put a network into
evaluation mode first: dropout would make every pass another function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from scset_tools.nn._ragged import sample_of_cell

Score = Callable[[Tensor, Tensor], Tensor]
"""``f(x, ptr)``: cells (cells, features) and boundaries (samples + 1,) to scores (samples,) or (samples, scores)."""


@dataclass(frozen=True, eq=False)
class IntegratedGradients:
    """Attributions of a ragged batch and how completely they account for the scores."""

    attributions: Tensor
    """Contribution of each value to the score of its sample, (cells, features), or (scores, cells, features)."""
    f_input: Tensor
    """Scores of the samples, (samples,), or (samples, scores)."""
    f_baseline: Tensor
    """Scores with every cell replaced by its baseline, of the same shape."""
    completeness_error: Tensor
    """|sum of attributions - (f_input - f_baseline)| relative to |f_input - f_baseline|, of the same shape.

    The divisor is at least a millionth of the larger of the two scores: below that a difference of scores is rounding.
    """


def gradient(f: Score, x: Tensor, ptr: Tensor) -> Tensor:
    """Gradient of each sample's score with respect to its cells.

    Parameters
    ----------
    f
        Score, ``f(x, ptr) -> (samples,)``, or several, ``(samples, scores)``.
    x
        Cells of all sets, floating point, (cells, features); not changed.
    ptr
        int64 boundaries of the sets, (samples + 1,).

    Returns
    -------
    Tensor
        (cells, features), or (scores, cells, features), without a graph. Gradients stored in the parameters of a network are not
        touched.

    Raises
    ------
    TypeError
        If ``x`` is not floating point.
    ValueError
        If ``f`` does not return one score per sample, or its scores are cut off from ``x``.
    """
    return _scores_and_gradient(f, x, ptr)[1]


def gradient_x_input(f: Score, x: Tensor, ptr: Tensor) -> Tensor:
    """Gradient times input: the first-order contribution of each value against a baseline of zeros.

    Parameters
    ----------
    f, x, ptr
        As for :func:`gradient`, with the same errors.

    Returns
    -------
    Tensor
        (cells, features), or (scores, cells, features), without a graph.
    """
    return gradient(f, x, ptr) * x.detach()


def average_gradient(f: Score, x: Tensor, ptr: Tensor, *, baseline: Tensor | None = None, n_steps: int = 50) -> Tensor:
    r"""Gradient averaged along the straight path from the baseline to the cells.

    .. math:: \bar g = \int_0^1 \nabla f(b + \alpha (x - b)) \, d\alpha \approx \sum_k w_k \nabla f(b + \alpha_k (x - b))

    with the nodes :math:`\alpha_k` and weights :math:`w_k` of Gauss and Legendre: exact where the gradient is a
    polynomial of degree below ``2 * n_steps`` along the path. Integrated gradients are :math:`(x - b) \bar g`. Where the
    first layer is linear, :math:`h = W x`, averaging over h is enough: the attribution of x is
    :math:`(x - b) (\bar g_h W)`, and the wide input is never copied per step.

    Parameters
    ----------
    f
        Score, ``f(x, ptr) -> (samples,)``, or several, ``(samples, scores)``.
    x
        Cells of all sets, floating point, (cells, features); not changed.
    ptr
        int64 boundaries of the sets, (samples + 1,).
    baseline
        Where the path starts: one vector for all cells (features,) or one per cell (cells, features). Zeros by default.
    n_steps
        Number of gradients to average. They are taken one after the other: memory is that of one forward and backward
        pass, whatever the number.

    Returns
    -------
    Tensor
        (cells, features), or (scores, cells, features), without a graph.

    Raises
    ------
    TypeError
        If ``x`` is not floating point.
    ValueError
        If ``n_steps`` is not positive, the baseline has another shape, or ``f`` is not a score (see :func:`gradient`).
    """
    if n_steps < 1:
        raise ValueError(f"n_steps must be at least 1, got {n_steps}.")
    x = x.detach()
    baseline = _full_baseline(baseline, x)
    average: Tensor | None = None
    for node, weight in zip(*_gauss_legendre(n_steps), strict=True):
        found = gradient(f, torch.lerp(baseline, x, node), ptr)
        average = found.mul_(weight) if average is None else average.add_(found, alpha=weight)
    return cast("Tensor", average)  # there is one step at least


def integrated_gradients(
    f: Score, x: Tensor, ptr: Tensor, *, baseline: Tensor | None = None, n_steps: int = 50
) -> IntegratedGradients:
    """Integrated gradients of each sample's score, with their completeness.

    The attributions of a sample sum to its score minus the score of its baseline, up to the error of the quadrature, which
    is reported: increase ``n_steps`` where it is too large.

    Parameters
    ----------
    f
        Score, ``f(x, ptr) -> (samples,)``, for instance the logit of a class, or its difference to a reference class.
    x
        Cells of all sets, floating point, (cells, features); not changed.
    ptr
        int64 boundaries of the sets, (samples + 1,).
    baseline
        What absence means: one vector for all cells (features,), for instance the mean of reference samples, or one per
        cell (cells, features). Zeros by default.
    n_steps
        Number of gradients to average; see :func:`average_gradient`.

    Returns
    -------
    IntegratedGradients
        Attributions (cells, features), both scores and the completeness error (samples,), without graphs.

    Raises
    ------
    TypeError
        If ``x`` is not floating point.
    ValueError
        As :func:`average_gradient`.

    References
    ----------
    Sundararajan, Taly, Yan (2017). Axiomatic attribution for deep networks. ICML. PaSCient, section 2.3 and Methods.
    """
    x = x.detach()
    attributions = average_gradient(f, x, ptr, baseline=baseline, n_steps=n_steps)
    baseline = _full_baseline(baseline, x)
    attributions.mul_(x - baseline)
    with torch.no_grad():
        f_input, f_baseline = f(x, ptr).detach(), f(baseline, ptr).detach()
        # Double precision: a sum over cells x genes must not add an error of its own to the one that is reported.
        cells = attributions.sum(dim=-1, dtype=torch.float64)
        error = completeness_error(cells, ptr, f_input=f_input, f_baseline=f_baseline)
    return IntegratedGradients(attributions, f_input, f_baseline, error)


def completeness_error(cells: Tensor, ptr: Tensor, *, f_input: Tensor, f_baseline: Tensor) -> Tensor:
    """How far the sum of attributions of each sample is from the difference of its scores, relative to it.

    Parameters
    ----------
    cells
        Contribution of each cell, float64, (cells,) or (scores, cells).
    ptr
        Boundaries of the samples, (samples + 1,).
    f_input, f_baseline
        Scores of the samples and of their baselines, (samples,) or (samples, scores).

    Returns
    -------
    Tensor
        Of the shape of the scores, float64. The divisor is at least a millionth of the larger score.
    """
    total = cells.new_zeros(*cells.shape[:-1], len(ptr) - 1)
    total.index_add_(-1, sample_of_cell(ptr, n_cells=cells.shape[-1]), cells)
    difference = f_input.double() - f_baseline.double()
    scale = 1e-6 * torch.maximum(f_input.abs(), f_baseline.abs()).double()
    scale = torch.maximum(difference.abs(), scale).clamp_min(torch.finfo(torch.float64).tiny)
    return (total.mT if total.ndim == 2 else total).sub_(difference).abs_().div_(scale)


def _scores_and_gradient(f: Score, x: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
    if not x.is_floating_point():
        raise TypeError(f"x must be floating point to have a gradient, got {x.dtype}.")
    # Prediction loops run under no_grad or inference_mode; a clone made outside of inference mode can be differentiated.
    with torch.inference_mode(mode=False), torch.enable_grad():
        point = x.detach().clone().requires_grad_()
        scores = f(point, ptr)
        if scores.ndim not in (1, 2) or len(scores) != len(ptr) - 1 or not scores.numel():
            raise ValueError(
                f"f must return one score per sample, shape ({len(ptr) - 1},), or several, shape ({len(ptr) - 1}, scores), got "
                f"{tuple(scores.shape)}."
            )
        columns = scores.unsqueeze(0) if scores.ndim == 1 else scores.mT
        found: list[Tensor | None] = [None]
        if scores.requires_grad:  # one forward pass for all of them
            found = [
                torch.autograd.grad(column.sum(), point, allow_unused=True, retain_graph=i + 1 < len(columns))[0]
                for i, column in enumerate(columns)
            ]
    if any(part is None for part in found):
        raise ValueError(
            "the scores of f are cut off from x: f must compute them from its argument x, without no_grad, detach or numpy."
        )
    parts = cast("list[Tensor]", found)
    return scores.detach(), parts[0] if scores.ndim == 1 else torch.stack(parts)


def _full_baseline(baseline: Tensor | None, x: Tensor) -> Tensor:
    """Baseline of every cell, (cells, features); a single vector is repeated without a copy."""
    if baseline is None:
        return torch.zeros_like(x)
    if baseline.shape not in (x.shape, x.shape[1:]):
        raise ValueError(
            f"baseline must have shape {tuple(x.shape[1:])} or {tuple(x.shape)}, got {tuple(baseline.shape)}."
        )
    return baseline.detach().to(x).expand_as(x)


def _gauss_legendre(n_nodes: int) -> tuple[list[float], list[float]]:
    """Nodes and weights on [0, 1] by Golub and Welsch: eigenvalues of the recurrence's matrix, squared first entries."""
    k = torch.arange(1, n_nodes, dtype=torch.float64)
    off_diagonal = k / torch.sqrt(4 * k**2 - 1)
    nodes, vectors = torch.linalg.eigh(torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1))
    return ((nodes + 1) / 2).tolist(), (vectors[0] ** 2).tolist()

"""From the cells of a sample to one vector by a weighted sum: mean, sum and four kinds of attention.

Every pool returns ``(pooled, weights)``. The weight of a cell depends on its own score and on the other cells of its sample
alone, so the result is the same for any order of the cells and any batch mates; nothing is padded.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import cast

import torch
from torch import Tensor, nn

from scset_tools.nn._mlp import MLP
from scset_tools.nn._ragged import accumulation_dtype, check_ptr, segment_softmax

__all__ = [
    "FeatureSoftmaxPool",
    "GatedAttentionPool",
    "LinearAttentionPool",
    "MeanPool",
    "NonLinearAttentionPool",
    "Pool",
    "SumPool",
]


class Pool(nn.Module):
    r"""Weighted sum over the cells of each sample, :math:`e_i = \sum_j w_j z_j` (PaSCient, Methods, Aggregators).

    Subclasses give the score of each cell; the weights are their softmax over the cells of the sample. A sample without cells
    gets a vector of zeros.
    """

    @abstractmethod
    def scores(self, z: Tensor) -> Tensor:
        """Scores whose softmax over a sample's cells gives the weights, (cells, 1) or (cells, features).

        Parameters
        ----------
        z
            Embedded cells, (cells, features). The score of a cell depends on itself alone.
        """

    def start_even(self) -> None:
        """Make all scores zero for now: learning begins at the mean of the cells. Does nothing where nothing is learned."""

    def score_layer(self) -> tuple[Tensor, Tensor | None] | None:
        """Weight (k, features) and bias (k,) of a linear layer that the scores begin with, if they do.

        Who evaluates the pool along a straight line of embedded cells can apply it once for all points: see :meth:`pool_scored`.
        """
        return None

    def scores_after(self, u: Tensor) -> Tensor:
        """The scores from the output of :meth:`score_layer`, (cells, 1).

        Parameters
        ----------
        u
            (cells, k).
        """
        raise NotImplementedError(f"{type(self).__name__} has no linear layer before its scores.")

    def pool_scored(self, z: Tensor, u: Tensor, ptr: Tensor) -> Tensor:
        """Pool cells whose scores begin with a linear layer that was applied before, (samples, features).

        Parameters
        ----------
        z
            Embedded cells, (cells, features).
        u
            Output of the layer of :meth:`score_layer` for them, (cells, k).
        ptr
            Boundaries of the samples, (samples + 1,).
        """
        return _weighted_sum(segment_softmax(self.scores_after(u), ptr), z, ptr)

    def forward(self, z: Tensor, ptr: Tensor, *, log_weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pool the cells of each sample.

        Parameters
        ----------
        z
            Embedded cells, (cells, features).
        ptr
            Boundaries of the samples, (samples + 1,).
        log_weight
            Log multiplicity of each cell, (cells,): ``k`` equal cells can be given once with ``log(k)``, exactly.

        Returns
        -------
        pooled
            (samples, features), dtype of ``z``.
        weights
            Of each cell, (cells, 1), or one per feature (cells, features); those of a sample sum to 1 (to the number of cells
            for :class:`SumPool`).
        """
        weights = self._weights(z, ptr, log_weight)
        return _weighted_sum(weights, z, ptr), weights

    def _weights(self, z: Tensor, ptr: Tensor, log_weight: Tensor | None) -> Tensor:
        scores = self.scores(z)
        if log_weight is not None:
            scores = scores + log_weight[:, None].to(scores.dtype)
        return segment_softmax(scores, ptr)


class MeanPool(Pool):
    """Mean of the cells: every weight is one over the number of cells."""

    def scores(self, z: Tensor) -> Tensor:
        """Zero for every cell, (cells, 1).

        Parameters
        ----------
        z
            Embedded cells, (cells, features).
        """
        return z.new_zeros(len(z), 1)


class SumPool(Pool):
    """Sum of the cells (DeepSets): every weight is 1, so the vector grows with the number of cells."""

    def scores(self, z: Tensor) -> Tensor:
        """Zero for every cell, (cells, 1): their logarithm of the weight, which is not normalised.

        Parameters
        ----------
        z
            Embedded cells, (cells, features).
        """
        return z.new_zeros(len(z), 1)

    def _weights(self, z: Tensor, ptr: Tensor, log_weight: Tensor | None) -> Tensor:
        scores = self.scores(z)
        return (scores if log_weight is None else scores + log_weight[:, None].to(z.dtype)).exp()


class LinearAttentionPool(Pool):
    r"""Softmax of a linear score, :math:`w = \mathrm{softmax}_j(a^\top z_j)`: one weight per cell.

    The paper names this "linear attention"; its code computes :class:`FeatureSoftmaxPool` instead.

    Parameters
    ----------
    n_input
        Features of an embedded cell.
    """

    def __init__(self, n_input: int) -> None:
        super().__init__()
        self.score = nn.Linear(n_input, 1, bias=False)  # a constant added to every score changes no weight

    def scores(self, z: Tensor) -> Tensor:
        """Linear score of each cell, (cells, 1).

        Parameters
        ----------
        z
            Embedded cells, (cells, features).
        """
        return self.score(z)

    def start_even(self) -> None:
        """Make all scores zero for now: learning begins at the mean of the cells."""
        _zero_last(self.score)

    def score_layer(self) -> tuple[Tensor, Tensor | None]:
        """Of the score itself."""
        return self.score.weight, None

    def scores_after(self, u: Tensor) -> Tensor:
        """The scores, (cells, 1).

        Parameters
        ----------
        u
            (cells, 1).
        """
        return u


class FeatureSoftmaxPool(Pool):
    r"""Softmax over cells for each feature by itself, :math:`w_{jf} = \mathrm{softmax}_j(z_{jf})`; no parameters.

    What PaSCient's published code computes under the name of linear attention: a soft maximum over cells of every feature.
    """

    def scores(self, z: Tensor) -> Tensor:
        """The embedded cells themselves, (cells, features).

        Parameters
        ----------
        z
            Embedded cells, (cells, features).
        """
        return z


class NonLinearAttentionPool(Pool):
    r"""Softmax of the score of a small network, :math:`w = \mathrm{softmax}_j(a_\theta(z_j))` (PaSCient, eq. 1-2).

    Parameters
    ----------
    n_input
        Features of an embedded cell.
    n_hidden
        Width of the network's hidden layer. Default: ``n_input``, as in the paper's code.
    activation
        After the hidden layer.
    """

    def __init__(self, n_input: int, *, n_hidden: int | None = None, activation: type[nn.Module] = nn.Tanh) -> None:
        super().__init__()
        self.score = MLP(n_input, 1, n_hidden=n_hidden or n_input, activation=activation)

    def scores(self, z: Tensor) -> Tensor:
        """Score of each cell by the network, (cells, 1).

        Parameters
        ----------
        z
            Embedded cells, (cells, features).
        """
        return self.score(z)

    def start_even(self) -> None:
        """Make all scores zero for now: learning begins at the mean of the cells."""
        _zero_last(self.score)

    def score_layer(self) -> tuple[Tensor, Tensor | None]:
        """Of the network's hidden layer."""
        first = _first(self.score)
        return first.weight, first.bias

    def scores_after(self, u: Tensor) -> Tensor:
        """The scores, (cells, 1).

        Parameters
        ----------
        u
            Hidden layer before its activation, (cells, n_hidden).
        """
        return _after_first(self.score, u)


class GatedAttentionPool(Pool):
    r"""Gated attention, :math:`w = \mathrm{softmax}_j(a^\top (\tanh(V z_j) \odot \sigma(U z_j)))` (ABMIL, eq. 9).

    Parameters
    ----------
    n_input
        Features of an embedded cell.
    n_hidden
        Width of the two branches.
    is_gate_scalar
        Whether to follow PaSCient's formula instead, :math:`w = \mathrm{softmax}_j(U_\theta(z_j)\,\sigma(V_\theta(z_j)))`,
        in which two networks with one hidden layer give one number each.

    References
    ----------
    Ilse, Tomczak, Welling (2018). Attention-based deep multiple instance learning. ICML. PaSCient, Methods, Aggregators.
    """

    def __init__(self, n_input: int, *, n_hidden: int = 128, is_gate_scalar: bool = False) -> None:
        super().__init__()
        self.is_gate_scalar = is_gate_scalar
        self.value: nn.Module
        self.gate: nn.Module
        if is_gate_scalar:
            self.value = MLP(n_input, 1, n_hidden=n_hidden, activation=nn.Tanh)
            self.gate = MLP(n_input, 1, n_hidden=n_hidden, activation=nn.Tanh)
        else:
            self.value, self.gate = nn.Linear(n_input, n_hidden), nn.Linear(n_input, n_hidden)
            self.score = nn.Linear(n_hidden, 1, bias=False)  # a constant added to every score changes no weight

    def scores(self, z: Tensor) -> Tensor:
        """Gated score of each cell, (cells, 1).

        Parameters
        ----------
        z
            Embedded cells, (cells, features).
        """
        gate = self.gate(z).sigmoid()
        return self.value(z) * gate if self.is_gate_scalar else self.score(self.value(z).tanh() * gate)

    def start_even(self) -> None:
        """Make all scores zero for now: learning begins at the mean of the cells."""
        _zero_last(self.value if self.is_gate_scalar else self.score)

    def score_layer(self) -> tuple[Tensor, Tensor | None]:
        """Of both branches, one after the other."""
        value, gate = _first(self.value), _first(self.gate)
        return torch.cat([value.weight, gate.weight]), torch.cat([value.bias, gate.bias])

    def scores_after(self, u: Tensor) -> Tensor:
        """The scores, (cells, 1).

        Parameters
        ----------
        u
            Both branches before their activation, (cells, 2 * n_hidden).
        """
        value, gate = u.chunk(2, dim=1)
        if self.is_gate_scalar:
            return _after_first(self.value, value) * _after_first(self.gate, gate).sigmoid()
        return self.score(value.tanh() * gate.sigmoid())


def _zero_last(network: nn.Module) -> None:
    """Zero the linear layer that a network ends with, or is: its output is zero until it has learned."""
    last = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
    for p in last.parameters():
        nn.init.zeros_(p)


def _first(network: nn.Module) -> nn.Linear:
    """The linear layer that a network begins with, or is."""
    return cast("nn.Linear", network[0] if isinstance(network, MLP) else network)


def _after_first(network: MLP, u: Tensor) -> Tensor:
    """The layers past the first one."""
    for layer in list(network)[1:]:
        u = layer(u)
    return u


def _weighted_sum(weights: Tensor, z: Tensor, ptr: Tensor) -> Tensor:
    counts = check_ptr(z, ptr)
    if not counts:
        return z.new_zeros(0, z.shape[1])
    wide = accumulation_dtype(z)
    parts = zip(weights.split(counts), z.split(counts), strict=True)
    if weights.shape[1] == 1 and z.shape[1] != 1:  # a product of matrices does not store the weighted cells
        return torch.cat([w.T.to(z.dtype) @ part for w, part in parts]).to(z.dtype)
    return torch.stack([(w.to(wide) * part.to(wide)).sum(0) for w, part in parts]).to(z.dtype)

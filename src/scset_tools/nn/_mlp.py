"""Multilayer perceptron and the projection head of self-distillation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MLP(nn.Sequential):
    """Linear layers with an activation and dropout between them.

    Parameters
    ----------
    n_in
        Input features.
    n_out
        Output features.
    n_hidden
        Width of the hidden layers.
    n_layers
        Number of hidden layers; 0 gives a single linear layer.
    activation
        Makes the activation after each hidden layer, for instance ``nn.GELU`` or ``nn.PReLU``. The output has none.
    dropout_rate
        Dropout after each activation, in [0, 1).

    Raises
    ------
    ValueError
        If ``n_layers`` is negative.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        n_hidden: int = 128,
        n_layers: int = 1,
        activation: Callable[[], nn.Module] = nn.GELU,
        dropout_rate: float = 0.0,
    ) -> None:
        if n_layers < 0:
            raise ValueError(f"n_layers must be 0 or larger, got {n_layers}.")
        layers: list[nn.Module] = []
        width = n_in
        for _ in range(n_layers):
            layers += [nn.Linear(width, n_hidden), activation(), nn.Dropout(dropout_rate)]
            width = n_hidden
        super().__init__(*layers, nn.Linear(width, n_out))


class ProjectionHead(nn.Module):
    """Non-linear head on a sample's vector, for self-distillation (MAESTRO F.2; the form of DINO).

    An MLP with GELU leads to a bottleneck, which is scaled to length 1; the output is the product with ``n_out``
    prototypes of length 1 and no bias. Each output is therefore a cosine similarity in [-1, 1], so the temperatures of
    the loss alone decide how sharp the softmax is.

    Parameters
    ----------
    n_in
        Features of the vector of a sample.
    n_out
        Number of prototypes, the classes of the softmax.
    n_hidden
        Width of the hidden layers.
    n_bottleneck
        Width of the bottleneck.
    n_layers
        Number of hidden layers.
    dropout_rate
        Dropout after each hidden layer.

    Notes
    -----
    The last layer is weight normalisation with the lengths held at 1, written as a normalised product with one
    parameter, ``prototype``, instead of ``torch.nn.utils.parametrizations.weight_norm``: that one adds a second parameter
    (the lengths) that would have to be frozen, names its tensors ``parametrizations.weight.original0/1`` in checkpoints,
    and a module that holds it cannot be pickled, which spawned workers need. Here copy, save, pickle and the moving
    average (of the unnormalised vectors, as in DINO) are those of an ordinary parameter.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        n_hidden: int = 128,
        n_bottleneck: int = 64,
        n_layers: int = 2,
        dropout_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.mlp = MLP(
            n_in,
            n_bottleneck,
            n_hidden=n_hidden,
            n_layers=n_layers,
            dropout_rate=dropout_rate,
        )
        # Directions of a Gaussian are uniform on the sphere; the length, which does not matter for the output, sets how
        # fast the direction turns, and 1 keeps it equal for every width.
        self.prototype = nn.Parameter(F.normalize(torch.randn(n_out, n_bottleneck), dim=1))

    def forward(self, z: Tensor) -> Tensor:
        """Map vectors of samples to logits.

        Parameters
        ----------
        z
            (..., n_in).

        Returns
        -------
        Tensor
            Cosine similarities to the prototypes, (..., n_out), in [-1, 1].
        """
        bottleneck = F.normalize(self.mlp(z), dim=-1)
        return F.linear(bottleneck, F.normalize(self.prototype, dim=1))

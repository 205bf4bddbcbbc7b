"""Vectors of samples whitened in part, so that the few directions of largest variance do not outweigh all others."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor, nn

from scset_tools.model._inference import represent_samples

MIN_SAMPLES = 3
"""With fewer samples there is no spectrum to flatten."""
MAX_SAMPLES = 1_024
"""Most samples that the map is found from."""
CELLS_OF_WHITENING = 1_000
"""Most cells of a sample whose vector it is found from."""


class PartialWhitening(nn.Module):
    r"""A linear map of vectors that takes part of the differences between the variances of their directions away.

    .. math:: z' = m + a\, \hat\Sigma^{-q/2} (z - m), \qquad \hat\Sigma = (1 - \rho) S + \rho\, \tfrac{\mathrm{tr} S}{d} I

    with the mean :math:`m` and covariance :math:`S` of the training samples' vectors, shrunk by the :math:`\rho` of Ledoit and Wolf (2004),
    which is near 1 where samples are few, and :math:`a` such that their total variance stays. Of a variance the power :math:`1 - q`
    is left. The map is symmetric and has an inverse: what is decoded or explained is the same. Before :meth:`fit` it is the identity.

    Parameters
    ----------
    n_latent
        Length of the vectors.
    degree
        :math:`q`, from 0 (as they are) to 1 (white).
    """

    location: Tensor
    matrix: Tensor
    inverse: Tensor

    def __init__(self, n_latent: int, degree: float) -> None:
        super().__init__()
        self.degree = degree
        self.register_buffer("location", torch.zeros(n_latent))
        self.register_buffer("matrix", torch.eye(n_latent))
        self.register_buffer("inverse", torch.eye(n_latent))

    def forward(self, z: Tensor) -> Tensor:
        """Whiten vectors, (samples, n_latent)."""
        location = self.location.to(z.dtype)
        return location + (z - location) @ self.matrix.to(z.dtype)

    def undo(self, z: Tensor) -> Tensor:
        """The vectors that :meth:`forward` gives ``z`` of, (samples, n_latent)."""
        location = self.location.to(z.dtype)
        return location + (z - location) @ self.inverse.to(z.dtype)

    @torch.no_grad()
    def reset(self) -> None:
        """Be the identity."""
        self.location.zero_()
        self.matrix.copy_(torch.eye(len(self.location)))
        self.inverse.copy_(torch.eye(len(self.location)))

    @torch.no_grad()
    def fit(self, z: np.ndarray) -> None:
        """Find the map from vectors of samples, which are not whitened yet; with fewer than three, or equal ones, it is the identity.

        Parameters
        ----------
        z
            Vectors, (samples, n_latent).
        """
        z = np.asarray(z, dtype=np.float64)
        location = z.mean(axis=0)
        centred = z - location
        variance, axes = np.linalg.eigh(centred.T @ centred / max(1, len(z)))
        variance = variance.clip(0)
        if len(z) < MIN_SAMPLES or variance.sum() <= 1e-12 * max(1e-12, float(np.square(location).sum())):
            self.reset()
            return
        shrinkage = ledoit_wolf_shrinkage(centred, assume_centered=True)
        shrunk = (1 - shrinkage) * variance + shrinkage * variance.mean()
        shrunk = np.maximum(shrunk, 1e-9 * shrunk.max())  # a sample more than dimensions may lie in a subspace
        gain = shrunk ** (-self.degree / 2)
        gain *= np.sqrt(variance.sum() / (variance * gain**2).sum())
        self.location.copy_(torch.from_numpy(location))
        self.matrix.copy_(torch.from_numpy((axes * gain) @ axes.T))
        self.inverse.copy_(torch.from_numpy((axes / gain) @ axes.T))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # a model that was saved before there was a map has none
        for name, value in self.named_buffers():
            state_dict.setdefault(prefix + name, value.detach().clone())
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """What torch prints."""
        return f"n_latent={len(self.location)}, degree={self.degree}"


def fit_whitening(model: Any, samples: np.ndarray, *, seed: int) -> None:
    """Find the map of a trained model from its training samples.

    Parameters
    ----------
    model
        Model whose module has a ``whitening``, or None.
    samples
        Names of the samples.
    seed
        Of the draw of their cells, if they have many.
    """
    whitening = model.module.whitening
    if whitening is None:
        return
    whitening.reset()
    dataset = model._dataset(model.adata, CELLS_OF_WHITENING, seed=seed)
    positions = dataset.index.positions(samples)
    positions = positions[np.linspace(0, len(positions) - 1, min(len(positions), MAX_SAMPLES)).round().astype(int)]
    whitening.fit(represent_samples(model.module, dataset, positions, batch_size=16))

"""Vectors of samples about the mean of their batch, and whitened in part: no batch, no few directions and no noise outweigh all others."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor, nn

from scset_tools.model._inference import represent_samples
from scset_tools.model._moments import batch_codes

MIN_SAMPLES = 3
"""With fewer samples there is no spectrum to flatten."""
MAX_SAMPLES = 1_024
"""Most samples that the map is found from."""
CELLS_OF_WHITENING = 1_000
"""Most cells of a sample whose vector it is found from."""
LEAST_RELIABILITY = 0.2
"""What is left of a direction that is all noise: the map has an inverse, and reliabilities are found from few samples."""


class PartialWhitening(nn.Module):
    r"""A linear map of vectors that takes part of the differences between the variances of their directions away.

    .. math:: z' = m + a\, \hat\Sigma^{-q/2} R\, (z - m), \qquad \hat\Sigma = (1 - \rho) S + \rho\, \tfrac{\mathrm{tr} S}{d} I

    with the mean :math:`m` and covariance :math:`S` of the training samples' vectors, shrunk by the :math:`\rho` of Ledoit and Wolf (2004),
    which is near 1 where samples are few, and :math:`a` such that their total variance stays. Of a variance the power :math:`1 - q`
    is left. The map is symmetric and has an inverse: what is decoded or explained is the same. Before :meth:`fit` it is the identity.

    Whitening alone would raise what differs little between samples, and that is first of all the chance of which cells were drawn.
    So a direction :math:`u_i` of :math:`S` is multiplied by its reliability, as a Wiener filter does,

    .. math:: r_i = \max\left(0.2,\; 1 - \frac{u_i^\top \hat N u_i}{u_i^\top \hat\Sigma u_i}\right),

    with the covariance :math:`\hat N` of that chance (:func:`noise_of_draws`), shrunk as :math:`\hat\Sigma` is. With thousands of cells in each
    sample it is next to 1.

    With several batches :math:`z` is first taken to the average batch: less :func:`batch_effects`. Cells about the mean of their batch
    can still differ by it: in the shares of their kinds, and in how each kind lies.

    Parameters
    ----------
    n_latent
        Length of the vectors.
    degree
        :math:`q`, from 0 (as they are) to 1 (white).
    n_batches
        Number of batches.
    """

    shift: Tensor
    location: Tensor
    matrix: Tensor
    inverse: Tensor

    def __init__(self, n_latent: int, degree: float, n_batches: int = 1) -> None:
        super().__init__()
        self.degree = degree
        self.register_buffer("shift", torch.zeros(n_batches, n_latent))
        self.register_buffer("location", torch.zeros(n_latent))
        self.register_buffer("matrix", torch.eye(n_latent))
        self.register_buffer("inverse", torch.eye(n_latent))

    def forward(self, z: Tensor, batches: Tensor | None = None) -> Tensor:
        """Whiten vectors, (samples, n_latent).

        Parameters
        ----------
        z
            Vectors, (samples, n_latent).
        batches
            Share of each batch in the cells of each sample, (samples, batches), where there are several batches.
        """
        if batches is not None:
            z = z - batches.to(z.dtype) @ self.shift.to(z.dtype)
        location = self.location.to(z.dtype)
        return location + (z - location) @ self.matrix.to(z.dtype)

    def undo(self, z: Tensor) -> Tensor:
        """The vectors of the average batch that :meth:`forward` gives ``z`` of, (samples, n_latent)."""
        location = self.location.to(z.dtype)
        return location + (z - location) @ self.inverse.to(z.dtype)

    @torch.no_grad()
    def reset(self) -> None:
        """Be the identity."""
        self.shift.zero_()
        self.location.zero_()
        self.matrix.copy_(torch.eye(len(self.location)))
        self.inverse.copy_(torch.eye(len(self.location)))

    @torch.no_grad()
    def fit(self, z: np.ndarray, batch: np.ndarray | None = None, *, noise: np.ndarray | None = None) -> None:
        """Find the map from vectors of samples, which are not whitened yet; with fewer than three, or equal ones, it is the identity.

        Parameters
        ----------
        z
            Vectors, (samples, n_latent).
        batch
            Number of the batch of each sample, (samples,), where there are several.
        noise
            Covariance of vectors over draws of cells, (n_latent, n_latent). Default: zero.
        """
        z = np.asarray(z, dtype=np.float64)
        effects = np.zeros(self.shift.shape) if batch is None else batch_effects(z, batch, n_batches=len(self.shift))
        z = z if batch is None else z - effects[batch]
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
        if noise is not None:
            of_draws = np.einsum("ji,jk,ki->i", axes, noise, axes)
            # along which axes samples do not vary is left to rounding where they are fewer than dimensions: that space counts as one
            is_null = variance <= 1e-10 * variance.max()
            of_draws[is_null] = of_draws[is_null].sum() / max(1, is_null.sum())
            of_draws = (1 - shrinkage) * of_draws + shrinkage * of_draws.mean()
            gain *= np.clip(1 - of_draws / shrunk, LEAST_RELIABILITY, 1)
        gain *= np.sqrt(variance.sum() / (variance * gain**2).sum())
        self.shift.copy_(torch.from_numpy(effects))
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


def batch_effects(z: np.ndarray, batch: np.ndarray, *, n_batches: int) -> np.ndarray:
    r"""What batches add to vectors, as a random effect of one variance in all directions, (batches, n_latent).

    The mean of a batch of :math:`n_b` samples less that of all, times :math:`n_b \sigma_b^2 / (n_b \sigma_b^2 + \sigma^2)` (the best linear
    unbiased prediction; Robinson 1991), with the variances between and within batches as in the analysis of variance. Batches that
    differ no more than samples do add nothing, and those of few samples little.

    Parameters
    ----------
    z
        Vectors, (samples, n_latent).
    batch
        Number of the batch of each sample, (samples,).
    n_batches
        Number of batches, some of which may have no sample.
    """
    n = np.bincount(batch, minlength=n_batches)
    is_there, n_samples = n > 0, len(z)
    n_there = int(is_there.sum())
    out = np.zeros((n_batches, z.shape[1]))
    if n_there < 2 or n_there == n_samples:
        return out
    np.add.at(out, batch, z)
    out[is_there] = out[is_there] / n[is_there, None] - z.mean(axis=0)
    within = np.square(z - z.mean(axis=0) - out[batch]).sum() / (n_samples - n_there)
    between = (n[:, None] * np.square(out)).sum() / (n_there - 1)
    variance = max(0.0, (between - within) / ((n_samples - np.square(n).sum() / n_samples) / (n_there - 1)))
    total = n * variance + within
    return out * np.divide(n * variance, total, out=np.zeros(n_batches), where=total > 0)[:, None]


def noise_of_draws(
    first: np.ndarray, second: np.ndarray, sizes: np.ndarray, *, n_drawn: int, n_used: int
) -> np.ndarray:
    r"""Covariance of the vectors of samples over which cells a sample happens to hold, (n_latent, n_latent).

    Two draws of :math:`m` of the :math:`n` cells of a sample differ by a variance of :math:`2 \sigma^2 (1/m - 1/n)` where a vector is a mean over
    cells of variance :math:`\sigma^2`; a vector of :math:`N` cells has :math:`\sigma^2 / N`. Their ratio times the products of the differences is averaged over
    samples.

    Parameters
    ----------
    first, second
        Vectors of two draws of the same samples, (samples, n_latent).
    sizes
        Cells of each sample, more than ``n_drawn``.
    n_drawn
        Cells of a sample in a draw, :math:`m`.
    n_used
        Most cells of the vectors that are judged.
    """
    ratio = 1 / np.minimum(sizes, n_used) / (2 * (1 / n_drawn - 1 / sizes))
    apart = first.astype(np.float64) - second
    return (ratio[:, None] * apart).T @ apart / len(apart)


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
    batch = None
    if len(whitening.shift) > 1:
        codes = batch_codes(model)
        batch = np.array([np.bincount(codes[dataset.rows_of(int(p))]).argmax() for p in positions])
    z = represent_samples(model.module, dataset, positions, batch_size=16)
    whitening.fit(z, batch, noise=_noise(model, dataset.index.sizes, positions, seed=seed))


def _noise(model: Any, sizes: np.ndarray, positions: np.ndarray, *, seed: int) -> np.ndarray | None:
    """That of the vectors of samples, from two draws of half of the cells of all but the smallest tenth; None for too few cells."""
    n_drawn = int(min(CELLS_OF_WHITENING, np.quantile(sizes[positions], 0.1)) // 2)
    positions = positions[sizes[positions] >= 2 * n_drawn]
    if n_drawn == 0 or len(positions) < MIN_SAMPLES:
        return None
    first, second = (
        represent_samples(model.module, model._dataset(model.adata, n_drawn, seed=seed + i), positions, batch_size=16)
        for i in (1, 2)
    )
    return noise_of_draws(first, second, sizes[positions], n_drawn=n_drawn, n_used=CELLS_OF_WHITENING)

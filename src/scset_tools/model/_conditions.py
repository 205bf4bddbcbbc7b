"""Covariates as part of what a decoder is told of a sample, and their absence from its vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scset_tools.data._batch import SampleBatch
from scset_tools.nn import sample_uniform

InBatch = Sequence[tuple[str, int, bool]]
"""Key in a batch, number of classes (0: a number) and whether it is one of cells, of each covariate."""

STREAM_DROP = 30
"""Sequence of a sample's seed from which it is drawn what is left unsaid; one more for each covariate."""


class Conditions(nn.Module):
    """Embeds covariates; what is not known, or left unsaid, has an embedding of its own.

    Parameters
    ----------
    n_classes
        Number of classes of each covariate; 0 for a number.
    n_latent
        Length of a sample's vector, to which the embedding is added.
    moments
        Mean and standard deviation of each number over the training samples, (covariates, 2); 0 and 1 for classes.
    dropout_rate
        Share of the samples of a step of which nothing is said, and share of the others in which each covariate is left unsaid.
    """

    moments: Tensor

    def __init__(self, n_classes: Sequence[int], n_latent: int, *, moments: Tensor, dropout_rate: float) -> None:
        super().__init__()
        self.n_classes, self.dropout_rate = tuple(n_classes), dropout_rate
        self.register_buffer("moments", moments)
        self.embeddings = nn.ModuleList(
            nn.Embedding(n, n_latent)
            if n
            else nn.Sequential(nn.Linear(1, n_latent), nn.SiLU(), nn.Linear(n_latent, n_latent))
            for n in n_classes
        )
        self.unsaid = nn.Parameter(torch.zeros(len(self.n_classes), n_latent))

    def forward(self, values: Tensor) -> Tensor:
        """What is added to the vectors, (rows, n_latent).

        Parameters
        ----------
        values
            Codes of classes and numbers, NaN where unsaid, (rows, covariates), float64.
        """
        is_said = ~values.isnan()
        out = self.unsaid.new_zeros(len(values), self.unsaid.shape[1])
        for i, (n, embed) in enumerate(zip(self.n_classes, self.embeddings, strict=True)):
            value = values[:, i].nan_to_num()
            if n:
                embedded = embed(value.long())
            else:
                embedded = embed(((value - self.moments[i, 0]) / self.moments[i, 1]).to(out.dtype)[:, None])
            out = out + torch.where(is_said[:, i, None], embedded, self.unsaid[i])
        return out

    def drop(self, values: Tensor, seed: Tensor) -> Tensor:
        """The values with some left unsaid: all of a sample, or some, each at the rate ``dropout_rate``.

        Parameters
        ----------
        values
            As for ``forward``, one row for each sample.
        seed
            Seed of each sample, int64 (samples,).
        """
        if not self.dropout_rate:
            return values
        is_bare = sample_uniform(seed, stream=STREAM_DROP) < self.dropout_rate
        each = [sample_uniform(seed, stream=STREAM_DROP + 1 + i) < self.dropout_rate for i in range(values.shape[1])]
        return values.masked_fill(torch.stack(each, 1) | is_bare[:, None], torch.nan)


def conditions_of(
    covariates: InBatch, n_latent: int, *, moments: Tensor | None, dropout_rate: float
) -> Conditions | None:
    """What embeds the covariates of a module; None if there are none.

    Parameters
    ----------
    covariates
        As modules know them.
    n_latent
        Length of a sample's vector.
    moments
        Mean and standard deviation of each number, (covariates, 2); None: 0 and 1.
    dropout_rate
        As of :class:`Conditions`.
    """
    if not covariates:
        return None
    moments = torch.tensor([[0.0, 1.0]] * len(covariates)) if moments is None else moments
    return Conditions([n for _, n, _ in covariates], n_latent, moments=moments, dropout_rate=dropout_rate)


def values_in(batch: SampleBatch, covariates: InBatch) -> Tensor:
    """Covariates of the samples of a batch: codes and numbers, NaN where missing or of cells, (samples, covariates), float64."""
    columns = []
    for key, n_classes, is_cell in covariates:
        if is_cell:
            columns.append(torch.full((batch.n_samples,), torch.nan, dtype=torch.float64, device=batch.ptr.device))
            continue
        value = batch.labels[key].to(torch.float64)
        columns.append(value.masked_fill(value < 0, torch.nan) if n_classes else value)
    return torch.stack(columns, 1)


def dependences(z: Tensor, values: Tensor, *, covariates: InBatch, weights: Sequence[float]) -> tuple[Tensor, Tensor]:
    """How much vectors depend on the covariates that have a weight: the mean, and the weighted sum, which is added to a loss.

    Parameters
    ----------
    z
        Vectors, (samples, n_latent).
    values
        From :func:`values_in`.
    covariates
        As modules know them.
    weights
        Weight of each.
    """
    found = [
        (weight, dependence(z.float(), values[:, i], n_classes))
        for i, ((_, n_classes, _), weight) in enumerate(zip(covariates, weights, strict=True))
        if weight
    ]
    each = torch.stack([s for _, s in found])
    return each.mean(), torch.stack([weight * s for weight, s in found]).sum()


def dependence(z: Tensor, values: Tensor, n_classes: int) -> Tensor:
    r"""How much vectors and a covariate depend on each other in a batch, 0 to 1: normalised HSIC.

    :math:`\langle HKH, HLH \rangle / (\lVert HKH \rVert \lVert HLH \rVert)`, with a Gaussian kernel K of the vectors, as wide as the median
    distance, and L that of equal classes, or the product of standardised numbers. Zero, of all samples, only where the distribution of the
    vectors is the same for all classes. Of a batch it is above that by chance.

    Parameters
    ----------
    z
        Vectors, (samples, n_latent).
    values
        Codes of classes, or numbers; samples with NaN take no part; (samples,).
    n_classes
        Number of classes; 0 for a number.

    References
    ----------
    Gretton, Bousquet, Smola, Schoelkopf (2005). Measuring statistical dependence with Hilbert-Schmidt norms. ALT.
    Cortes, Mohri, Rostamizadeh (2012). Algorithms for learning kernels based on centered alignment. JMLR.
    """
    # what is not known is left out by its weight: to pick the others, a GPU would have to say how many they are
    is_known = ~values.isnan()
    n = is_known.sum()
    pair = is_known[:, None] & is_known[None]
    low, high = values.masked_fill(~is_known, torch.inf).min(), values.masked_fill(~is_known, -torch.inf).max()
    says_nothing = (n < 3) | (low == high)
    share = is_known.to(z.dtype) / n.clamp_min(1)
    values = values.nan_to_num()
    apart = (z[:, None] - z[None]).square().sum(2)
    width = apart.detach().masked_fill(~pair, torch.nan).nanmedian().nan_to_num()
    k = torch.exp(-apart / width.clamp(min=1e-12))
    if n_classes:
        same = (values[:, None] == values[None]).to(z.dtype)
    else:
        x = (values - (values * is_known).sum() / n.clamp_min(1)).to(z.dtype)
        same = x[:, None] * x[None]
    k, same = ((m - (share @ m) - (m @ share)[:, None] + share @ m @ share).masked_fill(~pair, 0) for m in (k, same))
    size = (k.square().sum() * same.square().sum()).masked_fill(says_nothing, 1).clamp(min=1e-24).sqrt()
    return ((k * same).sum() / size).masked_fill(says_nothing, 0)


def without_effects(z: Tensor, values: Tensor, *, covariates: InBatch, weights: Sequence[float]) -> Tensor:
    """Vectors of a batch less the linear effects of the covariates that have a weight, as z.

    What a least-squares fit to centred indicators of classes and to numbers explains is subtracted; a sample of which a covariate is missing
    counts as its mean.

    Parameters
    ----------
    z
        Vectors, (..., samples, n_latent).
    values
        From :func:`values_in`.
    covariates
        As modules know them.
    weights
        Weight of each; 0 leaves its effect where it is.
    """
    columns = []
    for i, ((_, n_classes, _), weight) in enumerate(zip(covariates, weights, strict=True)):
        value = values[:, i]
        if not weight:
            continue
        is_known = ~value.isnan()[:, None]
        value = value.nan_to_num()[:, None]
        block = (value == torch.arange(n_classes, device=z.device)).double() if n_classes else value
        mean = (block * is_known).sum(0) / is_known.sum().clamp_min(
            1
        )  # by weight, as no GPU can be asked for some rows
        column = (block - mean) * is_known
        # what is constant but for rounding has no effect
        columns.append(column.masked_fill(column.norm(dim=0) <= 1e-8 * (block * is_known).norm(dim=0), 0))
    if not columns:
        return z
    basis = _basis(torch.cat(columns, 1))
    return z - (basis @ (basis.T @ z.double())).to(z.dtype)


def _basis(design: Tensor) -> Tensor:
    """Orthonormal columns that span those of a matrix, float64 (rows, columns), and zeros in the place of those that add nothing.

    By Gram and Schmidt, twice: the indicators of all classes add up to a constant, and a pseudo-inverse would have a GPU say whether its
    iterations have converged.
    """
    found = design.new_zeros(len(design), 0)
    for column in (design / design.norm(dim=0).clamp_min(1e-300)).unbind(1):
        for _ in range(2):
            column = column - found @ (found.T @ column)
        norm = column.norm()
        found = torch.cat([found, (column / norm.clamp_min(1e-8)).masked_fill(norm <= 1e-8, 0)[:, None]], 1)
    return found

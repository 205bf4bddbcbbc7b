"""Covariates as part of what the denoiser is told of a sample, and their absence from its vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scset_tools.nn import sample_uniform

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
    is_known = ~values.isnan()
    z, values = z[is_known], values[is_known]
    if len(z) < 3 or (values == values[0]).all():
        return z.sum() * 0.0
    apart = (z[:, None] - z[None]).square().sum(2)
    k = torch.exp(-apart / apart.detach().median().clamp(min=1e-12))
    if n_classes:
        same = (values[:, None] == values[None]).to(z.dtype)
    else:
        x = (values - values.mean()).to(z.dtype)
        same = x[:, None] * x[None]
    k, same = (m - m.mean(0) - m.mean(1, keepdim=True) + m.mean() for m in (k, same))
    return (k * same).sum() / (k.square().sum() * same.square().sum()).sqrt().clamp(min=1e-12)

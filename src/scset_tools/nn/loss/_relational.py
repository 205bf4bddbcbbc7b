"""Agreement of two views of the same samples that cannot collapse: their geometry, not their values alone, is kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["RelationalLoss"]


class RelationalLoss(nn.Module):
    r"""Let the vectors of views lie to each other as those of the teacher do, sample by sample.

    With centred vectors of the views Z and of the teacher T, one row per sample of the batch, and their inner products
    :math:`G = Z Z^\top` and :math:`H = T T^\top`, both at mean diagonal 1 and with :math:`\rho` added to the diagonal,

    .. math:: L = \frac{1}{n} \left( \mathrm{tr}(H^{-1} G) - \log\det(H^{-1} G) - n \right)
              + \frac{\lVert Z - T \rVert^2}{\lVert T \rVert^2}

    The first term is Stein's loss, twice the divergence per sample of two Gaussian processes over the samples. It weighs each
    direction in which samples differ by its own size: a direction that is lost costs, however small it is, so vectors cannot collapse, and
    a direction that is blown up costs as well, so samples are not pushed evenly apart. It is zero, and pulls no more, once the
    geometry agrees. The second term is the share of the variance between samples that a view disagrees on.

    Parameters
    ----------
    ridge
        :math:`\rho`: directions with less than this share of the variance of a sample are not told from noise.

    Raises
    ------
    ValueError
        If ``ridge`` is not positive.
    """

    def __init__(self, *, ridge: float = 0.05) -> None:
        super().__init__()
        if ridge <= 0:
            raise ValueError(f"ridge must be above 0, got {ridge}.")
        self.ridge = ridge

    def forward(self, z: Tensor, teacher: Tensor) -> Tensor:
        """Compare views of samples with what the teacher sees of them.

        Parameters
        ----------
        z
            Vectors of the views, (views of a sample, samples, n_latent).
        teacher
            Vectors of the teacher, (samples, n_latent); no gradient flows to them.

        Returns
        -------
        Tensor
            Scalar, float32, at least 0, the mean over views; zero, with a graph, for fewer than two samples, between which there
            is no geometry.
        """
        n = teacher.shape[0]
        if n < 2:
            return 0 * z.sum().float()
        # a determinant of nearly dependent rows has no digits to spare
        z, teacher = _centred(z.double()), _centred(teacher.detach().double())
        target, gram = self._gram(teacher), self._gram(z)
        inverse = torch.cholesky_inverse(_cholesky(target))
        stein = (inverse * gram).sum((-2, -1)) - torch.logdet(gram) + torch.logdet(target) - n
        disagreement = (z - teacher).square().sum((-2, -1)) / teacher.square().sum().clamp_min(1e-12)
        return (stein / n + disagreement).mean().float()

    def _gram(self, z: Tensor) -> Tensor:
        """Inner products of the samples at mean diagonal 1, with the ridge, (..., samples, samples)."""
        gram = z @ z.mT
        size = gram.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-12)
        identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        return gram / size[..., None, None] + self.ridge * identity


def _centred(z: Tensor) -> Tensor:
    return z - z.mean(dim=-2, keepdim=True)


def _cholesky(matrix: Tensor) -> Tensor:
    """The factor of a matrix. Of one that has none: an error on a CPU, NaN on a GPU, which would have to be waited for to see it."""
    if matrix.device.type == "cpu":
        return torch.linalg.cholesky(matrix)
    factor, info = torch.linalg.cholesky_ex(matrix)
    return torch.where(info == 0, factor, torch.nan)

"""Supervised contrastive loss: pull together what shares a label, push apart what does not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ContrastiveLoss"]


class ContrastiveLoss(nn.Module):
    r"""Supervised contrastive loss (Khosla et al. 2020, eq. 2; over cells by type in PaSCient, F.1).

    .. math:: L = \frac{1}{|I|} \sum_{i \in I} \frac{-1}{|P(i)|} \sum_{p \in P(i)}
              \log \frac{\exp(z_i \cdot z_p / \tau)}{\sum_{a \neq i} \exp(z_i \cdot z_a / \tau)}

    with vectors scaled to length 1 (one of no length stays zero, without a gradient), :math:`P(i)` the others with the label of :math:`i`, and :math:`I` those that have any.

    Parameters
    ----------
    temperature
        :math:`\tau`; larger than 0.

    Raises
    ------
    ValueError
        If ``temperature`` is not positive.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be larger than 0, got {temperature}.")
        self.temperature = temperature

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        """Loss of one batch of vectors; costs the square of their number.

        Parameters
        ----------
        z
            Vectors, (n, features).
        label
            Integer label of each, (n,); vectors with a negative one are left out.

        Returns
        -------
        Tensor
            Scalar, float32; zero, with a graph, if no two vectors share a label.
        """
        is_known = label >= 0
        z, label = _directions(z[is_known].float()), label[is_known]
        logits = z @ z.T / self.temperature
        itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
        log_p = logits - logits.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True) if len(z) > 1 else logits
        is_positive = (label[:, None] == label[None]) & ~itself
        n_positive = is_positive.sum(1)
        per_anchor = -(log_p * is_positive).sum(1) / n_positive.clamp_min(1)
        return per_anchor.sum() / (n_positive > 0).sum().clamp_min(1) + 0 * z.sum()


def _directions(z: Tensor) -> Tensor:
    """Vectors of length 1 (n, features); a vector of next to no length has no direction: it is zero, and so is its gradient."""
    length = z.norm(dim=1, keepdim=True)
    has_direction = length > 1e-6 * length.detach().mean()
    return torch.where(has_direction, z / torch.where(has_direction, length, 1.0), 0.0)

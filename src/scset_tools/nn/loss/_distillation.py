"""Self-distillation between a student and a teacher (MAESTRO 3.2.3, eq. 14; centring as in DINO)."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F


class DistillationLoss(nn.Module):
    r"""Divergence of the student's distribution from the teacher's, with the teacher centred.

    .. math::
        p_i = \mathrm{softmax}((t_i - c) / \tau_t), \quad q_v = \mathrm{softmax}(s_v / \tau_s), \quad
        L = \frac{1}{n} \sum_i \frac{1}{|V_i|} \sum_{v \in V_i} \sum_k p_{ik} \log \frac{p_{ik}}{q_{vk}}

    with the teacher's output :math:`t_i` of sample i, the student's output :math:`s_v` of view v, the views
    :math:`V_i` of sample i, the centre c and the temperatures :math:`\tau_t, \tau_s`; n counts the samples with a view.

    Parameters
    ----------
    n_out
        Width of the projected outputs.
    student_temperature
        Temperature of the student.
    teacher_temperature
        Temperature of the teacher; lower than the student's, so that the target is sharper.
    center_momentum
        Share of the centre that stays in :meth:`update_center`, in [0, 1].

    Raises
    ------
    ValueError
        If a temperature is not positive or the momentum is outside [0, 1].

    Notes
    -----
    Eq. 14 writes KL(student || teacher); the teacher is the target here, as in the published code and in DINO. The
    softmax of the teacher is taken once (the published code takes it twice, which makes the target nearly uniform).
    """

    center: Tensor

    def __init__(
        self,
        n_out: int,
        *,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        center_momentum: float = 0.9,
    ) -> None:
        super().__init__()
        if min(student_temperature, teacher_temperature) <= 0:
            raise ValueError(
                f"temperatures must be positive, got student_temperature={student_temperature} and "
                f"teacher_temperature={teacher_temperature}."
            )
        if not 0 <= center_momentum <= 1:
            raise ValueError(f"center_momentum must lie in [0, 1], got {center_momentum}.")
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.center_momentum = center_momentum
        self.register_buffer("center", torch.zeros(n_out))

    def forward(self, student_out: Tensor, teacher_out: Tensor, sample_of_view: Tensor | None = None) -> Tensor:
        """Compare each view with the full set of its sample.

        Parameters
        ----------
        student_out
            Projected outputs of the student, one row per view, (views, n_out).
        teacher_out
            Projected outputs of the teacher, one row per sample, (samples, n_out); never receives a gradient.
        sample_of_view
            Row of ``teacher_out`` that belongs to each view, int64 (views,). By default view i is of sample i.

        Returns
        -------
        Tensor
            Scalar, at least 0: mean over the views of a sample, then over the samples that have a view; 0 without views.

        Raises
        ------
        ValueError
            If the shapes do not fit together.
        """
        self._require_shapes(student_out, teacher_out, sample_of_view)
        if sample_of_view is None:
            sample_of_view = torch.arange(len(teacher_out), device=teacher_out.device)
        # Single precision at least: a logit of 1 over a temperature of 0.07 has no digits to spare.
        log_q = F.log_softmax(_at_least_float(student_out) / self.student_temperature, dim=-1)
        with torch.no_grad():
            centred = (_at_least_float(teacher_out) - self.center) / self.teacher_temperature
            log_p = F.log_softmax(centred, dim=-1)[sample_of_view]
            # bincount asks for its longest bin
            n_views = torch.zeros(len(teacher_out), dtype=torch.int64, device=teacher_out.device)
            n_views.index_add_(0, sample_of_view, torch.ones_like(sample_of_view))
        divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)  # (views,)
        return (divergence / n_views[sample_of_view]).sum() / (n_views > 0).sum().clamp_min(1)

    @torch.no_grad()
    def update_center(self, teacher_out: Tensor) -> None:
        """Move the centre towards the mean output of the teacher, once per step and after the loss.

        ``center = momentum * center + (1 - momentum) * mean over the samples``, over the samples of all ranks where
        torch.distributed is initialised (each rank must then call this).

        Parameters
        ----------
        teacher_out
            Projected outputs of the teacher, (samples, n_out). Without any sample the centre stays.
        """
        teacher_out = _at_least_float(teacher_out)
        # Sum and count travel together: ranks may hold different numbers of samples.
        total = torch.cat([teacher_out.sum(dim=0), teacher_out.new_full((1,), len(teacher_out))])
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(total)
        mean = (total[:-1] / total[-1].clamp_min(1)).to(self.center)
        self.center.lerp_(mean, torch.where(total[-1] > 0, 1 - self.center_momentum, 0.0).to(self.center))

    def _require_shapes(self, student_out: Tensor, teacher_out: Tensor, sample_of_view: Tensor | None) -> None:
        n_out = len(self.center)
        for name, tensor in (("student_out", student_out), ("teacher_out", teacher_out)):
            if tensor.ndim != 2 or tensor.shape[1] != n_out:
                raise ValueError(f"{name} must have shape (rows, {n_out}), got {tuple(tensor.shape)}.")
        n_named = len(teacher_out) if sample_of_view is None else len(sample_of_view)
        if len(student_out) != n_named:
            raise ValueError(
                f"student_out has {len(student_out)} views, but {n_named} are named: pass sample_of_view with one entry per "
                "view when the numbers of views and samples differ."
            )


def _at_least_float(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()

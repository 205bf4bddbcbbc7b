"""Exponential moving average of a network: the schedule and the update are two functions."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Move the teacher towards the student, in place: ``teacher = decay * teacher + (1 - decay) * student``.

    Parameters
    ----------
    teacher
        Network that follows. Its parameters and floating-point buffers move; its integer and boolean buffers (counters)
        are copied from the student.
    student
        Network that is followed, of the same structure; not changed.
    decay
        Share of the teacher that stays, in [0, 1]; the alpha of MAESTRO eq. 13.

    Raises
    ------
    ValueError
        If ``decay`` is outside [0, 1] or names or shapes of parameters and buffers differ.
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must lie in [0, 1], got {decay}.")
    old, new = _tensors(teacher), _tensors(student)
    _require_same_structure(old, new)
    for name, tensor in old.items():
        if tensor.is_floating_point() or tensor.is_complex():
            tensor.lerp_(new[name].to(tensor), 1 - decay)
        else:
            tensor.copy_(new[name])


def ema_decay_at(step: int, decay: float) -> float:
    """Decay that starts low and rises to ``decay``: min(decay, (1 + step) / (10 + step)).

    With a decay of 0.999 from the first step on, the teacher would stay at the random start for the first thousand steps;
    here it follows closely at first (0.1 at step 0, 0.5 at step 8, 0.999 from step 8,990 on).

    Parameters
    ----------
    step
        Number of updates made so far.
    decay
        Final decay, in [0, 1].

    Returns
    -------
    float
        Decay to use in this update.
    """
    return min(decay, (1 + step) / (10 + step))


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; the buffers left out of ``state_dict`` belong to the network as well."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


def _require_same_structure(old: dict[str, Tensor], new: dict[str, Tensor]) -> None:
    if old.keys() != new.keys():
        missing, extra = sorted(new.keys() - old.keys()), sorted(old.keys() - new.keys())
        raise ValueError(
            f"teacher and student differ: {len(missing)} tensors are in the student alone {missing[:3]}, {len(extra)} in the "
            f"teacher alone {extra[:3]}. Make the teacher with copy.deepcopy(student) (of the bare module, not of a wrapper)."
        )
    wrong = [name for name in old if old[name].shape != new[name].shape]
    if wrong:
        first = wrong[0]
        raise ValueError(
            f"teacher and student differ in the shape of {len(wrong)} tensors; the first is {first!r}: "
            f"{tuple(old[first].shape)} and {tuple(new[first].shape)}. Make the teacher with copy.deepcopy(student)."
        )

"""Losses, one per file."""

from __future__ import annotations

from scset_tools.nn.loss._distillation import DistillationLoss
from scset_tools.nn.loss._sinkhorn import SinkhornLoss

__all__ = [
    "DistillationLoss",
    "SinkhornLoss",
]

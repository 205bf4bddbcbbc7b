"""Losses, one per file."""

from __future__ import annotations

from scset_tools.nn.loss._contrastive import ContrastiveLoss
from scset_tools.nn.loss._distillation import DistillationLoss
from scset_tools.nn.loss._relational import RelationalLoss
from scset_tools.nn.loss._sinkhorn import SinkhornLoss

__all__ = [
    "ContrastiveLoss",
    "DistillationLoss",
    "RelationalLoss",
    "SinkhornLoss",
]

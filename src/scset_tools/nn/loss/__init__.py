"""Losses, one per file."""

from __future__ import annotations

from scset_tools.nn.loss._distillation import DistillationLoss

__all__ = [
    "DistillationLoss",
]

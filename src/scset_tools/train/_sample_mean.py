"""A mean over samples that never asks the device for a value."""

from __future__ import annotations

import torch
from torchmetrics import Metric


class SampleMean(Metric):
    """Weighted mean of what is given to it, over batches and processes; what is NaN does not count.

    As torchmetrics' own ``MeanMetric`` with ``nan_strategy="ignore"``, which looks for NaN on the host: in every step a GPU would
    have to catch up twice for each metric.
    """

    full_state_update = False
    total: torch.Tensor
    weight: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "weight"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, value: torch.Tensor, weight: float | torch.Tensor = 1.0) -> None:
        """Add a value.

        Parameters
        ----------
        value
            The value, a single number.
        weight
            Number of samples that it is the mean of.
        """
        value = value.double()
        counts = ~value.isnan()
        self.total += torch.where(counts, value * weight, 0.0)
        self.weight += counts * weight

    def compute(self) -> torch.Tensor:
        """The mean, float32; NaN if nothing counted."""
        return (self.total / self.weight).float()

"""The training plan of the masked autoencoder."""

from __future__ import annotations

from scset_tools.train import TwoRatePlan


class MaskingPlan(TwoRatePlan):
    """:class:`~scset_tools.train.TwoRatePlan` that counts over all processes what is hidden; the paper: 1e-5 beside 1e-4."""

    def setup(self, stage: str) -> None:
        """Tell the module whether other processes hide genes as well."""
        super().setup(stage)
        self.module.counts.is_shared = self.trainer.world_size > 1

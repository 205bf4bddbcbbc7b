"""Two learning rates: one for what is new, one for what was there before."""

from __future__ import annotations

from typing import Any

import torch

from scset_tools.train._plan import SampleTrainingPlan


class TwoRatePlan(SampleTrainingPlan):
    """:class:`~scset_tools.train.SampleTrainingPlan` with a learning rate of its own for the backbone.

    Parameters
    ----------
    module
        Module with ``new_parameters()``.
    lr_backbone
        Learning rate of all other parameters. Default: ``lr``. Schedules scale both alike.
    **kwargs
        As for :class:`~scset_tools.train.SampleTrainingPlan`.
    """

    def __init__(self, module: torch.nn.Module, *, lr_backbone: float | None = None, **kwargs: Any) -> None:
        super().__init__(module, **kwargs)
        self.lr_backbone = self.lr if lr_backbone is None else lr_backbone

    def _parameter_groups(self) -> list[dict[str, Any]]:
        is_new = {id(p) for p in self.module.new_parameters()}
        groups = []
        for group in super()._parameter_groups():
            for lr, belongs in ((self.lr, True), (self.lr_backbone, False)):
                params = [p for p in group["params"] if (id(p) in is_new) == belongs]
                groups.append({**group, "params": params, "lr": lr})
        return [g for g in groups if g["params"]]

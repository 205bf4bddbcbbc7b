"""Keep the weights of the best epoch."""

from __future__ import annotations

from typing import Any, cast

import lightning.pytorch as pl
import torch


def _module_of(plan: pl.LightningModule) -> torch.nn.Module:
    """The module that a plan trains."""
    return cast("torch.nn.Module", plan.module)


class KeepBest(pl.Callback):
    """Puts back, after training, the trained weights of the epoch in which a logged metric was best; in memory.

    Parameters
    ----------
    monitor
        Metric, by its name in ``history``.
    mode
        Whether low (``"min"``) or high (``"max"``) values are good.
    """

    def __init__(self, monitor: str = "loss_validation", *, mode: str = "min") -> None:
        self.monitor, self.mode = monitor, mode
        self.value: float | None = None
        self.epoch: int | None = None
        self.weights: dict[str, torch.Tensor] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the weights if they are better than all before."""
        value = trainer.callback_metrics.get(self.monitor)
        if trainer.sanity_checking or value is None or not torch.isfinite(value):
            return
        sign = -1.0 if self.mode == "max" else 1.0
        if self.value is None or sign * float(value) < sign * self.value:
            self.value, self.epoch = float(value), int(trainer.current_epoch)
            named = dict(_module_of(pl_module).named_parameters())
            self.weights = {k: p.detach().clone() for k, p in named.items() if p.requires_grad}

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put them back."""
        named = dict(_module_of(pl_module).named_parameters())
        with torch.no_grad():
            for name, value in self.weights.items():
                named[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"value": self.value, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.value, self.epoch, self.weights = state_dict["value"], state_dict["epoch"], state_dict["weights"]

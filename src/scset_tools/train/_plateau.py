"""Stop training when what is watched no longer improves."""

from __future__ import annotations

import math
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_only
from tqdm.auto import tqdm

MIN_PATIENCE = 60
"""Fewest steps that are waited for an improvement."""


class StopAtPlateau(pl.Callback):
    """Stops training when the mean of a logged metric over some steps is no better than it was before.

    The losses of single batches are noisy, and a loss that falls towards zero falls for ever. So the metric is averaged over
    blocks of a quarter of ``patience`` steps, and a block counts as better only if it gains at least ``min_delta`` of all that
    was gained since the first block. Works at the end of an epoch, on every process alike; its state is part of a checkpoint.

    Parameters
    ----------
    monitor
        Metric that is watched, by its name in ``model.history`` (``"loss_train"``, ``"loss_validation"``, one of the model's own).
    patience
        Steps without a better block after which training stops. Default: a fifth of all steps, and at least 60.
    min_delta
        Share of the gain since the first block that a better block must add.
    mode
        Whether low (``"min"``) or high (``"max"``) values are good.
    """

    def __init__(
        self,
        monitor: str = "loss_train",
        *,
        patience: int | None = None,
        min_delta: float = 0.01,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        if mode not in ("min", "max"):
            msg = f"mode={mode!r} is not one of ['min', 'max']."
            raise ValueError(msg)
        if patience is not None and patience < 1:
            msg = f"patience={patience} must be 1 step or more."
            raise ValueError(msg)
        self.monitor, self.patience, self.min_delta, self.mode = monitor, patience, min_delta, mode
        self.first: float | None = None
        self.best = math.inf
        self.n_waited = 0
        self._sum, self._n_steps, self._step = 0.0, 0, 0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the metric of the epoch into the block, and stop if enough steps were waited for a better one."""
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            msg = (
                f"Training is to stop when {self.monitor!r} no longer improves, but this is not logged. Logged are: "
                f"{sorted(trainer.callback_metrics)}."
            )
            raise KeyError(msg)
        n_new, self._step = trainer.global_step - self._step, trainer.global_step
        if not math.isfinite(float(value)) or not n_new:
            return
        self._sum += n_new * float(value) * (1 if self.mode == "min" else -1)
        self._n_steps += n_new
        patience = self._patience(trainer)
        if self._n_steps < max(1, patience // 4):
            return
        block, n_steps = self._sum / self._n_steps, self._n_steps
        self._sum, self._n_steps = 0.0, 0
        if self.first is None:
            self.first = self.best = block
        elif self.best - block > self.min_delta * (self.first - self.best) and block < self.best:
            self.best, self.n_waited = block, 0
        else:
            self.n_waited += n_steps
        if self.n_waited >= patience:
            trainer.should_stop = True
            self._tell(trainer)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to stop where an uninterrupted one would have."""
        names = ("first", "best", "n_waited", "_sum", "_n_steps", "_step")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the state of an interrupted run."""
        for name, value in state_dict.items():
            setattr(self, name, value)

    def _patience(self, trainer: pl.Trainer) -> int:
        if self.patience is not None:
            return self.patience
        n_steps = trainer.estimated_stepping_batches
        return max(MIN_PATIENCE, round(n_steps / 5)) if math.isfinite(n_steps) else MIN_PATIENCE

    @rank_zero_only
    def _tell(self, trainer: pl.Trainer) -> None:
        if trainer.progress_bar_callback is not None:
            tqdm.write(
                f"Training stops after epoch {trainer.current_epoch + 1} of {trainer.max_epochs}: {self.monitor} has not "
                f"improved for {self.n_waited} steps (stop_at_plateau=False goes on)."
            )

"""Say once, after the first steps, how long training may take."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.utilities import rank_zero_only
from tqdm.auto import tqdm

N_STEPS, N_SECONDS = 10, 5.0
"""Steps after which the time is told, or the seconds if these steps take longer."""

WORTH_TELLING = 20.0
"""Seconds below which nothing is said."""


class ExpectedTime(pl.Callback):
    """Prints the expected time of training once, on the first process, if there is a progress bar and it is worth it."""

    def __init__(self) -> None:
        self._ends: list[float] | None = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure nothing where nothing would be shown."""
        if trainer.progress_bar_callback is None:
            self._ends = None

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Note when a step ended, and tell as soon as there are enough."""
        if self._ends is None:
            return
        self._ends.append(
            time.perf_counter()
        )  # the first step, which may compile or read ahead, is before the first end
        seconds = self._ends[-1] - self._ends[0]
        if len(self._ends) > N_STEPS or (len(self._ends) > 1 and seconds > N_SECONDS):
            per_step = float(np.median(np.diff(self._ends)))
            self._ends = None
            n_steps = int(trainer.num_training_batches)
            done = trainer.current_epoch * n_steps + trainer.fit_loop.epoch_loop.batch_idx + 1
            self._tell(trainer, per_step, int(trainer.max_epochs or 0) * n_steps - done)

    @rank_zero_only
    def _tell(self, trainer: pl.Trainer, per_step: float, n_steps: int) -> None:
        if per_step * n_steps >= WORTH_TELLING:
            tqdm.write(
                f"Training may take about {in_words(per_step * n_steps)}: {n_steps:,} steps of {per_step:.2g} s, in "
                f"{trainer.max_epochs} epochs at most."
            )


def in_words(seconds: float) -> str:
    """A time that people read: ``"40 s"``, ``"6 min"``, ``"2.5 h"``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"

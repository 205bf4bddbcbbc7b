"""Watch the vectors of samples while a model learns: a loss may fall while they collapse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
from lightning.pytorch.utilities import rank_zero_only
from tqdm.auto import tqdm

from scset_tools._spread import COLLAPSED, effective_rank, share_between

METRICS = ("effective_rank_train", "share_between_train")
FINAL = ("effective_rank_final", "share_between_final")
"""The same of the vectors that the trained model gives, after what the end of a training adds: whitening, or the best weights."""

Draws = Callable[[], tuple[np.ndarray, np.ndarray]]
"""Vectors of the same samples, each (samples, features), from two draws of some of their cells."""


class WatchHealth(pl.Callback):
    """Notes the effective rank of the vectors of training samples, and the share of their variance that is between samples.

    Before training, after epochs 1, 2, 4, 8, ... and at the end, from two draws of some dozen cells of some dozen samples: cheap, and
    enough to see a collapse. See :func:`scset_tools.tl.representation_health` for the whole of it.

    Parameters
    ----------
    draws
        Gives the vectors of the moment.
    every_epoch
        Whether to look after every epoch, and to log what is seen: for a callback that watches it.

    Attributes
    ----------
    rows
        Epoch (-1: before training) -> effective rank and share.
    """

    def __init__(self, draws: Draws, *, every_epoch: bool = False) -> None:
        self.draws, self.every_epoch = draws, every_epoch
        self.rows: dict[int, tuple[float, float]] = {}
        self.final: tuple[float, float] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the weights that training begins with; a resumed run knows them."""
        if not self.rows:
            self._look(-1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look after some epochs."""
        n_done = trainer.current_epoch + 1
        is_last = trainer.should_stop or n_done == trainer.max_epochs  # before the checkpoint of the epoch is written
        if self.every_epoch or is_last or not n_done & (n_done - 1):
            values = self._look(n_done - 1)
            if self.every_epoch:
                self.log_dict(  # type: ignore[attr-defined]  # Lightning gives callbacks its own
                    dict(zip(METRICS, values, strict=True)), on_step=False, on_epoch=True
                )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the final weights, and say if they have collapsed."""
        last = trainer.fit_loop.epoch_progress.current.completed - 1
        rank, _ = self.rows.get(last) or self._look(last)
        if rank < COLLAPSED and trainer.progress_bar_callback is not None:
            self._tell(rank)

    def state_dict(self) -> dict[str, Any]:
        """Rows so far, in plain types."""
        return {"rows": [[epoch, *values] for epoch, values in self.rows.items()]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the rows of an interrupted run."""
        self.rows = {int(epoch): (float(rank), float(share)) for epoch, rank, share in state_dict["rows"]}

    def history(self) -> dict[str, pd.DataFrame]:
        """The rows as entries of ``model.history``, and, of a training that came to its end, those of the final vectors."""
        index = pd.Index(sorted(self.rows), name="epoch")
        out = {
            name: pd.DataFrame({name: [self.rows[epoch][i] for epoch in index]}, index=index, dtype=float)
            for i, name in enumerate(METRICS)
        }
        if self.final is not None:
            out |= {
                name: pd.DataFrame({name: [value]}, index=index[-1:], dtype=float)
                for name, value in zip(FINAL, self.final, strict=True)
            }
        return out

    def look_at_the_end(self) -> None:
        """Look at the vectors that the trained model gives."""
        first, second = self.draws()
        self.final = effective_rank((first + second) / 2), share_between(first, second)

    def _look(self, epoch: int) -> tuple[float, float]:
        first, second = self.draws()
        self.rows[epoch] = effective_rank((first + second) / 2), share_between(first, second)
        return self.rows[epoch]

    @rank_zero_only
    def _tell(self, rank: float) -> None:
        before = self.rows.get(-1, (float("nan"),))[0]
        tqdm.write(
            f"The vectors of the samples vary along {rank:.1f} directions (before training: {before:.1f}): they have collapsed, "
            "unless one label is all they are to tell. See tl.representation_health."
        )

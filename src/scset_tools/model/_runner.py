"""scvi-tools' runner of a training, and what becomes of a training that does not come to its end."""

from __future__ import annotations

import gc
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities.exceptions import SIGTERMException
from scvi.train import TrainRunner

from scset_tools.train._callbacks import history_of, put_history


class SampleTrainRunner(TrainRunner):
    """Runs a training, says nothing of its own about errors, and lets an interruption be one.

    scvi-tools' runner prints "Exception raised during training. <class 'NameError'>" whatever went wrong, and Lightning turns
    an interruption from the keyboard into the end of the program and leaves the signal ignored.
    """

    def _run_training_core(self) -> None:
        trainer = self.trainer
        handler = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
        with tempfile.TemporaryDirectory() as folder:
            carrier = _CarryHistory(Path(folder) / "history.pt")
            if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
                trainer.callbacks.append(carrier)
            try:
                trainer.fit(self.training_plan, self.data_splitter, ckpt_path=self.ckpt_path)
            except BaseException as error:
                self._update_history()
                self.model.trainer = trainer
                gc.collect()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
                    raise KeyboardInterrupt from None
                if isinstance(error, SIGTERMException):  # as it is, the program would end with status 0
                    raise SystemExit(128 + signal.SIGTERM) from None
                raise
            finally:
                if handler is not None:
                    signal.signal(signal.SIGINT, handler)
            carrier.give_back(trainer)
        self._update_history()
        self.model.train_indices = getattr(self.data_splitter, "train_idx", None)
        self.model.test_indices = getattr(self.data_splitter, "test_idx", None)
        self.model.validation_indices = getattr(self.data_splitter, "val_idx", None)
        self.model.module.eval()
        self.model.is_trained_ = True
        self.model.to_device(self.device)
        self.model.trainer = trainer


class _CarryHistory(pl.Callback):
    """Brings the history back from processes that are started by this one and end with the training (``ddp_notebook``).

    Parameters
    ----------
    path
        File to carry it in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write it, in the first process."""
        del pl_module
        if stage == "fit" and trainer.is_global_zero:
            torch.save(history_of(trainer), self.path)

    def give_back(self, trainer: Any) -> None:
        """Put it into the logger of the process that asked for the training."""
        if self.path.exists():
            put_history(trainer, torch.load(self.path, weights_only=True))

"""Checkpoints: of the best model, and of the whole state of training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from shutil import rmtree
from types import MappingProxyType
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from scvi.train import SaveCheckpoint

from scset_tools._whole import unwritable
from scset_tools.train._run_folder import differences
from scset_tools.train._seal import is_sealed, seal


class SaveBestModel(SaveCheckpoint):
    """Saves the model whenever ``monitor`` is at its best; the directory is ``best_model_path``.

    scvi-tools' :class:`scvi.train.SaveCheckpoint` for several processes too: there, every process writes and deletes the same
    directory. Takes the same arguments.
    """

    # set by Lightning's class, whose types do not reach here
    dirpath: Any
    best_model_path: Any

    def __init__(self, *, monitor: str = "loss_validation", **kwargs: Any) -> None:
        super().__init__(monitor=monitor, **kwargs)
        self._is_saving = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Agree on one directory: the default has the time of each process in its name."""
        self.dirpath = trainer.strategy.broadcast(self.dirpath)
        super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on in the directory of the interrupted run."""
        self.dirpath = state_dict["dirpath"]
        super().load_state_dict(state_dict)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave loading the best model to ``teardown``, which also comes if a resumed run had nothing left to do."""

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Load the best model, if asked."""
        if stage == "fit" and self.best_model_path:
            super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: pl.Trainer, *args: Any) -> None:
        """Save the model beside a checkpoint of this callback (not of another), and leave submodules in their mode."""
        if not self._is_saving:
            return
        model = trainer._model  # type: ignore[attr-defined]  # set by scvi-tools' trainer
        modes = {m: m.training for m in model.module.modules()}
        was_trained = model.is_trained_
        # what is saved is a whole model, with what the end of a training adds, of which the steps that follow know nothing
        buffers = [(buffer, buffer.clone()) for buffer in model.module.buffers()]
        model.module.eval()
        model._after_training(trainer.datamodule)  # type: ignore[attr-defined]
        if trainer.is_global_zero:
            super().on_save_checkpoint(trainer, *args)
        for buffer, before in buffers:
            buffer.copy_(before)
        model.is_trained_ = was_trained
        for m, mode in modes.items():
            m.training = mode

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        self._is_saving = True
        try:
            super()._save_checkpoint(trainer, filepath)
        finally:
            self._is_saving = False

    def _remove_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        ModelCheckpoint._remove_checkpoint(self, trainer, filepath)
        if trainer.is_global_zero:
            rmtree(filepath.removesuffix(".ckpt"), ignore_errors=True)
        trainer.strategy.barrier("SaveBestModel._remove_checkpoint")

    def _update_best_and_save(self, current: Any, trainer: pl.Trainer, monitor_candidates: dict) -> None:
        ModelCheckpoint._update_best_and_save(self, current, trainer, monitor_candidates)
        trainer.strategy.barrier("SaveBestModel._update_best_and_save")
        if trainer.is_global_zero and os.path.isfile(self.best_model_path):
            os.remove(self.best_model_path)
        self.best_model_path = self.best_model_path.removesuffix(".ckpt")


class ResumeCheckpoint(Checkpoint):
    """Keeps the whole state of training in one file, so that an interrupted run goes on as if nothing had happened.

    The file holds weights, optimiser, schedule, callbacks, epoch, seed and history. It is written beside its final place and
    then moved over it, so that a run killed while writing leaves the previous file whole. Add it to the end of
    ``trainer.callbacks``: what other callbacks do at the end of an epoch must be done before.

    It carries a checksum and a description of its run, and is taken up again only whole and by the same run.

    Parameters
    ----------
    directory
        Where ``last.ckpt`` lies.
    every_n_epochs
        How often it is written.
    """

    fingerprint: Mapping[str, Any] = MappingProxyType({})
    """What the run is of, in plain types, by aspect; written to the file."""
    run: str = ""
    """Name of the run, by which a model knows it again; written to the file."""

    def __init__(self, directory: str | os.PathLike, *, every_n_epochs: int = 1) -> None:
        self.path = Path(directory) / "last.ckpt"
        self.every_n_epochs = every_n_epochs

    def read(self) -> dict[str, Any] | None:
        """The state of the interrupted run, or None if there is none.

        Raises
        ------
        ValueError
            If the file is damaged or is none of ours.
        """
        if not self.path.exists():
            return None
        damaged = f"{self.path} cannot be read; delete it to start anew"
        try:
            if not is_sealed(self.path):
                msg = f"{damaged} (it is cut short, damaged, or not written by this version of scset-tools)."
                raise ValueError(msg)
            state = torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
        except (OSError, RuntimeError, UnpicklingError) as error:
            msg = f"{damaged} ({error})."
            raise ValueError(msg) from error
        if not isinstance(state, dict) or "fingerprint" not in state:
            msg = f"{damaged} (it does not say which run it is of)."
            raise ValueError(msg)
        return state

    def require_same_run(self, state: Mapping[str, Any]) -> None:
        """Raise ValueError unless the interrupted run was of the same model and data.

        Parameters
        ----------
        state
            What :meth:`read` gave.
        """
        found = differences(state["fingerprint"], self.fingerprint)
        if found:
            msg = (
                f"{self.path.parent} holds the state of another run, which cannot be gone on with. They differ in "
                f"{'; '.join(found)}. Give this run a folder of its own (checkpoint_dir), or delete {self.path} to start anew."
            )
            raise ValueError(msg)

    def require_epochs_left(self, state: Mapping[str, Any], max_epochs: int) -> None:
        """Raise ValueError if the interrupted run came further than this one is to go.

        Parameters
        ----------
        state
            What :meth:`read` gave.
        max_epochs
            Of this run.
        """
        n_done = int(state["epoch"]) + 1
        if 0 <= max_epochs < n_done:
            msg = (
                f"{self.path.parent} holds the state after {n_done} epochs, more than max_epochs={max_epochs}. Ask for as many at least, "
                f"give this run a folder of its own (checkpoint_dir), or delete {self.path} to start anew."
            )
            raise ValueError(msg)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file."""
        is_last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        if (trainer.current_epoch + 1) % self.every_n_epochs and not is_last:
            return
        unfinished = self.path.with_suffix(".unfinished")
        if trainer.is_global_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            trainer.save_checkpoint(unfinished)
            if trainer.is_global_zero:
                seal(unfinished)
                os.replace(unfinished, self.path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            hint = " The state before this epoch is whole." if self.path.exists() else ""
            raise unwritable(self.path, error, hint) from error
        trainer.strategy.barrier("ResumeCheckpoint")

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Add the history to the checkpoint, in plain types, and whether training was to stop."""
        history = history_of(trainer)
        # those of this epoch's training the logger gets only after this hook
        for name, value in trainer.callback_metrics.items():
            if name.endswith("_train"):
                column = history.setdefault(name, {"index": [], "values": [], "by": "epoch"})
                if trainer.current_epoch not in column["index"]:
                    column["index"].append(int(trainer.current_epoch))
                    column["values"].append(float(value))
        checkpoint["history"], checkpoint["should_stop"] = history, bool(trainer.should_stop)
        checkpoint["fingerprint"], checkpoint["run"] = dict(self.fingerprint), self.run

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Put the history of the interrupted run back into the logger."""
        trainer.should_stop = checkpoint.get("should_stop", False)
        put_history(trainer, checkpoint.get("history", {}))


def history_of(trainer: pl.Trainer) -> dict[str, dict[str, Any]]:
    """What the logger holds of a run so far, in plain types.

    Parameters
    ----------
    trainer
        Trainer of the run.
    """
    return {
        name: {
            "index": [int(i) for i in frame.index],
            "values": [float(v) for v in frame[name]],
            "by": frame.index.name,
        }
        for name, frame in _logged(trainer).items()
    }


def put_history(trainer: pl.Trainer, history: dict[str, dict[str, Any]]) -> None:
    """Put a history into the logger of a trainer.

    Parameters
    ----------
    trainer
        Trainer that gets it.
    history
        What :func:`history_of` gave.
    """
    logged = _logged(trainer)
    for name, column in history.items():
        index = pd.Index(column["index"], name=column["by"])
        logged[name] = pd.DataFrame({name: column["values"]}, index=index, dtype=object)


def _logged(trainer: pl.Trainer) -> dict[str, pd.DataFrame]:
    """What scvi-tools' logger holds, by metric; nothing on processes other than the first, and for other loggers."""
    data = getattr(getattr(trainer.logger, "experiment", None), "data", None)
    return data if isinstance(data, dict) else {}

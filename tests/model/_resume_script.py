"""Trains MAESTRO and is killed in the middle of an epoch, once for each variant; imported, it trains the same."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import lightning.pytorch as pl
from _cohort import FIT, make_cohort

import scset_tools as sst

N_EPOCHS = 5
VARIANTS = {
    "dropout": {"build": {"dropout_rate": 0.1}, "train": {"datasplitter_kwargs": {"num_workers": 1}, "n_cells": 20}},
    "plateau": {"build": {}, "train": {"plan_kwargs": {"lr_schedule": "plateau", "lr_patience": 0, "lr_factor": 0.3}}},
    "drawn_seed": {"build": {"random_state": None}, "train": {"seed": None}},
}


class Die(pl.Callback):
    """Note the split, and kill this process in the fourth epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer, pl_module):
        (self.folder / "split.json").write_text(json.dumps(trainer.datamodule.names()))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 3 and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def train(variant: str, folder: Path, *, callbacks=()) -> sst.MAESTRO:
    arguments = VARIANTS[variant]
    adata = make_cohort()
    sst.MAESTRO.setup_anndata(adata, "sample")
    sizes = {"n_hidden": 8, "n_latent": 4, "n_inducing": 2, "n_layers": 1, "n_cells": 20, "n_heads": 2}
    model = sst.MAESTRO(adata, **{"random_state": 0, **sizes, **arguments["build"]})
    fit = {**FIT, "max_epochs": N_EPOCHS, "batch_size": 2, "callbacks": list(callbacks), **arguments["train"]}
    model.train(**fit, checkpoint_dir=folder)
    return model


if __name__ == "__main__":
    for name in VARIANTS:  # a process for each; torch and scvi-tools are imported once
        folder = Path(sys.argv[1]) / name
        folder.mkdir()
        pid = os.fork()
        if pid == 0:
            train(name, folder, callbacks=[Die(folder)])
            os._exit(1)  # it should have been killed
        status = os.waitpid(pid, 0)[1]
        (folder / "signal").write_text(str(os.WTERMSIG(status)))

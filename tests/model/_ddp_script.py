"""Trains MAESTRO and SelfGuidedMAE in two processes and writes what each of them saw; run by test_distributed.py."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import lightning.pytorch as pl
from _cohort import FIT, make_cohort

import scset_tools as sst
from scset_tools.train import SaveBestModel


class Note(pl.Callback):
    """Note the samples of each batch."""

    def __init__(self) -> None:
        self.train, self.validation, self.n_epochs = [], [], 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.train.append([trainer.current_epoch, batch.sample.tolist()])

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.validation.append([trainer.current_epoch, batch.sample.tolist()])

    def on_train_epoch_end(self, trainer, pl_module):
        self.n_epochs += 1


def digest(module) -> str:
    return hashlib.sha1(b"".join(v.numpy().tobytes() for v in module.state_dict().values())).hexdigest()


def train(name: str, out: Path, **arguments) -> None:
    adata = make_cohort(arguments.pop("n_samples", 9))
    sst.MAESTRO.setup_anndata(adata, "sample")
    sizes = {"n_hidden": 8, "n_latent": 4, "n_inducing": 2, "n_layers": 1, "n_cells": 20, "n_heads": 2}
    build = {k: arguments.pop(k) for k in ("distillation_weight", "n_tokens", "standardize_latent") if k in arguments}
    model = sst.MAESTRO(adata, dropout_rate=0.1, random_state=0, **sizes, **build)
    note = Note()
    callbacks = [note, *arguments.pop("callbacks", [])]
    how = {"devices": 2, "strategy": "ddp", "callbacks": callbacks, **arguments}
    model.train(**FIT | {k: v for k, v in how.items() if v is not None or k == "seed"})
    rank = model.trainer.global_rank
    best = [c.best_model_path for c in callbacks if isinstance(c, SaveBestModel)]
    report = {
        "world": model.trainer.world_size,
        "weights": digest(model.module),
        "split": [model.train_samples_, model.validation_samples_, model.test_samples_],
        "positions": [p.tolist() for p in model.trainer.datamodule._parts],
        "train": note.train,
        "validation": note.validation,
        "n_epochs": note.n_epochs,
        "history": {k: v[k].tolist() for k, v in model.history.items()},
        "best": best[0] if best else None,
    }
    if rank == 0 and best:
        report["best_weights"] = digest(sst.MAESTRO.load(best[0], adata=False).module)
        report["best_split"] = sst.MAESTRO.load(best[0], adata=False).train_samples_
    (out / f"{name}.rank{rank}.json").write_text(json.dumps(report))


def count_masks(name: str, out: Path) -> None:
    adata = make_cohort(6)
    sst.SelfGuidedMAE.setup_anndata(adata, "sample")
    sizes = {"n_hidden": 6, "n_layers": 1, "n_heads": 2, "n_latents": 4, "n_latent_hidden": 8, "n_bins": 8}
    model = sst.SelfGuidedMAE(adata, values="normalized", random_state=0, **sizes)
    model.train(**{**FIT, "max_epochs": 2, "train_size": 1.0, "batch_size": 16, "devices": 2, "strategy": "ddp"})
    counts = {k: v.tolist() for k, v in model.module.counts.named_buffers()}
    report = {"counts": counts, "n_cells": adata.n_obs, "n_expressed": (adata.X > 0).sum(0).tolist()}
    (out / f"{name}.rank{model.trainer.global_rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    out = Path(sys.argv[1])
    os.chdir(out)
    train("seeded", out, max_epochs=2, batch_size=2)
    train("unnamed", out, max_epochs=2, batch_size=2, seed=None, strategy=None)
    train("three", out, n_samples=3, max_epochs=2, batch_size=2, train_size=0.67, strategy=None)
    best = SaveBestModel(load_best_on_end=True, dirpath=str(out / f"best{os.environ.get('LOCAL_RANK', 0)}"))
    train("drawn", out, max_epochs=3, seed=None, callbacks=[best], checkpoint_dir=out / "resume")
    plan = {"lr": 1e-30, "lr_schedule": "constant", "weight_decay": 0.0}  # nothing is learned
    # without tokens and running means, which are not learned by gradient
    flat = {"plan_kwargs": plan, "distillation_weight": 0.0, "n_tokens": 0, "standardize_latent": False}
    count_masks("masks", out)
    train("stopped", out, max_epochs=9, early_stopping=True, early_stopping_patience=2, **flat)

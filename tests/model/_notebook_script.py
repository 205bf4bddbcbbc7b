"""Trains MAESTRO by two forked processes, as a notebook does, and prints what came back; run by test_distributed.py."""

from __future__ import annotations

import json

import torch
from _cohort import FIT, make_cohort

import scset_tools as sst

if __name__ == "__main__":
    adata = make_cohort(9)
    sst.MAESTRO.setup_anndata(adata, "sample")
    sizes = {"n_hidden": 8, "n_latent": 4, "n_inducing": 2, "n_layers": 1, "n_cells": 20, "n_heads": 2}
    model = sst.MAESTRO(adata, random_state=0, **sizes)
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    model.train(**FIT, devices=2, strategy="ddp_notebook")
    after = model.module.state_dict()
    report = {
        "moved": any(not torch.equal(v, after[k]) for k, v in before.items()),
        "is_trained": model.is_trained,
        "history": {k: [int(i) for i in v.index] for k, v in model.history.items()},
        "finite": bool(torch.isfinite(torch.tensor(model.history["loss_train"].to_numpy())).all()),
        "split": [model.train_samples_, model.validation_samples_, model.test_samples_],
    }
    print(json.dumps(report))

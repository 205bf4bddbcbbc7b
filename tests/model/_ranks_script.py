"""Trains, embeds, predicts, attributes and writes in as many processes as torchrun starts; run by test_distributed.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
from _cohort import FIT, make_cohort

import scset_tools as sst

SIZES = {"n_hidden": 8, "n_latent": 4}


def run(kind: str, out: Path) -> None:
    """Three samples: one process has all in a batch, of two processes one has two and the other one."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    cls, is_classifier = getattr(sst, kind), kind == "PaSCient"
    adata = make_cohort(3)
    cls.setup_anndata(adata, "sample", **({"labels_key": "condition"} if is_classifier else {}))
    model = cls(adata, random_state=0, **SIZES, **({"dropout_rate": 0.0} if is_classifier else {}))
    how = {"train_size": 1.0, "batch_size": 3 if world == 1 else 2, "gradient_clip_val": None, "watch_health": False}
    model.train(**{**FIT, **how}, **({"devices": world, "strategy": "ddp"} if world > 1 else {}))
    found = {"weights": torch.cat([p.detach().ravel() for p in model.module.parameters()]).numpy()}
    with sst.model.share_inference() as rank:
        samples = model.to_sample_adata()
        if is_classifier:
            found["p"] = model.predict_proba().to_numpy()
            attributions = model.get_attributions("case", n_steps=5)
            found["features"], found["cells"] = attributions.values, attributions.cells.to_numpy()
        if rank == 0:
            samples.write_h5ad(out / f"{kind}.{world}.h5ad")
    found["vectors"] = np.asarray(samples.X)
    np.savez(out / f"{kind}.{world}.{rank}.npz", **found)


if __name__ == "__main__":
    out = Path(sys.argv[1])
    os.chdir(out)
    for kind in sys.argv[2:]:
        run(kind, out)

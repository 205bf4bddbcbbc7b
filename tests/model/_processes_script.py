"""Embeds, predicts and attributes in as many processes as torchrun starts; run by test_distributed.py."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
from _cohort import make_cohort

import scset_tools as sst

if __name__ == "__main__":
    out = Path(sys.argv[1])
    os.chdir(out)
    model = sst.MAESTRO.load(out / "model", adata=make_cohort(9))
    for n_samples in map(int, sys.argv[2:]):
        if os.environ.get("RANK") == "0":
            time.sleep(1)  # the other one must wait for this block's address, and not take that of the block before
        chosen = model.sample_names[:n_samples]
        with sst.model.share_inference() as rank:
            vectors = model.get_sample_representation(samples=chosen)
            p = model.predict_proba(label_key="condition")
            found = model.get_attributions("condition", samples=chosen)
        np.savez(
            out / f"found{n_samples}.{os.environ.get('WORLD_SIZE', '1')}.{rank}.npz",
            vectors=vectors.to_numpy(),
            p=p.to_numpy(),
            features=found.values,
            cells=found.cells.to_numpy(),
            scores=found.scores.to_numpy(),
        )

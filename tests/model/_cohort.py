"""A small cohort of made-up cells, quick to train on, and how to fit each model to it."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

N_SAMPLES = 8
FIT = {
    "max_epochs": 2,
    "batch_size": 4,
    "train_size": 0.75,
    "enable_progress_bar": False,
    "accelerator": "cpu",
    "seed": 0,
}


def make_cohort(n_samples: int = N_SAMPLES, *, n_features: int = 5, seed: int = 0, prefix: str = "s") -> ad.AnnData:
    """Samples of 15 to 40 cells of two types, in two conditions, three studies and two batches; rows are shuffled."""
    rng = np.random.default_rng(seed)
    blocks, obs = [], []
    for i in range(n_samples):
        n = int(rng.integers(15, 41))
        cell_type = rng.random(n) < (0.3 if i % 2 else 0.7)
        x = rng.normal(size=(n, n_features)) + 2.0 * cell_type[:, None]
        blocks.append(np.abs(x))
        obs.append(
            pd.DataFrame(
                {
                    "sample": f"{prefix}{i:02d}",
                    "condition": "case" if i % 2 else "control",
                    "study": f"study{i % 3}",
                    "batch": np.where(rng.random(n) < 0.5, "b0", "b1"),
                    "age": 20.0 + i,
                    "cell_type": np.where(cell_type, "T", "B"),
                }
            )
        )
    order = rng.permutation(sum(map(len, obs)))
    frame = pd.concat(obs, ignore_index=True).iloc[order].set_axis([f"{prefix}_cell{j}" for j in range(len(order))])
    for column in ("sample", "condition", "study", "batch", "cell_type"):
        frame[column] = frame[column].astype("category")
    x = np.concatenate(blocks)[order].astype(np.float32)
    var = pd.DataFrame(index=[f"marker_{j}" for j in range(n_features)])
    return ad.AnnData(x, obs=frame, var=var, obsm={"X_rep": x[:, :3].copy()})

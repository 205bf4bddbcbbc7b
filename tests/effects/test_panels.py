"""Open panels act: what is measured says what the missing markers are likely to be, and the student sees fewer markers than the teacher."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scset_tools as sst

QUICK = {"enable_progress_bar": False, "accelerator": "cpu", "seed": 0}
MARKERS = [f"M{i}" for i in range(12)]


def cohort(seed: int, n_samples: int = 24, n: int = 150) -> ad.AnnData:
    """Two kinds of cells, told by any of twelve markers that go together; samples differ in the share and the level of one kind."""
    rng = np.random.default_rng(seed)
    share, level = rng.uniform(0.1, 0.9, n_samples), rng.normal(size=n_samples)
    sample = np.repeat(np.arange(n_samples), n)
    is_first = rng.random(len(sample)) < share[sample]
    common = 3.0 * is_first + np.where(is_first, level[sample], 0)
    x = common[:, None] * np.where(np.arange(12) % 2, 1.0, -1.0) + rng.normal(size=(len(sample), 12))
    obs = pd.DataFrame({"sample": [f"s{i:02d}" for i in sample]}, index=[f"c{i}" for i in range(len(sample))])
    return ad.AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=MARKERS))


def drift(model, fill) -> float:
    """How far held-out samples move when half of their markers go, in distances between samples."""
    held_out = cohort(1)
    whole = model.get_sample_representation(held_out).to_numpy()
    part = held_out.copy()
    part.X[:, :6] = fill
    found = model.get_sample_representation(part).to_numpy()
    apart = np.linalg.norm(whole[:, None] - whole[None], axis=2)
    return float(np.linalg.norm(found - whole, axis=1).mean() / apart[np.triu_indices(len(apart), 1)].mean())


@pytest.mark.parametrize("cls", [sst.MAESTRO, sst.ScSet], ids=["maestro", "scset"])
def test_vectors_stay_where_the_mean_in_place_of_markers_moves_them(cls):
    training = cohort(0)
    models = {}
    for panel in ("open", "fixed"):
        data = training.copy()
        cls.setup_anndata(data, "sample", panel=panel)
        models[panel] = cls(data, random_state=0)
        models[panel].train(max_epochs=15, **QUICK)
    imputed = drift(models["fixed"], training.X[:, :6].mean(axis=0))
    assert drift(models["open"], np.nan) < 0.6 * imputed

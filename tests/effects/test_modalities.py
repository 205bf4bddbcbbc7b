"""Modality dropout acts at default settings: in training samples lose a modality at its rate, before anything else is drawn, and never in inference."""

from __future__ import annotations

import itertools

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest

import scset_tools as sst
from scset_tools.nn import ModalityParts

QUICK = {"enable_progress_bar": False, "accelerator": "cpu", "seed": 0}


def cohort(n_samples: int = 32, n: int = 40) -> md.MuData:
    """Paired cells of two modalities with six features each."""
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(n_samples * n)]
    parts = {}
    for name in ("rna", "adt"):
        x = rng.normal(size=(len(names), 6)).astype(np.float32)
        parts[name] = ad.AnnData(
            x, obs=pd.DataFrame(index=names), var=pd.DataFrame(index=[f"{name}{i}" for i in range(6)])
        )
    mdata = md.MuData(parts)
    mdata.obs["sample"] = np.repeat([f"s{i:02d}" for i in range(n_samples)], n)
    return mdata


@pytest.mark.parametrize("cls", [sst.MAESTRO, sst.ScSet], ids=["maestro", "scset"])
def test_samples_lose_a_modality_in_training_alone(cls, monkeypatch):
    seen = []
    drop = ModalityParts.drop

    def spy(self, x, ptr, seed, **how):
        out = drop(self, x, ptr, seed, **how)
        codes = self.codes(out)
        seen.append(np.array([codes[start:stop].max().item() for start, stop in itertools.pairwise(ptr)]))
        return out

    monkeypatch.setattr(ModalityParts, "drop", spy)
    mdata = cohort()
    cls.setup_mudata(mdata, "sample", modalities=["rna", "adt"])
    model = cls(mdata, random_state=0)
    model.train(max_epochs=12, watch_health=False, **QUICK)
    codes = np.concatenate(seen)
    assert set(codes) == {1, 2, 3}  # either one is lost, never both
    rate = model.module.modality_dropout_rate
    assert (codes < 3).mean() == pytest.approx(1 - (1 - rate) ** 2, abs=0.08)
    assert (codes == 1).mean() == pytest.approx((codes == 2).mean(), abs=0.1)
    seen.clear()
    model.get_sample_representation()
    assert not seen

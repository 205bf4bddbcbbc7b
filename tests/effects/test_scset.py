"""ScSet at default settings on real cells: its vector carries the sample, tilting tilts, batches leave, and end to end learns."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch
from _shifts import r2_of_shifts

import scset_tools as sst
from scset_tools.nn import segment_mean

N_STEPS = 60
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "seed": 0}


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    """16 samples of 60 real blood cells, each of its own composition, with a label that one cell in ten shows."""
    adata = sst.datasets.varied_cohort(n_samples=16, n_cells=60, n_features=8, rng=0)
    number = adata.obs["sample"].cat.codes.to_numpy()
    is_planted = (number % 2 == 1) & (np.random.default_rng(0).random(adata.n_obs) < 0.1)
    adata.X[is_planted, 0] += 4
    adata.obs["label"] = np.where(number % 2 == 1, "case", "control")
    return adata


@pytest.fixture(scope="module")
def model(cells) -> sst.ScSet:
    adata = cells.copy()
    sst.ScSet.setup_anndata(adata, "sample", labels_key="label")
    model = sst.ScSet(adata, random_state=0)
    model.train(N_STEPS, **QUIET)
    return model


def denoising_loss(model, *, swap: bool) -> float:
    """Loss of all samples, each denoised with its own vector or with that of another sample."""
    module = model.module.eval()
    batch = model._dataset(model.adata)[0, range(16)]
    join = module._join  # the vector, attention and tokens alike
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(module, "_join", lambda *given: join(*given).roll(1, 0) if swap else join(*given))
        return float(module.loss(batch).loss)


def test_the_vector_carries_the_sample(model):
    own, other = denoising_loss(model, swap=False), denoising_loss(model, swap=True)
    assert other > 1.03 * own


@pytest.mark.filterwarnings("ignore:This ScSet is not trained")
def test_the_vector_finds_shifts_that_the_mean_and_random_weights_do_not_see():
    cohort = sst.datasets.varied_cohort(n_samples=192, n_cells=200, n_features=6, n_features_shifted=3, rng=0)
    sst.ScSet.setup_anndata(cohort, "sample")
    untrained = sst.ScSet(cohort, random_state=0)
    for name, vectors in {
        "mean": np.asarray(sst.profiles.Mean(sample_key="sample").fit(cohort).transform(cohort).X),
        "untrained": untrained.get_sample_representation().to_numpy(),
    }.items():
        assert r2_of_shifts(vectors, cohort) < 0.4, name
    model = sst.ScSet(cohort, random_state=0)
    model.train(3, **QUIET)
    assert r2_of_shifts(model.get_sample_representation().to_numpy(), cohort) > 0.55


def test_a_tilt_makes_other_compositions(model, cells):
    batch = model._dataset(model.adata)[0, range(16)]
    x, own = model.module.standardize(batch), {}
    for tilt in (1.0, 0.0):
        before, model.module.tilt = model.module.tilt, tilt
        kept, ptr = model.module.tilted(x, batch.ptr, batch.seed)
        model.module.tilt = before
        assert ptr.diff().tolist() == [30] * 16
        own[tilt] = float((segment_mean(x[kept], ptr) - segment_mean(x, batch.ptr)).square().sum(1).mean())
    assert own[1.0] > 2 * own[0.0]  # half of the cells, drawn evenly, also has another mean


@pytest.mark.parametrize("cls", [sst.ScSet, sst.MAESTRO], ids=["scset", "maestro"])
def test_a_batch_leaves_the_vectors_with_batch_key(cells, cls):
    adata = cells.copy()
    adata.X = adata.X - adata.X.min() + 1
    is_second = adata.obs["sample"].cat.codes.to_numpy() % 4 > 1
    adata.X[is_second] += 2
    adata.obs["batch"] = np.where(is_second, "b", "a")
    explained = {}
    for batch_key in (None, "batch"):
        cls.setup_anndata(adata, "sample", batch_key=batch_key)
        untrained = cls(adata, random_state=0)
        untrained.is_trained_ = True
        z = untrained.get_sample_representation().to_numpy()
        of_batch = np.array([i % 4 > 1 for i in range(16)])
        between = sum(np.square(z[part].mean(0) - z.mean(0)).sum() * part.sum() for part in (of_batch, ~of_batch))
        explained[batch_key] = between / np.square(z - z.mean(0)).sum()
    assert explained[None] > 0.5
    assert explained["batch"] < 0.3


def test_end_to_end_learns_what_a_frozen_head_does_not_see(model):
    truth = ["control", "case"] * 8
    sure = {}
    for mode in ("frozen", "end_to_end"):
        model.finetune(
            "label", mode=mode, penalty=0.01, max_epochs=15, lr=1e-3, accelerator="cpu", enable_progress_bar=False
        )
        p = model.predict_proba()
        sure[mode] = float(np.mean([p.loc[name, y] for name, y in zip(p.index, truth, strict=True)]))
    assert sure["end_to_end"] > sure["frozen"] + 0.05

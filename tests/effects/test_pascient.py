"""PaSCient at default settings: attention finds planted cells, and each switch of its training changes what it says."""

from __future__ import annotations

import anndata as ad
import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cosine_similarity

import scset_tools as sst
from scset_tools.data._sparse import SparseRows

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "seed": 0}


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    """20 samples of 40 real blood cells; one cell in ten of a case is planted."""
    adata = sst.datasets.varied_cohort(n_samples=20, n_cells=40, n_features=8, rng=0)
    number = adata.obs["sample"].cat.codes.to_numpy()
    adata.obs["is_planted"] = (number % 2 == 1) & (np.random.default_rng(0).random(adata.n_obs) < 0.1)
    adata.X[adata.obs["is_planted"], 0] += 4
    adata.obs["label"] = np.where(number % 2 == 1, "case", "control")
    adata.obs["rare"] = np.where(number < 4, "few", "many")
    return adata


def build(cells, *, labels_key="label", cell_type_key=None, **arguments) -> sst.PaSCient:
    adata = cells.copy()
    sst.PaSCient.setup_anndata(adata, "sample", labels_key=labels_key, cell_type_key=cell_type_key)
    return sst.PaSCient(adata, random_state=0, **arguments)


def test_attention_finds_planted_cells_and_training_stops_when_nothing_is_left_to_learn(cells):
    model = build(cells)
    model.train(**QUIET)
    weight = model.get_attention().mean(axis=1).to_numpy() * 40  # 1: even
    assert weight[cells.obs["is_planted"]].mean() > 1.5 * weight[~cells.obs["is_planted"]].mean()
    assert (model.predict_proba().idxmax(axis=1) == ["control", "case"] * 10).all()
    loss = model.history["loss_train"]["loss_train"]
    assert len(loss) < 180  # of 200 epochs of two batches
    assert loss.iloc[-1] < 0.05


def test_neither_the_zero_nor_the_unit_of_the_features_changes_what_is_learned(cells):
    other = cells.copy()
    other.X = 3 * other.X + np.float32(20)
    apart = {}
    for standardize in (True, False):
        p = []
        for adata in (cells, other):
            model = build(adata, standardize=standardize)
            model.train(30, watch_health=False, stop_at_plateau=False, **QUIET)
            p.append(model.predict_proba()["case"].to_numpy())
        apart[standardize] = np.abs(p[0] - p[1]).max()
    assert apart[True] < 0.01
    assert apart[False] > 0.1


class Seen(pl.Callback):
    """Count the labels of the samples that training sees."""

    def __init__(self):
        self.counts = torch.zeros(2, dtype=torch.int64)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.counts += torch.bincount(batch.labels["labels"].long(), minlength=2)


@pytest.mark.parametrize(
    ("resampling", "expected"), [("none", [4, 16]), ("oversample_label", [16, 16]), ("downsample_label", [4, 4])]
)
def test_resampling_changes_how_often_a_class_is_seen(cells, resampling, expected):
    seen, model = Seen(), build(cells, labels_key="rare")
    model.train(3, resampling=resampling, callbacks=[seen], **QUIET)
    assert seen.counts.tolist() == [3 * n for n in expected]


def test_class_weights_lift_the_rare_class_to_an_even_chance(cells):
    # all samples hold the same cells: nothing can be learned but how frequent a class is, 4 of 20
    same = cells.copy()
    block = np.random.default_rng(1).normal(size=(40, same.n_vars)).astype(np.float32)
    for sample in same.obs["sample"].cat.categories:
        same.X[(same.obs["sample"] == sample).to_numpy()] = block
    chance = {}
    for weight in (None, "balanced"):
        model = build(same, labels_key="rare")
        model.train(40, class_weight=weight, watch_health=False, plan_kwargs={"lr": 3e-3}, **QUIET)
        chance[weight] = float(model.predict_proba()["few"].mean())
    assert chance[None] == pytest.approx(0.2, abs=0.08)
    assert chance["balanced"] == pytest.approx(0.5, abs=0.1)


def test_augmentation_hides_genes_and_thins_counts_in_training_alone():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"sample": [f"s{i % 6}" for i in range(240)]}, index=[f"c{i}" for i in range(240)])
    counts = ad.AnnData(rng.poisson(5.0, (240, 50)).astype(np.float32), obs=obs)
    counts.obs["label"] = np.where(obs["sample"].isin(["s0", "s2", "s4"]), "a", "b")
    model = build(counts, log_normalize=True, gene_mask_rate=0.3, depth=(40, 60))
    batch = model._dataset(model.adata)[0, range(6)]
    raw = batch.x if isinstance(batch.x, SparseRows) else SparseRows.from_dense(batch.x)
    model.module.log_normalize = False  # to look at the counts
    thinned = model.module.train().augmented(batch)
    total = torch.zeros(240).index_add_(
        0, torch.repeat_interleave(torch.arange(240), thinned.indptr.diff().long()), thinned.values
    )
    assert float(raw.values.sum()) / 240 > 200
    assert 40 * 0.4 < float(total.min())  # thinned to 40 to 60, then about 0.3 of the genes hidden
    assert float(total.max()) <= 60
    model.module.depth = None
    hidden = model.module.augmented(batch)
    assert float((hidden.values == 0).float().mean() - (raw.values == 0).float().mean()) == pytest.approx(0.3, abs=0.03)
    seen = model.module.eval().augmented(batch)
    seen = seen.values if isinstance(seen, SparseRows) else seen
    assert float(seen.sum()) == float(raw.values.sum())


def test_the_contrastive_term_brings_cells_of_a_type_together(cells):
    gap = {}
    for weight in (0.0, 1.0):
        model = build(cells, cell_type_key="cell_type", contrastive_weight=weight)
        model.train(15, stop_at_plateau=False, **QUIET)
        with torch.no_grad():
            h = model.module.eval().encode_cells(torch.from_numpy(np.asarray(model.adata.X[:300])))
        same = cells.obs["cell_type"].to_numpy()[:300, None] == cells.obs["cell_type"].to_numpy()[None, :300]
        likeness = cosine_similarity(h[:, None], h[None], dim=2).numpy()
        gap[weight] = likeness[same].mean() - likeness[~same].mean()
    assert gap[1.0] > 1.6 * gap[0.0]

"""With random labels a profile must give chance; a profile that peeks at test samples must not pass this."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from scset_tools import profiles
from scset_tools.profiles._cells import Cells


class Supervised(profiles.Profile):
    """Projection on the difference of the two classes' mean cells; it peeks if it learns from all samples."""

    name = "supervised"

    def __init__(self, *, sample_key: str) -> None:
        self.sample_key = sample_key

    def _fit(self, cells: Cells) -> None:
        labels = (cells.obs["label"] == "a").to_numpy().astype(np.int64)
        means = cells.sums(labels, 2) / np.bincount(labels[cells.rows], minlength=2)[:, None]
        self.direction_ = means[1] - means[0]

    def _transform(self, cells: Cells) -> np.ndarray:
        return (cells.sums(cells.codes, cells.n_samples) / cells.sizes[:, None]) @ self.direction_[:, None]


class Peeking(Supervised):
    """The planted leak: the fit sees all samples."""

    def fit(self, adata: ad.AnnData, *, samples: object = None) -> Peeking:
        del samples
        return super().fit(adata)


def random_cohort(seed: int) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(40 * 8, 30)).astype(np.float32)
    obs = pd.DataFrame({"sample": np.repeat([f"s{i:02}" for i in range(40)], 8)}, index=[f"c{i}" for i in range(320)])
    obs["label"] = np.repeat(rng.permutation(np.repeat(["a", "b"], 20)), 8)
    obs["cell_type"] = rng.choice(["B", "T"], 320)
    return ad.AnnData(x, obs=obs)


def cross_validated_auroc(profile: profiles.Profile, *, n_cohorts: int = 6) -> float:
    """Mean over cohorts with random labels."""
    scores = []
    for seed in range(n_cohorts):
        adata = random_cohort(seed)
        names = np.unique(adata.obs["sample"])
        y = adata.obs.groupby("sample")["label"].first()[names].to_numpy()
        predicted = np.empty(len(y))
        for train, test in StratifiedKFold(4, shuffle=True, random_state=seed).split(y, y):
            x = clone(profile).fit(adata, samples=names[train]).transform(adata).X
            model = LogisticRegression(max_iter=1000).fit(x[train], y[train])
            predicted[test] = model.predict_proba(x[test])[:, 1]
        scores.append(roc_auc_score(y == "b", predicted))
    return float(np.mean(scores))


@pytest.mark.parametrize(
    "profile",
    [
        profiles.Mean(sample_key="sample"),
        profiles.FractionsAndMeans(sample_key="sample", cell_type_key="cell_type"),
        profiles.KMeansFractions(sample_key="sample", n_clusters=5),
        profiles.KMeansMeans(sample_key="sample", n_clusters=3),
        profiles.OTKE(sample_key="sample", n_points=2, n_anchors=8, n_steps=2),
        profiles.MixtureFractions(sample_key="sample", n_components=3),
        profiles.KernelMean(sample_key="sample", n_components=16),
        profiles.RandomVector(sample_key="sample"),
        Supervised(sample_key="sample"),
    ],
    ids=lambda p: p.name,
)
def test_random_labels_give_chance(profile: profiles.Profile) -> None:
    # 6 cohorts of 20 + 20: an AUROC of pure chance has a standard error of 0.04; pooled folds lean a little below 0.5
    assert 0.33 < cross_validated_auroc(profile) < 0.62


def test_a_planted_leak_is_seen() -> None:
    assert cross_validated_auroc(Peeking(sample_key="sample")) > 0.8

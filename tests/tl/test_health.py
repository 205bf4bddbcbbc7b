"""Health of vectors: rank, draws, neighbours and leakage against known answers, and a sentence that says so."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from scset_tools.tl import _health, representation_health


def table(x, obs=None):
    names = [f"s{i:02d}" for i in range(len(x))]
    return ad.AnnData(np.asarray(x, dtype=np.float32), obs=pd.DataFrame(obs or {}, index=names))


@pytest.fixture
def spread():
    """Vectors of 60 samples along five directions alike."""
    return np.random.default_rng(0).normal(size=(60, 5))


class Model:
    """Whatever has these two methods is a model: its vectors are means of the drawn cells."""

    def __init__(self, adata, noise):
        self.adata, self.noise, self.asked = adata, noise, []
        self.registry = {"setup_args": {"sample_key": "sample", "layer": None}}
        self.centres = np.random.default_rng(0).normal(size=(adata.obs["sample"].nunique(), 4))

    def get_sample_representation(self, adata=None, *, samples=None, n_cells=None, seed=None):
        self.asked.append((samples, n_cells, seed))
        vectors = self.centres + (
            self.noise * np.random.default_rng(seed).normal(size=self.centres.shape) if n_cells else 0
        )
        names = sorted(self.adata.obs["sample"].unique())
        return pd.DataFrame(vectors, index=names).loc[names if samples is None else samples]

    def to_sample_adata(self, adata=None):
        frame = self.get_sample_representation(adata)
        return ad.AnnData(
            frame.to_numpy(), obs=pd.DataFrame({"n_cells": self.adata.obs["sample"].value_counts()[frame.index]})
        )


def cells(n_samples=30, *, scale=1):
    rng = np.random.default_rng(1)
    sample = np.repeat([f"s{i:02d}" for i in range(n_samples)], rng.integers(40, 80, n_samples))
    obs = pd.DataFrame({"sample": sample}, index=[f"c{i}" for i in range(len(sample))])
    return ad.AnnData((scale * rng.poisson(3.0, (len(sample), 6))).astype(np.float32), obs=obs)


# ---- the figures


def test_rank_and_shape(spread):
    health = representation_health(table(spread))
    assert 4 < health.effective_rank <= 5
    assert (health.n_samples, health.n_features) == (60, 5)
    assert not health.is_collapsed
    assert health.leakage == {}
    assert np.isnan(health.share_between)
    assert str(health) == f"Sound: the vectors of 60 samples vary along {health.effective_rank:.1f} of 5 directions."


def test_a_collapse_is_called_one(spread):
    line = np.outer(spread[:, 0], np.ones(5)) + 0.01 * spread
    health = representation_health(table(line))
    assert health.is_collapsed
    assert str(health).startswith(
        "Collapsed, unless one label is all they are to tell: the vectors of 60 samples vary along 1.0"
    )
    same = representation_health(table(np.ones((60, 5))))
    assert str(same) == "Collapsed: the vectors of all 60 samples are the same."


@pytest.mark.parametrize("at_once", [2**22, 60 * 7, 1], ids=["all", "seven rows", "a row"])
def test_neighbours_of_two_draws_against_a_loop(spread, monkeypatch, at_once):
    monkeypatch.setattr(_health, "DISTANCES_AT_ONCE", at_once)
    second = table(spread + 0.5 * np.random.default_rng(1).normal(size=spread.shape))
    health = representation_health(table(spread), second=second, n_neighbors=4)
    kept = []
    for i in range(60):
        near = [
            set(sorted((j for j in range(60) if j != i), key=lambda j, x=x: np.linalg.norm(x[j] - x[i]))[:4])
            for x in (table(spread).X, second.X)
        ]
        kept.append(len(near[0] & near[1]) / 4)
    assert health.neighbors_kept == pytest.approx(np.mean(kept))
    assert health.neighbors_by_chance == pytest.approx(4 / 59)
    assert health.share_between == pytest.approx(1 / (1 + 0.125), abs=0.05)  # half of the squared distance of the draws


def test_draws_are_matched_by_name(spread):
    one = table(spread)
    assert representation_health(one, second=one[::-1].copy()).share_between == 1
    with pytest.raises(ValueError, match=r"same 60 samples, but 1 are in one alone: \['s59'\]"):
        representation_health(one, second=one[:59].copy())


def test_noise_is_called_noise(spread):
    second = table(np.random.default_rng(1).normal(size=spread.shape))
    health = representation_health(table(spread), second=second)
    assert health.share_between < 0.2
    assert health.neighbors_kept < 0.2
    assert str(health).startswith("Noisy: ")
    assert "more between draws of cells than between samples" in str(health)


def test_what_leaks_is_named(spread):
    n_cells = np.exp(5 + 0.5 * spread[:, 0]).astype(int)
    depth = np.exp(np.random.default_rng(2).normal(size=60))
    health = representation_health(table(spread, {"n_cells": n_cells, "depth": depth}))
    assert health.leakage["n_cells"] > 0.95
    assert health.leakage["depth"] < 0.2
    assert str(health).endswith("they predict n_cells (R2 1.00): samples may differ by how they were measured.")
    assert not str(health).startswith("Sound")
    # a regression that is hardly shrunk does no better on what it was fitted on
    fitted = LinearRegression().fit(spread, np.log(n_cells)).score(spread, np.log(n_cells))
    assert health.leakage["n_cells"] == pytest.approx(fitted, abs=0.02)
    assert representation_health(table(spread, {"age": n_cells}), nuisances="age").leakage["age"] > 0.95


def test_leakage_that_cannot_be_known_is_nan(spread):
    few = representation_health(table(spread[:9], {"n_cells": range(1, 10)}))
    same = representation_health(table(spread, {"n_cells": [100] * 60}))
    assert np.isnan(few.leakage["n_cells"])
    assert np.isnan(same.leakage["n_cells"])
    assert "r2_n_cells" in few.summary()


# ---- a model


def test_a_model_is_asked_for_two_draws():
    model = Model(cells(), noise=0.5)
    health = representation_health(model, rng=3)
    sizes = model.adata.obs["sample"].value_counts()
    assert health.n_cells == int(np.quantile(sizes, 0.1) // 2)
    assert [(n, seed) for _, n, seed in model.asked] == [(None, None), (health.n_cells, 3), (health.n_cells, 4)]
    assert health.share_between == pytest.approx(0.8, abs=0.1)
    assert f"two draws of {health.n_cells} cells keep" in str(health)
    total = pd.Series(model.adata.X.sum(1), index=model.adata.obs["sample"]).groupby(level=0).mean()
    assert set(health.leakage) == {"n_cells", "depth"}
    assert total.std() > 0


def test_depth_is_of_counts_alone():
    assert set(representation_health(Model(cells(scale=0.3), noise=0.5)).leakage) == {"n_cells"}


def test_samples_that_are_smaller_than_a_draw_are_left_out_of_it():
    model = Model(cells(), noise=0.5)
    sizes = model.adata.obs["sample"].value_counts()
    representation_health(model, n_cells=60)
    assert set(model.asked[1][0]) == set(sizes.index[sizes > 60])
    assert np.isnan(representation_health(model, n_cells=1000).share_between)


def test_errors(spread):
    with pytest.raises(ValueError, match="There are 2 samples: their spread cannot be told from fewer than 3"):
        representation_health(table(spread[:2]))
    with pytest.raises(KeyError, match=r"\['age'\] is not a column of the samples' obs"):
        representation_health(table(spread), nuisances=["age"])
    with pytest.raises(ValueError, match="use_rep='X_pca' is for a sample-level AnnData"):
        representation_health(Model(cells(), noise=0.1), use_rep="X_pca")

"""Small inputs of the plots; every figure is closed, and none may change the global settings."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData


@pytest.fixture(autouse=True)
def _close_figures():
    before = dict(mpl.rcParams)
    yield
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()  # layouts and legends are only built when drawn: errors must show here
    plt.close("all")
    assert dict(mpl.rcParams) == before


@pytest.fixture
def make_samples():
    """Sample-level AnnData with columns of every kind."""

    def make(n: int = 12, n_features: int = 5, n_categories: int = 3) -> AnnData:
        rng = np.random.default_rng(0)
        obs = pd.DataFrame(
            {
                "group": pd.Categorical([f"g{i % n_categories:02d}" for i in range(n)]),
                "sex": ["female" if i % 2 else "male" for i in range(n)],
                "age": np.linspace(20, 80, n),
                "is_treated": [i % 3 == 0 for i in range(n)],
            },
            index=[f"s{i}" for i in range(n)],
        )
        samples = AnnData(rng.normal(size=(n, n_features)).astype(np.float32), obs=obs)
        samples.obsm["X_model"] = rng.normal(size=(n, 4)).astype(np.float32)
        return samples

    return make


@pytest.fixture
def quick_umap(monkeypatch) -> list[dict]:
    """A stand-in for umap, which compiles for many seconds: the first two columns. Returns the arguments it was given."""
    calls: list[dict] = []

    class UMAP:
        def __init__(self, **kwargs):
            calls.append(kwargs)

        def fit_transform(self, x):
            return x[:, :2].astype(np.float32)

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=UMAP))
    return calls


@pytest.fixture
def legend_texts():
    """Entries of the legend of axes."""
    return lambda ax: [text.get_text() for text in ax.get_legend().get_texts()]

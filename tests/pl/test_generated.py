from __future__ import annotations

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex

from scset_tools import pl


def result(n: int = 3) -> SimpleNamespace:
    names = [f"s{i}" for i in range(n)]
    correlation = pd.DataFrame(np.full((n, n), 0.2) + 0.7 * np.eye(n), index=names, columns=names)
    correlation.iloc[0, 1] = 0.95  # the second generated sample resembles the first true one
    overall = pd.DataFrame({"true": [0.2, 0.5, 0.3], "generated": [0.25, 0.4, 0.35]}, index=["T", "B", "NK"])
    summary = pd.Series({"pearson_overall": 0.98, "share_closest": 2 / 3, "chance": 1 / 3})
    return SimpleNamespace(correlation=correlation, overall=overall, summary=lambda: summary)


def test_bars_and_matrix():
    axes = pl.generated_composition(result())
    assert len(axes) == 2
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["T", "NK", "B"]  # by their true share
    true, made = axes[0].containers
    assert [b.get_width() for b in true] == [0.2, 0.3, 0.5]
    assert [b.get_width() for b in made] == [0.25, 0.35, 0.4]
    assert "r = 0.98" in axes[0].get_title()
    np.testing.assert_array_equal(axes[1].images[0].get_array(), result().correlation)
    np.testing.assert_array_equal(axes[1].collections[0].get_offsets(), [[0, 0], [1, 0], [2, 2]])
    assert axes[1].get_title() == "closest to itself: 67% (chance 33%)"


def test_own_axes_and_many_samples():
    _, mine = plt.subplots(1, 2)
    axes = pl.generated_composition(result(40), axes=mine)
    assert axes[0] is mine[0]
    assert len(axes[1].get_xticks()) == 0


def test_composition_errors():
    with pytest.raises(TypeError, match=r"takes the result of tl.generated_composition, but was given DataFrame"):
        pl.generated_composition(pd.DataFrame())
    with pytest.raises(ValueError, match="Two axes are needed, but 3 were given"):
        pl.generated_composition(result(), axes=plt.subplots(1, 3)[1])


def trajectory(n: int = 20) -> AnnData:
    rng = np.random.default_rng(0)
    steps = np.repeat([1000.0, 500.0, 0.0], n)
    obs = pd.DataFrame({"step": steps, "type": np.tile(["A", "B"], 3 * n // 2)}, index=[f"c{i}" for i in range(3 * n)])
    return AnnData(rng.normal(size=(3 * n, 4)).astype(np.float32), obs=obs)


def test_one_panel_per_step_from_noise_to_cells():
    adata = trajectory()
    axes = pl.denoising(adata, basis="pca", color="type")
    assert [ax.get_title() for ax in axes] == ["step 1000", "step 500", "step 0"]
    assert [len(ax.collections[1].get_offsets()) for ax in axes] == [20, 20, 20]
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in axes}) == 1
    assert len({to_hex(c) for c in axes[0].collections[1].get_facecolors()}) == 2
    assert [t.get_text() for t in axes[-1].get_legend().get_texts()] == ["A", "B"]


def test_a_reference_lies_behind_and_many_cells_are_thinned():
    adata = trajectory()
    reference = AnnData(np.ones((30, 2), np.float32), obsm={"X_rep": adata.X[:30].copy()})
    axes = pl.denoising(adata, basis="pca", reference=reference, use_rep="X_rep", n_cells=7)
    assert [[len(c.get_offsets()) for c in ax.collections] for ax in axes] == [[7, 7]] * 3
    with pytest.raises(ValueError, match="The reference has 2 features and the generated cells 4"):
        pl.denoising(adata, basis="pca", reference=reference)


def test_many_steps_stand_in_rows():
    rng = np.random.default_rng(0)
    adata = AnnData(rng.normal(size=(60, 3)).astype(np.float32))
    adata.obs["denoising_step"] = np.repeat([5, 4, 3, 2, 1, 0], 10)
    adata.obs["type"] = list("ab") * 30
    axes = pl.denoising(adata, basis="pca", color="type", step_key="denoising_step")
    grid = [ax.get_subplotspec() for ax in axes]
    assert [(g.rowspan.start, g.colspan.start) for g in grid] == [(i // 3, i % 3) for i in range(6)]
    legend = axes[2].get_legend()  # beside the first row
    assert [t.get_text() for t in legend.get_texts()] == ["a", "b"]
    assert legend.get_texts()[0].get_fontsize() == plt.rcParams["font.size"]


def test_denoising_errors():
    with pytest.raises(KeyError, match="'time' is not a column"):
        pl.denoising(trajectory(), basis="pca", step_key="time")
    with pytest.raises(ValueError, match="There are 3 steps, but 2 axes"):
        pl.denoising(trajectory(), basis="pca", axes=plt.subplots(1, 2)[1])


def two_groups() -> AnnData:
    x = np.array([[0.0, 0.0], [9.0, 9.0], [0.1, 0.0], [9.0, 9.1], [0.0, 0.1], [9.1, 9.0]], np.float32)
    return AnnData(x, obs=pd.DataFrame({"subtype": ["a", "b"] * 3}, index=[f"s{i}" for i in range(6)]))


def test_leaves_are_grouped_and_coloured():
    mixed = two_groups()
    mixed.X = mixed.X[[0, 2, 4, 1, 3, 5]].copy()
    axes = pl.subtype_trees({"good": two_groups(), "bad": mixed}, "subtype")
    assert axes.shape == (3, 2)
    assert [ax.get_title() for ax in axes[0]] == ["good", "bad"]
    strip = [[to_hex(c) for c in ax.images[0].get_array()[0]] for ax in axes[1]]
    assert len(set(strip[0][:3])) == len(set(strip[0][3:])) == 1
    assert strip[0][0] != strip[0][-1]
    assert len(set(strip[1][:3])) == 2
    distances = axes[2, 0].images[0].get_array()
    assert distances[:3, :3].max() < distances[:3, 3:].min()
    assert [t.get_text() for t in axes[0, 1].get_legend().get_texts()] == ["a", "b"]


def test_tree_errors():
    with pytest.raises(ValueError, match="There is no representation to draw"):
        pl.subtype_trees({}, "subtype")
    with pytest.raises(ValueError, match="'x' has 1 samples: a tree needs at least 2"):
        pl.subtype_trees({"x": two_groups()[:1].copy()}, "subtype")
    with pytest.raises(ValueError, match=r"axes has the shape \(2, 2\), but must be \(3, 1\)"):
        pl.subtype_trees({"x": two_groups()}, "subtype", axes=plt.subplots(2, 2)[1])
    with pytest.raises(KeyError, match="'disease' is not a column"):
        pl.subtype_trees({"x": two_groups()}, "disease")

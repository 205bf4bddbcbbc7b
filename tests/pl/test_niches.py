from __future__ import annotations

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scset_tools import pl


def niches() -> ad.AnnData:
    obs = pd.DataFrame(
        {"sample": ["b", "a", "a"], "niche_x": [1.0, 2, 3], "niche_y": [4.0, 5, 6], "kind": ["x", "y", "x"]}
    )
    obs.index = ["n0", "n1", "n2"]
    return ad.AnnData(np.array([[0.0], [10.0], [5.0]]), obs=obs, var=pd.DataFrame(index=["g"]))


def test_a_panel_per_tissue_on_one_scale():
    below = ad.AnnData(np.zeros((2, 1)), obs=pd.DataFrame({"sample": ["a", "b"]}, index=["0", "1"]))
    below.obsm["spatial"] = np.array([[7.0, 8], [9, 10]])
    axes = pl.niches(niches(), "g", sample_key="sample", cells=below)
    assert [ax.get_title() for ax in axes] == ["a", "b"]
    grey, centres = axes[0].collections
    np.testing.assert_array_equal(grey.get_offsets(), [[7, 8]])
    np.testing.assert_array_equal(centres.get_offsets(), [[2, 5], [3, 6]])
    np.testing.assert_array_equal(centres.get_array(), [10, 5])
    assert all(ax.collections[1].get_clim() == (0, 10) for ax in axes)
    assert all(ax.yaxis_inverted() for ax in axes)


def test_panels_of_tissues_of_different_shapes_are_of_one_size():
    wide = niches()
    wide.obs["niche_x"] = [0.0, 0.0, 900.0]
    wide.obs["niche_y"] = [0.0, 0.0, 10.0]
    axes = pl.niches(wide, "g", sample_key="sample")
    axes[0].figure.canvas.draw()
    a, b = (ax.get_window_extent() for ax in axes)
    assert (a.width, a.height) == pytest.approx((b.width, b.height), rel=0.02)
    (x0, y0), (x1, y1) = axes[0].transData.transform([(0, 0), (100, 100)])
    assert abs(x1 - x0) == pytest.approx(abs(y1 - y0), rel=1e-6)  # and a length is as long either way


def test_categories_keep_their_colours_over_panels_and_axes_may_be_given():
    _, mine = plt.subplots(1, 2)
    axes = pl.niches(niches(), "kind", sample_key="sample", samples=["b", "a"], axes=mine)
    assert axes[0] is mine[0]
    x_of_b, (x_of_a, y_of_a) = axes[0].collections[0], axes[1].collections
    np.testing.assert_array_equal(x_of_b.get_facecolor(), x_of_a.get_facecolor())
    assert not np.array_equal(x_of_a.get_facecolor(), y_of_a.get_facecolor())
    assert [t.get_text() for t in axes[1].get_legend().get_texts()] == ["x", "y"]


def test_bad_input():
    with pytest.raises(KeyError, match=r"1 of 1 tissues are not there: \['z'\]"):
        pl.niches(niches(), "g", sample_key="sample", samples="z")
    with pytest.raises(ValueError, match="There are 2 tissues, but 1 axes"):
        pl.niches(niches(), "g", sample_key="sample", axes=plt.gca())
    table = niches()
    del table.obs["niche_y"]
    with pytest.raises(KeyError, match=r"needs the columns \['niche_y'\] of niches.obs, which pp.niches writes"):
        pl.niches(table, "g", sample_key="sample")

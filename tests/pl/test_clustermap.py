from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex
from scipy.cluster.hierarchy import leaves_list, linkage

from scset_tools import pl
from scset_tools.pl._style import MISSING, OKABE_ITO


def legend_texts(grid) -> list[str]:
    return [text.get_text() for text in grid.figure.legends[0].get_texts()]


def test_rows_are_in_the_order_of_scipy_and_values_are_z_scores(make_samples):
    samples = make_samples(10)
    grid = pl.clustermap(samples)
    z = (samples.X - samples.X.mean(0)) / samples.X.std(0)
    order = leaves_list(linkage(z, method="average"))
    assert grid.dendrogram_row.reordered_ind == list(order)
    np.testing.assert_allclose(grid.data2d.to_numpy(), z[order][:, grid.dendrogram_col.reordered_ind], atol=1e-5)
    assert [text.get_text() for text in grid.ax_heatmap.get_yticklabels()] == list(samples.obs_names[order])


def test_bars_of_categories_and_numbers_have_their_colours_and_a_legend(make_samples):
    samples = make_samples(9)
    samples.obs.loc["s4", "age"] = np.nan
    grid = pl.clustermap(samples, color=["group", "age", "is_treated"])
    numbers = ["20", "50", "80", "missing"]
    expected = ["group", "g00", "g01", "g02", "age", *numbers, "is_treated", "False", "True"]
    assert legend_texts(grid) == expected
    by_name = dict(zip(samples.obs_names, zip(*grid.row_colors, strict=True), strict=True))
    assert to_hex(by_name["s1"][0]).upper() == OKABE_ITO[1]
    assert to_hex(by_name["s4"][1]).upper() == MISSING


def test_nothing_lies_over_the_legend_or_outside_the_figure(make_samples):
    samples = make_samples(12)
    samples.obs_names = [f"a sample with a long name {i}" for i in range(12)]
    grid = pl.clustermap(samples, color=["group", "sex"])
    grid.figure.canvas.draw()
    legend = grid.figure.legends[0].get_window_extent()
    names = [text.get_window_extent() for text in grid.ax_heatmap.get_yticklabels()]
    assert max(name.x1 for name in names) <= legend.x0
    assert legend.x1 <= grid.figure.bbox.x1
    assert grid.ax_cbar.get_window_extent().y1 < legend.y0


def test_one_sample_one_feature_and_a_constant_feature(make_samples):
    assert pl.clustermap(make_samples(1), color="group").data2d.shape == (1, 5)
    assert pl.clustermap(make_samples(6, n_features=1)).data2d.shape == (6, 1)
    samples = make_samples(6)
    samples.X[:, 2] = 7.0
    assert (pl.clustermap(samples).data2d["2"] == 0).all()


def test_names_of_a_representation_and_of_many_samples(make_samples):
    grid = pl.clustermap(make_samples(121), use_rep="X_model")
    assert set(grid.data2d.columns) == {f"model_{i}" for i in range(4)}
    assert [text.get_text() for text in grid.ax_heatmap.get_yticklabels()] == []


def test_errors(make_samples):
    samples = make_samples()
    with pytest.raises(KeyError, match="'no' is not a column"):
        pl.clustermap(samples, color="no")
    samples.X[3, 0] = np.inf
    with pytest.raises(ValueError, match=r"not finite in 1 of 12 rows \(first: \['s3'\]\)"):
        pl.clustermap(samples)

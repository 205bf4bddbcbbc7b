from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scset_tools import pl


def errors(n_types: int = 5, n_models: int = 2) -> pd.DataFrame:
    values = np.random.default_rng(0).uniform(0.01, 0.1, (n_types, n_models))
    return pd.DataFrame(values, [f"type {i}" for i in range(n_types)], [f"m{j}" for j in range(n_models)])


def test_a_closed_line_per_model_and_a_spoke_per_type(legend_texts):
    table = errors()
    ax = pl.radar(table)
    assert ax.name == "polar"
    for line, model in zip(ax.lines, table.columns, strict=True):
        np.testing.assert_allclose(line.get_ydata(), [*table[model], table[model].iloc[0]])
        np.testing.assert_allclose(line.get_xdata(), 2 * np.pi * np.array([0, 1, 2, 3, 4, 0]) / 5)
    assert [text.get_text() for text in ax.get_xticklabels()] == list(table.index)
    assert legend_texts(ax) == ["m0", "m1"]
    assert ax.get_title() == "mean absolute error"
    assert ax.get_ylim()[1] >= table.to_numpy().max()


def test_long_names_and_legend_stay_inside_the_figure():
    table = errors(16, 4).rename(lambda name: f"CD4+/CD45RA+ naive cell {name}")
    ax = pl.radar(table)
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.get_xticklabels()] + [ax.get_legend().get_window_extent()]
    assert min(box.x0 for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= ax.figure.bbox.x1


@pytest.mark.parametrize("n_models", [12, 22, 66, 100])
def test_a_long_legend_is_not_cut_at_any_resolution(n_models):
    figure = pl.radar(errors(8, n_models)).figure
    for dpi in (72, 100, 200):
        figure.set_dpi(dpi)
        figure.canvas.draw()
        box = figure.axes[0].get_legend().get_window_extent()
        assert box.y0 >= 0
        assert box.y1 <= figure.bbox.y1


def test_missing_values_many_models_zero_errors_and_own_axes():
    table = errors(3, 10)
    table.iloc[1, 0] = np.nan
    _, mine = plt.subplots(subplot_kw={"projection": "polar"})
    assert pl.radar(table, ax=mine) is mine
    assert len({(line.get_color(), line.get_linestyle()) for line in mine.lines}) == 10
    assert pl.radar(errors() * 0).get_ylim() == (0, 1)


def test_errors():
    with pytest.raises(ValueError, match=r"at least 3 cell types and one model, got \(2, 2\)"):
        pl.radar(errors(2))
    with pytest.raises(ValueError, match=r"negative \(types \['type 1'\]\)"):
        pl.radar(errors().mul([1, -1, 1, 1, 1], axis=0))
    with pytest.raises(TypeError, match="needs polar axes"):
        pl.radar(errors(), ax=plt.subplots()[1])
    with pytest.raises(TypeError, match="takes a DataFrame of cell types x models, but was given ndarray"):
        pl.radar(errors().to_numpy())

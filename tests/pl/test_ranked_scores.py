"""Boxes stand in the order of the means, with the quartiles of the table."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scset_tools import pl


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(9, 4)) + np.array([0, 3, -1, 1]), columns=["B", "Mono", "NK", "T"])
    frame.loc[:6, "T"] = np.nan
    return frame.assign(none=np.nan)


def test_columns_are_ranked_by_their_mean(table):
    ax = pl.ranked_scores(table, n_top=3, title="COVID-19")
    means = table.mean().dropna().sort_values(ascending=False)
    assert [t.get_text() for t in ax.get_yticklabels()] == list(means.index[:3])
    assert ax.get_title() == "COVID-19"
    assert ax.yaxis_inverted()
    offsets = [c.get_offsets() for c in ax.collections]
    first = np.sort(np.asarray(offsets[0])[:, 0])
    np.testing.assert_allclose(first, np.sort(table["Mono"]))
    assert len(offsets[1]) == 2  # samples without such cells have no point
    boxes = [p.get_path().vertices[:, 0] for p in ax.patches]
    np.testing.assert_allclose([boxes[0].min(), boxes[0].max()], np.quantile(table["Mono"], [0.25, 0.75]))


def test_given_axes_are_used(table):
    _, ax = plt.subplots()
    assert pl.ranked_scores(table, ax=ax) is ax


def test_one_sample_is_drawn(table):
    assert len(pl.ranked_scores(table.iloc[[8]]).get_yticks()) == 4


def test_bad_input(table):
    with pytest.raises(TypeError, match="takes a DataFrame of samples x columns, but was given list"):
        pl.ranked_scores([1, 2])
    with pytest.raises(ValueError, match="without any number"):
        pl.ranked_scores(table[["none"]])

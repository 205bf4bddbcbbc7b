from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_rgb

from scset_tools import pl, tl


def scores() -> tuple[pd.DataFrame, pd.Series]:
    index = [f"s{i}" for i in range(8)]
    x = np.random.default_rng(0).normal(size=(8, 3))
    x[4:, 1] += 6
    severity = pd.Series(["mild"] * 4 + ["severe"] * 3 + [None], index=index, name="severity")
    return pd.DataFrame(x, index=index, columns=["T", "B", "NK"]), severity


def test_boxes_of_each_class_with_the_p_values_of_the_tests():
    table, severity = scores()
    tests = tl.association(AnnData(table, obs=severity.to_frame()), "severity", test="t", correction="bonferroni")
    ax = pl.grouped_scores(table, severity[::-1], association=tests, n_top=2)
    assert [t.get_text() for t in ax.get_xticklabels()] == tests["feature"].tolist()[:2]
    assert ax.get_xticklabels()[0].get_text() == "B"
    assert float(ax.texts[1].get_text().removeprefix("p = ")) == pytest.approx(tests["p_adjusted"][1], rel=0.1)
    mild, severe = ax.collections[:2]
    assert sorted(mild.get_offsets()[:, 1].tolist()) == sorted(table["B"][:4].tolist())
    assert sorted(severe.get_offsets()[:, 1].tolist()) == sorted(table["B"][4:7].tolist())
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["mild", "severe"]


def test_without_tests_columns_stand_by_their_mean_and_axes_may_be_given():
    table, severity = scores()
    mine = plt.gca()
    ax = pl.grouped_scores(table, severity, ax=mine)
    assert ax is mine
    assert [t.get_text() for t in ax.get_xticklabels()] == table.mean().sort_values(ascending=False).index.tolist()
    assert not ax.texts


def test_bad_input():
    table, severity = scores()
    with pytest.raises(TypeError, match="takes a DataFrame and a Series"):
        pl.grouped_scores(table, list(severity))
    with pytest.raises(ValueError, match="None of the 8 samples of the table has a label"):
        pl.grouped_scores(table, severity.set_axis(list("abcdefgh")))
    with pytest.raises(ValueError, match=r"association lacks the columns \['p_adjusted'\]"):
        pl.grouped_scores(table, severity, association=pd.DataFrame({"feature": ["T"]}))
    with pytest.raises(ValueError, match="None of the columns of the table"):
        pl.grouped_scores(table, severity, association=pd.DataFrame({"feature": ["X"], "p_adjusted": [0.1]}))
    with pytest.raises(ValueError, match="more than once"):
        pl.grouped_scores(table, severity, association=pd.DataFrame({"feature": ["T", "T"], "p_adjusted": [0.1, 0.2]}))


def test_similarity_puts_like_beside_like():
    names = ["a1", "b1", "a2", "b2"]
    alike = np.array([[n[0] == m[0] for n in names] for m in names])
    table = pd.DataFrame(np.where(alike, 0.9, -0.5) + 0.1 * np.eye(4), index=names, columns=names)
    ax = pl.similarity(table)
    shown = [t.get_text() for t in ax.get_yticklabels()]
    assert {frozenset(shown[:2]), frozenset(shown[2:])} == {frozenset({"a1", "a2"}), frozenset({"b1", "b2"})}
    np.testing.assert_array_equal(ax.images[0].get_array(), table.loc[shown, shown])
    assert ax.images[0].get_clim() == (-1, 1)
    ax = pl.similarity(table, is_clustered=False)
    assert [t.get_text() for t in ax.get_xticklabels()] == names
    with pytest.raises(TypeError, match=r"takes the table of tl.label_similarity"):
        pl.similarity(table.to_numpy())
    with pytest.raises(
        ValueError, match=r"square table with the same names on both sides, but was given one of shape \(4, 3\)"
    ):
        pl.similarity(table.iloc[:, :3])


def test_classes_stand_with_their_numbers_as_numbers(legend_texts):
    names = ["grade 1", "grade 2", "grade 10"]
    table = pd.DataFrame({"T": [1.0, 2.0, 3.0]}, index=["a", "b", "c"])
    ax = pl.grouped_scores(table, pd.Series(names, index=table.index, name="grade"))
    assert legend_texts(ax) == names
    at = [(points.get_offsets()[0, 1], points.get_offsets()[0, 0]) for points in ax.collections]
    assert sorted(at) == sorted(at, key=lambda pair: pair[1])  # grade 1, 2, 10 from left to right
    colors = {points.get_offsets()[0, 1]: tuple(points.get_facecolor()[0][:3]) for points in ax.collections}
    assert [to_rgb(handle.get_color()) for handle in ax.get_legend().legend_handles] == [
        colors[1.0],
        colors[2.0],
        colors[3.0],
    ]

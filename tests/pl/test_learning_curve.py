from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scset_tools import pl


def repeats(names: tuple[str, ...] = ("mean", "MAESTRO")) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [(name, n, rng.uniform(0.5, 0.9)) for name in names for n in (25, 50, 100) for _ in range(5)]
    return pd.DataFrame(rows, columns=["representation", "n_train", "score"])


def test_means_and_t_intervals(legend_texts):
    table = repeats()
    ax = pl.learning_curve(table)
    for container, name in zip(ax.containers, ("mean", "MAESTRO"), strict=True):
        for i, n in enumerate((25, 50, 100)):
            values = table.loc[(table["representation"] == name) & (table["n_train"] == n), "score"]
            low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
            segment = container.lines[2][0].get_segments()[i]
            assert container.lines[0].get_ydata()[i] == pytest.approx(values.mean())
            np.testing.assert_allclose(segment[:, 1], [low, high])
    assert legend_texts(ax) == ["mean", "MAESTRO"]
    assert ax.get_xlabel() == "training samples"
    assert list(ax.get_xticks()) == [25, 50, 100]


def test_folds_are_averaged_within_subsamples():
    table = repeats(("mean",)).assign(subsample=list(range(5)) * 3, fold=0, metric="balanced_accuracy")
    folds = pd.concat([table.assign(fold=f, score=table["score"] + shift) for f, shift in enumerate((-0.1, 0.1))])
    whole, cut = (pl.learning_curve(t).containers[0].lines for t in (table, folds))
    np.testing.assert_allclose(whole[0].get_ydata(), cut[0].get_ydata())
    for a, b in zip(whole[2][0].get_segments(), cut[2][0].get_segments(), strict=True):
        np.testing.assert_allclose(a, b)
    assert pl.learning_curve(folds).get_ylabel() == "balanced accuracy"


def test_intervals_of_the_table_win():
    table = pd.DataFrame({"n_train": [25, 50], "score": [0.6, 0.7], "ci_low": [0.5, 0.65], "ci_high": [0.8, np.nan]})
    ax = pl.learning_curve(table)
    segments = ax.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose(segments[0][:, 1], [0.5, 0.8])
    assert ax.get_legend() is None


def test_one_size_missing_scores_and_many_lines(legend_texts):
    table = repeats(tuple(f"r{i}" for i in range(10)))
    table.loc[::7, "score"] = np.nan
    ax = pl.learning_curve(table[table["n_train"] == 25])
    looks = {(c.lines[0].get_color(), c.lines[0].get_linestyle()) for c in ax.containers}
    assert len(looks) == len(legend_texts(ax)) == 10


def test_errors():
    with pytest.raises(KeyError, match=r"pl.learning_curve needs the columns \['n_train'\]"):
        pl.learning_curve(pd.DataFrame({"score": [1.0]}))
    with pytest.raises(ValueError, match="No row has a finite 'score'"):
        pl.learning_curve(pd.DataFrame({"n_train": [5], "score": [np.nan]}))
    with pytest.raises(ValueError, match=r"several labels \['sex', 'age'\]: select the rows of one"):
        pl.learning_curve(pd.DataFrame({"n_train": [5, 5], "score": [0.1, 0.2], "label": ["sex", "age"]}))
    with pytest.raises(ValueError, match="level=95 must be a number between 0 and 1"):
        pl.learning_curve(repeats(), level=95)

"""Mantel's test against a slow transcription and against exact enumeration."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scset_tools import tl

NAMES = list("abcde")


def table(seed: int = 0, names: list[str] = NAMES) -> pd.DataFrame:
    x = np.random.default_rng(seed).normal(size=(len(names), len(names)))
    return pd.DataFrame(x + x.T, index=names, columns=names)


@pytest.mark.parametrize("method", ["spearman", "pearson"])
def test_correlation_and_p_value_are_those_of_all_permutations(method):
    first = table(0)
    second = (first + 0.7 * table(1))[::-1].iloc[:, ::-1]  # in another order
    result = tl.compare_similarity(first, second, method=method, n_permutations=4000)
    correlate = stats.spearmanr if method == "spearman" else stats.pearsonr
    pairs = [(i, j) for i in range(5) for j in range(i + 1, 5)]

    def correlation(order):
        b = [second.loc[NAMES[order[i]], NAMES[order[j]]] for i, j in pairs]
        return correlate([first.iloc[i, j] for i, j in pairs], b).statistic

    np.testing.assert_allclose(result.correlation, correlation(range(5)))
    every = np.array([correlation(order) for order in permutations(range(5))])
    exact = np.mean(every >= result.correlation - 1e-9)
    assert abs(result.p_value - exact) < 0.02
    assert abs(result.null.mean() - every.mean()) < 0.03
    assert "p = " in repr(result)


def test_labels_that_share_nothing_are_rarely_told_to_agree():
    p = [
        tl.compare_similarity(
            table(2 * s, list("abcdefgh")), table(2 * s + 1, list("abcdefgh")), n_permutations=99
        ).p_value
        for s in range(60)
    ]
    assert 0 <= np.mean(np.array(p) <= 0.1) < 0.25
    names = [*NAMES, "z"]
    assert tl.compare_similarity(table(0, names), table(1)).labels == NAMES


def test_bad_input():
    good = table()
    with pytest.raises(TypeError, match="takes two DataFrames, but the second is ndarray"):
        tl.compare_similarity(good, good.to_numpy())
    with pytest.raises(ValueError, match="first table must be square with the same unique names"):
        tl.compare_similarity(good.iloc[:4], good)
    with pytest.raises(ValueError, match=r"share 3 names \['a', 'b', 'c'\], of 5 and 3"):
        tl.compare_similarity(good, good.iloc[:3, :3])
    lopsided = good.copy()
    lopsided.loc["a", "b"] += 1
    with pytest.raises(ValueError, match="second table is not symmetric"):
        tl.compare_similarity(good, lopsided)
    missing = good.copy()
    missing.loc["a", "b"] = missing.loc["b", "a"] = np.nan
    with pytest.raises(ValueError, match=r"first table has 1 missing entries \(first: \['a - b'\]\)"):
        tl.compare_similarity(missing, good)
    with pytest.raises(ValueError, match="equal entries throughout"):
        tl.compare_similarity(good * 0, good)
    with pytest.raises(ValueError, match="n_permutations=0 must be at least 1"):
        tl.compare_similarity(good, good, n_permutations=0)

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scset_tools import pl


def tables(n_types: int = 3) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    true = pd.DataFrame(
        rng.dirichlet(np.ones(n_types), 6), [f"s{i}" for i in range(6)], [f"t{j}" for j in range(n_types)]
    )
    return true, true + rng.normal(0, 0.02, true.shape)


def test_points_line_and_scores(legend_texts):
    true, predicted = tables()
    ax = pl.proportions(true, predicted.iloc[::-1, ::-1])  # any order
    for scatter, name in zip(ax.collections, true.columns, strict=True):
        np.testing.assert_allclose(scatter.get_offsets(), np.stack([true[name], predicted[name]], axis=1))
    assert legend_texts(ax) == ["t0", "t1", "t2"]
    error = np.abs(true - predicted).to_numpy().mean()
    r = stats.pearsonr(true.to_numpy().ravel(), predicted.to_numpy().ravel()).statistic
    assert ax.texts[0].get_text() == f"MAE {error:.3f}\nPearson r {r:.2f}"
    assert ax.get_xlim() == ax.get_ylim()
    (line,) = ax.lines
    assert line.get_slope() == 1
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("true proportion", "predicted proportion")


def test_missing_pairs_one_sample_and_many_types(legend_texts):
    true, predicted = tables(20)
    predicted.iloc[0, 0] = np.nan
    ax = pl.proportions(true, predicted)
    assert len(ax.collections[0].get_offsets()) == 5
    assert len(set(legend_texts(ax))) == 20
    one = pl.proportions(true.iloc[:1, :1], true.iloc[:1, :1])
    assert one.texts[0].get_text() == "MAE 0.000"


def test_errors():
    true, predicted = tables()
    with pytest.raises(ValueError, match=r"same samples, each once. First culprits: \['s0'\]"):
        pl.proportions(true, predicted.iloc[1:])
    with pytest.raises(ValueError, match=r"same cell types, each once. First culprits: \['T', 't0'\]"):
        pl.proportions(true, predicted.rename(columns={"t0": "T"}))
    with pytest.raises(ValueError, match=r"same samples, each once. First culprits: \['s0'\]"):
        pl.proportions(true.rename(index={"s1": "s0"}), predicted.rename(index={"s1": "s0"}))
    with pytest.raises(ValueError, match="No pair of finite values among 6 samples x 3"):
        pl.proportions(true, predicted * np.nan)
    with pytest.raises(TypeError, match="but predicted is ndarray"):
        pl.proportions(true, predicted.to_numpy())

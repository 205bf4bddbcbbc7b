from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scset_tools import pl


def table(n: int = 20) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "gene_set": [f"set {i}" for i in range(n)],
            "odds_ratio": rng.uniform(1, 8, n),
            "p_adjusted": rng.permutation(10.0 ** -np.arange(n)),
            "n_overlap": rng.integers(1, 30, n),
        }
    )


def test_the_most_significant_sets_on_top_with_their_colour_and_area(legend_texts):
    ax = pl.enrichment(table(), n_top=4)
    best = table().sort_values("p_adjusted").head(4)
    assert [text.get_text() for text in ax.get_yticklabels()] == list(best["gene_set"])
    (dots,) = ax.collections
    np.testing.assert_allclose(dots.get_offsets()[:, 0], best["odds_ratio"])
    np.testing.assert_allclose(dots.get_array(), -np.log10(best["p_adjusted"]))
    assert list(np.argsort(dots.get_sizes())) == list(np.argsort(best["n_overlap"].to_numpy()))
    bottom, top = ax.get_ylim()
    assert bottom > top
    assert ax.get_xlabel() == "odds ratio"
    assert ax.figure.axes[1].get_ylabel() == "−log10 p adjusted"
    assert legend_texts(ax)[-1] == str(best["n_overlap"].max())


def test_infinite_effects_and_zero_p_values_are_drawn():
    sets = table(5)
    sets.loc[0, ["odds_ratio", "p_adjusted"]] = [np.inf, 0.0]
    (dots,) = pl.enrichment(sets).collections
    assert np.isfinite(dots.get_offsets()).all()
    assert dots.get_offsets()[0, 0] == pytest.approx(sets["odds_ratio"][1:].max() * 1.1)
    assert dots.get_array()[0] == pytest.approx(-np.log10(sets["p_adjusted"][1:].min()))


def test_one_set_missing_p_values_and_other_columns():
    sets = table(3).rename(columns={"gene_set": "term"})
    sets.loc[1:, "p_adjusted"] = np.nan
    ax = pl.enrichment(sets, name="term")
    assert len(ax.get_yticklabels()) == 1


def test_errors():
    with pytest.raises(KeyError, match=r"pl.enrichment needs the columns \['p_adjusted'\]"):
        pl.enrichment(table().drop(columns="p_adjusted"))
    with pytest.raises(ValueError, match=r"must hold p-values between 0 and 1, but has 0\.5 to 3"):
        pl.enrichment(table(2).assign(p_adjusted=[0.5, 3.0]))
    with pytest.raises(TypeError, match="but was given dict"):
        pl.enrichment({})

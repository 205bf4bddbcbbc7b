"""Forest plots and paired lines: what is drawn is what the table holds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex

from scset_tools import pl, tl
from scset_tools.pl._style import OKABE_ITO


def differences() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "label": "sex",
            "probe": "logistic",
            "representation": ["a", "b", "c"],
            "baseline": "mean",
            "metric": "auroc",
            "difference": [0.2, -0.1, np.nan],
            "ci_low": [0.1, -np.inf, 0.0],
            "ci_high": [0.3, 0.2, 0.1],
            "p_adjusted": [0.01, 0.4, np.nan],
        }
    )


def test_a_line_per_row_filled_where_it_is_told_from_zero():
    ax = pl.forest(differences())
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
    filled, hollow, zero = ax.lines[0], ax.lines[1], ax.lines[2]
    assert (filled.get_xdata().tolist(), hollow.get_xdata().tolist()) == ([0.2], [-0.1])
    assert to_hex(hollow.get_markerfacecolor()) == "#ffffff"
    assert list(zero.get_xdata()) == [0, 0]
    first, second = (s[:, 0] for s in ax.collections[0].get_segments())
    assert first.tolist() == [0.1, 0.3]
    assert second[0] == ax.get_xlim()[0]  # an end that is infinite runs to the edge
    assert ax.get_xlabel() == "difference in auroc, to mean"
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_results_of_a_benchmark_and_of_association(make_samples):
    samples = make_samples(n=16)
    result = tl.benchmark(samples, ["X", "X_model"], "sex", baseline="X", cv=3, n_repeats=1, tune=False, progress=False)
    assert [t.get_text() for t in pl.forest(result).get_yticklabels()] == ["X_model"]
    table = tl.association(samples, "sex", covariates="age")
    ax = pl.forest(table)
    assert [t.get_text() for t in ax.get_yticklabels()] == table["feature"].tolist()
    assert ax.get_xlabel() == "coefficient"


def test_forest_errors():
    with pytest.raises(KeyError, match=r"needs the columns \['ci_low', 'ci_high'\]"):
        pl.forest(pd.DataFrame({"difference": [1.0]}))
    with pytest.raises(KeyError, match="needs a column with the value"):
        pl.forest(differences().drop(columns="difference"))
    with pytest.raises(ValueError, match="No row has a finite 'difference'"):
        pl.forest(differences().iloc[2:])
    with pytest.raises(KeyError, match=r"names \['no'\] are not columns"):
        pl.forest(differences(), names=["no"])


def test_a_line_per_donor_and_the_medians_of_the_pairs():
    obs = pd.DataFrame({"visit": list("ababababa"), "donor": [1, 1, 2, 2, 3, 3, 3, 3, 4], "age": np.arange(9)})
    obs.index = [f"s{i}" for i in range(9)]
    samples = AnnData(np.array([[1, 3, 2, 1, 0, 4, 2, 6, 9]]).T.astype(float), obs=obs)
    ax = pl.paired(samples, "0", "visit", paired_by="donor")
    lines = {tuple(line.get_ydata()): line.get_color() for line in ax.lines}
    assert lines[1.0, 3.0] == lines[1.0, 5.0] == OKABE_ITO[3]
    assert lines[2.0, 1.0] == OKABE_ITO[0]
    assert len(lines) == 4  # and the donor with one visit
    assert [s[0, 1] for s in ax.collections[0].get_segments()] == [1.0, 3.0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b"]
    pl.paired(samples, "age", "visit", paired_by="donor")
    with pytest.raises(KeyError, match=r"'no' is not in samples.var_names or samples.obs"):
        pl.paired(samples, "no", "visit", paired_by="donor")
    samples.obs["own"] = np.arange(9)
    with pytest.raises(ValueError, match="0 of 9 values of 'own' have samples of all 2 classes"):
        pl.paired(samples, "0", "visit", paired_by="own")


def test_visits_of_a_category_are_drawn_in_its_order():
    rng = np.random.default_rng(0)
    visits = np.tile(["week 10", "before", None, "week 2"], 5)
    obs = pd.DataFrame({"visit": visits, "donor": np.repeat(np.arange(5), 4)}, [f"s{i}" for i in range(20)])
    samples = AnnData(rng.normal(size=(20, 1)), obs=obs)
    ticks = {}
    for order in (None, ["week 2", "unused", "week 10", "before"]):
        samples.obs["visit"] = visits if order is None else pd.Categorical(visits, order)
        ax = pl.paired(samples, "0", "visit", paired_by="donor")
        ticks[order is None] = [t.get_text() for t in ax.get_xticklabels()]
        drawn = {
            tuple(line.get_ydata()) for line in ax.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 3
        }
        wanted = [samples.X[visits == name, 0] for name in ticks[order is None]]
        assert drawn == set(zip(*wanted, strict=True))
    assert ticks == {True: ["before", "week 2", "week 10"], False: ["week 2", "week 10", "before"]}

"""Benchmark and confounding bars: lengths, intervals, order."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from scset_tools import pl
from scset_tools.pl._style import OKABE_ITO


def summary(n_representations: int = 2, probes: tuple[str, ...] = ("logistic",)) -> pd.DataFrame:
    rows = [
        {"representation": f"r{r}", "label": label, "probe": probe, "metric": metric, "mean": 0.5 + 0.05 * r}
        for metric in ("accuracy", "macro_f1")
        for label in ("disease", "sex")
        for probe in probes
        for r in range(n_representations)
    ]
    table = pd.DataFrame(rows)
    table["ci_low"], table["ci_high"] = table["mean"] - 0.1, table["mean"] + 0.2
    return table


def lengths(container) -> list[float]:
    return [bar.get_width() for bar in container]


def bars(ax) -> list:
    return [c for c in ax.containers if type(c).__name__ == "BarContainer"]


def intervals(ax) -> np.ndarray:
    """Low and high end of every interval."""
    return np.array(
        [
            segment[:, 0]
            for c in ax.containers
            if type(c).__name__ == "ErrorbarContainer"
            for lines in c.lines[2]
            for segment in lines.get_segments()
        ]
    )


def test_a_bar_per_representation_and_label_with_its_interval(legend_texts):
    ax = pl.benchmark_bars(summary())
    assert [lengths(c) for c in bars(ax)] == [[0.5, 0.5], [0.55, 0.55]]
    assert [to_hex(c[0].get_facecolor()).upper() for c in bars(ax)] == list(OKABE_ITO[:2])
    np.testing.assert_allclose(intervals(ax), [[0.4, 0.7]] * 2 + [[0.45, 0.75]] * 2)
    assert legend_texts(ax) == ["r0", "r1"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["disease", "sex"]
    assert ax.get_xlabel() == "accuracy"
    bottom, top = ax.get_ylim()
    assert bottom > top  # the first label on top


def test_bars_of_a_group_do_not_overlap_and_lie_at_its_label():
    ax = pl.benchmark_bars(summary(5))
    spans = sorted((c[0].get_y(), c[0].get_y() + c[0].get_height()) for c in bars(ax))
    assert all(a[1] <= b[0] + 1e-9 for a, b in pairwise(spans))
    assert np.mean(spans) == pytest.approx(0)


def test_metric_probes_and_a_result_object():
    result = SimpleNamespace(summary=lambda: summary(probes=("logistic", "knn")))
    ax = pl.benchmark_bars(result, metric="macro_f1")
    assert ax.get_xlabel() == "macro f1"
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        "disease\nlogistic",
        "disease\nknn",
        "sex\nlogistic",
        "sex\nknn",
    ]


def test_labels_of_other_kinds_have_a_metric_of_their_own():
    table = summary()
    table = table[table["metric"] == "accuracy"]
    numbers = table[table["label"] == "sex"].assign(label="age", metric="r2", mean=0.3)
    ax = pl.benchmark_bars(pd.concat([table, numbers], ignore_index=True))
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names == ["disease\naccuracy", "sex\naccuracy", "age\nr2"]
    assert ax.get_xlabel() == "score"


def test_a_result_is_asked_for_the_metric():
    def of_metric(metric: str = "accuracy") -> pd.DataFrame:
        return summary().drop_duplicates(["label", "representation"]).assign(metric=metric)

    assert pl.benchmark_bars(SimpleNamespace(summary=of_metric), metric="auroc").get_xlabel() == "auroc"


def test_missing_interval_missing_mean_and_many_representations(legend_texts):
    table = summary(10)
    table.loc[0, "ci_low"] = np.nan
    table.loc[1, ["mean", "ci_low", "ci_high"]] = np.nan
    ax = pl.benchmark_bars(table)
    assert len(intervals(ax)) == 18
    assert len(set(legend_texts(ax))) == 10
    looks = {(to_hex(c[0].get_facecolor()), c[0].get_hatch()) for c in bars(ax)}
    assert len(looks) == 10
    assert intervals(pl.benchmark_bars(table.drop(columns=["ci_low", "ci_high"]))).size == 0


def test_one_row_and_axes_given():
    _, mine = plt.subplots()
    assert pl.benchmark_bars(summary().head(1), ax=mine) is mine


def test_errors_of_benchmark_bars():
    with pytest.raises(KeyError, match=r"metric='auroc' is not in the table. Metrics: \['accuracy', 'macro_f1'\]"):
        pl.benchmark_bars(summary(), metric="auroc")
    with pytest.raises(KeyError, match=r"needs the columns \['mean'\]"):
        pl.benchmark_bars(summary().drop(columns="mean"))
    with pytest.raises(ValueError, match=r"4 bars have more than one row .*\['disease', 'r0'\]"):
        pl.benchmark_bars(pd.concat([summary(), summary()]))
    with pytest.raises(TypeError, match=r"result with a summary\(\), but was given list"):
        pl.benchmark_bars([1])
    with pytest.raises(ValueError, match="table without rows"):
        pl.benchmark_bars(summary().head(0))


def confounders() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "predictor": ["representation", "n_cells"] * 2,
            "target": ["disease", "disease", "batch", "batch"],
            "metric": "balanced_accuracy",
            "score": [0.9, 0.6, 0.7, 0.5],
            "chance": [0.5, 0.5, 0.25, 0.25],
        }
    )


def test_confounding_draws_the_chance_level_of_each_target(legend_texts):
    ax = pl.confounding(confounders())
    assert [lengths(c) for c in bars(ax)] == [[0.9, 0.7], [0.6, 0.5]]
    (levels,) = ax.collections
    np.testing.assert_allclose([segment[:, 0] for segment in levels.get_segments()], [[0.5, 0.5], [0.25, 0.25]])
    np.testing.assert_allclose([segment[:, 1].mean() for segment in levels.get_segments()], [0, 1])
    assert legend_texts(ax) == ["representation", "n_cells", "chance"]
    assert ax.get_xlabel() == "balanced accuracy"


def test_confounding_without_chance_and_with_other_names(legend_texts):
    table = confounders().drop(columns="chance").rename(columns={"score": "accuracy", "predictor": "from"})
    ax = pl.confounding(table, predictor="from", value="accuracy")
    assert legend_texts(ax) == ["representation", "n_cells"]
    assert not ax.collections


def test_confounding_result_with_one_predictor_held_out_two_ways(legend_texts):
    table = confounders().assign(held_out="samples")
    again = table.head(1).assign(held_out="batch", score=0.8)
    verdict = pd.DataFrame([{"target": "disease", "predictor": "all of the above"}])
    ax = pl.confounding(SimpleNamespace(table=pd.concat([table, again, verdict], ignore_index=True)))
    assert legend_texts(ax) == [
        "representation, samples held out",
        "n_cells",
        "representation, batch held out",
        "chance",
    ]
    assert [lengths(c) for c in bars(ax)] == [[0.9, 0.7], [0.6, 0.5], [0.8]]
    # the second group has two of the three bars, side by side around its name
    middles = [bar.get_y() + bar.get_height() / 2 for c in bars(ax) for bar in c if bar.get_y() > 0.5]
    assert middles[1] - middles[0] == pytest.approx(0.8 / 3)
    assert np.mean(middles) == pytest.approx(1)


def test_errors_of_confounding():
    with pytest.raises(ValueError, match=r"1 bars have more than one row .*\['disease', 'representation'\]"):
        pl.confounding(pd.concat([confounders(), confounders().head(1)]))
    with pytest.raises(ValueError, match="No row has a finite 'score'"):
        pl.confounding(confounders().assign(score=np.nan))
    with pytest.raises(KeyError, match=r"pl.confounding needs the columns \['target'\]"):
        pl.confounding(confounders().drop(columns="target"))


def test_one_thing_has_one_colour_in_all_panels():
    """By categories, and without them in the order of the benchmark, whatever comes first in a panel."""
    table = summary(3)
    colours = []
    for is_rising in (True, False):
        panel = table[table["metric"] == "accuracy"].sort_values("representation", ascending=is_rising)
        panel = panel[panel["representation"] != "r1"]
        for made in (
            panel.assign(representation=pd.Categorical(panel["representation"], ["r0", "r1", "r2"])),
            panel.copy(),
        ):
            if not isinstance(made["representation"].dtype, pd.CategoricalDtype):
                made.attrs["order"] = {"representation": ["r0", "r1", "r2"]}
            ax = pl.benchmark_bars(made)
            colours.append({c.get_label(): to_hex(c[0].get_facecolor()).upper() for c in bars(ax)})
    assert all(found == {"r0": OKABE_ITO[0], "r2": OKABE_ITO[2]} for found in colours)

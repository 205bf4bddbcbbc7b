"""The table that a benchmark returns, its ranking and its paired differences."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from scset_tools import _checks
from scset_tools._metrics import BOUNDS, LOWER_IS_BETTER
from scset_tools._numbers import checks_numbers
from scset_tools._short_repr import ShortRepr
from scset_tools.tl._intervals import benjamini_hochberg, paired_difference
from scset_tools.tl._probe import check_kind_metric
from scset_tools.tl._result import overlap_ratio, summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KEYS = ["label", "probe", "representation"]
"""What tells the rows of a benchmark apart, besides the fold."""


@dataclass(frozen=True, repr=False)
class BenchmarkResult(ShortRepr):
    """Scores of representations on identical folds.

    Attributes
    ----------
    results
        One row per fold, label, probe and representation: ``label``, ``target``, ``probe``, ``representation``, ``repeat``, ``fold``, one
        column per metric (NaN where undefined, or not of this kind of target), ``n_train``, ``n_test``, ``is_tuned``, ``params``.
    targets
        Kind of each label.
    n_missing
        Samples of each label that were left out because it is missing.
    baseline
        Representation that the others are compared with, or None.
    metric
        Metric asked for, or None: balanced accuracy, mean absolute error or concordance, after the kind of label.
    skipped
        Combinations that were left out, with the reason: ``label``, ``probe``, ``representation``, ``reason``.
    n_units
        Number of independent samples behind each metric of each label: groups, and fewer where the rarest class counts as much.
    """

    results: pd.DataFrame
    targets: dict[str, str]
    n_missing: dict[str, int]
    baseline: str | None
    metric: str | None
    skipped: pd.DataFrame
    n_units: dict[str, dict[str, float]]

    def metric_of(self, label_key: str, metric: str | None = None) -> str:
        """The metric in which a label is reported.

        Parameters
        ----------
        label_key
            Label of the benchmark.
        metric
            Name of a metric. Default: that of the benchmark, or the usual one for this kind of label.
        """
        return check_kind_metric(metric or self.metric, self.targets[label_key])

    @checks_numbers
    def summary(
        self,
        metric: str | None = None,
        *,
        label: str | None = None,
        interval: Literal["corrected", "t"] = "corrected",
        level: float = 0.95,
    ) -> pd.DataFrame:
        """One row per label, probe and representation, best first within label and probe.

        Parameters
        ----------
        metric
            Column of ``results``. Default: see ``metric`` of this class.
        label
            Only this label; a metric may not exist for all.
        interval, level
            As in :meth:`ProbeResult.summary`.

        Returns
        -------
        Columns ``label``, ``probe``, ``representation``, ``metric``, ``mean``, ``sd``, ``ci_low``, ``ci_high``, ``n``, ``n_undefined``, ``rank``.
        """
        results = self._of_label(label)
        rows = []
        for keys, folds in results.groupby(KEYS, sort=False):
            name = self.metric_of(keys[0], metric)
            found = summarize(folds, interval=interval, level=level, n_units=self.n_units[keys[0]]).loc[name]
            rows.append({**dict(zip(KEYS, keys, strict=True)), "metric": name, **found})
        out = pd.DataFrame(rows).astype({"n": int, "n_undefined": int})
        better = np.where(out["metric"].isin(LOWER_IS_BETTER), out["mean"], -out["mean"])
        out["rank"] = pd.Series(better, out.index).groupby([out["label"], out["probe"]]).rank(method="min")
        first = {k: i for i, k in enumerate(dict.fromkeys(zip(out["label"], out["probe"], strict=True)))}
        block = [first[k] for k in zip(out["label"], out["probe"], strict=True)]
        out = out.iloc[np.lexsort((out["rank"], block))].reset_index(drop=True)
        out.attrs["order"] = {
            "representation": list(dict.fromkeys(self.results["representation"]))
        }  # one colour each in all plots
        return out

    @checks_numbers
    def differences(
        self,
        metric: str | None = None,
        *,
        label: str | None = None,
        baseline: str | None = None,
        interval: Literal["corrected", "t"] = "corrected",
        level: float = 0.95,
    ) -> pd.DataFrame:
        """Paired differences to the baseline, fold by fold.

        Parameters
        ----------
        metric
            Column of ``results``. Default: see ``metric`` of this class.
        label
            Only this label.
        baseline
            Representation to compare with. Default: that of the benchmark.
        interval
            ``"corrected"`` for overlapping training parts (interval and test), or ``"t"``, which calls far too many differences
            significant.
        level
            Confidence level of the intervals.

        Returns
        -------
        One row per label, probe and other representation: ``metric``, ``difference`` (representation - baseline; for errors, negative is
        better), ``sd``, ``ci_low``, ``ci_high``, ``p_value``, ``n`` (folds where both are defined), ``is_better``, and ``p_adjusted``: Benjamini and
        Hochberg over all rows of this table.
        """
        baseline = baseline or self.baseline
        known = list(dict.fromkeys(self.results["representation"]))
        if baseline not in known:
            msg = f"baseline={baseline!r} is not among the representations {_checks.first(known, 20)}."
            raise ValueError(msg)
        if interval not in ("corrected", "t"):
            msg = f"interval must be 'corrected' or 't', not {interval!r}."
            raise ValueError(msg)
        rows = []
        for (label_key, probe), part in self._of_label(label).groupby(KEYS[:2], sort=False):
            name = self.metric_of(label_key, metric)
            ratio = overlap_ratio(part) if interval == "corrected" else 0.0
            table = part.pivot(index=["repeat", "fold"], columns="representation", values=name)
            if baseline not in table:
                continue
            for other in [r for r in known if r in table and r != baseline]:
                found = paired_difference(
                    table[other].to_numpy(),
                    table[baseline].to_numpy(),
                    level=level,
                    test_train_ratio=ratio,
                    bounds=BOUNDS[name],
                    n_units=self.n_units[label_key].get(name, np.inf),
                )
                sign = -1 if name in LOWER_IS_BETTER else 1
                where = {"label": label_key, "probe": probe, "representation": other, "baseline": baseline}
                rows.append({**where, "metric": name, **found, "is_better": sign * found["difference"] > 0})
        out = pd.DataFrame(rows)
        if len(out):
            out["p_adjusted"] = benjamini_hochberg(out["p_value"].to_numpy())
        return out

    def _of_label(self, label: str | None) -> pd.DataFrame:
        if label is not None and label not in self.targets:
            msg = f"label={label!r} is not among the labels {_checks.first(list(self.targets), 20)}."
            raise KeyError(msg)
        return self.results if label is None else self.results[self.results["label"] == label]

    def plot(self, *, metric: str | None = None, ax: Axes | None = None) -> Axes:
        """Bars with intervals, drawn by :func:`scset_tools.pl.benchmark_bars`.

        Parameters
        ----------
        metric
            Name of a metric. Default: that of the benchmark, or the usual one of each label.
        ax
            Axes to draw into. Default: new ones.
        """
        # a table plots without being a plot: matplotlib loads when asked for
        return importlib.import_module("scset_tools.pl").benchmark_bars(self.summary(metric), metric=metric, ax=ax)

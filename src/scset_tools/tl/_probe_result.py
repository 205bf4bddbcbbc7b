"""What a probe found: folds, out-of-fold predictions, permutations, and means with intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from scset_tools._metrics import BOUNDS, METRICS, RANKINGS
from scset_tools._numbers import checks_numbers
from scset_tools.tl._estimators import score
from scset_tools.tl._intervals import bootstrap_draws, bounded_interval, paired_difference, percentile_interval
from scset_tools.tl._result import independent_units, overlap_ratio, summarize
from scset_tools.tl._targets import Target

SCORE = "score_"
"""What the columns of class scores begin with."""


@dataclass(frozen=True, repr=False)
class ProbeResult:
    """Scores of one representation, one label and one probe.

    Attributes
    ----------
    folds
        One row per fold: ``repeat``, ``fold``, one column per metric, ``n_train``, ``n_test``, ``is_tuned``, ``params``. A metric that a
        test part does not define (AUROC with one class) is NaN.
    predictions
        One row per sample and repeat, predicted by a probe that has not seen its group: ``sample``, ``repeat``, ``fold``, ``group``,
        ``y_true``, ``y_pred`` (for time-to-event: time and risk) and ``score_<class>`` (probability or decision value).
    label_key
        Column that was predicted.
    target
        As which kind of target.
    probe
        By which probe.
    representation
        From what.
    classes
        Names of the classes (empty for other kinds). With two classes the second is the positive one.
    n_samples
        Samples used.
    n_missing
        Samples left out because their label is missing.
    n_groups
        Groups that the folds keep whole.
    cv
        Folds that were made; fewer than asked where the labels do not allow them.
    n_repeats
        Repeats that were made, likewise.
    metric
        Metric of the permutation test.
    p_value
        Share of permutations (the true labels counted as one) that score at least as well; None without permutations.
    null
        Score of each permutation, shape (n_permutations,).
    covariates
        Columns of ``obs`` that the probe read beside the representation.
    covariate_folds
        With covariates, as ``folds``, of a probe that read the covariates alone; see :meth:`added`.
    """

    folds: pd.DataFrame
    predictions: pd.DataFrame
    label_key: str
    target: str
    probe: str
    representation: str
    classes: tuple[str, ...]
    n_samples: int
    n_missing: int
    n_groups: int
    cv: int
    n_repeats: int
    metric: str
    p_value: float | None
    null: np.ndarray
    covariates: tuple[str, ...]
    covariate_folds: pd.DataFrame | None
    _labels: Target

    def __repr__(self) -> str:
        sizes = f"{self.n_samples} samples ({self.n_missing} unlabelled left out), {self.n_groups} groups"
        return f"ProbeResult({self.label_key!r} by {self.probe!r} from {self.representation!r}: {self.cv} folds x {self.n_repeats}, {sizes})"

    @checks_numbers
    def summary(
        self,
        *,
        interval: Literal["corrected", "t", "bootstrap"] = "corrected",
        level: float = 0.95,
        n_resamples: int = 500,
        rng: np.random.Generator | int | None = 0,
    ) -> pd.DataFrame:
        """Mean and confidence interval of every metric.

        Parameters
        ----------
        interval
            ``"t"``: over folds, with the variance ``sd^2 / n`` and t(n - 1); takes folds as independent, which overlapping training
            parts are not, and is too narrow. ``"corrected"``: with ``sd^2 (1 / n + n_test / n_train)`` (Nadeau and Bengio 2003).
            Both by Wilson's formula within the range of the metric, with no more certainty than the number of groups gives: no
            end is impossible, and no width zero. ``"bootstrap"``: whole groups are drawn with replacement from the out-of-fold predictions, which
            are scored together, each draw in one of the repeats; mean is then that of the repeats (see :meth:`repeats`).
        level
            Confidence level.
        n_resamples
            Draws of the bootstrap.
        rng
            Their seed.

        Returns
        -------
        Indexed by metric: ``mean``, ``sd`` (ddof=1, over folds or repeats), ``ci_low``, ``ci_high``, ``n`` (folds or repeats with
        a value) and ``n_undefined`` (those without).
        """
        groups = self.predictions.loc[self.predictions["repeat"] == 0, "group"].to_numpy()
        n_units = independent_units(self._labels, groups)
        if interval != "bootstrap":
            return summarize(self.folds, interval=interval, level=level, n_units=n_units)
        out = summarize(self.repeats(), interval="t", level=level, n_units=n_units)
        share = -(-n_resamples // self.n_repeats)
        generators = np.random.default_rng(rng).spawn(self.n_repeats)
        scorers = [self._scorer(repeat) for repeat in range(self.n_repeats)]
        draws = np.concatenate(
            [
                bootstrap_draws(scorer, groups, n_resamples=share, rng=generator)
                for scorer, generator in zip(scorers, generators, strict=True)
            ]
        )
        for column, metric in enumerate(METRICS[self.target]):
            low, high = percentile_interval(draws[:, column], level=level)
            if (
                high - low < 1e-9 and np.isfinite(BOUNDS[metric]).all()
            ):  # every draw the same: what so few groups can tell
                units, is_ranking = n_units[metric], metric in RANKINGS
                low, high = bounded_interval(
                    draws[:, column], BOUNDS[metric], n_units=units, is_ranking=is_ranking, level=level
                )
            out.loc[metric, ["ci_low", "ci_high"]] = low, high
        return out

    @checks_numbers
    def added(self, *, interval: Literal["corrected", "t"] = "corrected", level: float = 0.95) -> pd.DataFrame:
        """What the representation adds to the covariates: paired differences of the two nested probes, fold by fold.

        Parameters
        ----------
        interval
            ``"corrected"`` for overlapping training parts (interval and test), or ``"t"``, which is too sure of itself.
        level
            Confidence level.

        Returns
        -------
        One row per metric: ``metric``, ``with_covariates`` (mean of representation and covariates together), ``covariates_alone``,
        ``difference`` (of errors, negative is better), ``sd``, ``ci_low``, ``ci_high``, ``p_value`` and ``n`` (folds).

        Raises
        ------
        ValueError
            If the probe had no covariates.
        """
        if self.covariate_folds is None:
            msg = "This probe had no covariates: pass covariates=[...] to tl.probe."
            raise ValueError(msg)
        groups = self.predictions.loc[self.predictions["repeat"] == 0, "group"].to_numpy()
        n_units = independent_units(self._labels, groups)
        ratio = overlap_ratio(self.folds) if interval == "corrected" else 0.0
        rows = []
        for metric in METRICS[self.target]:
            full, alone = self.folds[metric].to_numpy(dtype=float), self.covariate_folds[metric].to_numpy(dtype=float)
            found = paired_difference(
                full, alone, level=level, test_train_ratio=ratio, bounds=BOUNDS[metric], n_units=n_units[metric]
            )
            is_both = ~np.isnan(full) & ~np.isnan(alone)
            means = [values[is_both].mean() if is_both.any() else np.nan for values in (full, alone)]
            rows.append({"metric": metric, "with_covariates": means[0], "covariates_alone": means[1], **found})
        return pd.DataFrame(rows)

    def repeats(self) -> pd.DataFrame:
        """One row per repeat: the metrics of all its out-of-fold predictions together.

        For small test parts (leave-one-out), where a fold alone defines few metrics. Scores and risks of different folds
        come from different fits and are pooled as they are, which blurs AUROC, AUPRC and concordance a little.
        """
        everyone = np.arange(len(self._labels))
        scores = [self._scorer(repeat)(everyone) for repeat in range(self.n_repeats)]
        out = pd.DataFrame(scores, columns=list(METRICS[self.target]))
        out.insert(0, "repeat", np.arange(self.n_repeats))
        return out

    def _scorer(self, repeat: int) -> Callable[[np.ndarray], np.ndarray]:
        """From positions (with repetitions) to the metrics of one repeat's out-of-fold predictions, in their order."""
        rows = self.predictions[self.predictions["repeat"] == repeat]
        scores = rows[[f"{SCORE}{name}" for name in self.classes]].to_numpy(dtype=float)
        values = rows["y_pred"].to_numpy()
        if self.classes:
            values = pd.Index(self.classes).get_indexer(values)

        def statistic(positions: np.ndarray) -> np.ndarray:
            part = self._labels.take(positions)
            found = score(part, values[positions], scores[positions], levels=self._labels.levels)
            return np.array([found[metric] for metric in METRICS[self.target]])

        return statistic

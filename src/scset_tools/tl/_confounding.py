"""Could a label be read from the batch, the number of cells or chance, instead of from biology?"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scset_tools import _checks, _labels
from scset_tools._numbers import checks_numbers
from scset_tools._short_repr import ShortRepr
from scset_tools.tl._intervals import bootstrap_draws, bounded_interval, percentile_interval
from scset_tools.tl._overlap import as_text, label_batch_overlap
from scset_tools.tl._probe import probe
from scset_tools.tl._probe_result import ProbeResult
from scset_tools.tl._representation import get_distances, get_representation
from scset_tools.tl._result import independent_units
from scset_tools.tl._splits import read_groups, seed_of, usable_cv
from scset_tools.tl._targets import read_target

if TYPE_CHECKING:
    from anndata import AnnData

_DEFAULT_COVARIATES = ("n_cells", "depth")
_REP, _PREDICTOR, _BATCH = "representation", "X_predictor", "_batch"


@dataclass(frozen=True, repr=False)
class ConfoundingResult(ShortRepr):
    """What predicts a label, what a representation predicts, and whether label and batch can be told apart.

    Attributes
    ----------
    table
        One row per question: ``target`` (column predicted), ``predictor``, ``held_out`` (what the folds keep whole: samples,
        or the column of groups or batches), ``metric``, ``score`` (of out-of-fold predictions), ``chance``, ``ci_low`` and
        ``ci_high`` (bootstrap of whole groups), ``p_value`` (permutation; NaN if none were asked), ``n_samples``,
        ``is_predicted`` and ``verdict`` (one sentence).
    overlap
        One row: how far label and batch are the same thing; see :func:`confounding`.
    counts
        Samples per label (rows) and batch (columns). For labels that are numbers: one row, ``n_samples``.
    label_key
        Column of the label.
    batch_key
        Column of the batch.
    is_separable
        False if the label is the same in all samples of every batch: then no method can tell label from batch.
    verdict
        One sentence on the label as a whole.
    """

    table: pd.DataFrame
    overlap: pd.DataFrame
    counts: pd.DataFrame
    label_key: str
    batch_key: str
    is_separable: bool
    verdict: str

    def summary(self) -> pd.DataFrame:
        """The table without its technical columns, and a last row with the overall verdict."""
        columns = ["target", "predictor", "held_out", "score", "chance", "ci_low", "ci_high", "verdict"]
        last = {"target": self.label_key, "predictor": "all of the above", "verdict": self.verdict}
        return pd.concat([self.table[columns], pd.DataFrame([last])], ignore_index=True)


@checks_numbers
def confounding(
    samples: AnnData,
    label_key: str,
    *,
    batch_key: str,
    use_rep: str | None = None,
    obsp_key: str | None = None,
    covariate_keys: Sequence[str] | None = None,
    groups_key: str | None = None,
    cv: int = 5,
    n_repeats: int = 3,
    n_permutations: int = 0,
    tune: bool = False,
    rng: np.random.Generator | int | None = 0,
) -> ConfoundingResult:
    """Whether a label may be read from the batch, or from how much was measured.

    The same probe predicts the label from the batch, each covariate, a random vector, and the representation, the latter
    both with samples and with whole batches held out; and the batch from the representation. Reports only: nothing is
    written into ``samples``.

    What the answers can tell: a label that the batch predicts *may* come from it; a label that the representation
    predicts in batches it was not trained on does not come from those batches alone. What they cannot: a label that is
    the same in all samples of every batch cannot be told from the batch by any method.

    Parameters
    ----------
    samples
        Sample-level AnnData. Samples without label or batch are left out.
    label_key
        Column of ``samples.obs``: classes (logistic probe, balanced accuracy, chance 1 / classes) or numbers (ridge probe,
        R2, chance 0). Ordered categories are treated as classes.
    batch_key
        Column of ``samples.obs`` with the technical batch or study.
    use_rep
        Representation. Default: ``samples.X``.
    obsp_key
        Stored distances instead, which are probed by nearest neighbours.
    covariate_keys
        Columns of ``samples.obs`` that should not predict the label. Numbers without negative values enter as
        log(1 + x). Default: those of ``n_cells`` and ``depth`` that there are.
    groups_key
        Column with the donor or study of each sample, kept whole by all folds.
    cv
        As of :func:`probe`. As many batches are held out as there are folds.
    n_permutations
        As of :func:`probe`. A permutation p-value costs as many evaluations of every row.
    n_repeats, tune, rng
        As of :func:`probe`.

    Returns
    -------
    ConfoundingResult
        Its ``overlap`` has, for classes: ``cramers_v`` (1 where one column determines the other), ``cramers_v_corrected``
        (Bergsma 2013; 0 expected without association), ``mutual_information`` (nats), ``label_explained`` and
        ``batch_explained`` (mutual information over the entropy of either; ``label_explained`` = 1: the batch determines the
        label); for numbers ``eta_squared`` (share of the variance of the ranks between batches); for both ``p_value`` (999
        permutations) and ``share_mixed`` (share of samples in batches where the label varies).

    Raises
    ------
    KeyError
        If a column or key does not exist.
    ValueError
        If label or batch take one value, or no sample has both.
    """
    covariates = (
        [k for k in _DEFAULT_COVARIATES if k in samples.obs] if covariate_keys is None else list(covariate_keys)
    )
    columns = {key: _checks.require_obs(samples, key) for key in (label_key, batch_key, *covariates)}
    if batch_key == label_key:
        msg = f"label_key and batch_key are the same column {label_key!r}: pass two."
        raise ValueError(msg)
    is_known = (columns[label_key].notna() & columns[batch_key].notna()).to_numpy()
    if is_known.sum() < 3:
        msg = f"{is_known.sum()} of {len(is_known)} samples have both {label_key!r} and {batch_key!r}; at least 3 are needed."
        raise ValueError(msg)
    part, known = samples[is_known], {key: column[is_known] for key, column in columns.items()}
    if known[label_key].nunique() < 2 <= columns[label_key].nunique():
        msg = (
            f"samples.obs[{label_key!r}] has the same value {str(known[label_key].iloc[0])!r} in all {part.n_obs} samples that "
            f"have a batch: samples.obs[{batch_key!r}] is missing for {len(is_known) - part.n_obs} of {len(is_known)}."
        )
        raise ValueError(msg)
    kind = read_target(part, label_key).kind
    kind = "class" if kind == "ordinal" else kind
    run = _Runner(part, groups_key, cv, n_repeats, n_permutations, tune, seed_of(rng))
    batch = as_text(known[batch_key])
    if batch.nunique() < 2:
        msg = (
            f"samples.obs[{batch_key!r}] has the same value in all {len(batch)} labelled samples: nothing to confound."
        )
        raise ValueError(msg)
    groups, order = (read_groups(part, key, np.arange(part.n_obs)) for key in (groups_key, None))
    overlap, counts = label_batch_overlap(known[label_key], batch, groups=groups, order=order, kind=kind, seed=run.seed)
    is_separable = bool(overlap["share_mixed"].iloc[0] > 0)
    if obsp_key is None:
        rep, how = get_representation(part, use_rep), "vectors"
    else:
        rep, how = get_distances(part, use_rep=use_rep, obsp_key=obsp_key), "distances"
    n_random = rep.shape[1] if how == "vectors" else 10
    noise = np.random.default_rng((run.seed, 1)).normal(size=(part.n_obs, n_random))
    with _each_warning_once():
        # groups that are the batches leave no batch to learn from: the batch alone is then tested on single samples
        batch_groups = None if _is_same(groups, batch) else groups_key
        rows = [run(label_key, kind, batch_key, _design(known[batch_key], as_classes=True), groups_key=batch_groups)]
        rows += [run(label_key, kind, key, _design(known[key]), groups_key=groups_key) for key in covariates]
        rows.append(run(label_key, kind, "random vector", noise, groups_key=groups_key))
        rows.append(run(label_key, kind, _REP, rep, groups_key=groups_key, how=how))
        rows.append(run(label_key, kind, _REP, rep, groups_key=batch_key, how=how, is_batch=True))
        rows.append(run(batch_key, "class", _REP, rep, groups_key=batch_groups, how=how))
    table = pd.DataFrame(rows)
    table["verdict"] = [
        _sentence(row, label_key, batch_key, is_separable=is_separable) for row in table.to_dict("records")
    ]
    verdict = _overall(table, overlap.iloc[0], label_key, batch_key, is_separable=is_separable)
    return ConfoundingResult(
        table.drop(columns="why_not"), overlap, counts, label_key, batch_key, is_separable, verdict
    )


@dataclass(frozen=True)
class _Runner:
    """One probe per question, all with the same settings."""

    samples: AnnData
    groups_key: str | None
    cv: int
    n_repeats: int
    n_permutations: int
    tune: bool
    seed: int

    def __call__(
        self,
        target: str,
        kind: str,
        predictor: str,
        x: np.ndarray,
        *,
        groups_key: str | None,
        how: str = "vectors",
        is_batch: bool = False,
    ) -> dict[str, object]:
        """Score, interval and p-value of one question; NaN and the reason where the folds cannot be made."""
        from anndata import AnnData

        is_class = kind == "class"
        rows = np.flatnonzero(np.isfinite(x).all(axis=1))
        cohort = AnnData(obs=self.samples.obs.iloc[rows].copy())
        if how == "vectors":
            cohort.obsm[_PREDICTOR] = x[rows]
            where: dict[str, Any] = {"use_rep": _PREDICTOR, "probe": "logistic" if is_class else "ridge"}
        else:
            cohort.obsp[_PREDICTOR] = x
            where = {"obsp_key": _PREDICTOR, "probe": "knn"}
        out: dict[str, object] = {"target": target, "predictor": predictor, "held_out": groups_key or "samples"}
        out |= {"metric": "balanced_accuracy" if is_class else "r2", "score": np.nan, "chance": np.nan}
        out |= {"ci_low": np.nan, "ci_high": np.nan, "p_value": np.nan, "n_samples": len(rows)}
        try:
            cv = self._folds(cohort, target, kind, groups_key, is_batch=is_batch)
        except ValueError as error:
            return out | {"is_predicted": False, "why_not": str(error)}
        result = probe(
            cohort,
            target,
            target="class" if is_class else "continuous",
            groups_key=groups_key,
            cv=cv,
            n_repeats=self.n_repeats,
            n_permutations=self.n_permutations,
            tune=self.tune,
            rng=self.seed,
            **where,
        )
        score, low, high = _pooled(result, is_class=is_class, seed=self.seed)
        chance = 1 / len(result.classes) if is_class else 0.0
        p_value = np.nan if result.p_value is None else result.p_value
        is_predicted = low > chance and not p_value > 0.05
        out |= {"score": score, "chance": chance, "ci_low": low, "ci_high": high, "p_value": p_value}
        return out | {"is_predicted": is_predicted, "why_not": ""}

    def _folds(self, cohort: AnnData, target: str, kind: str, groups_key: str | None, *, is_batch: bool) -> int:
        """Folds that can be made; ValueError with the reason if none can."""
        labels = read_target(cohort, target, target=kind)
        groups = read_groups(cohort, groups_key, labels.rows)
        with warnings.catch_warnings():
            if is_batch:  # as many folds as batches, or fewer, are what is asked for
                warnings.simplefilter("ignore")
                return usable_cv(labels, groups, min(self.cv, len(np.unique(groups))))
            return usable_cv(labels, groups, self.cv)


def _pooled(result: ProbeResult, *, is_class: bool, seed: int) -> tuple[float, float, float]:
    """Score of all out-of-fold predictions, mean over repeats, and its interval by drawing whole groups."""
    repeats = []
    for _, rows in result.predictions.groupby("repeat", sort=True):
        truth, predicted = rows["y_true"].to_numpy(), rows["y_pred"].to_numpy()
        if is_class:
            codes = pd.Index(result.classes)
            truth, predicted = codes.get_indexer(truth), codes.get_indexer(predicted)
        repeats.append((truth, predicted))
    groups = result.predictions.loc[result.predictions["repeat"] == 0, "group"].to_numpy()
    score = _balanced_accuracy if is_class else _r2

    def mean_score(positions: np.ndarray) -> np.ndarray:
        return np.mean([score(t[positions], p[positions]) for t, p in repeats], keepdims=True)

    draws = bootstrap_draws(mean_score, groups, n_resamples=300, rng=seed)
    low, high = percentile_interval(draws[:, 0])
    if is_class and high - low < 1e-9:  # every draw the same: what so few groups can tell
        units = independent_units(result._labels, groups)["balanced_accuracy"]
        low, high = bounded_interval(draws[:, 0], (0.0, 1.0), n_units=units)
    return float(mean_score(np.arange(len(groups)))[0]), low, high


def _balanced_accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean recall of the classes in ``truth``; quick enough for a bootstrap."""
    size = np.bincount(truth)
    right = np.bincount(truth[truth == predicted], minlength=len(size))
    return float(np.mean(right[size > 0] / size[size > 0]))


def _r2(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Share of the variance explained; NaN if ``truth`` is constant."""
    total = np.sum((truth - truth.mean()) ** 2)
    return float(1 - np.sum((truth - predicted) ** 2) / total) if total > 0 else float("nan")


def _is_same(groups: np.ndarray, batch: pd.Series) -> bool:
    """Whether every group is one batch and every batch one group."""
    pairs = pd.DataFrame({"group": groups, "batch": batch.to_numpy()}).drop_duplicates()
    return len(pairs) == pairs["group"].nunique() == pairs["batch"].nunique()


def _design(column: pd.Series, *, as_classes: bool = False) -> np.ndarray:
    """Numbers (log(1 + x) where none is negative; NaN where missing) or indicators of classes, (samples, features)."""
    if column.isna().all():
        msg = f"samples.obs[{column.name!r}] is missing for all {len(column)} samples: leave it out of covariate_keys."
        raise ValueError(msg)
    if not as_classes and _labels.guess_kind(column) == "continuous":
        x = _labels.read_numbers(column)
        return (np.log1p(x) if np.nanmin(x) >= 0 else x)[:, None]
    read = _labels.read_classes(column)
    out = np.eye(len(read.names))[read.codes]
    out[read.codes < 0] = np.nan
    return out


def _sentence(row: dict[str, object], label_key: str, batch_key: str, *, is_separable: bool) -> str:
    """The verdict on one question."""
    predictor, target = row["predictor"], row["target"]
    if row["why_not"]:
        if predictor == _REP and row["held_out"] == batch_key:
            if not is_separable:
                return f"Cannot be asked: {label_key!r} and {batch_key!r} cannot be told apart, so no batch can be held out."
            return f"Cannot be asked, because too few values of {label_key!r} occur in two batches: {row['why_not']}"
        return f"Cannot be asked: {row['why_not']}"
    is_predicted = row["is_predicted"]
    interval = "" if is_predicted else f", interval {row['ci_low']:.2f} to {row['ci_high']:.2f}"
    numbers = f"{row['metric']} {row['score']:.2f}{interval}, chance {row['chance']:.2f}"
    if target == batch_key:
        return (
            f"The representation gives away {batch_key!r} ({numbers})."
            if is_predicted
            else f"This probe does not find {batch_key!r} in the representation ({numbers})."
        )
    if predictor == _REP and row["held_out"] == batch_key:
        return (
            f"{label_key!r} is predicted in batches that were not trained on ({numbers}): not a matter of batch alone."
            if is_predicted
            else f"{label_key!r} is not predicted better than chance in batches that were not trained on ({numbers})."
        )
    if predictor == _REP:
        return f"The representation {'predicts' if is_predicted else 'does not predict'} {label_key!r} ({numbers})."
    if predictor == batch_key and not is_separable:
        return f"Every batch has one value of {label_key!r}: {label_key!r} and {batch_key!r} cannot be told apart by any method."
    if not is_predicted:
        return f"{predictor!r} does not predict {label_key!r} ({numbers})."
    if predictor == "random vector":
        return f"A random vector scores above chance ({numbers}): too few samples to believe the other rows."
    return f"{predictor!r} alone predicts {label_key!r} ({numbers}): whatever else predicts it may do so through {predictor!r}."


def _overall(table: pd.DataFrame, overlap: pd.Series, label_key: str, batch_key: str, *, is_separable: bool) -> str:
    """The verdict on the label."""
    if not is_separable:
        return (
            f"{label_key!r} and {batch_key!r} cannot be told apart in these samples: every batch has one value of {label_key!r}. "
            "No score of this label says anything about biology; only a design with both in one batch could."
        )
    is_rep = (table["predictor"] == _REP) & (table["target"] == label_key)
    within, across = table[is_rep].to_dict("records")
    alone = table[(table["target"] == label_key) & ~is_rep & table["is_predicted"]]["predictor"].tolist()
    by = " and ".join(repr(p) for p in alone)
    if across["why_not"]:
        share = f"{overlap['share_mixed']:.0%} of the samples are in batches where {label_key!r} varies"
        return f"Whether {label_key!r} is more than {batch_key!r} cannot be tested by holding out batches; {share}."
    if across["is_predicted"]:
        rest = f", although {by} alone predict{'s' if len(alone) == 1 else ''} it too" if alone else ""
        return (
            f"{label_key!r} is predicted across batches ({across['score']:.2f}, chance {across['chance']:.2f}){rest}."
        )
    near = f"{across['score']:.2f} with whole batches held out, chance {across['chance']:.2f}"
    gains = [row["score"] - row["chance"] for row in (across, within)]
    if within["is_predicted"] and gains[0] > gains[1] / 2:  # most of it is left, but batches are few
        near = f"{near}, interval {across['ci_low']:.2f} to {across['ci_high']:.2f}"
        return f"{label_key!r} is predicted within the batches of this cohort; that it is in new ones, these batches are too few to tell ({near})."
    if within["is_predicted"]:
        return f"{label_key!r} is predicted within the batches of this cohort but not in new ones ({near}): do not claim more."
    return f"{label_key!r} is near chance in this representation ({near})."


@contextmanager
def _each_warning_once() -> Iterator[None]:
    """Let through one copy of every warning: all rows of the table ask for the same folds."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for message, category in dict.fromkeys((str(w.message), w.category) for w in caught):
        warnings.warn(message, category, stacklevel=4)

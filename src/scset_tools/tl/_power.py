"""How many donors a study needs for a probe to find a label: resampling of a pilot, and a learning curve beyond it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from joblib import delayed
from scipy import stats

from scset_tools._metrics import BOUNDS, LOWER_IS_BETTER
from scset_tools._numbers import checks_numbers
from scset_tools._permutation import permute_labels
from scset_tools._short_repr import ShortRepr
from scset_tools.tl._estimators import Probe, choose_probe
from scset_tools.tl._probe import check_kind_metric, read_input, run_parallel, score_once
from scset_tools.tl._splits import read_groups, seed_of, usable_cv
from scset_tools.tl._targets import Target, read_target

if TYPE_CHECKING:
    from anndata import AnnData

_N_SIZES, _N_CURVES = 6, 300
_POWERS = np.linspace(0.3, 1.5, 13)
"""Exponents of the learning curve that are tried; the error of the mean falls with 1/2, that of a well-posed fit with 1."""


@dataclass(frozen=True, repr=False)
class PowerResult(ShortRepr):
    """Power of studies of other sizes.

    Attributes
    ----------
    table
        One row per size asked: ``n_samples``, ``is_extrapolated`` (more than the pilot has), ``score`` (expected, by the learning curve), ``ci_low``,
        ``ci_high``, ``critical`` (the score that a study of this size has to exceed), ``power``, ``power_low``, ``power_high``.
    pilot
        One row per size and draw: ``n_samples``, ``draw``, ``score``, ``null`` (the same donors with permuted labels).
    metric, probe
        Of the scores.
    alpha, level
        Of the one-sided test, of the intervals.
    n_pilot
        Donors (or samples) of the pilot.
    """

    table: pd.DataFrame
    pilot: pd.DataFrame
    metric: str
    probe: str
    alpha: float
    level: float
    n_pilot: int
    _curves: list[_Curve]

    @checks_numbers
    def n_needed(self, power: float = 0.8) -> dict[str, float]:
        """Smallest study with this power: ``n_samples`` with ``low`` and ``high`` (infinite beyond a hundred times the pilot).

        Parameters
        ----------
        power
            Between 0 and 1.
        """
        sizes = np.unique(np.geomspace(4, 100 * self.n_pilot, 2000).round())
        found = []
        for curve in self._curves:
            enough = sizes[curve.power(sizes, self.alpha) >= power]
            found.append(enough[0] if len(enough) else np.inf)
        low, high = np.quantile(found[1:], [0.5 - self.level / 2, 0.5 + self.level / 2], method="inverted_cdf")
        return {"n_samples": float(found[0]), "low": float(low), "high": float(high)}


@dataclass(frozen=True)
class _Curve:
    """Expected score ``top - drop * n^-exponent`` and variances ``spread / n`` with true and permuted labels; larger is better."""

    top: float
    drop: float
    exponent: float
    spread: float
    chance: float
    null_spread: float
    lowest: float
    highest: float

    def score(self, n: np.ndarray) -> np.ndarray:
        return np.clip(self.top - self.drop * n**-self.exponent, self.lowest, self.highest)

    def critical(self, n: np.ndarray, alpha: float) -> np.ndarray:
        """The score to exceed; where even the highest would not do, that."""
        return np.minimum(self._critical(n, alpha), self.highest)

    def _critical(self, n: np.ndarray, alpha: float) -> np.ndarray:
        return self.chance + stats.norm.ppf(1 - alpha) * np.sqrt(self.null_spread / n)

    def power(self, n: np.ndarray, alpha: float) -> np.ndarray:
        n = np.asarray(n, dtype=float)
        return stats.norm.sf((self._critical(n, alpha) - self.score(n)) / np.sqrt(self.spread / n))


@checks_numbers
def power(
    samples: AnnData,
    label_key: str,
    n_samples: Sequence[int],
    *,
    use_rep: str | None = None,
    obsp_key: str | None = None,
    probe: Probe = "auto",
    groups_key: str | None = None,
    cv: int = 5,
    tune: bool = False,
    target: str = "auto",
    event_key: str | None = None,
    metric: str | None = None,
    alpha: float = 0.05,
    level: float = 0.95,
    n_draws: int = 40,
    rng: np.random.Generator | int | None = 0,
    n_jobs: int = 1,
) -> PowerResult:
    r"""The share of studies of ``n`` donors in which the cross-validated score would exceed what permuted labels give.

    Donors of the pilot are drawn in several numbers, without replacement and stratified; each draw is cross-validated with its true labels and
    with permuted ones. Three things are fitted to these scores: a learning curve :math:`s(n) = a - b\,n^{-c}`; the variance of a study,
    :math:`v / n`, after division by :math:`1 - n / N`, because draws from the same :math:`N` donors are more alike than new studies; and mean
    and variance of the null. Power is that of normal scores. Intervals redraw the draws and shift the curve by the error of the pilot itself,
    :math:`N(0, v / N)`, which usually is the larger part: a small pilot tells little about power.

    Parameters
    ----------
    samples, label_key, use_rep, obsp_key, probe, groups_key, cv, target, event_key
        As in :func:`probe`.
    n_samples
        Numbers of donors (groups of ``groups_key``; otherwise samples) of studies to plan.
    tune
        As in :func:`probe`; off by default, as every draw is a cross-validation.
    metric
        Default: balanced accuracy, mean absolute error, or concordance.
    alpha
        Level of the one-sided test against permuted labels.
    level
        Of the intervals.
    n_draws
        Draws per size of the pilot.
    rng
        Seed or generator.
    n_jobs
        Number of processes. Results do not depend on it.

    Returns
    -------
    PowerResult

    Raises
    ------
    ValueError
        As in :func:`probe`; if the pilot has fewer than 12 donors, or sizes are no numbers of at least 4.

    Examples
    --------
    >>> import scset_tools as sst
    >>> samples = sst.profiles.mean(sst.datasets.composition_cohort(n_samples=24, n_cells=40), sample_key="sample")
    >>> result = sst.tl.power(samples, "subtype", [20, 60], n_draws=4)
    >>> result.table["is_extrapolated"].tolist()
    [False, True]
    """
    labels = read_target(samples, label_key, target=target, event_key=event_key)
    probe = choose_probe(probe, kind=labels.kind, label_key=label_key, is_distance=obsp_key is not None)
    metric = check_kind_metric(metric, labels.kind)
    if not 0 < alpha < 0.5 or n_draws < 3:
        msg = f"alpha must lie between 0 and 0.5, and n_draws be at least 3, but they are {alpha} and {n_draws}."
        raise ValueError(msg)
    asked = np.array(sorted({int(n) for n in n_samples}))
    groups = read_groups(samples, groups_key, labels.rows)
    n_pilot = len(np.unique(groups))
    if n_pilot < 12 or not len(asked) or asked[0] < 4:
        msg = (
            f"The pilot has {n_pilot} {'samples' if groups_key is None else f'values of {groups_key!r}'} with a label (at least 12 are needed), and studies of "
            f"{asked.tolist()} are asked for (at least 4 each)."
        )
        raise ValueError(msg)
    usable_cv(labels, groups, cv)  # says what it lowers, once
    x, _ = read_input(samples, labels, use_rep=use_rep, obsp_key=obsp_key)
    sizes = np.unique(np.geomspace(max(min(8, n_pilot // 2), n_pilot / 4), n_pilot, _N_SIZES).round().astype(int))
    run = {
        "x": x,
        "groups": groups,
        "order": read_groups(samples, None, labels.rows),
        "probe": probe,
        "tune": tune,
        "is_distance": obsp_key is not None,
        "cv": cv,
        "metric": metric,
    }
    seed = seed_of(rng)
    keys = [(int(size), draw) for size in sizes for draw in range(n_draws)]
    found = run_parallel([delayed(_draw)(labels, key, seed=seed, **run) for key in keys], n_jobs=n_jobs)
    pilot = pd.DataFrame(keys, columns=["n_samples", "draw"])
    pilot[["score", "null"]] = found
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    lowest, highest = sorted(sign * bound for bound in BOUNDS[metric])
    known = pilot.dropna()
    draws = [
        (float(n), sign * part["score"].to_numpy(dtype=float), sign * part["null"].to_numpy(dtype=float))
        for n, part in known.groupby("n_samples")
        if len(part) > 2
    ]
    if sum(n <= 0.7 * n_pilot for n, _, _ in draws) < 2 or len(draws) < 3:
        few = "too few of a class"
        way_out = "Merge classes, or lower cv."
        if labels.is_event is not None:
            few, way_out = (
                f"too few of the {int(labels.is_event.sum())} seen events of {label_key!r}",
                "Follow for longer, or lower cv.",
            )
        elif labels.kind != "class":
            few, way_out = f"too few different values of {label_key!r}", "Lower cv."
        msg = f"Only {len(known)} of {len(pilot)} draws of the pilot could be scored: {few} in {n_pilot} donors. {way_out}"
        raise ValueError(msg)
    curves = _curves(draws, n_pilot, (float(lowest), float(highest)), rng=np.random.default_rng((seed, 2)))
    scores, powers = (
        np.array([f(c) for c in curves])
        for f in (lambda c: c.score(asked.astype(float)), lambda c: c.power(asked, alpha))
    )
    tails = [0.5 - level / 2, 0.5 + level / 2]
    ends = np.sort(sign * np.quantile(scores[1:], tails, axis=0), axis=0)
    table = pd.DataFrame({"n_samples": asked, "is_extrapolated": asked > n_pilot, "score": sign * scores[0]})
    table["ci_low"], table["ci_high"] = ends
    table["critical"] = sign * curves[0].critical(asked.astype(float), alpha)
    table["power"] = powers[0]
    table["power_low"], table["power_high"] = np.quantile(powers[1:], tails, axis=0)
    return PowerResult(table, pilot, metric, probe, alpha, level, n_pilot, curves)


def _draw(
    labels: Target,
    key: tuple[int, int],
    *,
    x: np.ndarray,
    groups: np.ndarray,
    order: np.ndarray,
    cv: int,
    metric: str,
    seed: int,
    **run: object,
) -> tuple[float, float]:
    """Score of a smaller study, with its labels and with permuted ones; NaN where it has too few of a class."""
    size, _ = key
    rng = np.random.default_rng((seed, *key))
    chosen = _some_groups(labels, groups, order, size, rng)
    rows = np.flatnonzero(np.isin(groups, chosen))
    part, of = labels.take(rows), groups[rows]
    vectors = x[np.ix_(rows, rows)] if run["is_distance"] else x[rows]
    out = []
    codes = np.unique(part.values, return_inverse=True)[1]
    for positions in (np.arange(len(rows)), permute_labels(codes, of, rng, order=order[rows])):
        given = part.take(positions)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about a draw, not about the cohort
                folds = usable_cv(given, of, min(cv, len(chosen)))
            out.append(score_once(given, of, cv=folds, metric=metric, seed=int(rng.integers(2**31)), x=vectors, **run))
        except ValueError:
            out.append(float("nan"))
    return out[0], out[1]


def _some_groups(
    labels: Target, groups: np.ndarray, order: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    """``size`` groups without replacement, strata (those of their first samples by name) in about their shares."""
    by_name = np.argsort(order)
    unique, first = np.unique(groups[by_name], return_index=True)
    strata = labels.strata(2)[by_name[first]]
    place = np.empty(len(unique))
    for code in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == code))
        place[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return unique[np.lexsort((rng.random(len(unique)), place))[:size]]


Draws = list[tuple[float, np.ndarray, np.ndarray]]
"""For each size its scores and those with permuted labels."""


def _curves(draws: Draws, n_pilot: int, bounds: tuple[float, float], *, rng: np.random.Generator) -> list[_Curve]:
    """The fitted curve, then those of redrawn draws that are shifted by the error of the pilot."""
    best = _fit(draws, n_pilot, bounds)
    out = [best]
    for _ in range(_N_CURVES):
        shift = rng.normal() * np.sqrt(best.spread / n_pilot)
        picks = [rng.integers(len(score), size=len(score)) for _, score, _ in draws]
        again = [(n, score[i] + shift, null[i]) for (n, score, null), i in zip(draws, picks, strict=True)]
        out.append(_fit(again, n_pilot, bounds))
    return out


def _fit(draws: Draws, n_pilot: int, bounds: tuple[float, float]) -> _Curve:
    """Learning curve by weighted least squares over a grid of exponents, and both variances."""
    n = np.array([size for size, _, _ in draws], dtype=float)
    mean, variance = (np.array([f(score) for _, score, _ in draws]) for f in (np.mean, lambda v: np.var(v, ddof=1)))
    weight = n * [len(score) for _, score, _ in draws]
    is_apart = n <= 0.7 * n_pilot  # draws of most of the pilot are nearly the same study
    spread = float(np.mean((variance * n / (1 - np.minimum(n / n_pilot, 0.99)))[is_apart]))
    null_spread = float(np.mean([np.var(null, ddof=1) * size for size, _, null in draws]))
    chance = float(np.mean(np.concatenate([null for _, _, null in draws])))
    best, best_cost = (0.0, 0.0, 0.5), np.inf
    for exponent in _POWERS:  # linear in the rest
        x = -(n**-exponent)
        top, drop = _line(x, mean, weight, most=max(bounds[1], float(mean.max())))
        cost = float(weight @ (mean - top - drop * x) ** 2)
        if cost < best_cost - 1e-12:
            best, best_cost = (top, drop, float(exponent)), cost
    tiny = np.finfo(float).tiny
    return _Curve(*best, max(spread, tiny), chance, max(null_spread, tiny), *bounds)


def _line(x: np.ndarray, y: np.ndarray, weight: np.ndarray, *, most: float) -> tuple[float, float]:
    """Intercept, at most ``most``, and slope, at least 0, of weighted least squares."""
    center, middle = np.average(x, weights=weight), np.average(y, weights=weight)
    slope = float(weight @ ((x - center) * (y - middle)) / (weight @ (x - center) ** 2))
    if slope <= 0:
        return float(min(middle, most)), 0.0
    if middle - slope * center > most:
        return most, float(max(0.0, weight @ (x * (y - most)) / (weight @ x**2)))
    return float(middle - slope * center), slope

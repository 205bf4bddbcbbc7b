"""How often the 95 % interval of a cross-validated score holds what it estimates, at 8 to 64 donors.

    python benchmarks/interval_coverage.py
    python benchmarks/interval_coverage.py --rare 0.25          a quarter of the donors in the second class
    python benchmarks/interval_coverage.py --n-visits 3         three samples of each donor, half of their variance shared
    python benchmarks/interval_coverage.py --n-features 50
    python benchmarks/interval_coverage.py --bootstrap          percentiles and BCa of redrawn donors instead, for AUROC

Two classes, Gaussian and ``shift`` apart in one feature; 5 x 5 folds as ``tl.probe`` makes them, donors whole. The probe is a linear
one, along the difference of the class means, so that all data sets are fitted at once; a number is predicted by the sum of
features times their covariance with it. What is estimated is the expected score of the probe after training on parts of that size: the
mean over all data sets.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from scipy import stats
from scipy.stats import rankdata

from scset_tools._metrics import BOUNDS, RANKINGS
from scset_tools.tl._intervals import bounded_interval, t_interval
from scset_tools.tl._result import independent_units
from scset_tools.tl._splits import make_folds
from scset_tools.tl._targets import Target

SIZES, SHIFTS = (8, 16, 32, 64), (0.0, 1.5, 3.0, 5.0)


def scores_of(x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """Balanced accuracy and AUROC of every data set on one fold, (n_datasets,); x is (n_datasets, n, features)."""
    means = [x[:, train[y[train] == c]].mean(axis=1) for c in (0, 1)]
    direction, middle = means[1] - means[0], (means[1] + means[0]) / 2
    score = np.einsum("dnf,df->dn", x[:, test] - middle[:, None], direction)
    of = [score[:, y[test] == c] for c in (0, 1)]
    is_right = [of[0] <= 0, of[1] > 0]
    out = {"balanced_accuracy": np.mean([right.mean(axis=1) for right in is_right if right.size], axis=0)}
    if all(right.size for right in is_right):  # a test part of one class has no AUROC
        out["auroc"] = (of[1][:, :, None] > of[0][:, None, :]).mean(axis=(1, 2))
    return out


def rank_of(x: np.ndarray, z: np.ndarray, train: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """Spearman's correlation of every data set on one fold, (n_datasets,); z is (n_datasets, n)."""
    centred = z[:, train] - z[:, train].mean(axis=1, keepdims=True)
    predicted = np.einsum("dnf,df->dn", x[:, test], np.einsum("dnf,dn->df", x[:, train], centred))
    a, b = (r - r.mean(axis=1, keepdims=True) for r in (rankdata(predicted, axis=1), rankdata(z[:, test], axis=1)))
    return {"spearman": (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))}


def coverage(n: int, shift: float, options: argparse.Namespace) -> list[dict[str, object]]:
    """One row per metric and interval."""
    n_datasets, n_visits = options.n_datasets, options.n_visits
    rng = np.random.default_rng((n, int(10 * shift)))
    is_second = np.arange(n) % 2 if options.rare == 0.5 else np.arange(n) < max(2, round(options.rare * n))
    y, donor = np.repeat(is_second.astype(int), n_visits), np.repeat(np.arange(n), n_visits)
    x = rng.normal(size=(n_datasets, len(y), options.n_features))
    if n_visits > 1:
        own = rng.normal(size=(n_datasets, n, options.n_features))
        x = np.sqrt(0.5) * (x + np.repeat(own, n_visits, axis=1))
    z = np.repeat(rng.normal(size=(n_datasets, n)), n_visits, axis=1)  # a number of each donor
    with_number = x.copy()
    with_number[:, :, 0] += shift / 2 * z
    x[:, :, 0] += shift * y
    cv = min(5, int(np.bincount(is_second.astype(int)).min()))
    folds = make_folds(y, donor, cv=cv, n_repeats=5, seed=0)
    ratio = float(np.mean([len(f.test) / len(f.train) for f in folds]))
    found = [scores_of(x, y, f.train, f.test) | rank_of(with_number, z, f.train, f.test) for f in folds]
    rows = np.arange(len(y))
    units = independent_units(Target("y", "class", rows, y, None, ("a", "b"), 0), donor) | {"spearman": float(n)}
    out = []
    for metric in ("balanced_accuracy", "auroc", "spearman"):
        values = np.stack([f[metric] for f in found if metric in f], axis=1)  # (n_datasets, folds)
        if metric == "spearman" and cv > 2 and len(y) // cv < 3:
            continue  # correlations of two samples
        truth, known = values.mean(), {"n_units": units[metric], "is_ranking": metric in RANKINGS}
        intervals = {
            "unbounded": [t_interval(v, test_train_ratio=ratio) for v in values],
            "t": [bounded_interval(v, BOUNDS[metric], **known) for v in values],
            "corrected": [bounded_interval(v, BOUNDS[metric], **known, test_train_ratio=ratio) for v in values],
        }
        for name, ends in intervals.items():
            low, high = np.array(ends).T
            held = np.mean((low <= truth + 1e-12) & (truth <= high + 1e-12))
            about = {"metric": metric, "shift": shift, "n": n, "truth": truth, "interval": name}
            out.append({**about, "coverage": held, "width": np.mean(high - low)})
    return out


def bootstrap_coverage(
    n: int, shift: float, options: argparse.Namespace, n_resamples: int = 500
) -> list[dict[str, object]]:
    """One row for percentiles and one for BCa (Efron 1987) of the AUROC of donors redrawn within their class.

    Pairs of donors that are tested together count, over all folds; the acceleration is that of the jackknife over donors.
    """
    n_datasets, y = options.n_datasets, np.arange(n) % 2
    rng = np.random.default_rng((n, int(10 * shift)))
    x = rng.normal(size=(n_datasets, n, options.n_features))
    x[:, :, 0] += shift * y
    n_of, place = np.bincount(y), np.arange(n) // 2
    won, met = np.zeros((n_datasets, n_of[1], n_of[0])), np.zeros((n_of[1], n_of[0]))
    for f in make_folds(y, np.arange(n), cv=min(5, n // 2), n_repeats=5, seed=0):
        means = [x[:, f.train[y[f.train] == c]].mean(axis=1) for c in (0, 1)]
        score = np.einsum("dnf,df->dn", x[:, f.test], means[1] - means[0])
        above, below = (score[:, y[f.test] == c] for c in (1, 0))
        pairs = np.ix_(*(place[f.test[y[f.test] == c]] for c in (1, 0)))
        won[:, *pairs] += above[:, :, None] > below[:, None, :]
        met[pairs] += 1

    def auroc(*weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # redrawn donors that were never tested together
            return np.einsum("bp,dpq,bq->db", weights[0], won, weights[1], optimize=True) / np.einsum(
                "bp,pq,bq->b", weights[0], met, weights[1]
            )

    sizes = (n_of[1], n_of[0])
    found = auroc(*(np.ones((1, k)) for k in sizes))
    redrawn = auroc(*(rng.multinomial(k, np.full(k, 1 / k), size=n_resamples).astype(float) for k in sizes))
    without = [[1 - np.eye(k) if i == j else np.ones((sizes[j], k)) for i, k in enumerate(sizes)] for j in (0, 1)]
    off = np.concatenate([auroc(*w) for w in without], axis=1)
    off = off.mean(axis=1, keepdims=True) - off
    acceleration = (off**3).sum(axis=1) / (6 * (off**2).sum(axis=1) ** 1.5).clip(1e-300)
    below = ((redrawn < found) + (redrawn == found) / 2).mean(axis=1).clip(0.5 / n_resamples, 1 - 0.5 / n_resamples)
    bias, ends = stats.norm.ppf(below)[:, None], stats.norm.ppf([0.025, 0.975])
    shares = {
        "percentile": np.tile([0.025, 0.975], (n_datasets, 1)),
        "bca": stats.norm.cdf(bias + (bias + ends) / (1 - acceleration[:, None] * (bias + ends))),
    }
    truth, out = found.mean(), []
    for name, of_each in shares.items():
        low, high = np.array([np.nanquantile(d, share) for d, share in zip(redrawn, of_each, strict=True)]).T
        held = np.mean((low <= truth + 1e-12) & (truth <= high + 1e-12))
        about = {"metric": "auroc", "shift": shift, "n": n, "truth": truth, "interval": name}
        out.append({**about, "coverage": held, "width": np.mean(high - low)})
    return out


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-datasets", type=int, default=2000)
    parser.add_argument("--n-features", type=int, default=5)
    parser.add_argument("--n-visits", type=int, default=1)
    parser.add_argument("--rare", type=float, default=0.5, help="share of donors in the second class")
    parser.add_argument("--bootstrap", action="store_true", help="bootstrap over donors (AUROC, classes of equal size)")
    options = parser.parse_args()
    measure = bootstrap_coverage if options.bootstrap else coverage
    table = pd.DataFrame([row for n in SIZES for shift in SHIFTS for row in measure(n, shift, options)])
    index = ["metric", "shift", "n", "truth"]
    print(table.pivot(index=index, columns="interval", values=["coverage", "width"]).round(3).to_string())


if __name__ == "__main__":
    main()

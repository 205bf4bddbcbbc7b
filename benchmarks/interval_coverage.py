"""How often the 95 % interval of a cross-validated score holds what it estimates, at 8 to 64 samples.

    python benchmarks/interval_coverage.py

Two classes of as many samples, Gaussian in five dimensions and ``shift`` apart in one; 5 x 5 folds as ``tl.probe`` makes them. The probe
is a linear one, along the difference of the class means, so that all data sets are fitted at once. What is estimated is the
expected score of the probe after training on parts of that size: the mean over all data sets.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

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
    recall = [(of[0] <= 0).mean(axis=1), (of[1] > 0).mean(axis=1)]
    return {
        "balanced_accuracy": np.mean(recall, axis=0),
        "auroc": (of[1][:, :, None] > of[0][:, None, :]).mean(axis=(1, 2)),
    }


def coverage(n: int, shift: float, n_datasets: int) -> list[dict[str, object]]:
    """One row per metric and interval."""
    rng = np.random.default_rng((n, int(10 * shift)))
    y = np.arange(n) % 2
    x = rng.normal(size=(n_datasets, n, 5))
    x[:, :, 0] += shift * y
    cv = min(5, n // 2)
    folds = make_folds(y, np.arange(n), cv=cv, n_repeats=5, seed=0)
    ratio = float(np.mean([len(f.test) / len(f.train) for f in folds]))
    found = [scores_of(x, y, f.train, f.test) for f in folds]
    target = Target("y", "class", np.arange(n), y, None, ("a", "b"), 0)
    units = independent_units(target, np.arange(n))
    rows = []
    for metric in found[0]:
        values = np.stack([f[metric] for f in found], axis=1)  # (n_datasets, folds)
        truth, bounds = values.mean(), (0.0, 1.0)
        intervals = {
            "unbounded": [t_interval(v, test_train_ratio=ratio) for v in values],
            "t": [bounded_interval(v, bounds, n_units=units[metric]) for v in values],
            "corrected": [bounded_interval(v, bounds, n_units=units[metric], test_train_ratio=ratio) for v in values],
        }
        for name, ends in intervals.items():
            low, high = np.array(ends).T
            held = np.mean((low <= truth + 1e-12) & (truth <= high + 1e-12))
            about = {"metric": metric, "shift": shift, "n": n, "truth": truth, "interval": name}
            rows.append({**about, "coverage": held, "width": np.mean(high - low)})
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-datasets", type=int, default=2000)
    n_datasets = parser.parse_args().n_datasets
    table = pd.DataFrame([row for n in SIZES for shift in SHIFTS for row in coverage(n, shift, n_datasets)])
    index = ["metric", "shift", "n", "truth"]
    print(table.pivot(index=index, columns="interval", values=["coverage", "width"]).round(3).to_string())


if __name__ == "__main__":
    main()

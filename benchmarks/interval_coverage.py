"""How often the 95 % interval of a probe holds the score that it estimates, at 8 to 64 samples.

    python benchmarks/interval_coverage.py --n-datasets 400

Two classes of as many samples, Gaussian in five dimensions and ``shift`` apart in one. What is estimated is the expected score of
the probe fitted to training parts of that size, which is the mean of the cross-validated scores over all data sets.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import pandas as pd
from anndata import AnnData

from scset_tools import tl

SIZES, SHIFTS = (8, 16, 32, 64), (0.0, 1.5, 4.0)
METRICS = ("balanced_accuracy", "auroc")
INTERVALS = ("t", "corrected", "bootstrap")


def samples_of(n: int, shift: float, seed: int) -> AnnData:
    """Half of the samples of either class."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.normal(size=(n, 5))
    x[:, 0] += shift * y
    return AnnData(x, obs=pd.DataFrame({"y": np.array(["a", "b"])[y]}, index=[f"s{i}" for i in range(n)]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-datasets", type=int, default=400)
    parser.add_argument("--probe", default="logistic")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # cv is lowered for 8 samples
    rows = []
    for n in SIZES:
        for shift in SHIFTS:
            found = []
            for seed in range(arguments.n_datasets):
                result = tl.probe(samples_of(n, shift, seed), "y", probe=arguments.probe, tune=False, n_repeats=5)
                of = {i: result.summary(interval=i, n_resamples=200).loc[list(METRICS)] for i in INTERVALS}
                found.append(pd.concat(of, names=["interval"]).reset_index())
            table = pd.concat(found)
            for (interval, metric), part in table.groupby(["interval", "metric"], sort=False):
                truth = part["mean"].mean()
                is_held = (part["ci_low"] <= truth) & (truth <= part["ci_high"])
                width = (part["ci_high"] - part["ci_low"]).mean()
                rows.append((n, shift, metric, interval, truth, is_held.mean(), width))
                print(*rows[-1], sep="\t", flush=True)
    out = pd.DataFrame(rows, columns=["n", "shift", "metric", "interval", "truth", "coverage", "width"])
    print(out.pivot_table(index=["metric", "shift", "n"], columns="interval", values="coverage").round(3).to_string())


if __name__ == "__main__":
    main()

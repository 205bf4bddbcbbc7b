"""Permutations of a default probe, solved together and fold by fold: processor seconds of each and their ratio, in one run.

    OMP_NUM_THREADS=1 python benchmarks/permutations.py [--n-samples 200] [--n-features 32] [--together 40] [--apart 4]

Both ways score the same permutations (the same labels, folds and seeds); the scores of those that both have are compared.
"""

from __future__ import annotations

import argparse
import time

import anndata as ad
import numpy as np
import pandas as pd

from scset_tools.tl import _probe
from scset_tools.tl._splits import read_groups
from scset_tools.tl._targets import read_target


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("--n-samples", 200), ("--n-features", 32), ("--together", 40), ("--apart", 4)):
        parser.add_argument(name, type=int, default=default)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(args.n_samples, args.n_features))
    obs = pd.DataFrame({"y": np.where(x[:, 0] + rng.normal(size=len(x)) > 0, "a", "b")})
    samples = ad.AnnData(x, obs=obs.set_index(obs.index.map("s{}".format)))
    labels = read_target(samples, "y")
    run = {"groups": read_groups(samples, None, labels.rows), "x": x, "probe": "logistic", "tune": True}
    is_fast, scores = _probe.is_fast, {}
    for way, n in (("together", args.together), ("apart", args.apart)):
        _probe.is_fast = is_fast if way == "together" else lambda *_, **__: False
        generators = np.random.default_rng(1).spawn(n)
        start = time.process_time()
        scores[way] = [
            _probe._permuted(labels, g, cv=5, metric="balanced_accuracy", is_distance=False, **run) for g in generators
        ]
        seconds = (time.process_time() - start) / n
        print(f"{way:>8}: {1000 * seconds:7.1f} s of one core for 1,000 permutations ({n} measured)")
        scores[f"{way} seconds"] = seconds
    n = min(args.together, args.apart)
    gap = np.abs(np.array(scores["together"][:n]) - np.array(scores["apart"][:n]))
    ratio = scores["apart seconds"] / scores["together seconds"]
    print(f"   ratio: {ratio:7.1f}; largest difference of a score {gap.max():.2g} in {n} permutations")


if __name__ == "__main__":
    main()

"""What the evaluation costs with many samples: time and memory of a comparison of ten representations, and of all distances.

    OMP_NUM_THREADS=1 python benchmarks/evaluation_scale.py [--n-samples 1000] [--n-representations 10] [--n-features 32] [--n-distances 5000]

Each part runs in a process of its own, whose peak of resident memory is given above that before it. The last column is the peak as a multiple
of a float32 matrix of all pairs.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial

import anndata as ad
import numpy as np
import pandas as pd
from _timing import in_fresh_process, peak_above_now

from scset_tools import tl

BENCHMARKS = ("benchmark, untuned", "summary and differences", "benchmark, tuned")
DISTANCES = ("tl.distances", "neighbour accuracy of stored distances")


def make_samples(n: int, n_features: int, n_representations: int) -> ad.AnnData:
    """Representations that tell a label of two classes to several degrees."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(n) % 2)
    obs = pd.DataFrame({"y": np.array(["a", "b"])[y]}, index=[f"s{i}" for i in range(n)])
    samples = ad.AnnData(np.zeros((n, 1)), obs=obs)
    for j in range(n_representations):
        x = rng.normal(size=(n, n_features)).astype(np.float32)
        x[:, 0] += y * j / 4
        samples.obsm[f"X_{j}"] = x
    return samples


def measure(part: str, n: int, n_features: int, n_representations: int) -> dict[str, float]:
    """Processor seconds and peak memory, in MiB, of one part."""
    samples = make_samples(n, n_features, n_representations)
    compare = partial(tl.benchmark, samples, list(samples.obsm), "y", baseline="X_0", progress=False)
    if part == "tl.distances":
        run = partial(tl.distances, samples, "X_0")
    elif part in DISTANCES:
        tl.distances(samples, "X_0", key_added="d")
        run = partial(tl.neighbor_accuracy, samples, "y", obsp_key="d")
    elif part in ("benchmark, tuned", "benchmark, untuned"):
        run = partial(compare, tune=part == "benchmark, tuned")
    else:
        found = compare(tune=False)

        def run() -> list[pd.DataFrame]:
            return [found.summary(), found.differences()]

    start = time.process_time()
    _, peak = peak_above_now(run)
    return {"seconds": time.process_time() - start, "peak": peak / 2**20}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("n-samples", 1000), ("n-representations", 10), ("n-features", 32), ("n-distances", 5000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", nargs="+", choices=[*BENCHMARKS, *DISTANCES], default=[*BENCHMARKS, *DISTANCES])
    parser.add_argument("--part", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(measure(args.part[0], *map(int, args.part[1:]))))
        return
    print("| part | samples | processor s | peak memory, MiB | of a float32 matrix of all pairs |")
    print("|---|---|---|---|---|")
    for part in args.only:
        n, m = (args.n_samples, args.n_representations) if part in BENCHMARKS else (args.n_distances, 1)
        found = in_fresh_process(__file__, "--part", part, str(n), str(args.n_features), str(m))
        share = found["peak"] / (4 * n**2 / 2**20)
        print(f"| {part} | {n} | {found['seconds']:.1f} | {found['peak']:.0f} | {share:.2f} |", flush=True)


if __name__ == "__main__":
    main()

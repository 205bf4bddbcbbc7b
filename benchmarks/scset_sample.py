"""Generating cells: DDIM in 50 steps against ancestral sampling in 1,000, with the same trained model.

Trains a small model on semi-synthetic samples, generates the same number of cells for some of them with both samplers, and
compares time and the proportions of cell types (15 nearest neighbours among the true cells), cohort-wide and per sample.

    python benchmarks/scset_sample.py [--cells 2000] [--samples 4] [--process-time]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
from _quiet import one_quiet_thread
from _timing import hardware_line, print_table

import scset_tools as sst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--process-time", action="store_true", help="count processor time of this process (one thread)")
    args = parser.parse_args()
    one_quiet_thread()
    clock = time.process_time if args.process_time else time.perf_counter
    cells = sst.datasets.varied_cohort(n_samples=64, n_cells=200, n_features_shifted=0, rng=0)
    sst.ScSet.setup_anndata(cells, "sample")
    model = sst.ScSet(cells, n_latent=32, n_hidden=64, n_cells=128, n_targets=32, n_times=4, random_state=0)
    start = clock()
    model.train(
        args.epochs,
        train_size=1.0,
        plan_kwargs={"lr": 3e-3},
        seed=0,
        enable_progress_bar=False,
        accelerator=args.device,
    )
    print(f"{hardware_line()}; trained in {clock() - start:.0f} s")
    names = model.sample_names[: args.samples]
    vectors = model.get_sample_representation(samples=names)
    proportions, seconds = {}, {}
    for name, options in (
        ("DDIM, 50 steps", {"sampler": "ddim"}),
        ("DDIM, 50 steps, other noise", {"sampler": "ddim", "seed": 1}),
        ("DDPM, 1,000 steps", {"sampler": "ddpm"}),
    ):
        start = clock()
        made = model.sample_cells(args.cells, representation=vectors, **options)
        seconds[name] = clock() - start
        sst.tl.transfer_labels(made, cells, "cell_type")
        proportions[name] = pd.crosstab(made.obs["sample"], made.obs["cell_type"], normalize="index")
    slow = "DDPM, 1,000 steps"
    rows = []
    for name, table in proportions.items():
        apart = (table - proportions[slow]).abs().to_numpy()
        overall = np.abs(table.mean() - proportions[slow].mean()).max()
        rows.append((name, seconds[name], seconds[slow] / seconds[name], float(overall), float(apart.max())))
    print(f"\n{len(names)} samples x {args.cells} cells:\n")
    print_table(["sampler", "seconds", "times faster", "proportions apart, all", "largest, any sample and type"], rows)


if __name__ == "__main__":
    main()

"""An epoch over a store: the share of its time that goes into reading.

    python benchmarks/store_epoch.py cohort.zarr [--models PaSCient ScSet] [--n-cells 1000] [--batches 3]

Trains each model at its default sizes on a store of :func:`scset_tools.pp.write_store` and takes the time, on the clock and of the
processor, within the reader of batches. ``benchmarks/store.py`` says how a store of synthetic cells is made.
"""

from __future__ import annotations

import argparse
import time
import warnings
from functools import partial

import numpy as np
from _timing import hardware_line, peak_above_now

import scset_tools as sst
from scset_tools.data._dataset import SampleDataset


def main() -> None:
    """Print one line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--models", nargs="+", default=["PaSCient", "ScSet"])
    parser.add_argument("--n-cells", type=int, default=1_000, help="cells drawn from a sample")
    parser.add_argument("--batches", type=int, default=3)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    print(hardware_line())
    store = sst.pp.read_store(args.store)
    key = store.uns["store"]["sample_key"]
    store.obs["label"] = np.where(store.obs[key].cat.codes.to_numpy() % 2, "case", "control")
    names = [str(name) for name in store.uns["store"]["samples"]][: 16 * args.batches]
    reading = [0.0, 0.0]
    batch = SampleDataset._batch

    def timed(self, *asked):
        clock, processor = time.perf_counter(), time.process_time()
        out = batch(self, *asked)
        reading[0] += time.perf_counter() - clock
        reading[1] += time.process_time() - processor
        return out

    SampleDataset._batch = timed
    for name in args.models:
        cls = getattr(sst, name)
        cls.setup_anndata(store, key, labels_key="label")
        build = {"log_normalize": True} if name == "PaSCient" else {}
        model = cls(store, random_state=0, **build)
        how = {
            "n_cells": args.n_cells,
            "enable_progress_bar": False,
            "accelerator": "cpu",
            "watch_health": False,
            "seed": 0,
        }
        how["datasplitter_kwargs"] = {"external_indexing": [names]}
        model.train(max_epochs=1, **how)  # what is done once
        reading[:] = 0.0, 0.0
        clock, processor = time.perf_counter(), time.process_time()
        _, peak = peak_above_now(partial(model.train, max_epochs=1, **how))
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
        print(
            f"{name}: {args.batches} batches of 16 samples x {args.n_cells:,} cells in {processor:.1f} processor seconds; reading {reading[1]:.2f} "
            f"({reading[1] / processor:.0%}), on the clock {reading[0] / clock:.0%}; {peak / 2**20:,.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()

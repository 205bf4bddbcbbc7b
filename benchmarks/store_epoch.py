"""An epoch over a store: the share of its time that goes into reading, with and without reading ahead.

    python benchmarks/store_epoch.py cohort.zarr [--models PaSCient ScSet] [--n-cells 1000] [--batches 3]

Trains each model at its default sizes on a store of :func:`scset_tools.pp.write_store`. Taken are the processor seconds of reading, and how
long the training waits for batches, as a share of the time of its epoch on the clock. ``benchmarks/store.py`` says how a store of synthetic
cells is made.
"""

from __future__ import annotations

import argparse
import time
import warnings
from functools import partial

import numpy as np
from _timing import hardware_line, peak_above_now
from lightning.pytorch.profilers import SimpleProfiler

import scset_tools as sst
from scset_tools.data import _stored_rows
from scset_tools.data._dataset import SampleDataset


class Durations(SimpleProfiler):
    """Takes times and prints none."""

    def describe(self) -> None:
        pass


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
    reading = [0.0]
    batch = SampleDataset._batch

    def timed(self, *asked):
        start = time.thread_time()
        out = batch(self, *asked)
        reading[0] += time.thread_time() - start
        return out

    SampleDataset._batch = timed
    _stored_rows._n_threads = lambda: 1  # all reading in the thread that is timed
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
        for ahead in (None, False, True):  # the first run does what is done once
            profiler = Durations()
            how["datasplitter_kwargs"] = {"external_indexing": [names], "read_ahead": bool(ahead)}
            reading[0], processor = 0.0, time.process_time()
            _, peak = peak_above_now(partial(model.train, max_epochs=1, profiler=profiler, **how))
            processor = time.process_time() - processor
            if ahead is None:
                continue
            took = profiler.recorded_durations
            waited = sum(sum(v) for k, v in took.items() if k.endswith("train_dataloader_next"))
            epoch = sum(sum(v) for k, v in took.items() if k.endswith("run_training_epoch"))
            print(
                f"{name}, {'read ahead' if ahead else 'in turn'}: {args.batches} batches of 16 samples x {args.n_cells:,} cells in {processor:.1f} "
                f"processor seconds, reading {reading[0]:.2f} of them ({reading[0] / processor:.0%}); on the clock {epoch:.1f} s, of which "
                f"training waits for data {waited / epoch:.0%}; {peak / 2**20:,.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()

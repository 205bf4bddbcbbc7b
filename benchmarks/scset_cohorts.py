"""ScSet on semi-synthetic and real cohorts: subtypes, generated cells, and prediction beside baselines.

    python benchmarks/scset_cohorts.py --part semi        # two-cluster Ward on held-out semi-synthetic samples (Fig. 5), five seeds
    python benchmarks/scset_cohorts.py --part generate    # composition and distances of cells generated for held-out samples (Fig. 3)
    python benchmarks/scset_cohorts.py --part table       # Table 1 in small: encoders and decoders x heads, beside baselines
    ... [--seeds 0 1 2 3 4] [--write]

Real cohorts are read from ../shared/data or $SCSET_TOOLS_DATA. Every part prints as it goes, one line per seed.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scvi
import torch
from _results import write_section
from _timing import hardware_line

import scset_tools as sst

DATA = Path(os.environ.get("SCSET_TOOLS_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
QUIET = {"enable_progress_bar": False, "accelerator": "cpu", "train_size": 1.0}


def say(text: str) -> None:
    print(text, flush=True)


def markdown(table: pd.DataFrame) -> str:
    lines = ["| " + " | ".join(["", *map(str, table.columns)]) + " |", "|---" * (len(table.columns) + 1) + "|"]
    for name, row in table.iterrows():
        cells = [v if isinstance(v, str) else f"{v:.3f}" for v in row]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


# ---- semi-synthetic cohorts (Fig. 5, appendix G)

SEMI_BUILD = {"n_latent": 64, "n_hidden": 64, "n_cells": 200, "n_targets": 32, "n_times": 4}
SEMI_COHORT = {"n_samples": 512, "n_cells": 200}
SEMI_TRAIN = {"max_epochs": 75, "batch_size": 32, "plan_kwargs": {"lr": 2e-3}}


def pretrained(seed: int, *, train: bool = True) -> sst.ScSet:
    """A model pretrained without labels on samples of random compositions and shifts, from half of the base cells."""
    cells = sst.datasets.varied_cohort(**SEMI_COHORT, pool=(0, 2), rng=seed)
    sst.ScSet.setup_anndata(cells, "sample")
    model = sst.ScSet(cells, random_state=seed, **SEMI_BUILD)
    if train:
        model.train(**SEMI_TRAIN, **QUIET, seed=seed)
    else:
        model.is_trained_ = True  # the control: random weights
    return model


def rand_of(samples: ad.AnnData) -> float:
    sst.tl.subtypes(samples, label_keys="subtype", n_clusters=2)
    return float(samples.uns["subtypes"]["scores"].loc["subtype", "ari"])


def semi(seeds: list[int]) -> str:
    rows, seconds = {}, []
    for seed in seeds:
        start = time.process_time()
        models = {"ScSet": pretrained(seed), "untrained": pretrained(seed, train=False)}
        seconds.append(time.process_time() - start)
        for kind, make in (
            ("composition", sst.datasets.composition_cohort),
            ("perturbation", sst.datasets.perturbation_cohort),
        ):
            cells = make(n_samples=12, n_cells=200, pool=(1, 2), rng=1000 + seed)
            found = {name: rand_of(model.to_sample_adata(cells)) for name, model in models.items()}
            found["average"] = rand_of(sst.profiles.Mean(sample_key="sample").fit_transform(cells))
            for name, value in found.items():
                rows.setdefault((kind, name), []).append(value)
        say(f"seed {seed}: { ({k: round(v[-1], 2) for k, v in rows.items()}) } ({seconds[-1]:.0f} s)")
    table = pd.DataFrame(rows, index=[f"seed {s}" for s in seeds]).T
    table.index = [f"{kind}: {name}" for kind, name in table.index]
    return (
        f"Adjusted Rand index of two Ward clusters of 12 samples of 200 cells, from half of the cells of 68k PBMC; pretrained "
        f"without labels on {SEMI_COHORT['n_samples']} samples of random compositions and shifts of the other half. Model "
        f"{SEMI_BUILD}, training {SEMI_TRAIN}; {np.mean(seconds):.0f} processor seconds per seed.\n\n{markdown(table)}"
    )


PARTS = {"semi": (semi, "ScSet: subtypes of semi-synthetic samples")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=list(PARTS), required=True)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--write", action="store_true", help="write into benchmarks/RESULTS.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    scvi.settings.verbosity = logging.ERROR
    warnings.simplefilter("ignore")
    run, title = PARTS[args.part]
    text = f"{run(args.seeds)}\n\n{hardware_line()}."
    say(text)
    if args.write:
        write_section(f"scset-{args.part}", title, text)


if __name__ == "__main__":
    main()

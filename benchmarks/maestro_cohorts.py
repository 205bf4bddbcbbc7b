"""MAESTRO on real cohorts, frozen, beside the baselines and its own untrained encoder: one protocol for all.

Samples are represented once per representation (profiles that learn are fitted on the training folds alone; MAESTRO is
trained without labels on all samples, and for the cohort given by ``--folds`` also on the training folds alone). A logistic
regression on standardised vectors predicts the label in five repeats of five stratified folds that keep groups whole: with
the fixed strength C = 1, as the reference figures of the baselines were measured, and with a strength chosen inside the
training folds ("tuned").

    python benchmarks/maestro_cohorts.py [--cohorts bcrxl krieg hiv] [--folds hiv] [--ablation hiv] [--weights hiv] [--write]

The cohorts are read from ../shared/data or $SCSET_TOOLS_DATA.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _quiet import one_quiet_thread
from _results import markdown, write_section
from _timing import hardware_line

import scset_tools as sst
from scset_tools.model.maestro._presets import RECIPE

DATA = Path(os.environ.get("SCSET_TOOLS_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SEEDS = (0, 1, 2)
BUILD = {"n_hidden": 64, "n_latent": 64, "n_inducing": 16, "n_cells": 128}
PAPER = {**RECIPE, "distillation_weight": 0.1}  # for the paper's ablations
N_STEPS = 200  # of the optimiser, whatever the number of samples
TRAIN = {
    "batch_size": 8,
    "train_size": 1.0,
    "plan_kwargs": {"lr": 2e-3},
    "enable_progress_bar": False,
    "accelerator": "cpu",
}


@dataclass(frozen=True)
class Cohort:
    """A file and the keys to read it by."""

    file: str
    label_key: str
    groups_key: str | None = None
    batch_key: str | None = None
    n_samples: int = 0  # of the file

    def read(self) -> ad.AnnData:
        return ad.read_h5ad(DATA / f"{self.file}.h5ad")


COHORTS = {
    "bcrxl": Cohort("bcrxl_cytof_bodenmiller_full", "condition", "patient", n_samples=16),
    "krieg": Cohort("krieg_melanoma_cytof_imubac", "group", None, "batch", n_samples=30),
    "hiv": Cohort("hiv_flow_flowtype", "HIV", n_samples=32),
}


class Embedded:
    """Vectors that were computed before: what ``fit`` sees makes no difference."""

    def __init__(self, samples: ad.AnnData) -> None:
        self.samples = samples

    def __sklearn_clone__(self) -> Embedded:
        return self

    def fit(self, adata: ad.AnnData, *, samples: list[str] | None = None) -> Embedded:
        return self

    def transform(self, adata: ad.AnnData) -> ad.AnnData:
        return self.samples


def profile(
    n_samples: int, *, seed: int = 0, train: bool = True, batch_key: str | None = None, **build
) -> sst.model.ModelProfile:
    epochs = round(N_STEPS / -(-n_samples // TRAIN["batch_size"]))
    return sst.model.ModelProfile(
        sst.MAESTRO,
        sample_key="sample",
        setup={"batch_key": batch_key},
        build={**BUILD, "random_state": seed, **build},
        train={**TRAIN, "seed": seed, "max_epochs": epochs} if train else None,
    )


def embedded(adata: ad.AnnData, **arguments) -> tuple[Embedded, float]:
    start = time.perf_counter()
    model = profile(adata.obs["sample"].nunique(), **arguments).fit(adata)
    return Embedded(model.transform(adata)), time.perf_counter() - start


def evaluate(adata: ad.AnnData, cohort: Cohort, representations: dict, *, n_repeats: int = 5) -> pd.DataFrame:
    """Mean and standard deviation over 25 folds of weighted F1 and AUROC, averaged over the seeds of a representation."""

    def folds(*, tune: bool) -> pd.DataFrame:
        result = sst.tl.benchmark(
            adata,
            representations,
            [cohort.label_key],
            sample_key="sample",
            groups_key=cohort.groups_key,
            cv=5,
            n_repeats=n_repeats,
            tune=tune,
            progress=False,
            rng=0,
        )
        return result.results.assign(name=lambda d: d["representation"].str.replace(r" #\d+$", "", regex=True))

    table = folds(tune=False)
    grouped = table.groupby("name", sort=False)[["f1_weighted", "auroc"]].agg(["mean", "std"])
    grouped.columns = ["weighted F1", "sd", "AUROC", "sd "]
    per_seed = table.groupby(["name", "representation"], sort=False)["f1_weighted"].mean()
    grouped["F1 of each seed"] = [", ".join(f"{v:.2f}" for v in per_seed.loc[name]) for name in grouped.index]
    tuned = folds(tune=True).groupby("name", sort=False)["f1_weighted"].agg(["mean", "std"])
    return grouped.assign(**{"F1, tuned": tuned["mean"], "sd  ": tuned["std"]})


def baselines() -> dict:
    p, key = sst.profiles, {"sample_key": "sample"}
    out = {"mean": p.Mean(**key)}
    for k in (20, 60):
        out[f"k-means-{k} fractions"] = p.KMeansFractions(n_clusters=k, **key)
        out[f"k-means-{k} means"] = p.KMeansMeans(n_clusters=k, **key)
    return out


def seeds_of(adata: ad.AnnData, name: str, **arguments) -> tuple[dict, float]:
    out, seconds = {}, 0.0
    for seed in SEEDS:
        out[f"{name} #{seed}"], took = embedded(adata, seed=seed, **arguments)
        seconds += took / len(SEEDS)
    return out, seconds


def main_table(name: str, cohort: Cohort, *, on_folds: bool) -> str:
    adata = cohort.read()
    untrained, _ = seeds_of(adata, "MAESTRO, untrained", train=False)
    trained, seconds = seeds_of(adata, "MAESTRO")
    representations = {**baselines(), **untrained, **trained}
    if cohort.batch_key is not None:
        untrained, _ = seeds_of(adata, "MAESTRO, untrained, batch_key", train=False, batch_key=cohort.batch_key)
        trained, _ = seeds_of(adata, "MAESTRO, batch_key", batch_key=cohort.batch_key)
        representations |= untrained | trained
    table = evaluate(adata, cohort, representations)
    text = (
        f"### {name}: {cohort.label_key} ({seconds:.0f} s of training per seed)\n\n{markdown(table, 'representation')}"
    )
    if on_folds:
        same = {"trained on all samples": trained["MAESTRO #0"], "untrained": untrained["MAESTRO, untrained #0"]}
        same["trained on the training folds alone"] = profile(round(0.8 * cohort.n_samples))
        table = evaluate(adata, cohort, same, n_repeats=1)
        text += f"\n\nPretraining on the training folds alone (one seed, one repeat of five folds):\n\n{markdown(table, 'representation')}"
    return text


def ablation_table(name: str, cohort: Cohort) -> str:
    """The paper's Table 1 (F.4): each row changes the row above."""
    rows = {
        "random masking, 50 %": {"masking": "random", "mask_rates": (0.5,), "distillation_weight": 0.0},
        "+ multi-rate masking": {"masking": "random", "distillation_weight": 0.0},
        "+ block masking": {"distillation_weight": 0.0},
        "+ self-distillation (full model)": {},
        "- masked modelling": {"reconstruction_weight": 0.0},
    }
    return study(name, cohort, rows, "Table 1 of the paper")


def weights_table(name: str, cohort: Cohort) -> str:
    rows = {f"distillation_weight {weight}": {"distillation_weight": weight} for weight in (0.0, 0.1, 0.3, 1.0, 3.0)}
    return study(name, cohort, rows, "weight of the distillation (reconstruction_weight 1)")


def study(name: str, cohort: Cohort, rows: dict, title: str) -> str:
    adata = cohort.read()
    representations, _ = seeds_of(adata, "untrained", train=False)
    for row, arguments in rows.items():
        representations |= seeds_of(adata, row, **{**PAPER, **arguments})[0]
    return f"### {name}: {title}\n\n{markdown(evaluate(adata, cohort, representations), 'representation')}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", nargs="*", default=list(COHORTS), choices=list(COHORTS))
    parser.add_argument("--folds", nargs="*", default=[], choices=list(COHORTS), help="pretrain on training folds too")
    parser.add_argument("--ablation", nargs="*", default=[], choices=list(COHORTS))
    parser.add_argument("--weights", nargs="*", default=[], choices=list(COHORTS))
    parser.add_argument("--write", action="store_true", help="write into benchmarks/RESULTS.md")
    args = parser.parse_args()
    one_quiet_thread()
    sections = [f"Model {BUILD}, training {TRAIN}, {len(SEEDS)} seeds. {hardware_line()}."]
    for names, make in (
        (args.cohorts, lambda n, c: main_table(n, c, on_folds=n in args.folds)),
        (args.ablation, ablation_table),
        (args.weights, weights_table),
    ):
        for name in names:
            sections.append(make(name, COHORTS[name]))
            print(sections[-1] + "\n", flush=True)
    if args.write:
        write_section("maestro", "MAESTRO on real cohorts", "\n\n".join(sections))


if __name__ == "__main__":
    np.set_printoptions(suppress=True)
    main()

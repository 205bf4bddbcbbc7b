"""ScSet on semi-synthetic and real cohorts: subtypes, generated cells, and prediction beside baselines.

    python benchmarks/scset_cohorts.py --part semi        # two-cluster Ward on held-out semi-synthetic samples (Fig. 5), five seeds
    python benchmarks/scset_cohorts.py --part generate    # composition and distances of cells generated for held-out samples (Fig. 3)
    python benchmarks/scset_cohorts.py --part table       # Table 1 in small: encoders and decoders x heads, beside baselines
    python benchmarks/scset_cohorts.py --part reference   # its heads under the protocol of the reference figures
    ... [--seeds 0 1 2 3 4] [--cohorts melanoma hiv] [--folds 4] [--write]      # --folds: of `generate`, the first ones alone

Real cohorts are read from ../shared/data or $SCSET_TOOLS_DATA. Every part prints as it goes, one line per seed.
"""

from __future__ import annotations

import argparse
import os
import time
from functools import cache
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _pooled import linear_probe, pooled_f1
from _quiet import one_quiet_thread
from _results import markdown, write_section
from _timing import hardware_line
from maestro_cohorts import Embedded
from sklearn.cluster import KMeans
from sklearn.metrics import f1_score

import scset_tools as sst
from scset_tools.tl._intervals import t_interval

DATA = Path(os.environ.get("SCSET_TOOLS_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
QUIET = {"enable_progress_bar": False, "accelerator": "cpu", "train_size": 1.0}


def say(text: str) -> None:
    print(text, flush=True)


# ---- semi-synthetic cohorts (Fig. 5, appendix G)

SEMI_BUILD = {"n_latent": 64, "n_hidden": 64, "n_cells": 200, "n_targets": 32, "n_times": 4}
SEMI_COHORT = {"n_samples": 512, "n_cells": 200, "shift": 0.75}
SEMI_TRAIN = {"max_epochs": 160, "batch_size": 32, "plan_kwargs": {"lr": 2e-3}}
N_TEST_COHORTS = 5  # draws of the 12 samples for each model


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
            found = {name: [] for name in (*models, "average")}
            for draw in range(N_TEST_COHORTS):
                cells = make(n_samples=12, n_cells=200, pool=(1, 2), rng=1000 + seed + 100 * draw)
                for name, model in models.items():
                    found[name].append(rand_of(model.to_sample_adata(cells)))
                found["average"].append(rand_of(sst.profiles.Mean(sample_key="sample").fit_transform(cells)))
            for name, values in found.items():
                rows.setdefault((kind, name), []).append(", ".join(f"{v:.2f}" for v in values))
        say(f"seed {seed}: { ({k: v[-1] for k, v in rows.items()}) } ({seconds[-1]:.0f} s)")
    table = pd.DataFrame(rows, index=[f"seed {s}" for s in seeds]).T
    table.index = [f"{kind}: {name}" for kind, name in table.index]
    return (
        f"Adjusted Rand index of two Ward clusters of 12 samples of 200 cells, {N_TEST_COHORTS} draws of the 12 for each model, "
        f"from half of the cells of 68k PBMC; pretrained without labels on {SEMI_COHORT['n_samples']} samples of random "
        f"compositions and shifts of the other half. Model {SEMI_BUILD}, training {SEMI_TRAIN}; {np.mean(seconds):.0f} "
        f"processor seconds per seed.\n\n{markdown(table)}"
    )


# ---- generated cells of held-out samples (Fig. 3, appendix H)

MELANOMA = ("melanoma_ici_daseq_pca", "response", "patient")
HIV = ("hiv_flow_flowtype", "HIV", None)
COHORTS = {"melanoma": MELANOMA, "hiv": HIV}
GENERATE_BUILD = {"n_latent": 64, "n_hidden": 64, "n_cells": 128, "n_targets": 32, "n_times": 4, "tilt": 1.0}
GENERATE_STEPS = 700
N_FOLDS, N_CLUSTERS = 4, 20


def read(name: str) -> ad.AnnData:
    adata = ad.read_h5ad(DATA / f"{name}.h5ad")
    adata.obs["sample"] = adata.obs["sample"].astype(str).astype("category")
    return adata


def part_of(adata: ad.AnnData, names: list[str]) -> ad.AnnData:
    return adata[adata.obs["sample"].isin(names)].copy()


def held_out_folds(samples: pd.DataFrame, groups_key: str, seed: int) -> list[tuple[list[str], list[str]]]:
    groups = samples[groups_key].astype(str)
    order = np.random.default_rng(seed).permutation(groups.unique())
    parts = [set(order[k::N_FOLDS]) for k in range(N_FOLDS)]
    return [(list(samples.index[~groups.isin(p)]), list(samples.index[groups.isin(p)])) for p in parts]


def generate(seeds: list[int], folds: int = N_FOLDS, **build) -> str:
    file, _, groups_key = MELANOMA
    adata = read(file)
    samples = adata.obs.groupby("sample", observed=True).first()
    lines, seconds = {}, []
    for seed in seeds:
        made, labelled, distances = [], [], []
        for train, test in held_out_folds(samples, groups_key, seed)[:folds]:
            start = time.process_time()
            cells, held_out = part_of(adata, train), part_of(adata, test)
            sst.ScSet.setup_anndata(cells, "sample")
            model = sst.ScSet(cells, random_state=seed, **{**GENERATE_BUILD, **build})
            epochs = round(GENERATE_STEPS / -(-len(train) // 16))
            model.train(epochs, batch_size=16, plan_kwargs={"lr": 2e-3}, seed=seed, **QUIET)
            new = model.sample_cells(500, adata=held_out, seed=seed)
            seconds.append(time.process_time() - start)
            made.append(new)
            labelled.append(held_out)
            distances.append(sst.tl.generated_distances(held_out, new, rng=seed))
        true, new = ad.concat(labelled), ad.concat(made, index_unique="-")
        clusters = KMeans(N_CLUSTERS, n_init=5, random_state=seed).fit(true.X)
        true.obs["cluster"] = pd.Categorical([f"{c:02d}" for c in clusters.labels_])
        sst.tl.transfer_labels(new, true, "cluster")
        found = sst.tl.generated_composition(true, new, "cluster")
        # the same figures for one half of the true cells of each sample against the other: what is left to chance
        half = np.random.default_rng(seed).random(true.n_obs) < 0.5
        floor = sst.tl.generated_composition(true[half].copy(), true[~half].copy(), "cluster").summary()
        table = pd.concat(distances)
        row = found.summary().drop("n_samples").to_dict()
        row |= {f"{k} (halves)": v for k, v in floor.items() if k in ("pearson_median", "share_closest")}
        row |= table[["mmd", "mmd_floor", "sinkhorn", "sinkhorn_floor"]].median().to_dict()
        lines[f"seed {seed}"] = row
        say(f"seed {seed}: { ({k: round(v, 3) for k, v in row.items()}) } ({sum(seconds):.0f} s so far)")
    table = pd.DataFrame(lines)
    return (
        f"48 samples of `{file}` (10 principal components), each held out by patient in one of {N_FOLDS} folds, of which {folds} were run; 500 cells of "
        f"each are generated from its vector (DDIM, 50 steps). Proportions of {N_CLUSTERS} k-means clusters, generated cells "
        f"labelled by their 15 nearest neighbours. Distances are medians over samples; the floor and the halves compare one half "
        f"of the true cells with the other. Model {GENERATE_BUILD}, {GENERATE_STEPS} steps of 16 samples, "
        f"{np.mean(seconds):.0f} processor seconds per fold.\n\n{markdown(table)}"
    )


# ---- Table 1 in small

TABLE_BUILD = {"n_latent": 32, "n_hidden": 64, "n_cells": 128, "n_targets": 16, "n_times": 4}
TABLE_STEPS = 200
ROWS = {
    "ScSet": {},
    "ScSet, without pretraining": {"train": False},
    "ScSet, flow decoder": {"decoder": "flow"},
    "gated attention": {"encoder": "abmil"},
    "gated attention, without pretraining": {"encoder": "abmil", "train": False},
}
BASELINES = {"average": None, "k-means-20 fractions": 20, "k-means-60 fractions": 60}
"""Profiles beside the models, and their numbers of clusters."""
FINETUNE = {"max_epochs": 12, "lr": 3e-4, "head": "linear", "penalty": 1.0, "enable_progress_bar": False}


def model_of(adata: ad.AnnData, label_key: str, *, seed: int, train: bool = True, **build) -> sst.ScSet:
    sst.ScSet.setup_anndata(adata, "sample", labels_key=label_key)
    model = sst.ScSet(adata, random_state=seed, **{**TABLE_BUILD, **build})
    if train:
        epochs = round(TABLE_STEPS / -(-adata.obs["sample"].nunique() // 16))
        model.train(epochs, batch_size=16, plan_kwargs={"lr": 2e-3}, seed=seed, **QUIET)
    else:
        model.is_trained_ = True
    return model


def profile_of(name: str, **arguments) -> sst.profiles.Profile:
    if BASELINES[name] is None:
        return sst.profiles.Mean(sample_key="sample")
    return sst.profiles.KMeansFractions(n_clusters=BASELINES[name], sample_key="sample", **arguments)


def weighted_f1(truth: pd.Series, predicted: pd.Series) -> float:
    return float(f1_score(truth.loc[predicted.index], predicted, average="weighted", zero_division=0))


def table(seeds: list[int], cohorts: list[str]) -> str:
    sections = []
    for file, label_key, groups_key in (COHORTS[name] for name in cohorts):
        adata = read(file)
        truth = adata.obs.groupby("sample", observed=True)[label_key].first().astype(str)
        scores: dict[tuple[str, str], list[float]] = {}
        for seed in seeds:
            start = time.process_time()
            models = {name: model_of(adata, label_key, seed=seed, **row) for name, row in ROWS.items()}
            fitted = {name: profile_of(name) for name in BASELINES}
            representations = {name: Embedded(m.to_sample_adata()) for name, m in models.items()} | fitted
            result = sst.tl.benchmark(
                adata,
                representations,
                label_key,
                sample_key="sample",
                groups_key=groups_key,
                probes=["logistic", "mlp"],
                tune=False,
                n_repeats=1,
                rng=seed,
                progress=False,
            ).results
            for (name, probe), part in result.groupby(["representation", "probe"], sort=False):
                scores.setdefault((name, {"logistic": "linear probe", "mlp": "MLP"}[probe]), []).extend(
                    part["f1_weighted"]
                )
            first = models["ScSet"].to_sample_adata()
            folds = sst.tl.probe(
                first, label_key, groups_key=groups_key, n_repeats=1, tune=False, rng=seed
            ).predictions[["sample", "fold"]]
            for name, model in models.items():
                for _, test in folds.groupby("fold"):
                    held_out = list(test["sample"])
                    rest = [s for s in model.sample_names if s not in set(held_out)]
                    for mode, column in (("frozen", "frozen head"), ("end_to_end", "end to end")):
                        model.finetune(label_key, mode=mode, samples=rest, seed=seed, **FINETUNE)
                        f1 = weighted_f1(truth, model.predict(label_key=label_key, samples=held_out)[label_key])
                        scores.setdefault((name, column), []).append(f1)
            seconds = time.process_time() - start
            say(
                f"{label_key}, seed {seed} ({seconds:.0f} s): { ({k: round(np.mean(v), 3) for k, v in scores.items()}) }"
            )
        columns = ["linear probe", "MLP", "frozen head", "end to end"]
        out = pd.DataFrame(index=[*ROWS, *BASELINES], columns=columns)
        for (name, column), values in scores.items():
            low, high = t_interval(np.array(values), test_train_ratio=0.25)
            out.loc[name, column] = f"{np.mean(values):.3f} ({low:.2f} to {high:.2f})"
        sections.append(f"### {file}: {label_key}\n\n{markdown(out.fillna('-'))}")
    return (
        f"Weighted F1 over five folds (grouped by patient where there is one) for each of {len(seeds)} seeds, with 95 % intervals that "
        f"allow for the overlap of training parts. Pretraining without labels on all samples; profiles fitted on the training "
        f"folds. `linear probe` and `MLP`: `tl.benchmark` with fixed strength. `frozen head` and `end to end`: `finetune` with the "
        f"class-weighted linear head. Model {TABLE_BUILD}, {TABLE_STEPS} steps of 16 samples; fine-tuning {FINETUNE}.\n\n"
        + "\n\n".join(sections)
    )


def reference_of(file: str, label_key: str, groups_key: str | None, seeds: list[int]) -> pd.DataFrame:
    """Pooled F1 of each row and head, mean and seed by seed."""
    adata = read(file)
    obs = adata.obs.groupby("sample", observed=True).first()
    labels, groups = obs[label_key], None if groups_key is None else obs[groups_key].astype(str)

    def heads(name: str, seed: int) -> dict[str, float]:
        predictors = {}
        if name in ROWS:
            model = model_of(adata, label_key, seed=seed, **ROWS[name])
            z = model.to_sample_adata().to_df()

            def end_to_end(training: list[str], test: list[str]) -> np.ndarray:
                model.finetune(label_key, mode="end_to_end", samples=training, seed=seed, **FINETUNE)
                return model.predict(label_key=label_key, samples=test)[label_key].loc[test].to_numpy()

            predictors["end to end"] = end_to_end

        @cache  # both linear heads read the same vectors
        def vectors(training: tuple[str, ...]) -> pd.DataFrame:
            if name in ROWS:
                return z
            return profile_of(name, rng=seed).fit(adata, samples=list(training)).transform(adata).to_df()

        for head, weight in (("class-weighted", "balanced"), ("linear probe", None)):
            predictors[head] = linear_probe(lambda training: vectors(tuple(training)), labels, class_weight=weight)
        return {head: pooled_f1(predict, labels, groups, seed=seed) for head, predict in predictors.items()}

    out = {}
    for name in [*ROWS, *BASELINES]:
        found = pd.DataFrame([heads(name, seed) for seed in seeds])
        out[name] = {head: f"{f1.mean():.3f} ({', '.join(f'{v:.2f}' for v in f1)})" for head, f1 in found.items()}
        say(f"{label_key}, {name}: {out[name]}")
    return pd.DataFrame(out, index=["linear probe", "class-weighted", "end to end"]).T.fillna("-")


def reference(seeds: list[int], cohorts: list[str]) -> str:
    sections = [
        f"### {COHORTS[n][0]}: {COHORTS[n][1]}\n\n{markdown(reference_of(*COHORTS[n], seeds))}" for n in cohorts
    ]
    return (
        "The protocol of `reference_figures.py`: out-of-fold predictions of a seed pooled, weighted F1; logistic regression with C = 1, without "
        "and with weights by which all classes count the same (which is `finetune(mode='frozen')`), and end to end from the latter. Model and "
        f"training as in Table 1; mean over {len(seeds)} seeds of model and folds, and each.\n\n"
        + "\n\n".join(sections)
    )


PARTS = {
    "semi": (semi, "ScSet: subtypes of semi-synthetic samples"),
    "generate": (generate, "ScSet: cells generated for held-out samples"),
    "table": (table, "ScSet: Table 1 of the paper in small"),
    "reference": (reference, "ScSet: heads under the protocol of the reference figures"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=list(PARTS), required=True)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--cohorts",
        nargs="*",
        choices=list(COHORTS),
        default=list(COHORTS),
        help="of the parts `table` and `reference`",
    )
    parser.add_argument("--folds", type=int, default=N_FOLDS, help="of the part `generate`: so many of the folds")
    parser.add_argument("--write", action="store_true", help="write into benchmarks/RESULTS.md")
    args = parser.parse_args()
    one_quiet_thread()
    run, title = PARTS[args.part]
    options = {"cohorts": args.cohorts} if args.part in ("table", "reference") else {}
    if args.part == "generate":
        options["folds"] = args.folds
    text = f"{run(args.seeds, **options)}\n\n{hardware_line()}."
    say(text)
    if args.write:
        write_section(f"scset-{args.part}", title, text)


if __name__ == "__main__":
    main()

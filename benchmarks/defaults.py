"""Every model by its defaults beside its own untrained encoder and the baselines: what training is worth, and what it costs.

    python benchmarks/defaults.py --part table  --models scset maestro pascient --seeds 0 1 2 3 4   # weighted F1, AUROC, CPU seconds
    python benchmarks/defaults.py --part curve  --models scset maestro --seeds 0 1 2                # weighted F1 after 0, 25, ... steps
    python benchmarks/defaults.py --part varied --models scset maestro --seeds 0 1 2                # known proportions and shifts
    ... [--cohorts hiv krieg bcrxl melanoma ipf cytometry] [--steps 0 25 50 100 200 400] [--csv FILE] [--keep DIR]
    python benchmarks/defaults.py --part table --write                                              # from the file to RESULTS.md

Results are appended to the file as they come, so that a table may be made in several calls; ``--keep`` keeps the vectors of ``curve`` and
``varied`` for ``spectrum.py``, attention and tokens apart. Models that learn without labels are trained
on all samples of a cohort (vectors without labels leak none); PaSCient, which learns from them, on the training samples of each fold, like
the baselines. Real cohorts are read from ../shared/data or $SCSET_TOOLS_DATA.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from _quiet import one_quiet_thread
from _results import markdown, write_section
from _timing import hardware_line
from maestro_cohorts import COHORTS as FILES
from maestro_cohorts import Cohort, Embedded
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import scset_tools as sst
from scset_tools.tl._intervals import bounded_interval, t_interval

QUIET: dict[str, Any] = {"enable_progress_bar": False, "accelerator": "cpu"}
MODELS = {"maestro": sst.MAESTRO, "scset": sst.ScSet, "pascient": sst.PaSCient}
REAL = {
    **FILES,
    "melanoma": Cohort("melanoma_ici_daseq_pca", "response", "patient"),
    "ipf": Cohort("ipf_lung_idesc", "disease"),
}
NAMES = [*REAL, "cytometry"]
BASELINES = {"mean": None, "k-means-20 fractions": 20}
ORDER = [*BASELINES, *(label for model in MODELS for label in (model, f"{model}, untrained"))]
"""Of the rows of a table."""
MIN_CELLS = 8
"""Samples with fewer cells are left out of the IPF cohort, where some have one."""


def read(name: str, seed: int) -> tuple[ad.AnnData, Cohort]:
    """Cells with a column ``sample``, and the keys to read them by."""
    if name == "cytometry":
        adata = sst.datasets.cytometry_cohort(rng=seed)
        return adata, Cohort(name, "condition", "donor", "batch")
    cohort = REAL[name]
    adata = cohort.read()
    if name == "ipf":
        adata.obs["sample"] = adata.obs["subject"]
        adata.X = np.log1p(adata.X.toarray() / adata.obs["sequencing_depth"].to_numpy(float)[:, None] * 1e4)
        adata = adata[
            adata.obs.groupby("sample", observed=True)["sample"].transform("size").to_numpy(int) >= MIN_CELLS
        ].copy()
    adata.obs["sample"] = adata.obs["sample"].astype(str).astype("category")
    adata.X = np.asarray(adata.X, dtype=np.float32)
    return adata, cohort


def trained(
    name: str, adata: ad.AnnData, *, seed: int, batch_key: str | None = None, n_steps: int | None = None
) -> tuple[Any, float]:
    """A model by its defaults, or with its defaults for so many steps, and the processor seconds of training."""
    MODELS[name].setup_anndata(adata, "sample", batch_key=batch_key)
    model = MODELS[name](adata, random_state=seed)
    start = time.process_time()
    if n_steps == 0:
        model.is_trained_ = True
    elif n_steps is None:
        model.train(seed=seed, **QUIET)
    else:
        n_batches = len(model.sample_names) / {"scset": 16, "maestro": 16}[name]
        model.train(
            max(1, round(n_steps / np.ceil(n_batches))), batch_size=16, seed=seed, stop_at_plateau=False, **QUIET
        )
    return model, time.process_time() - start


def parts_of(model: Any, adata: ad.AnnData) -> dict[str, np.ndarray]:
    """Names of the samples, their vectors as the decoder reads them, and what tokens add to what attention pools in these."""
    samples, module = model.to_sample_adata(adata), model.module
    module.eval()
    read, rows = getattr(module, "read", module.standardize), []
    with model._reading(adata) as cells:
        dataset = model._dataset(cells)
    with torch.no_grad():
        for i in range(len(dataset.index)):
            batch = dataset[0, [i]]
            rows.append(module.token_weight * module.tokens(read(batch).float(), batch.ptr))
    tokens = pd.DataFrame(torch.cat(rows).numpy(), index=np.asarray(dataset.index.names, dtype=str))
    return {
        "names": samples.obs_names.to_numpy(str),
        "vectors": module.for_decoder(torch.from_numpy(np.asarray(samples.X, dtype=float))).numpy(),
        "tokens": tokens.loc[samples.obs_names.astype(str)].to_numpy(float),
    }


def degree_of(model: Any) -> float:
    """Degree to which the vectors of a trained model are whitened."""
    return 0.0 if model.module.whitening is None else model.module.whitening.degree


def keep(folder: Path | None, name: str, parts: dict[str, np.ndarray]) -> None:
    """Write the parts of vectors to a file."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / f"{name}.npz", **parts)


def scores(adata: ad.AnnData, cohort: Cohort, representations: dict[str, Any], seed: int) -> pd.DataFrame:
    """Weighted F1 and AUROC of a logistic regression, fold by fold."""
    result = sst.tl.benchmark(
        adata,
        representations,
        cohort.label_key,
        sample_key="sample",
        groups_key=cohort.groups_key,
        tune=False,
        n_repeats=1,
        rng=seed,
        progress=False,
    ).results
    kept = ["representation", "fold", "f1_weighted", "auroc", "n_train", "n_test"]
    return result[[c for c in kept if c in result]]


def table(models: list[str], cohorts: list[str], seeds: list[int], out: Path) -> None:
    for name in cohorts:
        for seed in seeds:
            adata, cohort = read(name, seed)
            made: dict[str, Any] = {
                b: sst.profiles.Mean(sample_key="sample")
                if k is None
                else sst.profiles.KMeansFractions(n_clusters=k, sample_key="sample", rng=seed)
                for b, k in BASELINES.items()
            }
            seconds: dict[str, float] = {}
            ranks: dict[str, float] = {}
            degrees: dict[str, float] = {}
            for model in models:
                if model == "pascient":
                    setup = {"labels_key": cohort.label_key}
                    common = {"sample_key": "sample", "setup": setup, "build": {"random_state": seed}}
                    made[model] = sst.model.ModelProfile(sst.PaSCient, **common, train={"seed": seed, **QUIET})
                    made[f"{model}, untrained"] = sst.model.ModelProfile(sst.PaSCient, **common)
                    continue
                for label, n_steps in ((model, None), (f"{model}, untrained", 0)):
                    fitted, seconds[label] = trained(
                        model, adata, seed=seed, batch_key=cohort.batch_key, n_steps=n_steps
                    )
                    samples, degrees[label] = fitted.to_sample_adata(), degree_of(fitted)
                    made[label], ranks[label] = Embedded(samples), sst.tl.representation_health(samples).effective_rank
            start = time.process_time()
            rows = scores(adata, cohort, made, seed)
            if "pascient" in models:
                seconds["pascient"] = (time.process_time() - start) / 5  # of one fold, probes included
            rows = rows.assign(
                part="table",
                cohort=name,
                seed=seed,
                seconds=rows["representation"].map(seconds),
                effective_rank=rows["representation"].map(ranks),
                whitening=rows["representation"].map(degrees),
            )
            append(rows, out)


def curve(
    models: list[str], cohorts: list[str], seeds: list[int], steps: list[int], out: Path, folder: Path | None = None
) -> None:
    for name in cohorts:
        for seed in seeds:
            adata, cohort = read(name, seed)
            for model in models:
                for n_steps in steps:
                    fitted, seconds = trained(model, adata, seed=seed, batch_key=cohort.batch_key, n_steps=n_steps)
                    samples = fitted.to_sample_adata()
                    if folder is not None:
                        keep(folder, f"{name}_{model}_{n_steps}_{seed}", parts_of(fitted, adata))
                    rows = scores(adata, cohort, {model: Embedded(samples)}, seed)
                    rank = sst.tl.representation_health(samples).effective_rank
                    append(
                        rows.assign(
                            part="curve",
                            cohort=name,
                            seed=seed,
                            steps=n_steps,
                            seconds=seconds,
                            effective_rank=rank,
                            whitening=degree_of(fitted),
                        ),
                        out,
                    )


def varied(models: list[str], seeds: list[int], out: Path, folder: Path | None = None) -> None:
    """R2 of ridge regressions from the vectors of held-out samples to what they were made of."""
    for seed in seeds:
        cohort = {"n_cells": 200, "n_features": 6, "n_features_shifted": 3}
        training = sst.datasets.varied_cohort(n_samples=256, pool=(0, 2), rng=seed, **cohort)
        held_out = sst.datasets.varied_cohort(n_samples=128, pool=(1, 2), rng=seed + 1000, **cohort)
        made = {}
        for model in models:
            made[model], _ = trained(model, training, seed=seed)
            made[f"{model}, untrained"], _ = trained(model, training, seed=seed, n_steps=0)
        if folder is not None:
            for name, m in made.items():
                keep(folder, f"varied_{name}_{seed}_training", parts_of(m, training))
                keep(folder, f"varied_{name}_{seed}_held_out", parts_of(m, held_out))
        degrees = {name: degree_of(m) for name, m in made.items()}
        made = {name: (m.to_sample_adata(training), m.to_sample_adata(held_out)) for name, m in made.items()}
        for name, profile in (
            ("mean", sst.profiles.Mean(sample_key="sample")),
            ("k-means-20 fractions", sst.profiles.KMeansFractions(n_clusters=20, sample_key="sample", rng=seed)),
        ):
            profile.fit(training)
            made[name] = profile.transform(training), profile.transform(held_out)
        truth = [
            {
                "proportions": c.uns["truth"]["proportions"],
                "shifts": c.uns["truth"]["effect"].reshape(c.obs["sample"].nunique(), -1),
            }
            for c in (training, held_out)
        ]
        names = [list(c.uns["truth"]["samples"]) for c in (training, held_out)]  # in the order of the truth
        rows = []
        for name, (train, test) in made.items():
            row = {"representation": name, "effective_rank": sst.tl.representation_health(test).effective_rank}
            for what in ("proportions", "shifts"):
                ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 4, 15))).fit(
                    train[names[0]].X, truth[0][what]
                )
                row[what] = r2_score(truth[1][what], ridge.predict(test[names[1]].X), multioutput="uniform_average")
            rows.append({**row, "whitening": degrees.get(name, np.nan)})
        append(pd.DataFrame(rows).assign(part="varied", seed=seed), out)


def append(rows: pd.DataFrame, out: Path) -> None:
    """Add rows to the file, and say what they show."""
    known = pd.read_csv(out) if out.exists() else None
    (rows if known is None else pd.concat([known, rows])).to_csv(out, index=False, float_format="%.5g")
    numbers = [c for c in ("f1_weighted", "auroc", "seconds", "effective_rank", "proportions", "shifts") if c in rows]
    keys = [c for c in ("cohort", "representation", "steps", "seed") if c in rows]
    print(rows.groupby(keys)[numbers].mean().round(3).to_string(), flush=True)


# ---- from the file to RESULTS.md


def with_interval(values: pd.Series, ratio: float, n_samples: float | None = None) -> str:
    """Mean and interval of a score between 0 and 1 of so many samples, or of a difference."""
    x = values.to_numpy(float)
    if n_samples is None:
        low, high = t_interval(x, test_train_ratio=ratio)
    else:
        low, high = bounded_interval(x, (0.0, 1.0), n_units=n_samples, test_train_ratio=ratio)
    return f"{values.mean():.3f} ({low:.2f} to {high:.2f})"


def whitening_text(rows: pd.DataFrame) -> str:
    """Which rows are of whitened vectors: those that were measured before there was whitening are not."""
    own = rows[rows["representation"].isin(("maestro", "scset"))]
    degree = own["whitening"].fillna(0) if "whitening" in own else pd.Series(0.0, index=own.index)
    return f"MAESTRO and ScSet with `whitening` of {', '.join(f'{d:g}' for d in sorted(degree.unique()))}."


def table_text(rows: pd.DataFrame) -> str:
    sections = []
    for name, part in rows[rows["part"] == "table"].groupby("cohort", sort=False):
        part = part.drop_duplicates(["representation", "seed", "fold"], keep="last")
        ratio, out = float((part["n_test"] / part["n_train"]).mean()), {}
        n_samples = float((part["n_test"] + part["n_train"]).iloc[0])
        by_fold = part.set_index(["seed", "fold"])
        for label, own in sorted(by_fold.groupby("representation"), key=lambda item: ORDER.index(item[0])):
            row = {
                "weighted F1": with_interval(own["f1_weighted"], ratio, n_samples),
                "AUROC": with_interval(own["auroc"].dropna(), ratio, n_samples) if own["auroc"].notna().any() else "-",
            }
            base = by_fold[by_fold["representation"] == f"{label}, untrained"]
            gain = (own["f1_weighted"] - base["f1_weighted"]).dropna() if len(base) else pd.Series(dtype=float)
            row["F1 over untrained"] = with_interval(gain, ratio) if len(gain) else "-"
            row["CPU s"] = f"{own['seconds'].mean():.0f}" if own["seconds"].mean() > 0.5 else "-"
            row["effective rank"] = (
                f"{own['effective_rank'].mean():.1f}" if own["effective_rank"].notna().any() else "-"
            )
            row["seeds"] = str(own.reset_index()["seed"].nunique())
            out[label] = row
        sections.append(f"### {name}\n\n{markdown(pd.DataFrame(out).T)}")
    return (
        "Logistic regression (C = 1) on standardised vectors, five folds (by group where there is one) for each seed, with 95 % intervals corrected "
        "for the overlap of training parts. Untrained: the same initial weights. CPU seconds of `train()` on one thread (PaSCient: of one fold). "
        + whitening_text(rows[rows["part"] == "table"])
        + "\n\n"
        + "\n\n".join(sections)
    )


def curve_text(rows: pd.DataFrame) -> str:
    part = rows[rows["part"] == "curve"].astype({"steps": int})
    out = part.groupby(["cohort", "representation", "steps"], sort=False)["f1_weighted"].mean().unstack("steps")
    rank = part.groupby(["cohort", "representation", "steps"], sort=False)["effective_rank"].mean().unstack("steps")
    shown = (out.map("{:.3f}".format) + " (" + rank.map("{:.1f}".format) + ")").where(out.notna(), "-")
    shown.index = [f"{model}, {cohort}" for cohort, model in shown.index]
    shown.columns = [f"{c} steps" for c in shown.columns]
    return f"Weighted F1 (effective rank) after so many steps, each a run of its own schedule; means of {' or '.join(map(str, sorted(part.groupby(['cohort', 'representation'])['seed'].nunique().unique())))} seeds. {whitening_text(part)}\n\n{markdown(shown)}"


def curve_figure(rows: pd.DataFrame, path: Path) -> None:
    """The same as lines: one panel for each cohort, a point for each seed."""
    import matplotlib.pyplot as plt

    part = rows[rows["part"] == "curve"].astype({"steps": int})
    part = part.groupby(["cohort", "representation", "steps", "seed"], as_index=False)["f1_weighted"].mean()
    n_steps = part.groupby("cohort")["steps"].nunique()
    cohorts = [name for name in dict.fromkeys(part["cohort"]) if n_steps[name] > 3]  # of two points there is no curve
    figure, axes = plt.subplots(1, len(cohorts), figsize=(3.4 * len(cohorts), 3), sharey=True, squeeze=False)
    for ax, cohort in zip(axes[0], cohorts, strict=True):
        of_cohort = part[part["cohort"] == cohort]
        places = {n: i for i, n in enumerate(sorted(of_cohort["steps"].unique()))}
        for number, (model, own) in enumerate(of_cohort.groupby("representation")):
            mean = own.groupby("steps")["f1_weighted"].mean()
            x = [places[n] for n in mean.index]
            ax.plot(
                x, mean, color=f"C{number}", marker="os"[number % 2], label=f"{model} (seeds: {own['seed'].nunique()})"
            )
            ax.plot(own["steps"].map(places), own["f1_weighted"], ".", color=f"C{number}", alpha=0.4)
        ax.set_xticks(list(places.values()), [str(n) for n in places])
        ax.set(title=cohort, xlabel="steps of training", ylim=(0.5, 1.0))
        ax.legend(frameon=False, loc="lower right", fontsize=8)
    axes[0, 0].set_ylabel("weighted F1 of a probe")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def varied_text(rows: pd.DataFrame) -> str:
    part = rows[rows["part"] == "varied"].drop_duplicates(["representation", "seed"], keep="last")
    out = part.groupby("representation", sort=False)[["proportions", "shifts", "effective_rank"]].mean()
    return (
        f"128 held-out samples of other cells: R2 of ridge regressions (fitted on 256 training samples) from the vectors to the 4 proportions and the 24 "
        f"shifts (4 cell types x 6 features), mean of {part['seed'].nunique()} seeds. {whitening_text(part)}\n\n{markdown(out)}"
    )


FIGURE = Path(__file__).resolve().parents[1] / "docs" / "_static" / "defaults_curve.png"
TEXTS = {
    "table": ("Defaults beside untrained encoders", table_text),
    "curve": ("Defaults after so many steps", curve_text),
    "varied": ("Known proportions and shifts from vectors", varied_text),
}


def main() -> None:
    """Run one part, or write its section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=TEXTS, required=True)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=[])
    parser.add_argument("--cohorts", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", nargs="+", type=int, default=[0, 25, 50, 100, 200, 400])
    parser.add_argument("--csv", type=Path, default=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--keep", type=Path, help="folder for the vectors of curve and varied")
    parser.add_argument("--write", action="store_true", help="write the section of RESULTS.md from the file")
    args = parser.parse_args()
    one_quiet_thread()
    if args.models and args.part == "table":
        table(args.models, args.cohorts, args.seeds, args.csv)
    elif args.models and args.part == "curve":
        curve(args.models, args.cohorts, args.seeds, args.steps, args.csv, args.keep)
    elif args.models:
        varied(args.models, args.seeds, args.csv, args.keep)
    if args.write and args.part == "curve":
        curve_figure(pd.read_csv(args.csv), FIGURE)
    if args.write:
        title, text = TEXTS[args.part]
        write_section(f"defaults-{args.part}", title, f"{hardware_line()}\n\n{text(pd.read_csv(args.csv))}")


if __name__ == "__main__":
    main()

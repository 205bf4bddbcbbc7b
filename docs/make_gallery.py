"""Draw every plot of `pl` into a folder: `python docs/make_gallery.py FOLDER`.

The cells are those of `datasets`, the representations per-type means computed here, so that no model has to be trained.
Numbers that only a model could give (attention, reconstruction, scores) are made up and say nothing about any method.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData

from scset_tools import _keys, datasets, pl, pp, profiles, tl


def sample_level(cells: AnnData, *, by_type: bool = True) -> AnnData:
    """Mean of the cells (of each type) in each sample; a sample without a type gets the mean of the others."""
    types = cells.obs["cell_type"] if by_type else pd.Series("all", index=cells.obs_names)
    per_type = cells.to_df().groupby([cells.obs["sample"], types], observed=True).mean().unstack()
    per_type = per_type.fillna(per_type.mean())
    columns = [c for c in cells.obs if c not in ("sample", "cell_type", "base_cell")]
    obs = cells.obs.groupby("sample", observed=True)[columns].first().loc[per_type.index]
    obs["n_cells"] = cells.obs["sample"].value_counts().loc[per_type.index]
    obs.index = obs.index.astype(str)
    var = pd.DataFrame(index=[f"{feature} {name}" for feature, name in per_type.columns])
    return AnnData(per_type.to_numpy(dtype=np.float32), obs=obs, var=var)


def figures(rng: np.random.Generator):
    """Name and figure of each plot, one after the other."""
    cells = datasets.cytometry_cohort(covariates=True, n_donors=16, n_cells=(150, 400))
    samples = sample_level(cells)
    samples.obs.loc[samples.obs_names[:3], "age"] = np.nan

    yield "sample_map_pca", pl.sample_map(samples, color="condition", style="batch")
    yield "sample_map_umap_number", pl.sample_map(samples, color="age", basis="umap", style="condition")
    yield "sample_map_many", pl.sample_map(samples, color="donor")
    tissues = samples.copy()
    tissues.obs["tissue"] = np.resize(["blood", "lymph node", "blood", "spleen"], tissues.n_obs)
    yield "sample_map_tissues", pl.sample_map(tissues, groupby="tissue", color="condition", style="batch")[0]
    composition = sample_level(datasets.composition_cohort(n_samples=40, n_subtypes=4, n_cells=60), by_type=False)
    composition.obs.loc[composition.obs_names[::9], "subtype"] = np.nan
    yield "sample_map_missing", pl.sample_map(composition, color="subtype")

    epochs = np.arange(60)
    history = {
        f"{metric}_{part}": pd.DataFrame(
            {f"{metric}_{part}": scale * np.exp(-epochs / 15) + shift + 0.02 * rng.random(60)}
        )
        for metric, scale, shift in (("loss", 1.0, 0.4), ("reconstruction", 0.7, 0.2), ("distillation", 0.3, 0.2))
        for part, shift in (("train", shift), ("validation", shift + 0.08))
    }
    yield "training_history", pl.training_history(history)
    yield "training_history_parts", pl.training_history(history, metrics=["loss", "reconstruction", "distillation"])

    yield "reconstruction", pl.reconstruction(made_up_reconstruction(cells, rng), n_cells=150)[0, 0]
    cells.obs["maestro_attention"] = rng.gamma(4, 0.25, cells.n_obs) * (1 + 3 * (cells.obs["cell_type"] == "CD34+"))
    yield "attention", pl.attention(cells, groupby="cell_type")

    markers = samples[:, [name for name in samples.var_names if "Monocyte" in name]].copy()
    markers.var_names = [name.split(" ")[0] for name in markers.var_names]
    yield "clustermap", pl.clustermap(markers, color=["condition", "batch", "age", "study"])

    classes = ["healthy", "lupus", "arthritis", "sepsis", "COVID-19"]
    table = pd.DataFrame(np.eye(5) * 3 + rng.random((5, 5)), pd.Index(classes, name="diagnosis"), classes)
    yield "neighbor_table", pl.neighbor_table(table.div(table.sum(axis=1), axis=0))

    bars = pd.DataFrame(
        [
            {"representation": r, "label": label, "probe": "logistic", "metric": "balanced_accuracy", "mean": level}
            for label, base in (("diagnosis", 0.7), ("sex", 0.55), ("batch", 0.6))
            for r, level in zip(
                ["mean", "fractions", "k-means fractions", "MAESTRO", "MAESTRO (untrained)"],
                base + rng.uniform(-0.05, 0.2, 5),
                strict=True,
            )
        ]
    )
    bars["ci_low"], bars["ci_high"] = bars["mean"] - 0.05, bars["mean"] + 0.05
    yield "benchmark_bars", pl.benchmark_bars(bars)

    differences = bars[bars["label"] == "diagnosis"].iloc[1:].copy()
    for column in ("mean", "ci_low", "ci_high"):
        differences[column] -= bars["mean"].iloc[0]
    yield "forest", pl.forest(differences.rename(columns={"mean": "difference"}).assign(baseline="mean"))

    visits = markers[:20].copy()
    visits.obs["visit"] = pd.Categorical(["before", "after"] * 10, ["before", "after"])
    visits.obs["donor"] = np.repeat(np.arange(10), 2)
    yield "paired", pl.paired(visits, visits.var_names[0], "visit", paired_by="donor")

    n = np.array([20, 40, 60, 100, 150, 200])
    study = pd.DataFrame({"n_samples": n, "power": 1 - np.exp(-n / 50), "is_extrapolated": n > 80})
    study["power_low"], study["power_high"] = study["power"] ** 2, np.sqrt(study["power"])
    yield "power", pl.power(study)

    curve = pd.DataFrame(
        [
            {"representation": r, "n_train": n, "score": top - 2 / n**0.8 + 0.02 * rng.normal()}
            for r, top in (("mean", 0.72), ("k-means fractions", 0.8), ("MAESTRO", 0.85))
            for n in (25, 50, 100)
            for _ in range(5)
        ]
    )
    yield "learning_curve", pl.learning_curve(curve)

    types = cells.obs["cell_type"].cat.categories
    errors = pd.DataFrame(rng.uniform(0.02, 0.06, (len(types), 3)), types, ["k-means", "OTKE", "MAESTRO"])
    yield "radar", pl.radar(errors * [1.4, 1.2, 0.8])

    true = pd.crosstab(cells.obs["sample"], cells.obs["cell_type"], normalize="index")
    yield "proportions", pl.proportions(true, (true + rng.normal(0, 0.015, true.shape)).clip(lower=0))

    checks = pd.DataFrame(
        [
            {"predictor": p, "target": t, "metric": "balanced_accuracy", "score": m, "chance": c}
            for t, c, means in (
                ("diagnosis", 0.5, (0.82, 0.61, 0.55, 0.5, 0.49)),
                ("batch", 0.5, (0.7, 1, 0.5, 0.62, 0.5)),
            )
            for p, m in zip(["representation", "batch", "n_cells", "depth", "random vector"], means, strict=True)
        ]
    )
    checks["ci_low"], checks["ci_high"] = checks["score"] - 0.06, np.minimum(checks["score"] + 0.06, 1)
    yield "confounding", pl.confounding(checks)

    sets = [
        "interferon alpha response",
        "interferon gamma response",
        "inflammatory response",
        "TNF signalling via NF-kB",
    ]
    sets += ["complement", "apoptosis", "IL-6 JAK STAT3 signalling", "hypoxia"]
    p = np.sort(10.0 ** -rng.uniform(0, 9, len(sets)))
    dots = pd.DataFrame({"gene_set": sets, "odds_ratio": 1 - np.log10(p) * rng.uniform(0.5, 1.5, len(sets))})
    dots["p_adjusted"], dots["n_overlap"] = p, rng.integers(2, 40, len(sets))
    yield "enrichment", pl.enrichment(dots)

    shifted = datasets.perturbation_cohort(n_samples=12, n_cells=100)
    vectors = {"mean of each type": sample_level(shifted), "average": sample_level(shifted, by_type=False)}
    yield "subtype_trees", pl.subtype_trees(vectors, color="subtype")[0, 0]
    yield "denoising", pl.denoising(made_up_steps(cells, rng), color="cell_type", basis="pca", reference=cells)[0]
    yield (
        "generated_composition",
        pl.generated_composition(tl.generated_composition(cells, made_up_generation(cells, rng), "cell_type"))[0],
    )
    yield "counterfactual", pl.counterfactual(tl.counterfactual_shifts(made_up_arms(cells, rng), "cell_type"))[0]

    tissues = made_up_tissues(cells, rng)
    niches = profiles.mean(pp.niches(tissues, "sample", n_neighbors=15, n_niches=120), sample_key="niche")
    yield "niches", pl.niches(niches, "MS4A1", sample_key="sample", cells=tissues)[0]

    scores = pd.DataFrame(rng.normal(size=(12, len(types))) + rng.normal(0, 1.5, len(types)), columns=list(types))
    scores.index = [f"sample {i}" for i in range(12)]
    yield "ranked_scores", pl.ranked_scores(scores, title="attribution of each cell type")
    severity = pd.Series(np.repeat(["mild", "severe"], 6), index=scores.index, name="severity")
    shifted_scores = scores.add(0.9 * (severity == "severe") * (scores.std().mean()), axis=0)
    tested = tl.association(
        AnnData(shifted_scores, obs=severity.to_frame()), "severity", test="t", correction="bonferroni"
    )
    yield "grouped_scores", pl.grouped_scores(shifted_scores, severity, association=tested)
    centred = samples.copy()
    centred.X = centred.X - centred.X.mean(axis=0)  # else all means of markers are alike
    yield "similarity", pl.similarity(tl.label_similarity(centred, ["condition", "batch"]))
    genes = [f"gene {i}" for i in range(60)]
    yield "gene_heatmap", pl.gene_heatmap(pd.DataFrame(rng.standard_t(3, (len(types), 60)), list(types), genes))
    mean = rng.lognormal(0, 1, 400)
    masked = pd.DataFrame(
        {"times_masked": rng.poisson(50 * mean), "mean_when_masked": mean}, [f"gene {i}" for i in range(400)]
    )
    yield "masking_frequency", pl.masking_frequency(masked)


def made_up_steps(cells: AnnData, rng: np.random.Generator) -> AnnData:
    """Cells that dissolve into noise, as a stand-in for cells that a model generates."""
    few = cells[rng.choice(cells.n_obs, 400, replace=False)].copy()
    x = np.asarray(few.X)
    blocks, obs = [], []
    for step in (1000, 600, 300, 100, 0):
        kept = np.cos(step / 1000 * np.pi / 2)
        blocks.append(kept * x + np.sqrt(1 - kept**2) * rng.normal(0, x.std(), x.shape))
        obs.append(few.obs[["cell_type"]].assign(**{_keys.step(): float(step)}))
    table = pd.concat(obs).reset_index(drop=True)
    table.index = table.index.astype(str)
    return AnnData(np.concatenate(blocks).astype(np.float32), obs=table, var=few.var)


def made_up_generation(cells: AnnData, rng: np.random.Generator) -> AnnData:
    """Sixty cells of each of twelve samples, drawn with replacement, as a stand-in for generated ones."""
    rows = np.concatenate(
        [rng.choice(np.flatnonzero(cells.obs["sample"] == s), 60) for s in cells.obs["sample"].cat.categories[:12]]
    )
    obs = cells.obs.iloc[rows].reset_index(drop=True)
    obs.index = obs.index.astype(str)
    return AnnData(np.asarray(cells.X)[rows], obs=obs, var=cells.var)


def made_up_tissues(cells: AnnData, rng: np.random.Generator) -> AnnData:
    """Cells of three samples at places that they were given: B cells in a patch, the others anywhere."""
    chosen = cells[cells.obs["sample"].isin(cells.obs["sample"].cat.categories[:3])].copy()
    is_b = (chosen.obs["cell_type"] == "CD19+ B").to_numpy()
    place = rng.uniform(0, 800, (chosen.n_obs, 2))
    place[is_b] = rng.normal([550, 300], 70, (is_b.sum(), 2))
    chosen.obsm["spatial"] = place
    return chosen


def made_up_arms(cells: AnnData, rng: np.random.Generator) -> AnnData:
    """Five draws of eighty cells of three samples, and the same with fewer monocytes and some features of B cells moved."""
    parts = []
    is_b, keeps = (
        (cells.obs["cell_type"] == "CD19+ B").to_numpy(),
        ~cells.obs["cell_type"].str.contains("Monocyte").to_numpy(),
    )
    for draw, arm in [(d, a) for d in range(5) for a in ("own", "asked")]:
        for name in cells.obs["sample"].cat.categories[:3]:
            odds = (cells.obs["sample"] == name) * (1.0 if arm == "own" else 0.4 + 0.6 * keeps)
            rows = rng.choice(cells.n_obs, 80, p=odds / odds.sum())
            x = np.asarray(cells.X)[rows].copy()
            if arm == "asked":
                x[is_b[rows], :4] += rng.normal([0.9, -0.7, 0.5, 0.3], 0.1)
            obs = pd.DataFrame(
                {
                    "sample": name,
                    "arm": arm,
                    "draw": draw,
                    "cell_type": cells.obs["cell_type"].astype(str).to_numpy()[rows],
                }
            )
            parts.append((x, obs))
    obs = pd.concat([o for _, o in parts], ignore_index=True)
    obs.index = obs.index.astype(str)
    return AnnData(np.concatenate([x for x, _ in parts]), obs=obs, var=cells.var)


def made_up_reconstruction(cells: AnnData, rng: np.random.Generator) -> AnnData:
    """Half of the cells of three samples hidden, and "predicted" by other cells of the same types plus noise."""
    chosen = cells[cells.obs["sample"].isin(cells.obs["sample"].cat.categories[:3])]
    is_hidden = rng.random(chosen.n_obs) < np.where(chosen.obs["cell_type"] == "CD19+ B", 1.0, 0.4)
    hidden = chosen.X[is_hidden]
    predicted = hidden[rng.permutation(len(hidden))] + rng.normal(0, 0.25, hidden.shape)
    names = chosen.obs["sample"].to_numpy(dtype=str)
    obs = pd.DataFrame(
        {
            "sample": [*names, *names[is_hidden]],
            "role": [*np.where(is_hidden, "hidden", "input"), *["predicted"] * is_hidden.sum()],
        }
    )
    obs.index = obs.index.astype(str)
    return AnnData(np.concatenate([chosen.X, predicted]).astype(np.float32), obs=obs)


def main(folder: Path) -> None:
    """Write one PNG per plot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, drawn in figures(np.random.default_rng(0)):
        drawn.figure.savefig(folder / f"{name}.png", dpi=100)
        print(folder / f"{name}.png")
        plt.close(drawn.figure)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/make_gallery.py FOLDER")
    main(Path(sys.argv[1]))

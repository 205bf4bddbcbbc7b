"""Samples that lack markers: what an open panel costs, what is left of a vector when markers are missing, and two cohorts with different panels.

Parts, all on the real cohorts of ../shared/data or $SCSET_TOOLS_DATA but the first:

- cost: processor time of a step and of inference with 30 markers, open against fixed.
- dropped: train on samples with all markers, embed held-out samples with some missing: F1 of a probe that was fitted on the training
  samples, and drift (distance to the vector with all markers, in distances between samples), against the fixed panel with the missing markers at the
  mean of the training cells.
- together: CyTOF of BCR-XL and of melanoma (24 and 25 markers, 7 in common) in one model, against each alone.

    python benchmarks/panels.py [--parts cost dropped together] [--models maestro scset] [--seeds 0 1 2] [--write]
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from _quiet import one_quiet_thread
from _results import markdown, write_section
from _timing import hardware_line, interleaved_medians
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_predict, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import scset_tools as sst

DATA = Path(os.environ.get("SCSET_TOOLS_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
MODELS = {"maestro": sst.MAESTRO, "scset": sst.ScSet}
QUIET = {"enable_progress_bar": False, "accelerator": "cpu", "watch_health": False}
STEPS = {"maestro": 30, "scset": 100}
"""Steps of the optimiser: the curve of MAESTRO is flat from 25 to 50 steps on (RESULTS.md, defaults after so many steps)."""
SHARES = (0.1, 0.3, 0.5)
N_DRAWS = 5


def fit(name: str, adata: ad.AnnData, *, panel: str, seed: int, **setup) -> sst.MAESTRO | sst.ScSet:
    MODELS[name].setup_anndata(adata, "sample", panel=panel, **setup)
    model = MODELS[name](adata, random_state=seed)
    n_batches = -(-len(model.sample_names) // 16)
    model.train(max(1, STEPS[name] // n_batches), seed=seed, stop_at_plateau=False, **QUIET)
    return model


def probe():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


# ---- cost


def cost(models: list[str]) -> str:
    rng = np.random.default_rng(0)
    n, m = 1000, 30
    obs = pd.DataFrame({"sample": np.repeat([f"s{i:02d}" for i in range(16)], n)}, index=map(str, range(16 * n)))
    adata = ad.AnnData(
        rng.normal(size=(16 * n, m)).astype(np.float32), obs=obs, var=pd.DataFrame(index=[f"M{i}" for i in range(m)])
    )
    lacking = adata.copy()
    for i in range(16):
        lacking.X[i * n : (i + 1) * n, rng.choice(m, 9, replace=False)] = np.nan
    rows = {}
    for name in models:
        steps, inference = {}, {}
        for label, data, panel in (
            ("fixed", adata, "fixed"),
            ("open", adata, "open"),
            ("open, 30 % missing", lacking, "open"),
        ):
            data = data.copy()
            MODELS[name].setup_anndata(data, "sample", panel=panel)
            model = MODELS[name](data, random_state=0)
            model.train(1, seed=0, **QUIET)  # fits the kinds of cells
            module, batch = model.module, model._dataset(data, 1000 if name == "maestro" else 144)[0, list(range(16))]
            optimiser = torch.optim.Adam(module.parameters())

            def step(module=module, batch=batch, optimiser=optimiser):
                module.train()
                optimiser.zero_grad()
                module.loss(batch).loss.backward()
                optimiser.step()

            steps[label] = step
            inference[label] = lambda model=model: model.get_sample_representation()
        a = interleaved_medians(steps, repeats=5, clock=time.process_time)
        b = interleaved_medians(inference, repeats=3, clock=time.process_time)
        for label in a:
            rows[f"{name}, {label}"] = {
                "step": a[label] / a["fixed"],
                "inference": b[label] / b["fixed"],
                "step, s": a[label],
            }
    return markdown(pd.DataFrame(rows).T, "time against the fixed panel")


# ---- dropped


def dropped(models: list[str], seeds: list[int]) -> str:
    rows = []
    for seed in seeds:
        adata = ad.read_h5ad(DATA / "hiv_flow_flowtype.h5ad")
        adata.X = np.asarray(adata.X, dtype=np.float32)
        adata.obs["sample"] = adata.obs["sample"].astype(str)
        label = adata.obs.drop_duplicates("sample").set_index("sample")["HIV"].astype(str)
        train, test = train_test_split(label.index.to_numpy(), test_size=0.4, stratify=label, random_state=seed)
        training = adata[adata.obs["sample"].isin(train)].copy()
        held_out = adata[adata.obs["sample"].isin(test)].copy()
        mean = training.X.mean(axis=0)
        rng = np.random.default_rng(seed)
        draws = {
            s: [rng.choice(adata.n_vars, max(1, round(s * adata.n_vars)), replace=False) for _ in range(N_DRAWS)]
            for s in SHARES
        }
        made = {}
        for name in models:
            for panel in ("open", "fixed"):
                model = fit(name, training, panel=panel, seed=seed)
                made[f"{name}, {'open' if panel == 'open' else 'fixed, mean imputed'}"] = (
                    panel,
                    model.get_sample_representation,
                )
        profile = sst.profiles.Mean(sample_key="sample").fit(training)

        def mean_of(data=None, profile=profile, training=training):
            samples = profile.transform(training if data is None else data)
            return pd.DataFrame(samples.X, index=samples.obs_names)

        made["mean, mean imputed"] = "fixed", mean_of
        for name, (panel, embed) in made.items():
            z = embed()
            read = probe().fit(z.to_numpy(), label[z.index])
            whole = embed(held_out)
            apart = np.linalg.norm(whole.to_numpy()[:, None] - whole.to_numpy()[None], axis=2)
            unit = apart[np.triu_indices(len(apart), 1)].mean()
            truth = label[whole.index]
            rows.append(
                {
                    "representation": name,
                    "missing": 0.0,
                    "f1": f1_score(truth, read.predict(whole.to_numpy()), average="weighted"),
                    "drift": 0.0,
                }
            )
            for share, columns in draws.items():
                for gone in columns:
                    part = held_out.copy()
                    part.X[:, gone] = np.nan if panel == "open" else mean[gone]
                    found = embed(part).loc[whole.index]
                    drift = np.linalg.norm(found.to_numpy() - whole.to_numpy(), axis=1).mean() / unit
                    f1 = f1_score(truth, read.predict(found.to_numpy()), average="weighted")
                    rows.append({"representation": name, "missing": share, "f1": f1, "drift": drift, "seed": seed})
    table = pd.DataFrame(rows)
    mean = table.groupby(["representation", "missing"])[["f1", "drift"]].mean().unstack()
    out = pd.DataFrame(
        {
            f"{share:.0%}": [
                f"{mean.loc[r, ('f1', share)]:.2f} / {mean.loc[r, ('drift', share)]:.2f}" for r in mean.index
            ]
            for share in (0.0, *SHARES)
        },
        index=mean.index,
    )
    return markdown(out, "F1 / drift, markers missing")


# ---- together


def together(models: list[str], seeds: list[int]) -> str:
    cohorts = {
        "bcrxl": ("bcrxl_cytof_bodenmiller_full", "condition"),
        "krieg": ("krieg_melanoma_cytof_imubac", "cancer"),
    }
    data = {}
    for name, (file, label) in cohorts.items():
        adata = ad.read_h5ad(DATA / f"{file}.h5ad")
        adata.X = np.asarray(adata.X, dtype=np.float32)
        adata.obs["label"] = adata.obs[label].astype(str)
        adata.obs["group"] = adata.obs["patient" if name == "bcrxl" else "sample"].astype(str)
        adata.obs = adata.obs[["sample", "label", "group"]].astype(str)
        data[name] = adata
    both = sst.pp.concat_panels(data, sample_key="sample")
    sst.pp.standardize_markers(both, "cohort")
    of = both.obs.drop_duplicates("sample").set_index("sample")
    of.index = of.index.astype(str)
    rows = []
    for seed in seeds:
        for model in models:
            joint = {
                f"{model}, together, cohorts standardised": fit(
                    model, both, panel="open", seed=seed, layer="standardized"
                ),
                f"{model}, together, as measured": fit(model, both, panel="open", seed=seed),
            }
            z = {name: fitted.get_sample_representation() for name, fitted in joint.items()}
            alone = []
            for name in data:
                own = both[(both.obs["cohort"] == name).to_numpy()].copy()
                own = own[:, ~np.isnan(own.X).any(axis=0)].copy()
                alone.append(
                    fit(model, own, panel="fixed", seed=seed, layer="standardized").get_sample_representation()
                )
            z[f"{model}, each alone (fixed)"] = pd.concat(alone)
            for name, vectors in z.items():
                x = vectors.to_numpy()
                row = {"representation": name, "seed": seed}
                for cohort in data:
                    mine = (of.loc[vectors.index, "cohort"] == cohort).to_numpy()
                    y, g = of.loc[vectors.index[mine], "label"], of.loc[vectors.index[mine], "group"]
                    split = GroupKFold(5) if cohort == "bcrxl" else StratifiedKFold(5, shuffle=True, random_state=seed)
                    guess = cross_val_predict(probe(), x[mine], y, cv=split, groups=g)
                    row[f"{cohort}: F1"] = f1_score(y, guess, average="weighted")
                if "together" in name:
                    y = of.loc[vectors.index, "cohort"].astype(str)
                    guess = cross_val_predict(probe(), x, y, cv=StratifiedKFold(5, shuffle=True, random_state=seed))
                    row["cohort from the vector"] = balanced_accuracy_score(y, guess)
                rows.append(row)
    table = (
        pd.DataFrame(rows)
        .groupby("representation", sort=False)
        .agg(lambda v: f"{v.mean():.2f} ({v.min():.2f} to {v.max():.2f})")
    )
    return markdown(table.drop(columns="seed"), "mean over seeds (least to most)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["cost", "dropped", "together"])
    parser.add_argument("--models", nargs="+", default=["maestro", "scset"], choices=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--write", action="store_true", help="into RESULTS.md")
    options = parser.parse_args()
    one_quiet_thread()
    titles = {
        "cost": "Open panels: what they cost at 30 markers",
        "dropped": "Open panels: held-out samples that lack markers (hiv)",
        "together": "Open panels: two cohorts with 7 markers in common, trained together",
    }
    for part in options.parts:
        start = time.process_time()
        arguments = (options.models,) if part == "cost" else (options.models, options.seeds)
        text = {"cost": cost, "dropped": dropped, "together": together}[part](*arguments)
        print(f"{titles[part]} ({time.process_time() - start:.0f} s of processor)\n\n{text}\n", flush=True)
        if options.write:
            about = f"{hardware_line()}; {STEPS} steps" + ("" if part == "cost" else f", seeds {options.seeds}")
            write_section(f"panels-{part}", titles[part], f"{about}.\n\n{text}")


if __name__ == "__main__":
    main()

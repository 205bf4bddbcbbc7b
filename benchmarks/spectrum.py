"""Do vectors that vary along more directions hold as much? The spectrum of MAESTRO's vectors flattened, a probe and known effects beside it.

    python benchmarks/spectrum.py [--cohorts varied cytometry hiv melanoma krieg ipf] [--seeds 0 1 2]
    python benchmarks/spectrum.py --write                                        # from the file to RESULTS.md

No step of the optimiser is taken: vectors are the encoder of random weights at unit variance plus 0.66 times the tokens, which are fitted as
training does. Singular values of the tokens, or of the whole vectors, are raised to a power: 1 leaves them, 0 whitens.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scvi
import torch
from _results import markdown, write_section
from _timing import hardware_line
from defaults import NAMES, read, scores
from maestro_cohorts import Embedded
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import scset_tools as sst
from scset_tools.data._dataset import SampleDataset
from scset_tools.model._tokens import CELLS_OF_TOKENS, fit_tokens

TOKEN_WEIGHT, N_LATENT = 0.44**0.5, 128
ROTATION = np.linalg.qr(np.random.default_rng(0).standard_normal((N_LATENT, N_LATENT)))[0]
WAYS = {
    "random encoder alone": (None, 1.0, 1.0),
    "encoder and tokens (default)": (1.0, 1.0, 1.0),
    "tokens to the power 0.75": (0.75, 1.0, 1.0),
    "tokens to the power 0.5": (0.5, 1.0, 1.0),
    "tokens with twice the weight": (1.0, 1.0, 2.0),
    "whole vector to the power 0.5": (1.0, 0.5, 1.0),
}
"""Power of the tokens' singular values (None: no tokens), of the whole vectors', and a factor of the tokens' weight."""


def parts(model: Any, cells: ad.AnnData) -> tuple[pd.DataFrame, np.ndarray]:
    """What the encoder pools, and shares and shifts of the kinds as the tokens weigh them, of each sample."""
    model.module.eval()
    tokens = model.module.tokens
    with model._reading(cells) as read_cells:
        dataset = model._dataset(read_cells)
    encoded, features = [], []
    with torch.no_grad():
        for i in range(len(dataset.index)):
            batch = dataset[0, [i]]
            x = model.module.standardize(batch).float()
            encoded.append(model.module.encoder(x, batch.ptr))
            features.append(tokens.features(tokens.sums(x, batch.ptr).double(), batch.ptr.diff()))
    return pd.DataFrame(torch.cat(encoded).numpy(), index=dataset.index.names), torch.cat(features).numpy()


def flattened(x: np.ndarray, power: float) -> Callable[[np.ndarray], np.ndarray]:
    """A map that raises the singular values of ``x`` to a power, to vectors of unit variance on average."""
    location = x.mean(axis=0)
    _, value, axes = np.linalg.svd(x - location, full_matrices=False)
    is_kept = value > 1e-6 * value[0]
    value, axes = value[is_kept][:N_LATENT], axes[is_kept][:N_LATENT]
    gain = (value / value[0]) ** (power - 1)
    gain = gain * np.sqrt(N_LATENT * len(x) / np.square(value * gain).sum())
    return lambda other: ((other - location) @ axes.T * gain) @ ROTATION[:, : len(value)].T


def vectors(way: str, training: tuple[pd.DataFrame, np.ndarray], others: list[tuple[pd.DataFrame, np.ndarray]]):
    """Vectors of other samples, by maps found from the training samples."""
    of_tokens, of_all, factor = WAYS[way]
    encoded, features = training
    size = np.sqrt(encoded.to_numpy().var(axis=0).mean())
    n_kinds = 8
    root = np.sqrt(features[:, :n_kinds].mean(axis=0))
    weight = np.concatenate(
        [1 / np.maximum(root, 0.05), np.repeat(root, (features.shape[1] - n_kinds) // n_kinds)]
    )  # as TokenPool.calibrate
    token_map = flattened(features * weight, of_tokens or 1.0)

    def joined(part: tuple[pd.DataFrame, np.ndarray]) -> np.ndarray:
        out = (part[0].to_numpy() - encoded.to_numpy().mean(axis=0)) / size
        return out if of_tokens is None else out + factor * TOKEN_WEIGHT * token_map(part[1] * weight)

    to_all = flattened(joined(training), of_all) if of_all != 1 else np.asarray
    return [pd.DataFrame(to_all(joined(part)), index=part[0].index) for part in others]


def fitted(cells: ad.AnnData, seed: int, batch_key: str | None = None) -> sst.MAESTRO:
    """An untrained model whose tokens are fitted."""
    sst.MAESTRO.setup_anndata(cells, "sample", batch_key=batch_key)
    model = sst.MAESTRO(cells, random_state=seed)
    dataset = SampleDataset(model.adata_manager, n_cells=CELLS_OF_TOKENS, seed=seed)
    fit_tokens(model.module.tokens, dataset, np.arange(len(dataset.index)), read=model.module.standardize)
    return model


def run(name: str, seed: int) -> pd.DataFrame:
    """All ways for one cohort and seed."""
    if name == "varied":
        return _varied(seed)
    cells, cohort = read(name, seed)
    own = parts(fitted(cells, seed, cohort.batch_key), cells)
    made, ranks = {}, {}
    for way in WAYS:
        x = vectors(way, own, [own])[0]
        samples = ad.AnnData(x.to_numpy(dtype=np.float32), obs=pd.DataFrame(index=x.index.astype(str)))
        made[way], ranks[way] = Embedded(samples), sst.tl.representation_health(samples).effective_rank
    rows = scores(cells, cohort, made, seed).groupby("representation", sort=False)[["f1_weighted", "auroc"]].mean()
    return rows.assign(effective_rank=pd.Series(ranks)).reset_index()


def _varied(seed: int) -> pd.DataFrame:
    cohort = {"n_cells": 200, "n_features": 6, "n_features_shifted": 3}
    both = [
        sst.datasets.varied_cohort(n_samples=256, pool=(0, 2), rng=seed, **cohort),
        sst.datasets.varied_cohort(n_samples=128, pool=(1, 2), rng=seed + 1000, **cohort),
    ]
    model = fitted(both[0], seed)
    found, rows = [parts(model, cells) for cells in both], []
    for way in WAYS:
        row = {"representation": way}
        x = [z.loc[list(c.uns["truth"]["samples"])] for z, c in zip(vectors(way, found[0], found), both, strict=True)]
        for what, key in (("proportions", "proportions"), ("shifts", "effect")):
            truth = [np.reshape(c.uns["truth"][key], (len(z), -1)) for z, c in zip(x, both, strict=True)]
            ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 4, 15))).fit(x[0], truth[0])
            row[what] = r2_score(truth[1], ridge.predict(x[1]))
        row["effective_rank"] = sst.tl.representation_health(ad.AnnData(x[1].to_numpy())).effective_rank
        rows.append(row)
    return pd.DataFrame(rows)


def text(rows: pd.DataFrame) -> str:
    """One table: a row for each way, a column for each cohort and figure."""
    varied = (
        rows[rows["cohort"] == "varied"].groupby("representation")[["proportions", "shifts", "effective_rank"]].mean()
    )
    real = rows[rows["cohort"] != "varied"].groupby(["representation", "cohort"])[["f1_weighted", "auroc"]].mean()
    out = real["f1_weighted"].unstack().add_prefix("F1 ")
    out["F1, mean"], out["AUROC, mean"] = out.mean(axis=1), real["auroc"].unstack().mean(axis=1)
    out = out.join(varied.set_axis(["R2 proportions", "R2 shifts", "effective rank"], axis=1)).loc[list(WAYS)]
    seeds = rows.groupby("cohort")["seed"].nunique()
    said = ", ".join(f"{name} {n}" for name, n in seeds.items())
    return f"Weighted F1 and AUROC of the probe of `defaults.py`; R2 and rank on `varied_cohort`, held-out samples. Seeds: {said}.\n\n{markdown(out)}"


def main() -> None:
    """Run, or write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", nargs="+", choices=["varied", *NAMES], default=["varied", *NAMES])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--csv", type=Path, default=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--write", action="store_true", help="write the section of RESULTS.md from the file")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    scvi.settings.verbosity = logging.ERROR
    torch.set_num_threads(1)
    if args.write:
        write_section(
            "spectrum", "Vectors along more directions", f"{hardware_line()}\n\n{text(pd.read_csv(args.csv))}"
        )
        return
    for seed in args.seeds:
        for name in args.cohorts:
            rows = run(name, seed).assign(cohort=name, seed=seed)
            known = [pd.read_csv(args.csv)] if args.csv.exists() else []
            pd.concat([*known, rows]).to_csv(args.csv, index=False, float_format="%.5g")
            print(rows.round(3).to_string(), flush=True)


if __name__ == "__main__":
    main()

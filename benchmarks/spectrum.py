"""Do vectors that vary along more directions hold as much, and what do batches add to them? A probe of MAESTRO's vectors, by their parts.

    python benchmarks/spectrum.py [--cohorts cytometry hiv melanoma krieg ipf bcrxl] [--seeds 0 1 2 3 4] [--keep DIR]
    python benchmarks/spectrum.py --write                                        # from the file to RESULTS.md

No step of the optimiser is taken: what the encoder of random weights pools, at unit variance, plus 0.7 times the tokens, which are fitted as
training does; 1,000 cells of a sample at most. ``whitening=0.5`` is that of the models, over all samples: with directions weighed by their
reliability over draws of cells, and without; and where a cohort has a ``batch_key``, batch effects are taken out as they do. With ``--keep`` vectors are written to a folder, and read from there if they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _quiet import one_quiet_thread
from _results import markdown, write_section
from _timing import hardware_line
from defaults import NAMES, Cohort, keep, read
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

import scset_tools as sst
from scset_tools.data._dataset import SampleDataset
from scset_tools.model._tokens import CELLS_OF_TOKENS, fit_tokens
from scset_tools.model._whitening import PartialWhitening, batch_effects, noise_of_draws

TOKEN_WEIGHT = 0.7
FOLD_SEEDS = range(5)
WAYS = (
    "random encoder alone",
    "tokens alone",
    "encoder and tokens",
    "the same, whitening=0.5",
    "the same, whitened whatever the noise",
    "encoder and tokens, batch effects out",
    "the same, whitening=0.5 (default with batch_key)",
)


def parts(name: str, seed: int, folder: Path | None) -> tuple[pd.DataFrame, Cohort, dict[str, np.ndarray]]:
    """Columns of the samples, keys of the cohort, and what encoder and tokens give, (samples, n_latent) each, with the noise of both."""
    cells, cohort = read(name, seed)
    keys = [key for key in (cohort.label_key, cohort.groups_key, cohort.batch_key) if key]
    obs = cells.obs.assign(sample=cells.obs["sample"].astype(str)).drop_duplicates("sample").set_index("sample")[keys]
    path = None if folder is None else folder / f"{name}_maestro_fit_{seed}.npz"
    if path is not None and path.exists():
        found = dict(np.load(path))
        return obs.loc[found["names"]].astype(str), cohort, found
    sst.MAESTRO.setup_anndata(cells, "sample", batch_key=cohort.batch_key)
    model = sst.MAESTRO(cells, random_state=seed)
    module = model.module.eval()
    dataset = SampleDataset(model.adata_manager, n_cells=CELLS_OF_TOKENS, seed=seed)
    fit_tokens(module.tokens, dataset, np.arange(len(dataset.index)), read=module.standardize)
    sizes = dataset.index.sizes
    n_drawn = int(min(CELLS_OF_TOKENS, np.quantile(sizes, 0.1)) // 2)
    a, t = pooled(module, dataset, range(len(sizes)))
    scale = np.sqrt(a.var(0).mean())
    large = np.flatnonzero(sizes >= 2 * n_drawn)
    draws = (SampleDataset(model.adata_manager, n_cells=n_drawn, seed=seed + i) for i in (1, 2))
    first, second = (e / scale + TOKEN_WEIGHT * of for e, of in (pooled(module, d, large) for d in draws))
    noise = noise_of_draws(first, second, sizes[large], n_drawn=n_drawn, n_used=CELLS_OF_TOKENS)
    found = {"encoder": (a - a.mean(0)) / scale, "tokens": TOKEN_WEIGHT * t, "noise": noise}
    found["names"] = np.asarray(dataset.index.names, dtype=str)
    keep(folder, f"{name}_maestro_fit_{seed}", found)
    return obs.loc[found["names"]].astype(str), cohort, found


@torch.no_grad()
def pooled(module: torch.nn.Module, dataset: SampleDataset, samples: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
    """What the encoder and the tokens pool of samples, (samples, n_latent) each."""
    encoded, tokens = [], []
    for i in samples:
        batch = dataset[0, [int(i)]]
        x = module.standardize(batch).float()
        encoded.append(module.encoder(x, batch.ptr))
        tokens.append(module.tokens(x, batch.ptr))
    encoded, tokens = (torch.cat(part).numpy().astype(float) for part in (encoded, tokens))
    return encoded, tokens


def whitened(z: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
    """As models do."""
    whitening = PartialWhitening(z.shape[1], 0.5).double()
    whitening.fit(z, noise=noise)
    return whitening(torch.from_numpy(z)).numpy()


def ways(found: dict[str, np.ndarray], batch: np.ndarray | None) -> dict[str, np.ndarray]:
    """Vectors by what was done to them."""
    a, t, noise = found["encoder"], found["tokens"], found["noise"]
    made = [a, t, a + t, whitened(a + t, noise), whitened(a + t)]
    if batch is not None:
        z = a + t - batch_effects(a + t, batch, n_batches=batch.max() + 1)[batch]
        made += [z, whitened(z, noise)]
    return dict(zip(WAYS, made, strict=False))


def probe(z: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> tuple[float, float]:
    """Weighted F1 and AUROC of a logistic regression (C = 1) on standardised vectors, mean of folds."""
    f1, auroc = [], []
    for seed in FOLD_SEEDS:
        splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
        for train, test in splitter(5, shuffle=True, random_state=seed).split(z, y, groups):
            if len(set(y[train])) < 2:
                continue
            spread = z[train].std(0)
            x = (z - z[train].mean(0)) / np.where(spread > 1e-12, spread, 1)
            x = x @ np.linalg.svd(x[train], full_matrices=False)[2].T  # the same regression, in fewer numbers
            model = LogisticRegression(solver="newton-cholesky").fit(x[train], y[train])
            p = model.predict_proba(x[test])
            f1.append(f1_score(y[test], model.classes_[p.argmax(1)], average="weighted"))
            if len(set(y[test])) == len(model.classes_):
                of = p[:, 1] if p.shape[1] == 2 else p
                auroc.append(roc_auc_score(y[test], of, multi_class="ovr", labels=model.classes_))
    return float(np.mean(f1)), float(np.mean(auroc)) if auroc else np.nan


def share_between(z: np.ndarray, of: np.ndarray) -> float:
    """Share of the variance of vectors that is between classes of samples."""
    z = z - z.mean(0)
    between = sum((of == k).sum() * np.square(z[of == k].mean(0)).sum() for k in set(of))
    return float(between / np.square(z).sum())


def run(name: str, seed: int, folder: Path | None) -> pd.DataFrame:
    """All ways for one cohort and seed."""
    obs, cohort, found = parts(name, seed, folder)
    y = obs[cohort.label_key].to_numpy()
    groups = None if cohort.groups_key is None else obs[cohort.groups_key].to_numpy()
    batch = None if cohort.batch_key is None else pd.factorize(obs[cohort.batch_key])[0]
    rows = []
    for way, z in ways(found, batch).items():
        f1, auroc = probe(z, y, groups)
        variance = np.linalg.eigvalsh(np.cov(z.T))
        row = {"representation": way, "f1_weighted": f1, "auroc": auroc, "of_label": share_between(z, y)}
        row["effective_rank"] = variance.sum() ** 2 / np.square(variance).sum()
        row["of_batch"] = np.nan if batch is None else share_between(z, batch)
        rows.append(row)
    return pd.DataFrame(rows).assign(cohort=name, seed=seed)


def text(rows: pd.DataFrame) -> str:
    """A table of scores, and one of batches."""
    mean = rows.groupby(["representation", "cohort"])[
        ["f1_weighted", "auroc", "effective_rank", "of_label", "of_batch"]
    ].mean()
    f1, auroc = (mean[name].unstack() for name in ("f1_weighted", "auroc"))
    out = f1.add_prefix("F1 ")
    out["F1, mean"], out["AUROC, mean"] = f1.mean(axis=1), auroc.mean(axis=1)
    out["effective rank, mean"] = mean["effective_rank"].unstack().mean(axis=1)
    few = out["F1 hiv"].isna()  # cohorts with batches alone
    out.loc[few, ["F1, mean", "AUROC, mean", "effective rank, mean"]] = np.nan
    base = rows.pivot_table(index=["cohort", "seed"], columns="representation", values="f1_weighted")
    gain = (base["the same, whitening=0.5"] - base["encoder and tokens"]).groupby("cohort")
    said = ", ".join(
        f"{k} {m:+.3f} (sd of seeds {s:.3f})"
        for k, m, s in zip(gain.mean().index, gain.mean(), gain.std(), strict=True)
    )
    of_batch = mean.dropna(subset="of_batch").reset_index()
    of_batch["representation"] = of_batch["cohort"] + ", " + of_batch["representation"]
    of_batch = of_batch.set_index("representation")[["f1_weighted", "auroc", "of_label", "of_batch", "effective_rank"]]
    of_batch.columns = ["weighted F1", "AUROC", "share of variance between labels", "between batches", "effective rank"]
    seeds = rows.groupby("cohort")["seed"].nunique().min()
    order = [way for way in WAYS if way in out.index]
    return (
        f"Logistic regression (C = 1), {len(FOLD_SEEDS)} times five folds of each of {seeds} seeds. Weighted F1 with whitening less that without: "
        f"{said}.\n\n{markdown(out.loc[order])}\n\nCohorts with batches:\n\n{markdown(of_batch)}"
    )


def main() -> None:
    """Run, or write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--csv", type=Path, default=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--keep", type=Path, help="folder for the vectors")
    parser.add_argument("--write", action="store_true", help="write the section of RESULTS.md from the file")
    args = parser.parse_args()
    one_quiet_thread()
    if args.write:
        rows = pd.read_csv(args.csv)
        write_section("spectrum", "Vectors along more directions", f"{hardware_line()}\n\n{text(rows)}")
        return
    for seed in args.seeds:
        for name in args.cohorts:
            known = [pd.read_csv(args.csv)] if args.csv.exists() else []
            rows = run(name, seed, args.keep)
            pd.concat([*known, rows]).to_csv(args.csv, index=False, float_format="%.5g")
            print(rows.round(3).to_string(), flush=True)


if __name__ == "__main__":
    main()

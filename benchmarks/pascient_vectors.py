"""What PaSCient's vectors hold over the steps of training: its own predictions beside a probe of its vectors, on held-out samples.

    python benchmarks/pascient_vectors.py [--cohorts cytometry melanoma hiv krieg ipf] [--seeds 0 1 2]
    python benchmarks/pascient_vectors.py --write                            # from the file to RESULTS.md

Features as they are against features about their mean over one scale (``PaSCient(standardize=)``). The network, its loss and its optimiser by
the defaults, without what the trainer adds: no plateau ends it, a step reads 48 cells of a sample instead of 1,500, vectors are those of 300
cells, and of five folds three are run. So one training gives all steps, in a tenth of the time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from _quiet import one_quiet_thread
from _results import markdown, write_section
from _timing import hardware_line
from defaults import NAMES, read
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import scset_tools as sst
from scset_tools.model.pascient._module import PaSCientModule
from scset_tools.model.supervise._targets import Target
from scset_tools.nn import ptr_from_sizes

STEPS = (0, 100, 400)
N_CELLS, N_SEEN, N_POOLED = 48, 300, 1_500
N_FOLDS = 3
NUMBERS = ["own_f1", "probe_f1", "own_auroc", "probe_auroc", "effective_rank", "loss"]


def module_of(cells: list[torch.Tensor], train: np.ndarray, classes: tuple[str, ...], *, standardize: bool, seed: int):
    """PaSCient's network at its default sizes."""
    pool = torch.cat([cells[i] for i in train])
    location = scale = None
    if standardize:
        location = pool.mean(0)
        scale = torch.full_like(location, float((pool - location).square().mean().sqrt()))
    torch.manual_seed(seed)
    sizes = {"n_hidden": 128, "n_latent": 64, "n_encoder_layers": 0, "n_heads": 4, "n_layers": 1, "n_inducing": 32}
    augmentation = {"log_normalize": False, "depth": None, "gene_mask_rate": 0.0}
    contrast = {"contrastive_weight": 0.0, "contrastive_temperature": 0.1, "n_contrastive_cells": 1024}
    return PaSCientModule(
        len(pool[0]),
        [Target("label", "class", "labels", classes)],
        **{**sizes, **augmentation, **contrast},
        aggregator="attention",
        dropout_rate=0.0,
        init_scale=0.1,
        location=location,
        scale=scale,
    )


def logits_of(module: PaSCientModule, cells: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors and logits of samples."""
    z = module.encode_pooled(module.encode_cells(torch.cat(cells)), ptr_from_sizes([len(x) for x in cells]))
    return z, module.heads[0](z)


def over_steps(module: PaSCientModule, cells: list[torch.Tensor], code: torch.Tensor, train: np.ndarray, *, seed: int):
    """Step, loss, vectors and probabilities of all samples, at each of ``STEPS``."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=1e-4)
    generator, step, loss = torch.Generator().manual_seed(seed), 0, torch.tensor(torch.nan)
    while True:
        for batch in torch.randperm(len(train), generator=generator).split(16):
            if step in STEPS:
                with torch.no_grad():
                    z, logits = logits_of(module, [x[:N_SEEN] for x in cells])
                yield step, float(loss), z.numpy(), _probabilities(logits).numpy()
            if step == max(STEPS):
                return
            rows = train[batch.numpy()]
            drawn = [cells[i][torch.randperm(len(cells[i]), generator=generator)[:N_CELLS]] for i in rows]
            p = _probabilities(logits_of(module, drawn)[1])
            loss = -p[torch.arange(len(rows)), code[rows]].clamp_min(1e-12).log().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1


def _probabilities(logits: torch.Tensor) -> torch.Tensor:
    if logits.shape[1] == 1:  # two classes: one number
        second = logits.sigmoid()
        return torch.cat([1 - second, second], 1)
    return logits.softmax(1)


def score(y: np.ndarray, p: np.ndarray, classes: np.ndarray, prefix: str) -> dict[str, float]:
    """Weighted F1 and AUROC of probabilities."""
    out = {f"{prefix}_f1": f1_score(y, classes[p.argmax(1)], average="weighted")}
    if len(set(y)) == len(classes):
        of = p[:, 1] if len(classes) == 2 else p
        out[f"{prefix}_auroc"] = roc_auc_score(y, of, multi_class="ovr", labels=classes)
    return out


def run(name: str, seed: int) -> pd.DataFrame:
    """All folds, steps and both ways of one cohort and seed."""
    adata, cohort = read(name, seed)
    sample = adata.obs["sample"].astype(str).to_numpy()
    names = np.unique(sample)
    obs = adata.obs.assign(sample=sample).drop_duplicates("sample").set_index("sample").loc[names]
    y = obs[cohort.label_key].astype(str).to_numpy()
    groups = None if cohort.groups_key is None else obs[cohort.groups_key].astype(str).to_numpy()
    rng = np.random.default_rng(0)
    cells = []
    for one in names:
        x = adata.X[rng.permutation(np.flatnonzero(sample == one))[:N_POOLED]]
        cells.append(torch.from_numpy(np.asarray(x, dtype=np.float32)))
    classes = np.unique(y)
    code = torch.from_numpy(np.searchsorted(classes, y))
    splitter = (StratifiedKFold if groups is None else StratifiedGroupKFold)(5, shuffle=True, random_state=seed)
    rows = []
    for fold, (train, test) in enumerate(list(splitter.split(y, y, groups))[:N_FOLDS]):
        for standardize in (False, True):
            module = module_of(cells, train, tuple(classes), standardize=standardize, seed=seed)
            for step, loss, z, p in over_steps(module, cells, code, train, seed=seed):
                probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(z[train], y[train])
                rank = sst.tl.representation_health(ad.AnnData(z))
                rows.append(
                    {
                        **{"cohort": name, "seed": seed, "fold": fold, "standardize": standardize, "step": step},
                        **score(y[test], probe.predict_proba(z[test]), classes, "probe"),
                        **score(y[test], p[test], classes, "own"),
                        **{"loss": loss, "effective_rank": rank.effective_rank},
                    }
                )
    return pd.DataFrame(rows)


def text(rows: pd.DataFrame) -> str:
    """The table of all runs."""
    rows = rows.drop_duplicates(["cohort", "seed", "fold", "standardize", "step"], keep="last")
    keys = ["cohort", "standardize", "step"]
    out = rows.groupby(keys)[NUMBERS].mean().round(3).reset_index()
    n = rows.groupby("cohort")["seed"].nunique()
    out["cohort"] = [f"{name} ({n[name]} seed{'s' if n[name] > 1 else ''})" for name in out["cohort"]]
    out["standardize"] = np.where(out["standardize"], "yes", "no")
    mean = rows[rows["step"] == max(STEPS)].groupby("standardize")[NUMBERS].mean()
    said = "; ".join(
        f"{'standardised' if how else 'as they are'}: own F1 {m['own_f1']:.3f}, probe {m['probe_f1']:.3f}, own AUROC {m['own_auroc']:.3f}"
        for how, m in mean.iterrows()
    )
    return (
        "The network by its defaults, own predictions of held-out samples (own) and a logistic regression on its vectors (probe), after so many steps; "
        f"{N_CELLS} cells of a sample in a step, three of five folds. Mean of all runs after {max(STEPS)} steps: {said}.\n\n{markdown(out.set_index('cohort'))}"
    )


def main() -> None:
    """Run, or write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", nargs="+", choices=NAMES, default=["cytometry", "melanoma", "hiv", "krieg", "ipf"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--csv", type=Path, default=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--write", action="store_true", help="write the section of RESULTS.md from the file")
    args = parser.parse_args()
    one_quiet_thread()
    if args.write:
        title = "PaSCient: predictions and vectors over steps"
        write_section("pascient-vectors", title, f"{hardware_line()}\n\n{text(pd.read_csv(args.csv))}")
        return
    for seed in args.seeds:
        for name in args.cohorts:
            rows = run(name, seed)
            known = [pd.read_csv(args.csv)] if args.csv.exists() else []
            pd.concat([*known, rows]).to_csv(args.csv, index=False, float_format="%.5g")
            print(
                rows.groupby(["cohort", "seed", "standardize", "step"])[NUMBERS].mean().round(3).to_string(), flush=True
            )


if __name__ == "__main__":
    main()

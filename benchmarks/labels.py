"""Models that learn labels inside the folds of one ``tl.benchmark`` call: frozen, with an MLP, end to end, and with few labels.

    python benchmarks/labels.py --part scset      # Table 1 of the ScSet paper in small, melanoma and hiv
    python benchmarks/labels.py --part maestro    # MAESTRO end to end against frozen, hiv and melanoma
    python benchmarks/labels.py --part survival   # survival of triple-negative breast cancer
    ... [--cohorts hiv melanoma] [--folds 3] [--repeats 1] [--epochs 1.0] [--untrained] [--write]

Pretraining sees all samples, without labels; labels are learned from the training samples of each fold.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import anndata as ad
import pandas as pd
from _quiet import one_quiet_thread
from _results import markdown, write_section
from _timing import hardware_line

import scset_tools as sst

DATA = Path(os.environ.get("SCSET_TOOLS_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
COHORTS = {
    "melanoma": ("melanoma_ici_daseq_pca", "response", "patient"),
    "hiv": ("hiv_flow_flowtype", "HIV", None),
    "tnbc": ("tnbc_mibi_keren_scfeatures", "survival_days", None),
}
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
MODELS = {
    "ScSet": (sst.ScSet, {"n_latent": 32, "n_hidden": 64, "n_cells": 128}, 60),
    "MAESTRO": (sst.MAESTRO, {"n_hidden": 32, "n_latent": 32, "n_inducing": 16, "n_cells": 128}, 30),
}
"""Class, arguments of the constructor, and epochs of training."""
WAYS = {
    "frozen": {"penalty": 1.0},
    "MLP": {"head": "mlp", "max_epochs": 50},
    "end to end": {"mode": "end_to_end", "max_epochs": 24, "lr": 5e-4, "penalty": 1.0},
}
PARTS = {
    "scset": ("ScSet", ("melanoma", "hiv"), ("frozen", "MLP", "end to end"), (12, 24, None), "f1_weighted"),
    "maestro": ("MAESTRO", ("hiv", "melanoma"), ("frozen", "end to end"), (None,), "f1_weighted"),
    "survival": ("MAESTRO", ("tnbc",), ("frozen", "end to end"), (None,), "concordance"),
}
"""Model, cohorts, ways, numbers of labels (None: all of the training samples), and metric."""
TITLES = {
    "scset": "ScSet: Table 1 of the paper in small, from one call",
    "maestro": "MAESTRO fine-tuned end to end against frozen vectors",
    "survival": "Survival of triple-negative breast cancer (MIBI)",
}


def read(name: str) -> ad.AnnData:
    adata = ad.read_h5ad(DATA / f"{COHORTS[name][0]}.h5ad")
    if name == "tnbc":
        adata.obs["died"] = adata.obs["censored"].astype(float).map({0.0: True, 1.0: False})
        adata.obs["died"] = adata.obs["died"].where(adata.obs["survival_days"].notna())
    return adata


def entry(model: str, ways: dict, *, epochs: float, is_trained: bool = True) -> sst.model.ModelProfile:
    cls, build, n_epochs = MODELS[model]
    train = {"max_epochs": max(1, round(epochs * n_epochs)), "seed": 0, "watch_health": False, **QUIET}
    return sst.model.ModelProfile(
        cls,
        sample_key="sample",
        build={**build, "random_state": 0},
        train=train if is_trained else None,
        finetune=ways,
        pretrain_on="all",
    )


def table(part: str, name: str, *, folds: int, repeats: int, epochs: float, untrained: bool) -> pd.DataFrame:
    """Mean and interval of every model and way on one cohort."""
    model, _, names, numbers, metric = PARTS[part]
    _, label_key, groups_key = COHORTS[name]
    is_survival = part == "survival"
    ways = {
        f"{way}, {'all' if n is None else n} labels": {
            **WAYS[way],
            **QUIET,
            **({} if n is None else {"n_labels": n}),
            **({"batch_size": 64} if is_survival else {}),
        }
        for way in names
        for n in numbers
    }
    entries = {
        model: entry(model, ways, epochs=epochs),
        **({f"{model}, untrained": entry(model, ways, epochs=epochs, is_trained=False)} if untrained else {}),
        "average": sst.profiles.Mean(sample_key="sample"),
        "k-means-20 fractions": sst.profiles.KMeansFractions(n_clusters=20, sample_key="sample"),
    }
    result = sst.tl.benchmark(
        read(name),
        entries,
        label_key,
        sample_key="sample",
        probes="cox" if is_survival else "logistic",
        tune=False,
        groups_key=groups_key,
        event_key="died" if is_survival else None,
        cv=folds,
        n_repeats=repeats,
        metric=metric,
        progress=False,
    )
    found = result.summary()
    found["score"] = [
        f"{m:.3f} ({low:.2f} to {high:.2f})"
        for m, low, high in zip(found["mean"], found["ci_low"], found["ci_high"], strict=True)
    ]
    return found.pivot(index="probe", columns="representation", values="score").reindex(
        index=found["probe"].drop_duplicates(), columns=list(entries)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=list(PARTS), required=True)
    parser.add_argument("--cohorts", nargs="+", choices=list(COHORTS))
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--epochs", type=float, default=1.0, help="share of the epochs of training")
    parser.add_argument("--untrained", action="store_true", help="the same from random weights beside it")
    parser.add_argument("--write", action="store_true", help="write into benchmarks/RESULTS.md")
    args = parser.parse_args()
    one_quiet_thread()
    model, cohorts, *_, metric = PARTS[args.part]
    sections = []
    for name in args.cohorts or cohorts:
        start = time.process_time()
        how = {"folds": args.folds, "repeats": args.repeats, "epochs": args.epochs, "untrained": args.untrained}
        found = table(args.part, name, **how)
        seconds = time.process_time() - start
        sections.append(f"### {COHORTS[name][0]}: {COHORTS[name][1]}\n\n{markdown(found.fillna('-'), 'learned')}")
        print(f"{sections[-1]}\n({seconds:.0f} processor seconds)", flush=True)
        sections[-1] += f"\n\n{seconds:.0f} processor seconds."
    if args.write:
        cls, build, n_epochs = MODELS[model]
        text = (
            f"{metric}, mean and corrected 95 % interval over {args.folds} folds x {args.repeats} of the same samples for all; patients are kept "
            f"whole where there are any. {cls.__name__} {build}, {round(args.epochs * n_epochs)} epochs without labels on all samples; "
            f"`finetune` in each fold: {WAYS}. Profiles: the probe of `tl.benchmark`, untuned.\n\n"
            + "\n\n".join(sections)
            + f"\n\n{hardware_line()}."
        )
        write_section(f"labels-{args.part}", TITLES[args.part], text)


if __name__ == "__main__":
    main()

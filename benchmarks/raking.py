"""What PaSCient's resamplings do to the shares of labels and tissues in an epoch.

    python benchmarks/raking.py [--write]

A planted cohort with the trouble of the paper's corpus: the healthy are in every tissue, each disease in few of them. No model is trained: counted is what
the training part of the splitter hands out in five epochs.
"""

from __future__ import annotations

import argparse
import warnings

import anndata as ad
import numpy as np
import pandas as pd
from _results import markdown, write_section

import scset_tools as sst
from scset_tools.model.pascient._sampler import PaSCientSplitter

COUNTS = pd.DataFrame(
    [[180, 120, 60, 40], [150, 30, 0, 0], [60, 0, 20, 0], [20, 10, 0, 10], [0, 0, 10, 30]],
    index=["healthy", "COVID-19", "melanoma", "lupus", "cirrhosis"],
    columns=["blood", "lung", "skin", "liver"],
)
"""Training samples of each label and tissue: feasible, every label is in two tissues or more."""
INFEASIBLE = COUNTS.assign(liver=[0, 0, 0, 0, 30], skin=[60, 0, 20, 0, 0])
"""Liver has one disease, which is there alone: no weights give both an even share."""
RESAMPLINGS = ("none", "oversample_label", "oversample_tissue", "oversample_label_and_tissue", "rake_label_and_tissue")
N_EPOCHS = 5


def cohort(counts: pd.DataFrame) -> ad.AnnData:
    """One cell for each sample: only what a sample is counts here."""
    pairs = [(label, tissue) for label in counts.index for tissue in counts for _ in range(counts.loc[label, tissue])]
    obs = pd.DataFrame(pairs, columns=["label", "tissue"])
    obs["sample"] = [f"s{i}" for i in range(len(obs))]
    return ad.AnnData(np.ones((len(obs), 2), np.float32), obs=obs.set_index(obs["sample"].to_numpy()))


def drawn(adata: ad.AnnData, resampling: str) -> tuple[pd.DataFrame, int]:
    """Label and tissue of the samples of the epochs, and how often the most frequent one came in one."""
    sst.PaSCient.setup_anndata(adata, "sample", labels_key="label")
    model = sst.PaSCient(adata)
    splitter = PaSCientSplitter(
        model.adata_manager,
        resampling=resampling,
        tissue_key="tissue",
        label_registry_key="labels",
        train_size=1.0,
        batch_size=16,
    )
    splitter.setup()
    names, most = [], 0
    loader = splitter.train_dataloader()
    for epoch in range(N_EPOCHS):
        loader.sampler.set_epoch(epoch)
        samples = np.concatenate([np.asarray(batch.sample) for batch in loader])
        most = max(most, int(np.bincount(samples).max()))
        names.append(splitter.index.names[samples])
    return adata.obs.loc[np.concatenate(names), ["label", "tissue"]], most


def shares(counts: pd.DataFrame) -> str:
    adata = cohort(counts)
    rows = {}
    for resampling in RESAMPLINGS:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found, most = drawn(adata, resampling)
        rows[resampling] = {
            **{f"{name} %": f"{100 * (found['label'] == name).mean():.1f}" for name in counts.index},
            **{f"{name} %": f"{100 * (found['tissue'] == name).mean():.1f}" for name in counts},
            "samples of an epoch": len(found) // N_EPOCHS,
            "most often": most,
            "warned": "yes" if any("No weights of the training samples" in str(w.message) for w in caught) else "no",
        }
    return markdown(pd.DataFrame(rows).T, "resampling")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write into benchmarks/RESULTS.md")
    args = parser.parse_args()
    n = int(COUNTS.to_numpy().sum())
    text = (
        f"A planted cohort of {n} samples; even would be {100 / len(COUNTS):.0f} % of each label and {100 / COUNTS.shape[1]:.0f} % of each tissue. Shares of what "
        f"{N_EPOCHS} epochs hand out.\n\n{markdown(COUNTS, 'samples')}\n\n{shares(COUNTS)}\n\nThe same with a tissue, liver, that has one disease which is nowhere else:\n\n{shares(INFEASIBLE)}"
    )
    print(text, flush=True)
    if args.write:
        write_section("raking", "PaSCient: shares of labels and tissues", text)


if __name__ == "__main__":
    main()

"""Niches of tumours against whole tumours: how mixed niches are by architecture, and what predicts architecture and survival.

python benchmarks/niches.py ../shared/data/tnbc_mibi_keren_scfeatures.h5ad
"""

from __future__ import annotations

import sys
import warnings

import anndata as ad
import numpy as np
import pandas as pd

import scset_tools as sst


def main(file: str) -> None:
    cells = ad.read_h5ad(file)
    niches = sst.pp.niches(cells, "sample", n_neighbors=10, n_niches=60)
    is_tumour = (niches.obs["celltype_group"].astype(str) == "Tumour").astype(float).to_numpy()
    share = sst.profiles.mean(ad.AnnData(is_tumour[:, None], obs=niches.obs), sample_key="niche")
    mixing = sst.tl.aggregate_niches(share, "sample", method="mean_sd")
    p, sd = np.asarray(mixing.X, dtype=float).T
    relative = pd.Series(sd / np.sqrt(p * (1 - p)), index=mixing.obs["tissue_architecture"].astype(str))
    print("Standard deviation over niches of the share of tumour cells, over that of single cells (0 mixed, 1 apart):")
    print(relative.groupby(level=0).describe()[["count", "mean", "std"]].round(3).to_markdown())

    types = {"cell_type_key": "celltype"}
    vectors = {
        "whole, mean": sst.profiles.mean(cells, sample_key="sample"),
        "whole, fractions": sst.profiles.fractions(cells, sample_key="sample", **types),
    }
    of_niches = {
        "means": sst.profiles.mean(niches, sample_key="niche"),
        "fractions": sst.profiles.fractions(niches, sample_key="niche", **types),
    }
    for name, table in of_niches.items():
        for method in ("mean", "mean_sd", "fractions"):
            vectors[f"niches, {name}, {method}"] = sst.tl.aggregate_niches(table, "sample", method=method)
    rows = []
    for name, samples in vectors.items():
        samples.obs["seen"] = 1 - samples.obs["censored"].astype(float)
        row = {"vector": name, "features": samples.n_vars}
        for label, metric, options in (
            ("tissue_architecture", "balanced_accuracy", {}),
            ("survival_days", "concordance", {"probe": "cox", "event_key": "seen"}),
        ):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = sst.tl.probe(samples, label, n_repeats=2, **options).summary().loc[metric]
            row[label] = f"{found['mean']:.2f} ({found['ci_low']:.2f} to {found['ci_high']:.2f})"
        rows.append(row)
    print(pd.DataFrame(rows).to_markdown(index=False))


if __name__ == "__main__":
    main(sys.argv[1])

"""What the reliability of directions does to whitened vectors where samples hold few cells: the two cohorts of the demo, one training each.

    python benchmarks/whitening.py [--write]

Vectors as they are, whitened by the covariance alone, and as models do: along how many directions they vary, which share of their variance is
between samples and not between draws of half of their cells, which share of neighbours two draws have in common, and how often the nearest
training sample has the label of a held-out one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _quiet import one_quiet_thread
from _results import markdown, write_section
from _timing import hardware_line
from anndata import AnnData
from sklearn.neighbors import KNeighborsClassifier

import scset_tools as sst
from scset_tools.model._whitening import CELLS_OF_WHITENING, PartialWhitening, noise_of_draws

sys.path.insert(0, str(Path(__file__).parents[1] / "demo"))
from demo import Cohort, built_in_cohorts


def run(cohort: Cohort) -> pd.DataFrame:
    """Three rows for one cohort."""
    key = cohort.sample_key
    is_training = ~cohort.adata.obs[key].astype(str).isin(cohort.held_out).to_numpy()
    training = cohort.adata[is_training].copy()
    sst.MAESTRO.setup_anndata(training, key)
    model = sst.MAESTRO(training, random_state=0, whitening=0)
    model.train(seed=0, enable_progress_bar=False, accelerator="cpu")
    vectors = model.get_sample_representation(cohort.adata)
    sizes = training.obs[key].value_counts().loc[model.sample_names].to_numpy()
    n_drawn = int(np.quantile(sizes, 0.1)) // 2
    draws = [model.get_sample_representation(n_cells=n_drawn, seed=seed) for seed in (1, 2)]
    again = [model.get_sample_representation(n_cells=n_drawn, seed=seed) for seed in (3, 4)]  # judged on others
    noise = noise_of_draws(*(d.to_numpy() for d in draws), sizes, n_drawn=n_drawn, n_used=CELLS_OF_WHITENING)
    label = cohort.adata.obs.drop_duplicates(key).set_index(key)[cohort.label_key].astype(str).loc[vectors.index]
    held_out = vectors.index.isin(cohort.held_out)
    rows = []
    for name, degree, of_draws in (
        ("as they are", 0.0, None),
        ("whitened by covariance alone", 0.5, None),
        ("whitened as models do", 0.5, noise),
    ):
        whitening = PartialWhitening(vectors.shape[1], degree)
        if degree:
            whitening.fit(vectors[~held_out].to_numpy(), noise=of_draws)
        z = whitening(torch.from_numpy(vectors.to_numpy())).numpy()
        one, other = (
            AnnData(whitening(torch.from_numpy(d.to_numpy())).numpy(), obs=pd.DataFrame(index=d.index)) for d in again
        )
        health = sst.tl.representation_health(one, second=other)
        nearest = KNeighborsClassifier(1).fit(z[~held_out], label[~held_out]).predict(z[held_out])
        rows.append(
            {
                "cohort": cohort.name,
                "vectors": name,
                "effective rank": sst.tl.representation_health(AnnData(z[~held_out])).effective_rank,
                "variance between samples": health.share_between,
                "neighbours kept": health.neighbors_kept,
                "nearest neighbour accuracy": float((nearest == label[held_out].to_numpy()).mean()),
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    """Run, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the section of RESULTS.md")
    args = parser.parse_args()
    one_quiet_thread()
    rows = pd.concat([run(cohort) for cohort in built_in_cohorts()]).set_index(["cohort", "vectors"])
    print(rows.round(2).to_string())
    if args.write:
        shown = rows.reset_index()
        shown["cohort"] += ", " + shown.pop("vectors")
        text = f"{hardware_line()}\n\n`python benchmarks/whitening.py`: MAESTRO by its defaults, samples of 200 cells, draws of 100.\n\n"
        write_section("whitening", "Whitening with few cells", text + markdown(shown.set_index("cohort").round(2)))


if __name__ == "__main__":
    main()

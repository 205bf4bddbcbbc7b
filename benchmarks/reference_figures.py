"""The baselines under the plainest protocol: do they reach the figures that were measured elsewhere?

Five seeds (0 to 4) of scikit-learn's shuffled, stratified (and grouped) five folds; profiles fitted on the training samples of a
fold; logistic regression with C = 1 on standardised vectors; weighted F1 of all out-of-fold predictions of a seed together. The
last column says between which values the averages of five seeds lie, for 0 to 4, 5 to 9, 10 to 14 and 15 to 19: a figure of one
such average can be no closer than that.

    python benchmarks/reference_figures.py [--write]
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import pandas as pd
from _pooled import linear_probe, pooled_f1
from _results import markdown, write_section
from profiles import COHORTS, DATA, REFERENCE, Cohort

from scset_tools import profiles

N_SEEDS = 20


def make_profile(name: str, sample_key: str, seed: int) -> profiles.Profile:
    if name == "mean":
        return profiles.Mean(sample_key=sample_key)
    kind = profiles.KMeansMeans if name.endswith("means") else profiles.KMeansFractions
    return kind(n_clusters=60, sample_key=sample_key, rng=seed)


def f1_of_seeds(cohort: Cohort, name: str) -> np.ndarray:
    """Weighted F1 of each seed."""
    adata = cohort.read()
    obs = profiles.Mean(sample_key=cohort.sample_key).fit(adata).transform(adata).obs
    groups = None if cohort.groups_key is None else obs[cohort.groups_key].astype(str)
    out = []
    for seed in range(N_SEEDS):

        def vectors(training: list[str], seed: int = seed) -> pd.DataFrame:
            return make_profile(name, cohort.sample_key, seed).fit(adata, samples=training).transform(adata).to_df()

        probe = linear_probe(vectors, obs[cohort.label_key])
        out.append(pooled_f1(probe, obs[cohort.label_key], groups, seed=seed, cv=cohort.cv))
    return np.array(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write into benchmarks/RESULTS.md")
    args = parser.parse_args()
    if not DATA.exists():
        raise SystemExit(f"No cohorts in {DATA}: name their folder in SCSET_TOOLS_DATA.")
    warnings.simplefilter("ignore")
    rows = []
    for (cohort, name), reference in REFERENCE.items():
        values = f1_of_seeds(COHORTS[cohort], name)
        fives = values.reshape(-1, 5).mean(1)
        rows.append([cohort, name, reference, f"{fives[0]:.3f}", f"{fives.min():.3f} to {fives.max():.3f}"])
        print(rows[-1], flush=True)
    columns = ["cohort", "profile", "reference", "seeds 0 to 4", "averages of five seeds"]
    text = markdown(pd.DataFrame(rows, columns=columns).set_index("cohort"))
    print(text)
    if args.write:
        write_section("reference-figures", "Baselines against figures measured elsewhere", f"{__doc__}\n{text}")


if __name__ == "__main__":
    main()

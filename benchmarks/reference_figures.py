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
from _results import markdown, write_section
from profiles import COHORTS, DATA, REFERENCE, Cohort
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scset_tools import profiles

N_SEEDS = 20


def make_profile(name: str, sample_key: str, seed: int) -> profiles.Profile:
    if name == "mean":
        return profiles.Mean(sample_key=sample_key)
    kind = profiles.KMeansMeans if name.endswith("means") else profiles.KMeansFractions
    return kind(n_clusters=60, sample_key=sample_key, rng=seed)


def pooled_f1(cohort: Cohort, name: str) -> np.ndarray:
    """Weighted F1 of each seed."""
    adata = cohort.read()
    whole = profiles.Mean(sample_key=cohort.sample_key).fit(adata).transform(adata)
    names, y = np.asarray(whole.obs_names), whole.obs[cohort.label_key].astype(str).to_numpy()
    groups = None if cohort.groups_key is None else whole.obs[cohort.groups_key].astype(str).to_numpy()
    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    out = []
    for seed in range(N_SEEDS):
        predicted = np.empty(len(y), dtype=object)
        for train, test in splitter(cohort.cv, shuffle=True, random_state=seed).split(y, y, groups):
            fitted = make_profile(name, cohort.sample_key, seed).fit(adata, samples=names[train].tolist())
            x = np.asarray(fitted.transform(adata)[names].X)
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(x[train], y[train])
            predicted[test] = model.predict(x[test])
        out.append(f1_score(y, predicted.astype(str), average="weighted"))
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
        values = pooled_f1(COHORTS[cohort], name)
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

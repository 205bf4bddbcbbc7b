"""The evaluation room on real cohorts: distance matrices ranked, survival predicted, and how often a test cries wolf.

    python benchmarks/evaluation.py [--only distances survival null] [--data FOLDER] [--n-jobs 2] [--write]

``distances``: the 18 published distance matrices of the COMBAT COVID-19 cohort, ranked in one call of ``tl.benchmark``.
``survival``: Cox probes on profiles of the triple-negative breast cancer cohort, fitted in each fold.
``null``: share of significant differences between two random representations, with and without the correction for
overlapping training parts. ``--write`` puts the tables into RESULTS.md.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _results import markdown, write_section

from scset_tools import profiles, tl

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
WHO = "WHO_ordinal_at_sample"


def distances(data: Path, n_jobs: int) -> str:
    samples = ad.read_h5ad(data / "combat_covid_samplelevel_patpy.h5ad")
    # S00078-Ja003E-PBCa: the first part is the donor, some of whom gave several samples
    samples.obs["donor"] = samples.obs_names.str.split("-").str[0]
    # the level as a class too: chance-corrected F1 of kNN is the information retention of the SPARE benchmark
    samples.obs["WHO_class"] = samples.obs[WHO].map("{:.0f}".format, na_action="ignore").replace("6", "7")
    result = tl.benchmark(
        samples, list(samples.obsp), [WHO, "WHO_class"], probes="knn", groups_key="donor", target={WHO: "ordinal"},
        baseline="random_vec", n_jobs=n_jobs,
    )  # fmt: skip
    tests = result.differences().set_index(["label", "representation"])
    ordinal = _of_label(result, WHO, "mae")
    rank = _of_label(result, WHO, "spearman")
    retained = _of_label(result, "WHO_class", "f1_chance_corrected")
    out = pd.DataFrame(
        {
            "MAE": _interval(ordinal),
            "Spearman": _interval(rank),
            "F1 chance-corrected": _interval(retained),
            "MAE - random": tests.loc[WHO]["difference"].map("{:+.2f}".format),
            "p adjusted": tests.loc[WHO]["p_adjusted"].map("{:.2g}".format),
        }
    ).loc[ordinal.index]
    n = samples.n_obs - result.n_missing[WHO]
    donors = samples.obs.loc[samples.obs[WHO].notna(), "donor"].nunique()
    head = (
        f"COMBAT, WHO severity at sampling, {n} samples of {donors} donors ({result.n_missing[WHO]} unlabelled left out), kNN, "
        "5 x 5 folds that keep donors whole, mean and corrected 95% interval over folds; p against `random_vec`."
    )
    note = (
        "`composition`, `mrvi` and the four `wasserstein_*` matrices agree with each other but neither with the cell-type "
        "proportions in `X` nor with any other matrix (rank correlation with distances of `X` below 0.06; `pilot` 0.88): "
        "their rows appear to be in another order than the samples of the file. If so, their rank says nothing about the methods."
    )
    return f"{head}\n\n{markdown(out.fillna('-'), 'matrix')}\n\n{note}"


def survival(data: Path, n_jobs: int) -> str:
    cells = ad.read_h5ad(data / "tnbc_mibi_keren_scfeatures.h5ad")
    # 'censored' is 1 for those alive at the end of follow-up (median 3,242 days, the others 1,009): the event is its opposite
    cells.obs["is_death"] = 1 - cells.obs["censored"].astype(float)
    sets = {
        "mean": profiles.Mean(sample_key="sample"),
        "fractions": profiles.Fractions(sample_key="sample", cell_type_key="celltype"),
        "k-means fractions (20)": profiles.KMeansFractions(sample_key="sample", n_clusters=20),
        "random vector": profiles.RandomVector(sample_key="sample"),
    }
    settings = {"probes": "cox", "event_key": "is_death", "groups_key": "sample_group", "n_repeats": 10}
    cells.obs["sample_group"] = cells.obs["sample"].astype(str)
    result = tl.benchmark(cells, sets, "survival_days", sample_key="sample", baseline="mean", n_jobs=n_jobs, **settings)
    summary = result.summary().set_index("representation")
    tests = result.differences().set_index("representation")
    mean = profiles.mean(cells, sample_key="sample")
    p = tl.probe(
        mean, "survival_days", probe="cox", event_key="is_death", groups_key="sample_group", n_repeats=1, tune=False,
        n_permutations=199, n_jobs=n_jobs,
    ).p_value  # fmt: skip
    out = pd.DataFrame(
        {
            "concordance": _interval(summary),
            "folds": summary["n"].map("{:.0f}".format),
            "undefined": summary["n_undefined"].map("{:.0f}".format),
            "- mean": tests["difference"].map("{:+.2f}".format),
            "p adjusted": tests["p_adjusted"].map("{:.2g}".format),
        }
    ).loc[summary.index]
    first = cells.obs.groupby("sample", observed=True)["is_death"].first()
    head = (
        f"TNBC MIBI, survival, {first.notna().sum()} samples, {int(first.sum())} deaths, {result.n_missing['survival_days']} "
        "without follow-up left out; ridge Cox regression, tuned inside, 10 x 5 folds (one sample per donor), mean and corrected "
        f"95% interval. Untuned probe of the mean, 199 permutations: p = {p:.3f}."
    )
    return f"{head}\n\n{markdown(out.fillna('-'), 'profile')}"


def null(n_sets: int = 100) -> str:
    found = {"t": [], "corrected": []}
    for seed in range(n_sets):
        rng = np.random.default_rng(seed)
        samples = ad.AnnData(rng.normal(size=(40, 5)))
        samples.obsm["X_other"] = rng.normal(size=(40, 5))
        samples.obs["label"] = rng.permutation(np.tile(["a", "b"], 20))
        result = tl.benchmark(
            samples, ["X", "X_other"], "label", baseline="X", tune=False, metric="auroc", rng=seed, progress=False
        )
        for interval, p_values in found.items():
            p_values.append(result.differences(interval=interval)["p_value"].iloc[0])
    out = pd.DataFrame(
        {"significant at 0.05": [f"{np.mean(np.array(p) < 0.05):.3f}" for p in found.values()]}, index=list(found)
    )
    head = (
        f"Two random representations of random labels, {n_sets} data sets of 40 samples, 5 x 5 folds, paired test of AUROC. "
        "An honest test finds 0.05."
    )
    return f"{head}\n\n{markdown(out, 'test')}"


def _of_label(result: tl.BenchmarkResult, label: str, metric: str) -> pd.DataFrame:
    """Summary of one label in one metric, best first."""
    return result.summary(metric, label=label).set_index("representation")


def _interval(table: pd.DataFrame) -> pd.Series:
    return table.apply(lambda r: f"{r['mean']:.2f} [{r['ci_low']:.2f}, {r['ci_high']:.2f}]", axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", choices=["distances", "survival", "null"], default=["distances", "survival", "null"]
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--n-jobs", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="write the tables into RESULTS.md")
    arguments = parser.parse_args()
    parts = []
    for name in arguments.only:
        if name != "null" and not arguments.data.is_dir():
            print(f"skipped {name}: no cohorts in {arguments.data} (--data)")
            continue
        text = (
            null()
            if name == "null"
            else {"distances": distances, "survival": survival}[name](arguments.data, arguments.n_jobs)
        )
        print(text, end="\n\n")
        parts.append(text)
    if arguments.write:
        write_section("evaluation", "Evaluation: distance matrices, survival, false alarms", "\n\n".join(parts))


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*occur in one group only.*")
        main()

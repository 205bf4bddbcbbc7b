"""The figures of the page "From a score to a sentence one may publish": two cohorts, from the design to the interval.

    python benchmarks/publishable.py [--data FOLDER] [--only krieg combat]

Krieg et al. 2018: CyTOF of 30 samples of 30 donors in two batches, melanoma or healthy. COMBAT 2022: 137 blood samples, several of some
donors; cell-type proportions.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

from scset_tools import profiles, tl

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def say(title: str, table: object) -> None:
    """One step of the page."""
    print(f"\n## {title}\n{table.round(3).to_string() if hasattr(table, 'round') else table}")


def krieg(data: Path) -> None:
    """Two batches."""
    cells = ad.read_h5ad(data / "krieg_melanoma_cytof_imubac.h5ad")
    samples = profiles.mean(cells, sample_key="sample")
    say("krieg: design", pd.crosstab(samples.obs["cancer"], samples.obs["batch"]))
    result = tl.probe(samples, "cancer", n_permutations=199)
    say("krieg: score", result.summary().loc[["balanced_accuracy", "auroc"], ["mean", "ci_low", "ci_high"]])
    print(f"p = {result.p_value:.3f} of 199 permutations")
    say("krieg: confounding", tl.confounding(samples, "cancer", batch_key="batch").summary()["verdict"].to_string())
    bench = tl.benchmark(
        samples, ["X_mean"], ["cancer", "batch"], batch_key="batch", baseline="X_mean",
        progress=False,
    )  # fmt: skip
    say("krieg: correction", bench.summary()[["label", "representation", "mean", "ci_low", "ci_high"]])
    say("krieg: its cost and gain", bench.differences()[["label", "difference", "ci_low", "ci_high", "p_adjusted"]])
    power = tl.power(samples, "cancer", [15, 20, 30, 60], n_draws=25)
    say("krieg: power", power.table[["n_samples", "score", "power", "power_low", "power_high"]])
    responders = samples[samples.obs["responder"].notna()].copy()
    weak = tl.probe(responders, "responder", n_permutations=199)
    say("krieg: responder", weak.summary().loc[["balanced_accuracy"], ["mean", "ci_low", "ci_high"]])
    print(f"p = {weak.p_value:.3f} of 199 permutations")
    plan = tl.power(responders, "responder", [20, 40, 80, 160], n_draws=25)
    say("krieg: power for responders", plan.table[["n_samples", "score", "power", "power_low", "power_high"]])


def combat(data: Path) -> None:
    """Repeated donors."""
    samples = ad.read_h5ad(data / "combat_covid_samplelevel_patpy.h5ad")
    samples.obs["donor"] = samples.obs_names.str.split("-").str[0]
    samples = samples[samples.obs["Source"].isin(["COVID_MILD", "COVID_SEV", "COVID_CRIT"])].copy()
    samples.obs["severe"] = np.where(samples.obs["Source"] == "COVID_MILD", "no", "yes")
    n = samples.obs["donor"].value_counts()
    say("combat: design", f"{samples.n_obs} samples of {len(n)} donors, {int((n > 1).sum())} of them with several")
    print(samples.obs.groupby("severe")["Age"].describe()[["count", "mean", "std"]].round(1).to_string())
    samples.X = np.sqrt(np.maximum(samples.X / samples.X.sum(axis=1, keepdims=True), 0))
    rows = {"rank tests of samples": {}, "donors": {"groups_key": "donor"}}
    rows["donors and age"] = {"groups_key": "donor", "covariates": ["Age", "Sex"]}
    tables = {name: tl.association(samples, "severe", **kwargs) for name, kwargs in rows.items()}
    say("combat: cell types below 0.05", pd.Series({k: int((t["p_adjusted"] < 0.05).sum()) for k, t in tables.items()}))
    say("combat: largest", tables["donors and age"][["feature", "effect", "ci_low", "ci_high", "p_adjusted"]].head(4))
    scores = {}
    for name, key in (("samples", None), ("donors", "donor")):
        scores[f"{name} held out"] = tl.probe(samples, "severe", groups_key=key).summary().loc["auroc"]
    say("combat: AUROC", pd.DataFrame(scores).T[["mean", "ci_low", "ci_high"]])
    added = tl.probe(samples, "severe", groups_key="donor", covariates=["Age", "Sex"]).added().set_index("metric")
    columns = ["with_covariates", "covariates_alone", "difference", "ci_low", "ci_high", "p_value"]
    say("combat: what proportions add to age and sex", added.loc[["auroc", "balanced_accuracy"], columns])


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", nargs="+", choices=["krieg", "combat"], default=["krieg", "combat"])
    args = parser.parse_args()
    for name in args.only:
        {"krieg": krieg, "combat": combat}[name](args.data)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()

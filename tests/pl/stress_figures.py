"""Every plot of `pl` with many samples of long names: `python tests/pl/stress_figures.py FOLDER` draws them light and dark.

The numbers are made up. What a plot shows one of per sample, label, model or feature, it gets `n` of, in an order that is not the alphabet's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scset_tools import _keys, pl

SIZES = (8, 48, 100)


def names(n: int, what: str = "biopsy") -> list[str]:
    """P1, P2, ... with thirty letters each."""
    return [f"P{i + 1} {what} of the second visit, Vienna"[:30].ljust(30, "a") for i in range(n)]


def samples(n: int, n_features: int = 12) -> AnnData:
    """Samples in a mixed order, with a label that has a category for each of them."""
    rng = np.random.default_rng(0)
    mixed = [names(n)[i] for i in rng.permutation(n)]
    obs = pd.DataFrame(
        {
            "patient identifier": mixed,
            "condition": pd.Categorical(np.where(np.arange(n) % 2, "control", "treated with interferon")),
            "age at the time of inclusion": rng.uniform(20, 80, n),
        },
        index=mixed,
    )
    obs.loc[obs.index[::7], "condition"] = np.nan
    return AnnData(
        rng.normal(size=(n, n_features)).astype(np.float32), obs=obs, var=pd.DataFrame(index=names(n_features, "CD"))
    )


def cells(n: int, per: int = 12) -> AnnData:
    """Cells of `n` samples, in a mixed order."""
    rng = np.random.default_rng(1)
    of = rng.permutation(np.repeat(names(n), per))
    obs = pd.DataFrame({"sample": of}, index=[f"c{i}" for i in range(n * per)])
    return AnnData(rng.normal(size=(n * per, 6)).astype(np.float32), obs=obs, var=pd.DataFrame(index=names(6, "CD")))


def attention(n: int) -> Any:
    data = cells(n)
    data.obs["maestro_attention"] = np.random.default_rng(0).gamma(4, 0.25, data.n_obs)
    return pl.attention(data, groupby="sample")


def scores(n: int, groups: list[str]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame([(g, r) for g in groups for r in names(n, "model")], columns=["group", "row"])
    table["mean"] = rng.uniform(0.4, 0.9, len(table))
    return table.assign(ci_low=table["mean"] - 0.06, ci_high=table["mean"] + 0.06, metric="balanced_accuracy")


def benchmark_bars(n: int) -> Any:
    return pl.benchmark_bars(scores(n, names(2, "label")).rename(columns={"group": "label", "row": "representation"}))


def benchmark_bars_labels(n: int) -> Any:
    table = scores(2, names(n, "label")).rename(columns={"group": "label", "row": "representation"})
    return pl.benchmark_bars(table)


def clustermap(n: int) -> Any:
    return pl.clustermap(samples(n), color=["patient identifier", "condition", "age at the time of inclusion"])


def confounding(n: int) -> Any:
    table = scores(n, names(2, "label")).rename(columns={"group": "target", "row": "predictor", "mean": "score"})
    return pl.confounding(table.assign(chance=0.5))


def counterfactual(n: int) -> Any:
    rng = np.random.default_rng(0)
    types, features = names(n, "type"), names(20, "CD")
    share = rng.dirichlet(np.ones(n))
    composition = pd.DataFrame({"own": share, "asked": share * rng.uniform(0.5, 1.5, n)}, index=types)
    composition["ci_low"] = composition["asked"] - composition["own"] - 0.01
    composition["ci_high"] = composition["ci_low"] + 0.02
    shifts = pd.DataFrame(rng.normal(size=(n, 20)), types, features)
    return pl.counterfactual(SimpleNamespace(composition=composition, expression=None, table=lambda: shifts))


def denoising(n: int) -> Any:
    data = cells(n, per=10)
    data.obs[_keys.step()] = np.arange(data.n_obs) % 5 * 200.0
    return pl.denoising(data, color="sample", basis="pca")


def enrichment(n: int) -> Any:
    p = np.sort(10.0 ** -np.random.default_rng(0).uniform(0, 9, n))
    table = pd.DataFrame({"gene_set": names(n, "set"), "odds_ratio": 1 - np.log10(p), "p_adjusted": p})
    return pl.enrichment(table.assign(n_overlap=np.arange(n) + 2), n_top=n)


def forest(n: int) -> Any:
    table = scores(n, ["one"]).rename(columns={"row": "representation", "mean": "difference"})
    table[["difference", "ci_low", "ci_high"]] -= 0.6
    return pl.forest(table)


def gene_heatmap(n: int) -> Any:
    rng = np.random.default_rng(0)
    return pl.gene_heatmap(pd.DataFrame(rng.normal(size=(8, n)), names(8, "type"), names(n, "gene")), n_top=n)


def gene_heatmap_types(n: int) -> Any:
    rng = np.random.default_rng(0)
    return pl.gene_heatmap(pd.DataFrame(rng.normal(size=(n, 30)), names(n, "type"), names(30, "gene")), n_top=2)


def generated_composition(n: int) -> Any:
    rng = np.random.default_rng(0)
    overall = pd.DataFrame({"true": rng.dirichlet(np.ones(n))}, index=names(n, "type"))
    overall["generated"] = overall["true"] * rng.uniform(0.5, 1.5, n)
    correlation = pd.DataFrame(np.eye(n) + rng.uniform(-0.2, 0.4, (n, n)), names(n), names(n)).clip(upper=1)
    figures = pd.Series({"pearson_overall": 0.9, "share_closest": 0.8, "chance": 1 / n})
    return pl.generated_composition(
        SimpleNamespace(overall=overall, correlation=correlation, summary=lambda: figures, table=None)
    )


def grouped_scores(n: int) -> Any:
    """Many classes of the label."""
    rng = np.random.default_rng(0)
    of = np.repeat(names(n, "class"), 4)
    index = [f"s{i}" for i in range(len(of))]
    table = pd.DataFrame(rng.normal(size=(len(of), 3)), index, names(3, "type"))
    return pl.grouped_scores(table, pd.Series(of, index, name="diagnosis"))


def grouped_scores_columns(n: int) -> Any:
    """Many columns, and their p-values."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(40, n)), [f"s{i}" for i in range(40)], names(n, "type"))
    labels = pd.Series(np.repeat(["control", "treated with interferon"], 20), table.index, name="condition")
    tested = pd.DataFrame({"feature": table.columns, "p_adjusted": rng.uniform(0, 0.05, n) ** 2})
    return pl.grouped_scores(table, labels, association=tested, n_top=n)


def learning_curve(n: int) -> Any:
    rng = np.random.default_rng(0)
    table = pd.DataFrame([(r, k) for r in names(n, "model") for k in (25, 50, 100)], columns=["representation", "n"])
    return pl.learning_curve(table.assign(score=rng.uniform(0.5, 0.9, len(table))), x="n")


def masking_frequency(n: int) -> Any:
    mean = np.random.default_rng(0).lognormal(0, 1, n)
    table = pd.DataFrame({"times_masked": 50 * mean, "mean_when_masked": mean[::-1]}, names(n, "gene"))
    return pl.masking_frequency(table)


def neighbor_table(n: int) -> Any:
    table = pd.DataFrame(np.eye(n) * 3 + np.random.default_rng(0).random((n, n)), names(n), names(n))
    table.index.name = "patient identifier"
    return pl.neighbor_table(table.div(table.sum(axis=1), axis=0))


def tissues(n: int) -> AnnData:
    data = cells(n)
    rng = np.random.default_rng(0)
    data.obs[["niche_x", "niche_y"]] = rng.uniform(0, 500, (data.n_obs, 2))
    data.obs["neighbourhood"] = rng.choice(names(n, "niche"), data.n_obs)
    return data


def niches(n: int) -> Any:
    return pl.niches(tissues(n), "neighbourhood", sample_key="sample", samples=names(n)[:20])


def niches_numbers(n: int) -> Any:
    data = tissues(n)
    return pl.niches(data, data.var_names[0], sample_key="sample", samples=names(n)[:20])


def paired(n: int) -> Any:
    rng = np.random.default_rng(0)
    visits = names(4, "visit")
    obs = pd.DataFrame([(d, v) for d in names(n) for v in visits], columns=["donor", "time of the visit"])
    obs["time of the visit"] = pd.Categorical(obs["time of the visit"], visits)
    obs.index = obs.index.astype(str)
    data = AnnData(rng.normal(size=(len(obs), 1)).astype(np.float32), obs=obs, var=pd.DataFrame(index=names(1, "CD")))
    return pl.paired(data, data.var_names[0], "time of the visit", paired_by="donor")


def power(n: int) -> Any:
    donors = np.linspace(10, 400, n).round()
    table = pd.DataFrame({"n_samples": donors, "power": 1 - np.exp(-donors / 80), "is_extrapolated": donors > 200})
    return pl.power(table.assign(power_low=table["power"] ** 2, power_high=np.sqrt(table["power"])))


def proportions(n: int) -> Any:
    rng = np.random.default_rng(0)
    true = pd.DataFrame(rng.dirichlet(np.ones(n), 20), columns=names(n, "type"))
    return pl.proportions(true, (true + rng.normal(0, 0.01, true.shape)).clip(lower=0))


def radar(n: int) -> Any:
    return pl.radar(pd.DataFrame(np.random.default_rng(0).random((n, 3)), names(n, "type"), names(3, "model")))


def radar_models(n: int) -> Any:
    return pl.radar(pd.DataFrame(np.random.default_rng(0).random((8, n)), names(8, "type"), names(n, "model")))


def ranked_scores(n: int) -> Any:
    rng = np.random.default_rng(0)
    return pl.ranked_scores(pd.DataFrame(rng.normal(size=(n, n)), columns=names(n, "type")), n_top=n)


def reconstruction(n: int) -> Any:
    data = cells(n, per=9)
    data.obs[_keys.role()] = np.array(["input", "hidden", "predicted"])[np.arange(data.n_obs) % 3]
    return pl.reconstruction(data, basis="pca")


def sample_map(n: int) -> Any:
    return pl.sample_map(samples(n), color="patient identifier")


def sample_map_three(n: int) -> Any:
    return pl.sample_map(samples(n), color=["patient identifier", "condition", "age at the time of inclusion"])


def sample_map_groups(n: int) -> Any:
    return pl.sample_map(samples(n), color="patient identifier", groupby="condition")


def sample_map_style(n: int) -> Any:
    return pl.sample_map(samples(n), color="age at the time of inclusion", style="condition")


def similarity(n: int) -> Any:
    x = np.random.default_rng(0).normal(size=(n, 30))
    return pl.similarity(pd.DataFrame(np.corrcoef(x), names(n, "label"), names(n, "label")))


def subtype_trees(n: int) -> Any:
    both = {"mean of each type of cells here": samples(n), "another representation of them": samples(n, 5)}
    return pl.subtype_trees(both, color="patient identifier")


def subtype_trees_few(n: int) -> Any:
    return pl.subtype_trees({"mean of the cells": samples(n)}, color="condition")


def training_history(n: int) -> Any:
    rng = np.random.default_rng(0)
    history = {
        f"{metric}_{part}": pd.Series(rng.random(30) + i)
        for i, metric in enumerate(names(n, "metric"))
        for part in ("train", "validation")
    }
    return pl.training_history(history, metrics=names(n, "metric"))


FIGURES: dict[str, Callable[[int], Any]] = {
    f.__name__: f
    for f in (
        attention, benchmark_bars, benchmark_bars_labels, clustermap, confounding, counterfactual, denoising, enrichment, forest,
        gene_heatmap, gene_heatmap_types, generated_composition, grouped_scores, grouped_scores_columns, learning_curve,
        masking_frequency, neighbor_table, niches, niches_numbers, paired, power, proportions, radar, radar_models, ranked_scores,
        reconstruction, sample_map, sample_map_three, sample_map_groups, sample_map_style, similarity, subtype_trees, subtype_trees_few,
        training_history,
    )
}  # fmt: skip
"""Every function of `pl` once or more, in what it can have many of."""


def figure_of(drawn: Any) -> Any:
    """The figure of whatever a plot returned."""
    first = np.ravel(np.asarray(drawn, dtype=object))[0] if isinstance(drawn, np.ndarray) else drawn
    return first.figure


def main(folder: Path) -> None:
    """One PNG per plot, size and style."""
    import warnings

    import matplotlib.pyplot as plt

    for style in ("default", "dark_background"):
        for n in SIZES:
            (folder / style / str(n)).mkdir(parents=True, exist_ok=True)
            for name, draw in FIGURES.items():
                with plt.style.context(style), warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    figure_of(draw(n)).savefig(folder / style / str(n) / f"{name}.png", dpi=80)
                    plt.close("all")
                for warning in caught:
                    print(style, n, name, warning.category.__name__, str(warning.message)[:100])


if __name__ == "__main__":
    import matplotlib as mpl

    mpl.use("agg")
    main(Path(sys.argv[1]))

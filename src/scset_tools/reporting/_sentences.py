"""What one may write about a cohort after a report, and what not: decided by intervals, design and checks, not by the best score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from scset_tools.reporting._gather import UNTRAINED
from scset_tools.reporting._html import number, p_value

METRICS = {"balanced_accuracy": "balanced accuracy", "r2": "R2 on held-out samples", "concordance": "concordance"}
ALPHA = 0.05
FEW_UNITS = 10
"""Fewer independent samples cannot carry a sentence on how well a label is predicted."""


def sentences(found: Mapping[str, Any]) -> dict[str, list[str]]:
    """Sentences that may be published, and claims that the figures do not carry.

    Parameters
    ----------
    found
        All parts of a report.

    Returns
    -------
    ``may`` and ``not``.
    """
    scores, asked = found.get("scores"), found["asked"]
    if scores is None:
        return {
            "may": [_without_label(found)],
            "not": ["That groups of samples on a map are real: no label was given to test them."],
        }
    if "reason" in scores:
        return {"may": [], "not": [f"Any score of {asked['label_key']!r}: {scores['reason']}"]}
    confounding = found.get("confounding")
    if confounding is not None and confounding.get("is_separable") is False:
        return {"may": [confounding["verdict"]], "not": _not(found, is_predicted=False)}
    row = _row(scores, asked["primary"])
    p = found.get("chance", {}).get("p_value")
    is_predicted = bool(row["ci_low"] > scores["chance"]) and not (p is not None and p > ALPHA)
    may = [_score(found, row, is_predicted=is_predicted)]
    if asked["primary"] != scores["baseline"]:
        may.append(_difference(found, asked["primary"], scores["baseline"]))
    if f"{asked['primary']}{UNTRAINED}" in set(scores["summary"]["representation"]):
        may.append(_training(found, asked["primary"]))
    if confounding is not None and "reason" not in confounding:
        may.append(f"Label and batch: {confounding['verdict']}")
    may += _features(found)
    return {"may": may, "not": _not(found, is_predicted=is_predicted)}


def _row(scores: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = scores["summary"]
    return table[table["representation"] == name].iloc[0].to_dict()


def _units(found: Mapping[str, Any]) -> str:
    groups, n = found["cohort"]["design"]["groups"], found["scores"]["n_samples"]
    return (
        f"{n} samples"
        if groups is None
        else f"{n} samples, those of each of the {groups['n']} values of {found['asked']['groups_key']!r} kept in one fold"
    )


def _named(found: Mapping[str, Any], name: str) -> str:
    return {"mean": "the mean of the cells", "kmeans_fractions": "the k-means cluster fractions"}.get(
        name, f"the {_called(found, name)} vectors"
    )


def _called(found: Mapping[str, Any], name: str) -> str:
    """A model by the name of its class, as papers call it."""
    return str(found["asked"]["called"].get(name, name))


def _score(found: Mapping[str, Any], row: Mapping[str, Any], *, is_predicted: bool) -> str:
    scores, asked = found["scores"], found["asked"]
    label, name = asked["label_key"], _named(found, asked["primary"])
    how = f"{scores['n_folds']} folds" + (f" x {scores['n_repeats']}" if scores["n_repeats"] > 1 else "")
    metric = METRICS[scores["metric"]]
    numbers = f"{metric} {number(row['mean'])}, 95% interval {number(row['ci_low'])} to {number(row['ci_high'])}, chance {number(scores['chance'])}"
    numbers = f"({numbers}; {how}, {_units(found)})"
    is_time = scores["metric"] == "concordance"
    linear = f"A {'Cox' if is_time else 'linear'} model of {name}"
    better = f"order samples by {label!r}" if is_time else f"predict {label!r}"
    fitted = "both fitted to the training samples of each fold alone"
    p = found.get("chance", {}).get("p_value")
    permuted = "" if p is None else f" Permutation p = {p_value(p)}."
    if is_predicted:
        return f"{linear}, {fitted}, {better.replace(' ', 's ', 1)} in held-out samples {numbers}.{permuted}"
    if (
        p is not None and p <= ALPHA
    ):  # the labels fit better than shuffled ones; how well others are predicted is another question
        return (
            f"{label!r} is associated with {name} in these samples (permutation p = {p_value(p)}), but how well it can be predicted in others is open: the score of a "
            f"{'Cox' if is_time else 'linear'} model, {fitted}, cannot be told from chance {numbers}."
        )
    return f"{linear}, {fitted}, was not found to {better} better than chance {numbers}.{permuted}"


def _difference(found: Mapping[str, Any], name: str, baseline: str) -> str:
    table = found["scores"]["differences"]
    row = table[table["representation"] == name].iloc[0]
    numbers = f"(difference {number(row['difference'])}, 95% interval {number(row['ci_low'])} to {number(row['ci_high'])}, adjusted p = {p_value(row['p_adjusted'])})"
    if row["p_adjusted"] > ALPHA:
        return f"No difference between {_named(found, name)} and {_named(found, baseline)} was found on the same folds {numbers}."
    what = "better" if row["is_better"] else "worse"
    return f"The {_called(found, name)} vectors predict it {what} than {_named(found, baseline)} on the same folds {numbers}."


def _training(found: Mapping[str, Any], name: str) -> str:
    scores = found["scores"]
    trained, untrained = _row(scores, name), _row(scores, f"{name}{UNTRAINED}")
    both = f"{number(trained['mean'])} trained, {number(untrained['mean'])} with random weights"
    if trained["mean"] > untrained["mean"]:
        return f"The same network scores {both}; a single cohort cannot tell how much of that difference is chance."
    return f"Training {_called(found, name)} did not raise the score here: {both}."


def _features(found: Mapping[str, Any]) -> list[str]:
    out = []
    for name in found["asked"]["models"]:
        trust = found.get(f"trust {name}")
        if trust is None or "reason" in trust:
            continue
        row = trust["summary"].iloc[0]
        if is_trusted(row):
            table = trust["features"]
            names = list(table.loc[table["p_adjusted"] <= trust["alpha"], "feature"])[:5]
            out.append(
                f"In {_called(found, name)}, the prediction of {trust['target']!r} rests on {', '.join(names)}{_of(len(names), int(row['n_found']))} (false discovery rate "
                f"{trust['alpha']:g}; {int(row['n_seeds'])} seeds agree to Spearman {number(row['spearman_min'])} or more; "
                f"{int(row['n_permutations_with_findings'])} of {int(row['n_permutations'])} permuted labelings give any feature)."
            )
    return out


def is_trusted(row: Mapping[str, Any]) -> bool:
    """Whether attributions may be quoted: seeds agree, something is found, and next to nothing under permuted labels.

    Parameters
    ----------
    row
        Of ``TrustResult.summary()``.
    """
    is_quiet = row["n_permutations_with_findings"] <= 0.1 * row["n_permutations"]
    return bool(row["n_found"] > 0 and row["spearman_min"] >= 0.7 and is_quiet)


def _not(found: Mapping[str, Any], *, is_predicted: bool) -> list[str]:
    scores, asked, design = found["scores"], found["asked"], found["cohort"]["design"]
    out = []
    summary = scores["summary"]
    best = summary.iloc[0]["representation"]
    if best != asked["primary"]:
        out.append(
            f"The score of {best} as if it had been the only one: it is the best of {len(summary)}, picked after seeing the scores."
        )
    if not is_predicted:
        out.append(f"That {asked['label_key']!r} cannot be predicted: not found does not mean absent.")
    n_units = scores["n_samples"] if design["groups"] is None else design["groups"]["n"]
    n_events = (found["cohort"].get("label") or {}).get("n_events", FEW_UNITS)
    if min(n_units, n_events) < FEW_UNITS:
        few = f"{n_units} independent samples leave" if n_units < FEW_UNITS else f"{n_events} events leave"
        out.append(f"How well the label is predicted: {few} every score open.")
    if design["groups"] is None:
        out.append(
            "That it holds in new donors: no donor column was given, and samples of one donor may be on both sides of a split."
        )
    if asked["batch_key"] is None:
        out.append("That it is biology and not the batch: no batch column was given.")
    elif found.get("confounding", {}).get("reason"):
        out.append(f"That it is biology and not the batch: {_lower(found['confounding']['reason'])}")
    for name in asked["models"]:
        trust = found.get(f"trust {name}")
        if trust is not None and "reason" not in trust and not is_trusted(trust["summary"].iloc[0]):
            out.append(f"Which features {_called(found, name)} rests on: its attributions do not pass their checks.")
    out.append("That it holds in another study, or causes anything: a single cohort cannot show either.")
    return out


def _without_label(found: Mapping[str, Any]) -> str:
    cohort, asked = found["cohort"], found["asked"]
    part = found[f"fit {asked['primary']}"]
    health = part.get("health")
    rank = number(health["effective_rank"].iloc[0], 1) if isinstance(health, pd.DataFrame) else None
    spread = (
        "" if rank is None else f", whose vectors by {_named(found, asked['primary'])} vary along {rank} directions"
    )
    return f"The cohort has {len(cohort['samples'])} samples with {cohort['n_cells']:,} cells in all{spread}. No label was predicted."


def _of(n_named: int, n_found: int) -> str:
    return f" and {n_found - n_named} more" if n_found > n_named else ""


def _lower(text: str) -> str:
    """A sentence after a colon; names in quotes and abbreviations stay as they are."""
    return text[:1].lower() + text[1:] if text[:2].istitle() else text

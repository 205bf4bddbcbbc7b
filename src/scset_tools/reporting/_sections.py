"""The sections of a page, each a function of the parts that were gathered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from scset_tools.reporting import _svg
from scset_tools.reporting._html import Html, framed, join, number, p_value, paragraphs, reason, table, tag
from scset_tools.reporting._sentences import METRICS, sentences

Found = Mapping[str, Any]
KINDS = {"class": "classes", "ordinal": "levels", "continuous": "numbers", "time_to_event": "time to an event"}
"""Kinds of labels, for people."""
PROBES = {"logistic": "logistic regression", "ridge": "ridge regression", "cox": "Cox model"}


def _folds(part: Mapping[str, Any]) -> str:
    repeats = f", repeated {part['n_repeats']} times" if part["n_repeats"] > 1 else ""
    return f"{part['n_folds']} folds{repeats}"


def publishable(found: Found) -> Html:
    """What may be written, and what not."""
    said = sentences(found)
    may = tag("div", tag("h3", "You may write"), paragraphs(said["may"]), class_="may") if said["may"] else None
    not_ = tag("div", tag("h3", "You may not write"), paragraphs(said["not"]), class_="not")
    how = tag(
        "p",
        "The representation in the first sentence was fixed before any score was known. Why: user guide, “From a score to a sentence you may publish”.",
        class_="soft",
    )
    return tag("div", may, not_, how)


def cohort(found: Found) -> Html:
    """Samples, cells, labels and design."""
    part = found["cohort"]
    samples, label = part["samples"], part["label"]
    facts = [
        (f"{len(samples):,}", "samples"),
        (f"{part['n_cells']:,}", "cells"),
        (f"{part['n_features']:,}", f"features ({part['source']})"),
        (f"{part['cells']['median']:,.0f}", f"cells per sample, {part['cells']['least']:,.0f} to {part['cells']['most']:,.0f}"),
    ]  # fmt: skip
    if part["design"]["groups"] is not None:
        facts.append((f"{part['design']['groups']['n']:,}", f"values of {part['keys']['group']!r}"))
    boxes = tag("div", [tag("div", tag("b", n), what, class_="fact") for n, what in facts], class_="figures")
    return tag(
        "div", boxes, paragraphs(part["looks"]), _labels(label), _crosstab(part), tag("h3", "Samples"), _samples(part)
    )


def _labels(label: Mapping[str, Any] | None) -> Html | None:
    if label is None:
        return tag("p", "No label was named: this report has no scores.")
    head = tag("h3", f"Label {label['key']!r} ({KINDS.get(label['kind'], label['kind'])})")
    if "range" in label:
        low, middle, high = (f"{v:,.4g}" for v in label["range"])
        events = (
            f"; the event ({label['event_key']!r}) was seen in {_samples_of(label['n_events'])}, {label['n_censored']} censored"
            if "n_events" in label
            else ""
        )
        text = f"{low} to {high}, median {middle}{events}; missing in {_samples_of(len(label['missing']))}."
        return tag("div", head, tag("p", text))
    rows = pd.DataFrame({"class": label["classes"], "n": label["sizes"]})
    if label["missing"]:
        rows.loc[len(rows)] = ["(missing)", len(label["missing"])]
    most = max(rows["n"])
    return tag("div", head, table(rows, heads={"class": "class", "n": "samples"}, cells={"n": lambda n: _bar(n, most)}))


def _samples_of(n: int) -> str:
    return "1 sample" if n == 1 else f"{n} samples"


def _bar(n: int, most: int) -> list[Html | str]:
    return [tag("span", class_="bar", style=f"--w:{n / max(most, 1):.3f}"), number(int(n))]


def _crosstab(part: Mapping[str, Any]) -> Html | None:
    counts = part["design"]["crosstab"]
    if counts is None:
        return None
    head = tag("h3", f"Design: {part['keys']['label']!r} in {part['keys']['batch']!r}")
    return tag(
        "div", head, heat(counts, caption="Samples of each label (rows) in each batch (columns).", as_share=False)
    )


def _samples(part: Mapping[str, Any]) -> Html:
    samples = part["samples"]
    heads = {"sample": "sample"}
    heads |= {role: str(part["keys"][role]) for role in ("label", "event", "group", "batch") if role in samples}
    heads["n_cells"] = "cells"
    most = samples["n_cells"].max()
    return table(
        samples, heads=heads, cells={"n_cells": lambda n: _bar(n, most)}, rows=lambda i: {"data_s": i}, tall=True
    )


def heat(frame: pd.DataFrame, *, caption: str, as_share: bool) -> Html:
    """A table whose cells are the darker the larger their value.

    Parameters
    ----------
    frame
        Numbers by row and column.
    caption
        What they are.
    as_share
        Whether they lie between 0 and 1.
    """
    most = 1.0 if as_share else float(frame.to_numpy().max() or 1)
    head = tag("tr", tag("th"), [tag("th", column, scope="col") for column in frame.columns])
    rows = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            [
                tag(
                    "td",
                    number(float(v)) if as_share else number(int(v)),
                    class_="cell number",
                    style=f"--p:{65 * v / most:.0f}%",
                )
                for v in row
            ],
        )
        for name, row in zip(frame.index, frame.to_numpy(), strict=True)
    ]
    inner = tag("table", tag("thead", head), tag("tbody", rows), class_="heat")
    return framed(inner, caption)


def scores(found: Found) -> Html | None:
    """Cross-validated scores with intervals, and differences to the baseline."""
    part = found.get("scores")
    if part is None:
        return None
    if "reason" in part:
        return reason(part)
    summary, metric = part["summary"], METRICS[part["metric"]]
    low = max(-1.0, float(summary["ci_low"].min())) if part["metric"] == "r2" else 0.0
    bounds = (min(low, part["chance"]), 1.0)
    drawn = summary.assign(interval=range(len(summary)))

    def draw(i: int) -> Html:
        row = summary.iloc[i]
        return _svg.interval(row["mean"], row["ci_low"], row["ci_high"], bounds=bounds, chance=part["chance"])

    about = (
        f"{part['n_samples']} labelled samples; {_folds(part)}; {PROBES[part['probe']]}, tuned within the training samples; every representation "
        f"was fitted anew to the training samples of each fold. Dashed line: chance, {number(part['chance'])}. 95% intervals by Nadeau and Bengio."
    )
    heads = {
        "representation": "representation",
        "mean": metric,
        "ci_low": "from",
        "ci_high": "to",
        "interval": "interval",
    }
    first = table(drawn, heads=heads, cells={"interval": draw}, caption=about)
    differences = part["differences"]
    if not len(differences):
        return tag("div", first, _chance(found))
    heads = {
        "representation": f"against {part['baseline']}",
        "difference": "difference",
        "ci_low": "from",
        "ci_high": "to",
        "p_adjusted": "adjusted p",
    }
    caption = f"Differences from {part['baseline']} on the same folds; p-values adjusted over the rows by Benjamini and Hochberg."
    second = table(differences, heads=heads, cells={"p_adjusted": p_value}, caption=caption)
    return tag("div", first, second, _chance(found))


def _chance(found: Found) -> Html | None:
    part = found.get("chance")
    if part is None or "reason" in part:
        return None if part is None else reason(part)
    return tag(
        "p",
        f"Permutation test: p = {p_value(part['p_value'])} from {part['n_permutations']} permutations of the labels, with the {part['representation']} vectors of "
        f"the maps below, which were fitted without labels, and a {PROBES[found['scores']['probe']]} that is not tuned.",
    )


def confounding(found: Found) -> Html | None:
    """What else predicts the label."""
    part = found.get("confounding")
    if part is None or "reason" in part:
        return None if part is None else reason(part)
    heads = {
        "predictor": "predictor",
        "target": "of",
        "held_out": "held out",
        "score": "score",
        "chance": "chance",
        "verdict": "verdict",
    }
    verdict = tag("p", tag("b", part["verdict"]))
    caption = f"What the same probe predicts from each predictor; the representation is {part['representation']}."
    rows = part["table"].iloc[:-1]
    return tag("div", verdict, table(rows, heads=heads, caption=caption))


def maps(found: Found) -> Html | None:
    """Maps of the samples, held-out ones apart from those trained on."""
    columns = [role for role in ("label", "batch", "group") if role in found["cohort"]["samples"]][:2]
    samples, asked = found["cohort"]["samples"], found["asked"]
    held_out = set(found["split"]["held_out"])
    shown = [n for n in dict.fromkeys([*asked["models"], asked["baseline"]]) if "xy" in found.get(f"fit {n}", {})]
    reasons = [reason(found[f"fit {n}"], n) for n in asked["models"] if "reason" in found.get(f"fit {n}", {})]
    how = tag(
        "p",
        f"First two principal components of {len(found['split']['training'])} training samples (hollow); {len(held_out)} held-out samples (filled) are projected. "
        + ("Judge by the filled ones: training has not seen them. " if held_out else "No sample could be held out. ")
        + "Point at a sample to see it in all maps and in the table of samples.",
        class_="soft",
    )
    rows = []
    roles: list[Any] = [*columns] or [None]
    for role in roles:
        codes, legend = _codes(samples[role] if role is not None else None, found, role)
        figures = [_map(found, name, codes, held_out=held_out) for name in shown]
        heading = tag("h3", f"By {found['cohort']['keys'][role]!r}") if role is not None else None
        rows.append(tag("div", heading, legend, tag("div", figures, class_="figures")))
    return tag("div", how, reasons, rows)


def _codes(column: pd.Series | None, found: Found, role: str | None) -> tuple[list[int], Html | None]:
    if column is None:
        return [0] * len(found["cohort"]["samples"]), None
    label = found["cohort"]["label"]
    if role == "label" and label is not None and "classes" in label:
        names = list(label["classes"])
    elif role == "label":  # numbers: thirds from low to high
        values = pd.to_numeric(column)
        cut = pd.qcut(values.rank(method="first"), 3, labels=False)
        names = ["lowest third", "middle third", "highest third"]
        if "n_events" in label:  # a third by time, censored or not
            names = ["shortest third of times, censored ones included", "middle third", "longest third"]
        column = pd.Series([None if pd.isna(c) else names[int(c)] for c in cut])
    else:
        names = sorted({v for v in column if v is not None and not pd.isna(v)})
    places = {name: i for i, name in enumerate(names)}
    codes = [places.get(v, -1) for v in column]
    keys = [_svg.key(i, name) for i, name in enumerate(names[:40])]
    if -1 in codes:
        keys.append(_svg.key(-1, "missing"))
    if len(names) > 40:
        keys.append(tag("span", f"and {len(names) - 40} more"))
    return codes, tag("div", keys, class_="legend")


def _map(found: Found, name: str, codes: list[int], *, held_out: set[str]) -> Html:
    part, samples = found[f"fit {name}"], found["cohort"]["samples"]
    place = {s: i for i, s in enumerate(samples["sample"])}
    ids = [place[s] for s in part["samples"]]
    titles = [_title(samples.iloc[i], found, held_out) for i in ids]
    shares = [number(100 * s, 0) for s in part["share"]]
    drawn = _svg.scatter(
        np.asarray(part["xy"], dtype=float),
        codes=[codes[i] for i in ids],
        is_filled=[s in held_out for s in part["samples"]],
        titles=titles,
        ids=ids,
        axes=(f"PC1 ({shares[0]} %)", f"PC2 ({shares[1]} %)"),
        label=f"Map of {len(ids)} samples by {name}",
    )
    return tag("figure", drawn, tag("figcaption", tag("b", name), f": {part['sentence']}"))


def _title(row: pd.Series, found: Found, held_out: set[str]) -> str:
    keys = found["cohort"]["keys"]
    parts = [str(row["sample"])]
    parts += [
        f"{keys[role]}: {row[role]}"
        for role in ("label", "event", "group", "batch")
        if role in row and row[role] is not None
    ]
    return "; ".join([*parts, f"{row['n_cells']:,} cells", "held out" if row["sample"] in held_out else "trained on"])


def neighbours(found: Found) -> Html | None:
    """Labels of nearest neighbours."""
    part = found.get("neighbours")
    if part is None or "reason" in part:
        return None if part is None else reason(part)
    out = []
    for name, near in part["tables"].items():
        caption = f"{name}: label of the nearest other sample (columns) for samples of each label (rows). Training samples are included; no label was used in training."
        out.append(heat(near["proportions"], caption=caption, as_share=True))
    if part["accuracy"]:
        rows = pd.DataFrame(part["accuracy"])
        heads = {
            "representation": "representation",
            "label_key": "column",
            "balanced_accuracy": "balanced accuracy",
            "chance_balanced": "chance",
            "n_samples": "held-out samples",
        }
        caption = (
            f"Held-out samples, classified by a vote of their {int(rows['n_neighbors'].iloc[0])} nearest training samples. Wanted: high for the label, near chance "
            "for the batch. Held-out samples are too few to rank representations by: see Scores."
        )
        out.append(table(rows, heads=heads, caption=caption))
    return tag("div", out, paragraphs(part["reasons"]))


def health(found: Found) -> Html:
    """Whether vectors are usable at all."""
    asked = found["asked"]
    rows, said = [], []
    for name in [*asked["models"], *asked["profiles"]]:
        part = found.get(f"fit {name}", {})
        if "sentence" in part:
            said.append((name, part["sentence"]))
        if isinstance(part.get("health"), pd.DataFrame):
            rows.append({"representation": name, **part["health"].iloc[0].to_dict()})
    of = (
        "Models are judged on the samples that they were trained on, profiles on all samples."
        if asked["models"]
        else None
    )
    sentences_ = tag("p", of, class_="soft") if of else Html("")
    sentences_ = join([sentences_, tag("ul", [tag("li", tag("b", name), f": {text}") for name, text in said])])
    if not rows:
        return sentences_
    frame = pd.DataFrame(rows)
    heads = {
        "representation": "representation",
        "effective_rank": "effective rank",
        "share_between": "variance between samples",
        "neighbors_kept": "neighbours kept by a second draw",
        "r2_n_cells": "R2 of number of cells",
        "r2_depth": "R2 of depth",
    }
    heads = {k: v for k, v in heads.items() if k in frame and frame[k].notna().any()}
    return tag("div", sentences_, table(frame, heads=heads))

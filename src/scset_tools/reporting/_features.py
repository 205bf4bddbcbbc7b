"""The section on features: what moves the scores, with the checks that it has to pass before it may be quoted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scset_tools.reporting import _svg
from scset_tools.reporting._html import Html, number, p_value, reason, table, tag
from scset_tools.reporting._sentences import is_trusted

HELD = {"ordinal": "levels", "continuous": "numbers", "time_to_event": "times to an event"}
"""What labels hold that are no classes."""


def attributions(found: Mapping[str, Any]) -> Html | None:
    """Features that move the score, with the checks they have to pass."""
    asked, out = found["asked"], []
    for name in asked["models"]:
        part = found.get(f"trust {name}")
        if part is None:
            continue
        out.append(tag("h3", name))
        out.append(reason(part) if "reason" in part else _attributions(part))
    if not out and asked["models"] and asked["kind"] not in (None, "class"):
        held = HELD[asked["kind"]]
        out.append(tag("p", f"Attributions with checks are made for classes; {asked['label_key']!r} holds {held}."))
    return tag("div", out) if out else None


def _attributions(part: Mapping[str, Any]) -> Html:
    row = part["summary"].iloc[0]
    passed = is_trusted(row)
    verdict = (
        "These attributions pass their checks."
        if passed
        else "These attributions do not pass their checks: do not quote them."
    )
    said = tag(
        "p",
        tag("b", verdict),
        f" {part['sentence']} Integrated gradients add up to the change of the score to within {row['completeness_error_max']:.1%}.",
    )
    frame = part["features"]
    most = float((frame["mean"].abs() + frame["sd"]).max())
    drawn = frame.assign(bar=range(len(frame)))
    heads = {
        "feature": "feature",
        "mean": "contribution",
        "sd": "sd of seeds",
        "bar": "",
        "z": "z",
        "p_adjusted": "adjusted p",
    }
    cells = {
        "mean": lambda v: number(v, 3),
        "sd": lambda v: number(v, 3),
        "bar": lambda i: _svg.signed_bar(float(frame["mean"].iloc[i]), float(frame["sd"].iloc[i]), most),
        "p_adjusted": p_value,
    }
    n = part["n_features"]
    shown = f"all {n} features" if n == len(frame) else f"the {len(frame)} largest of {n} features"
    caption = f"Contribution to the log-odds of {part['target']!r}, mean over seeds; {shown}. z and p compare it with permuted labels."
    out = [said, table(drawn, heads=heads, cells=cells, caption=caption)]
    groups = part["groups"]
    if len(groups):
        caption = "The same, summed over features, by group of cells."
        heads = {"group": "cells", "mean": "contribution", "std": "sd of seeds"}
        out.append(table(groups, heads=heads, cells={"mean": cells["mean"], "std": cells["sd"]}, caption=caption))
    return tag("div", out)

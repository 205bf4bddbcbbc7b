"""What is in a cohort: samples, cells, labels, and a design that may give a label away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from scset_tools import _labels
from scset_tools.reporting._request import Request

FEW_CELLS = 50
"""Samples with fewer cells are named: the shares of rare cells in them are chance."""
MANY_CATEGORIES = 30
"""A cross table of more rows or columns would say nothing."""
FEW_EVENTS = 20
"""Fewer events than this are named: intervals of the concordance are then wide whatever the number of samples."""
NUMBERS = ("continuous", "time_to_event")
"""Kinds of labels without a list of classes or levels."""


def describe(request: Request) -> dict[str, Any]:
    """Samples, cells per sample, labels and design.

    Parameters
    ----------
    request
        The request.

    Returns
    -------
    ``samples`` (table), ``n_cells``, ``n_features``, ``features`` (the first), ``cells`` (quantiles per sample), ``label`` and ``design`` (None
    where no label is named), ``looks`` (sentences on what to look at).
    """
    obs, n_cells = request.obs, request.obs["n_cells"].to_numpy()
    table = pd.DataFrame({"sample": obs.index.astype(str)})
    for role, key in zip(
        ("label", "group", "batch"), (request.label_key, request.groups_key, request.batch_key), strict=True
    ):
        if key is not None:
            table[role] = request.text_of(key)
        if role == "label" and request.events is not None:
            table["event"] = [None if pd.isna(e) else "seen" if e else "censored" for e in request.events]
    table["n_cells"] = n_cells
    names = request.adata.var_names if request.use_rep is None else []
    found: dict[str, Any] = {
        "samples": table,
        "n_cells": int(n_cells.sum()),
        "n_features": _n_features(request),
        "features": [str(name) for name in names[:200]],
        "source": request.source,
        "keys": {
            "label": request.label_key,
            "event": request.event_key,
            "group": request.groups_key,
            "batch": request.batch_key,
        },
        "cells": {q: float(np.quantile(n_cells, v)) for q, v in (("least", 0), ("median", 0.5), ("most", 1))},
        "label": _label(request),
        "design": _design(request, table),
    }
    found["looks"] = _notes(request, table, found)
    return found


def _n_features(request: Request) -> int:
    adata = request.adata
    return int(adata.n_vars if request.use_rep is None else adata.obsm[request.use_rep].shape[1])


def _label(request: Request) -> dict[str, Any] | None:
    if request.label_key is None:
        return None
    column = request.labels
    missing = [str(name) for name in column.index[column.isna()]]
    found: dict[str, Any] = {"key": request.label_key, "kind": request.kind, "missing": missing}
    if request.kind in NUMBERS:
        values = _labels.read_numbers(column)
        values = values[np.isfinite(values)]
        found["range"] = [float(values.min()), float(np.median(values)), float(values.max())]
        if request.events is not None:
            found["event_key"] = request.event_key
            found["n_events"], found["n_censored"] = (int((request.events == seen).sum()) for seen in (True, False))
        return found
    read = _labels.read_classes(column, kind=request.kind)
    sizes = np.bincount(read.codes[read.codes >= 0], minlength=len(read.names))
    return found | {"classes": list(read.names), "sizes": [int(s) for s in sizes]}


def _design(request: Request, table: pd.DataFrame) -> dict[str, Any]:
    """Label against batch, and whether groups have several samples and several labels."""
    found: dict[str, Any] = {"crosstab": None, "is_nested": None, "groups": None}
    has_classes = request.label_key is not None and request.kind not in NUMBERS
    if has_classes and "batch" in table:
        known = table.dropna(subset=["label", "batch"])
        crosstab = pd.crosstab(known["label"], known["batch"])
        if max(crosstab.shape) <= MANY_CATEGORIES:
            found["crosstab"] = crosstab
        found["is_nested"] = bool(len(crosstab)) and bool(((crosstab > 0).sum(axis=0) <= 1).all())
    if "group" in table:
        per_group = table.dropna(subset=["group"]).groupby("group")
        several = int((per_group.size() > 1).sum())
        mixed = int((per_group["label"].nunique() > 1).sum()) if request.label_key is not None else 0
        found["groups"] = {"n": int(per_group.ngroups), "n_several": several, "n_mixed": mixed}
    return found


def _notes(request: Request, table: pd.DataFrame, found: dict[str, Any]) -> list[str]:
    """What a reader should know before the rest."""
    notes = []
    few = table.loc[table["n_cells"] < FEW_CELLS, "sample"]
    if len(few):
        of = f"{len(few)} of {len(table)} samples {'have' if len(few) > 1 else 'has'}"
        notes.append(f"{of} fewer than {FEW_CELLS} cells: {_names(few)}. Rare cells cannot be counted in them.")
    least, most = found["cells"]["least"], found["cells"]["most"]
    if most > 10 * max(least, 1):
        notes.append(
            f"The largest sample has {most / max(least, 1):.0f} times the cells of the smallest: see under Scores whether the number of cells predicts the label."
        )
    label = found["label"]
    if label is not None:
        if label["missing"]:
            notes.append(
                f"{label['key']!r} is missing for {len(label['missing'])} of {len(table)} samples, {_names(label['missing'])}: they are "
                "shown in the maps and left out of the scores."
            )
        if 0 < label.get("n_censored", 0) and label["n_events"] < FEW_EVENTS:
            notes.append(
                f"Only {label['n_events']} of {label['n_events'] + label['n_censored']} samples have a seen event: concordance counts only pairs whose "
                "shorter time ends in an event, so that its intervals are wide."
            )
        if "sizes" in label and min(label["sizes"]) < request.cv:
            rare = label["classes"][int(np.argmin(label["sizes"]))]
            notes.append(
                f"The class {rare!r} has {min(label['sizes'])} samples, fewer than the {request.cv} folds: its score rests on very little."
            )
        if request.groups_key is None:
            notes.append(
                "No donor column was given (groups_key). If some donors have several samples, the scores below are too optimistic."
            )
        if request.batch_key is None:
            notes.append("No batch column was given (batch_key): whether batches predict the label was not tested.")
    if found["design"]["is_nested"]:
        notes.append(
            f"Each value of {request.batch_key!r} occurs with a single value of {request.label_key!r}: no method can tell the two apart here."
        )
    groups = found["design"]["groups"]
    if groups is not None and groups["n_several"]:
        mixed = (
            f", {groups['n_mixed']} of them with several values of {request.label_key!r} (a paired design)"
            if groups["n_mixed"]
            else ""
        )
        notes.append(
            f"{groups['n_several']} of {groups['n']} values of {request.groups_key!r} have several samples{mixed}: folds keep the samples of one value "
            "together, and they count as one unit of evidence."
        )
    return notes


def _names(values: Sequence[object]) -> str:
    """The first names of samples, for people."""
    shown = ", ".join(str(value) for value in list(values)[:5])
    return shown if len(values) <= 5 else f"{shown} and {len(values) - 5} more"

"""What is in a cohort: samples, cells, labels, and a design that may give a label away."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from scset_tools import _checks, _labels
from scset_tools.reporting._request import Request

FEW_CELLS = 50
"""Samples with fewer cells are named: the shares of rare cells in them are chance."""
MANY_CATEGORIES = 30
"""A cross table of more rows or columns would say nothing."""


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
    table["n_cells"] = n_cells
    names = request.adata.var_names if request.use_rep is None else []
    found: dict[str, Any] = {
        "samples": table,
        "n_cells": int(n_cells.sum()),
        "n_features": _n_features(request),
        "features": [str(name) for name in names[:200]],
        "source": request.source,
        "keys": {"label": request.label_key, "group": request.groups_key, "batch": request.batch_key},
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
    if request.kind == "continuous":
        values = _labels.read_numbers(column)
        values = values[np.isfinite(values)]
        return found | {"range": [float(values.min()), float(np.median(values)), float(values.max())]}
    read = _labels.read_classes(column, kind=request.kind)
    sizes = np.bincount(read.codes[read.codes >= 0], minlength=len(read.names))
    return found | {"classes": list(read.names), "sizes": [int(s) for s in sizes]}


def _design(request: Request, table: pd.DataFrame) -> dict[str, Any]:
    """Label against batch, and whether groups have several samples and several labels."""
    found: dict[str, Any] = {"crosstab": None, "is_nested": None, "groups": None}
    has_classes = request.label_key is not None and request.kind != "continuous"
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
        notes.append(f"{of} fewer than {FEW_CELLS} cells: {_checks.first(few)}. What is rare in them is not seen.")
    least, most = found["cells"]["least"], found["cells"]["most"]
    if most > 10 * max(least, 1):
        notes.append(
            f"The largest sample has {most / max(least, 1):.0f} times the cells of the smallest: see whether the number of cells predicts the label."
        )
    label = found["label"]
    if label is not None:
        if label["missing"]:
            notes.append(
                f"{label['key']!r} is missing for {len(label['missing'])} of {len(table)} samples, {_checks.first(label['missing'])}: they are "
                "in the maps, not in the scores."
            )
        if "sizes" in label and min(label["sizes"]) < request.cv:
            rare = label["classes"][int(np.argmin(label["sizes"]))]
            notes.append(
                f"The class {rare!r} has {min(label['sizes'])} samples, fewer than the {request.cv} folds: scores rest on very little."
            )
        if request.groups_key is None:
            notes.append(
                "No column of donors was named: if donors have several samples, the scores are too good. Name it to keep donors whole."
            )
        if request.batch_key is None:
            notes.append("No column of batches was named: whether a batch gives the label away was not asked.")
    if found["design"]["is_nested"]:
        notes.append(
            f"Every value of {request.batch_key!r} has one value of {request.label_key!r}: no method can tell the two apart here."
        )
    groups = found["design"]["groups"]
    if groups is not None and groups["n_several"]:
        mixed = (
            f", {groups['n_mixed']} of them with several values of {request.label_key!r} (a paired design)"
            if groups["n_mixed"]
            else ""
        )
        notes.append(
            f"{groups['n_several']} of {groups['n']} values of {request.groups_key!r} have several samples{mixed}: folds keep them whole, and they "
            "count as one unit of evidence."
        )
    return notes

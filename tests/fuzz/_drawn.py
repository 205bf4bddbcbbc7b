"""Cohorts drawn by hypothesis: what they hold, and as what the odd copy of each is dressed up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st

names = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=6)

ID_TYPES = ["object", "category", "string", "str", "Int64", "int", "uint8", "float", "bytes", "tuple", "date", "period"]
ID_TYPES += ["mixed", "cat_of_int", "cat_of_string", "ordered"]
OF_TEXT = ("object", "category", "string", "str", "bytes", "cat_of_string", "ordered")
STORAGES = ["dense", "fortran", "float16", "float64", "longdouble", "int16", "int64", "uint8", "bool", "object"]
STORAGES += ["masked", "matrix", "csr", "csr_int", "csr_float64", "csr_array", "csc", "csc_array", "coo"]
STORAGES += ["twice", "unsorted", "explicit_zeros", "h5_dense", "h5_csr", "h5_csc", "zarr", "dask", "dask_csr"]
PLACES = ["X", "layer", "obsm", "frame"]
NAME_TYPES = ["object", "string", "str", "category"]
COLUMNS = [
    "lists",
    "dicts",
    "mixed",
    "date",
    "missing",
    "Int64",
    "interval",
    "bool_or_none",
    "bytes",
    "twice",
    "tuple",
    "nan",
]
FILES = ["h5ad", "backed", "lazy", "zarr"]
LABELS = {
    "class": ["object", "category", "string", "unused", "backwards", "cat_of_string"],
    "binary": ["int", "bool", "boolean", "Int64", "float", "uint8", "text", "cat_of_int", "cat_of_bool", "truth"],
    "levels": ["int", "float", "ordered", "ordered_text", "Int64", "text"],
    "number": ["float", "float32", "Float64", "decimal", "object", "text", "int"],
}
"""How the labels of each family may be held; the plain copy holds text, 0 and 1, ordered categories, and floats."""
FAULTS = [
    "nan",
    "inf",
    "-inf",
    "beyond",
    "hidden",
    "no_sample",
    "same_text",
    "list_ids",
    "text_column",
    "cube",
    "complex",
]
FAULTS += ["two", "varies", "list_labels", "infinite_label", "no_type", "other_class"]


@dataclass
class Cohort:
    """The content, and how it is dressed up."""

    x: np.ndarray
    sample: np.ndarray  # number of the sample of each cell
    ids: list[str]  # names of the samples, as the plain copy has them
    features: list[str]
    types: np.ndarray
    labels: np.ndarray  # number of the label of each sample, -1 where there is none
    classes: list[str]  # names of two labels
    keys: dict[str, str]  # of the columns: sample, type, label
    odd: dict[str, Any] = field(default_factory=dict)


@st.composite
def cohorts(draw: st.DrawFn, tasks: list[tuple[str, str]]) -> Cohort:
    """A cohort of some samples, and how the odd copy is dressed up."""
    n_samples, n_features = draw(st.integers(6, 9)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    sample = np.repeat(np.arange(n_samples), rng.integers(1, 5, n_samples))
    x = rng.integers(0, 4, (len(sample), n_features)) + (rng.random((len(sample), n_features)) < 0.5)
    x[:, 0] += 1  # no cell without signal
    column_names = draw(st.lists(names, min_size=6, max_size=6, unique=True))
    type_names = draw(st.lists(names, min_size=2, max_size=2, unique=True))
    types = np.asarray(type_names, object)[(rng.random(len(sample)) < 0.5).astype(int)]
    types[:2] = type_names
    task = draw(st.sampled_from(tasks))
    families = [*LABELS] if task[0] == "probe" else ["class", "binary"]
    family = draw(st.sampled_from(families))
    n_labels = {"levels": 3, "number": n_samples}.get(family, 2)
    labels = rng.permutation(np.arange(n_samples) % n_labels)
    if draw(st.booleans()):
        labels[rng.integers(n_samples)] = -1
    odd = {
        "ids": draw(st.sampled_from(ID_TYPES)),
        "storage": draw(st.sampled_from(STORAGES)),
        "place": draw(st.sampled_from(PLACES)),
        "features": draw(st.sampled_from(NAME_TYPES)),
        "cells": draw(st.sampled_from(NAME_TYPES)),
        "family": family,
        "label": draw(st.sampled_from(LABELS[family])),
        "missing": draw(st.sampled_from([None, np.nan, pd.NA])),
        "columns": draw(st.lists(st.sampled_from(COLUMNS), max_size=3, unique=True)),
        "column_names": column_names[3:],
        "fault": draw(st.sampled_from([None] * 8 + FAULTS)),
        "file": draw(st.sampled_from([None] * 4 + FILES)),
        "is_view": draw(st.booleans()),
        "task": task,
        "order": rng.permutation(len(sample)),
        "rng": rng,
    }
    if odd["fault"] == "hidden":  # anndata's views have no masks
        odd["is_view"] = False
    if odd["storage"] == "object":  # text after a file
        odd["file"] = None
    if odd["fault"] in ("hidden", "same_text", "no_sample", "list_ids", "list_labels"):  # not after a file
        odd["file"] = None
    if odd["fault"] in ("cube", "text_column", "hidden", "complex"):
        odd["place"] = {"cube": "obsm", "text_column": "frame"}.get(odd["fault"], "X")
    features = draw(st.lists(names, min_size=n_features, max_size=n_features, unique=True))
    ids = draw(st.lists(names, min_size=n_samples, max_size=n_samples, unique=True)) if odd["ids"] in OF_TEXT else None
    classes = sorted(draw(st.lists(names, min_size=2, max_size=2, unique=True)))
    keys = dict(zip(("sample", "type", "label"), column_names, strict=False))
    return Cohort(
        x.astype(np.float32), sample, id_names(odd["ids"], ids, n_samples), features, types, labels, classes, keys, odd
    )


def id_values(kind: str, ids: list[str] | None, n: int) -> list[Any]:
    """The ids as the odd copy holds them."""
    made: dict[str, Any] = {
        **dict.fromkeys(("Int64", "int", "uint8", "cat_of_int"), range(3, 3 + n)),
        "float": [3.0 + i for i in range(n)],
        "tuple": [("d", i) for i in range(n)],
        "date": [pd.Timestamp(2020, 1, 1 + i) for i in range(n)],
        "period": list(pd.period_range("2020-01", periods=n, freq="M")),
        "mixed": [i if i % 2 else f"s{i}" for i in range(n)],
    }
    return list(made[kind]) if kind in made else list(ids or [])


def id_names(kind: str, ids: list[str] | None, n: int) -> list[str]:
    """The ids as the plain copy names them."""
    return [str(int(v)) if kind == "float" else str(v) for v in id_values(kind, ids, n)]

"""What a column of labels is: its kind, the order, names and matching of its classes, its missing values and its numbers.

Models, evaluation and plots all ask here, so that a column means the same to each of them. The order of rows and of unordered
categories means nothing: such classes are sorted by value.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from scset_tools import _checks

Kind = Literal["class", "ordinal", "continuous", "time_to_event"]
KINDS: tuple[Kind, ...] = ("class", "ordinal", "continuous", "time_to_event")

MISSING_TEXTS = frozenset(
    {"", "nan", "NaN", "NAN", "NA", "N/A", "n/a", "None", "null", "NULL", "<NA>", "NaT", "inf", "-inf"}
)
"""Texts that mostly are missing or failed values which a file or ``astype(str)`` has turned into text; "none" is a level of many scales."""

_INTEGER = re.compile(r"[+-]?(0|[1-9]\d*)(\.0*)?")
_TRUTH = {"true": 1, "false": 0}


@dataclass(frozen=True)
class Classes:
    """A column read as classes."""

    codes: np.ndarray
    """Number of the class of each row, -1 where missing, (n,), int64."""
    values: np.ndarray
    """The classes as the column holds them: by the order of an ordered category, otherwise by value, (n_classes,)."""
    names: tuple[str, ...]
    """The same as text. Of two classes the second is the positive one: the higher level, the larger number, True."""


# ---- kind


def guess_kind(column: pd.Series) -> Kind:
    """The kind of a column of labels for which none was named.

    Ordered categories of more than two levels are ordinal; numbers of more than two values continuous, be they few or
    whole; all else is classes: text, booleans, categories without an order, and whatever has two values.

    Raises ValueError for what is neither, such as lists or times.
    """
    _refuse_times(column)
    n_values = len(_factorize(column)[1])
    if n_values > 2 and is_ordered(column):
        return "ordinal"
    if n_values > 2 and is_number(column):
        return "continuous"
    return "class"


def is_ordered(column: pd.Series) -> bool:
    """Whether a column is an ordered category."""
    return isinstance(column.dtype, pd.CategoricalDtype) and bool(column.dtype.ordered)


def is_number(column: pd.Series) -> bool:
    """Whether a column holds numbers, whatever its dtype; booleans and categories do not."""
    if pd.api.types.is_object_dtype(column.dtype):
        return pd.api.types.infer_dtype(column, skipna=True) in (
            "integer",
            "floating",
            "mixed-integer-float",
            "decimal",
        )
    return pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)


# ---- classes


def read_classes(column: pd.Series, *, kind: str = "class") -> Classes:
    """A column as classes, or with ``kind="ordinal"`` as levels from the lowest to the highest.

    Raises
    ------
    ValueError
        If two values are the same as text (1 and "1"), levels are asked of texts that have no order, or values cannot be
        classes, such as lists or infinite numbers.

    Warns
    -----
    UserWarning
        If a class is called as missing values are ("nan", "NA", "None").
    """
    if kind == "ordinal":
        _refuse_times(column)
    codes, unique = _factorize(column)
    order: Sequence[int] = range(len(unique))  # that of the categories
    if not is_ordered(column):
        order = _order(unique) if kind == "class" else _order_of_levels(unique, column)
        unique = [unique[i] for i in order]
    names = tuple(name_of(v) for v in unique)
    require_distinct(unique, names, column)
    if not is_ordered(column):  # its levels were named one by one
        _warn_of_missing_texts(column, unique)
    place = np.append(np.argsort(list(order)), -1).astype(np.int64)  # code -1 picks the last
    return Classes(place[codes], pd.Index(unique).to_numpy(copy=True), names)


def match_classes(
    column: pd.Series, known: Sequence[Any] | np.ndarray, *, way_out: str = "", allow_new: bool = False
) -> np.ndarray:
    """Number of the known class of each row, -1 where missing, (n,), int64.

    What was an integer may come back from a file as text, a float or a boolean: it is taken where only one class can be
    meant ("1", 1.0 and True for 1).

    Parameters
    ----------
    column
        Labels of new data.
    known
        The classes as they were registered.
    way_out
        Last sentence of the message about classes that are not known.
    allow_new
        Take classes that are not known for missing.

    Raises
    ------
    ValueError
        If a class is not known, or two values of the column mean the same one.
    """
    known = list(known)
    codes, unique = _factorize(column)
    require_distinct(unique, [name_of(v) for v in unique], column)
    code_of = {key: i for i, v in reversed(list(enumerate(known))) for key in _spellings(v, known)}
    exact = {name_of(v): i for i, v in enumerate(known)}
    found = {v: exact.get(name_of(v), code_of.get(name_of(v).lower(), -1)) for v in unique}
    unseen = [v for v in unique if found[v] < 0]
    if unseen and not allow_new:
        here, there = _types(unseen), _types(known)
        types = "" if here == there else f"; type {here} here, {there} in training"
        msg = (
            f"{_where(column)} has {len(unseen)} categories the model was not trained on: {_checks.first(unseen)} "
            f"(known: {_checks.first(known, 20)}{types}). {way_out}"
        )
        raise ValueError(msg.strip())
    taken = [c for c in found.values() if c >= 0]
    if len(set(taken)) < len(taken):
        same = next(c for c in taken if taken.count(c) > 1)
        culprits = [repr(v) for v in unique if found[v] == same]
        msg = f"{_where(column)} spells the class {name_of(known[same])!r} in several ways: {', '.join(culprits)}. Use one of them."
        raise ValueError(msg)
    return np.asarray([*(found[v] for v in unique), -1], dtype=np.int64)[codes]


def name_of(value: Any) -> str:
    """The name of a class: whole numbers are called the same whether they are stored as integers or floats."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _factorize(column: pd.Series) -> tuple[np.ndarray, list]:
    """Number of the value of each row, -1 where missing, and the values that occur, in the order of categories if there are any."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, present = column.cat.codes.to_numpy(), np.unique(column.cat.codes.to_numpy())
        present = present[present >= 0]
        place = np.full(len(column.cat.categories) + 1, -1)
        place[present] = np.arange(len(present))
        unique = list(column.cat.categories[present])
        _refuse_infinite(column, unique)
        return place[codes], unique
    try:
        codes, unique = pd.factorize(column)
    except TypeError as error:
        value = next(v for v in column if not pd.api.types.is_hashable(v))
        msg = f"{_where(column)} holds {type(value).__name__} values, which cannot be labels. Make it text or numbers."
        raise ValueError(msg) from error
    _refuse_infinite(column, list(unique))
    return codes, list(unique)


def _refuse_infinite(column: pd.Series, values: list) -> None:
    """An infinite number is a division by zero or a failed reading; it is no class of its own."""
    if not any(isinstance(v, (float, np.floating)) and np.isinf(v) for v in values):
        return
    rows = column.index[[isinstance(v, (float, np.floating)) and bool(np.isinf(v)) for v in column]]
    _raise_infinite(column, rows)


def _raise_infinite(column: pd.Series, rows: pd.Index) -> None:
    msg = (
        f"{_where(column)} is infinite for {len(rows)} of {len(column)} rows (first: {_checks.first(rows)}). Correct them, or "
        "set them to missing."
    )
    raise ValueError(msg)


def _spellings(value: Any, known: list) -> list[str]:
    """Other ways to write a class, in small letters, that can mean no other class."""
    name, names = name_of(value).lower(), {name_of(v).lower() for v in known}
    if name in _TRUTH and names <= set(_TRUTH):
        return [name, str(_TRUTH[name]), f"{_TRUTH[name]}.0"]
    if not _INTEGER.fullmatch(name):
        return []
    whole = str(int(float(name)))
    is_truth = names <= {"0", "1", "0.0", "1.0"}
    return [whole, f"{whole}.0", *(["false", "true"][int(whole)] for _ in range(is_truth))]


def _order(values: list) -> list[int]:
    """Positions of the values from the smallest to the largest; of several types, numbers first, then by text."""
    try:
        return sorted(range(len(values)), key=values.__getitem__)
    except TypeError:
        is_text = [not isinstance(v, (int, float, np.number)) for v in values]
        return sorted(range(len(values)), key=lambda i: (is_text[i], name_of(values[i])))


def _order_of_levels(values: list, column: pd.Series) -> list[int]:
    """Positions of the values in the order of the numbers that they are or spell, none of them infinite or NaN."""
    try:
        numbers = [float(v) for v in values]
    except (TypeError, ValueError) as error:
        msg = (
            f"{_where(column)} is called ordinal, but has no order: {_checks.first(values)} would be ordered by alphabet. "
            f"To go on, make it an ordered category, lowest level first: obs[{column.name!r}] = pd.Categorical("
            f"obs[{column.name!r}], categories=[...], ordered=True)."
        )
        raise ValueError(msg) from error
    without_place = [v for v, number in zip(values, numbers, strict=True) if not np.isfinite(number)]
    if without_place:
        rows = column.index[column.isin(without_place).to_numpy()]
        msg = (
            f"{_where(column)} is called ordinal, but {_checks.first(without_place)} in {len(rows)} of {len(column)} rows (first: "
            f"{_checks.first(rows)}) has no place among its levels. Correct these values, or set them to missing."
        )
        raise ValueError(msg)
    return sorted(range(len(values)), key=lambda i: numbers[i])


def require_distinct(values: list, names: Sequence[str], column: pd.Series) -> None:
    """Raise ValueError naming two of the distinct values of a column that have one name, such as 1 and "1"."""
    twice = pd.Index(names)[pd.Index(names).duplicated()].unique()
    if len(twice):
        same = [v for v, n in zip(values, names, strict=True) if n == twice[0]]
        culprits = " and ".join(f"{v!r} ({type(v).__name__})" for v in same)
        msg = (
            f"{_where(column)} has values that differ in type only: {culprits}. If they are the same class, make them text: "
            f"obs[{column.name!r}] = obs[{column.name!r}].astype(str); otherwise rename one."
        )
        raise ValueError(msg)


def _warn_of_missing_texts(column: pd.Series, values: list) -> None:
    odd = [v for v in values if isinstance(v, str) and v.strip() in MISSING_TEXTS]
    if odd:
        rows = column.index[column.isin(odd).to_numpy()]
        warnings.warn(
            f"{_where(column)} holds the text {_checks.first(odd)} in {len(rows)} of {len(column)} rows (first: "
            f"{_checks.first(rows, 3)}), which is taken for a class. If it stands for a missing value, make it one: "
            f"obs[{column.name!r}] = obs[{column.name!r}].astype(object).replace({dict.fromkeys(odd)!r}).",
            UserWarning,
            stacklevel=4,
        )


# ---- numbers


def read_numbers(column: pd.Series, *, kind: str = "continuous", way_out: str = "") -> np.ndarray:
    """A column as numbers, NaN where missing, (n,), float64. Texts that spell numbers are taken.

    Raises
    ------
    ValueError
        If values are no numbers, or times, or a number is infinite.
    """
    _refuse_times(column)
    if pd.api.types.is_numeric_dtype(column.dtype):
        out = column.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        codes, values = _factorize(column)
        wrong = [v for v in values if pd.isna(pd.to_numeric(v, errors="coerce"))]
        if wrong:
            msg = f"{_where(column)} must hold numbers for a target of kind {kind!r}, but holds {_checks.first(wrong)} (type {_types(wrong)}). {way_out}"
            raise ValueError(msg.strip())
        out = np.array([*(float(v) for v in values), np.nan])[codes]
    is_infinite = np.isinf(out)
    if is_infinite.any():
        _raise_infinite(column, column.index[is_infinite])
    return out


def _refuse_times(column: pd.Series) -> None:
    """Raise ValueError for dates and durations, which are neither classes with an order nor numbers."""
    dtype = column.dtype.categories.dtype if isinstance(column.dtype, pd.CategoricalDtype) else column.dtype
    held = pd.api.types.infer_dtype(column, skipna=True) if pd.api.types.is_object_dtype(dtype) else str(dtype)
    if held.startswith(("timedelta", "duration")):
        msg = (
            f"{_where(column)} holds durations ({held}), whose unit a model cannot know. Make them numbers first, for example "
            f"days: obs[{column.name!r}] = obs[{column.name!r}] / pd.Timedelta(days=1)."
        )
        raise ValueError(msg)
    if held.startswith(("datetime", "date", "timestamp", "period", "time")):
        msg = (
            f"{_where(column)} holds dates ({held}), which are neither classes nor numbers. Make them numbers, for example "
            f"days since the first: (obs[{column.name!r}] - obs[{column.name!r}].min()) / pd.Timedelta(days=1), or text."
        )
        raise ValueError(msg)


def _where(column: pd.Series) -> str:
    return f"adata.obs[{column.name!r}]"


def _types(values: Sequence[Any]) -> str:
    """Types of values, for a message; numpy's are Python's."""
    return " and ".join(sorted({type(v.item() if isinstance(v, np.generic) else v).__name__ for v in values}))

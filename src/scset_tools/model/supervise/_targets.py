"""What is predicted: columns of ``obs`` with their kind, and the labels of samples or cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scset_tools import _checks, _events, _labels

if TYPE_CHECKING:
    from anndata import AnnData

Keys = str | Sequence[str] | Mapping[str, str]
"""One column of ``obs``, several, or columns with their kind."""


@dataclass(frozen=True)
class Target:
    """One label to predict."""

    name: str
    """Column of ``adata.obs``; of a time to an event, that of the time."""
    kind: str
    """``"class"``, ``"ordinal"``, ``"continuous"`` or ``"time_to_event"``."""
    registry_key: str = ""
    """Where the labels are registered, if they are."""
    classes: tuple[str, ...] = ()
    """Names of the classes, for ordinal labels from lowest to highest."""
    event_key: str | None = None
    """Of a time to an event: column that says whether the event was seen."""


def read_kinds(
    obs: pd.DataFrame,
    keys: Keys,
    event_key: str | Mapping[str, str] | None = None,
    *,
    argument: str = "label_key",
) -> dict[str, tuple[str, str | None]]:
    """Column to kind and column of the event: as given, or as :func:`scset_tools._labels.guess_kind` reads the column.

    Parameters
    ----------
    obs
        Of the cells or samples.
    keys
        Columns, or columns with their kind. A column with an ``event_key`` is a time to an event.
    event_key
        Column that says whether the event was seen, for all columns or by column.
    argument
        How messages call ``keys``.
    """
    given: dict[str, str | None]
    if isinstance(keys, Mapping):
        given = {str(k): str(v) for k, v in keys.items()}
    else:
        given = dict.fromkeys([keys] if isinstance(keys, str) else [str(k) for k in keys])
    if not given:
        msg = f"{argument} is empty: name at least one column of adata.obs, or leave it out."
        raise ValueError(msg)
    found: dict[str, tuple[str, str | None]] = {}
    for key, asked in given.items():
        event = event_key.get(key) if isinstance(event_key, Mapping) else event_key
        if asked is not None and asked not in _labels.KINDS:
            msg = f"{argument} has the kind {asked!r} for {key!r}; kinds are {_checks.first(_labels.KINDS)}."
            raise ValueError(msg)
        if asked not in (None, "time_to_event") and isinstance(event_key, Mapping) and event is not None:
            msg = f"event_key={event!r} belongs to a time to an event, but {key!r} is called {asked!r}."
            raise ValueError(msg)
        if asked == "time_to_event" and event is None:
            msg = (
                f"{key!r} is a time to an event: name the column that says whether the event was seen, event_key='...'."
            )
            raise ValueError(msg)
        is_guess = key in obs.columns and event is None
        guessed: str = _labels.guess_kind(_checks.obs_column(obs, key)) if is_guess else "class"
        kind = asked or ("time_to_event" if event is not None else guessed)
        found[key] = kind, event if kind == "time_to_event" else None
    return found


def sample_or_cell_column(adata: AnnData, key: str, sample_key: str | None) -> pd.Series:
    """A column of ``obs``: with ``sample_key`` one value per sample, or a ValueError that names the samples in which it varies."""
    if sample_key is None:
        return _checks.require_obs(adata, key)
    return _checks.require_constant_within_sample(adata, key, sample_key)


def read_target(
    adata: AnnData, key: str, kind: str, *, event_key: str | None, sample_key: str | None, rows: np.ndarray
) -> tuple[Target, np.ndarray]:
    """A target and its labels.

    Parameters
    ----------
    adata
        The cells.
    key, kind, event_key
        From :func:`read_kinds`.
    sample_key
        Column of the sample of each cell; None for labels of cells.
    rows
        One row of each sample, or the rows of cells: classes are those that occur there.

    Returns
    -------
    The target, and codes (-1 where missing), numbers, or times and events (NaN where missing) of ``rows``.
    """
    column = sample_or_cell_column(adata, key, sample_key).iloc[rows]
    if column.isna().all():
        what = "cells" if sample_key is None else "samples"
        msg = f"adata.obs[{key!r}] is missing for all {len(column)} {what}: there is nothing to learn from."
        raise ValueError(msg)
    classes: tuple[str, ...] = ()
    if kind in ("class", "ordinal"):
        read = _labels.read_classes(column, kind=kind)
        values, classes = read.codes, read.names
    elif kind == "continuous":
        values = _labels.read_numbers(column, way_out=f"To predict classes: {{{key!r}: 'class'}}.")
    else:
        values = _times(column, sample_or_cell_column(adata, str(event_key), sample_key).iloc[rows])
        is_known = ~np.isnan(values).any(1)
        _events.check_times(values[is_known, 0], values[is_known, 1] > 0, column[is_known])
    return Target(key, kind, "", classes, event_key), values


def match_target(adata: AnnData, target: Target, *, sample_key: str | None, rows: np.ndarray) -> np.ndarray:
    """Labels of new data for a target that was learned, as :func:`read_target` gives them; an unknown class raises."""
    column = sample_or_cell_column(adata, target.name, sample_key).iloc[rows]
    if target.kind in ("class", "ordinal"):
        return _labels.match_classes(column, target.classes)
    if target.kind == "continuous":
        return _labels.read_numbers(column)
    return _times(column, sample_or_cell_column(adata, str(target.event_key), sample_key).iloc[rows])


def is_known(values: np.ndarray, kind: str) -> np.ndarray:
    """Which labels are not missing, (n,)."""
    if kind in ("class", "ordinal"):
        return values >= 0
    return ~(np.isnan(values).any(1) if values.ndim > 1 else np.isnan(values))


def require_two_values(column: pd.Series, key: str, kind: str) -> None:
    """Raise ValueError if there is nothing to tell apart."""
    values = pd.Series(column.unique()).dropna().unique()  # of few values: dropping cells hashes the names of all
    if len(values) == 1 and kind != "time_to_event":
        what = "classes" if kind != "continuous" else "values"
        msg = (
            f"adata.obs[{key!r}] has one value only ({values[0]!r}) in {column.notna().sum()} labelled cells: a classifier "
            f"needs at least two {what}. Is {key!r} the right column, or was the data subset to one group?"
        )
        raise ValueError(msg)


def _times(time: pd.Series, event: pd.Series) -> np.ndarray:
    """Times and events (n, 2), NaN in a row where either is missing."""
    out = np.full((len(time), 2), np.nan)
    is_there = (time.notna() & event.notna()).to_numpy()
    if is_there.any():
        out[is_there, 0] = _labels.read_numbers(time[is_there], kind="time_to_event")
        out[is_there, 1] = _events.read_events(event[is_there])
    return out

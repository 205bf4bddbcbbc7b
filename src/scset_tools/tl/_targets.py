"""What is predicted: one label per sample, read from ``obs`` and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from scset_tools import _checks, _events, _labels
from scset_tools._labels import KINDS, Kind

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Target:
    """The labels of the samples that have one.

    Attributes
    ----------
    key
        Column of ``obs`` that was read.
    kind
        How it is predicted and scored.
    rows
        Row numbers of the labelled samples, shape (n,). Every other array here is aligned with it.
    values
        Class codes (int64), levels (ordinal), numbers, or times, shape (n,).
    is_event
        Time-to-event only: True where the event was seen, False where the sample was censored, shape (n,).
    classes
        Names of the classes that the codes stand for. Empty for other kinds.
    n_missing
        Number of samples left out because their label (or event flag) is missing.
    """

    key: str
    kind: Kind
    rows: np.ndarray
    values: np.ndarray
    is_event: np.ndarray | None
    classes: tuple[str, ...]
    n_missing: int

    def __len__(self) -> int:
        return len(self.values)

    def take(self, positions: np.ndarray) -> Target:
        """The same target for some of its samples; ``positions`` count labelled samples, not rows."""
        event = None if self.is_event is None else self.is_event[positions]
        return Target(
            self.key, self.kind, self.rows[positions], self.values[positions], event, self.classes, self.n_missing
        )

    @property
    def codes(self) -> np.ndarray:
        """Numbers of the distinct values, of time and event together, (n,)."""
        codes = np.unique(self.values, return_inverse=True)[1]
        return codes if self.is_event is None else codes * 2 + self.is_event

    @property
    def levels(self) -> np.ndarray:
        """The distinct values, ascending."""
        return np.unique(self.values)

    def strata(self, cv: int) -> np.ndarray:
        """Codes to stratify ``cv`` folds by: classes; at most five bins of equal size for numbers; the event flag."""
        if self.kind == "class":
            return self.values.astype(np.int64)
        if self.is_event is not None:
            return self.is_event.astype(np.int64)
        n_bins = int(np.clip(len(self) // cv, 1, 5))
        ranks = pd.Series(self.values).rank(method="average").to_numpy() - 0.5
        return np.minimum(ranks * n_bins / len(self), n_bins - 1).astype(np.int64)


def read_target(samples: AnnData, label_key: str, *, target: str = "auto", event_key: str | None = None) -> Target:
    """Read and check a label.

    Parameters
    ----------
    samples
        Sample-level AnnData.
    label_key
        Column of ``samples.obs``. For time-to-event: the time until the event or the end of follow-up, positive.
    target
        ``"class"``, ``"ordinal"`` (an ordered category, or numbers that are levels), ``"continuous"`` or
        ``"time_to_event"``. ``"auto"``: time-to-event if there is an ``event_key``; ordinal for an ordered category of more than
        two levels; continuous for numbers with more than two values; otherwise class.
    event_key
        Column of ``samples.obs`` that says whether the event was seen (True or 1) or the sample was censored (False or
        0). A column of the opposite meaning ("censored") has to be turned round first.

    Returns
    -------
    Samples whose label is missing are left out and counted in ``n_missing``.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If no label is present, if all are the same, if two classes are the same as text, if ``target`` does not fit the
        column, or if fewer than two events were seen.

    Warns
    -----
    UserWarning
        If numbers are called a time ("survival_days") and another column may say whether the event was seen.
    """
    if target not in ("auto", *KINDS):
        msg = f"target must be 'auto' or one of {KINDS}, not {target!r}."
        raise ValueError(msg)
    column = _checks.require_obs(samples, label_key)
    if target == "time_to_event" and event_key is None:
        msg = "target='time_to_event' needs event_key: the column of obs that says whether the event was seen."
        raise ValueError(msg)
    if event_key is not None and target not in ("auto", "time_to_event"):
        msg = f"event_key={event_key!r} belongs to target='time_to_event', not to target={target!r}."
        raise ValueError(msg)
    is_labelled = column.notna().to_numpy()
    if event_key is not None:
        is_labelled = is_labelled & _checks.require_obs(samples, event_key).notna().to_numpy()
    rows = np.flatnonzero(is_labelled)
    n_missing = len(column) - len(rows)
    if len(rows) == 0:
        msg = f"obs[{label_key!r}] is missing for all {len(column)} samples: there is nothing to predict."
        raise ValueError(msg)
    column = column.iloc[rows]
    if target != "auto":
        kind = cast("Kind", target)
    else:
        kind = _labels.guess_kind(column) if event_key is None else "time_to_event"
        if kind == "continuous":
            _events.hint_at_events(_checks.obs_frame(samples), label_key)
    event: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    if kind == "class":
        read = _labels.read_classes(column)
        values, classes = read.codes, read.names
    elif kind == "ordinal" and not _labels.is_number(column):
        read = _labels.read_classes(column, kind=kind)
        values = read.codes.astype(float) if _labels.is_ordered(column) else read.values.astype(float)[read.codes]
    else:
        way_out = "To predict classes, pass target='class'." if kind == "continuous" else ""
        values = _labels.read_numbers(column, kind=kind, way_out=way_out)
    if kind == "time_to_event":
        event = _events.read_events(_checks.require_obs(samples, str(event_key)).iloc[rows])
        _events.check_times(values, event, column)
    elif len(np.unique(values)) < 2:
        msg = (
            f"obs[{label_key!r}] has the same value {str(column.iloc[0])!r} in all {len(rows)} labelled samples "
            f"({n_missing} are missing): there is nothing to tell apart."
        )
        raise ValueError(msg)
    return Target(label_key, kind, rows, values, event, classes, n_missing)

"""Times until an event: which events were seen, and whether they have an order to predict."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from scset_tools import _checks

_TIMES = {"time", "survival", "follow", "followup", "os", "pfs", "dfs", "rfs", "efs", "ttp", "tte"}
_UNITS = {"days", "weeks", "months", "years"}
_EVENTS = {
    *(
        "event",
        "events",
        "status",
        "death",
        "dead",
        "died",
        "deceased",
        "relapse",
        "relapsed",
        "progression",
        "progressed",
    ),
    *("recurrence", "recurred", "censored", "censoring"),
}
"""Words in the names of columns that hold times to an event (units: with "to", as in days_to_death), and events."""


def read_events(column: pd.Series) -> np.ndarray:
    """Flags from booleans, 0/1, or the texts of either, which is what a category read from a file often holds, (n,), bool.

    True where the event was seen, False where the sample was censored. Raises ValueError for any other value.
    """
    known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    flags = column.astype(str).str.lower().map(known)
    if flags.isna().any():
        odd = column[flags.isna().to_numpy()].unique()
        msg = (
            f"obs[{column.name!r}] must hold True/1 (event seen) or False/0 (censored), but holds {_checks.first(odd)}. "
            "Make a boolean column first."
        )
        raise ValueError(msg)
    return flags.to_numpy(dtype=bool)


def check_times(times: np.ndarray, event: np.ndarray, column: pd.Series) -> None:
    """Raise ValueError unless times (n,) and events (n,) have an order to predict; the column is named in messages."""
    if (times <= 0).any():
        bad = column.index[times <= 0]
        msg = f"Times in obs[{column.name!r}] must be positive, but {len(bad)} are not (first: {_checks.first(bad)})."
        raise ValueError(msg)
    if event.sum() < 2:
        n_seen = "None" if not event.any() else "Only 1"
        msg = (
            f"{n_seen} of {len(event)} samples has a seen event (the others are censored): at least 2 are needed, in practice many "
            "more. If event_key holds a 'censored' flag, turn it round first."
        )
        raise ValueError(msg)
    if not (times > times[event].min()).any() and np.all(event):
        msg = (
            f"All {len(event)} events of obs[{column.name!r}] are at the same time {times[0]:g}: none is earlier than another, and "
            "there is no order to predict."
        )
        raise ValueError(msg)


def hint_at_events(obs: pd.DataFrame, label_key: str) -> None:
    """Warn where a label that is read as numbers is called a time, and another column of ``obs`` says whether the event was seen.

    Nothing is guessed: numbers they stay.
    """
    words = _checks.words_of(label_key)
    if not (words & _TIMES or ("to" in words and words & _UNITS)):
        return
    columns = [str(c) for c in obs.columns if str(c) != label_key and _checks.words_of(str(c)) & _EVENTS]
    columns = [c for c in columns if _is_flag(_checks.obs_column(obs, c))]
    if columns:
        turned = ", turned round," if _checks.words_of(columns[0]) & {"censored", "censoring"} else ""
        warnings.warn(
            f"obs[{label_key!r}] is read as numbers. If it is a time to an event, name the column that says whether the event was "
            f"seen, which obs[{columns[0]!r}]{turned} may be: event_key=...; target='continuous' says that it is a number.",
            UserWarning,
            stacklevel=3,
        )


def _is_flag(column: pd.Series) -> bool:
    """Whether a column can be read as events, of which some were seen and some not."""
    known = column.dropna()
    try:
        return len(known.unique()) == 2 and len(np.unique(read_events(known))) == 2
    except (TypeError, ValueError):
        return False

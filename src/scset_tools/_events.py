"""Times until an event: which events were seen, and whether they have an order to predict."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scset_tools import _checks


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

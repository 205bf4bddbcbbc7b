"""The folder of a run: can it be written, is another process at work in it, and whose run is it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from scset_tools import _checks
from scset_tools._lock import held
from scset_tools._whole import unwritable

SHOWN = 3
"""How many differences a message lists."""


def require_room(folder: Path, n_bytes: int) -> None:
    """Make the folder and try a file of a size in it, so that a run does not find out after its first epoch.

    Parameters
    ----------
    folder
        Folder to write to.
    n_bytes
        Size that must fit.

    Raises
    ------
    OSError
        If the folder cannot be made, nothing may be written there, or there is no room.
    """
    trial = folder / f".trial-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with trial.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, max(1, n_bytes))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot set room aside
            raise unwritable(folder, error) from error
    finally:
        with suppress(OSError):
            trial.unlink(missing_ok=True)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes; the system lets go of it when this one ends, however it ends.

    Parameters
    ----------
    folder
        Folder of the run.

    Raises
    ------
    RuntimeError
        If another process holds it.
    """

    def complaint(holder: str) -> str:
        return (
            f"{folder} is in use: {holder} trains there now. Give this run a folder of its own (checkpoint_dir), or "
            "wait for the other to end."
        )

    with held(folder / ".lock", complaint):
        yield


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What distinguishes two runs, one line each.

    Parameters
    ----------
    then, now
        Descriptions in plain types: a value, a list of names, or a mapping of them, by aspect.
    """
    found = []
    for aspect in [*now, *(a for a in then if a not in now)]:
        a, b = then.get(aspect), now.get(aspect)
        if a == b:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            keys = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
            shown = "; ".join(f"{key}: {_short(a, key)} then, {_short(b, key)} now" for key in keys[:SHOWN])
            more = f"; and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
            found.append(f"{aspect} ({shown}{more})")
        elif isinstance(a, list) and isinstance(b, list):
            gone, new = [x for x in a if x not in set(b)], [x for x in b if x not in set(a)]
            words = [f"{len(gone)} of then are gone: {_checks.first(gone, SHOWN)}"] if gone else []
            words += [f"{len(new)} are new: {_checks.first(new, SHOWN)}"] if new else []
            found.append(f"{aspect} ({'; '.join(words) or 'in another order'})")
        else:
            found.append(f"{aspect} ({a!r} then, {b!r} now)")
    return found


def _short(values: Mapping[str, Any], key: str) -> str:
    text = repr(values[key]) if key in values else "none"
    return text if len(text) <= 80 else f"{text[:77]}..."

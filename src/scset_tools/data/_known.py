"""What is known of the values of a store: they were looked at as they were written, and need no second look while they stay."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

KNOWN = "scset_tools"
"""Attribute of a store with what is known of its ``X``."""


def known_of(source: Any) -> dict[str, Any]:
    """What :func:`scset_tools.pp.write_store` found of the values it wrote, for as long as they are those it wrote.

    Parameters
    ----------
    source
        Array of cells x features.

    Returns
    -------
    ``is_finite``, ``is_canonical`` (columns ascend in each row, none comes twice), ``has_zero_cells``, ``has_negative_values`` and ``root``,
    the group of the whole store; empty for any other array, and for one that was written to since.
    """
    if hasattr(source, "picked_from"):  # what holds of all columns holds of some
        whole = known_of(source.picked_from)
        return {name: whole[name] for name in ("is_finite", "has_negative_values") if name in whole}
    group = getattr(source, "group", source)
    store = getattr(group, "store", None)
    folder = getattr(store, "root", None)
    if folder is None or getattr(group, "path", None) != "X":
        return {}
    import zarr

    root = zarr.open_group(store, mode="r")
    known: Any = root.attrs.get(KNOWN)
    if not isinstance(known, dict) or known.get("shape") != [int(n) for n in source.shape]:
        return {}
    if known.get("fingerprint") != fingerprint(Path(folder) / "X"):
        return {}
    return {**known, "root": root}


def fingerprint(folder: Path) -> str:
    """Names and sizes of all files of an array: a copy has the same, compressed pieces of other values hardly ever.

    Parameters
    ----------
    folder
        Folder of the array.
    """
    found = sorted(
        f"{Path(file.path).relative_to(folder).as_posix()} {file.stat().st_size}" for file in files_in(folder)
    )
    return f"{len(found)}-{zlib.crc32(' '.join(found).encode()):08x}"


def files_in(folder: str | Path) -> list[os.DirEntry]:
    """All files of a folder and those below it.

    Parameters
    ----------
    folder
        The folder.
    """
    found: list[os.DirEntry[str]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            found += files_in(entry.path) if entry.is_dir() else [entry]
    return found

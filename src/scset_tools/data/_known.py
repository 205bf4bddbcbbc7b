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
    require_there(source)
    import zarr

    root = zarr.open_group(store, mode="r")
    known: Any = root.attrs.get(KNOWN)
    if not isinstance(known, dict) or known.get("shape") != [int(n) for n in source.shape]:
        return {}
    if not _is_as_written(Path(folder) / "X", known.get("fingerprint")):
        return {}
    return {**known, "root": root}


def require_there(source: Any) -> None:
    """Raise if the folder of a zarr array was moved while it was open: zarr reads a piece without a file as zeros.

    Parameters
    ----------
    source
        Array of cells x features.

    Raises
    ------
    FileNotFoundError
        If its folder is no longer there.
    """
    source = getattr(source, "picked_from", source)
    group = getattr(source, "group", source)
    root = getattr(getattr(group, "store", None), "root", None)
    if isinstance(root, str | os.PathLike) and not (Path(root) / str(getattr(group, "path", ""))).exists():
        msg = f"{root} is no longer there: it was moved, renamed or removed while it was open. Put it back, or open it anew where it is now."
        raise FileNotFoundError(msg)


def fingerprint(folder: Path) -> dict[str, str]:
    """What tells the files of an array from any others: their names and sizes; these and the times of writing; their contents.

    Parameters
    ----------
    folder
        Folder of the array.
    """
    files = _listed(folder)
    return {
        "files": _sum_of([f"{name} {size}" for name, size, _ in files]),
        "written": _sum_of([f"{name} {size} {time}" for name, size, time in files]),
        "contents": _contents(folder, [name for name, *_ in files]),
    }


_SAME: set[tuple[str, str]] = set()
"""Folders whose contents were compared in this process, each with names, sizes and times of its files then."""


def _is_as_written(folder: Path, known: Any) -> bool:
    """Whether the files are those of a fingerprint.

    An edit changes the time of a file at least. A copy has other times as well: only then contents are read, which is
    quicker than to decode and look at all values, once in a process.
    """
    if not isinstance(known, dict):  # of a store written before times and contents were noted
        return False
    files = _listed(folder)
    written = _sum_of([f"{name} {size} {time}" for name, size, time in files])
    if written == known.get("written"):
        return True
    if _sum_of([f"{name} {size}" for name, size, _ in files]) != known.get("files"):
        return False
    key = str(folder.resolve()), written
    if key not in _SAME:
        if _contents(folder, [name for name, *_ in files]) != known.get("contents"):
            return False
        _SAME.add(key)
    return True


def _listed(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of writing of each file of a folder, by name."""
    stats = [(Path(file.path).relative_to(folder).as_posix(), file.stat()) for file in files_in(folder)]
    return sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def _sum_of(lines: list[str]) -> str:
    return f"{len(lines)}-{zlib.crc32(' '.join(lines).encode()):08x}"


def _contents(folder: Path, names: list[str]) -> str:
    """Checksum of the contents of files, in their order."""
    total = 0
    for name in names:
        with (folder / name).open("rb") as file:
            while block := file.read(2**22):
                total = zlib.crc32(block, total)
    return f"{total:08x}"


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

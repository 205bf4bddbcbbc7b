"""Files and folders that appear whole or not at all: written beside their place, then put there in one step."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_AT_FDCWD, _EXCHANGE = -100, 2


def replace(new: Path, target: Path) -> None:
    """Put a file or folder in the place of another, which is then where the new one was, or gone.

    Parameters
    ----------
    new
        What was written, on the same file system.
    target
        Where it belongs; may be there already.
    """
    if not (target.is_dir() and not target.is_symlink()):
        os.replace(new, target)
    elif not _exchange(new, target):
        old = new.with_name(f"{new.name}.old")
        target.rename(old)
        try:
            new.rename(target)
        except OSError:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Let two folders change places in one step; whether the system can (Linux)."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return rename(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _EXCHANGE) == 0


@contextmanager
def folder(path: Path, *, own: tuple[str, ...]) -> Iterator[Path]:
    """A folder to write to that becomes ``path`` at the end; after an error nothing is left of it, and ``path`` is as it was.

    Parameters
    ----------
    path
        Folder to make or to replace. Files in it that are not in ``own`` are kept.
    own
        Names of the files that are replaced, or dropped if they are not written again.

    Raises
    ------
    OSError
        If it cannot be written; names the folder.
    """
    path = path.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        outer = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent))
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        place = outer / "new"
        place.mkdir()
        if path.is_dir():
            place.chmod(path.stat().st_mode & 0o7777)
        yield place
        for kept in path.iterdir() if path.is_dir() else ():
            if kept.name not in own and not (place / kept.name).exists():
                _link(kept, place / kept.name)
        replace(place, path)
    except OSError as error:
        raise unwritable(path, error) from error
    except RuntimeError as error:  # torch and HDF5, on a full disk
        if not any(
            word in str(error) for word in ("PytorchStreamWriter", "inline_container", "unexpected pos", "Unable to")
        ):
            raise
        raise unwritable(path, OSError(0, str(error).splitlines()[0])) from error
    finally:
        shutil.rmtree(outer, ignore_errors=True)


def unwritable(path: Path, error: OSError, hint: str = "") -> OSError:
    """The error of an output that cannot be written, with its name.

    Parameters
    ----------
    path
        The output.
    error
        What the system said.
    hint
        What else the user should know.
    """
    if str(path) in str(error.strerror):
        return error
    return OSError(error.errno, f"{path} cannot be written: {error.strerror or error}.{hint}")


def _link(old: Path, new: Path) -> None:
    if old.is_dir():
        shutil.copytree(old, new, symlinks=True)
        return
    try:
        os.link(old, new, follow_symlinks=False)
    except OSError:
        shutil.copy2(old, new, follow_symlinks=False)

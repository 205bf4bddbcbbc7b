"""Files in and out: an input is read or named, an output is there whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scset_tools import _keys, _whole
from scset_tools._unreadable import why_no_cells
from scset_tools.cli._exit import CommandError, ExitCode

if TYPE_CHECKING:
    import pandas as pd


def read_cells(path: Path, *, is_backed: bool = False) -> Any:
    """Read an h5ad or h5mu file, a zarr folder with its values left on disk, or a folder of FCS files, or say why it cannot be read.

    Parameters
    ----------
    path
        File to read.
    is_backed
        Whether ``X`` stays on disk.
    """
    if path.is_dir() and path.suffix == ".zarr":
        from scset_tools.pp import read_store

        try:
            return read_store(path)
        except (ValueError, OSError) as error:
            raise CommandError(str(error), ExitCode.UNREADABLE) from error
    if path.is_dir() and any(p.suffix.lower() == ".fcs" for p in path.iterdir()):
        from scset_tools.pp import read_fcs

        try:
            return read_fcs(path)
        except (ValueError, OSError, ImportError) as error:
            raise CommandError(str(error), ExitCode.UNREADABLE) from error
    if path.suffix == ".h5mu" and path.is_file():
        return _read_h5mu(path, is_backed=is_backed)
    if path.is_dir() or why_no_cells(path) is not None:
        msg = why_no_cells(path) or f"{path} is a folder. A zarr store has the ending .zarr."
        raise CommandError(msg, ExitCode.UNREADABLE)
    from anndata import read_h5ad

    try:
        return read_h5ad(path, backed="r" if is_backed else None)
    except PermissionError as error:
        msg = f"{path} may not be read: {error.strerror or error}."
        raise CommandError(msg, ExitCode.UNREADABLE) from error
    except Exception as error:  # h5py and anndata raise whatever the broken part of a file leads to
        msg = f"{path} cannot be read as an h5ad file: {error}"
        raise CommandError(msg, ExitCode.UNREADABLE) from error


def _read_h5mu(path: Path, *, is_backed: bool) -> Any:
    """The MuData of a file."""
    import warnings

    from mudata import read_h5mu

    if is_backed:
        msg = f"--backed leaves X of an h5ad file on disk; {path} is read whole. Leave it out."
        raise CommandError(msg, ExitCode.USAGE)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Cannot join columns with the same name")  # of a gene and its protein
            warnings.filterwarnings("ignore", ".*names are not unique")
            return read_h5mu(path)
    except Exception as error:  # as of an h5ad file
        msg = f"{path} cannot be read as an h5mu file: {error}"
        raise CommandError(msg, ExitCode.UNREADABLE) from error


def place_beside(path: Path) -> Path:
    """An empty folder in that of a path: whether it may be written to is found by writing, which permissions do not tell.

    Parameters
    ----------
    path
        File or folder that will be made.
    """
    parent = path.absolute().parent
    try:
        return Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=parent))
    except OSError as error:
        why = (error.strerror or error) if parent.is_dir() else "there is no such folder"
        msg = f"{path} cannot be written: {why} ({parent})."
        raise CommandError(msg, ExitCode.UNWRITABLE) from error


@contextmanager
def output(
    path: Path | None, *, overwrite: bool = False, is_folder: bool = False, endings: Sequence[str] = ()
) -> Iterator[Path | None]:
    """A place to write to that becomes ``path`` at the end; after an error or a signal nothing is left of it.

    The place is made at once and beside the target, so that a folder without write permission is found before hours of
    training, and the last step is a rename within one file system.

    Parameters
    ----------
    path
        File or folder to make; None: none is asked for.
    overwrite
        Whether it may replace what is there.
    is_folder
        Whether to make a folder.
    endings
        What the name may end in; empty: anything.
    """
    if path is None:
        yield None
        return
    if endings and path.suffix.lower() not in endings:
        msg = f"{path} cannot be written: what is written here has a name that ends in {' or '.join(endings)}."
        raise CommandError(msg, ExitCode.USAGE)
    if path.exists() and not overwrite:
        msg = f"{path} is there already. Take another name, or pass --overwrite."
        raise CommandError(msg, ExitCode.UNWRITABLE)
    if path.exists() and path.is_dir() != is_folder:
        msg = f"{path} is a {'folder' if path.is_dir() else 'file'}, not a {'folder' if is_folder else 'file'}."
        raise CommandError(msg, ExitCode.UNWRITABLE)
    place = place_beside(path)
    try:
        inner = place / path.name
        yield inner
        try:
            _whole.replace(inner, path)
        except OSError as error:
            msg = f"{path} cannot be written: {error.strerror or error}."
            raise CommandError(msg, ExitCode.UNWRITABLE) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def writing(path: Path | None) -> Iterator[None]:
    """Say which output could not be written, as on a full disk, for which HDF5 and torch raise a RuntimeError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        msg = f"{path} cannot be written: {getattr(error, 'strerror', None) or error}."
        raise CommandError(msg, ExitCode.UNWRITABLE) from error


def for_spreadsheet(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose text no spreadsheet takes for a formula; see :func:`scset_tools._keys.quoted`. Numbers stay numbers.

    Parameters
    ----------
    table
        Table to write as CSV or TSV.
    """
    out = table.rename(columns=_keys.quoted)
    for i, dtype in enumerate(out.dtypes):
        if dtype.kind not in "biufcmM":
            values = [_keys.quoted(v) if isinstance(v, str) else v for v in out.iloc[:, i].astype(object)]
            out.isetitem(i, values)
    return out

"""Why a file holds no AnnData, said for who picked the wrong one; libraries only tell which byte they stumbled over."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import h5py

ZARR_MARKS = ("zarr.json", ".zgroup", ".zattrs")
TABLES = (".csv", ".tsv", ".txt", ".gz", ".xlsx")
HOW = "The user guide, “Bring your data”, shows how to make an h5ad file of it."


def why_no_cells(path: Path) -> str | None:
    """A sentence on why a path holds no AnnData, and the way out; None if nothing speaks against it.

    Only names and the first level of a file are looked at: a file that passes may still be broken.

    Parameters
    ----------
    path
        File, or folder of a zarr store.
    """
    if not path.exists():
        return f"There is no file {path}."
    if path.is_dir():
        return None if any((path / mark).exists() for mark in ZARR_MARKS) else _why_no_folder(path)
    if not os.access(path, os.R_OK):
        return None  # whoever opens it says so
    if path.stat().st_size == 0:
        return f"{path} is empty (0 bytes)."
    import h5py

    if not h5py.is_hdf5(path):
        what = (
            "a table or text"
            if path.suffix.lower() in TABLES
            else "an R object"
            if path.suffix.lower() == ".rds"
            else None
        )
        return f"{path} is no h5ad file{'' if what is None else f' but {what}'}. {HOW}"
    try:
        with h5py.File(path, "r") as file:
            return _why_no_anndata(path, file)
    except OSError:  # cut off or locked: whoever reads it says which
        return None


def _why_no_folder(path: Path) -> str:
    if (path / "matrix.mtx.gz").exists() or (path / "matrix.mtx").exists():
        return f"{path} is a 10x folder. Read it by scanpy.read_10x_mtx. {HOW}"
    return f"{path} is a folder, and no zarr store: name an h5ad file, or a store as `scset-tools prepare` writes it."


def _why_no_anndata(path: Path, file: h5py.File) -> str | None:
    import h5py

    if "obs" in file and "var" in file:
        return None if "mod" not in file else f"{path} holds a MuData: give it the ending .h5mu."
    if any("barcodes" in group for group in file.values() if isinstance(group, h5py.Group)):
        return f"{path} is a 10x file. Read it by scanpy.read_10x_h5. {HOW}"
    if "row_attrs" in file and "col_attrs" in file:
        return f"{path} is a loom file. Read it by anndata.io.read_loom. {HOW}"
    return f"{path} is an HDF5 file but no h5ad file: it has no obs and var. It holds {list(file)[:5]}."

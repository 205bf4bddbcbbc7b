"""Files that a newcomer picks by mistake: each is called what it is, with the way out."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import scset_tools as sst
from scset_tools._unreadable import why_no_cells


def hdf5(path, *names):
    with h5py.File(path, "w") as file:
        for name in names:
            file[name] = np.arange(3)


def folder(path, *names):
    path.mkdir()
    for name in names:
        (path / name).write_text("x")


CASES = {
    "no.h5ad": (lambda path: None, "There is no file"),
    "empty.h5ad": (lambda path: path.write_bytes(b""), "is empty"),
    "text.h5ad": (lambda path: path.write_text("hello"), "is no h5ad file. The user guide"),
    "cells.csv": (lambda path: path.write_text("a,b\n1,2\n"), "no h5ad file but a table or text"),
    "cells.rds": (lambda path: path.write_text("x"), "no h5ad file but an R object"),
    "new.h5": (lambda path: hdf5(path, "matrix/barcodes", "matrix/data"), "is a 10x file. Read it by scanpy.read_10x_h5"),
    "old.h5": (lambda path: hdf5(path, "GRCh38/barcodes"), "is a 10x file"),
    "cells.loom": (lambda path: hdf5(path, "row_attrs/Gene", "col_attrs/CellID", "matrix"), "is a loom file"),
    "two.h5ad": (lambda path: hdf5(path, "obs/x", "var/x", "mod/rna"), "give it the ending .h5mu"),
    "other.h5ad": (lambda path: hdf5(path, "x"), r"it has no obs and var. It holds \['x'\]"),
    "folder": (lambda path: folder(path), "is a folder, and no zarr store"),
    "tenx": (lambda path: folder(path, "matrix.mtx.gz"), "is a 10x folder. Read it by scanpy.read_10x_mtx"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "make", "message"), [pytest.param(n, *case, id=n) for n, case in CASES.items()])
def test_what_is_no_anndata_is_called_what_it_is(name, make, message, tmp_path):
    path = tmp_path / name
    make(path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as found:
        sst.pp.write_store(path, tmp_path / "out.zarr", sample_key="sample")
    assert str(path) in str(found.value)
    assert not (tmp_path / "out.zarr").exists()


def test_anndata_in_files_and_stores_passes(tmp_path):
    cells = sst.datasets.composition_cohort(n_samples=2, n_cells=5)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    cells.write_zarr(tmp_path / "cells.zarr")
    assert why_no_cells(tmp_path / "cells.h5ad") is None
    assert why_no_cells(tmp_path / "cells.zarr") is None


def test_a_file_that_was_cut_off_is_left_to_its_reader(tmp_path):
    cells = sst.datasets.composition_cohort(n_samples=2, n_cells=50)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    whole = (tmp_path / "cells.h5ad").read_bytes()
    (tmp_path / "cells.h5ad").write_bytes(whole[: len(whole) // 2])
    assert why_no_cells(tmp_path / "cells.h5ad") is None

"""Rows come back in the order asked for, as dense float32, from wherever the array lives."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scset_tools.data import RowReader

N, D = 30, 4
STORAGES = [
    "ndarray",
    "float64",
    "integers",
    "fortran",
    "dataframe",
    "csr_matrix",
    "csc_matrix",
    "coo_matrix",
    "csr_array",
    "csc_array",
    "h5ad_dense",
    "h5ad_csr",
    "h5ad_csc",
    "zarr_dense",
    "zarr_csr",
    "zarr_csc",
    "dask_dense",
    "dask_float64",
    "dask_csr",
]
SELECTIONS = {
    "all": np.arange(N),
    "backwards": np.arange(N)[::-1],
    "contiguous": np.arange(7, 15),
    "contiguous_shuffled": np.array([9, 7, 10, 8]),
    "scattered": np.array([28, 3, 17, 4, 0]),
    "repeats": np.array([5, 5, 2, 29, 2, 5]),
    "one": np.array([11]),
    "none": np.zeros(0, dtype=np.int64),
}


def make(storage: str, folder) -> tuple[object, np.ndarray]:
    """An array in some storage, and the values it holds."""
    x = np.random.default_rng(0).poisson(0.8, size=(N, D)).astype(np.float32)
    if storage == "ndarray":
        return x, x
    if storage == "float64":
        return x.astype(np.float64), x
    if storage == "integers":
        return x.astype(np.int64), x
    if storage == "fortran":
        return np.asfortranarray(x), x
    if storage == "dataframe":
        return pd.DataFrame(x, columns=list("abcd")), x
    if storage.startswith(("csr", "csc", "coo")):
        return getattr(sp, storage)(x), x
    place, form = storage.split("_")
    if place == "dask":
        da = pytest.importorskip("dask.array")
        lazy = da.from_array(x.astype(np.float64) if form == "float64" else x, chunks=(8, -1))
        return (lazy.map_blocks(sp.csr_matrix) if form == "csr" else lazy), x
    stored = x if form == "dense" else getattr(sp, f"{form}_matrix")(x)
    adata = ad.AnnData(stored)
    if place == "h5ad":
        adata.write_h5ad(folder / "a.h5ad")
        return ad.read_h5ad(folder / "a.h5ad", backed="r").X, x
    zarr = pytest.importorskip("zarr")
    adata.write_zarr(folder / "a.zarr")
    group = zarr.open(folder / "a.zarr", mode="r")
    return (group["X"] if form == "dense" else ad.io.sparse_dataset(group["X"])), x


@pytest.mark.parametrize("storage", STORAGES)
def test_rows_come_in_the_order_asked_for(storage, tmp_path):
    source, x = make(storage, tmp_path)
    reader = RowReader(source)
    assert (reader.n_rows, reader.n_features) == (N, D)
    for name, rows in SELECTIONS.items():
        block = reader(rows)
        np.testing.assert_array_equal(block, x[rows], err_msg=name)
        assert type(block) is np.ndarray
        assert block.dtype == np.float32
        assert block.flags.c_contiguous


@pytest.mark.parametrize("storage", STORAGES)
def test_chunks_go_through_the_storage_once(storage, tmp_path):
    source, x = make(storage, tmp_path)
    starts, blocks = zip(*RowReader(source).chunks(7), strict=True)
    assert starts == (0, 7, 14, 21, 28)
    assert [len(b) for b in blocks] == [7, 7, 7, 7, 2]
    np.testing.assert_array_equal(np.concatenate(blocks), x)
    assert all(b.dtype == np.float32 and type(b) is np.ndarray for b in blocks)


def test_a_block_holds_about_64_mib():
    assert RowReader.rows_per_chunk(2000) * 2000 * 4 <= 2**26 < (RowReader.rows_per_chunk(2000) + 1) * 2000 * 4
    assert RowReader.rows_per_chunk(2**30) == 1
    assert RowReader.rows_per_chunk(0) == 2**24
    assert [start for start, _ in RowReader(np.zeros((3, 2))).chunks()] == [0]


def test_columns_compressed_on_disk_are_read_once(tmp_path):
    source, x = make("h5ad_csc", tmp_path)
    reader = RowReader(source)
    assert not reader.is_out_of_core
    source.group.file.close()
    np.testing.assert_array_equal(reader([3, 1]), x[[3, 1]])


def test_rows_of_a_file_in_one_piece_are_one_slice():
    class Spy:
        shape = (N, D)

        def __init__(self):
            self.asked = []

        def __getitem__(self, rows):
            self.asked.append(rows)
            return np.zeros((N, D))[rows]

    spy = Spy()
    reader = RowReader(spy)
    reader(np.array([6, 5, 7]))
    reader(np.array([9, 2]))
    assert spy.asked[0] == slice(5, 8)
    assert spy.asked[1].tolist() == [2, 9]


@pytest.mark.parametrize("storage", STORAGES)
def test_sparse_rows_hold_the_same_values_without_becoming_dense(storage, tmp_path):
    source, x = make(storage, tmp_path)
    reader = RowReader(source)
    for name, rows in SELECTIONS.items():
        got = reader.csr(rows)
        assert sp.issparse(got)
        assert got.format == "csr"
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got.toarray(), x[rows], err_msg=name)

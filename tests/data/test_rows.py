"""Rows come back in the order asked for, as dense float32, from wherever the array lives."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scset_tools.data import RowReader
from scset_tools.data._rows import Named

pytestmark = pytest.mark.platform

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


def test_rows_of_a_file_that_lie_together_are_read_in_ranges():
    class Spy:
        shape = (1000, 2)

        def __init__(self):
            self.x = np.random.default_rng(0).random(self.shape).astype(np.float32)
            self.asked = []

        def __getitem__(self, rows):
            self.asked.append(rows)
            return self.x[rows]

    rng = np.random.default_rng(1)
    spy = Spy()
    reader = RowReader(spy)
    reader(np.array([6, 5, 7]))
    assert spy.asked == [slice(5, 8)]
    # two whole samples and one that is drawn from, in an order of their own
    parts = np.arange(600, 650), np.arange(100, 160), np.sort(rng.choice(np.arange(300, 400), 50, replace=False))
    rows = rng.permutation(np.concatenate(parts))
    spy.asked.clear()
    np.testing.assert_array_equal(reader(rows), spy.x[rows])
    assert spy.asked == [slice(part.min(), part.max() + 1) for part in sorted(parts, key=min)]
    # scattered ones are asked for by number
    rows = rng.choice(np.arange(0, 1000, 20), 30, replace=False)
    spy.asked.clear()
    np.testing.assert_array_equal(reader(rows), spy.x[rows])
    assert len(spy.asked) == 1
    assert spy.asked[0].tolist() == sorted(rows)


@pytest.mark.parametrize("storage", STORAGES)
def test_what_lies_between_the_wanted_rows_is_not_looked_at(storage, tmp_path):
    source, x = make(storage, tmp_path)
    reader = RowReader(source)
    every_other = np.arange(0, N, 2)
    np.testing.assert_array_equal(reader(every_other[::-1]), x[every_other[::-1]])
    np.testing.assert_array_equal(reader.csr(every_other).toarray(), x[every_other])


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


# ---- what is read is what any reader of the array would get


def doubled(x: np.ndarray, share: np.ndarray) -> sp.csr_matrix:
    """Every value in two entries of its row, columns in falling order."""
    n, d = x.shape
    columns = np.tile(np.r_[np.arange(d)[::-1], np.arange(d)], (n, 1)).astype(np.int64)
    values = np.hstack([share[:, ::-1], x - share])
    return sp.csr_matrix((values.ravel(), columns.ravel(), 2 * d * np.arange(n + 1)), shape=(n, d))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int16])
def test_entries_that_stand_twice_are_summed_without_overflow_and_the_source_stays(dtype):
    x = np.random.default_rng(0).integers(2, 250, (N, D)).astype(dtype)
    source = doubled(x, x // 2)
    n_stored = source.nnz
    rows = np.array([3, 0, 7, 3])
    for form in (source, sp.csr_array(source), source.tocsc()):
        reader = RowReader(form)
        for got in (reader.csr(rows), sp.csr_array(reader(rows))):
            np.testing.assert_array_equal(got.toarray(), x[rows])
        assert reader.csr(rows).has_canonical_format
        np.testing.assert_array_equal(np.concatenate([b for _, b in reader.chunks(4)]), x)
    assert source.nnz == n_stored
    twice = np.full((2, 1), 150, np.uint8)  # 300 is beyond the type that is stored
    both = sp.csr_matrix((np.r_[150, 150, 1, 1].astype(np.uint8), [0, 0, 0, 0], [0, 2, 4]), shape=twice.shape)
    assert RowReader(both)(np.arange(2)).ravel().tolist() == [300, 2]


def test_a_row_order_and_a_whole_slice_do_not_change_the_source():
    source = doubled(np.ones((N, D), np.float32), np.full((N, D), 0.25, np.float32))
    before = source.indices.copy(), source.data.copy()
    list(RowReader(source).unchecked_chunks())
    np.testing.assert_array_equal(source.indices, before[0])
    np.testing.assert_array_equal(source.data, before[1])


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_a_masked_value_is_missing_whatever_lies_under_the_mask(dtype):
    x = np.ma.array(np.ones((N, D), dtype), mask=False)
    np.testing.assert_array_equal(RowReader(x)(np.arange(N)), 1)
    x[3, 1] = np.ma.masked
    reader = RowReader(x, Named("adata.X", [f"c{i}" for i in range(N)], [f"g{i}" for i in range(D)]))
    reader(np.arange(3))
    with pytest.raises(
        ValueError, match=r"adata.X has 1 values that are not finite \(first: cell 'c3', feature 'g1'\)"
    ):
        reader(np.arange(N))


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_matrices_objects_and_frames_are_numbers():
    x = np.arange(N * D, dtype=np.float64).reshape(N, D)
    frame = pd.DataFrame(x, columns=[f"f{i}" for i in range(D)])
    for source in (np.asmatrix(x), x.astype(object), frame, frame.astype("Int64"), frame.astype(np.float16)):
        np.testing.assert_array_equal(RowReader(source)([2, 0]), x[[2, 0]])


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (np.full((2, 2), "a"), TypeError, "adata.obsm.'r'. is of dtype <U1, but must hold real numbers"),
        (np.full((2, 2), 1j), TypeError, "complex128, but must hold real"),
        (np.full((2, 2), "a", object), TypeError, "dtype object and holds what is no number"),
        (np.zeros((2, 2, 2)), ValueError, r"must be cells x features, but has shape \(2, 2, 2\)"),
        (
            pd.DataFrame({"a": [1, 2], "t": ["x", "y"]}),
            TypeError,
            r"Column 't' of adata.obsm\['r'\] holds (object|str) values",
        ),
        (pd.DataFrame({"c": pd.Categorical([1, 2])}), TypeError, "Column 'c' of .* holds category values"),
        (pd.DataFrame({"d": pd.to_datetime(["2020", "2021"])}), TypeError, "Column 'd' of .* holds datetime64"),
    ],
)
def test_what_holds_no_numbers_is_named(source, error, message):
    with pytest.raises(error, match=message):
        RowReader(source, Named("adata.obsm['r']"))


def test_missing_values_of_a_frame_are_found_where_they_are():
    frame = pd.DataFrame({"a": pd.array([1, None, 3], dtype="Int64"), "b": [True, False, True]})
    with pytest.raises(ValueError, match=r"not finite \(first: cell 1, feature 0\)"):
        RowReader(frame)(np.arange(3))


def test_large_finite_values_whose_sum_overflows_are_read():
    x = np.full((N, D), 3e38, np.float32)
    np.testing.assert_array_equal(RowReader(x)(np.arange(N)), x)
    np.testing.assert_array_equal(RowReader(sp.csr_matrix(x)).csr(np.arange(N)).toarray(), x)


def test_a_dask_array_of_unknown_length_is_told():
    da = pytest.importorskip("dask.array")
    x = da.from_array(np.ones((N, D)), chunks=(3, D))
    with pytest.raises(ValueError, match=r"unknown chunk sizes. Call its compute_chunk_sizes\(\)"):
        RowReader(x[da.from_array(np.ones(N, bool), chunks=3)])


@pytest.mark.parametrize("dtype", ["float16", ">f4", ">f8", ">i4"])
def test_what_scipy_makes_no_sparse_array_of_is_read_as_sparse_rows_too(dtype):
    x = np.array([[0, 1.5], [2, 0]]).astype(dtype)
    got = RowReader(x).csr(np.array([1, 0]))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got.toarray(), x[::-1].astype(float))

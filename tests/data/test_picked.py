"""Columns picked as rows are read: the same as picking them from the whole array, in any storage."""

from __future__ import annotations

import pickle

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from scset_tools.data._features import check_features, stored_as
from scset_tools.data._picked import PickedColumns
from scset_tools.data._rows import Named, RowReader

COLUMNS = np.array([5, -1, 0, 3, 2])


def values():
    rng = np.random.default_rng(0)
    return (rng.poisson(0.6, (40, 7)) * rng.random((40, 7))).astype(np.float32)


def want():
    x = values()
    out = np.zeros((40, len(COLUMNS)), np.float32)
    out[:, COLUMNS >= 0] = x[:, COLUMNS[COLUMNS >= 0]]
    return out


def stored(kind, tmp_path):
    x = values()
    if kind == "dense":
        return x
    if kind == "float64":
        return x.astype(np.float64)
    if kind == "csr":
        return sparse.csr_matrix(x)
    if kind == "csc":
        return sparse.csc_array(x)
    if kind == "dask":
        return pytest.importorskip("dask.array").from_array(x, chunks=(11, 7))
    adata = ad.AnnData(sparse.csr_matrix(x) if "csr" in kind else x)
    path = tmp_path / f"cells.{kind.split()[0]}"
    if kind.startswith("zarr"):
        adata.write_zarr(path)
        import zarr

        group = zarr.open_group(str(path), mode="r")
        return ad.io.sparse_dataset(group["X"]) if "csr" in kind else group["X"]
    adata.write_h5ad(path)
    return ad.read_h5ad(path, backed="r").X


KINDS = ["dense", "float64", "csr", "csc", "dask", "h5ad csr", "h5ad dense", "zarr csr", "zarr dense"]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_the_whole_array(kind, tmp_path):
    picked = PickedColumns(stored(kind, tmp_path), COLUMNS)
    reader = RowReader(picked)
    assert picked.shape == (40, 5)
    assert reader.is_sparse == ("cs" in kind)
    rows = np.array([7, 3, 3, 39, 0, 21, 22, 23])
    np.testing.assert_array_equal(reader(rows), want()[rows])
    found = reader.csr(rows)
    assert found.has_canonical_format
    np.testing.assert_array_equal(found.toarray(), want()[rows])
    assert reader(np.zeros(0, int)).shape == (0, 5)
    blocks = list(reader.chunks(15))
    assert [start for start, _ in blocks] == [0, 15, 30]
    np.testing.assert_array_equal(np.concatenate([x for _, x in blocks]), want())


@pytest.mark.parametrize("kind", ["csr", "h5ad csr", "h5ad dense"])
def test_it_is_read_in_another_process(kind, tmp_path):
    reader = RowReader(PickedColumns(stored(kind, tmp_path), COLUMNS))
    again = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(again(np.array([4, 1])), want()[[4, 1]])


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix], ids=["dense", "sparse"])
def test_only_what_is_read_must_be_finite(form):
    x = values()
    x[3, 6] = np.nan  # of no feature of the model
    check_features(PickedColumns(form(x), COLUMNS), Named())
    x[4, 0] = np.inf
    with pytest.raises(ValueError, match=r"1 values that are not finite \(first: cell 4, feature '2'"):
        check_features(PickedColumns(form(x), COLUMNS), Named(features=["0", "1", "2", "3", "4"]))


def test_a_file_is_not_taken_for_sound_by_some_of_its_columns(tmp_path):
    x = values()
    x[3, 6] = np.nan
    ad.AnnData(x).write_h5ad(tmp_path / "a.h5ad")
    source = ad.read_h5ad(tmp_path / "a.h5ad", backed="r").X
    picked = PickedColumns(source, COLUMNS)
    assert stored_as(picked) not in (None, stored_as(source), stored_as(PickedColumns(source, COLUMNS[::-1])))
    check_features(picked, Named())
    check_features(picked, Named())
    with pytest.raises(ValueError, match="not finite"):
        check_features(source, Named())

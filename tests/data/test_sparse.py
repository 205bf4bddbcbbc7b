"""Compressed rows hold what scipy holds, survive moving and casting, and come out of a dataset in the order of the cells."""

from __future__ import annotations

import copy
import pickle

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch.plugins.precision import HalfPrecision

from scset_tools.data._dataset import SampleDataset
from scset_tools.data._sparse import SparseRows


@pytest.fixture
def matrix():
    rng = np.random.default_rng(0)
    x = rng.random((6, 5)).astype(np.float32) * (rng.random((6, 5)) < 0.4)
    x[2] = 0
    return x


def test_rows_are_those_of_scipy(matrix):
    rows = SparseRows.from_scipy(sp.csr_array(matrix))
    assert rows.shape == (6, 5)
    assert len(rows) == 6
    assert rows.dtype == torch.float32
    np.testing.assert_array_equal(rows.to_dense(), matrix)
    np.testing.assert_array_equal(rows.row_of_value(), np.nonzero(matrix)[0])
    again = SparseRows.from_dense(torch.from_numpy(matrix))
    np.testing.assert_array_equal(again.indices, rows.indices)
    np.testing.assert_array_equal(again.indptr, rows.indptr)
    np.testing.assert_array_equal(rows.with_values(2 * rows.values).to_dense(), 2 * matrix)


def test_entries_given_twice_and_out_of_order_are_put_right():
    doubled = sp.csr_array((np.array([1.0, 2, 4], np.float32), np.array([3, 0, 3]), np.array([0, 3])), shape=(1, 5))
    rows = SparseRows.from_scipy(doubled)
    assert rows.indices.tolist() == [0, 3]
    assert rows.values.tolist() == [2.0, 5.0]


def test_no_rows_and_no_values():
    empty = SparseRows.from_scipy(sp.csr_array((0, 5), dtype=np.float32))
    assert empty.to_dense().shape == (0, 5)
    zero = SparseRows.from_dense(torch.zeros(3, 5))
    assert zero.to_dense().tolist() == [[0.0] * 5] * 3


def test_a_cast_changes_the_values_alone(matrix):
    rows = SparseRows.from_scipy(sp.csr_array(matrix)).to(torch.float64)
    assert rows.values.dtype == torch.float64
    assert not rows.indices.is_floating_point()
    np.testing.assert_array_equal(rows.to("cpu").to_dense(), matrix)
    copied = pickle.loads(pickle.dumps(copy.deepcopy(rows)))
    np.testing.assert_array_equal(copied.to_dense(), matrix)


@pytest.fixture(params=["csr", "csc", "backed", "dask"])
def stored(request, adata, matrix, tmp_path):
    """The table of this room with a sparse X, in memory or not."""
    rng = np.random.default_rng(1)
    adata.X = sp.csr_matrix(adata.X * (rng.random(adata.shape) < 0.5))
    dense = adata.X.toarray()
    if request.param == "csc":
        adata.X = adata.X.tocsc()
    elif request.param == "backed":
        adata.write_h5ad(tmp_path / "a.h5ad")
        adata = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    elif request.param == "dask":
        da = pytest.importorskip("dask.array")
        blocks = [da.from_array(adata.X[i : i + 10], asarray=False) for i in range(0, adata.n_obs, 10)]
        adata.X = da.concatenate(blocks)
    yield adata, dense
    if adata.isbacked:
        adata.file.close()


def test_a_dataset_hands_out_compressed_rows_of_the_drawn_cells(stored, register):
    adata, dense = stored
    dataset = SampleDataset(register(adata), n_cells=4, seed=3, sparse=True)
    batch = dataset[2, [3, 0, 1]]
    assert isinstance(batch.x, SparseRows)
    np.testing.assert_array_equal(batch.x.to_dense(), dense[batch.rows])
    assert len(batch.x.values) == np.count_nonzero(dense[batch.rows])
    same = SampleDataset(register(adata), n_cells=4, seed=3)[2, [3, 0, 1]]
    np.testing.assert_array_equal(same.x, batch.x.to_dense())
    piece = next(iter(dataset.chunks(2, 3)))
    np.testing.assert_array_equal(piece.x.to_dense(), dense[piece.rows])


def test_a_dense_array_stays_dense(adata, register):
    assert isinstance(SampleDataset(register(adata), sparse=True)[0, [1]].x, torch.Tensor)


def test_lightning_moves_and_casts_a_batch_of_compressed_rows(stored, register):
    batch = SampleDataset(register(stored[0]), sparse=True)[0, [0, 2]]
    moved = move_data_to_device(batch, torch.device("cpu"))
    np.testing.assert_array_equal(moved.x.to_dense(), batch.x.to_dense())
    cast = HalfPrecision("bf16-true").convert_input(batch)
    assert cast.x.values.dtype == torch.bfloat16
    assert cast.x.indices.dtype == batch.x.indices.dtype
    assert cast.x.n_features == 3


def test_workers_hand_over_compressed_rows(adata, register):
    from scset_tools.data._splitter import SampleDataSplitter

    adata.X = sp.csr_matrix(adata.X)
    dense = adata.X.toarray()
    loader = SampleDataSplitter(register(adata), train_size=1.0, seed=0, sparse=True, num_workers=1).train_dataloader()
    for batch in loader:
        np.testing.assert_array_equal(batch.x.to_dense(), dense[batch.rows])
    assert isinstance(batch.x, SparseRows)

"""A reader of a file on disk can be sent to another process."""

from __future__ import annotations

import pickle

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from scset_tools.data._rows import RowReader


@pytest.mark.parametrize("kind", ["dense", "csr", "layer"])
def test_a_reader_of_a_backed_array_travels(tmp_path, kind):
    x = np.random.default_rng(0).poisson(1.0, (12, 4)).astype(np.float32)
    ad.AnnData(sparse.csr_matrix(x) if kind == "csr" else x, layers={"more": x + 1}).write_h5ad(tmp_path / "a.h5ad")
    adata = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    reader = RowReader(adata.file._file["layers/more"] if kind == "layer" else adata.X)
    rows = np.array([7, 2, 2, 11])
    sent = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(sent(rows), reader(rows))
    np.testing.assert_array_equal(sent(rows), x[rows] + (kind == "layer"))
    assert sent.is_sparse == reader.is_sparse == (kind == "csr")


def test_a_reader_in_memory_travels_as_it_is():
    reader = RowReader(np.eye(3, dtype=np.float32))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader))(np.array([2, 0])), np.eye(3)[[2, 0]])

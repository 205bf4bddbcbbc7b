"""Mean and spread of features against NumPy, and what makes features unusable."""

from __future__ import annotations

import time

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

from scset_tools.data._features import check_features, describe_source, feature_moments
from scset_tools.data._rows import Named, RowReader

pytestmark = pytest.mark.platform


@pytest.fixture
def blocks_of_seven(monkeypatch):
    monkeypatch.setattr(RowReader, "rows_per_chunk", staticmethod(lambda n_features, n_bytes=0: 7))


@pytest.mark.usefixtures("blocks_of_seven")
@pytest.mark.parametrize("store", [np.asarray, sp.csr_matrix, sp.csc_array], ids=["dense", "csr", "csc"])
def test_moments_equal_numpy(store):
    x = np.random.default_rng(0).gamma(1.0, 3.0, size=(40, 5)).astype(np.float32)
    mean, sd = feature_moments(store(x))
    assert mean.shape == sd.shape == (1, 5)
    assert mean.dtype == sd.dtype == np.float32
    np.testing.assert_allclose(mean[0], x.mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(sd[0], x.std(0, dtype=np.float64), rtol=1e-6)


@pytest.mark.usefixtures("blocks_of_seven")
def test_moments_by_group():
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 3, 50)
    x = (rng.normal(size=(50, 4)) * (1 + groups[:, None]) + 10 * groups[:, None]).astype(np.float32)
    mean, sd = feature_moments(x, groups, 4)  # nobody is in group 3
    for g in range(3):
        of_group = x[groups == g].astype(np.float64)
        np.testing.assert_allclose(mean[g], of_group.mean(0), rtol=1e-5)
        np.testing.assert_allclose(sd[g], of_group.std(0), rtol=1e-5)
    assert np.isfinite(mean[3]).all()
    assert (sd[3] == 1).all()


@pytest.mark.usefixtures("blocks_of_seven")
def test_a_constant_feature_has_spread_one():
    x = np.random.default_rng(2).normal(size=(20, 3)).astype(np.float32)
    x[:, 1] = 0.1
    mean, sd = feature_moments(x)
    assert sd[0, 1] == 1
    assert mean[0, 1] == np.float32(0.1)
    single_cell = feature_moments(x[:1])
    np.testing.assert_array_equal(single_cell[0], x[:1])
    assert (single_cell[1] == 1).all()


@pytest.mark.usefixtures("blocks_of_seven")
def test_a_feature_that_is_constant_in_one_group_far_from_the_others():
    groups = np.arange(40) % 2
    x = np.where(groups == 0, 3.3e3, np.random.default_rng(5).normal(size=40)).astype(np.float32)[:, None]
    mean, sd = feature_moments(x, groups, 2)
    assert mean[0, 0] == np.float32(3.3e3)
    assert sd[0, 0] == 1
    np.testing.assert_allclose(sd[1, 0], x[groups == 1].std(dtype=np.float64), rtol=1e-6)


@pytest.mark.usefixtures("blocks_of_seven")
def test_a_large_offset_does_not_cancel():
    x = (np.random.default_rng(3).normal(size=(200, 3)) + 1e6).astype(np.float32)
    mean, sd = feature_moments(x)
    np.testing.assert_allclose(sd[0], x.std(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(mean[0], x.mean(0, dtype=np.float64), rtol=1e-7)


@pytest.mark.usefixtures("blocks_of_seven")
def test_the_unit_of_a_feature_does_not_matter():
    x = np.random.default_rng(4).normal(size=(30, 2)).astype(np.float32)
    sd = feature_moments(x * np.float32([1, 1e-8]))[1]
    np.testing.assert_allclose(sd[0], x.std(0, dtype=np.float64) * [1, 1e-8], rtol=1e-5)


def frame(n: int, prefix: str) -> pd.Index:
    return pd.Index([f"{prefix}{i}" for i in range(n)])


@pytest.mark.usefixtures("blocks_of_seven")
@pytest.mark.parametrize("store", [np.asarray, sp.csr_matrix, sp.csc_matrix, sp.csr_array])
def test_values_that_are_not_finite_are_counted_and_named(store):
    x = np.ones((20, 3))
    x[9, 2], x[9, 0], x[17, 1], x[19, 1] = np.nan, np.inf, -np.inf, np.nan
    message = r"adata.X has 4 values that are not finite \(first: cell 'c9', feature 'g0'; cell 'c9', feature 'g2'; cell 'c17', feature 'g1'\)"
    with pytest.raises(ValueError, match=message):
        check_features(store(x), Named("adata.X", frame(20, "c"), frame(3, "g")))


@pytest.mark.usefixtures("blocks_of_seven")
@pytest.mark.parametrize("store", [np.asarray, sp.csr_matrix, sp.csc_matrix, sp.csr_array])
def test_cells_without_signal_raise_only_if_asked(store):
    x = np.ones((20, 3))
    x[[3, 15]] = 0
    named = Named("adata.X", frame(20, "c"), frame(3, "g"))
    assert check_features(store(x), named) is None
    with pytest.raises(ValueError, match=r"adata.X has 2 cells whose features are all zero \(first: \['c3', 'c15'\]\)"):
        check_features(store(x), named, forbid_zero_cells=True)


def test_explicit_zeros_of_a_sparse_matrix_are_no_signal():
    x = sp.csr_matrix(np.ones((3, 2)))
    x.data[2:4] = 0
    with pytest.raises(ValueError, match=r"1 cells whose features are all zero \(first: \['c1'\]\)"):
        check_features(x, Named("adata.X", frame(3, "c"), frame(2, "g")), forbid_zero_cells=True)


def test_an_array_has_the_name_that_users_give_it():
    assert describe_source() == "adata.X"
    assert describe_source(layer="counts") == "adata.layers['counts']"
    assert describe_source(use_rep="X_pca") == "adata.obsm['X_pca']"


@pytest.mark.filterwarnings("ignore:.*autosharding")
@pytest.mark.parametrize("form", ["h5_dense", "h5_csr", "zarr"])
def test_a_file_is_read_for_this_once_until_it_changes(form, tmp_path, monkeypatch):
    read = []
    chunks = RowReader.unchecked_chunks
    monkeypatch.setattr(RowReader, "unchecked_chunks", lambda self: read.append(1) or chunks(self))
    x = np.ones((20, 3), np.float32)

    def opened(mode="r"):
        if form == "zarr":
            return zarr.open_group(tmp_path / "x.zarr", mode=mode)
        return h5py.File(tmp_path / "x.h5", mode)

    root = opened_new(form, tmp_path)
    ad.io.write_elem(root, "x", sp.csr_matrix(x) if form == "h5_csr" else x)
    close(root)
    named = Named("adata.X", frame(20, "c"), frame(3, "g"))
    for _ in range(2):  # another model, another opening of the same file
        root = opened()
        check_features(ad.io.sparse_dataset(root["x"]) if form == "h5_csr" else root["x"], named)
        close(root)
    assert len(read) == 1
    time.sleep(0.02)  # clocks of file systems are coarse
    root = opened("r+")
    values = root["x/data"] if form == "h5_csr" else root["x"]
    values[0] = np.nan
    close(root)
    root = opened()
    with pytest.raises(ValueError, match=r"adata.X has \d values that are not finite"):
        check_features(ad.io.sparse_dataset(root["x"]) if form == "h5_csr" else root["x"], named)
    close(root)


def opened_new(form, folder):
    return zarr.open_group(folder / "x.zarr", mode="w") if form == "zarr" else h5py.File(folder / "x.h5", "w")


def close(root):
    if isinstance(root, h5py.File):
        root.close()

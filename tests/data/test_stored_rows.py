"""Rows of a sparse matrix in a file equal those of the same matrix in memory, however they are stored and asked for."""

from __future__ import annotations

import pickle

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import zarr

import scset_tools as sst
from scset_tools.data import RowReader, _known, _shards, _stored_rows
from scset_tools.data._shards import ShardedValues
from scset_tools.data._stored_rows import StoredRows

pytestmark = pytest.mark.platform

N, D = 400, 50
CHUNK, SHARD = 64, 256
STORAGES = [
    "h5ad",
    "h5ad_gzip",
    "h5ad_float64",
    "h5ad_wide",
    "zarr",
    "shards",
    "blosc",
    "bits",
    "gzip",
    "zeros",
    "store",
]


def matrix() -> sp.csr_matrix:
    """Rows of many and of few values, some of none."""
    rng = np.random.default_rng(0)
    x = rng.poisson(rng.choice([0.0, 0.05, 2.0], N)[:, None], (N, D)).astype(np.float32)
    return sp.csr_matrix(x)


def in_shards(folder, x: sp.csr_matrix, **how) -> object:
    """A sparse matrix in a zarr file, its arrays in shards."""
    group = zarr.open_group(folder / "x.zarr", mode="w", zarr_format=3)
    for name in ("data", "indices", "indptr"):
        values = getattr(x, name)
        array = group.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=(CHUNK,), shards=(SHARD,), **how
        )
        array[:] = values
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": list(x.shape)})
    return ad.io.sparse_dataset(zarr.open_group(folder / "x.zarr", mode="r"))


@pytest.fixture
def small_parts(monkeypatch):
    """Many threads, parts and ranges on little data."""
    monkeypatch.setattr(_stored_rows, "VALUES_OF_PART", 2 * CHUNK)
    monkeypatch.setattr(_stored_rows, "VALUES_AT_ONCE", 300)
    monkeypatch.setattr(_stored_rows, "_n_threads", lambda: 3)


def stored(storage: str, folder) -> tuple[object, sp.csr_matrix]:
    x = matrix()
    if storage.startswith("h5ad"):
        if storage == "h5ad_float64":
            x = x.astype(np.float64)
        if storage == "h5ad_wide":
            x.indices, x.indptr = x.indices.astype(np.int64), x.indptr.astype(np.int64)
        ad.AnnData(x).write_h5ad(folder / "x.h5ad", compression="gzip" if storage == "h5ad_gzip" else None)
        return ad.read_h5ad(folder / "x.h5ad", backed="r").X, x
    if storage == "zarr":
        ad.AnnData(x).write_zarr(folder / "x.zarr")
        return ad.io.sparse_dataset(zarr.open_group(folder / "x.zarr", mode="r")["X"]), x
    if storage == "store":
        adata = ad.AnnData(x)
        adata.obs["sample"] = np.repeat(["a", "b", "c", "d"], N // 4)
        path = sst.pp.write_store(adata, folder / "c.zarr", sample_key="sample", progress=False)
        return sst.pp.read_store(path).X, x
    if storage == "zeros":  # stored ones: a chunk of nothing else is not written
        x.data[CHUNK : 5 * SHARD] = 0
    compressors = {
        "blosc": zarr.codecs.BloscCodec(cname="zstd", shuffle="shuffle"),
        "bits": zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle"),
        "gzip": zarr.codecs.GzipCodec(),
    }
    return in_shards(folder, x, **({"compressors": compressors[storage]} if storage in compressors else {})), x


def requests() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    samples = np.split(np.arange(N), [60, 200, 210, 390])
    drawn = [np.sort(rng.choice(s, len(s) // 3, replace=False)) for s in samples]
    return {
        "all": np.arange(N),
        "samples": np.concatenate([samples[i] for i in (3, 0, 2)]),
        "drawn": np.concatenate([drawn[i] for i in (1, 4, 0)]),
        "by name": np.concatenate([rng.permutation(samples[i]) for i in (3, 0)]),
        "mixed": rng.permutation(np.concatenate([samples[1], samples[3]])),
        "scattered": rng.permutation(N)[:9],
        "far apart": np.arange(0, N, 37)[::-1],
        "repeats": rng.integers(0, N, 2 * N),
        "few repeats": np.array([5, 5, 399, 0, 5]),
        "one": np.array([7]),
        "none": np.zeros(0, np.int64),
    }


@pytest.mark.parametrize("storage", STORAGES)
def test_rows_equal_those_in_memory(storage, tmp_path, small_parts, monkeypatch):
    source, x = stored(storage, tmp_path)
    reader = RowReader(source)
    # anndata's own slices are not what is compared
    monkeypatch.setattr(type(source), "__getitem__", lambda *args: pytest.fail("anndata was asked"))
    for name, rows in requests().items():
        got = reader.csr(rows)
        assert got.dtype == np.float32
        if len(rows):
            got.check_format(full_check=True)
            assert got.has_canonical_format
        np.testing.assert_array_equal(got.toarray(), x[rows].toarray(), err_msg=name)
        np.testing.assert_array_equal(reader(rows), x[rows].toarray(), err_msg=name)
    blocks = dict(reader.unchecked_chunks())
    np.testing.assert_array_equal(sp.vstack([*blocks.values()]).toarray(), x.toarray())


def test_a_file_in_shards_is_not_sent_through_zarr_and_others_are(tmp_path, monkeypatch):
    readers = {
        s: RowReader(stored(s, tmp_path / s)[0])
        for s in ("shards", "store", "blosc", "gzip")  # a plain zarr file is one or the other by the version of anndata
        if not (tmp_path / s).mkdir()
    }
    kinds = {s: type(r._stored._values).__name__ for s, r in readers.items()}
    assert kinds == {"shards": "_Sharded", "store": "_Sharded", "blosc": "_Sharded", "gzip": "_Plain"}
    readers["store"].csr(np.arange(3))  # boundaries of rows, and what is known of the store
    monkeypatch.setattr(zarr.Array, "__getitem__", lambda *args: pytest.fail("zarr was asked"))
    assert readers["store"].csr(np.arange(N)).nnz == matrix().nnz


def test_what_is_wanted_of_a_chunk_is_decoded_once(tmp_path, monkeypatch):
    source, x = stored("shards", tmp_path)
    decoded = []
    decode = ShardedValues._decode
    monkeypatch.setattr(ShardedValues, "_decode", lambda self, *args: decoded.append(1) or decode(self, *args))
    reader = RowReader(source)
    reader.csr(np.arange(0, N, 2))
    assert len(decoded) <= 2 * -(-x.nnz // CHUNK) + 2


def test_the_same_cells_are_read_in_another_process(tmp_path):
    for storage in ("h5ad", "store"):
        source, x = stored(storage, tmp_path)
        reader = pickle.loads(pickle.dumps(RowReader(source)))
        assert isinstance(reader._stored, StoredRows)
        np.testing.assert_array_equal(reader(np.array([3, 1])), x[[3, 1]].toarray())


def test_entries_that_are_stored_twice_are_summed(tmp_path):
    """Also in a store of ours that was written over: it no longer answers for its values."""
    twice = sp.csr_matrix(
        (np.array([1, 2, 3, 4], np.float32), np.array([1, 1, 2, 0]), np.array([0, 2, 4])), shape=(2, 3)
    )
    ad.AnnData(twice.copy()).write_h5ad(tmp_path / "x.h5ad")
    adata = ad.AnnData(sp.csr_matrix(np.array([[0, 1, 1], [1, 0, 1]], np.float32)))
    adata.obs["sample"] = ["a", "b"]
    path = sst.pp.write_store(adata, tmp_path / "c.zarr", sample_key="sample", progress=False)
    assert _known.known_of(sst.pp.read_store(path).X)["is_canonical"]
    group = zarr.open_group(path)["X"]
    for name in ("data", "indices", "indptr"):
        group[name][:] = getattr(twice, name)
    store = sst.pp.read_store(path).X
    assert _known.known_of(store) == {}
    for source in (ad.read_h5ad(tmp_path / "x.h5ad", backed="r").X, store):
        reader = RowReader(source)
        for _ in range(2):
            np.testing.assert_array_equal(reader.csr(np.array([1, 0])).toarray(), [[4, 0, 3], [0, 3, 0]])
        assert [b.shape[0] for _, b in reader.unchecked_chunks()] == [2]


@pytest.mark.parametrize("place", ["index", "length"])
def test_a_damaged_store_is_not_read(tmp_path, place):
    source, _ = stored("shards", tmp_path)
    file = next((tmp_path / "x.zarr" / "data" / "c").iterdir())
    raw = bytearray(file.read_bytes())
    if place == "index":
        raw[-12] ^= 1
    else:
        raw = raw[-20:]
    file.write_bytes(raw)
    with pytest.raises(ValueError, match=r"the file is damaged\. Write the store again"):
        RowReader(source).csr(np.arange(N))


def test_memory_does_not_grow_with_a_sample_of_which_few_cells_are_wanted(tmp_path, monkeypatch):
    source, x = stored("shards", tmp_path)
    sizes = []
    block = StoredRows.block
    monkeypatch.setattr(StoredRows, "block", lambda self, a, b: sizes.append(x[a:b].nnz) or block(self, a, b))
    monkeypatch.setattr(_stored_rows, "VALUES_AT_ONCE", 300)
    rows = np.random.default_rng(0).permutation(np.arange(0, N, 3))
    np.testing.assert_array_equal(RowReader(source)(rows), x[rows].toarray())
    assert len(sizes) > 5
    assert max(sizes) < 300 + CHUNK + 2 * D


def test_shards_know_when_their_file_was_written_anew(tmp_path):
    source, x = stored("shards", tmp_path)
    values = ShardedValues(source.group["data"])
    out = np.empty(2 * CHUNK, np.float32)
    values.read([(10, 10 + len(out), out)])
    np.testing.assert_array_equal(out, x.data[10 : 10 + len(out)])
    zarr.open_group(tmp_path / "x.zarr", mode="r+")["data"][:] = np.arange(x.nnz, dtype=np.float32)
    values.read([(10, 10 + len(out), out)])
    np.testing.assert_array_equal(out, np.arange(10, 10 + len(out)))
    assert _shards.NOWHERE == 2**64 - 1

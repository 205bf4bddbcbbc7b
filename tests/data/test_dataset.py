"""A batch holds the cells of its samples, and the draw of cells depends on (seed, epoch, sample name) alone."""

from __future__ import annotations

import pickle
import zlib

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

from scset_tools.data import _dataset
from scset_tools.data._dataset import SampleDataset
from scset_tools.data._index import order_by_name

pytestmark = pytest.mark.platform


def in_order(adata, name):
    """Rows of a sample in the order of a hash of the names of its cells."""
    hashed = pd.util.hash_array(np.asarray(adata.obs_names, dtype=object), categorize=False)
    return np.array(sorted(np.flatnonzero(adata.obs["sample"] == name), key=lambda row: hashed[row]))


def test_a_batch_holds_all_cells_of_its_samples(adata, register):
    dataset = SampleDataset(register(adata, labels_key="condition", batch_key="batch"))
    assert len(dataset) == 4
    assert dataset.sizes.tolist() == [5, 1, 12, 7]
    batch = dataset[0, [3, 1, 2]]
    assert batch.sample.tolist() == [3, 1, 2]
    assert batch.ptr.tolist() == [0, 7, 8, 20]
    assert batch.x.dtype == torch.float32
    for i, name in enumerate(["d", "b", "c"]):
        rows = batch.rows[batch.ptr[i] : batch.ptr[i + 1]].numpy()
        np.testing.assert_array_equal(rows, in_order(adata, name))
        np.testing.assert_array_equal(batch.x[batch.ptr[i] : batch.ptr[i + 1]], adata.X[rows])
    assert batch.labels["labels"].tolist() == [1, 1, 0]
    assert batch.covariates["batch"].tolist() == [int(b == "b1") for b in adata.obs["batch"].iloc[batch.rows]]


def test_what_was_not_registered_is_not_there(adata, register):
    batch = SampleDataset(register(adata))[0, [0]]
    assert batch.labels == {}
    assert batch.covariates == {}


@pytest.mark.parametrize("epoch", [0, 3])
def test_draws_are_those_of_a_generator_of_seed_epoch_and_name(adata, register, epoch):
    dataset = SampleDataset(register(adata), n_cells=4, seed=11)
    assert dataset.sizes.tolist() == [4, 1, 4, 4]
    for sample, name in enumerate("abcd"):
        rows = in_order(adata, name)
        if len(rows) > 4:
            rng = np.random.default_rng((11, epoch, zlib.crc32(name.encode())))
            rows = rows[np.sort(rng.choice(len(rows), 4, replace=False))]
        np.testing.assert_array_equal(dataset.rows_of(sample, epoch), rows)
        np.testing.assert_array_equal(dataset[epoch, [sample]].rows, rows)


def test_draws_depend_on_neither_batch_mates_nor_other_samples_of_the_file(adata, register):
    whole = SampleDataset(register(adata), n_cells=4, seed=1)
    part = adata[adata.obs["sample"].isin(["b", "d"])].copy()  # "d" is sample 3 of one, 1 of the other
    alone = SampleDataset(register(part), n_cells=4, seed=1)
    together = whole[2, [2, 3, 0]]
    cells = adata.obs_names[together.rows[together.ptr[1] : together.ptr[2]].numpy()]
    assert list(cells) == list(part.obs_names[alone[2, [1]].rows.numpy()])
    assert together.seed[1] == alone[2, [1]].seed[0]


@pytest.mark.parametrize("is_backed", [False, True], ids=["memory", "file"])
def test_a_batch_is_the_same_whatever_the_order_of_rows(adata, register, tmp_path, is_backed):
    want = SampleDataset(register(adata, labels_key="condition", batch_key="batch"), n_cells=6, seed=2)[1, [3, 0, 2]]
    order = np.random.default_rng(1).permutation(adata.n_obs)
    other = adata[order].copy()
    if is_backed:
        other.write_h5ad(tmp_path / "a.h5ad")
        other = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    got = SampleDataset(register(other, labels_key="condition", batch_key="batch"), n_cells=6, seed=2)[1, [3, 0, 2]]
    if is_backed:
        other.file.close()
    assert torch.equal(got.x, want.x)
    assert torch.equal(got.seed, want.seed)
    assert torch.equal(got.covariates["batch"], want.covariates["batch"])
    np.testing.assert_array_equal(other.obs_names[got.rows.numpy()], adata.obs_names[want.rows.numpy()])


def test_new_names_of_cells_are_seen(adata, register):
    manager = register(adata)
    SampleDataset(manager)
    adata.obs_names = [f"other{i}" for i in range(adata.n_obs)]
    np.testing.assert_array_equal(SampleDataset(manager).rows_of(2), in_order(adata, "c"))


def test_another_epoch_or_seed_draws_other_cells(adata, register):
    manager = register(adata)
    draws = [
        tuple(SampleDataset(manager, n_cells=6, seed=seed).rows_of(2, epoch)) for seed in (0, 1) for epoch in range(4)
    ]
    assert len(set(draws)) == 8
    assert set(np.concatenate(draws)) == set(np.flatnonzero(adata.obs["sample"] == "c"))


def test_seeds_of_samples_are_distinct_non_negative_and_repeatable(register):
    names = np.repeat([f"s{i}" for i in range(200)], 1)
    adata = ad.AnnData(np.ones((200, 1), np.float32), obs={"sample": names})
    adata.obs_names = [f"c{i}" for i in range(200)]
    manager = register(adata)
    seeds = torch.stack([SampleDataset(manager, seed=s)[e, range(200)].seed for s in (0, 1) for e in (0, 1)])
    assert len(seeds.unique()) == 800
    assert seeds.dtype == torch.int64
    assert (seeds >= 0).all()
    assert torch.equal(seeds[0], SampleDataset(manager, seed=0)[0, range(200)].seed)


@pytest.mark.parametrize("size", [1, 5, 12, 100])
@pytest.mark.parametrize("n_cells", [None, 9])
def test_pieces_of_a_sample_make_up_its_batch(adata, register, size, n_cells):
    dataset = SampleDataset(register(adata, batch_key="batch"), n_cells=n_cells, seed=3)
    whole, pieces = dataset[1, [2]], list(dataset.chunks(2, size, epoch=1))
    assert all(len(p.x) <= size for p in pieces)
    assert all(p.sample.tolist() == [2] and p.seed == whole.seed for p in pieces)
    by_row = whole.rows.argsort()  # pieces are read as they lie
    assert torch.equal(torch.cat([p.rows for p in pieces]), whole.rows[by_row])
    assert torch.equal(torch.cat([p.x for p in pieces]), whole.x[by_row])
    assert torch.equal(torch.cat([p.covariates["batch"] for p in pieces]), whole.covariates["batch"][by_row])


@pytest.mark.parametrize("n_cells", [None, 4])
def test_rows_as_they_lie_are_the_same_cells(adata, register, n_cells):
    dataset = SampleDataset(register(adata, batch_key="batch"), n_cells=n_cells, seed=3)
    batch, by_row = dataset[1, [3, 0, 2]], dataset.in_row_order()[1, [3, 0, 2]]
    assert torch.equal(batch.ptr, by_row.ptr)
    for start, end in zip(batch.ptr[:-1], batch.ptr[1:], strict=True):
        order = start + batch.rows[start:end].argsort()
        assert torch.equal(batch.rows[order], by_row.rows[start:end])
        assert torch.equal(batch.x[order], by_row.x[start:end])
        assert torch.equal(batch.covariates["batch"][order], by_row.covariates["batch"][start:end])


def test_the_order_of_names_is_made_for_draws_alone_and_before_it_travels(adata, register, monkeypatch):
    calls = []
    monkeypatch.setattr(_dataset, "order_by_name", lambda names: calls.append(1) or order_by_name(names))
    dataset = SampleDataset(register(adata))
    _ = dataset.in_row_order()[0, [0, 1]]
    assert not calls
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(calls) == 1
    assert torch.equal(copy[0, [2]].rows, dataset[0, [2]].rows)
    assert len(calls) == 1


def test_backed_rows_land_in_their_sample(adata, register, tmp_path):
    want = SampleDataset(register(adata))[0, [3, 0, 2]]
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    got = SampleDataset(register(backed))[0, [3, 0, 2]]
    backed.file.close()
    assert torch.equal(got.x, want.x)
    assert torch.equal(got.rows, want.rows)


def test_integer_names_and_names_of_a_subclass_of_str_draw_like_text(adata, register):
    class Name(str):
        __slots__ = ()

    def draws(column):
        new = adata.copy()
        new.obs["sample"] = column
        return [SampleDataset(register(new), n_cells=4).rows_of(s).tolist() for s in range(4)]

    numbers = adata.obs["sample"].map({"a": 1, "b": 2, "c": 3, "d": 4})
    assert draws(numbers) == draws(numbers.astype(str))
    assert draws(adata.obs["sample"].map(Name)) == draws(adata.obs["sample"])

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scset_tools.data._cell_splitter import CellBatchSampler, CellDataSplitter
from scset_tools.data._cells import GeneDataset, MixedCellDataset


@pytest.fixture
def sparse_adata(adata) -> ad.AnnData:
    """Counts of 30 genes, one to thirty expressed in a cell, in the samples of the shared cohort."""
    rng = np.random.default_rng(1)
    counts = rng.poisson(rng.uniform(0.05, 2, adata.n_obs)[:, None], (adata.n_obs, 30)).astype(np.float32)
    counts[counts.sum(1) == 0, 3] = 2
    return ad.AnnData(sp.csr_matrix(counts), obs=adata.obs, var=pd.DataFrame(index=[f"g{i}" for i in range(30)]))


def test_tokens_are_the_expressed_genes_in_order(sparse_adata, register):
    dataset = MixedCellDataset(register(sparse_adata))
    rows = np.array([7, 0, 7, 19])
    batch = dataset[0, rows.tolist()]
    dense = sparse_adata.X.toarray()
    assert batch.rows.tolist() == rows.tolist()
    for i, row in enumerate(rows):
        part = slice(int(batch.ptr[i]), int(batch.ptr[i + 1]))
        assert batch.gene[part].tolist() == np.flatnonzero(dense[row]).tolist()
        np.testing.assert_array_equal(batch.value[part], dense[row][dense[row] > 0])
    np.testing.assert_array_equal(dataset.genes.counts(), (dense > 0).sum(1))


def test_samples_are_whole_and_explicit_zeros_are_no_tokens(sparse_adata, register):
    sparse_adata.X.data[:5] = 0
    keep = np.asarray((sparse_adata.X != 0).sum(1)).ravel() > 0
    adata = sparse_adata[keep].copy()
    dataset = GeneDataset(register(adata))
    batch = dataset[0, [2, 0]]
    assert batch.sample.tolist() == [2, 0]
    assert batch.sample_ptr.diff().tolist() == [dataset.sizes[2], dataset.sizes[0]]
    assert batch.rows.tolist() == [*dataset.rows_of(2), *dataset.rows_of(0)]
    assert (batch.value != 0).all()


def test_seeds_are_of_the_cell_alone(sparse_adata, register):
    manager = register(sparse_adata)
    dataset = MixedCellDataset(manager, seed=3)
    together = dataset[1, [4, 9, 2]].seed
    assert dataset[1, [9]].seed.tolist() == [int(together[1])]
    assert dataset[2, [9]].seed.tolist() != [int(together[1])]
    every = dataset[1, list(range(sparse_adata.n_obs))].seed
    assert len(set(every.tolist())) == sparse_adata.n_obs
    # other samples in the file make no difference
    part = sparse_adata[sparse_adata.obs["sample"] == "c"].copy()
    other = ad.concat([part, sparse_adata[sparse_adata.obs["sample"] == "b"]])
    rows = np.flatnonzero(sparse_adata.obs["sample"] == "c")
    alone = MixedCellDataset(register(other), seed=3)[1, list(range(part.n_obs))].seed
    assert alone.tolist() == every[rows].tolist()


def test_genes_of_a_vocabulary(sparse_adata, register):
    gene_ids = np.full(30, -1)
    gene_ids[[4, 2, 20]] = [0, 1, 2]  # not in the order of the columns
    known = sparse_adata[np.asarray(sparse_adata.X[:, [4, 2, 20]].sum(1)).ravel() > 0].copy()
    batch = MixedCellDataset(register(known), gene_ids=gene_ids)[0, [0, 1, 2]]
    dense = known.X.toarray()[:, [4, 2, 20]]
    for i in range(3):
        part = slice(int(batch.ptr[i]), int(batch.ptr[i + 1]))
        assert batch.gene[part].tolist() == np.flatnonzero(dense[i]).tolist()
        np.testing.assert_array_equal(batch.value[part], dense[i][dense[i] > 0])
    if known.n_obs < sparse_adata.n_obs:
        with pytest.raises(ValueError, match=r"cells have no expressed gene that the model knows \(first: \['cell"):
            MixedCellDataset(register(sparse_adata), gene_ids=gene_ids).genes.counts()


def test_values_that_are_no_expression(sparse_adata, register):
    sparse_adata.X.data[7] = 1.5
    cell = sparse_adata.obs_names[np.searchsorted(sparse_adata.X.indptr, 7, side="right") - 1]
    GeneDataset(register(sparse_adata)).genes.counts()
    with pytest.raises(
        ValueError, match=rf"Counts are expected, but 1 of \d+ values.*1.5.*'{cell}'.*values='normalized'"
    ):
        GeneDataset(register(sparse_adata), expect_counts=True).genes.counts()
    sparse_adata.X.data[9] = -1
    with pytest.raises(ValueError, match="1 values are negative"):
        GeneDataset(register(sparse_adata)).genes.counts()


def test_a_cell_without_expressed_genes_is_named(sparse_adata, register):
    x = sparse_adata.X.tolil()
    x[6] = 0
    sparse_adata.X = x.tocsr()
    with pytest.raises(ValueError, match=r"1 of 25 cells have no expressed gene \(first: \['cell6'\].*filter_cells"):
        GeneDataset(register(sparse_adata)).genes.counts()


def sampler(manager, **kwargs) -> CellBatchSampler:
    dataset = MixedCellDataset(manager, seed=0, n_cells=kwargs.pop("n_cells", None))
    samples = np.array(kwargs.pop("samples", [0, 2, 3]))
    return CellBatchSampler(dataset, samples, dataset.genes.counts(), **{"batch_size": 4, "shuffle": True, **kwargs})


def test_every_cell_once_and_batch_mates_alike(sparse_adata, register):
    manager = register(sparse_adata)
    batches = sampler(manager)
    rows = [r for _, batch in batches for r in batch]
    want = np.concatenate([batches.dataset.rows_of(s) for s in (0, 2, 3)])
    assert sorted(rows) == sorted(want)
    n_genes = batches.n_genes
    spread = np.mean([np.ptp(n_genes[batch]) for _, batch in batches])
    mixed = np.mean([np.ptp(n_genes[batch]) for _, batch in sampler(manager, group_by_length=False)])
    assert spread < mixed / 2


def test_epochs_differ_and_repeat_and_draws_are_capped(sparse_adata, register):
    batches = sampler(register(sparse_adata), n_cells=5)
    first = list(batches)
    batches.set_epoch(1)
    second = list(batches)
    assert {epoch for epoch, _ in second} == {1}
    assert first != second
    batches.set_epoch(0)
    assert list(batches) == first
    assert len(first) == len(second) == len(batches) == 4  # 15 cells in batches of 4


def test_ranks_share_the_cells(sparse_adata, register):
    manager = register(sparse_adata)
    parts = [[r for _, b in sampler(manager, num_replicas=2, rank=k) for r in b] for k in (0, 1)]
    assert set(parts[0]) | set(parts[1]) == {r for _, b in sampler(manager) for r in b}
    assert not set(parts[0]) & set(parts[1])
    lengths = [len(list(sampler(manager, batch_size=5, num_replicas=2, rank=k))) for k in (0, 1)]
    assert lengths == [3, 3]  # 24 cells are five batches: one comes twice


def test_splits_keep_samples_and_groups_whole(sparse_adata, register):
    splitter = CellDataSplitter(register(sparse_adata), train_size=0.5, groups_key="study", batch_size=3, seed=0)
    splitter.trainer = None
    train = np.concatenate([b.rows for b in splitter.train_dataloader()])
    validation = np.concatenate([b.rows for b in splitter.val_dataloader()])
    study = sparse_adata.obs["study"].to_numpy()
    assert set(study[train]).isdisjoint(study[validation])
    assert sorted([*train, *validation]) == list(range(sparse_adata.n_obs))
    again = np.concatenate([b.rows for b in splitter.val_dataloader()])
    np.testing.assert_array_equal(again, validation)

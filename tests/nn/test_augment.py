"""Augmentations: exact normalisation, multinomial thinning, hidden genes; all from the seed of the sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats

from scset_tools.nn import hide_genes, log_normalize, ptr_from_sizes, thin_counts


@dataclass
class Rows:
    indptr: torch.Tensor
    indices: torch.Tensor
    values: torch.Tensor


def counts(n_cells=40, n_genes=12, seed=0, scale=30):
    x = torch.from_numpy(np.random.default_rng(seed).poisson(scale * np.linspace(0, 1, n_genes), (n_cells, n_genes)))
    x = x.float()
    is_stored = x != 0
    ptr = torch.cat([torch.zeros(1, dtype=torch.int64), is_stored.sum(1).cumsum(0)])
    return Rows(ptr, is_stored.nonzero()[:, 1], x[is_stored]), x


def dense(rows, values, shape):
    out = torch.zeros(shape)
    row = torch.repeat_interleave(torch.arange(shape[0]), rows.indptr.diff())
    out[row, rows.indices] = values
    return out


def test_log_normalisation_is_that_of_scanpy():
    sc = pytest.importorskip("scanpy")
    rows, x = counts()
    adata = sc.AnnData(x.numpy().copy())
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    np.testing.assert_allclose(dense(rows, log_normalize(rows), x.shape), adata.X, rtol=1e-5)


def test_a_cell_without_counts_stays_zero():
    rows = Rows(torch.tensor([0, 0, 1]), torch.tensor([3]), torch.tensor([5.0]))
    assert log_normalize(rows).tolist() == pytest.approx([np.log1p(1e4)])
    assert thin_counts(rows, torch.tensor([0, 2]), torch.tensor([7]), depth=(1, 3)).sum() <= 3
    empty = Rows(torch.tensor([0, 0]), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    assert thin_counts(empty, torch.tensor([0, 1]), torch.tensor([7]), depth=(1, 3)).shape == (0,)


def test_thinned_counts_have_the_drawn_depth_and_shares():
    rows, x = counts(n_cells=400)
    ptr, seed = ptr_from_sizes([150, 250]), torch.tensor([3, 4])
    depth = (50, 100)
    thin = dense(rows, thin_counts(rows, ptr, seed, depth=depth), x.shape)
    totals = thin.sum(1)
    assert (totals >= 50).all()
    assert (totals <= 100).all()
    assert totals.std() > 10  # uniform over 50 values has 14.7
    assert (thin[x == 0] == 0).all()
    # given the depths, expected counts are those of the multinomial
    expected = (x / x.sum(1, keepdim=True) * totals[:, None]).sum(0).numpy()
    got = thin.sum(0).numpy()
    keep = expected > 0
    assert stats.chisquare(got[keep], expected[keep]).pvalue > 1e-3


def test_no_cell_gets_more_than_it_has():
    rows, x = counts(n_cells=30, scale=1)
    thin = dense(rows, thin_counts(rows, ptr_from_sizes([30]), torch.tensor([1]), depth=(500, 900)), x.shape)
    assert torch.equal(thin.sum(1), x.sum(1))


def test_draws_do_not_depend_on_batch_mates():
    rows, _ = counts()
    ptr, seed = ptr_from_sizes([15, 25]), torch.tensor([8, 9])
    start = int(rows.indptr[15])
    second = Rows(rows.indptr[15:] - start, rows.indices[start:], rows.values[start:])
    alone = ptr_from_sizes([25])
    together = thin_counts(rows, ptr, seed, depth=(20, 60))
    assert torch.equal(together[start:], thin_counts(second, alone, seed[1:], depth=(20, 60)))
    assert not torch.equal(together, thin_counts(rows, ptr, seed + 1, depth=(20, 60)))
    hidden = hide_genes(rows, ptr, seed, rate=0.3)
    assert torch.equal(hidden[start:], hide_genes(second, alone, seed[1:], rate=0.3))


def test_hidden_genes_are_the_share_asked_for_and_independent():
    rows, x = counts(n_cells=2000, scale=200)
    ptr, seed = ptr_from_sizes([2000]), torch.tensor([5])
    gone = dense(rows, (hide_genes(rows, ptr, seed, rate=0.3) == 0).float(), x.shape).numpy()
    expressed = (x != 0).all(0).numpy()
    share = gone[:, expressed].mean(0)
    np.testing.assert_allclose(share, 0.3, atol=0.05)
    corr = np.corrcoef(gone[:, expressed].T)
    assert np.abs(corr - np.eye(len(corr))).max() < 0.12
    assert torch.equal(hide_genes(rows, ptr, seed, rate=0.0), rows.values)


def test_whether_zeros_are_stored_does_not_matter():
    rows, x = counts(n_cells=6)
    stored = Rows(torch.arange(7) * x.shape[1], torch.arange(x.shape[1]).repeat(6), x.flatten())
    ptr, seed = ptr_from_sizes([6]), torch.tensor([2])
    a = dense(rows, hide_genes(rows, ptr, seed, rate=0.5), x.shape)
    b = dense(stored, hide_genes(stored, ptr, seed, rate=0.5), x.shape)
    assert torch.equal(a, b)
    a = dense(rows, thin_counts(rows, ptr, seed, depth=(10, 20)), x.shape)
    b = dense(stored, thin_counts(stored, ptr, seed, depth=(10, 20)), x.shape)
    assert torch.equal(a, b)


def test_bad_arguments():
    rows, _ = counts(n_cells=2)
    ptr, seed = ptr_from_sizes([2]), torch.tensor([2])
    with pytest.raises(ValueError, match="depth must be a range of positive numbers"):
        thin_counts(rows, ptr, seed, depth=(5, 2))
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\)"):
        hide_genes(rows, ptr, seed, rate=1.0)

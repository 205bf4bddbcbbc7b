"""Pooling by prototypes against a slow loop, a mixture's gradient, and scikit-learn's k-means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from scset_tools.nn import TokenPool, ptr_from_sizes

SIZES = [7, 1, 12]


@pytest.fixture
def pool() -> TokenPool:
    torch.manual_seed(0)
    pool = TokenPool(3, 4, 5).double()
    pool.spread.fill_(1.7)
    pool.location.normal_()
    pool.variance.uniform_(0.5, 2.0)
    return pool


@pytest.fixture
def cells() -> torch.Tensor:
    return torch.randn(sum(SIZES), 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_features_equal_a_loop_over_cells(pool, cells):
    got = pool.features(pool.sums(cells, ptr_from_sizes(SIZES)), torch.tensor(SIZES)).numpy()
    prototypes, row = pool.prototypes.numpy(), 0
    for sample, size in enumerate(SIZES):
        share, shift = np.zeros(4), np.zeros((4, 3))
        for x in cells[row : row + size].numpy():
            score = np.exp(-2.0 / 1.7 * ((x - prototypes) ** 2).sum(1))
            weight = score / score.sum()
            share += weight / size
            shift += weight[:, None] * (x - prototypes) / size
        row += size
        np.testing.assert_allclose(
            got[sample], np.concatenate([np.sqrt(share), shift.ravel()]), rtol=1e-10, atol=1e-3
        )  # shares below 1e-6 count as 1e-6


def test_shifts_are_the_gradient_of_a_mixture(pool, cells):
    """With equal shares, the shifts are proportional to d log p(cells) / d means (a Fisher vector)."""
    means = pool.prototypes.clone().requires_grad_()
    precision = 2 * pool.sharpness / pool.spread
    log_p = torch.logsumexp(-0.5 * precision * torch.cdist(cells, means).square(), dim=1).mean()
    (gradient,) = torch.autograd.grad(log_p, means)
    sums = pool.sums(cells, ptr_from_sizes([len(cells)]))
    torch.testing.assert_close(precision * sums[0, :, 1:] / len(cells), gradient)


def test_the_vector_is_the_same_in_pieces_and_in_any_order(pool, cells):
    n = torch.tensor([len(cells)])
    whole = pool(cells, ptr_from_sizes([len(cells)]))
    pieces = sum(pool.sums(piece, ptr_from_sizes([len(piece)])) for piece in cells.split(6))
    torch.testing.assert_close(pool.embed(pieces, n), whole)
    order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(pool(cells[order], ptr_from_sizes([len(cells)])), whole)


def test_prototypes_find_the_centres_of_k_means():
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [6, 0], [0, 6]])
    x = centres[rng.integers(3, size=3000)] + rng.normal(size=(3000, 2))
    pool = TokenPool(2, 3, 4, sharpness=50.0)
    pool.start(torch.from_numpy(centres + rng.normal(scale=1.5, size=(3, 2))))
    for batch in np.split(x, 30):
        pool.update(torch.from_numpy(batch).float(), ptr_from_sizes([50, 50]))
    expected = KMeans(3, n_init=3, random_state=0).fit(x).cluster_centers_
    distance = torch.cdist(pool.prototypes, torch.from_numpy(expected).float())
    assert float(distance.amin(dim=0).max()) < 0.3


@torch.no_grad()
def test_opposed_shifts_of_two_kinds_of_cells_do_not_cancel():
    """The mean of all cells is the same in both samples; the tokens tell them apart."""
    rng = torch.Generator().manual_seed(0)
    kinds = torch.tensor([[-5.0, 0.0], [5.0, 0.0]]).repeat_interleave(200, 0) + torch.randn(400, 2, generator=rng)
    sign = torch.tensor([1.0, -1.0]).repeat_interleave(200)
    shifted = kinds + torch.stack([torch.zeros(400), sign], dim=1)
    other = kinds - torch.stack([torch.zeros(400), sign], dim=1)
    pool = TokenPool(2, 2, 8, sharpness=2.0)
    pool.start(torch.tensor([[-5.0, 0.0], [5.0, 0.0]]))
    pool.spread.fill_(2.0)
    ptr = ptr_from_sizes([400])
    torch.testing.assert_close(shifted.mean(0), other.mean(0), atol=1e-5, rtol=0)
    assert (pool(shifted, ptr) - pool(other, ptr)).detach().norm() > 0.5


@pytest.mark.parametrize(("changes", "words"), [({"sharpness": 0.0}, "sharpness"), ({"decay": 1.0}, "decay")])
def test_numbers_out_of_range_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        TokenPool(2, 2, 2, **changes)


def test_a_batch_without_cells_moves_nothing():
    pool = TokenPool(2, 2, 2)
    before = {name: value.clone() for name, value in pool.named_buffers()}
    pool.update(torch.zeros(0, 2), ptr_from_sizes([0, 0]))
    for name, value in pool.named_buffers():
        assert torch.equal(value, before[name])

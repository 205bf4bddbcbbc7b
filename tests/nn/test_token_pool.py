"""Pooling by kinds of cells against a slow loop, scikit-learn's mixture, and the gradient of its likelihood."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from scset_tools.model._tokens import mixture_of
from scset_tools.nn import TokenPool, ptr_from_sizes

SIZES = [7, 1, 12]


@pytest.fixture
def pool() -> TokenPool:
    torch.manual_seed(0)
    pool = TokenPool(3, 4, 5).double()
    pool.whitener.normal_()
    pool.log_weight.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]).log())
    pool.location.normal_()
    return pool


@pytest.fixture
def cells() -> torch.Tensor:
    return torch.randn(sum(SIZES), 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_features_equal_a_loop_over_cells(pool, cells):
    got = pool.features(pool.sums(cells, ptr_from_sizes(SIZES)), torch.tensor(SIZES)).numpy()
    covariance = np.linalg.inv(pool.whitener.numpy() @ pool.whitener.numpy().T)
    kinds = [multivariate_normal(mean, covariance) for mean in pool.prototypes.numpy()]
    row = 0
    for sample, size in enumerate(SIZES):
        count, total = np.zeros(4), np.zeros((4, 3))
        for x in cells[row : row + size].numpy():
            density = pool.log_weight.exp().numpy() * [kind.pdf(x) for kind in kinds]
            count += density / density.sum()
            total += density[:, None] / density.sum() * (x - pool.prototypes.numpy())
        row += size
        shift = total / (count + 0.01 * size)[:, None]
        np.testing.assert_allclose(got[sample], np.concatenate([count / size, shift.ravel()]), rtol=1e-8, atol=1e-10)


def test_shifts_are_the_gradient_of_a_mixture(pool, cells):
    """Sums of shifts are d log p(cells) / d means, up to the covariance (a Fisher vector)."""
    means = pool.prototypes.clone().requires_grad_()
    precision = pool.whitener @ pool.whitener.T
    centred = (cells[:, None] - means) @ pool.whitener
    log_p = torch.logsumexp(pool.log_weight - 0.5 * centred.square().sum(-1), dim=1).sum()
    (gradient,) = torch.autograd.grad(log_p, means)
    sums = pool.sums(cells, ptr_from_sizes([len(cells)]))
    torch.testing.assert_close(sums[0, :, 1:] @ precision, gradient)


def test_the_vector_is_the_same_in_pieces_and_in_any_order(pool, cells):
    n = torch.tensor([len(cells)])
    whole = pool(cells, ptr_from_sizes([len(cells)]))
    pieces = sum(pool.sums(piece, ptr_from_sizes([len(piece)])) for piece in cells.split(6))
    torch.testing.assert_close(pool.embed(pieces, n), whole)
    order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(pool(cells[order], ptr_from_sizes([len(cells)])), whole)


@pytest.mark.parametrize("n_input", [2, 90])
def test_kinds_are_those_of_scikit_learns_mixture(n_input):
    rng = np.random.default_rng(0)
    centres = np.zeros((3, n_input))
    centres[1, 0] = centres[2, 1] = 6
    kind = rng.choice(3, p=[0.5, 0.3, 0.2], size=3000)
    x = centres[kind] + rng.normal(size=(3000, n_input))
    pool = TokenPool(n_input, 3, 4)
    pool.set_kinds(*mixture_of(torch.from_numpy(x), min(n_input, 64), 3))
    assigned = pool.assign(torch.from_numpy(x)).argmax(dim=1).numpy()
    order = [int(np.bincount(assigned[kind == k], minlength=3).argmax()) for k in range(3)]
    assert sorted(order) == [0, 1, 2]
    assert (assigned == np.array(order)[kind]).mean() > 0.98
    np.testing.assert_allclose(pool.prototypes[order], centres, atol=0.2)
    np.testing.assert_allclose(pool.log_weight[order].exp(), [0.5, 0.3, 0.2], atol=0.03)
    if n_input == 2:
        expected = GaussianMixture(3, covariance_type="tied", means_init=centres, reg_covar=0.05, random_state=0).fit(x)
        got = pool.assign(torch.from_numpy(x)).numpy()[:, order]
        np.testing.assert_allclose(got, expected.predict_proba(x), atol=0.01)


def test_vectors_keep_the_distances_between_samples_at_unit_variance(cells):
    """Where the vector is long enough, also along directions in which the samples of training did not vary."""
    torch.manual_seed(0)
    pool = TokenPool(3, 4, 40).double()
    pool.set_kinds(*mixture_of(torch.randn(500, 3, dtype=torch.float64), 3, 4))
    ptr = ptr_from_sizes(SIZES)
    sums = pool.sums(cells, ptr)
    pool.calibrate(sums, ptr.diff())
    vectors = pool(cells, ptr)
    torch.testing.assert_close(vectors.mean(0), torch.zeros(40, dtype=torch.float64))
    assert float(vectors.square().mean()) == pytest.approx(1)
    new = torch.randn(30, 3, dtype=torch.float64)
    new_ptr = ptr_from_sizes([10, 20])
    features = pool.features(pool.sums(new, new_ptr), new_ptr.diff())
    root = pool.features(sums, ptr.diff())[:, :4].mean(0).sqrt()
    weight = torch.cat([1 / root.clamp_min(0.05), root.repeat_interleave(3)])
    expected, got = ((v[0] - v[1]).norm() for v in (features * weight, pool(new, new_ptr)))
    reference = pool.features(sums, ptr.diff()) * weight
    scale = (vectors[0] - vectors[1]).norm() / (reference[0] - reference[1]).norm()
    torch.testing.assert_close(got / expected, scale, rtol=1e-5, atol=0)


def test_a_short_vector_keeps_the_largest_directions():
    torch.manual_seed(0)
    pool = TokenPool(3, 4, 2)
    cells = torch.randn(4000, 3) + torch.randn(40, 1, 3).repeat(1, 100, 1).reshape(-1, 3) * torch.tensor(
        [3.0, 0.1, 0.1]
    )
    ptr = ptr_from_sizes([100] * 40)
    pool.set_kinds(*mixture_of(cells, 3, 4))
    pool.calibrate(pool.sums(cells, ptr), ptr.diff())
    vectors = pool(cells, ptr)
    mean = torch.stack([x.mean(0) for x in cells.split(100)])[:, 0]
    design = torch.cat([vectors, torch.ones(40, 1)], dim=1)
    left = mean - design @ torch.linalg.lstsq(design, mean[:, None]).solution[:, 0]
    assert float(left.var() / mean.var()) < 0.15


@torch.no_grad()
def test_opposed_shifts_of_two_kinds_of_cells_do_not_cancel():
    """The mean of all cells is the same in both samples; the tokens tell them apart."""
    rng = torch.Generator().manual_seed(0)
    kinds = torch.tensor([[-5.0, 0.0], [5.0, 0.0]]).repeat_interleave(200, 0) + torch.randn(400, 2, generator=rng)
    sign = torch.tensor([1.0, -1.0]).repeat_interleave(200)
    shifted = kinds + torch.stack([torch.zeros(400), sign], dim=1)
    other = kinds - torch.stack([torch.zeros(400), sign], dim=1)
    torch.testing.assert_close(shifted.mean(0), other.mean(0), atol=1e-5, rtol=0)
    pool = TokenPool(2, 2, 8)
    pool.set_kinds(*mixture_of(torch.cat([shifted, other]), 2, 2))
    ptr = ptr_from_sizes([400, 400])
    pool.calibrate(pool.sums(torch.cat([shifted, other]), ptr), ptr.diff())
    vectors = pool(torch.cat([shifted, other]), ptr)
    assert (vectors[0] - vectors[1]).norm() > 0.5


@pytest.mark.parametrize("n_cells", [0, 1, 5, 40])
def test_few_or_equal_cells_give_finite_vectors(n_cells):
    torch.manual_seed(0)
    pool = TokenPool(3, 4, 5)
    cells = torch.randn(1, 3).repeat(n_cells, 1)
    ptr = ptr_from_sizes([n_cells])
    if n_cells:
        pool.set_kinds(*mixture_of(cells, 3, 4))
    pool.calibrate(pool.sums(cells, ptr), ptr.diff())
    assert bool(torch.isfinite(pool(torch.randn(6, 3), ptr_from_sizes([6, 0]))).all())
    assert bool(pool.is_fitted)


def test_a_relevance_out_of_range_is_refused():
    with pytest.raises(ValueError, match="relevance"):
        TokenPool(2, 2, 2, relevance=0.0)

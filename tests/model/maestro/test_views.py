"""Views of a step: what is hidden, and that hiding by weight is the same as repeating a token."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from scset_tools.model.maestro._views import hide, student_views
from scset_tools.nn import SetEncoder, ptr_from_sizes

SIZES = [40, 1, 7, 25]


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(sum(SIZES), 6, generator=generator)
    return x, ptr_from_sizes(torch.tensor(SIZES)), torch.tensor([11, 12, 13, 14])


@pytest.mark.parametrize("masking", ["block", "random"])
@pytest.mark.parametrize("crops", [("random",), ("random", "farthest")], ids=["one_crop", "two_crops"])
def test_each_view_hides_exactly_its_share_of_its_crop(batch, masking, crops):
    x, ptr, seed = batch
    rates = (0.2, 0.5, 0.8)
    views = student_views(x, ptr, seed, n_cells=20, mask_rates=rates, masking=masking, views=crops)
    taken = [min(n, 20) for n in SIZES]
    assert views.ptr.diff().tolist() == taken * len(rates) * len(crops)
    expected = [min(int(rate * n + 1e-9), n - 1) for rate in rates for n in taken] * len(crops)
    assert views.n_hidden.tolist() == expected
    assert views.sample_of_view.tolist() == [0, 1, 2, 3] * len(rates) * len(crops)
    for v, sample in enumerate(views.sample_of_view.tolist()):
        rows = views.index[views.ptr[v] : views.ptr[v + 1]]
        assert len(rows.unique()) == len(rows)
        assert ((rows >= ptr[sample]) & (rows < ptr[sample + 1])).all()


def test_views_of_a_sample_do_not_depend_on_batch_mates(batch):
    x, ptr, seed = batch
    arguments = {"n_cells": 20, "mask_rates": (0.3, 0.6), "views": ("random", "farthest")}
    together = student_views(x, ptr, seed, **arguments)
    for s in range(len(SIZES)):
        rows = slice(int(ptr[s]), int(ptr[s + 1]))
        alone = student_views(x[rows], ptr_from_sizes(torch.tensor([SIZES[s]])), seed[s : s + 1], **arguments)
        mine = torch.repeat_interleave(together.sample_of_view, together.ptr.diff()) == s
        assert torch.equal(together.index[mine] - ptr[s], alone.index)
        assert torch.equal(together.is_hidden[mine], alone.is_hidden)


def test_another_seed_hides_other_cells(batch):
    x, ptr, seed = batch
    first = student_views(x, ptr, seed, n_cells=20, mask_rates=(0.5,))
    again = student_views(x, ptr, seed, n_cells=20, mask_rates=(0.5,))
    other = student_views(x, ptr, seed + 1, n_cells=20, mask_rates=(0.5,))
    assert torch.equal(first.index, again.index)
    assert torch.equal(first.is_hidden, again.is_hidden)
    assert not torch.equal(first.index[first.is_hidden], other.index[other.is_hidden])


@pytest.mark.parametrize("rates", [(0.0, 0.2), (0.5, 0.8)], ids=["nothing_or_little_hidden", "much_hidden"])
def test_one_weighted_token_is_the_same_as_one_token_for_each_hidden_cell(batch, rates):
    torch.manual_seed(0)
    x, ptr, seed = batch
    token = torch.randn(6)
    encoder = SetEncoder(6, 16, 4, n_layers=2, n_heads=2, n_inducing=3).double()
    x, token = x.double(), token.double()
    views = student_views(x, ptr, seed, n_cells=20, mask_rates=rates)
    rows, ptr_hidden, log_weight = hide(x, views, token)
    z = encoder(rows, ptr_hidden, log_weight=log_weight)
    for v in range(len(z)):
        at = slice(int(views.ptr[v]), int(views.ptr[v + 1]))
        cells = x[views.index[at]].clone()
        cells[views.is_hidden[at]] = token  # the paper: every hidden cell is replaced by the token
        torch.testing.assert_close(z[v], encoder(cells)[0], rtol=1e-10, atol=1e-10)


def test_slots_are_a_permutation_of_each_view_that_differs_between_samples_and_seeds(batch):
    """Algorithm 1, step 6: a seed of the decoder that knew the row would know which cells are hidden."""
    x, ptr, seed = batch
    views = student_views(x, ptr, seed, n_cells=20, mask_rates=(0.5, 0.2))
    for begin, end in pairwise(views.ptr.tolist()):
        assert sorted(views.slot[begin:end].tolist()) == list(range(end - begin))
    again = student_views(x, ptr, seed + 1, n_cells=20, mask_rates=(0.5, 0.2))
    first = slice(0, int(views.ptr[1]))
    assert views.slot[first].tolist() != list(range(int(views.ptr[1])))
    assert views.slot[first].tolist() != again.slot[first].tolist()


def test_one_rate_is_drawn_for_each_sample_beside_a_view_that_hides_nothing():
    n, rates = 64, (0.25, 0.5)
    ptr, seed = torch.arange(n + 1) * 20, torch.arange(n)
    x = torch.randn(20 * n, 3, generator=torch.Generator().manual_seed(0))
    views = student_views(x, ptr, seed, n_cells=20, mask_rates=rates, one_rate=True, unmasked=True)
    assert len(views.ptr) - 1 == 2 * n
    assert not views.n_hidden[:n].any()
    drawn, counts = views.n_hidden[n:].unique(return_counts=True)
    assert drawn.tolist() == [5, 10]
    assert counts.min() > n / 4

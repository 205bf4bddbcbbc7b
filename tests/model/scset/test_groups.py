"""Large samples in groups: a function of the set of cells, however they are ordered and read."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scset_tools.model.scset._groups import group_cells, stream_groups
from scset_tools.nn import content_hash, ptr_from_sizes


def cells(n, width=3, seed=0):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def groups_as_sets(x, order, ptr):
    """Contents of each group, in an order of their own."""
    rows = x if order is None else x[order]
    parts = rows.split(ptr.diff().tolist())
    return [sorted(part.tolist()) for part in parts]


def test_a_hash_is_a_function_of_the_features():
    x = cells(1000)
    hashed = content_hash(x)
    assert len(set(hashed.tolist())) == 1000
    order = torch.randperm(1000)
    torch.testing.assert_close(content_hash(x[order]), hashed[order])
    torch.testing.assert_close(content_hash(x.double()), hashed)
    torch.testing.assert_close(content_hash(torch.tensor([[0.0, 1.0]])), content_hash(torch.tensor([[-0.0, 1.0]])))
    assert content_hash(torch.tensor([[1.0, 2.0]])) != content_hash(torch.tensor([[2.0, 1.0]]))
    assert len(content_hash(x[:0])) == 0


def test_hashes_are_spread_evenly():
    hashed = content_hash(cells(4000)).double() / 2.0**63
    counts = torch.histc(hashed, 10, -1, 1)
    assert counts.min() > 330  # 400 each, standard deviation 19
    # near cells are not near in their hashes
    near = torch.stack([torch.linspace(0, 1e-3, 100), torch.zeros(100)], 1)
    ranks = content_hash(near).argsort().argsort().float()
    assert torch.corrcoef(torch.stack([ranks, torch.arange(100.0)]))[0, 1].abs() < 0.4


def test_blocks_of_features_do_not_change_the_hash(monkeypatch):
    x = cells(50, 7)
    whole = content_hash(x)
    monkeypatch.setattr("scset_tools.nn._random._BLOCK", 21)
    torch.testing.assert_close(content_hash(x), whole)


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(0, 30), min_size=1, max_size=4), n_cells=st.integers(1, 12))
def test_groups_hold_every_cell_once_in_equal_parts(counts, n_cells):
    x, ptr = cells(sum(counts)), ptr_from_sizes(counts)
    groups = group_cells(x, ptr, n_cells)
    order = torch.arange(len(x)) if groups.order is None else groups.order
    assert sorted(order.tolist()) == list(range(len(x)))
    assert groups.n_groups == [max(1, -(-n // n_cells)) for n in counts]
    sizes = groups.ptr.diff()
    assert sizes.max() <= n_cells or not len(x)
    of_sample = sizes.split(groups.n_groups)
    for n, own in zip(counts, of_sample, strict=True):
        assert own.sum() == n
        assert own.max() - own.min() <= 1
    for s, part in enumerate(order.split([int(own.sum()) for own in of_sample])):
        assert ((part >= ptr[s]) & (part < ptr[s + 1])).all()


def test_groups_do_not_depend_on_the_order_of_cells():
    x = torch.cat([cells(40), cells(5).repeat(3, 1)])  # some cells occur several times
    ptr = torch.tensor([0, len(x)])
    want = group_cells(x, ptr, 10)
    shuffled = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(1))]
    got = group_cells(shuffled, ptr, 10)
    assert groups_as_sets(shuffled, got.order, got.ptr) == groups_as_sets(x, want.order, want.ptr)


@pytest.mark.parametrize("max_buffered", [1, 25, 1000])
@pytest.mark.parametrize("piece", [1, 7, 100])
def test_a_stream_gives_the_same_groups(piece, max_buffered):
    x = torch.cat([cells(53), cells(4).repeat(2, 1)])
    want = group_cells(x, torch.tensor([0, len(x)]), 10)
    calls = 0

    def chunks():
        nonlocal calls
        calls += 1
        return iter(x.split(piece))

    found, positions, n_held = [], [], 0
    for rows, ptr, position in stream_groups(chunks, 10, max_buffered=max_buffered):
        torch.testing.assert_close(rows, x[position])
        found += groups_as_sets(rows, None, ptr)
        positions += position.tolist()
        n_held = max(n_held, len(rows))
    assert found == groups_as_sets(x, want.order, want.ptr)
    assert sorted(positions) == list(range(len(x)))
    assert n_held <= max(max_buffered, 10)
    assert calls == 1 + -(-want.n_groups[0] // max(1, max_buffered // 10))


def test_a_stream_without_cells():
    assert list(stream_groups(lambda: iter([cells(0)]), 10)) == []

"""Cells grouped by sample, against a loop over cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scset_tools.data import SampleIndex
from scset_tools.data._index import order_by_name


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 5), max_size=40))
def test_groups_equal_a_loop_over_cells(codes):
    index = SampleIndex.from_codes(np.array(codes, dtype=np.int64), np.arange(6))
    assert len(index) == 6
    for sample in range(6):
        expected = [row for row, code in enumerate(codes) if code == sample]
        assert index.cells(sample).tolist() == expected
        assert index.sizes[sample] == len(expected)
    assert sorted(index.order.tolist()) == list(range(len(codes)))


def test_from_obs_sorts_names_and_leaves_out_empty_categories():
    column = pd.Categorical(["b", "a", "b", "c"], categories=["c", "unused", "b", "a"])
    index = SampleIndex.from_obs(pd.DataFrame({"sample": column}), "sample")
    assert index.names.tolist() == ["a", "b", "c"]
    assert [index.cells(i).tolist() for i in range(3)] == [[1], [0, 2], [3]]


def test_named_cells_come_in_an_order_that_rows_do_not_enter():
    names = np.array([f"cell{i}" for i in range(200)])
    codes = np.arange(200) % 3
    rng = np.random.default_rng(0)
    orders = []
    for permutation in (np.arange(200), rng.permutation(200), np.argsort(names)):
        by_name = order_by_name(pd.Index(names[permutation]))
        index = SampleIndex.from_codes(codes[permutation], np.arange(3), by_name=by_name)
        assert sorted(index.order.tolist()) == list(range(200))
        for sample in range(3):
            assert set(codes[permutation][index.cells(sample)]) == {sample}
        orders.append(names[permutation][index.order].tolist())
    assert orders[0] == orders[1] == orders[2]
    # neither is it that of the names: those of files run on with time
    assert abs(np.corrcoef(np.arange(200), order_by_name(pd.Index(names)))[0, 1]) < 0.3
    # cells of one name keep the order of their rows
    assert order_by_name(pd.Index(["x"] * 5)).tolist() == [0, 1, 2, 3, 4]


def test_more_samples_than_short_numbers_hold():
    codes = np.random.default_rng(0).integers(0, 70_000, 80_000)
    index = SampleIndex.from_codes(codes, np.arange(70_000))
    np.testing.assert_array_equal(index.order, np.argsort(codes, kind="stable"))


def test_cells_of_several_samples_come_one_sample_after_the_other():
    index = SampleIndex.from_codes(np.array([1, 0, 1, 2]), np.array(["a", "b", "c"]))
    assert index.cells_of([2, 1]).tolist() == [3, 0, 2]
    empty = index.cells_of([])
    assert empty.tolist() == []
    assert empty.dtype == np.int64


def test_first_gives_one_value_per_sample():
    index = SampleIndex.from_codes(np.array([1, 0, 1, 0]), np.array(["a", "b"]))
    assert index.first(np.array([7, 5, 7, 5])).tolist() == [5, 7]


@pytest.mark.parametrize(
    ("names", "wanted", "expected"),
    [
        (np.array(["a", "b", "c"], dtype=object), ["c", "a"], [2, 0]),
        (np.array(["a", "b", "c"], dtype=object), "b", [1]),
        (np.array(["a", "b", "c"], dtype=object), [np.str_("c")], [2]),
        (np.array(["a", "b", "c"], dtype=object), None, [0, 1, 2]),
        (np.array([3, 10, 7]), [10, 3], [1, 0]),
        (np.array([3, 10, 7]), ["10", "3"], [1, 0]),  # as the model names its samples
    ],
    ids=["text", "one", "str_subclass", "all", "integers", "integers_as_text"],
)
def test_positions_of_named_samples(names, wanted, expected):
    index = SampleIndex.from_codes(np.arange(3), names)
    assert index.positions(wanted).tolist() == expected


def test_errors_name_the_culprits():
    obs = pd.DataFrame({"sample": ["a", None, "b"]}, index=["x", "y", "z"])
    with pytest.raises(KeyError, match=r"'donor' is not a column of adata.obs. Columns: \['sample'\]"):
        SampleIndex.from_obs(obs, "donor")
    with pytest.raises(ValueError, match=r"missing for 1 of 3 cells \(first: \['y'\]\)"):
        SampleIndex.from_obs(obs, "sample")
    with pytest.raises(ValueError, match=r"must lie in \[0, 2\), but span \[-1, 1\]"):
        SampleIndex.from_codes(np.array([-1, 1]), np.array(["a", "b"]))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\), but span \[0, 3\]"):
        SampleIndex.from_codes(np.array([0, 3]), np.array(["a"]))
    index = SampleIndex.from_obs(obs.dropna(), "sample")
    with pytest.raises(KeyError, match=r"1 of 2 samples are not in the data: \['q'\]. Known samples: \['a', 'b'\]"):
        index.positions(["a", "q"])
    with pytest.raises(ValueError, match=r"`samples` is empty: name some, for instance \['a', 'b'\]"):
        index.positions([])

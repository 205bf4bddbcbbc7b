"""A column of labels means the same to everybody: kind, order, names, matching, missing values, numbers."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from scset_tools import _labels


def column(values: object, name: str = "y") -> pd.Series:
    out = pd.Series(values, name=name)
    return out.set_axis([f"s{i}" for i in range(len(out))])


def ordered(values: list, levels: list) -> pd.Series:
    return column(pd.Categorical(values, categories=levels, ordered=True))


# --- kind ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a", "b", None], "class"),
        ([True, False, None], "class"),
        ([0, 1, 1], "class"),
        ([20, 30, 40, 50], "continuous"),
        (pd.array([20, 30, None], dtype="Int64"), "class"),
        (pd.array([20, 30, None, 40], dtype="Int64"), "continuous"),
        (np.array([20, 30.5, None, 40], dtype=object), "continuous"),
        (pd.Categorical([20, 30, 40]), "class"),
        (pd.Categorical(["lo", "mid", "hi"], categories=["lo", "mid", "hi"], ordered=True), "ordinal"),
        (pd.Categorical(["lo", "hi", "lo"], categories=["lo", "mid", "hi"], ordered=True), "class"),
    ],
)
def test_kind_follows_the_values_not_the_dtype(values: object, kind: str) -> None:
    assert _labels.guess_kind(column(values)) == kind


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1], [2]], "holds list values"),
        (pd.to_timedelta([1, 2, 3], unit="D"), "durations"),
        (pd.date_range("2020", periods=3, tz="UTC"), "dates"),
        (np.array([pd.Timestamp("2020"), None], dtype=object), "dates"),
        (pd.Categorical(pd.date_range("2020", periods=3)), "dates"),
    ],
)
def test_what_is_no_label_is_refused_by_name(values: object, message: str) -> None:
    with pytest.raises(ValueError, match=rf"obs\['y'\] holds.*{message}|obs\['y'\].*{message}"):
        _labels.guess_kind(column(values))


# --- classes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(pd.Categorical(["b", "a", None, "b"], categories=["b", "a", "z"]), id="category"),
        pytest.param(pd.array(["b", "a", None, "b"], dtype="string"), id="string"),
        pytest.param(["b", "a", np.nan, "b"], id="object"),
    ],
)
def test_classes_without_order_are_sorted_whatever_the_dtype(values: object) -> None:
    read = _labels.read_classes(column(values))
    assert (read.names, read.codes.tolist()) == (("a", "b"), [1, 0, -1, 1])


def test_levels_keep_their_order_and_the_higher_is_positive() -> None:
    assert _labels.read_classes(ordered(["mild", "hi", None], ["mild", "no", "hi"])).names == ("mild", "hi")
    assert _labels.read_classes(column([10, 2])).names == ("2", "10")
    assert _labels.read_classes(column([True, False])).names == ("False", "True")


@pytest.mark.parametrize("values", [[0, 1, 0], [0.0, 1.0, 0.0], pd.array([0, 1, 0], dtype="Int64")])
def test_whole_numbers_have_one_name(values: object) -> None:
    read = _labels.read_classes(column(values))
    assert (read.names, read.codes.tolist()) == (("0", "1"), [0, 1, 0])


@pytest.mark.parametrize("values", [[1, "1", 1], ["1", 1.0, "1"], ["True", True, "True"]])
def test_values_that_differ_in_type_only_are_refused(values: list) -> None:
    with pytest.raises(ValueError, match=r"obs\['y'\] has values that differ in type only: .*\(str\)"):
        _labels.read_classes(column(np.array(values, dtype=object)))


@pytest.mark.parametrize("text", ["nan", "NA", "None", "<NA>", "null", ""])
def test_text_of_a_missing_value_is_named(text: str) -> None:
    with pytest.warns(UserWarning, match=rf"holds the text \['{text}'\] in 1 of 3 rows .first: \['s1'\]"):
        assert text in _labels.read_classes(column(["a", text, "b"])).names
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _labels.read_classes(column(["a", None, "Nantes", "none"]))
        _labels.read_classes(ordered(["None", "mild"], ["None", "mild"]))  # named as a level


def test_texts_called_ordinal_need_an_order() -> None:
    with pytest.raises(ValueError, match="would be ordered by alphabet"):
        _labels.read_classes(column(["mild", "severe", "critical"]), kind="ordinal")
    with pytest.raises(ValueError, match="would be ordered by alphabet"):
        _labels.read_classes(column(pd.Categorical(["lo", "hi", "mid"])), kind="ordinal")
    assert _labels.read_classes(column(["10", "9", "1"]), kind="ordinal").names == ("1", "9", "10")
    assert _labels.read_classes(column(["10", "9", "1"])).names == ("1", "10", "9")


# --- matching -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "given"),
    [
        pytest.param([0, 1], ["0", "1", None], id="text-for-int"),
        pytest.param([0, 1], [0.0, 1.0, np.nan], id="float-for-int"),
        pytest.param([0, 1], ["0.0", "1.0", None], id="text-of-float-for-int"),
        pytest.param([0, 1], [False, True, None], id="bool-for-int"),
        pytest.param([0.0, 1.0], pd.array([0, 1, None], dtype="Int64"), id="int-for-float"),
        pytest.param(["0", "1"], [0.0, 1.0, np.nan], id="float-for-text"),
        pytest.param(["0.0", "1.0"], pd.array([0, 1, None], dtype="Int64"), id="int-for-text-of-float"),
        pytest.param([False, True], ["FALSE", "TRUE", None], id="text-of-R-for-bool"),
        pytest.param([False, True], [0, 1, np.nan], id="number-for-bool"),
        pytest.param(["a", "b"], pd.Categorical(["a", "b", None], categories=["b", "a"]), id="category-for-text"),
        pytest.param(["a", "b"], pd.array(["a", "b", None], dtype="string"), id="string-for-text"),
    ],
)
def test_classes_are_matched_by_what_they_mean(known: list, given: object) -> None:
    assert _labels.match_classes(column(given), known).tolist() == [0, 1, -1]


@pytest.mark.parametrize(
    ("known", "given"),
    [([0, 1, 2], [True, False]), ([0, 1], ["01", "1"]), ([0, 1], [0.5, 1]), (["a"], [1]), (["1", "2"], [True])],
)
def test_what_could_mean_something_else_is_refused_with_both_types(known: list, given: list) -> None:
    with pytest.raises(ValueError, match=r"obs\['y'\] has . categories .*; type \w+ here, \w+ in training"):
        _labels.match_classes(column(given), known)


def test_two_spellings_of_one_class_are_refused() -> None:
    with pytest.raises(ValueError, match=r"spells the class '1' in several ways: '1', '1.0'"):
        _labels.match_classes(column(["1", "1.0"]), [0, 1])


# --- numbers ------------------------------------------------------------------------------------------------------------


def test_numbers_are_read_from_any_dtype_and_must_be_finite() -> None:
    for values in ([1, 2.5, None], ["1", "2.5", None], pd.array([1, 2.5, None], dtype="Float64")):
        np.testing.assert_array_equal(_labels.read_numbers(column(values)), [1, 2.5, np.nan])
    with pytest.raises(ValueError, match=r"infinite for 1 of 3 rows .first: \['s1'\]"):
        _labels.read_numbers(column([1, -np.inf, 3]))
    with pytest.raises(ValueError, match=r"holds \['old'\] .type str"):
        _labels.read_numbers(column([1, "old", None]))


@pytest.mark.parametrize("dtype", ["object", "float", "category"])
@pytest.mark.parametrize("kind", ["class", "ordinal"])
def test_an_infinite_number_is_no_class(dtype: str, kind: str) -> None:
    values = [0.0, 1.0, float("inf"), 1.0, -float("inf")]
    with pytest.raises(ValueError, match=r"infinite for 2 of 5 rows .first: \['s2', 's4'\]"):
        _labels.read_classes(column(values).astype(dtype), kind=kind)
    with pytest.warns(UserWarning, match="inf"):  # a text may be called anything
        assert _labels.read_classes(column(["inf", "0"])).names == ("0", "inf")


@pytest.mark.parametrize("odd", ["inf", "-inf", "nan"])
def test_a_text_that_spells_no_place_is_no_level(odd: str) -> None:
    with pytest.raises(ValueError, match=rf"'{odd}'\] in 1 of 3 rows .first: \['s1'\].* has no place among its levels"):
        _labels.read_classes(column(["1", odd, "2"]), kind="ordinal")

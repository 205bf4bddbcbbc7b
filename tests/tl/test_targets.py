"""Labels: how they are read, and what is refused."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scset_tools.model.supervise._targets import read_kinds
from scset_tools.tl._targets import read_target


def make_samples(**columns: object) -> AnnData:
    obs = pd.DataFrame(columns)
    obs.index = [f"s{i}" for i in range(len(obs))]
    return AnnData(np.zeros((len(obs), 1)), obs=obs)


@pytest.mark.parametrize(
    ("column", "kind", "values"),
    [
        pytest.param(["b", "a", None, "b"], "class", [1, 0, 1], id="text"),
        pytest.param(
            pd.Categorical(["b", "a", None, "b"], categories=["b", "a", "z"]), "class", [1, 0, 1], id="category"
        ),
        pytest.param([True, False, None, True], "class", [1, 0, 1], id="bool"),
        pytest.param([1.0, 0.0, np.nan, 1.0], "class", [1, 0, 1], id="two-numbers"),
        pytest.param([3.0, 0.5, np.nan, 7.0], "continuous", [3.0, 0.5, 7.0], id="numbers"),
        pytest.param(
            pd.Categorical(["lo", "hi", None, "mid"], categories=["lo", "never", "mid", "hi"], ordered=True),
            "ordinal",
            [0, 2, 1],
            id="ordered",
        ),
    ],
)
def test_kind_is_guessed_and_missing_left_out(column: object, kind: str, values: list) -> None:
    target = read_target(make_samples(y=column), "y")
    assert (target.kind, target.n_missing, target.rows.tolist()) == (kind, 1, [0, 1, 3])
    assert target.values.tolist() == values


def test_a_column_is_read_as_setup_anndata_reads_it() -> None:
    """Whole numbers of few values, texts of numbers, NumPy's and pandas' dtypes: one rule."""
    columns = {
        "0/1": [0, 1, 0, 1],
        "0/1/2": [0, 1, 2, 1],
        "int8": np.array([1, 2, 3, 3], dtype=np.int8),
        "Int64": pd.array([1, 2, 3, None], dtype="Int64"),
        "object": pd.Series([1, 2, 3, None], dtype=object),
        "text": ["0", "1", "2", "1"],
        "bool": [True, False, True, True],
        "category": pd.Categorical([3, 2, 1, 1]),
        "ordered": pd.Categorical([3, 2, 1, 1], ordered=True),
        "two levels": pd.Categorical([1, 2, 1, 1], ordered=True),
        "float": [0.5, 1.5, np.nan, 2.5],
    }
    samples = make_samples(**columns)
    of_models = {key: kind for key, (kind, _) in read_kinds(samples.obs, list(columns)).items()}
    assert {key: read_target(samples, key).kind for key in columns} == of_models
    assert set(of_models.values()) == {"class", "ordinal", "continuous"}


@pytest.mark.parametrize(
    ("label", "event", "values", "hint"),
    [
        ("survival_days", "is_dead", [1, 0, 1, 0], r"obs\['is_dead'\] may be"),
        ("OS.time", "vital_status", [True, False, True, True], r"obs\['vital_status'\] may be"),
        ("days_to_relapse", "Relapsed", pd.Categorical(["1", "0", "1", "1"]), r"obs\['Relapsed'\] may be"),
        ("follow_up", "censored", [1, 0, 1, 0], r"obs\['censored'\], turned round, may be"),
        ("pfs", "event", [1, 0, None, 0], r"obs\['event'\] may be"),
        ("age", "is_dead", [1, 0, 1, 0], None),
        ("age_years", "status", [1, 0, 1, 0], None),
        ("survival_days", "status", ["healthy", "ill", "ill", "ill"], None),
        ("survival_days", "is_dead", [1, 1, 1, 1], None),
        ("survival_days", "sex", [1, 0, 1, 0], None),
        ("timely", "event", [1, 0, 1, 0], None),
    ],
)
def test_times_without_events_are_numbers_with_a_hint(label: str, event: str, values: object, hint: str | None) -> None:
    samples = make_samples(**{label: [1.0, 2.0, 3.0, 4.0], event: values})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read_target(samples, label).kind == "continuous"
        assert read_target(samples, label, target="continuous").kind == "continuous"
    assert len(caught) == (hint is not None)
    if hint is not None:
        assert re.search(hint, str(caught[0].message))


def test_numbers_as_levels_and_as_classes() -> None:
    samples = make_samples(y=[2, 10, 2, 5])
    assert read_target(samples, "y", target="ordinal").values.tolist() == [2, 10, 2, 5]
    as_class = read_target(samples, "y", target="class")
    assert (as_class.values.tolist(), as_class.classes) == ([0, 2, 0, 1], ("2", "5", "10"))


@pytest.mark.parametrize(
    "event", [[True, False, True, True], [1, 0, 1, 1], pd.Categorical(["1.0", "0.0", "1.0", "1.0"])]
)
def test_events_are_read_from_what_files_hold(event: object) -> None:
    target = read_target(make_samples(t=[1.0, 2.0, np.nan, 4.0], e=event), "t", event_key="e")
    assert (target.kind, target.n_missing) == ("time_to_event", 1)
    assert target.is_event.tolist() == [True, False, True]
    assert target.values.tolist() == [1.0, 2.0, 4.0]


def test_sample_with_missing_event_flag_is_left_out() -> None:
    target = read_target(make_samples(t=[1.0, 2.0, 3.0], e=pd.Categorical(["1", None, "1"])), "t", event_key="e")
    assert (target.rows.tolist(), target.n_missing) == ([0, 2], 1)


def test_strata_of_numbers_are_equal_bins() -> None:
    values = np.random.default_rng(0).permutation(50).astype(float)
    strata = read_target(make_samples(y=values), "y").strata(5)
    assert np.bincount(strata).tolist() == [10] * 5
    assert strata.tolist() == (values // 10).astype(int).tolist()
    assert set(read_target(make_samples(y=values[:7]), "y").strata(5)) == {0}


@pytest.mark.parametrize(
    ("columns", "kwargs", "message"),
    [
        ({"y": [None, None]}, {}, "missing for all 2 samples"),
        ({"y": ["a", "a", None]}, {}, "same value 'a' in all 2 labelled samples .1 are missing"),
        ({"y": [1.0, 1.0]}, {"target": "continuous"}, "same value '1.0'"),
        ({"y": ["a", "b"]}, {"target": "continuous"}, "must hold numbers for a target of kind 'continuous'"),
        ({"y": ["a", "b"]}, {"target": "ordinal"}, "make it an ordered category"),
        ({"y": [1.0, np.inf, 3.0]}, {}, r"infinite for 1 of 3 rows .first: \['s1'\]"),
        ({"y": ["a", "b"]}, {"target": "regression"}, "target must be 'auto' or one of"),
        ({"y": [1.0, 2.0]}, {"target": "time_to_event"}, "needs event_key"),
        ({"y": [1.0, 2.0], "e": [1, 1]}, {"target": "class", "event_key": "e"}, "belongs to target='time_to_event'"),
        ({"y": [1.0, 2.0], "e": ["dead", "1"]}, {"event_key": "e"}, r"True/1 .* but holds \['dead'\]"),
        ({"y": [1.0, 0.0], "e": [1, 1]}, {"event_key": "e"}, r"must be positive, but 1 are not .first: \['s1'\]"),
        ({"y": [1.0, 2.0], "e": [1, 0]}, {"event_key": "e"}, "Only 1 of 2 samples has a seen event"),
    ],
)
def test_labels_that_say_nothing_are_refused(columns: dict, kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_target(make_samples(**columns), "y", **kwargs)


def test_unknown_column() -> None:
    with pytest.raises(KeyError, match="'z' is not a column"):
        read_target(make_samples(y=[1, 2]), "z")
    with pytest.raises(KeyError, match="'e' is not a column"):
        read_target(make_samples(y=[1, 2]), "y", event_key="e")

"""Models that learn labels in the folds of :func:`scset_tools.tl.benchmark`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from _cohort import make_cohort
from test_contract import MODELS

import scset_tools as sst
from scset_tools.model._as_profile import drawn_of_each_class

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}


def learner(kind="scset", *, finetune, train=None, **kwargs):
    model, build = MODELS[kind]
    return sst.model.ModelProfile(
        model,
        sample_key="sample",
        build={**build, "random_state": 0},
        train={"max_epochs": 1, "seed": 0, **QUIET} if train is None else train,
        finetune={name: {**QUIET, **arguments} for name, arguments in finetune.items()},
        **kwargs,
    )


def test_ways_to_learn_are_rows_beside_probes_on_the_same_folds():
    cells = make_cohort(12)
    ways = {
        "frozen": {"penalty": 1.0},
        "mlp": {"head": "mlp", "max_epochs": 2},
        "end to end": {"mode": "end_to_end", "max_epochs": 2, "penalty": 1.0},
        "end to end, 4 labels": {"mode": "end_to_end", "max_epochs": 2, "penalty": 1.0, "n_labels": 4},
    }
    entries = {"scset": learner(finetune=ways), "mean": sst.profiles.Mean(sample_key="sample")}
    result = sst.tl.benchmark(
        cells, entries, "condition", sample_key="sample", cv=3, n_repeats=1, tune=False, progress=False
    )
    table = result.results
    rows = set(zip(table["representation"], table["probe"], strict=True))
    assert rows == {*(("scset", way) for way in ways), ("mean", "logistic")}
    assert (table.groupby(["representation", "probe"]).size() == 3).all()
    assert table.groupby("fold")["n_test"].nunique().eq(1).all()
    assert table["balanced_accuracy"].between(0, 1).all()
    assert set(result.summary().reset_index()["probe"]) >= set(ways)


def test_all_kinds_of_labels_are_learned_and_scored():
    cells = make_cohort(12)
    number = cells.obs["sample"].astype(str).str[1:].astype(int)
    cells.obs["stage"] = pd.Categorical(
        np.array(["low", "mid", "high"])[number % 3], categories=["low", "mid", "high"], ordered=True
    )
    cells.obs["time"], cells.obs["event"] = 1.0 + number % 7, number % 4 > 0
    entry = learner(finetune={"frozen": {"penalty": 1.0}}, pretrain_on="all")
    result = sst.tl.benchmark(
        cells,
        {"scset": entry},
        ["stage", "age", "time"],
        sample_key="sample",
        event_key={"time": "event"},
        cv=3,
        n_repeats=1,
        tune=False,
        progress=False,
    )
    assert result.targets == {"stage": "ordinal", "age": "continuous", "time": "time_to_event"}
    table = result.results.set_index("label")
    assert table.loc["stage", "mae"].between(0, 2).all()
    assert table.loc["age", "mae"].gt(0).all()
    assert table.loc["time", "concordance"].between(0, 1).any()


def test_pretraining_sees_the_training_samples_or_all():
    cells = make_cohort(6)
    for pretrain_on, n in (("training", 4), ("all", 6)):
        entry = learner(finetune={"frozen": {}}, pretrain_on=pretrain_on)
        entry.fit(cells, samples=["s00", "s01", "s02", "s03"])
        assert len(entry.model_.sample_names) == n
    with pytest.raises(ValueError, match="pretrain_on='none' is not one of"):
        learner(finetune={}, pretrain_on="none").fit(cells)


def test_labels_are_drawn_of_each_class_in_turn():
    labels = pd.Series(["a"] * 10 + ["b"] * 3 + [None], index=[f"s{i:02d}" for i in range(14)])
    drawn = drawn_of_each_class(labels, 5, seed=0)
    assert sorted(labels[drawn]) in (["a", "a", "a", "b", "b"], ["a", "a", "b", "b", "b"])
    assert sorted(labels[drawn_of_each_class(labels, 8, seed=0)]) == ["a"] * 5 + ["b"] * 3
    assert drawn == drawn_of_each_class(labels.iloc[::-1], 5, seed=0)
    assert drawn != drawn_of_each_class(labels, 5, seed=1)
    numbers = pd.Series(np.arange(14.0), index=labels.index)
    assert len(set(drawn_of_each_class(numbers, 6, seed=0))) == 6

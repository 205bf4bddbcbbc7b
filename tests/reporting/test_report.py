"""The call: what is refused at once, what a report without labels or with numbers holds, and how it goes on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from report_cohort import BRIEF, LABEL, SIZES, Page, cohort

import scset_tools as sst
from scset_tools.reporting._parts import Parts, _plain, _restored
from scset_tools.reporting._request import Request

KEYS = {"sample_key": "sample", "models": (), "progress": False, "cv": 3}


def model_keys():
    return KEYS | {"label_key": "age", "models": "MAESTRO", "build": SIZES, "train": BRIEF}


# ---- what is refused, before anything is computed


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"sample_key": "donr"}, KeyError, "donr.* is not a column of adata.obs"),
        ({"label_key": "disease"}, KeyError, "disease.* is not a column"),
        ({"label_key": "cell_type"}, ValueError, "'cell_type'.* must have one value per sample"),
        ({"label_key": "one"}, ValueError, "has 1 value in 12 samples.*nothing to predict"),
        ({"sample_key": "two"}, ValueError, "has 2 samples.*at least 3"),
        ({"label_key": "subtype", "target": "case"}, ValueError, "target='case' is not a class"),
        ({"use_rep": "X_pca"}, KeyError, "'X_pca' is not in adata.obsm"),
        ({"layer": "counts"}, KeyError, "'counts' is not in adata.layers"),
        ({"cell_type_key": "type"}, KeyError, "type.* is not a column"),
        ({"models": "scvi"}, ValueError, "'scvi'.* is no model. There are"),
        ({"models": "PaSCient"}, ValueError, "pascient learns from labels.*label_key"),
        ({"cv": 1}, ValueError, "cv=1 must be a whole number of 2 or more"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(keys, error, message, tmp_path):
    cells = cohort()
    cells.obs["one"] = "same"
    cells.obs["two"] = np.where(cells.obs["age"] < 30, "a", "b")
    with pytest.raises(error, match=message):
        sst.report(cells, tmp_path / "r.html", **KEYS | keys)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_said_at_once(tmp_path):
    there = tmp_path / "there.html"
    there.write_text("mine")
    with pytest.raises(FileExistsError, match="is there already"):
        sst.report(cohort(), there, **KEYS)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        sst.report(cohort(), tmp_path / "no" / "r.html", **KEYS)
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        sst.report(cohort(), tmp_path, **KEYS)
    (tmp_path / "r.html.parts").write_text("a file in the way")
    with pytest.raises(OSError, match=r"r\.html\.parts cannot be written"):
        sst.report(cohort(), tmp_path / "r.html", **KEYS)
    assert there.read_text() == "mine"


def test_cells_of_another_kind_are_refused(tmp_path):
    with pytest.raises(TypeError, match="report takes an AnnData"):
        sst.report(pd.DataFrame(), tmp_path / "r.html", **KEYS)


# ---- kinds of reports


def test_without_a_label_there_are_no_scores(tmp_path):
    page = Page(sst.report(cohort(), tmp_path / "r.html", **KEYS).read_text())
    assert page.ids == ["publish", "cohort", "maps", "health"]
    assert "No label was named" in page.text


def test_numbers_are_scored_by_r2(tmp_path):
    page = Page(sst.report(cohort(), tmp_path / "r.html", **KEYS, label_key="age").read_text())
    assert "R2 on held-out samples" in page.text
    assert "lowest third" in page.text
    assert "neighbours" not in page.ids


def with_times(n_samples=16):
    """Times that the share of the first type of cells foretells; a third is censored, and one flag is missing."""
    cells = cohort(n_samples)
    names = list(cells.obs["sample"].unique())
    place = cells.obs["sample"].map({name: i for i, name in enumerate(names)}).to_numpy()
    share = cells.obs["cell_type"].astype("category").cat.codes.to_numpy() == 0
    cells.obs["days"] = pd.Series(share).groupby(place).mean()[place].to_numpy() * 100 + 1 + place / 100
    cells.obs["died"] = np.where(place == 3, None, np.where(place % 3 == 0, 0, 1)).astype(object)
    return cells


def test_times_are_scored_by_the_concordance_of_a_cox_model(tmp_path):
    cells = with_times()
    keys = KEYS | {"label_key": "days", "event_key": "died", "batch_key": "batch"}
    profiles = {"mean": sst.profiles.Mean(sample_key="sample")}
    text = Page(sst.report(cells, tmp_path / "r.html", **keys, profiles=profiles).read_text()).text
    bench = sst.tl.benchmark(
        cells,
        profiles,
        "days",
        sample_key="sample",
        event_key="died",
        probes="cox",
        cv=3,
        n_repeats=1,
        progress=False,
    )
    row = bench.summary("concordance").iloc[0]
    assert f"concordance {row['mean']:.2f}, 95% interval {row['ci_low']:.2f} to {row['ci_high']:.2f}" in text
    assert "the event ('died') was seen in 10 samples, 5 censored; missing in 1 sample." in text
    assert "15 labelled samples; 3 folds; Cox model" in text
    assert "Permutation test: p =" in text
    assert "not of times to an event" in text  # what else predicts it
    assert "shortest third" in text
    assert "neighbours" not in Page(tmp_path.joinpath("r.html").read_text()).ids


@pytest.mark.parametrize(
    ("change", "keys", "message"),
    [
        (lambda obs: None, {"label_key": None, "event_key": "died"}, "belongs to a label that is a time: name its column"),
        (lambda obs: None, {"label_key": "days", "event_key": "subtype"}, r"must hold True/1 \(event seen\) or False/0"),
        (lambda obs: obs.__setitem__("days", -obs["days"]), {"label_key": "days", "event_key": "died"}, "must be positive"),
        (lambda obs: obs.__setitem__("died", 0), {"label_key": "days", "event_key": "died"}, "has a seen event"),
        (lambda obs: None, {"label_key": "subtype", "event_key": "died"}, "must hold numbers for a target of kind 'time_to_event'"),
    ],
)  # fmt: skip
def test_times_that_cannot_be_read_are_said_at_once(change, keys, message, tmp_path):
    cells = with_times()
    change(cells.obs)
    with pytest.raises(ValueError, match=message):
        sst.report(cells, tmp_path / "r.html", **KEYS | keys)
    assert list(tmp_path.iterdir()) == []


def test_missing_labels_are_counted_and_drawn_grey(tmp_path):
    cells = cohort()
    missing = cells.obs["sample"].unique()[[1, 4]]
    cells.obs["some"] = cells.obs["subtype"].astype(object).where(~cells.obs["sample"].isin(missing))
    text = sst.report(cells, tmp_path / "r.html", **KEYS, label_key="some").read_text()
    assert "'some' is missing for 2 of 12 samples" in Page(text).text
    assert "10 labelled samples" in text
    assert text.count('class="point none') == 2


def test_a_part_that_cannot_be_made_says_why(tmp_path):
    cells = cohort()
    cells.obs["rare"] = np.where(cells.obs["sample"] == cells.obs["sample"].iloc[0], "one", "rest")
    page = Page(sst.report(cells, tmp_path / "r.html", **KEYS, label_key="rare").read_text())
    assert "Not computed." in page.text
    assert "Any score of 'rare':" in page.text  # among what may not be written


def test_label_and_batch_that_are_one_leave_nothing_to_write(tmp_path):
    cells = cohort()
    cells.obs["site"] = cells.obs["subtype"].astype(str) + " site"
    text = Page(sst.report(cells, tmp_path / "r.html", **KEYS, label_key="subtype", batch_key="site").read_text()).text
    assert "cannot be told apart in these samples" in text
    assert "A linear model of" not in text


# ---- the same again, and on from where it was


def test_same_input_same_file_and_rows_that_are_not_read_do_not_matter(tmp_path):
    cells = cohort()
    first = sst.report(cells, tmp_path / "a.html", **KEYS, label_key="subtype").read_bytes()
    cells.obs["unrelated"] = np.arange(cells.n_obs)
    assert sst.report(cells, tmp_path / "b.html", **KEYS, label_key="subtype").read_bytes() == first


def test_a_run_that_was_stopped_goes_on(tmp_path, monkeypatch):
    trained = []
    train = sst.MAESTRO.train

    def counting(self, *args, **kwargs):
        trained.append(1)
        if len(trained) == 3:  # the map, one fold, and then Ctrl-C
            raise KeyboardInterrupt("stop")
        return train(self, *args, **kwargs)

    monkeypatch.setattr(sst.MAESTRO, "train", counting)
    out = tmp_path / "r.html"
    with pytest.raises(KeyboardInterrupt, match="stop"):
        sst.report(cohort(), out, **model_keys())
    assert not out.exists()
    assert (tmp_path / "r.html.parts").is_dir()
    trained.clear()
    trained.extend([0] * 10)
    resumed = sst.report(cohort(), out, **model_keys()).read_bytes()
    assert len(trained) == 10 + 2  # two folds are left
    assert not (tmp_path / "r.html.parts").exists()
    assert sst.report(cohort(), tmp_path / "r2.html", **model_keys()).read_bytes() == resumed


@pytest.mark.parametrize(
    "change",
    [
        lambda cells, keys: cells.X.__setitem__((5, 3), cells.X[5, 3] + 1e-3),
        lambda cells, keys: setattr(cells, "obs", cells.obs.assign(subtype=cells.obs["subtype"].astype(str) + "x")),
        lambda cells, keys: setattr(cells, "var_names", [f"g{i}" for i in range(cells.n_vars)]),
        lambda cells, keys: keys.__setitem__("seed", 1),
        lambda cells, keys: keys.__setitem__("groups_key", "donor"),
        lambda cells, keys: keys.__setitem__("train", {"max_epochs": 2}),
    ],
)
def test_another_cohort_or_request_has_another_checksum(change):
    cells, keys = cohort(), {"sample_key": "sample", "label_key": "subtype"}
    first = Request(cells, **keys).fingerprint()
    assert Request(cohort(), **keys).fingerprint() == first
    change(cells, keys)
    assert Request(cells, **keys).fingerprint() != first


def test_parts_come_back_as_they_were(tmp_path):
    frame = pd.DataFrame({"a": [0.1 + 0.2, np.nan], "b": ["x", None], "c": [1, 2]}, index=["r", "s"])
    value = {"frame": frame, "x": np.float32([1 / 3]), "n": np.int64(3), "list": [True, None, "<b>"]}
    parts = Parts(tmp_path / "p", "f")
    back = parts.get("one", lambda: value)
    pd.testing.assert_frame_equal(back["frame"], frame, check_dtype=False)
    assert np.float32(back["x"][0]) == np.float32(1 / 3)
    assert back["list"] == [True, None, "<b>"]
    assert parts.get("one", lambda: pytest.fail("read, not made"))["n"] == 3
    parts.keep("v/w", np.eye(2))
    np.testing.assert_array_equal(parts.vectors("v/w"), np.eye(2))
    assert Parts(tmp_path / "p", "g").vectors("v/w") is None
    parts.drop()
    assert (tmp_path / "p" / "g").is_dir()
    assert _restored(_plain({"f": frame.iloc[:0]}))["f"].empty


def test_labels_with_odd_names_are_found(tmp_path):
    text = Page(sst.report(cohort(), tmp_path / "r.html", **KEYS, label_key=LABEL, batch_key="batch").read_text()).text
    assert "Not computed" not in text


# ---- how long models are trained


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, {"max_epochs": 50, "n_cells": 500}),  # 12 samples are one batch
        ({"train": {"max_epochs": 3}}, {"max_epochs": 3, "n_cells": 500}),
        ({"train": {"n_cells": 900, "batch_size": 2}}, {"max_epochs": 10, "n_cells": 900, "batch_size": 2}),
        ({"build": {"n_cells": 800}}, {"max_epochs": 50, "n_cells": 800}),  # a teacher sees no less than a student
        ({"full_training": True}, {}),
    ],
)
def test_training_is_brief_unless_asked_otherwise(asked, expected):
    models = {"maestro": sst.MAESTRO, "pascient": sst.PaSCient}
    request = Request(cohort(), "sample", label_key=LABEL, models=models, **asked)
    assert request.training("maestro") == expected
    assert request.training("pascient") == asked.get("train", {})


def pathological(kind):
    """Cohorts that a page has sentences for."""
    cells = cohort()
    names = list(cells.obs["sample"].unique())
    place = cells.obs["sample"].map({name: i for i, name in enumerate(names)}).astype(int)
    if kind == "three donors":
        cells.obs["donor"] = (place % 3).astype(str).to_numpy()
    if kind == "most labels missing":
        cells.obs["subtype"] = cells.obs["subtype"].astype(object).where(place < 4)
    if kind == "two classes of one sample":
        cells.obs["subtype"] = np.select([place == 0, place == 1], ["rare", "rarer"], "rest")
    if kind == "classes of one sample each":
        cells = cells[place < 3].copy()
        cells.obs["subtype"] = place[place < 3].map(lambda i: f"class {i}").to_numpy()
    return cells


@pytest.mark.parametrize(
    "kind", ["three donors", "most labels missing", "two classes of one sample", "classes of one sample each"]
)
def test_odd_cohorts_get_sentences(kind, tmp_path):
    keys = {"sample_key": "sample", "label_key": "subtype", "groups_key": "donor", "batch_key": "batch", "models": ()}
    page = Page(sst.report(pathological(kind), tmp_path / "r.html", **keys, progress=False).read_text())
    assert "publish" in page.ids
    assert "Traceback" not in page.text
    assert not any(value in page.text for value in (" nan ", "(nan", "inf to", "None of"))

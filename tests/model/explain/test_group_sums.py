"""Contributions by group that are summed as they are found: the same tables as of those that are kept."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from _cohort import FIT, make_cohort
from scipy import sparse

import scset_tools as sst
from scset_tools.model.explain import _collect, _group_sums, _question

SIZES = {
    "scset": (sst.ScSet, {"n_hidden": 16, "n_latent": 6, "n_cells": 20, "n_heads": 2}),
    "pascient": (sst.PaSCient, {"n_hidden": 16, "n_latent": 4}),
}


@pytest.fixture(params=SIZES, ids=str, scope="module")
def model(request):
    cls, sizes = SIZES[request.param]
    adata = make_cohort()
    if request.param == "pascient":
        adata.X = sparse.csr_matrix(adata.X * (adata.X > 1))
    adata.obs["grade"] = adata.obs["study"].astype(str)
    cls.setup_anndata(adata, "sample", **({"labels_key": "grade"} if request.param == "pascient" else {}))
    model = cls(adata, random_state=0, **sizes)
    model.train(**FIT)
    return model


def explain(model, label="grade", **arguments):
    return model.get_attributions(label, groupby="cell_type", **{"n_cells": None, "n_steps": 4, **arguments})


def summed(model, monkeypatch, *args, **arguments):
    with monkeypatch.context() as patch:
        patch.setattr(_collect, "MAX_BYTES", 0)
        return explain(model, *args, **arguments)


def assert_same_tables(found, want):
    assert found.group_values is None
    assert want.group_sums is None
    for target in want.classes:
        for by in ("contrast", "mean"):
            a, b = (x.by_group_and_feature(target, by=by) for x in (found, want))
            pd.testing.assert_frame_equal(a, b, check_dtype=False, rtol=1e-5, atol=1e-6)
            for group in want.group_names:
                a, b = (x.rank_features(target, group=group, by=by).loc[want.feature_names] for x in (found, want))
                pd.testing.assert_series_equal(a, b, check_dtype=False, rtol=1e-5, atol=1e-6)
    for group in want.group_names:
        a, b = (x.contrast(group=group) for x in (found, want))
        pd.testing.assert_frame_equal(a, b, check_dtype=False, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.values, want.values, rtol=1e-5, atol=1e-7)
    pd.testing.assert_frame_equal(found.groups, want.groups)
    pd.testing.assert_frame_equal(found.by_sample(want.classes[0]), want.by_sample(want.classes[0]))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"reference": "study1", "target": ["study0", "study2"]},
        {"features": ["marker_4", "marker_1"]},
        {"samples": ["s05", "s01", "s02", "s03", "s05"]},
        {"method": "gradient_x_input"},
        {"batch_size": 2, "tolerance": 1e-12, "n_steps": 2},
    ],
    ids=lambda a: "-".join(a) or "default",
)
def test_tables_are_those_of_what_is_kept(model, monkeypatch, arguments):
    """With next to no tolerance every sample comes again five times, and counts once."""
    assert_same_tables(summed(model, monkeypatch, **arguments), explain(model, **arguments))


def test_of_two_classes_one_is_the_other_turned(model, monkeypatch):
    found = summed(model, monkeypatch, "condition", head="probe")
    assert_same_tables(found, explain(model, "condition", head="probe"))
    case, control = (found.by_group_and_feature(c, by="contrast") for c in ("case", "control"))
    np.testing.assert_allclose(case, control)  # signs of values and of the difference both turn


@pytest.mark.parametrize("kept", [True, False])
def test_few_places_at_a_time_make_no_difference(model, monkeypatch, kept):
    want = explain(model)
    monkeypatch.setattr(_group_sums, "MAX_BYTES_AT_ONCE", 0)
    if kept:
        np.testing.assert_allclose(explain(model).group_values, want.group_values, rtol=1e-5, atol=1e-7)
    else:
        assert_same_tables(summed(model, monkeypatch), want)


@pytest.mark.parametrize("kept", [True, False])
def test_shares_of_several_processes_add_up(model, monkeypatch, kept):
    want = explain(model)
    monkeypatch.setattr(_question, "is_shared", lambda: True)
    monkeypatch.setattr(_question, "shared", lambda numbers, sizes, work: [work(numbers[::2]), work(numbers[1::2])])
    if kept:
        np.testing.assert_allclose(explain(model).group_values, want.group_values, rtol=1e-5, atol=1e-7)
    else:
        assert_same_tables(summed(model, monkeypatch), want)


def test_what_was_not_kept_is_said(model, monkeypatch):
    found = summed(model, monkeypatch)
    with pytest.raises(
        ValueError, match=r"8 x 2 x 3 x 5 \(samples, groups, classes, features\) take .* get_attributions\(target="
    ):
        found.by_sample("study0", group="T")
    adata = make_cohort()
    found.write(adata)
    assert adata.varm[next(iter(adata.varm))].shape == (5, 2)


def test_memory_does_not_grow_with_the_samples():
    """Sums of two weighings, of whatever number of samples."""
    weights = {by: np.full((1_000, 3), 1e-3) for by in ("contrast", "mean")}
    sums = _group_sums.GroupSums(_group_sums.Weighing(weights, np.arange(3), np.ones(3)), 4, 7)
    for place in range(1_000):
        sums.add(place, place % 4, np.full((3, 7), 2.0))
    assert {name: value.shape for name, value in sums.sums.items()} == dict.fromkeys(weights, (4, 3, 7))
    np.testing.assert_allclose(sums.sums["mean"], 0.5)

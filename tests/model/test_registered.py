"""What was registered is what is used: set-ups do not meet in ``obs``, and data that changed since raise."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from _cohort import FIT, make_cohort
from test_contract import MODELS, distance, fit

import scset_tools as sst

pytestmark = [pytest.mark.platform, pytest.mark.filterwarnings("ignore:.*is not trained")]
KINDS = pytest.mark.parametrize("kind", MODELS)
WHOLE_STUDIES = pytest.mark.filterwarnings("ignore:Each of the . values of adata.obs..study..")
"""Another set-up of the same cells, whose samples are studies on purpose."""


def build(kind, adata, *, sample_key="sample", labels_key="condition", **setup):
    cls, arguments = MODELS[kind]
    cls.setup_anndata(adata, sample_key, labels_key=labels_key, batch_key="batch", **setup)
    return cls(adata, random_state=0, **arguments)


# ---- set-ups do not meet


@KINDS
def test_obs_and_x_stay_as_the_user_gave_them(kind):
    adata, before = make_cohort(), make_cohort()
    x = adata.X
    model = fit(kind, adata)
    model.get_sample_representation(adata.copy())
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert adata.X is x


@KINDS
def test_cells_that_were_never_set_up_are_embedded_without_a_word(kind, caplog):
    model, new = fit(kind, make_cohort()), make_cohort(3, prefix="new")
    scvi = logging.getLogger("scvi")
    scvi.addHandler(caplog.handler)
    caplog.clear()
    try:
        assert len(model.get_sample_representation(new)) == 3
    finally:
        scvi.removeHandler(caplog.handler)
    assert not [record for record in caplog.records if record.name.startswith("scvi")]


@KINDS
@WHOLE_STUDIES
def test_another_set_up_in_between_does_not_matter(kind):
    alone = fit(kind, make_cohort()).get_sample_representation()
    adata = make_cohort()
    model = build(kind, adata)
    adata.obs["other"] = adata.obs["study"].astype(str).replace("study2", "study1")
    other = build(kind, adata, sample_key="study", labels_key="other")  # other samples and labels, the same object
    sst.tl.benchmark(
        adata,
        {"mean": sst.profiles.Mean(sample_key="sample")},
        "condition",
        sample_key="sample",
        cv=2,
        n_repeats=1,
        tune=False,
        progress=False,
    )
    model.train(**FIT)
    other.train(**{**FIT, "train_size": 1.0})
    assert sorted(other.train_samples_) == ["study0", "study1", "study2"]
    assert distance(model.get_sample_representation(), alone) == 0
    assert list(model.to_sample_adata().obs_names) == model.sample_names


def test_labels_are_those_of_the_model_and_not_of_the_last_set_up():
    long = {**FIT, "max_epochs": 30, "train_size": 1.0, "plan_kwargs": {"lr": 1e-2}}
    adata = make_cohort()
    adata.obs["half"] = np.where(adata.obs["sample"].isin(["s00", "s01", "s02", "s03"]), "F", "M")
    first, second = build("pascient", adata), build("pascient", adata, labels_key="half")
    second.train(**long)
    first.train(**long)
    want = build("pascient", make_cohort())
    want.train(**long)
    assert distance(first.get_sample_representation(), want.get_sample_representation()) == 0
    assert set(second.predict()["half"]) <= {"F", "M"}


@WHOLE_STUDIES
def test_a_copy_is_set_up_by_itself_and_the_first_set_up_stays():
    adata = make_cohort()
    sst.MAESTRO.setup_anndata(adata, "sample")
    copy = adata.copy()
    sst.MAESTRO.setup_anndata(copy, "study")
    arguments = MODELS["maestro"][1]
    assert sst.MAESTRO(adata, **arguments).sample_names == [f"s{i:02d}" for i in range(8)]
    assert sst.MAESTRO(copy, **arguments).sample_names == ["study0", "study1", "study2"]


@WHOLE_STUDIES
def test_embedding_leaves_the_set_up_of_the_embedded_cells_alone(tmp_path):
    model, query = fit("maestro", make_cohort()), make_cohort(4, prefix="q")
    model.save(tmp_path / "m")
    sst.MAESTRO.setup_anndata(query, "study")
    for m in (model, sst.MAESTRO.load(tmp_path / "m", adata=False)):
        assert list(m.get_sample_representation(query).index) == ["q00", "q01", "q02", "q03"]
    assert sst.MAESTRO(query, **MODELS["maestro"][1]).sample_names == ["study0", "study1", "study2"]


def test_a_lost_entry_of_uns_does_not_hide_a_change():
    adata = make_cohort()
    model = fit("maestro", adata)
    want = model.get_sample_representation()
    adata.uns.clear()
    assert distance(model.get_sample_representation(adata), want) == 0
    adata.obs["sample"] = adata.obs["sample"].astype(str).replace("s00", "s99")
    with pytest.raises(ValueError, match="adata is no longer what it was"):
        model.get_sample_representation(adata)


# ---- data that changed raise, before the model is made, trained or asked


def _rename(adata):
    adata.obs["sample"] = adata.obs["sample"].cat.rename_categories({"s00": "s01", "s01": "s00"})


def _move_one_cell(adata):
    adata.obs.iloc[3, adata.obs.columns.get_loc("sample")] = "s05" if adata.obs["sample"].iloc[3] != "s05" else "s04"


def _relabel(adata):
    adata.obs["condition"] = adata.obs["condition"].cat.rename_categories({"case": "control", "control": "case"})


def _drop_label(adata):
    del adata.obs["condition"]


def _rebatch(adata):
    adata.obs["batch"] = np.where(adata.obs["batch"] == "b0", "b1", "b0")


CHANGES = {
    "cells filtered": (lambda a: a._inplace_subset_obs((a.obs["sample"] != "s03").to_numpy()), "cells, but was set up"),
    "cells sorted": (
        lambda a: a._inplace_subset_obs(np.argsort(a.obs["sample"].astype(str).to_numpy(), kind="stable")),
        r"adata.obs\['sample'\] differs in \d+ of \d+ cells \('s_cell",
    ),
    "genes filtered": (
        lambda a: a._inplace_subset_var(np.array([0, 2, 4])),
        r"adata.var_names \(3\) differ from the 5",
    ),
    "genes permuted": (lambda a: a._inplace_subset_var(np.arange(5)[::-1]), "0 missing, 0 unknown"),
    "genes renamed": (
        lambda a: a.var_names.__class__ and setattr(a, "var_names", list("abcde")),
        "5 missing, 5 unknown",
    ),
    "samples renamed": (_rename, r"differs in \d+ of \d+ cells \('s_cell\d+': 's0[01]' then, 's0[01]' now"),
    "one cell moved": (_move_one_cell, "differs in 1 of"),
    "labels changed": (_relabel, r"adata.obs\['condition'\] differs in"),
    "label dropped": (_drop_label, r"adata.obs\['condition'\] is gone"),
    "batches changed": (_rebatch, r"adata.obs\['batch'\] differs in"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["maestro", "pascient", "selfguidedmae"])
def test_what_changed_before_training_raises(kind, change):
    spoil, message = CHANGES[change]
    before, after = make_cohort(), make_cohort()
    cls, arguments = MODELS[kind]
    cls.setup_anndata(before, "sample", labels_key="condition", batch_key="batch")
    spoil(before)
    with pytest.raises((ValueError, KeyError), match=message):
        cls(before, **arguments)
    model = build(kind, after)
    spoil(after)
    for call in (lambda: model.train(**FIT), model.get_sample_representation):
        with pytest.raises((ValueError, KeyError), match=message):
            call()


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_before_inference_raises_for_every_result(change):
    adata = make_cohort()
    model = build("maestro", adata)
    CHANGES[change][0](adata)
    for call in (
        model.get_sample_representation,
        lambda: model.get_sample_representation(adata),
        model.to_sample_adata,
        model.get_attention,
        model.annotate_attention,
    ):
        with pytest.raises((ValueError, KeyError), match=CHANGES[change][1]):
            call()


@KINDS
def test_a_change_that_says_the_same_is_none(kind, tmp_path):
    adata = make_cohort()
    model = build(kind, adata)
    for column in ("sample", "condition", "batch"):
        adata.obs[column] = adata.obs[column].astype(object)
    adata.obs["new"] = 1
    adata.write_h5ad(tmp_path / "a.h5ad")  # makes categories of text, in place
    adata.obs["sample"] = adata.obs["sample"].astype("string")
    adata.var.index = adata.var.index.astype("string")
    adata.obs_names = [f"other{i}" for i in range(adata.n_obs)]
    model.train(**FIT)
    assert model.get_sample_representation().notna().all(axis=None)


def test_the_way_out_is_a_copy():
    adata = make_cohort()
    model = fit("maestro", adata)
    want = model.get_sample_representation()
    adata._inplace_subset_obs((adata.obs["sample"] != "s03").to_numpy())
    with pytest.raises(ValueError, match=r"MAESTRO.setup_anndata\) .* takes changed data as a copy: adata.copy\(\)"):
        model.get_sample_representation()
    got = model.get_sample_representation(adata.copy())
    assert list(got.index) == [s for s in want.index if s != "s03"]
    assert distance(got, want) < 1e-5


@pytest.mark.parametrize("use_rep", [None, "X_rep"])
def test_an_array_that_is_gone_or_has_other_columns(use_rep):
    adata = make_cohort()
    adata.layers["mine"] = adata.X.copy()
    model = build("maestro", adata, use_rep=use_rep, layer=None if use_rep else "mine")
    if use_rep:
        adata.obsm["X_rep"] = adata.obsm["X_rep"][:, :2]
        with pytest.raises(ValueError, match=r"adata.obsm\['X_rep'\] has 2 columns, but the model was trained on 3"):
            model.train(**FIT)
    del adata.obsm["X_rep"], adata.layers["mine"]
    with pytest.raises(
        KeyError, match=r"adata.obsm\['X_rep'\] is gone" if use_rep else r"'mine' is not in adata.layers"
    ):
        model.train(**FIT)


def test_a_loaded_model_compares_with_what_it_was_loaded_with(tmp_path):
    fit("maestro", make_cohort()).save(tmp_path / "m", save_anndata=True)
    adata = make_cohort(5, prefix="q")
    for loaded in (sst.MAESTRO.load(tmp_path / "m"), sst.MAESTRO.load(tmp_path / "m", adata=adata)):
        loaded.get_sample_representation()
        _rename_first(loaded.adata)
        with pytest.raises(ValueError, match=r"adata.obs\['sample'\] differs in"):
            loaded.train(**FIT)


def _rename_first(adata):
    first = adata.obs["sample"].cat.categories[0]
    adata.obs["sample"] = adata.obs["sample"].cat.rename_categories({first: "renamed"})


# ---- what is not finite


@KINDS
@pytest.mark.parametrize("storage", [np.asarray, sp.csr_matrix, "backed"], ids=["dense", "csr", "backed"])
def test_a_missing_value_put_in_later_is_named(kind, storage, tmp_path):
    adata = make_cohort()
    if storage == "backed":
        adata.write_h5ad(tmp_path / "a.h5ad")
        adata = ad.read_h5ad(tmp_path / "a.h5ad", backed="r+")
    else:
        adata.X = storage(adata.X)
    model = build(kind, adata)
    x = adata.X
    x[5, 2] = np.nan
    name = adata.obs["sample"].iloc[5]
    with pytest.raises(
        ValueError, match=rf"adata.X has 1 values .* cell 's_cell5' of sample '{name}', feature 'marker_2'"
    ):
        model.train(**{**FIT, "train_size": 1.0})


def test_a_missing_value_put_in_before_inference_is_named():
    adata = make_cohort()
    model = build("scset", adata)
    adata.X[5, 2] = np.inf
    for call in (model.get_sample_representation, model.get_attention):
        with pytest.raises(ValueError, match=r"cell 's_cell5' of sample .* feature 'marker_2'"):
            call()


@pytest.mark.parametrize("value", [1e39, -1e300, np.inf, np.nan])
@pytest.mark.parametrize("storage", [np.asarray, sp.csr_matrix, sp.csc_array])
def test_a_value_that_float32_cannot_hold_is_refused_by_models_and_profiles(value, storage):
    adata = make_cohort()
    x = adata.X.astype(np.float64)
    x[4, 1] = value
    adata.X = storage(x)
    for call in (
        lambda: sst.MAESTRO.setup_anndata(adata, "sample"),
        lambda: sst.profiles.Mean(sample_key="sample").fit_transform(adata),
    ):
        with pytest.raises(ValueError, match=r"adata.X has 1 values that are not finite \(first: cell 's_cell4'"):
            call()


def test_a_label_that_is_not_finite_is_named():
    adata = make_cohort()
    adata.obs["age"] = adata.obs["age"].where(adata.obs["sample"] != "s02", np.inf)
    with pytest.raises(ValueError, match=r"adata.obs\['age'\] is infinite for \d+ of"):
        sst.PaSCient.setup_anndata(adata, "sample", labels_key={"age": "continuous"})


def test_weights_that_are_not_finite_give_no_vectors():
    model = fit("maestro", make_cohort())
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.fill_(np.nan)
    with pytest.raises(ValueError, match=r"The vectors of samples \['s00', 's01', .*\] are not finite: the weights"):
        model.get_sample_representation()
    with pytest.raises(ValueError, match=r"The scores of the cells of samples \['s00'"):
        model.get_attention()


@KINDS
def test_training_that_diverges_stops_at_once_and_names_the_samples(kind, monkeypatch):
    model = build(kind, make_cohort())
    loss = model.module.loss
    calls = []

    def spoiled(batch):
        out = loss(batch)
        calls.append(1)
        if len(calls) == 3:
            out.loss = out.loss * torch.nan
        return out

    monkeypatch.setattr(model.module, "loss", spoiled)
    with pytest.raises(
        ValueError, match=r"The loss is nan in step \d+ .*Samples of the batch: \['s0.*lower the learning rate"
    ):
        model.train(**{**FIT, "batch_size": 2})
    assert len(calls) == 3


def test_a_loss_that_cannot_be_computed_names_the_samples():
    model = build("maestro", make_cohort())
    with pytest.raises(ValueError, match=r"The loss .*Samples of the batch: \['s0.*lower the learning rate"):
        model.train(**{**FIT, "max_epochs": 3, "batch_size": 2, "plan_kwargs": {"lr": 1e30}})


def test_a_last_step_that_spoils_the_weights_is_told():
    model = build("maestro", make_cohort())
    with pytest.raises(ValueError, match=r"not finite|The loss is"):
        model.train(**{**FIT, "max_epochs": 1, "batch_size": 8, "train_size": 1.0, "plan_kwargs": {"lr": float("inf")}})


# ---- batches of cells


@KINDS
def test_data_modules_of_scvi_tools_are_refused(kind):
    """They would hand out cells in random order, from many samples at once."""
    cls, _ = MODELS[kind]
    for name in ("setup_annbatch", "setup_datamodule"):
        with pytest.raises(NotImplementedError, match=rf"{cls.__name__}.{name}: .*write_store.*setup_anndata"):
            getattr(cls, name)(paths=["a.h5ad"], sample_key="sample")
    with pytest.raises(NotImplementedError, match=r"train\(datamodule=...\).*write_store"):
        build(kind, make_cohort()).train(datamodule=object())

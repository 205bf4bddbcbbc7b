"""Covariates that a decoder is told, in the set-up of the models that take them: one set of words for all."""

from __future__ import annotations

import numpy as np
import pytest
from _cohort import FIT, make_cohort

import scset_tools as sst

MODELS = {
    "maestro": (sst.MAESTRO, {"n_hidden": 16, "n_latent": 6, "n_inducing": 4, "n_cells": 20, "n_heads": 2}),
    "scset": (sst.ScSet, {"n_hidden": 16, "n_latent": 6, "n_cells": 20, "n_heads": 2}),
}


@pytest.fixture(params=MODELS, ids=str)
def kind(request):
    return request.param


def build(kind, adata=None, *, keys=("condition", "age"), **arguments):
    cls, sizes = MODELS[kind]
    adata = make_cohort() if adata is None else adata
    cls.setup_anndata(
        adata, "sample", covariate_keys=None if keys is None else keys if isinstance(keys, dict) else list(keys)
    )
    return cls(adata, random_state=0, **{**sizes, **arguments})


def test_kinds_are_read_and_kept(kind):
    model = build(kind, keys=("condition", "age", "study"))
    assert [(c.name, c.kind, c.classes) for c in model._covariates] == [
        ("condition", "class", ("case", "control")),
        ("age", "continuous", ()),
        ("study", "class", ("study0", "study1", "study2")),
    ]
    assert model.covariate_ranges_ == {"age": [20.0, 27.0]}
    np.testing.assert_allclose(model.module.conditions.moments[1], [23.5, np.std(np.arange(8))], rtol=1e-6)
    assert "Told: condition, age, study" in model._model_summary_string


def test_one_column_is_given_by_its_name(kind):
    cls, _ = MODELS[kind]
    adata = make_cohort()
    cls.setup_anndata(adata, "sample", covariate_keys="condition")
    assert [c.name for c in cls(adata)._covariates] == ["condition"]


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ("nope", KeyError, "'nope' is not a column of adata.obs"),
        ("batch", ValueError, "must have one value per sample, but varies within 8 of 8 samples"),
        ({"condition": "ordinal"}, ValueError, r"covariate_keys\['condition'\]='ordinal' is not one of"),
        (["one"], ValueError, r"The covariate adata.obs\['one'\] has 1 value"),
        (["none"], ValueError, r"The covariate adata.obs\['none'\] has 0 value"),
        ({"flat": "continuous"}, ValueError, r"The covariate adata.obs\['flat'\] has 1 value \(\['3.5'\]\)"),
        ({"gaps": "continuous"}, ValueError, r"The covariate adata.obs\['gaps'\] has 1 value"),
    ],
)
def test_what_is_no_covariate_is_refused(kind, keys, error, message):
    adata = make_cohort()
    adata.obs["one"], adata.obs["none"], adata.obs["flat"] = "same", np.nan, 3.5
    adata.obs["gaps"] = np.where(adata.obs["condition"] == "case", 3.5, np.nan)
    with pytest.raises(error, match=message):
        MODELS[kind][0].setup_anndata(adata, "sample", covariate_keys=keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["sample"], r"covariate_keys names adata.obs\['sample'\], the samples themselves"),
        ({"number": "continuous"}, r"covariate_keys names adata.obs\['number'\], the samples themselves"),
        (
            ["condition", "copy"],
            r"Each of the 8 values of the covariate adata.obs\['copy'\] is found in one sample alone",
        ),
        ({"age": "class"}, r"Each of the 8 values .*adata.obs\['age'\].*have it read as 'continuous'"),
        (["some"], r"Each of the 7 values of the covariate adata.obs\['some'\] is found in one sample alone"),
    ],
)
def test_a_covariate_that_tells_every_sample_is_refused(kind, keys, message):
    """A decoder that knows the sample needs no vector: the vectors would be empty without a word."""
    adata = make_cohort()
    adata.obs["number"] = adata.obs["sample"].cat.codes.astype(int)
    adata.obs["copy"] = "donor of " + adata.obs["sample"].astype(str)
    adata.obs["some"] = adata.obs["copy"].where(adata.obs["sample"] != "s00")
    sample_key = "number" if "number" in keys else "sample"
    with pytest.raises(ValueError, match=message):
        MODELS[kind][0].setup_anndata(adata, sample_key, covariate_keys=keys)


def test_classes_of_cells_that_tell_every_sample_are_refused():
    adata = make_cohort()
    adata.obs["cluster"] = adata.obs["sample"].astype(str) + adata.obs["cell_type"].astype(str)
    with pytest.raises(ValueError, match=r"Each of the 16 values of the covariate adata.obs\['cluster'\]"):
        sst.ScSet.setup_anndata(adata, "sample", covariate_keys={"cluster": "cell"})


def test_covariates_that_tell_most_samples_together_are_warned_of(kind):
    """Four donors at two times: neither tells a sample, both together every one."""
    adata = make_cohort()
    number = adata.obs["sample"].cat.codes
    adata.obs["donor"], adata.obs["time"] = "d" + (number // 2).astype(str), "t" + (number % 2).astype(str)
    with pytest.warns(UserWarning, match=r"\['donor', 'time'\] tell 8 of 8 samples from all others") as caught:
        MODELS[kind][0].setup_anndata(adata, "sample", covariate_keys=["donor", "time"])
    assert caught[0].filename == __file__
    MODELS[kind][0].setup_anndata(adata, "sample", covariate_keys=["donor"])  # two samples of each: nothing to say


def test_new_samples_may_have_one_value_of_everything(kind):
    """What is refused of training is no fault of new cells."""
    model = build(kind)
    model.train(**FIT)
    new = make_cohort(1, seed=1, prefix="new")
    assert np.isfinite(model.get_sample_representation(new).to_numpy()).all()


def test_the_class_of_a_cell_is_for_a_decoder_of_single_cells():
    adata = make_cohort()
    with pytest.raises(ValueError, match=r"varies within 8 of 8 samples.*covariate_keys=.'batch': 'cell'"):
        sst.ScSet.setup_anndata(adata, "sample", covariate_keys="batch")
    with pytest.raises(ValueError, match=r"covariate_keys=\{'cell_type': 'cell'\} tells a decoder of each single cell"):
        sst.MAESTRO.setup_anndata(adata, "sample", covariate_keys={"cell_type": "cell"})


@pytest.mark.parametrize(
    ("keys", "arguments", "message"),
    [
        (None, {"batch_weight": 1.0}, "name them in setup_anndata"),
        (
            ("condition",),
            {"batch_weight": {"age": 1.0}},
            r"batch_weight names \['age'\], but the covariates of samples are",
        ),
        (("condition",), {"batch_weight": {"condition": -1.0}}, "must be a finite number of 0 or more"),
        (("condition",), {"batch_weight": float("nan")}, "must be a finite number of 0 or more"),
        (("condition",), {"covariate_dropout": 1.0}, "must be a number of 0 or more and below 1"),
    ],
)
def test_arguments_are_checked(kind, keys, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(kind, keys=keys, **arguments)


def test_without_covariates_nothing_is_added(kind):
    model = build(kind, keys=None)
    assert model.module.conditions is None
    assert not [name for name in model.module.state_dict() if "condition" in name]
    told = build(kind)
    for name, value in model.module.state_dict().items():  # and the first weights are the same with them
        np.testing.assert_array_equal(value, told.module.state_dict()[name], err_msg=name)


def test_missing_values_are_left_unsaid(kind):
    """A sample without a value trains, and is a row of its own kind: not the mean, not the first class."""
    adata = make_cohort()
    first = adata.obs["sample"] == "s00"
    adata.obs["condition"] = adata.obs["condition"].where(~first)
    adata.obs["age"] = adata.obs["age"].where(~first)
    model = build(kind, adata, batch_weight=1.0)
    model.train(**{**FIT, "train_size": None})
    assert np.isfinite(model.history["loss_train"].to_numpy(dtype=float)).all()
    assert np.isfinite(model.get_sample_representation().to_numpy()).all()


def test_a_saved_model_knows_its_covariates(kind, tmp_path):
    model = build(kind)
    model.train(**FIT)
    model.save(tmp_path / "model", save_anndata=False)
    cells = make_cohort(3, seed=1, prefix="new")
    want = model.get_sample_representation(cells)
    again = MODELS[kind][0].load(tmp_path / "model", adata=False)
    assert [c.name for c in again._covariates] == ["condition", "age"]
    assert again.covariate_ranges_ == {"age": [20.0, 27.0]}
    bare = cells.copy()
    bare.obs = bare.obs.drop(columns=["condition", "age"])  # vectors are read from cells alone
    np.testing.assert_allclose(again.get_sample_representation(bare), want, atol=1e-6)
    cells.obs["condition"] = "new"
    with pytest.raises(ValueError, match=r"has 1 categories the model was not trained on: .'new'."):
        again.get_sample_representation(cells)


def test_order_of_rows_does_not_matter(kind):
    found = []
    for order in (slice(None), np.random.default_rng(0).permutation(make_cohort().n_obs)):
        model = build(kind, make_cohort()[order].copy(), batch_weight=0.5)
        model.train(**FIT)
        found.append(model.get_sample_representation())
    np.testing.assert_allclose(found[1].loc[found[0].index], found[0], atol=1e-5)

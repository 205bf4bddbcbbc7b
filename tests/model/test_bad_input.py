"""Bad input is told apart at registration, by a message that names the object, the numbers and the way out."""

from __future__ import annotations

import mudata as md
import numpy as np
import pandas as pd
import pytest
from _cohort import FIT, make_cohort

import scset_tools as sst

SMALL = {"n_hidden": 16, "n_latent": 6, "n_inducing": 4, "n_cells": 20, "n_heads": 2}


@pytest.fixture(scope="module")
def model():
    adata = make_cohort()
    sst.MAESTRO.setup_anndata(adata, "sample", labels_key="condition", batch_key="batch")
    model = sst.MAESTRO(adata, random_state=0, **SMALL)
    model.train(**{**FIT, "max_epochs": 1})
    return model


def _missing_sample(a):
    a.obs["sample"] = a.obs["sample"].astype(object)
    a.obs.iloc[:3, 0] = None


def _varying_label(a):
    a.obs["condition"] = a.obs["condition"].astype(str)
    a.obs.loc[a.obs_names[0], "condition"] = "zzz"


def _not_finite(a):
    a.X[4, 2] = np.nan
    a.X[7, 1] = np.inf


def _zero_cell(a):
    a.X[[3, 9]] = 0


def _one_sample(a):
    a.obs["sample"] = "only"


def _no_labels(a):
    a.obs["condition"] = np.nan


def _missing_batch(a):
    a.obs["batch"] = a.obs["batch"].astype(object)
    a.obs.iloc[:2, 3] = None


@pytest.mark.parametrize(
    ("spoil", "arguments", "error", "message"),
    [
        pytest.param(
            None, {"sample_key": "donor"}, KeyError, "'donor' is not a column of adata.obs", id="no_sample_key"
        ),
        pytest.param(None, {"labels_key": "disease"}, KeyError, "'disease' is not a column", id="no_labels_key"),
        pytest.param(None, {"batch_key": "plate"}, KeyError, "'plate' is not a column", id="no_batch_key"),
        pytest.param(None, {"layer": "counts"}, KeyError, "'counts' is not in adata.layers", id="no_layer"),
        pytest.param(None, {"use_rep": "X_scVI"}, KeyError, r"'X_scVI' is not in adata.obsm.*X_rep", id="no_use_rep"),
        pytest.param(
            None, {"layer": "a", "use_rep": "b"}, ValueError, "Give `layer` or `use_rep`, not both", id="both"
        ),
        pytest.param(_missing_sample, {}, ValueError, r"missing for 3 of \d+ cells .*notna", id="missing_sample"),
        pytest.param(_varying_label, {}, ValueError, "varies within 1 of 8 samples.*zzz", id="varying_label"),
        pytest.param(_no_labels, {}, ValueError, "missing for all", id="no_labels"),
        pytest.param(_missing_batch, {"batch_key": "batch"}, ValueError, r"\['batch'\] is missing for 2", id="batch"),
        pytest.param(
            _not_finite, {}, ValueError, "adata.X has 2 values that are not finite.*marker_2", id="not_finite"
        ),
        pytest.param(_zero_cell, {}, ValueError, "2 cells whose features are all zero.*cosine", id="all_zero_cells"),
        pytest.param(_one_sample, {}, ValueError, "has 1 sample .*'only'.*at least 2", id="one_sample"),
        pytest.param(
            None, {"min_cells": 30}, ValueError, r"fewer than min_cells=30 cells .*s0\d'?: \d+", id="min_cells"
        ),
    ],
)
def test_setup(spoil, arguments, error, message):
    adata = make_cohort()
    if spoil is not None:
        spoil(adata)
    arguments = {"sample_key": "sample", "labels_key": "condition", **arguments}
    if "layer" in arguments and "use_rep" not in arguments:
        arguments.pop("labels_key")
    with pytest.raises(error, match=message):
        sst.MAESTRO.setup_anndata(adata, **arguments)


def test_values_that_are_not_finite_are_found_in_other_storages():
    import scipy.sparse as sp

    adata = make_cohort()
    adata.X[4, 2] = np.nan
    adata.X = sp.csc_matrix(adata.X)
    with pytest.raises(ValueError, match=r"1 values that are not finite.*marker_2"):
        sst.MAESTRO.setup_anndata(adata, "sample")
    adata = make_cohort()
    adata.obsm["X_rep"][0, 1] = np.inf
    with pytest.raises(ValueError, match=r"adata.obsm\['X_rep'\] has 1 values that are not finite"):
        sst.MAESTRO.setup_anndata(adata, "sample", use_rep="X_rep")


def test_mudata_and_other_objects():
    mdata = md.MuData({"rna": make_cohort()})
    with pytest.raises(TypeError, match=r"MAESTRO.setup_anndata takes an AnnData, but was given a MuData.*'rna'"):
        sst.MAESTRO.setup_anndata(mdata, "sample")
    with pytest.raises(TypeError, match="given DataFrame"):
        sst.MAESTRO.setup_anndata(pd.DataFrame(), "sample")


def test_unseen_label_and_batch_at_prediction(model):
    new = make_cohort(3, seed=1, prefix="n")
    new.obs["condition"] = new.obs["condition"].astype(str).replace("case", "other")
    with pytest.raises(
        ValueError, match=r"1 categories the model was not trained on: \['other'\].*Set them to missing"
    ):
        model.get_sample_representation(new)
    new = make_cohort(3, seed=1, prefix="n")
    new.obs["batch"] = "b7"
    with pytest.raises(ValueError, match=r"\['batch'\] has 1 categories the model was not trained on: \['b7'\]"):
        model.get_sample_representation(new)


def test_an_unseen_integer_label_zero_raises():
    adata = make_cohort()
    adata.obs["condition"] = np.where(adata.obs["condition"] == "case", 1, 2)
    sst.MAESTRO.setup_anndata(adata, "sample", labels_key="condition")
    model = sst.MAESTRO(adata, **SMALL)
    model.is_trained_ = True
    new = make_cohort(2, seed=1)
    new.obs["condition"] = 0
    with pytest.raises(ValueError, match=r"not trained on: \['0'\]"):
        model.get_sample_representation(new)


def test_other_features_at_prediction(model):
    new = make_cohort(3, seed=1)
    with pytest.raises(ValueError, match=r"\(4\) differ from the 5 features.*1 missing.*'marker_4'"):
        model.get_sample_representation(new[:, :4].copy())
    with pytest.raises(ValueError, match=r"0 missing, 0 unknown.*adata\[:, model.get_var_names\(\)\]"):
        model.get_sample_representation(new[:, ::-1].copy())
    new.var_names = [f"CD{i}" for i in range(5)]
    with pytest.raises(ValueError, match="5 missing, 5 unknown"):
        model.get_sample_representation(new)


def test_other_width_of_a_representation_at_prediction():
    adata = make_cohort()
    sst.MAESTRO.setup_anndata(adata, "sample", use_rep="X_rep")
    model = sst.MAESTRO(adata, **SMALL)
    model.is_trained_ = True
    new = make_cohort(3, seed=1)
    new.obsm["X_rep"] = new.obsm["X_rep"][:, :2]
    with pytest.raises(ValueError, match="has 2 columns, but the model was trained on 3"):
        model.get_sample_representation(new)


def test_unknown_samples(model):
    with pytest.raises(KeyError, match=r"1 of 2 samples are not in the data: .'nope'.*Known samples"):
        model.get_sample_representation(samples=["s00", "nope"])


@pytest.mark.parametrize("call", ["get_sample_representation", "get_attributions", "finetune"])
def test_no_samples(model, call):
    arguments = () if call == "get_sample_representation" else ("condition",)
    with pytest.raises(ValueError, match=r"`samples` is empty: name some, for instance .'s00', 's01', 's02'"):
        getattr(model, call)(*arguments, samples=[])


@pytest.mark.parametrize("name", ["MAESTRO", "PaSCient"])
@pytest.mark.parametrize("call", ["annotate_predictions", "annotate_attention", "annotate_attributions"])
def test_results_do_not_replace_the_columns_of_the_set_up(call, name):
    adata = make_cohort()
    cls = getattr(sst, name)
    cls.setup_anndata(adata, "sample", labels_key="condition")
    model = cls(adata, **(SMALL if name == "MAESTRO" else {"n_hidden": 8, "n_latent": 4}))
    model.is_trained_ = True
    if name == "MAESTRO":
        model.finetune("condition", penalty=1.0)
    before = adata.obs.copy()
    arguments = ("condition",) if call == "annotate_attributions" else ()
    for column in ("condition", "sample"):
        with pytest.raises(
            ValueError, match=f"key_added='{column}' is a column of adata.obs that this {name} was set up with"
        ):
            getattr(model, call)(*arguments, key_added=column)
    pd.testing.assert_frame_equal(adata.obs, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"masking": "blocks"}, r"masking='blocks' is not one of \['block', 'random'\]"),
        ({"views": ("random", "far")}, r"views='far' is not one of"),
        ({"decoder": "gru"}, "decoder='gru' is not one of"),
        ({"reconstruct": "some"}, "reconstruct='some' is not one of"),
        ({"mask_rates": (0.2, 1.0)}, r"mask_rates\[1\]=1.0 must be"),
        ({"mask_rates": ()}, r"mask_rates=\(\) must be"),
        ({"reconstruction_weight": 0, "distillation_weight": 0}, "nothing to learn from"),
        ({"represent_with": "teacher", "distillation_weight": 0}, "there is no teacher"),
        ({"n_heads": 3}, r"`n_heads` \(3\) must divide"),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else "",
)
def test_arguments_of_the_constructor(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        sst.MAESTRO(model.adata, **{**SMALL, **arguments})


def test_arguments_of_train(model):
    with pytest.raises(ValueError, match="n_cells=10 is less than the 20 cells of a student's crop"):
        model.train(**FIT, n_cells=10)
    with pytest.raises(ValueError, match="there are no validation samples"):
        model.train(**{**FIT, "train_size": 1.0}, early_stopping=True)
    with pytest.raises(ValueError, match=r"names 1 samples twice: \['s00'\]"):
        model.train(**FIT, external_indexing=[["s00", "s01"], ["s00"]])
    with pytest.raises(KeyError, match="'nope'"):
        model.train(**FIT, external_indexing=[["nope"]])
    with pytest.raises(ValueError, match="lr_schedule='linear' is not one of"):
        model.train(**FIT, plan_kwargs={"lr_schedule": "linear"})
    with pytest.raises(KeyError, match="'hospital' is not a column"):
        model.train(**FIT, groups_key="hospital")
    with pytest.raises(ValueError, match="leave nothing to train on: there are 8 samples"):
        model.train(**{**FIT, "train_size": 0.01, "validation_size": 0.99})


def test_a_model_without_data_says_so(model, tmp_path):
    model.save(tmp_path / "m")
    loaded = sst.MAESTRO.load(tmp_path / "m", adata=False)
    with pytest.raises(ValueError, match="no AnnData to train on"):
        loaded.train()
    with pytest.raises(ValueError, match="loaded without an AnnData"):
        loaded.get_sample_representation()


def test_reconstruct_without_a_decoder():
    adata = make_cohort()
    sst.MAESTRO.setup_anndata(adata, "sample")
    model = sst.MAESTRO(adata, **SMALL, reconstruction_weight=0)
    with pytest.raises(ValueError, match="has no decoder"):
        model.reconstruct("s00")


def test_a_small_sample_gives_all_its_cells(model):
    adata = make_cohort(3, seed=2)
    few = pd.concat([adata.obs[adata.obs["sample"] == s].iloc[:n] for s, n in (("s00", 1), ("s01", 2), ("s02", 30))])
    rep = model.get_sample_representation(adata[few.index].copy(), n_cells=500)
    assert np.isfinite(rep.to_numpy()).all()

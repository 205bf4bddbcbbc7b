"""Covariates that MAESTRO's decoder is told, and what leaves the vectors: against slow loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from _cohort import FIT, make_cohort
from sklearn.linear_model import LinearRegression

import scset_tools as sst
from scset_tools.model._conditions import dependence, values_in, without_effects
from scset_tools.model.maestro._views import student_views

SMALL = {"n_hidden": 16, "n_latent": 6, "n_inducing": 4, "n_cells": 20, "n_heads": 2, "random_state": 0}


def build(*, keys=("condition", "age"), **arguments):
    adata = make_cohort()
    sst.MAESTRO.setup_anndata(adata, "sample", covariate_keys=None if keys is None else list(keys))
    return sst.MAESTRO(adata, **{**SMALL, **arguments})


@pytest.fixture(scope="module")
def model():
    """Trained for two epochs; shared, not to be trained further."""
    model = build()
    model.train(**FIT)
    return model


# ---- loss


@torch.no_grad()
def test_the_decoder_is_told_what_belongs_to_each_view(model):
    """The reconstruction of the loss, against a loop over views of decoders told one by one."""
    module = model.module.double().train()
    try:
        batch = model._dataset(model.adata)[0, [3, 1, 4]]
        found = module.loss(batch).extra_metrics["reconstruction"]
        x = module.standardize(batch)
        options = {"mask_rates": module.mask_rates, "one_rate": module.one_rate, "unmasked": module.unmasked_view}
        views = student_views(batch.x, batch.ptr, batch.seed, n_cells=module.n_cells, **options)
        z = module.encode_views(x, views)
        values = module.conditions.drop(values_in(batch, module.covariates), batch.seed)
        rows = torch.stack(
            [z[v] + module.conditions(values[[s]])[0] for v, s in enumerate(views.sample_of_view.tolist())]
        )
        torch.testing.assert_close(found, module._reconstruction_loss(x, views, rows))
        assert abs(float(found - module._reconstruction_loss(x, views, z))) > 1e-6  # it does read what it is told
    finally:
        module.float()


def test_the_term_on_the_vectors_is_added_to_the_loss():
    plain, weighted = build(), build(batch_weight={"condition": 0.7, "age": 0.2}, distillation_weight=0.0)
    assert plain.module.metrics == ("reconstruction", "distillation")
    module = weighted.module.eval()
    assert module.metrics == ("reconstruction", "dependence")
    batch = weighted._dataset(weighted.adata)[0, list(range(8))]
    out = module.loss(batch)
    options = {"mask_rates": module.mask_rates, "one_rate": module.one_rate, "unmasked": module.unmasked_view}
    views = student_views(batch.x, batch.ptr, batch.seed, n_cells=module.n_cells, **options)
    z = module.encode_views(module.standardize(batch), views)[:8]
    values = values_in(batch, module.covariates)
    terms = dependence(z, values[:, 0], 2), dependence(z, values[:, 1], 0)
    torch.testing.assert_close(out.extra_metrics["dependence"], (terms[0] + terms[1]) / 2)
    want = module.reconstruction_weight * out.extra_metrics["reconstruction"] + 0.7 * terms[0] + 0.2 * terms[1]
    torch.testing.assert_close(out.loss, want)


def test_effects_are_the_residuals_of_a_linear_regression():
    rng = np.random.default_rng(0)
    z, classes, number = rng.normal(size=(20, 4)), rng.integers(0, 3, 20), rng.normal(size=20)
    z = z + classes[:, None] * 3.0 + number[:, None]
    values = torch.from_numpy(np.stack([classes.astype(float), number, rng.normal(size=20)], 1))
    found = without_effects(
        torch.from_numpy(z),
        values,
        covariates=[("a", 3, False), ("b", 0, False), ("c", 0, False)],
        weights=[1.0, 0.1, 0.0],
    )
    design = np.column_stack([pd.get_dummies(classes).to_numpy(dtype=float), number])
    want = z - LinearRegression().fit(design, z).predict(design) + z.mean(0)
    np.testing.assert_allclose(found, want, atol=1e-9)
    values[:5] = torch.nan  # of samples of which nothing is known nothing is taken
    some = without_effects(
        torch.from_numpy(z),
        values,
        covariates=[("a", 3, False), ("b", 0, False), ("c", 0, False)],
        weights=[1.0, 1.0, 0.0],
    )
    np.testing.assert_allclose(some[:5], z[:5], atol=1e-9)
    same = without_effects(
        torch.from_numpy(z), values * torch.nan, covariates=[("a", 3, False)] * 3, weights=[1.0, 1.0, 1.0]
    )
    np.testing.assert_array_equal(same, z)


@torch.no_grad()
def test_the_teacher_does_not_hold_the_student_to_what_is_to_leave():
    """Vectors of the teacher differ by a class; a student that differs by none of it agrees with it, where a weight asks for that."""
    model = build(keys=("condition",), batch_weight=1.0)
    module, batch = model.module.eval(), model._dataset(model.adata)[0, list(range(8))]
    target = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    values = values_in(batch, module.covariates)
    shifted = target + 10 * values.float()
    module._join = lambda *_: shifted
    views = student_views(batch.x, batch.ptr, batch.seed, n_cells=20, mask_rates=(0.5,))
    module.unmasked_view = False
    x = module.standardize(batch)

    def loss(z, values):
        return float(module._distillation_loss(x, batch.ptr, views, z, values=values))

    assert loss(target, values) == pytest.approx(0, abs=1e-4)  # without the difference, and with it
    assert loss(shifted, values) == pytest.approx(0, abs=1e-4)
    assert loss(target.roll(1, dims=0), values) > 0.5  # the rest of the geometry counts
    assert loss(target, None) > 0.5


# ---- reconstruction


def test_reconstruction_is_told_own_values_unless_others_are_asked(model):
    own = model.reconstruct(["s00", "s01"])
    asked = {"condition": ["control", "case"], "age": [20.0, 21.0]}
    np.testing.assert_allclose(model.reconstruct(["s00", "s01"], covariates=asked).X, own.X, atol=1e-6)
    other = model.reconstruct(["s00", "s01"], covariates={"condition": "case"})
    differs = np.abs(other.X - own.X).max(1) > 1e-6
    is_changed = (own.obs["role"] == "predicted") & (own.obs["sample"] == "s00")
    np.testing.assert_array_equal(differs, is_changed)
    unsaid = model.reconstruct("s00", covariates={"condition": None, "age": None})
    bare = make_cohort()
    bare.obs = bare.obs.drop(columns=["condition", "age"])
    np.testing.assert_allclose(model.reconstruct("s00", adata=bare).X, unsaid.X, atol=1e-6)


def test_what_nobody_had_is_refused(model):
    with pytest.raises(
        ValueError, match=r"asks for \['other'\], which no sample of training has. Known: \['case', 'control'\]"
    ):
        model.reconstruct("s00", covariates={"condition": "other"})
    with pytest.raises(
        KeyError, match=r"\['dose'\] is no covariate of this model; the model was set up with \['condition', 'age'\]"
    ):
        model.reconstruct("s00", covariates={"dose": 1})
    with pytest.warns(UserWarning, match=r"beyond the training samples \(20 to 27\)"):
        model.reconstruct("s00", covariates={"age": 90})
    bare = build(keys=None)
    bare.is_trained_ = True
    with pytest.raises(KeyError, match="the model was set up without covariates"):
        bare.reconstruct("s00", covariates={"condition": "case"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"reconstruction_weight": 0.0},
            r"covariate_keys=\['condition', 'age'\] are told to the decoder, which reconstruction_weight=0",
        ),
        ({"batch_weight": 1.0, "represent_with": "teacher"}, "takes covariates out of the student's vectors"),
    ],
)
def test_what_could_not_act_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_without_a_decoder_covariates_leave_the_vectors_alone():
    model = build(reconstruction_weight=0.0, batch_weight=1.0)
    assert model.module.metrics == ("distillation", "dependence")
    assert model.module.conditions is None
    model.train(**FIT)
    assert "dependence_train" in model.history


@pytest.mark.filterwarnings("ignore:Cannot join columns with the same name:UserWarning")
@pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning")
def test_parts_of_a_sample_are_told_what_it_is():
    """Of several modalities each part is decoded by itself, and told the covariates of its sample."""
    pytest.importorskip("mudata")
    from test_setup_joint import BOTH, cohort

    mdata = cohort()
    sst.MAESTRO.setup_mudata(mdata, "sample", modalities=BOTH, covariate_keys=["condition"])
    model = sst.MAESTRO(mdata, **SMALL, batch_weight=1.0)
    seen = []
    told = model.module.told
    model.module.told = lambda z, views, values: seen.append((len(z), views, values)) or told(z, views, values)
    batch = model._dataset(model.adata)[0, list(range(4))]
    out = model.module.loss(batch)
    assert torch.isfinite(out.loss)
    assert 0 <= float(out.extra_metrics["dependence"].detach()) <= 1
    (_, views, values), parts = seen[0], model.module.modality_parts(model.module.standardize(batch), batch.ptr)
    assert views.n_samples == len(values) == len(parts.sample)
    dropped = model.module.conditions.drop(values_in(batch, model.module.covariates), batch.seed)
    torch.testing.assert_close(values, dropped[parts.sample], equal_nan=True)


def test_weights_that_are_told_start_no_other_cohort(model):
    bare = make_cohort()
    sst.MAESTRO.setup_anndata(bare, "sample")
    with pytest.raises(ValueError, match="the pretrained MAESTRO was set up with covariate_keys: leave them out"):
        sst.MAESTRO.from_pretrained(bare, model)
    told = make_cohort()
    sst.MAESTRO.setup_anndata(told, "sample", covariate_keys=["condition"])
    plain = build(keys=None)
    plain.is_trained_ = True
    with pytest.raises(ValueError, match="adata was set up with covariate_keys: leave them out"):
        sst.MAESTRO.from_pretrained(told, plain)

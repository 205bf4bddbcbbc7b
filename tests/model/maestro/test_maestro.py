"""What MAESTRO alone offers: attention, attributions, reconstruction, presets, and its place among the profiles."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from _cohort import FIT, make_cohort
from sklearn.base import clone

import scset_tools as sst
from scset_tools.model.explain._scorer import Probe

SMALL = {"n_hidden": 16, "n_latent": 6, "n_inducing": 4, "n_cells": 20, "n_heads": 2}


@pytest.fixture(scope="module")
def model():
    adata = make_cohort()
    sst.MAESTRO.setup_anndata(adata, "sample", batch_key="batch")
    model = sst.MAESTRO(adata, random_state=0, **SMALL)
    model.train(**FIT)
    return model


def test_attention_sums_to_one_in_each_sample_and_is_aligned(model, monkeypatch):
    adata = make_cohort()
    weights = model.get_attention(adata)
    assert weights.index.equals(adata.obs_names)
    assert list(weights.columns) == ["head_0", "head_1"]
    np.testing.assert_allclose(weights.groupby(adata.obs["sample"].to_numpy()).sum(), 1, atol=1e-5)
    shuffled = adata[::-1].copy()
    np.testing.assert_allclose(model.get_attention(shuffled).loc[weights.index], weights, atol=1e-6)
    monkeypatch.setattr("scset_tools.model._inference.MAX_CELLS", 7)
    np.testing.assert_allclose(model.get_attention(adata), weights, atol=1e-6)


def test_annotated_attention_is_one_on_average(model):
    adata = make_cohort()
    x = adata.X
    model.annotate_attention(adata)
    assert adata.X is x
    assert adata.obs["maestro_attention"].dtype == np.float32
    means = adata.obs.groupby("sample", observed=True)["maestro_attention"].mean()
    np.testing.assert_allclose(means, 1, atol=1e-4)
    assert adata.obsm["maestro_attention"].shape == (adata.n_obs, 2)
    model.annotate_attention(adata, key_added="mine")
    np.testing.assert_array_equal(adata.obs["mine"], adata.obs["maestro_attention"])


def probe_of(model, adata):
    z = model.get_sample_representation(adata)
    y = adata.obs.groupby("sample", observed=True)["condition"].first().astype(str)
    probe = Probe(z.to_numpy(), y[z.index].to_numpy(), kind="class")
    weight = probe.weight.numpy()
    case, control = (probe.classes.index(c) for c in ("case", "control"))
    return z, weight[:, case] - weight[:, control]


def test_attributions_sum_to_the_log_odds_of_the_probe(model):
    adata = make_cohort()
    found = model.get_attributions("condition", target="case", adata=adata)
    z, weight = probe_of(model, adata)
    flat = adata.copy()  # every cell is the mean cell of its batch
    codes = (adata.obs["batch"] == "b1").to_numpy().astype(int)
    flat.X = model.module.mean.numpy()[codes]
    base = model.get_sample_representation(flat)
    expected = (z.to_numpy() - base.to_numpy()) @ weight
    total = found.cells["case"].groupby(adata.obs["sample"].to_numpy()).sum()
    np.testing.assert_allclose(total[z.index], expected, rtol=0.02, atol=1e-4)


def test_gradient_times_input_is_the_slope_of_the_score(model):
    # the sum over cells is the slope of the score as all cells move away from the mean cell, by a difference quotient
    adata = make_cohort()
    first = model.get_attributions("condition", target="case", adata=adata, method="gradient_x_input")
    z, weight = probe_of(model, adata)
    mean = model.module.mean.numpy()[(adata.obs["batch"] == "b1").to_numpy().astype(int)]

    def score_at(alpha):
        moved = adata.copy()
        moved.X = mean + alpha * (adata.X - mean)
        return model.get_sample_representation(moved).to_numpy(dtype=np.float64) @ weight

    slope = (score_at(1.01) - score_at(0.99)) / 0.02
    total = first.cells["case"].groupby(adata.obs["sample"].to_numpy()).sum()
    np.testing.assert_allclose(total[z.index], slope, rtol=0.05, atol=0.02 * np.abs(slope).max())


@pytest.mark.parametrize("reconstruct", ["masked", "all"])
def test_reconstruction_is_in_the_units_of_the_data(reconstruct):
    adata = make_cohort()
    adata.X *= 100
    sst.MAESTRO.setup_anndata(adata, "sample")
    model = sst.MAESTRO(adata, random_state=0, reconstruct=reconstruct, **SMALL)
    model.train(**FIT)
    cells = model.reconstruct(["s01", "s04"], mask_rate=0.5)
    assert list(cells.var_names) == list(adata.var_names)
    counts = cells.obs.groupby(["sample", "role"], observed=True).size().unstack()
    assert (counts["hidden"] == counts["predicted"]).all()
    assert (counts["hidden"] == 10).all()  # half of a crop of 20 cells
    given = pd.DataFrame(adata[adata.obs["sample"] == "s01"].X).apply(tuple, axis=1)
    seen = cells[(cells.obs["sample"] == "s01") & (cells.obs["role"] != "predicted")]
    assert pd.DataFrame(seen.X).apply(tuple, axis=1).isin(set(given)).all()
    predicted = cells[cells.obs["role"] == "predicted"].X
    assert 10 < np.abs(predicted).mean() < 1000
    again = model.reconstruct(["s01", "s04"], mask_rate=0.5)
    np.testing.assert_array_equal(again.X, cells.X)
    one = model.reconstruct("s04", mask_rate=0.5)
    np.testing.assert_allclose(one.X, cells[cells.obs["sample"] == "s04"].X, rtol=1e-4)


def test_training_lowers_the_loss():
    adata = make_cohort(16)
    sst.MAESTRO.setup_anndata(adata, "sample")
    model = sst.MAESTRO(adata, random_state=0, **SMALL)
    model.train(**{**FIT, "max_epochs": 25, "train_size": 1.0, "plan_kwargs": {"lr": 5e-3}})
    loss = model.history["reconstruction_train"]["reconstruction_train"]
    assert loss.iloc[-3:].mean() < 0.85 * loss.iloc[:3].mean()


def test_features_are_standardised_within_batches():
    adata = make_cohort()
    adata.X[(adata.obs["batch"] == "b1").to_numpy()] += 7
    sst.MAESTRO.setup_anndata(adata, "sample", batch_key="batch")
    model = sst.MAESTRO(adata, random_state=0, **SMALL)
    dataset = model._dataset(adata)
    batch = dataset[0, list(range(len(dataset)))]
    x = model.module.standardize(batch).numpy()
    for b in (0, 1):
        of_batch = x[batch.covariates["batch"].numpy() == b]
        np.testing.assert_allclose(of_batch.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(of_batch.std(0), 1, atol=1e-4)
    plain = sst.MAESTRO(adata, standardize=False, **SMALL)
    np.testing.assert_array_equal(plain.module.standardize(batch).numpy(), batch.x.numpy())


def test_presets():
    paper = sst.MAESTRO.preset("paper")
    assert (paper.model["n_hidden"], paper.model["n_latent"]) == (2048, 1024)
    assert paper.train["plan_kwargs"] == {"lr": 1e-4, "lr_min": 1e-8}
    assert sst.MAESTRO.preset("default").model == {}
    adata = make_cohort()
    sst.MAESTRO.setup_anndata(adata, "sample")
    small = {**paper.model, "n_hidden": 16, "n_latent": 6, "n_inducing": 4, "n_cells": 20}
    model = sst.MAESTRO(adata, **small)
    assert model.module.distillation_weight == 1.0
    with pytest.raises(ValueError, match="name='large' is not one of"):
        sst.MAESTRO.preset("large")


@pytest.mark.parametrize(
    "arguments",
    [
        {"masking": "random", "mask_rates": (0.5,), "distillation_weight": 0.0},
        {"masking": "random", "distillation_weight": 0.0},
        {"distillation_weight": 0.0},
        {"reconstruction_weight": 0.0, "distillation_weight": 1.0, "represent_with": "teacher"},
        {"views": ("random", "farthest"), "decoder": "isab"},
    ],
    ids=["random", "multi_rate", "block", "distillation_alone", "two_crops"],
)
def test_ablations_are_arguments(arguments):
    adata = make_cohort()
    sst.MAESTRO.setup_anndata(adata, "sample")
    model = sst.MAESTRO(adata, random_state=0, **SMALL, **arguments)
    model.train(**FIT)
    assert np.isfinite(model.history["loss_train"].to_numpy()).all()
    assert np.isfinite(model.get_sample_representation().to_numpy()).all()


def test_a_model_is_a_profile():
    adata = make_cohort()
    profile = sst.model.ModelProfile(
        sst.MAESTRO, sample_key="sample", build={**SMALL, "random_state": 0}, train={**FIT, "train_size": 1.0}
    )
    samples = clone(profile).fit(adata, samples=["s00", "s01", "s02"]).transform(adata)
    assert list(samples.obs_names) == [f"s{i:02d}" for i in range(8)]
    changed = adata.copy()
    changed.X[(changed.obs["sample"] == "s07").to_numpy()] += 3  # not a training sample
    again = clone(profile).fit(changed, samples=["s00", "s01", "s02"]).transform(changed)
    np.testing.assert_allclose(again["s03"].X, samples["s03"].X, rtol=1e-5)
    control = sst.model.ModelProfile(sst.MAESTRO, sample_key="sample", build={**SMALL, "random_state": 0})
    assert control.fit_transform(adata).shape == (8, 6)

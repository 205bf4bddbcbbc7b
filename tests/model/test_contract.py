"""What every model promises. A new model is one line in MODELS."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from _cohort import FIT, make_cohort

import scset_tools as sst

pytestmark = pytest.mark.platform

MODELS = {
    "maestro": (sst.MAESTRO, {"n_hidden": 16, "n_latent": 6, "n_inducing": 4, "n_cells": 20, "n_heads": 2}),
    "scset": (sst.ScSet, {"n_hidden": 16, "n_latent": 6, "n_cells": 20, "n_heads": 2}),
}
MODELS["pascient"] = (sst.PaSCient, {"n_hidden": 16, "n_latent": 6})
MODELS["selfguidedmae"] = (
    sst.SelfGuidedMAE,
    {
        "values": "normalized",
        "n_hidden": 6,
        "n_layers": 1,
        "n_heads": 2,
        "n_latents": 4,
        "n_latent_hidden": 8,
        "n_bins": 8,
    },
)
STORAGES = ["csr_matrix", "csc_matrix", "csr_array", "csc_array", "backed", "backed_csr", "backed_csc", "zarr", "dask"]


@pytest.fixture(params=MODELS, ids=str)
def kind(request):
    return request.param


@pytest.fixture(scope="session")
def fitted():
    """Each model trained for two epochs on the cohort; shared, not to be trained further."""
    models = {}

    def get(kind):
        if kind not in models:
            models[kind] = fit(kind, make_cohort())
        return models[kind]

    return get


def fit(kind, adata, *, use_rep=None, build=None, **train):
    cls, arguments = MODELS[kind]
    cls.setup_anndata(adata, "sample", labels_key="condition", batch_key="batch", use_rep=use_rep)
    model = cls(adata, random_state=0, **{**arguments, **(build or {})})
    model.train(**{**FIT, **train})
    return model


def distance(a: pd.DataFrame, b: pd.DataFrame) -> float:
    """Largest difference relative to the size of the vectors."""
    a, b = a.to_numpy(), b.loc[a.index].to_numpy()
    return float(np.abs(a - b).max() / np.abs(b).max())


def weights(model) -> dict[str, np.ndarray]:
    return {k: v.numpy() for k, v in model.module.state_dict().items()}


def assert_same_weights(a, b):
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# ---- the embedding of a sample is a function of its set of cells


def test_rows_are_samples_and_columns_have_names(kind, fitted):
    model = fitted(kind)
    rep = model.get_sample_representation()
    assert list(rep.index) == [f"s{i:02d}" for i in range(8)]
    assert rep.index.name == "sample"
    assert rep.to_numpy().dtype == np.float32
    assert rep.shape == (8, 6)


def test_order_of_cells_does_not_matter(kind, fitted):
    model, adata = fitted(kind), make_cohort()
    shuffled = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    assert distance(model.get_sample_representation(shuffled), model.get_sample_representation()) < 1e-5


def test_order_of_rows_does_not_matter_in_training(kind, fitted):
    adata = make_cohort()
    for order in (np.random.default_rng(0).permutation(adata.n_obs), np.argsort(adata.obs["cell_type"], kind="stable")):
        model = fit(kind, adata[order].copy())
        assert distance(model.get_sample_representation(), fitted(kind).get_sample_representation()) < 1e-5


def test_batch_mates_and_padding_do_not_matter(kind, fitted):
    model = fitted(kind)
    together = model.get_sample_representation(batch_size=8)
    alone = model.get_sample_representation(batch_size=1)
    some = model.get_sample_representation(samples=["s05", "s01"])
    assert distance(alone, together) < 1e-5
    assert list(some.index) == ["s05", "s01"]
    assert distance(some, together) < 1e-5


@pytest.mark.parametrize("storage", STORAGES)
def test_storage_does_not_matter(kind, fitted, storage, tmp_path):
    model, adata = fitted(kind), make_cohort()
    if storage == "zarr":
        adata.write_zarr(tmp_path / "a.zarr")
        stored = ad.experimental.read_lazy(tmp_path / "a.zarr")
        adata = ad.AnnData(stored.X, obs=adata.obs, var=adata.var)
    elif storage == "dask":
        da = pytest.importorskip("dask.array")
        adata.X = da.from_array(adata.X, chunks=(50, -1))
    elif storage.startswith("backed"):
        fmt = {"backed": np.asarray, "backed_csr": sp.csr_matrix, "backed_csc": sp.csc_matrix}[storage]
        adata.X = fmt(adata.X)
        adata.write_h5ad(tmp_path / "a.h5ad")
        adata = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    else:
        adata.X = getattr(sp, storage)(adata.X)
    rep = model.get_sample_representation(adata)
    if adata.isbacked:
        adata.file.close()
    assert distance(rep, model.get_sample_representation()) < 1e-5


def test_one_cell_beside_a_hundred_thousand(kind, fitted):
    model = fitted(kind)
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"sample": ["large"] * 100_000 + ["one"], "batch": "b0"}, index=map(str, range(100_001)))
    big = ad.AnnData(np.abs(rng.normal(size=(100_001, 5))).astype(np.float32), obs=obs, var=make_cohort().var)
    rep = model.get_sample_representation(big)
    assert np.isfinite(rep.to_numpy()).all()
    one = model.get_sample_representation(big[[100_000]].copy())
    assert distance(one, rep) < 1e-5
    large = model.get_sample_representation(big[:100_000][::-1].copy())
    assert distance(large, rep) < 1e-5


def test_large_samples_are_encoded_in_pieces_to_the_same_vector(kind, fitted, monkeypatch):
    model = fitted(kind)
    whole = model.get_sample_representation()
    monkeypatch.setattr("scset_tools.model._inference.MAX_CELLS", 7)
    assert distance(model.get_sample_representation(), whole) < 1e-5


def test_a_seeded_draw_depends_on_the_sample_alone(kind, fitted):
    model, adata = fitted(kind), make_cohort()
    drawn = model.get_sample_representation(n_cells=10)
    assert distance(drawn, model.get_sample_representation()) > 1e-4
    part = adata[adata.obs["sample"].isin(["s03", "s06"])].copy()
    assert distance(model.get_sample_representation(part, n_cells=10), drawn) < 1e-5


# ---- training


def test_training_changes_weights_and_writes_history(kind, fitted):
    model = fitted(kind)
    assert model.is_trained
    for name in ("loss_train", "loss_validation"):
        assert len(model.history[name]) == 2
        assert model.history[name].dtypes.tolist() == [np.dtype(float)]
    assert set(model.train_samples_) | set(model.validation_samples_) == set(model.sample_names)
    assert set(model.train_indices).isdisjoint(model.validation_indices)
    untrained = MODELS[kind][0](model.adata, random_state=0, **MODELS[kind][1])
    before, after = weights(untrained), weights(model)
    assert any(not np.array_equal(before[k], after[k]) for k in before)


def test_same_seed_same_weights_whatever_the_workers(kind, fitted):
    again = fit(kind, make_cohort())
    assert_same_weights(again, fitted(kind))
    with_workers = fit(kind, make_cohort(), datasplitter_kwargs={"num_workers": 2})
    assert_same_weights(with_workers, fitted(kind))
    other = fit(kind, make_cohort(), seed=1)
    lift = {
        "maestro": "student.encoder.lift.weight",
        "scset": "encoder.lift.weight",
        "selfguidedmae": "encoder.norm.weight",
    }
    name = lift.get(kind) or next(iter(weights(other)))
    assert not np.array_equal(weights(other)[name], weights(again)[name])


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_precision(kind, precision):
    model = fit(kind, make_cohort(), precision=precision)
    assert np.isfinite(model.get_sample_representation().to_numpy()).all()


@pytest.mark.parametrize("schedule", ["constant", "cosine", "plateau"])
def test_knobs_of_the_trainer(kind, schedule):
    model = fit(
        kind,
        make_cohort(),
        plan_kwargs={"lr_schedule": schedule, "n_steps_warmup": 0 if schedule == "plateau" else 2},
        accumulate_grad_batches=2,
        gradient_clip_val=0.5,
        learning_rate_monitor=True,
        groups_key="study",
        train_size=0.6,
    )
    assert any(name.startswith("lr-") for name in model.history)
    study = model.adata.obs.groupby("sample", observed=True)["study"].first()
    assert set(study[model.train_samples_]).isdisjoint(study[model.validation_samples_])


# ---- saving, loading, new data


def test_save_and_load(kind, fitted, tmp_path):
    model, adata = fitted(kind), make_cohort()
    model.save(tmp_path / "m", save_anndata=True)
    want = model.get_sample_representation()
    cls = type(model)
    for given in (adata, False, None):
        loaded = cls.load(tmp_path / "m", adata=given)
        rep = loaded.get_sample_representation(make_cohort() if given is False else None)
        pd.testing.assert_frame_equal(rep, want)
        assert loaded.init_params_ == model.init_params_
        assert loaded.history.keys() == model.history.keys()
        assert loaded.train_samples_ == model.train_samples_
    without_data = cls.load(tmp_path / "m", adata=False)
    without_data.get_sample_representation(make_cohort())
    assert without_data.adata is None  # what is embedded does not become the model's own
    without_data.save(tmp_path / "again")
    again = cls.load(tmp_path / "again", adata=adata)
    assert list(again.get_var_names()) == list(adata.var_names)


def test_one_modality_of_a_mudata(kind, fitted):
    md = pytest.importorskip("mudata")
    adata = make_cohort()
    other = ad.AnnData(adata.X[:, :2], obs=adata.obs[[]])
    mdata = md.MuData({"rna": ad.AnnData(adata.X, var=adata.var, obs=adata.obs[[]]), "other": other})
    for column in ("sample", "condition", "batch"):
        mdata.obs[column] = adata.obs[column].reindex(mdata.obs_names)
    cls, arguments = MODELS[kind]
    cls.setup_mudata(mdata, "sample", modality="rna", labels_key="condition", batch_key="batch")
    model = cls(mdata, random_state=0, **arguments)
    model.train(**FIT)
    assert_same_weights(model, fitted(kind))
    assert distance(model.get_sample_representation(mdata), fitted(kind).get_sample_representation()) < 1e-5


def test_new_samples_are_embedded_without_labels(kind, fitted):
    model = fitted(kind)
    new = make_cohort(3, seed=5, prefix="new")
    del new.obs["condition"]
    rep = model.get_sample_representation(new)
    assert list(rep.index) == ["new00", "new01", "new02"]
    one = model.get_sample_representation(new[new.obs["sample"] == "new01"].copy())
    assert distance(one, rep) < 1e-5


def test_use_rep_needs_no_x(kind):
    adata = make_cohort()
    model = fit(kind, adata, use_rep="X_rep")
    bare = ad.AnnData(obs=adata.obs[["sample", "batch"]].copy(), obsm={"X_rep": adata.obsm["X_rep"]})
    bare.obs = bare.obs[["sample", "batch"]]
    assert distance(model.get_sample_representation(bare), model.get_sample_representation()) < 1e-5
    empty = adata.copy()
    empty.X = sp.csr_matrix(empty.shape, dtype=np.float32)  # not what the model reads
    assert distance(model.get_sample_representation(empty), model.get_sample_representation()) < 1e-5


def test_loading_with_use_rep_ignores_an_empty_x(kind, tmp_path):
    model = fit(kind, make_cohort(), use_rep="X_rep")
    model.save(tmp_path / "m")
    adata = make_cohort()
    adata.X = sp.csr_matrix(adata.shape, dtype=np.float32)
    adata = adata[:, ::-1].copy()
    loaded = type(model).load(tmp_path / "m", adata=adata)
    assert distance(loaded.get_sample_representation(), model.get_sample_representation()) < 1e-5


# ---- what is written


def test_registration_and_inference_keep_the_anndata(kind):
    adata = make_cohort()
    x, before = adata.X, adata.copy()
    model = fit(kind, adata)
    model.get_sample_representation()
    assert adata.X is x
    np.testing.assert_array_equal(adata.X, before.X)
    own = [c for c in adata.obs if not c.startswith("_scvi")]
    pd.testing.assert_frame_equal(adata.obs[own], before.obs)
    assert [k for k in adata.uns if not k.startswith("_scvi")] == list(before.uns)
    assert list(adata.obsm) == list(before.obsm)


def test_sample_adata(kind, fitted, tmp_path):
    model = fitted(kind)
    samples = model.to_sample_adata()
    name = model.name
    assert list(samples.obs_names) == model.sample_names
    assert list(samples.obs.columns) == ["condition", "study", "age", "n_cells"]
    assert samples.obs["n_cells"].sum() == model.adata.n_obs
    assert samples.X.dtype == np.float32
    np.testing.assert_array_equal(samples.X, samples.obsm[f"X_{name}"])
    assert list(samples.var_names[:2]) == [f"{name}_0", f"{name}_1"]
    samples.write_h5ad(tmp_path / "s.h5ad")
    read = ad.read_h5ad(tmp_path / "s.h5ad")
    assert read.uns[name]["setup_args"]["sample_key"] == "sample"
    assert list(read.uns[name]["train_samples"]) == model.train_samples_
    assert "X_mine" in model.to_sample_adata(key_added="mine").obsm


def test_an_untrained_model_embeds_with_a_warning(kind):
    adata = make_cohort()
    cls, arguments = MODELS[kind]
    cls.setup_anndata(adata, "sample")
    model = cls(adata, **arguments)
    with pytest.warns(UserWarning, match="not trained: its vectors come from random weights"):
        rep = model.get_sample_representation()
    assert rep.shape == (8, 6)
    assert model.is_trained is False


def test_cells_chosen_of_a_file_are_embedded(kind, fitted, tmp_path):
    """A view of a backed AnnData, which cannot be copied as one in memory is."""
    model, adata = fitted(kind), make_cohort()
    want = model.get_sample_representation(adata)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    chosen = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")[adata.obs["sample"].isin(["s01", "s04"]).to_numpy()]
    np.testing.assert_allclose(model.get_sample_representation(chosen), want.loc[["s01", "s04"]], atol=1e-5)
    assert chosen.is_view


# ---- explanations


def explain(model, adata=None, **arguments):
    return model.get_attributions("condition", adata=adata, **{"groupby": "cell_type", "n_cells": None, **arguments})


def assert_same_attributions(found, want, tolerance=1e-4):
    """Up to ``tolerance`` of the largest; gradients are sums over cells in an order that may differ."""
    rows = [list(want.samples).index(s) for s in found.samples]
    for name in ("values", "group_values", "group_cells", "group_sizes"):
        a, b = getattr(found, name), getattr(want, name)[rows]
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max(), name
    cells = want.cells.loc[found.cells.index]
    both = found.cells.notna().to_numpy() & cells.notna().to_numpy()
    assert np.abs((found.cells - cells).to_numpy()[both]).max() <= tolerance * np.abs(cells.to_numpy()[both]).max()


def test_attributions_add_up_by_sample_cell_feature_and_group(kind, fitted):
    found = explain(fitted(kind))
    assert found.classes == ["case", "control"]
    assert list(found.feature_names) == list(make_cohort().var_names)
    difference = (found.scores - found.baseline_scores).to_numpy()
    np.testing.assert_allclose(found.values.sum(2), difference, rtol=0.011, atol=0.002)
    assert (found.completeness_error.to_numpy() <= 0.011).all()
    np.testing.assert_allclose(found.values[:, 0], -found.values[:, 1], atol=1e-7)  # of two classes, one is the other
    of_sample = found.cells.groupby(make_cohort().obs["sample"].to_numpy()).sum()
    scale = np.abs(found.group_values).max()
    np.testing.assert_allclose(of_sample.loc[found.samples], found.values.sum(2), rtol=1e-4, atol=1e-4 * scale)
    np.testing.assert_allclose(found.group_values.sum(1), found.values, rtol=1e-4, atol=1e-5 * scale)
    np.testing.assert_allclose(found.group_values.sum(3), found.group_cells, rtol=1e-4, atol=1e-4 * scale)
    parts = found.contrast(group="B") + found.contrast(group="T")
    np.testing.assert_allclose(parts, found.contrast(), rtol=1e-4, atol=1e-5 * scale)
    assert len(repr(found)) < 300


def test_attributions_do_not_depend_on_order_batch_mates_or_storage(kind, fitted, tmp_path):
    model, adata = fitted(kind), make_cohort()
    want = explain(model)
    assert_same_attributions(explain(model), want, tolerance=0)
    assert_same_attributions(explain(model, batch_size=1), want)
    assert_same_attributions(explain(model, samples=["s05", "s01"]), want)
    shuffled = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    assert_same_attributions(explain(model, shuffled), want)
    adata.X = sp.csr_matrix(adata.X)
    assert_same_attributions(explain(model, adata), want)
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    assert_same_attributions(explain(model, backed), want)
    backed.file.close()


def test_a_saved_model_gives_the_same_attributions(kind, fitted, tmp_path):
    fitted(kind).save(tmp_path / "m")
    loaded = type(fitted(kind)).load(tmp_path / "m", adata=False)
    assert_same_attributions(explain(loaded, make_cohort()), explain(fitted(kind)), tolerance=0)


def test_drawn_cells_are_those_of_a_seed(kind, fitted):
    model = fitted(kind)
    found = explain(model, n_cells=7)
    assert found.cells["case"].notna().sum() == 8 * 7
    assert_same_attributions(explain(model, n_cells=7), found, tolerance=0)
    part = make_cohort()[make_cohort().obs["sample"].isin(["s02", "s03"])].copy()
    alone = explain(model, part, n_cells=7, baseline="zeros")
    both = explain(model, n_cells=7, baseline="zeros")
    kept = both.cells.loc[part.obs_names, "case"].notna()
    np.testing.assert_array_equal(alone.cells["case"].notna(), kept)


@pytest.mark.parametrize("baseline", ["mean", "zeros", "reference"])
def test_every_baseline_and_method(kind, fitted, baseline):
    model = fitted(kind)
    found = explain(model, reference="control", baseline=baseline)
    assert found.classes == ["case"]
    assert (found.completeness_error.to_numpy() <= 0.011).all()
    first = explain(model, reference="control", baseline=baseline, method="gradient_x_input")
    assert np.isfinite(first.values).all()
    if model.module.no_attention is not None:
        with pytest.raises(ValueError, match="has no attention: its samples are the plain mean of their cells"):
            explain(model, method="attention")
        return
    weighed = explain(model, reference="control", baseline=baseline, method="attention")
    np.testing.assert_allclose(weighed.cells["case"], model.get_attention().mean(axis=1), rtol=1e-3, atol=1e-6)
    assert weighed.completeness_error.isna().all().all()


def test_the_matrix_of_cells_sums_to_the_attributions(kind, fitted):
    found = explain(fitted(kind), target="case")
    matrix = fitted(kind).get_attribution_matrix("condition", target="case", samples=["s03", "s00"], n_cells=None)
    x = matrix.X.toarray() if sp.issparse(matrix.X) else matrix.X
    np.testing.assert_allclose(x.sum(1), found.cells.loc[matrix.obs_names, "case"], rtol=1e-3, atol=1e-5)
    of_sample = pd.DataFrame(x).groupby(matrix.obs["sample"].astype(str).to_numpy()).sum()
    np.testing.assert_allclose(of_sample.loc["s03"], found.by_sample("case").loc["s03"], rtol=1e-3, atol=1e-5)


def test_attributions_are_written_by_name_and_read_back(kind, fitted, tmp_path):
    model, adata = fitted(kind), make_cohort()
    x = adata.X
    model.annotate_attributions("condition", adata=adata, groupby="cell_type", n_cells=9)
    found = explain(model, n_cells=9)
    assert adata.X is x
    for name in found.classes:
        key = f"{model.name}_attribution_condition_{name}"
        assert adata.var[key].dtype == adata.obs[key].dtype == np.float32
        np.testing.assert_allclose(adata.obs[key], found.cells[name], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(adata.var[key], found.contrast()[name], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(adata.varm[key]["B"], found.contrast(group="B")[name], rtol=1e-4, atol=1e-6)
    model.annotate_attributions("condition", adata=adata, key_added="mine", reference="control", n_cells=9)
    assert {"mine"} <= set(adata.obs) & set(adata.var) & set(adata.uns)
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.write_zarr(tmp_path / "a.zarr")
    for back in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        pd.testing.assert_frame_equal(back.var, adata.var)
        pd.testing.assert_frame_equal(back.varm[key], adata.varm[key])
        about = back.uns[f"{model.name}_attribution_condition"]
        np.testing.assert_allclose(about["completeness_error"], found.completeness_error)


def test_an_untrained_model_is_explained_with_a_warning(kind):
    adata = make_cohort()
    cls, arguments = MODELS[kind]
    cls.setup_anndata(adata, "sample", labels_key="condition")
    model = cls(adata, **arguments)
    with pytest.warns(UserWarning, match="not trained: it explains random weights"):
        model.get_attributions("condition", n_cells=3, n_steps=2)


def test_trust_in_attributions(kind):
    cls, arguments = MODELS[kind]
    found = sst.model.trust_attributions(
        cls,
        make_cohort(6),
        "condition",
        sample_key="sample",
        build=arguments,
        train={k: v for k, v in FIT.items() if k != "seed"},
        attribute={"n_cells": 5, "n_steps": 4},
        n_seeds=2,
        n_permutations=3,
    )
    assert found.null.shape == (5, 3)
    assert found.stability.shape == (2, 2)
    assert set(found.features.index) == set(make_cohort().var_names)
    assert found.attributions[0].classes == ["control"]
    assert "2 seeds agree to" in repr(found)

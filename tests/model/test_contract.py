"""What every model promises. A new model is one line in MODELS."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from _cohort import FIT, make_cohort

import scset_tools as sst

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

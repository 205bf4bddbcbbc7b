"""What ScSet alone offers: generation, fine-tuning, attention, attributions, presets; and what it refuses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from _cohort import FIT, make_cohort
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import scset_tools as sst

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}
SMALL = {"n_hidden": 16, "n_latent": 6, "n_cells": 20, "n_heads": 2}


def build(adata=None, *, setup=None, **arguments):
    adata = make_cohort() if adata is None else adata
    sst.ScSet.setup_anndata(adata, **{"sample_key": "sample", "labels_key": "condition", **(setup or {})})
    return sst.ScSet(adata, **{"random_state": 0, **SMALL, **arguments})


def fitted(*args, train=None, **kwargs):
    model = build(*args, **kwargs)
    model.train(**{**FIT, **(train or {})})
    return model


@pytest.fixture(scope="module")
def model():
    """Trained for two epochs; shared, not to be trained or fine-tuned further."""
    return fitted()


# ---- generation


def test_generated_cells_are_an_anndata_in_the_units_of_the_data(model):
    cells = model.sample_cells(30, sample=["s03", "s01"], n_steps=10)
    assert cells.shape == (60, 5)
    assert list(cells.var_names) == list(model.adata.var_names)
    assert cells.obs["sample"].value_counts().to_dict() == {"s03": 30, "s01": 30}
    assert list(cells.obs["sample"].cat.categories) == ["s03", "s01"]
    assert list(cells.obs.columns) == ["sample"]
    x = model.adata.X
    assert (cells.X >= x.min(0) - 1e-4).all()  # within the range of the cells of training
    assert (cells.X <= x.max(0) + 1e-4).all()
    assert set(model.sample_cells(2, n_steps=2).obs["sample"]) == set(model.sample_names)


def test_a_sample_gets_the_same_cells_whoever_is_beside_it(model, monkeypatch):
    together = model.sample_cells(7, sample=["s00", "s02", "s05"], n_steps=5)
    alone = model.sample_cells(7, sample="s02", n_steps=5)
    np.testing.assert_allclose(together[together.obs["sample"] == "s02"].X, alone.X, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr("scset_tools.model.scset._generation.MAX_ROWS", 8)
    blocks = model.sample_cells(7, sample=["s00", "s02", "s05"], n_steps=5)
    np.testing.assert_allclose(blocks.X, together.X, rtol=1e-4, atol=1e-5)
    assert blocks.obs.equals(together.obs)
    other = model.sample_cells(7, sample="s02", n_steps=5, seed=1)
    assert np.abs(other.X - alone.X).max() > 0.1


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_trajectory_ends_at_the_generated_cells(sampler):
    model = fitted(n_steps=100, train={"max_epochs": 1})
    path = model.denoising_trajectory(6, sample=["s00", "s01"], sampler=sampler, steps=(100, 50, 0))
    final = model.sample_cells(6, sample=["s00", "s01"], sampler=sampler)
    want = [100.0, 50.0, 0.0]
    assert list(dict.fromkeys(path.obs["step"])) == want
    assert path.n_obs == 3 * 12
    np.testing.assert_allclose(path[path.obs["step"] == 0].X, final.X, rtol=1e-5, atol=1e-6)
    noise = path[path.obs["step"] == 100].X
    mean, scale = model.module.mean[0].numpy(), model.module.scale[0].numpy()
    z = (noise - mean) / scale
    assert abs(z.mean()) < 0.5
    assert 0.7 < z.std() < 1.3


def test_a_flow_is_integrated():
    model = fitted(decoder="flow")
    path = model.denoising_trajectory(5, sample="s00", steps=(1000, 500, 0), n_steps=4)
    assert list(dict.fromkeys(path.obs["step"])) == [1000.0, 500.0, 0.0]
    np.testing.assert_allclose(path[path.obs["step"] == 0].X, model.sample_cells(5, sample="s00", n_steps=4).X)
    with pytest.raises(ValueError, match="sampler='ddim' is for decoder='diffusion'"):
        model.sample_cells(5, sampler="ddim")


def test_vectors_can_be_decoded_as_they_are(model):
    vectors = model.get_sample_representation(samples=["s00", "s01"])
    from_vectors = model.sample_cells(4, representation=vectors, n_steps=4)
    np.testing.assert_allclose(from_vectors.X, model.sample_cells(4, sample=["s00", "s01"], n_steps=4).X, atol=1e-6)
    between = pd.DataFrame([vectors.mean(axis=0)], index=["between"])
    assert model.sample_cells(4, representation=between, n_steps=4).obs["sample"].unique().tolist() == ["between"]
    with pytest.raises(ValueError, match="Give `representation`, or `sample` and `adata`, not both"):
        model.sample_cells(4, representation=between, sample="s00")


def test_generation_learns_the_composition():
    """Two cell types far apart, in samples of 10 % or 90 %: what is generated follows the sample."""
    rng = np.random.default_rng(0)
    adata = make_cohort(16)
    samples = adata.obs["sample"].cat.codes.to_numpy()
    is_second = rng.random(adata.n_obs) < np.where(samples % 2, 0.9, 0.1)
    adata.X = rng.normal(scale=0.3, size=adata.shape).astype(np.float32) + 2.0 * is_second[:, None]
    train = {"max_epochs": 80, "train_size": 1.0, "batch_size": 16, "plan_kwargs": {"lr": 5e-3}}
    model = fitted(adata, n_latent=8, n_targets=8, n_times=4, train=train)
    cells = model.sample_cells(100, n_steps=20)
    share = pd.Series((cells.X.mean(1) > 1).astype(float)).groupby(cells.obs["sample"].to_numpy()).mean()
    truth = pd.Series(is_second.astype(float)).groupby(adata.obs["sample"].astype(str).to_numpy()).mean()
    assert np.corrcoef(share, truth)[0, 1] > 0.9
    assert share[truth > 0.5].mean() - share[truth < 0.5].mean() > 0.4


def test_nothing_is_generated_without_training_or_of_unknown_samples(model):
    with pytest.raises(ValueError, match="This ScSet is not trained: call train"):
        build().sample_cells(3)
    with pytest.raises(KeyError, match=r"1 of 1 samples are not in the data: .'nope'"):
        model.sample_cells(3, sample="nope")
    with pytest.raises(ValueError, match="n_cells=0 must be a whole number of 1 or more"):
        model.sample_cells(0)
    with pytest.raises(ValueError, match=r"sampler='euler' is not one of \['ddim', 'ddpm'\]"):
        model.sample_cells(3, sampler="euler")
    with pytest.raises(ValueError, match="n_steps=20 is for sampler='ddim'"):
        model.sample_cells(3, sampler="ddpm", n_steps=20)


# ---- fine-tuning


def logistic_by_hand(model, labels, penalty):
    z = model.get_sample_representation()
    x = StandardScaler().fit_transform(z)
    regression = LogisticRegression(C=penalty, class_weight="balanced", max_iter=5000).fit(x, labels.loc[z.index])
    return pd.DataFrame(regression.predict_proba(x), index=z.index, columns=regression.classes_)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_frozen_linear_head_is_a_class_weighted_logistic_regression(classes):
    adata = make_cohort(9)
    labels = adata.obs.groupby("sample", observed=True)["study"].first().astype(str)
    if classes == 2:
        labels = labels.replace("study2", "study1")
    adata.obs["group"] = labels.loc[adata.obs["sample"]].to_numpy()
    model = fitted(adata, train={"train_size": 1.0})
    model.finetune("group", penalty=0.5)
    proba = model.predict_proba()
    want = logistic_by_hand(model, labels, 0.5)
    assert list(proba.columns) == sorted(set(labels))
    assert proba.index.name == "sample"
    np.testing.assert_allclose(proba, want, atol=1e-4)
    predicted = model.predict()
    assert list(predicted.columns) == ["group"]
    assert (predicted["group"] == proba.idxmax(axis=1)).all()


@pytest.fixture(scope="module")
def learned():
    """Trained long enough that the two conditions, which differ in composition, can be told apart."""
    train = {"max_epochs": 40, "train_size": 1.0, "batch_size": 16, "plan_kwargs": {"lr": 5e-3}}
    return fitted(make_cohort(16), n_latent=8, n_targets=8, n_times=4, train=train)


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("mode", ["frozen", "end_to_end"])
def test_every_head_learns_and_is_saved(learned, tmp_path, mode, head):
    before = {k: v.clone() for k, v in learned.module.state_dict().items()}
    representation = learned.get_sample_representation()
    learned.finetune(mode=mode, head=head, max_epochs=60, dropout_rate=0.0, lr=1e-3, **QUIET)
    truth = learned.adata.obs.groupby("sample", observed=True)["condition"].first().astype(str)
    assert (learned.predict()["condition"] == truth).mean() > 0.9
    # the model's own encoder is left as it is
    assert all(torch.equal(v, before[k]) for k, v in learned.module.state_dict().items())
    pd.testing.assert_frame_equal(learned.get_sample_representation(), representation)
    learned.save(tmp_path / "m")
    loaded = sst.ScSet.load(tmp_path / "m", adata=False)
    new = make_cohort(3, seed=3, prefix="new")
    del new.obs["condition"]
    pd.testing.assert_frame_equal(loaded.predict_proba(new), learned.predict_proba(new))
    np.testing.assert_allclose(learned.predict_proba(new).sum(axis=1), 1, atol=1e-5)
    one = new[new.obs["sample"] == "new01"].copy()
    np.testing.assert_allclose(learned.predict_proba(one), learned.predict_proba(new).loc[["new01"]], atol=1e-5)


def test_end_to_end_moves_the_encoder_and_is_reproducible(learned):
    learned.finetune(mode="end_to_end", max_epochs=3, seed=1, **QUIET)
    first = learned.fits_[-1]
    learned.finetune(mode="end_to_end", max_epochs=3, seed=1, **QUIET)
    again = learned.fits_[-1]
    assert len(learned.fits_) == 1
    assert first["encoder"]  # what differs from the model's own
    assert all(name.startswith("encoder.") for name in first["encoder"])
    for a, b in ((first["encoder"], again["encoder"]), (first["heads"][0]["head"], again["heads"][0]["head"])):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a)
    learned.finetune(mode="frozen")
    assert learned.fits_[-1]["encoder"] is None


def test_the_weighted_loss_holds_a_rare_class(learned):
    """With vectors that say nothing, class-weighted cross-entropy predicts every class alike; without weights, the frequent."""
    adata = make_cohort(16)
    adata.obs["rare"] = np.where(adata.obs["sample"] == "s00", "rare", "common")
    for head in ("linear", "mlp"):
        learned.finetune("rare", adata=adata, head=head, penalty=1e-8, n_hidden=2, max_epochs=1, lr=1e-8, **QUIET)
        proba = learned.predict_proba(adata, label_key="rare")
        assert proba["rare"].mean() == pytest.approx(0.5, abs=0.15)


def test_unlabelled_samples_serve_in_training_and_not_in_finetuning():
    adata = make_cohort()
    adata.obs["condition"] = adata.obs["condition"].astype(object)
    adata.obs.loc[adata.obs["sample"].isin(["s01", "s04"]), "condition"] = None
    model = fitted(adata)
    with pytest.raises(ValueError, match=r"missing for 2 of 8 named samples \(first: \['s01', 's04'\]\)"):
        model.finetune(samples=model.sample_names)
    labelled = [s for s in model.sample_names if s not in ("s01", "s04")]
    for samples in (labelled, None):
        model.finetune(samples=samples, penalty=1.0)
        assert set(model.fits_[-1]["samples"]) <= set(labelled)
    assert set(model.fits_[-1]["samples"]) == set(labelled) & set(model.train_samples_)
    assert list(model.predict(samples=["s01"]).index) == ["s01"]


def test_bad_requests_to_the_classifier(model):
    with pytest.raises(ValueError, match="This ScSet predicts nothing yet: call finetune"):
        model.predict()
    with pytest.raises(ValueError, match=r"has one class, \['case'\], in these samples"):
        model.finetune(samples=["s01", "s03"])
    with pytest.raises(ValueError, match="mode='warm' is not one of"):
        model.finetune(mode="warm")
    with pytest.raises(ValueError, match="head='tree' is not one of"):
        model.finetune(head="tree")
    with pytest.raises(KeyError, match="'hospital' is not a column"):
        model.finetune("hospital")
    with pytest.raises(KeyError, match="'nope'"):
        model.finetune(samples=["s00", "nope"])
    with pytest.raises(ValueError, match="Name the column of labels"):
        fitted(setup={"labels_key": None}).finetune()


def test_training_again_forgets_the_classifier():
    model = fitted()
    model.finetune(penalty=1.0)
    model.train(**{**FIT, "max_epochs": 1})
    assert model.heads == {}


# ---- attention, attributions


def test_attention_sums_to_one_in_each_sample_and_is_aligned(model, monkeypatch):
    adata = make_cohort()
    weights = model.get_attention(adata)
    assert weights.index.equals(adata.obs_names)
    assert list(weights.columns) == ["head_0", "head_1"]
    np.testing.assert_allclose(weights.groupby(adata.obs["sample"].to_numpy()).sum(), 1, atol=1e-5)
    np.testing.assert_allclose(model.get_attention(adata[::-1].copy()).loc[weights.index], weights, atol=1e-6)
    monkeypatch.setattr("scset_tools.model._inference.MAX_CELLS", 7)
    np.testing.assert_allclose(model.get_attention(adata), weights, atol=1e-6)


def test_annotated_attention_is_one_on_average(model):
    adata = make_cohort()
    x = adata.X
    model.annotate_attention(adata)
    assert adata.X is x
    means = adata.obs.groupby("sample", observed=True)["scset_attention"].mean()
    np.testing.assert_allclose(means, 1, atol=1e-4)
    assert adata.obsm["scset_attention"].shape == (adata.n_obs, 2)


@pytest.mark.parametrize("mode", ["frozen", "end_to_end"])
def test_a_finetuned_head_is_explained(mode):
    model = fitted()
    with pytest.raises(ValueError, match=r"This ScSet has no head for 'condition': call finetune\('condition'\)"):
        model.get_attributions("condition", head="finetuned")
    model.finetune("condition", mode=mode, max_epochs=2, penalty=1.0, **QUIET)
    found = model.get_attributions("condition", head="finetuned", reference="control", n_cells=None)
    assert found.classes == ["case"]
    assert (found.completeness_error.to_numpy() < 0.02).all()
    # sums over cells are log-odds less those of a sample of mean cells
    p = model.predict_proba()
    flat = make_cohort()
    flat.X[:] = model.module.mean.numpy()[0]
    base = model.predict_proba(flat)
    want = np.log(p["case"] / p["control"]) - np.log(base["case"] / base["control"])
    total = found.cells["case"].groupby(model.adata.obs["sample"].to_numpy()).sum()
    np.testing.assert_allclose(total[want.index], want, rtol=0.02, atol=1e-4)
    assert found.head == model.get_attributions("condition", n_cells=3, n_steps=2).head == "finetuned"


# ---- presets, sizes, bad input


def test_presets_build_and_train():
    preset = sst.ScSet.preset("paper")
    adata = make_cohort()
    sst.ScSet.setup_anndata(adata, "sample")
    model = sst.ScSet(adata, **preset.model)
    block = model.module.encoder.pool.layers[0]
    assert (len(model.module.encoder.pool.layers), block.n_heads, block.feed_forward[0].out_features) == (2, 4, 512)
    assert (model.module.n_targets, model.module.n_times, model.module.denoiser.n_blocks) == (16, 16, 5)
    assert (model.module.n_cells, model.module.schedule.n_steps, model.module.denoiser.n_time) == (1024, 1000, 128)
    assert (model.module.mean == 0).all()  # cells enter as they are
    with pytest.raises(ValueError, match="8 of 8 samples have fewer than the 128 cells that training needs"):
        model.train(**preset.train)
    model.train(**{**preset.train, **FIT, "max_epochs": 1, "min_cells": 2})
    assert model.get_sample_representation().shape == (8, 256)
    assert sst.ScSet.preset("default").model == {}
    with pytest.raises(ValueError, match="name='large' is not one of"):
        sst.ScSet.preset("large")


def test_small_samples_use_what_is_there():
    adata = make_cohort(4)
    few = pd.concat(
        [adata.obs[adata.obs["sample"] == s].iloc[:n] for s, n in (("s00", 2), ("s01", 3), ("s02", 9), ("s03", 30))]
    )
    model = fitted(adata[few.index].copy())
    assert np.isfinite(model.history["loss_train"].to_numpy()).all()
    assert np.isfinite(model.get_sample_representation().to_numpy()).all()


def test_a_sample_of_one_cell_cannot_be_trained_on_but_embedded(model):
    adata = make_cohort(4)
    few = pd.concat([adata.obs[adata.obs["sample"] != "s02"], adata.obs[adata.obs["sample"] == "s02"].iloc[:1]])
    adata = adata[few.index].copy()
    with pytest.raises(ValueError, match=r"1 of 4 samples have fewer than the 2 cells .*\{'s02': 1\}"):
        fitted(adata)
    assert np.isfinite(model.get_sample_representation(adata).loc["s02"]).all()


def test_a_tilted_training_runs():
    model = fitted(tilt=1.0, train={"max_epochs": 1})
    assert np.isfinite(model.history["loss_train"].to_numpy()).all()
    assert np.isfinite(model.get_sample_representation().to_numpy()).all()


def test_one_cell_far_out_turns_no_vector(model):
    def vector_of_s02(fitted, value):
        adata = make_cohort(4)
        first = np.flatnonzero(adata.obs["sample"] == "s02")[0]
        adata.X[first, 0] = value
        return fitted.get_sample_representation(adata).loc["s02"].to_numpy()

    mean, scale = float(model.module.mean[0, 0]), float(model.module.scale[0, 0])
    edge, out, far = (mean + k * scale for k in (4, 10, 1e4))
    np.testing.assert_allclose(vector_of_s02(model, out), vector_of_s02(model, edge), atol=1e-5)
    np.testing.assert_allclose(vector_of_s02(model, far), vector_of_s02(model, edge), atol=1e-5)
    unlimited = fitted(max_value=None)
    assert np.abs(vector_of_s02(unlimited, far) - vector_of_s02(unlimited, edge)).max() > 1e-3
    assert fitted(standardize=False).module.max_value is None, "features in units of their own have no such limit"


def test_constant_features_do_no_harm():
    adata = make_cohort()
    adata.X[:, 2] = 7.0
    model = fitted(adata)
    assert np.isfinite(model.history["loss_train"].to_numpy()).all()
    cells = model.sample_cells(5, n_steps=4)
    np.testing.assert_allclose(cells.X[:, 2], 7.0, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoder": "rnn"}, "encoder='rnn' is not one of"),
        ({"decoder": "vae"}, "decoder='vae' is not one of"),
        ({"schedule": "sigmoid"}, "schedule='sigmoid' is not one of"),
        ({"tilt": -1}, "tilt=-1 must be a finite number of 0 or more"),
        ({"max_value": 0}, "max_value=0 must be a finite number above 0"),
        ({"n_targets": 0}, "n_targets=0 must be a whole number of 1 or more"),
        ({"n_heads": 4}, r"`n_heads` \(4\) must divide the width \(6\)"),
    ],
    ids=str,
)
def test_arguments_of_the_constructor(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(model.adata, **arguments)


@pytest.mark.parametrize("encoder", ["set_transformer", "abmil", "mean"])
def test_other_encoders_train_and_embed_in_pieces(encoder, monkeypatch):
    model = fitted(encoder=encoder)
    whole = model.get_sample_representation()
    monkeypatch.setattr("scset_tools.model._inference.MAX_CELLS", 7)
    np.testing.assert_allclose(model.get_sample_representation(), whole, rtol=1e-4, atol=1e-5)

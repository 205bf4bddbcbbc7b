"""SelfGuidedMAE as users call it."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
import torch

import scset_tools as sst

SMALL = {
    "n_hidden": 8,
    "n_layers": 2,
    "n_heads": 2,
    "n_bins": 6,
    "n_latents": 4,
    "n_latent_hidden": 8,
    "n_decoder_hidden": 8,
}
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "seed": 0}
TUNE = {"accelerator": "cpu", "enable_progress_bar": False}


def make_counts(n_donors=6, *, seed=0, prefix="d") -> ad.AnnData:
    """Counts of 24 genes in cells of three types: eight genes are strong in each."""
    rng = np.random.default_rng(seed)
    n = n_donors * 20
    kind = rng.integers(0, 3, n)
    rate = np.full((n, 24), 0.4)
    for k in range(3):
        rate[np.ix_(kind == k, range(8 * k, 8 * k + 8))] = 4.0
    counts = rng.poisson(rate)
    counts[:, 0] += counts.sum(1) == 0
    obs = pd.DataFrame(
        {"donor": [f"{prefix}{i % n_donors}" for i in range(n)], "type": np.array(["A", "B", "C"])[kind]},
        index=[f"{prefix}_cell{i}" for i in range(n)],
    )
    return ad.AnnData(
        sp.csr_matrix(counts.astype(np.float32)), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(24)])
    )


def build(adata=None, **arguments) -> sst.SelfGuidedMAE:
    adata = make_counts() if adata is None else adata
    sst.SelfGuidedMAE.setup_anndata(adata, "donor")
    return sst.SelfGuidedMAE(adata, random_state=0, **{**SMALL, **arguments})


@pytest.fixture(scope="module")
def model():
    """Trained; shared, not to be trained further."""
    model = build()
    model.train(10, train_size=0.7, batch_size=16, plan_kwargs={"lr": 5e-3}, **QUIET)
    return model


def changed(model, before) -> set[str]:
    after = model.module.state_dict()
    return {k for k in before if not torch.equal(before[k], after[k])}


def snapshot(model) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.module.state_dict().items()}


# ---- pretraining and representations


def test_training_lowers_the_loss_and_trains_every_part(model):
    loss = model.history["reconstruction_validation"].iloc[:, 0]
    assert loss.iloc[-1] < 0.8 * loss.iloc[0]
    for name in ("overlap", "perplexity"):
        assert model.history[f"{name}_train"].iloc[:, 0].between(0, 1).all()
    unexplained = model.history["unexplained_train"].iloc[:, 0]
    assert unexplained.iloc[-1] < unexplained.iloc[0]
    untrained = snapshot(build())
    moved = changed(model, untrained)
    names = {n for n, _ in model.module.named_parameters()}
    assert names - moved <= {"encoder.value_embedding.padding"}  # padding is never read


def test_no_gradient_reaches_the_latents_through_the_mask_alone():
    model = build()
    model.module.attention_weight = 0.0
    batch = model._dataset(model.adata).cells(np.arange(12))
    model.module.loss(batch).loss.backward()
    latents = model.module.encoder.latents
    # the adapter starts at zero, so in the first step the loss reaches its last layer and nothing behind it
    assert latents.adapter[2].weight.grad.abs().max() > 0
    assert latents.latents.grad.abs().max() == 0
    assert latents.to_k.weight.grad.abs().max() == 0


def test_counts_enter_as_logarithms_of_normalised_counts(model):
    adata = make_counts()
    adata.layers["log"] = adata.X.copy()
    sc.pp.normalize_total(adata, target_sum=1e4, layer="log")
    sc.pp.log1p(adata, layer="log")
    sst.SelfGuidedMAE.setup_anndata(adata, "donor", layer="log")
    other = sst.SelfGuidedMAE(adata, values="normalized", random_state=0, **SMALL)
    other.module.load_state_dict(model.module.state_dict())
    other.is_trained_ = True
    np.testing.assert_allclose(other.get_cell_representation(), model.get_cell_representation(), rtol=1e-4, atol=1e-5)


def test_cells_are_embedded_alone_and_in_order(model):
    vectors = model.get_cell_representation()
    assert vectors.index.equals(model.adata.obs_names)
    assert vectors.to_numpy().dtype == np.float32
    part = model.adata[[50, 3, 77]].copy()
    np.testing.assert_allclose(model.get_cell_representation(part), vectors.iloc[[50, 3, 77]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("limit", [40, 1])
def test_blocks_of_tokens_do_not_matter(model, limit, monkeypatch):
    want = model.get_cell_representation()
    monkeypatch.setattr("scset_tools.model.selfguided._module.MAX_TOKENS", limit)
    np.testing.assert_allclose(model.get_cell_representation(), want, rtol=1e-4, atol=1e-5)


def test_samples_are_means_of_their_cells(model):
    want = model.get_cell_representation().groupby(model.adata.obs["donor"].to_numpy()).mean()
    samples = model.to_sample_adata()
    np.testing.assert_allclose(samples.X, want, rtol=1e-4, atol=1e-5)
    assert list(samples.obs_names) == list(want.index)


def test_attention_pooling(model, monkeypatch):
    other = build(sample_pooling="attention")
    other.module.load_state_dict(model.module.state_dict())
    other.is_trained_ = True
    vectors = model.get_cell_representation()
    for donor, x in vectors.groupby(model.adata.obs["donor"].to_numpy()):
        mean = x.mean().to_numpy()
        score = x.to_numpy() @ mean / np.sqrt(len(mean))
        weight = np.exp(score - score.max())
        want = weight @ x.to_numpy() / weight.sum()
        np.testing.assert_allclose(other.get_sample_representation(samples=[donor]).iloc[0], want, rtol=1e-4, atol=1e-5)
    whole = other.get_sample_representation()
    monkeypatch.setattr("scset_tools.model._inference.MAX_CELLS", 7)
    np.testing.assert_allclose(other.get_sample_representation(), whole, rtol=1e-4, atol=1e-6)


def test_what_is_written_to_cells(model):
    adata = make_counts(3, seed=4, prefix="new")
    model.annotate_cell_representation(adata)
    np.testing.assert_array_equal(adata.obsm["X_selfguidedmae"], model.get_cell_representation(adata))
    model.annotate_cell_representation(adata, key_added="mine")
    assert "mine" in adata.obsm


@pytest.mark.parametrize(
    "arguments",
    [
        {"masking": "random"},
        {"masking": "random", "n_latents": 0},
        {"mask_candidates": "all", "read_depth_tokens": True},
        {"mask_candidates": "all", "masking": "random", "n_latents": 0},
        {"pool": "all", "read_depth_tokens": True},
        {"pool": "max"},
        {"n_decoder_layers": 2},
        {"n_decoder_features": 6, "n_decoder_norms": 2},
        {"zero_mask_rate": 0.0},
        {"mask_rate": 0.0},
        {"read_depth_tokens": True, "target_depth": 4.0, "dropout_rate": 0.1},
    ],
    ids=lambda a: "-".join(a),
)
def test_variants_train_and_embed(arguments):
    model = build(**arguments)
    model.train(1, train_size=0.7, **QUIET)
    assert np.isfinite(model.history["loss_train"].iloc[-1, 0])
    width = 8 * {"all": 4}.get(arguments.get("pool"), 1)
    assert model.get_cell_representation().shape == (120, width)


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path):
    train = {"train_size": 0.7, "batch_size": 16, "plan_kwargs": {"lr_schedule": "constant"}, **QUIET}
    whole, part, rest = build(dropout_rate=0.1), build(dropout_rate=0.1), build(dropout_rate=0.1)
    whole.train(3, **train)
    part.train(1, checkpoint_dir=tmp_path, **train)
    rest.train(3, checkpoint_dir=tmp_path, **train)
    assert changed(rest, snapshot(whole)) == set()  # masking counts included
    assert len(rest.history["loss_train"]) == 3


# ---- masking frequency


def test_frequency_against_a_count_of_the_masks():
    model = build(masking="random", n_latents=0)
    model.train(2, train_size=1.0, batch_size=16, **QUIET)
    splitter = model._data_splitter_cls(model.adata_manager, train_size=1.0, batch_size=16, seed=0, **model._read)
    splitter.trainer = None
    times, expressed, values = np.zeros(24), np.zeros(24), np.zeros(24)
    loader = splitter.train_dataloader()
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            tokens = model.module.tokens(batch)
            hidden = model.module.hide(tokens, None, batch.seed)  # random masks do not read embeddings
            for gene, value, is_expressed in zip(
                hidden.gene[hidden.is_real],
                hidden.value[hidden.is_real],
                hidden.is_expressed[hidden.is_real],
                strict=True,
            ):
                times[gene] += 1
                expressed[gene] += bool(is_expressed)
                values[gene] += float(value)
    seen = 2 * np.asarray((model.adata.X > 0).sum(0)).ravel()
    table = model.get_masking_frequency()
    assert list(table.index) == list(model.adata.var_names)
    np.testing.assert_array_equal(table["times_masked"], times)
    np.testing.assert_allclose(table["share_masked"], times / 240)
    np.testing.assert_array_equal(table["times_expressed"], seen)
    np.testing.assert_allclose(table["share_masked_expressed"], expressed / seen)
    np.testing.assert_allclose(table["mean_when_masked"], values / times, rtol=1e-5)
    assert abs(expressed.sum() / seen.sum() - 0.3) < 0.05
    adata = model.adata
    model.annotate_masking_frequency()
    np.testing.assert_array_equal(adata.var["selfguidedmae_times_masked"], times)
    assert len(sst.pl.masking_frequency(adata).collections) == 1
    with pytest.raises(ValueError, match=r"adata.var_names \(3\) are not the 24 features"):
        model.annotate_masking_frequency(adata[:, :3].copy())


def test_masks_follow_the_attention_of_the_latents():
    """Genes that get more attention are hidden more often, and with random masks they are not."""
    shares = {}
    for masking in ("self_guided", "random"):
        model = build(masking=masking)
        model.train(20, train_size=1.0, plan_kwargs={"lr": 1e-6}, **QUIET)
        shares[masking] = model.get_masking_frequency()["share_masked_expressed"]
        batch = model._dataset(model.adata).cells(np.arange(120))
        tokens = model.module.tokens(batch)
        with torch.no_grad():
            is_used = torch.ones(120, 4, dtype=torch.bool)
            weight, _ = model.module.encoder.latents.importance(
                model.module.encoder.embed(tokens), tokens.is_real, is_used
            )
        attention = np.zeros(24)
        np.add.at(attention, tokens.gene[tokens.is_real], (weight * tokens.n_real[:, None])[tokens.is_real])
        attention /= np.asarray((model.adata.X > 0).sum(0)).ravel()
    assert np.corrcoef(attention, shares["self_guided"])[0, 1] > 0.6
    assert shares["self_guided"].std() > 2 * shares["random"].std()


def test_no_frequency_before_training():
    with pytest.raises(ValueError, match="Nothing was hidden yet"):
        build().get_masking_frequency()


# ---- cell types


def test_a_linear_probe_leaves_the_encoder_alone(model):
    before, history = snapshot(model), model.history
    model.finetune("type", level="cell", head="linear", penalty=1.0, **TUNE)
    assert model.heads["type"].head.is_linear
    model.finetune("type", level="cell", lr=1e-2, **TUNE)
    assert changed(model, before) == set()
    assert model.history is history
    held_out = model.adata[model.adata.obs["donor"].isin(model.validation_samples_)].copy()
    predicted = model.predict(held_out)["type"]
    assert predicted.index.equals(held_out.obs_names)
    assert (predicted == held_out.obs["type"]).mean() > 0.7
    proba = model.predict_proba(held_out)
    assert list(proba.columns) == ["A", "B", "C"]
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    assert (proba.idxmax(axis=1) == predicted).all()
    assert {"loss_train", "loss_validation"} <= set(model.finetune_history_)
    model.annotate_predictions(held_out)
    assert list(held_out.obs["selfguidedmae_type"]) == list(predicted)


def test_partial_fine_tuning_moves_what_the_paper_says(tmp_path):
    model = build()
    model.train(2, train_size=0.7, batch_size=16, **QUIET)
    before, history, samples = snapshot(model), model.history, model.train_samples_
    model.finetune("type", level="cell", mode="partial", max_epochs=25, lr=1e-2, **TUNE)
    assert changed(model, before) == set()  # the model's own encoder is left as it is
    moved = set(model.fits_[-1]["encoder"])
    parts = ("encoder.value_embedding.", "encoder.gene_embedding.", "encoder.layers.1.")
    assert moved
    assert all(name.startswith(parts) for name in moved)
    assert {p for p in parts if any(name.startswith(p) for name in moved)} == set(parts)
    assert model.history is history
    assert model.train_samples_ == samples
    assert "accuracy_validation" in model.finetune_history_
    held_out = model.adata.obs["donor"].isin(model.validation_samples_)
    is_right = model.predict()["type"] == model.adata.obs["type"]
    assert is_right[held_out].mean() > 0.8
    # saved, loaded, on new donors
    model.save(tmp_path / "m")
    loaded = sst.SelfGuidedMAE.load(tmp_path / "m", adata=False)
    new = make_counts(2, seed=9, prefix="new")
    pd.testing.assert_frame_equal(loaded.predict_proba(new), model.predict_proba(new))
    assert (loaded.predict(new)["type"] == new.obs["type"]).mean() > 0.8
    # and pretraining can go on
    model.train(1, train_size=0.7, **QUIET)
    assert "decoder.embed.weight" in changed(model, before)


def test_fine_tuning_without_pretraining_and_with_unlabelled_cells():
    adata = make_counts()
    adata.obs["some"] = adata.obs["type"].where(np.arange(120) % 3 > 0)
    model = build(adata)
    model.finetune("some", level="cell", mode="partial", max_epochs=20, lr=1e-2, train_size=0.7, **TUNE)
    assert not model.is_trained  # to reconstruct
    assert (model.predict()["some"] == adata.obs["type"]).mean() > 0.8


def test_arguments_of_fine_tuning(model, tmp_path):
    with pytest.raises(ValueError, match="mode='full' is not one of"):
        model.finetune("type", level="cell", mode="full")
    with pytest.raises(KeyError, match="'celltype' is not a column"):
        model.finetune("celltype", level="cell")
    model.adata.obs["one"] = "T"
    with pytest.raises(ValueError, match=r"adata.obs\['one'\] has one class, \['T'\], in these samples"):
        model.finetune("one", level="cell")
    with pytest.raises(ValueError, match=r"adata.obs\['type'\] must have one value per sample.*too coarse"):
        model.finetune("type")
    model.adata.obs["by_donor"] = np.where(model.adata.obs["donor"] == model.validation_samples_[0], "x", "y")
    with pytest.raises(ValueError, match=r"1 of 2 classes of 'by_donor' have no training sample"):
        model.finetune("by_donor", level="cell")
    with pytest.raises(ValueError, match="This SelfGuidedMAE predicts nothing yet: call finetune"):
        build().predict()
    model.save(tmp_path / "m")
    with pytest.raises(ValueError, match="no AnnData to learn from"):
        sst.SelfGuidedMAE.load(tmp_path / "m", adata=False).finetune("type", level="cell")


# ---- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": "tpm"}, "values='tpm' is not one of"),
        ({"masking": "guided"}, "masking='guided' is not one of"),
        ({"mask_candidates": "zeros"}, "mask_candidates='zeros' is not one of"),
        ({"importance_spread": -1}, "importance_spread=-1 must be a finite number of 0 or more"),
        ({"pool": "cls"}, "pool='cls' is not one of"),
        ({"sample_pooling": "max"}, "sample_pooling='max' is not one of"),
        ({"mask_rate": 1.0}, "mask_rate=1.0 must be a number of 0 or more and below 1"),
        ({"mask_rate": 0, "zero_mask_rate": 0}, "there is nothing to learn from"),
        ({"n_latents": 0}, "masking='self_guided' needs latents"),
        ({"values": "normalized", "read_depth_tokens": True}, "read_depth_tokens=True needs values='counts'"),
        ({"genes": ["g0", "g1", "g0"]}, r"genes repeats \['g0'\]"),
        ({"genes": ["ENSG1", "ENSG2"]}, r"None of the 24 features .*'g0'.*Are both symbols, or both identifiers"),
        ({"n_latent_heads": 3}, "n_latent_heads=3 must divide n_latent_hidden=8"),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else "",
)
def test_arguments_of_the_constructor(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_values_that_are_no_counts_are_found_at_once():
    adata = make_counts()
    sc.pp.normalize_total(adata, target_sum=1e4)
    with pytest.raises(ValueError, match=r"Counts are expected, but \d+ of \d+ values.*values='normalized'"):
        build(adata)
    adata.X = adata.X.toarray() - 3
    with pytest.raises(ValueError, match="values are negative"):
        build(adata, values="normalized")


def test_cells_without_expressed_genes(model):
    adata = make_counts()
    x = adata.X.toarray()
    x[[4, 8]] = 0
    adata.X = x
    with pytest.raises(ValueError, match=r"2 of 120 cells have no expressed gene \(first: \['d_cell4', 'd_cell8'\]"):
        build(adata)
    new = make_counts(2, prefix="new")
    x = new.X.toarray()
    x[3] = 0
    new.X = x
    with pytest.raises(ValueError, match="'new_cell3'"):
        model.get_cell_representation(new)


@pytest.mark.filterwarnings(
    "ignore:The guided mask was nearly a random one"
)  # between two genes there is little to choose
def test_cells_with_one_or_two_expressed_genes():
    """Fewer than the mask needs: one gene stays in sight, and a cell with a single one teaches through its zeros."""
    adata = make_counts()
    x = np.zeros(adata.shape, np.float32)
    x[:, 3] = 2
    x[::2, 7] = 1
    adata.X = x
    model = build(adata, mask_rate=0.9)
    model.train(1, train_size=0.7, **QUIET)
    assert np.isfinite(model.history["loss_train"].iloc[-1, 0])
    table = model.get_masking_frequency()
    assert table["times_masked"].sum() > 0
    assert np.isfinite(model.get_cell_representation().to_numpy()).all()
    alone = build(adata[1::2].copy(), zero_mask_rate=0.0)
    alone.train(1, train_size=0.7, **QUIET)
    assert alone.history["reconstruction_train"].iloc[-1, 0] == pytest.approx(0, abs=1e-4)  # nothing can be hidden


def test_presets():
    preset = sst.SelfGuidedMAE.preset("scfoundation")
    assert preset.model["n_hidden"] == 768
    assert preset.train["plan_kwargs"]["lr_backbone"] == 1e-5
    adata = make_counts()
    small = {"n_hidden": 24, "n_ff": 32, "n_decoder_hidden": 16, "dim_decoder_head": 4, "n_decoder_features": 8}
    model = build(adata, **{**preset.model, **small, "n_layers": 1, "n_decoder_layers": 1})
    arguments = {**preset.train, "precision": "32-true", "train_size": 0.7, "batch_size": 16}
    model.train(1, **arguments, **QUIET)
    assert model.get_cell_representation().shape == (120, 96)
    assert sst.SelfGuidedMAE.preset("default").model == {}
    with pytest.raises(ValueError, match="name='huge' is not one of"):
        sst.SelfGuidedMAE.preset("huge")


def test_a_model_is_a_profile():
    adata = make_counts()
    build_arguments = {**SMALL, "random_state": 0}
    profile = sst.model.ModelProfile(
        sst.SelfGuidedMAE,
        sample_key="donor",
        build=build_arguments,
        train={"max_epochs": 1, "train_size": 1.0, **QUIET},
    )
    samples = profile.fit(adata, samples=["d0", "d1", "d2"]).transform(adata)
    assert samples.shape == (6, 8)
    assert profile.model_.train_samples_ == ["d0", "d1", "d2"]

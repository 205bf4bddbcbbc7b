"""What PaSCient alone offers: targets, predictions, resampling, gene alignment, and refusals of bad input."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from _cohort import FIT, make_cohort
from sklearn.metrics import f1_score

import scset_tools as sst
from scset_tools.data._sparse import SparseRows

SMALL = {"n_hidden": 16, "n_latent": 6, "random_state": 0}


def counts_cohort(n_samples=8, **kwargs):
    """The cohort with sparse counts: genes 0 and 1 are high in cases."""
    adata = make_cohort(n_samples, n_features=8, **kwargs)
    rng = np.random.default_rng(1)
    rate = np.full(adata.shape, 2.0)
    rate[(adata.obs["condition"] == "case").to_numpy(), :2] = 12.0
    adata.X = sp.csr_matrix(rng.poisson(rate).astype(np.float32))
    return adata


def fit(adata, *, build=None, labels_key="condition", setup=None, **train):
    sst.PaSCient.setup_anndata(adata, "sample", labels_key=labels_key, **(setup or {}))
    model = sst.PaSCient(adata, **{**SMALL, **(build or {})})
    model.train(**{**FIT, **train})
    return model


@pytest.fixture(scope="module")
def trained():
    return fit(counts_cohort(), build={"log_normalize": True}, max_epochs=40, plan_kwargs={"lr": 5e-3})


# ---- targets and predictions


def test_an_easy_label_is_learned_and_predicted_for_new_samples(trained):
    new = counts_cohort(seed=7, prefix="new")
    truth = new.obs.groupby("sample", observed=True)["condition"].first().astype(str)
    predicted = trained.predict(new)
    assert list(predicted.columns) == ["condition"]
    assert (predicted["condition"] == truth[predicted.index]).all()
    p = trained.predict_proba(new)
    assert list(p.columns) == ["case", "control"]
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert (p.idxmax(axis=1) == predicted["condition"]).all()
    some = trained.predict_proba(new, samples=["new03", "new01"])
    np.testing.assert_allclose(some, p.loc[["new03", "new01"]], atol=1e-5)


def test_evaluation_is_that_of_sklearn_over_draws(trained):
    new = counts_cohort(seed=7, prefix="new")
    table = trained.evaluate(new, n_cells=5, n_draws=3)
    assert {"f1_weighted", "accuracy", "balanced_accuracy", "auroc"} <= set(table.index)
    truth = new.obs.groupby("sample", observed=True)["condition"].first().astype(str)
    by_hand = []
    for seed in range(3):
        p = trained.predict_proba(new, n_cells=5, batch_size=4, seed=seed)
        by_hand.append(f1_score(truth[p.index], p.idxmax(axis=1), average="weighted"))
    assert table.loc["f1_weighted", "mean"] == pytest.approx(np.mean(by_hand))
    assert table.loc["f1_weighted", "sd"] == pytest.approx(np.std(by_hand, ddof=1))
    assert trained.evaluate(new, n_cells=None)["sd"].eq(0.0).all()


def test_several_targets_and_unlabelled_samples():
    adata = counts_cohort()
    level = {"s00": "low", "s01": "mid", "s02": "high", "s03": "low", "s04": "mid", "s05": "high", "s06": np.nan}
    adata.obs["stage"] = pd.Categorical(
        adata.obs["sample"].astype(str).map(level), categories=["low", "mid", "high"], ordered=True
    )
    adata.obs["condition"] = adata.obs["condition"].where(adata.obs["sample"] != "s02")
    model = fit(adata, labels_key=["condition", "stage", "age"], build={"log_normalize": True}, train_size=1.0)
    assert [(t.name, t.kind) for t in model.module.targets] == [
        ("condition", "class"),
        ("stage", "ordinal"),
        ("age", "continuous"),
    ]
    assert model.module.targets[1].classes == ("low", "mid", "high")
    assert {"cross_entropy_condition_train", "accuracy_stage_train", "error_age_train"} <= set(model.history)
    predicted = model.predict()
    assert predicted.shape == (8, 3)
    assert predicted["age"].dtype.kind == "f"
    p = model.predict_proba(label_key="stage")
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-4)
    # the loss of a batch is the sum over targets of the mean over its labelled samples
    batch = model._dataset(adata)[0, list(range(8))]
    module = model.module.eval()
    z = module.represent(batch)
    total = 0.0
    for target, head in zip(module.targets, module.heads, strict=True):
        y = batch.labels[target.registry_key]
        known = ~y.isnan() if target.kind == "continuous" else y >= 0
        assert int(known.sum()) == {"condition": 7, "stage": 6, "age": 8}[target.name]
        each = [head.loss(head(z[i : i + 1]), y[i : i + 1]) for i in torch.nonzero(known).ravel().tolist()]
        total += float(torch.stack(each).mean().detach())
    assert float(module.loss(batch).loss.detach()) == pytest.approx(total, rel=1e-4)


def test_ordinal_probabilities_are_those_of_proportional_odds():
    from scset_tools.model.supervise._heads import OrdinalHead

    torch.manual_seed(0)
    head = OrdinalHead(3, tuple("abcd"))
    z = torch.randn(5, 3)
    score = head.scores(z)[:, 0].tolist()
    cut = head.thresholds.tolist()
    assert cut == sorted(cut)
    p = head.predictions(z).tolist()
    for i, s in enumerate(score):
        above = [1.0, *(1 / (1 + np.exp(-(s - c))) for c in cut), 0.0]
        np.testing.assert_allclose(p[i], -np.diff(above), atol=1e-6)


def test_a_batch_without_labels_has_a_zero_loss_with_gradients():
    adata = counts_cohort()
    sst.PaSCient.setup_anndata(adata, "sample", labels_key="condition")
    model = sst.PaSCient(adata, **SMALL, log_normalize=True)
    batch = model._dataset(adata)[0, [0, 1]]
    batch.labels["labels"][:] = -1
    out = model.module.loss(batch)
    out.loss.backward()
    assert float(out.loss.detach()) == 0
    assert all(p.grad is not None for p in model.module.parameters())


def test_kinds_can_be_named_and_survive_saving(tmp_path):
    adata = counts_cohort()
    model = fit(adata, labels_key={"condition": "class", "age": "continuous"}, build={"log_normalize": True})
    model.save(tmp_path / "m")
    bare = counts_cohort()
    del bare.obs["condition"], bare.obs["age"]
    loaded = sst.PaSCient.load(tmp_path / "m", adata=bare)
    pd.testing.assert_frame_equal(loaded.predict(), model.predict())
    with pytest.raises(ValueError, match="has the kind 'classes' for 'condition'"):
        sst.PaSCient.setup_anndata(adata, "sample", labels_key={"condition": "classes"})


# ---- sparse input


@pytest.mark.parametrize("options", [{}, {"depth": (5, 9), "gene_mask_rate": 0.2}], ids=["plain", "augmented"])
def test_sparse_counts_reach_the_first_layer_and_train_as_dense_ones(options):
    sparse = counts_cohort()
    dense = counts_cohort()
    dense.X = dense.X.toarray()
    build = {"log_normalize": True, **options}
    a, b = fit(sparse, build=build), fit(dense, build=build)
    batch = a._dataset(sparse)[0, [0, 1]]
    assert isinstance(batch.x, SparseRows)
    assert isinstance(a.module.features(batch.x), SparseRows)
    for (name, p), q in zip(a.module.named_parameters(), b.module.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4, msg=name)


def test_augmentation_stops_after_training():
    adata = counts_cohort()
    model = fit(adata, build={"log_normalize": True, "gene_mask_rate": 0.5})
    batch = model._dataset(adata)[0, [0, 1]]
    plain = model.module.features(batch.x).values
    assert torch.equal(model.module.eval().augmented(batch).values, plain)
    assert not torch.equal(model.module.train().augmented(batch).values, plain)


def test_the_contrastive_term_is_that_of_the_drawn_cells():
    adata = counts_cohort()
    model = fit(
        adata,
        build={"log_normalize": True, "contrastive_weight": 0.5, "n_contrastive_cells": 20},
        setup={"cell_type_key": "cell_type"},
    )
    assert len(model.history["contrastive_train"]) == 2
    batch = model._dataset(adata)[0, [0, 1]]
    h = model.module.encode_cells(model.module.features(batch.x))
    value = model.module._contrastive_loss(h, batch)
    one = model._dataset(adata)[0, [1]]
    alone = model.module.encode_cells(model.module.features(one.x))
    assert torch.isfinite(value)
    assert alone.shape == h[batch.ptr[1] :].shape
    total = model.module.loss(batch)
    expected = total.extra_metrics["cross_entropy"] + 0.5 * total.extra_metrics["contrastive"]
    torch.testing.assert_close(total.loss, expected)
    new = counts_cohort(3, seed=5, prefix="new")
    del new.obs["cell_type"]
    assert model.predict(new).shape == (3, 1)


# ---- genes of new data


def test_genes_are_aligned_by_name_and_missing_ones_reported(trained):
    new = counts_cohort(seed=7, prefix="new")
    want = trained.predict_proba(new)
    order = np.random.default_rng(0).permutation(8)
    reordered = new[:, order].copy()
    x = reordered.X
    np.testing.assert_allclose(trained.predict_proba(reordered), want, rtol=1e-5)
    assert reordered.X is x
    more = ad.concat([new, ad.AnnData(sp.csr_matrix(np.ones((new.n_obs, 2), np.float32)), obs=new.obs[[]])], axis=1)
    more.var_names = [*new.var_names, "other_a", "other_b"]
    more.obs = new.obs
    np.testing.assert_allclose(trained.predict_proba(more[:, ::-1].copy()), want, rtol=1e-5)
    zero = new.copy()
    zero.X = sp.csr_matrix(zero.X.toarray() * (np.arange(8) != 3))
    with pytest.warns(UserWarning, match=r"1 of the model's 8 genes are not in adata.var_names .* Coverage: 87.5%"):
        fewer = trained.predict_proba(new[:, [0, 1, 2, 4, 5, 6, 7]].copy())
    np.testing.assert_allclose(fewer, trained.predict_proba(zero), rtol=1e-5)


def test_genes_named_twice_or_not_at_all_are_refused(trained):
    new = counts_cohort(seed=7, prefix="new")
    twice = new.copy()
    twice.var_names = ["marker_0", *new.var_names[:-1]]
    with pytest.raises(ValueError, match=r"has 1 names more than once .*var_names_make_unique"):
        trained.predict(twice)
    with pytest.raises(ValueError, match="has 1 names more than once"):
        sst.PaSCient.setup_anndata(twice, "sample")
    other = new.copy()
    other.var_names = [f"ENSG{i}" for i in range(8)]
    with pytest.raises(ValueError, match=r"None of the model's 8 genes are in adata.var_names"):
        trained.predict(other)


# ---- refusals


def test_one_class_is_refused():
    adata = counts_cohort()
    adata.obs["condition"] = "case"
    with pytest.raises(ValueError, match=r"has one value only .'case'.*needs at least two classes"):
        sst.PaSCient.setup_anndata(adata, "sample", labels_key="condition")


def test_a_class_without_training_samples_is_refused():
    adata = counts_cohort()
    study_of_case = adata.obs["condition"].map({"case": "a", "control": "b"})
    adata.obs["study"] = study_of_case.astype("category")
    with pytest.raises(ValueError, match=r"1 of 2 classes of 'condition' have no training sample after the split"):
        fit(adata, build={"log_normalize": True}, groups_key="study", train_size=0.5)


def test_nothing_to_learn_from_is_refused():
    adata = counts_cohort()
    sst.PaSCient.setup_anndata(adata, "sample")
    model = sst.PaSCient(adata, **SMALL, log_normalize=True)
    with pytest.raises(ValueError, match="nothing to learn from: give `labels_key`"):
        model.train(**FIT)
    with pytest.raises(ValueError, match="predicts nothing yet: call finetune"):
        model.predict()


def test_negative_counts_are_refused_and_raw_counts_warned_of():
    negative = make_cohort()
    negative.X = negative.X - 2
    sst.PaSCient.setup_anndata(negative, "sample", labels_key="condition")
    with pytest.raises(ValueError, match=r"takes adata.X for counts, but it has negative values"):
        sst.PaSCient(negative, **SMALL, log_normalize=True)
    sst.PaSCient(negative, **SMALL)  # transformed values are taken as they are
    raw = counts_cohort()
    raw.X = raw.X * 3
    sst.PaSCient.setup_anndata(raw, "sample", labels_key="condition")
    with pytest.warns(UserWarning, match="looks like raw counts .*log_normalize=True.*log1p") as caught:
        sst.PaSCient(raw, **SMALL)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sst.PaSCient(raw, **SMALL, log_normalize=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"aggregator": "max"}, "aggregator='max' is not one of"),
        ({"depth": (10, 20)}, "thins counts"),
        ({"depth": (20, 10), "log_normalize": True}, "thins counts"),
        ({"init_scale": 0.0}, "init_scale=0.0 must be a finite number above 0"),
        ({"gene_mask_rate": 1.0}, "gene_mask_rate=1.0 must be a number of 0 or more and below 1"),
        ({"contrastive_weight": 0.1}, "give `cell_type_key` to setup_anndata"),
    ],
)
def test_arguments_are_checked(arguments, message):
    adata = make_cohort()
    sst.PaSCient.setup_anndata(adata, "sample", labels_key="condition")
    with pytest.raises(ValueError, match=message):
        sst.PaSCient(adata, **{**SMALL, **arguments})


def test_correcting_twice_is_warned_of():
    with pytest.warns(UserWarning, match="both correct for rare classes"):
        fit(counts_cohort(), build={"log_normalize": True}, class_weight="balanced", resampling="oversample_label")


def test_class_weights_are_those_of_the_training_samples():
    adata = counts_cohort()
    names = [["s00", "s02", "s04", "s01"], ["s03"]]
    model = fit(adata, build={"log_normalize": True}, class_weight="balanced", external_indexing=names)
    # one case and three controls among the training samples: n / (2 n_c)
    np.testing.assert_allclose(model.module.heads[0].class_weight, [4 / 2, 4 / 6], rtol=1e-6)
    again = fit(adata, build={"log_normalize": True}, external_indexing=names)
    assert again.module.heads[0].class_weight.tolist() == [1.0, 1.0]


def test_presets():
    paper = sst.PaSCient.preset("paper")
    assert (paper.model["n_hidden"], paper.model["n_latent"], paper.model["aggregator"]) == (1024, 512, "attention")
    assert (paper.train["batch_size"], paper.train["n_cells"]) == (32, 1_500)
    assert paper.train["resampling"] == "rake_label_and_tissue"
    assert (paper.train["max_epochs"], paper.train["keep_best"]) == (4, True)
    assert sst.PaSCient.preset("paper_binary").model["aggregator"] == "feature_softmax"
    with pytest.raises(ValueError, match="name='large' is not one of"):
        sst.PaSCient.preset("large")


# ---- location and scale of the features


@pytest.mark.parametrize("log_normalize", [True, False])
def test_the_first_layer_reads_features_about_the_mean_of_the_training_cells(log_normalize):
    adata = counts_cohort()
    dense = adata.X.toarray().astype(float)
    if log_normalize:
        dense = np.log1p(dense / dense.sum(axis=1, keepdims=True) * 1e4)
    else:
        adata.X = sp.csr_matrix(adata.X.toarray() / 7)
        dense = dense / 7
    model = fit(adata, build={"log_normalize": log_normalize}, train_size=0.75, max_epochs=1)
    is_train = adata.obs["sample"].isin(model.train_samples_).to_numpy()
    assert 0 < is_train.sum() < len(is_train)
    first = model.module.first
    np.testing.assert_allclose(first.location, dense[is_train].mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(first.scale, np.sqrt(dense[is_train].var(axis=0).mean()), rtol=1e-4)
    before = first.location.clone()
    model.train(1, **{**{k: v for k, v in FIT.items() if k != "max_epochs"}, "seed": 5, "train_size": 0.5})
    torch.testing.assert_close(model.module.first.location, before)  # weights were learned with it


def test_features_as_they_are_on_request():
    first = fit(counts_cohort(), build={"log_normalize": True, "standardize": False}, max_epochs=1).module.first
    assert not first.location.any()
    assert (first.scale == 1).all()

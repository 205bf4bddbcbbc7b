"""Heads of PaSCient: losses against closed forms, decisions, weights of classes, and what is logged of unlabelled samples."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from _cohort import FIT, make_cohort
from anndata import AnnData
from scipy.special import expit
from torch.nn import functional as F

import scset_tools as sst
from scset_tools.model.pascient._predict import decided
from scset_tools.model.pascient._targets import ClassHead, OrdinalHead, Target


def ordinal(n_classes: int, scores: list[float]) -> tuple[OrdinalHead, torch.Tensor]:
    head = OrdinalHead(1, n_classes)
    head.linear.weight.data.fill_(1.0)
    head.linear.bias.data.zero_()
    return head, torch.tensor(scores)[:, None].requires_grad_()


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_all_levels_are_as_probable_at_first_and_each_can_be_decided(n_classes: int) -> None:
    head, z = ordinal(n_classes, np.linspace(-6, 6, 101).tolist())
    assert torch.allclose(head.probabilities(torch.zeros(1, 1)), torch.full((1, n_classes), 1 / n_classes), atol=1e-6)
    names = tuple("abcde"[:n_classes])
    p = pd.DataFrame(head.probabilities(z).detach().numpy(), columns=list(names))
    got = decided(p, Target("y", "ordinal", "y", names))
    below = (z.detach().numpy() > head.thresholds.detach().numpy()).sum(1)  # thresholds below the score
    assert got.tolist() == [names[k] for k in below]
    assert set(got) == set(names)


def test_the_median_of_probabilities_is_decided() -> None:
    p = pd.DataFrame([[0.4, 0.25, 0.35], [0.5, 0.0, 0.5], [0.1, 0.2, 0.7 - 1e-7]], columns=list("abc"))
    assert decided(p, Target("y", "ordinal", "y", ("a", "b", "c"))).tolist() == ["b", "a", "c"]
    assert decided(p, Target("y", "class", "y", ("a", "b", "c"))).tolist() == ["a", "a", "c"]


@pytest.mark.parametrize("n_classes", [2, 4])
def test_ordinal_loss_is_that_of_the_formula(n_classes: int) -> None:
    head, z = ordinal(n_classes, [-3.0, -0.2, 0.0, 1.5, 4.0])
    y = torch.tensor([0, 1, 1, n_classes - 1, 0])
    loss, accuracy = (v.detach() for v in head.loss(z, y))
    theta = head.thresholds.detach().double().numpy()
    above = np.column_stack([np.ones(5), expit(z.detach().double().numpy() - theta), np.zeros(5)])
    p = -np.diff(above, axis=1)
    assert float(loss) == pytest.approx(-np.log(p[np.arange(5), y.numpy()]).mean(), rel=1e-5)
    assert float(accuracy) == pytest.approx(np.mean((z.detach().numpy() > theta).sum(1) == y.numpy()))


@pytest.mark.parametrize(("level", "score"), [(0, 60.0), (1, 60.0), (2, -60.0), (1, -60.0)])
def test_ordinal_loss_does_not_saturate(level: int, score: float) -> None:
    """Far on the wrong side -log p grows as the distance to the threshold, and the gradient is 1."""
    head, z = ordinal(3, [score])
    loss, _ = head.loss(z, torch.tensor([level]))
    loss.backward()
    low, high = head.thresholds.detach().double()
    theta = high if (level, score > 0) in ((1, True), (2, False)) else low
    inside = -torch.log(-torch.expm1(low - high)) if level == 1 else 0.0
    assert float(loss.detach()) == pytest.approx(float(F.softplus((score - theta).abs()) + inside), rel=1e-5)
    assert abs(z.grad.item()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("head", [ClassHead(3, 2), OrdinalHead(3, 3)], ids=["class", "ordinal"])
def test_weights_of_classes_act_in_batches_of_one_class(head: torch.nn.Module) -> None:
    codes = np.array([0] * 6 + [1] * 2)
    z = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    head.prepare(codes, balance=False)
    plain = [float(head.loss(z[i : i + 1], torch.from_numpy(codes[i : i + 1]))[0].detach()) for i in range(8)]
    head.prepare(codes, balance=True)
    weight = head.class_weight.numpy()[codes]
    assert weight.mean() == pytest.approx(8 / 8 * 2 / len(head.class_weight))  # over classes that are there
    for i in range(8):
        loss = float(head.loss(z[i : i + 1], torch.from_numpy(codes[i : i + 1]))[0].detach())
        assert loss == pytest.approx(weight[i] * plain[i], rel=1e-5)
    assert float(head.loss(z, torch.from_numpy(codes))[0].detach()) == pytest.approx(np.mean(weight * plain), rel=1e-5)


# --- in training -------------------------------------------------------------------------------------------------------


NAMES = [f"s{i:02d}" for i in range(8)]


def cohort_of(labels: dict[str, object]) -> AnnData:
    adata = make_cohort()
    adata.obs["y"] = adata.obs["sample"].astype(str).map(labels)
    return adata


def fitted(labels: dict[str, object], *, train: dict | None = None) -> sst.PaSCient:
    adata = cohort_of(labels)
    sst.PaSCient.setup_anndata(adata, "sample", labels_key="y")
    model = sst.PaSCient(adata, n_hidden=8, n_latent=4, random_state=0)
    model.train(**{**FIT, "train_size": 1.0, **(train or {})})
    return model


HALF = dict(zip(NAMES, ["a", "b", "a", "b", None, None, None, None], strict=True))
SPLIT = {"train_size": None, "external_indexing": [NAMES[:4], NAMES[4:]], "max_epochs": 3}


def test_loss_of_unlabelled_validation_is_missing_not_zero() -> None:
    history = fitted(HALF, train=SPLIT).history
    assert history["loss_validation"].isna().all().all()
    assert history["loss_train"].notna().all().all()


@pytest.mark.parametrize(
    "watcher",
    [
        {"early_stopping": True},
        {"enable_checkpointing": True},
        {"plan_kwargs": {"lr_schedule": "plateau"}},
    ],
    ids=["stop", "best", "plateau"],
)
def test_nothing_may_watch_a_validation_loss_that_nobody_has(watcher: dict) -> None:
    with pytest.raises(
        ValueError, match=r"watches 'loss_validation', but none of the 4 validation samples has a label"
    ):
        fitted(HALF, train={**SPLIT, **watcher})


def test_logged_losses_are_means_over_labelled_samples() -> None:
    """One labelled sample in the first validation batch and none in the second: the mean is that sample's loss."""
    labels = {**HALF, "s04": "b"}
    model = fitted(labels, train={**SPLIT, "max_epochs": 1, "batch_size": 2, "n_cells": None})
    p = model.predict_proba(samples=["s04"])["b"].iloc[0]
    assert float(model.history["loss_validation"].iloc[-1, 0]) == pytest.approx(-np.log(p), rel=1e-4)


@pytest.mark.parametrize("scale", [1e3, 1e-4])
def test_features_of_a_scale_that_is_not_learned_from_are_named(scale: float) -> None:
    adata = cohort_of(dict(zip(NAMES, "abababab", strict=True)))
    sst.PaSCient.setup_anndata(adata, "sample", labels_key="y")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sst.PaSCient(adata, n_hidden=8, n_latent=4)
    adata.X = adata.X * scale
    sst.PaSCient.setup_anndata(adata, "sample", labels_key="y")
    with pytest.warns(UserWarning, match=r"size from which little is learned.*scanpy.pp.scale"):
        sst.PaSCient(adata, n_hidden=8, n_latent=4)


def test_half_precision_normalises_counts_by_their_whole_total() -> None:
    from scset_tools.data._sparse import SparseRows

    counts = torch.ones(1, 3000)
    counts[0, 0] = 96.0
    module = fitted(dict(zip(NAMES, "abababab", strict=True)), train={"max_epochs": 1}).module
    module.log_normalize = True
    right = torch.log1p(counts / counts.sum() * 1e4)
    for x in (counts.bfloat16(), SparseRows.from_dense(counts.bfloat16())):
        got = module.features(x)
        got = got.values if isinstance(got, SparseRows) else got.ravel()
        assert got.dtype == torch.bfloat16
        assert torch.allclose(got.float(), right.ravel(), rtol=1e-2)

"""Labels of PaSCient: what is decided, and what is logged of unlabelled samples."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from _cohort import FIT, make_cohort
from anndata import AnnData

import scset_tools as sst
from scset_tools.model.supervise._predict import decided
from scset_tools.model.supervise._targets import Target


def test_the_median_of_probabilities_is_decided() -> None:
    p = np.array([[0.4, 0.25, 0.35], [0.5, 0.0, 0.5], [0.1, 0.2, 0.7 - 1e-7]])
    assert decided(p, Target("y", "ordinal", "y", ("a", "b", "c"))).tolist() == ["b", "a", "c"]
    assert decided(p, Target("y", "class", "y", ("a", "b", "c"))).tolist() == ["a", "a", "c"]


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

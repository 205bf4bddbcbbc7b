"""Labels of PaSCient: what is decided, and what is logged of unlabelled samples."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
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


# --- times to an event -------------------------------------------------------------------------------------------------


def survivors() -> AnnData:
    """Sixteen samples of which the hazard grows with the first marker; of every fourth the event was not seen."""
    adata = make_cohort(16)
    number = adata.obs["sample"].astype(str).str[-2:].astype(int)
    adata.X[:, 0] += 0.4 * number.to_numpy(dtype=np.float32)
    adata.obs["months"] = 40.0 - 2 * number
    adata.obs["died"] = (number % 4 > 0).map({True: "True", False: "False"})
    adata.obs.loc[number == 15, "months"] = np.nan
    return adata


@pytest.mark.parametrize("key", ["died", {"months": "died"}], ids=["for all", "by column"])
def test_a_time_to_an_event_is_learned_by_train(key: object, tmp_path: Path) -> None:
    adata = survivors()
    sst.PaSCient.setup_anndata(adata, "sample", labels_key="months", event_key=key)
    model = sst.PaSCient(adata, n_hidden=8, n_latent=4, random_state=0)
    model.train(**{**FIT, "train_size": 1.0, "max_epochs": 60, "batch_size": 16})
    assert model.heads["months"].kind == "time_to_event"
    assert "concordance_train" in model.history
    with pytest.warns(UserWarning, match="15 of 15 samples were trained on"):
        assert model.evaluate().loc["concordance", "mean"] > 0.9
    survival = model.predict_proba()
    assert list(survival.columns) == sorted(set(adata.obs["months"][adata.obs["died"] == "True"].dropna()))
    assert (survival.diff(axis=1).iloc[:, 1:] <= 0).all(axis=None)
    model.save(tmp_path / "m")
    loaded = sst.PaSCient.load(tmp_path / "m", adata=False)
    new = make_cohort(3, prefix="new")  # without either column
    pd.testing.assert_frame_equal(loaded.predict_proba(new), model.predict_proba(new))


def test_a_time_needs_its_event() -> None:
    adata = survivors()
    with pytest.raises(ValueError, match=r"'months' is a time to an event: name the column .* event_key='...'"):
        sst.PaSCient.setup_anndata(adata, "sample", labels_key={"months": "time_to_event"})
    adata.obs["died"] = "perhaps"
    with pytest.raises(ValueError, match=r"obs\['died'\] must hold True/1"):
        sst.PaSCient.setup_anndata(adata, "sample", labels_key="months", event_key="died")


def test_what_the_set_up_says_of_labels_is_what_fine_tuning_learns() -> None:
    adata = survivors()
    sst.MAESTRO.setup_anndata(adata, "sample", labels_key="months", event_key="died")
    model = sst.MAESTRO(adata, n_hidden=8, n_latent=4, n_inducing=2, n_tokens=0, random_state=0)
    with pytest.warns(UserWarning, match="is not trained"):
        model.finetune(penalty=1.0)
    assert {name: one.kind for name, one in model.heads.items()} == {"months": "time_to_event"}

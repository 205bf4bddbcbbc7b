"""``train`` of every model shows its arguments, describes them, and hands them on."""

from __future__ import annotations

import inspect
import re

import pytest
from _cohort import make_cohort
from test_contract import MODELS

import scset_tools as sst

NEEDED = {
    "max_epochs",
    "accelerator",
    "devices",
    "batch_size",
    "n_cells",
    "train_size",
    "validation_size",
    "groups_key",
    "stratify",
    "external_indexing",
    "early_stopping",
    "stop_at_plateau",
    "gradient_clip_val",
    "checkpoint_dir",
    "seed",
    "plan_kwargs",
    "datasplitter_kwargs",
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("method", ["train", "setup_anndata"])
def test_arguments_are_shown_and_described_once(kind, method):
    function = getattr(MODELS[kind][0], method)
    parameters = inspect.signature(function).parameters
    assert parameters.keys() >= (NEEDED if method == "train" else {"labels_key", "event_key", "batch_key", "use_rep"})
    open_ended = [p.name for p in parameters.values() if p.kind is p.VAR_KEYWORD]
    assert open_ended == (["trainer_kwargs"] if method == "train" else ["kwargs"])
    section = inspect.getdoc(function).split("----------\n", 1)[1].split("\n\n")[0]
    described = [name.lstrip("*") for line in re.findall(r"^\S.*$", section, re.MULTILINE) for name in line.split(", ")]
    assert sorted(described) == sorted(set(described))
    assert set(described) == set(parameters) - {"self", "cls"}


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_shown_arrives(kind, monkeypatch):
    """The defaults that the signature shows are those of the training, and what is given takes their place."""
    cls, build = MODELS[kind]
    adata = make_cohort()
    labels = {"labels_key": "condition"} if kind == "pascient" else {}
    cls.setup_anndata(adata, "sample", **labels)
    model = cls(adata, **build)
    seen = {}
    monkeypatch.setattr("scset_tools.model._base.run_training", lambda model, **given: seen.update(given))
    monkeypatch.setattr(sst.SelfGuidedMAE, "_warn_of_even_masks", lambda self: None)
    shown = {name: p.default for name, p in inspect.signature(cls.train).parameters.items()}
    model.train()
    assert seen["splitter_kwargs"]["batch_size"] == shown["batch_size"]
    assert seen["trainer_kwargs"]["gradient_clip_val"] == shown["gradient_clip_val"]
    model.train(3, groups_key="study", seed=5, early_stopping=True, n_cells=30, gradient_clip_val=0.5)
    assert seen["max_epochs"] == 3
    assert seen["early_stopping"]
    assert {k: seen["splitter_kwargs"][k] for k in ("groups_key", "seed", "n_cells")} == {
        "groups_key": "study",
        "seed": 5,
        "n_cells": 30,
    }
    assert seen["trainer_kwargs"]["gradient_clip_val"] == 0.5

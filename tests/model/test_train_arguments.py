"""``train`` of every model shows its arguments, describes them, and hands them on."""

from __future__ import annotations

import inspect
import re

import pytest
import torch
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


# ---- what nobody takes


@pytest.fixture(scope="module", params=MODELS, ids=str)
def made(request):
    cls, build = MODELS[request.param]
    adata = make_cohort()
    cls.setup_anndata(adata, "sample", labels_key="condition")
    return cls(adata, **build)


def of_train(**given):
    return lambda model: model.train(**given)


def of_profile(**given):
    return lambda model: sst.model.ModelProfile(type(model), sample_key="sample", **given)


def of_setup(**given):
    return lambda model: type(model).setup_anndata(model.adata, "sample", **given)


def of_mudata(**given):
    """The cells are looked at after the arguments."""
    return lambda model: type(model).setup_mudata(None, "sample", modality="rna", **given)


WRONG = {
    "set-up": (of_setup(label_key="condition"), "setup_anndata has no argument 'label_key'.*'labels_key'"),
    "set-up of a MuData": (of_mudata(label_key="condition"), "setup_mudata has no argument 'label_key'.*'labels_key'"),
    "set-up, elsewhere": (of_setup(random_state=1), r"'random_state' is an argument of \w+\(adata"),
    "train": (of_train(max_epoch=1), "train has no argument 'max_epoch'.*'max_epochs'"),
    "train, elsewhere": (of_train(lr=0.1), r"train has no argument 'lr'. 'lr' is an argument of plan_kwargs=\{"),
    "train, set-up": (of_train(use_rep="X"), r"'use_rep' is an argument of \w+.setup_anndata"),
    "trainer": (of_train(early_stopping_patienc=3), "'early_stopping_patience'"),
    "two": (of_train(max_epoch=1, devises=1), "no arguments 'max_epoch', 'devises'.*'max_epochs'.*'devices'"),
    "called otherwise": (of_train(use_gpu=True, epochs=3), r"mean 'accelerator'\?.*mean 'max_epochs'\?"),
    "called otherwise, elsewhere": (of_train(learning_rate=1), r"did you mean 'lr' of plan_kwargs=\{...\}\?"),
    "far from all": (of_train(qqqqqq=1), r"no argument 'qqqqqq'. There are \['max_epochs'"),
    "plan": (of_train(plan_kwargs={"weight_decai": 0}), "plan_kwargs of .*'weight_decai'.*'weight_decay'"),
    "plan, elsewhere": (of_train(plan_kwargs={"batch_size": 4}), "'batch_size' is an argument of .*train"),
    "splitter": (of_train(datasplitter_kwargs={"num_worker": 1}), "datasplitter_kwargs of .*'num_workers'"),
    "splitter's own": (of_train(datasplitter_kwargs={"shuffle": True}), "has no argument 'shuffle'"),
    "finetune": (lambda m: m.finetune("condition", learning_rat=1), "finetune has no argument 'learning_rat'"),
    "finetune, plan": (lambda m: m.finetune("condition", plan_kwargs={"lr_backbon": 0}), "'lr_backbone'"),
    "profile, set-up": (of_profile(setup={"label_key": "condition"}), "'labels_key'"),
    "profile, constructor": (of_profile(build={"n_hiden": 8}), r"\(adata, ...\) has no argument 'n_hiden'.*'n_hidden'"),
    "profile, elsewhere": (of_profile(build={"max_epochs": 8}), r"'max_epochs' is an argument of train=\{"),
    "profile, train": (of_profile(train={"plan_kwargs": {"weight_decai": 1}}), "'weight_decay'"),
    "profile, finetune": (of_profile(finetune={"a": {"mod": "frozen"}}), "finetune has no argument 'mod'.*'mode'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_argument_that_nobody_takes_is_named_before_any_work(made, case):
    call, message = WRONG[case]
    before = {k: v.clone() for k, v in made.module.state_dict().items()}
    with pytest.raises(TypeError, match=message):
        call(made)
    assert not made.is_trained_
    assert made.heads.keys() <= set(made._own_heads())
    assert all(torch.equal(v, before[k]) for k, v in made.module.state_dict().items())


def test_an_override_that_hands_everything_on_takes_what_the_model_takes(made):
    class Mine(type(made)):
        def train(self, *args, **kwargs):
            super().train(*args, **kwargs)

        @classmethod
        def setup_anndata(cls, adata, *args, **kwargs):
            super().setup_anndata(adata, *args, **kwargs)

    setup, train = {"batch_key": "batch"}, {"max_epochs": 1, "plan_kwargs": {"lr": 1e-3}}
    assert sst.model.ModelProfile(Mine, sample_key="sample", setup=setup, train=train).train == train
    with pytest.raises(TypeError, match="'labels_key'"):
        Mine.setup_anndata(made.adata, "sample", label_key="condition")


def test_what_is_handed_on_is_taken(made):
    """Arguments of each of those that are handed some: the trainer of scvi-tools, Lightning's, the plan, the loader."""
    made_again = type(made)(made.adata, **MODELS[type(made).__name__.lower()][1])
    made_again.train(
        max_epochs=1,
        accelerator="cpu",
        enable_progress_bar=False,
        datamodule=None,
        early_stopping_patience=3,
        limit_train_batches=1,
        plan_kwargs={"lr": 1e-3, "compile": False},
        datasplitter_kwargs={"num_workers": 0, "read_ahead": False, "max_cells_per_batch": 500, "timeout": 0},
    )
    assert made_again.is_trained_
    type(made).setup_anndata(made.adata.copy(), "sample", source_registry=made.registry, extend_categories=True)

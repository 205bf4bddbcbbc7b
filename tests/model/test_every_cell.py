"""What each model can do, as the page on labels says: every cell of its table works, or is refused with the reason given."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from test_contract import FIT, MODELS
from test_contract_labels import KINDS, TUNE, labelled

import scset_tools as sst

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "user_guide" / "labels.md").read_text()
NAMES = {"MAESTRO": "maestro", "ScSet": "scset", "PaSCient": "pascient", "SelfGuidedMAE": "selfguidedmae"}
QUIET = {k: v for k, v in TUNE.items() if k != "event_key"}
NEW = {"n_cells": 10, "n_steps": 2, "tolerance": 1.0}


def made(kind, **setup):
    cls, build = MODELS[kind]
    adata = labelled()
    cls.setup_anndata(adata, "sample", **setup)
    return cls(adata, random_state=0, **build)


@pytest.fixture(scope="module")
def learned():
    """Each model fine-tuned to a label of each kind on frozen vectors; shared, not to be changed."""
    models = {}

    def get(kind):
        if kind not in models:
            models[kind] = made(kind)
            models[kind].is_trained_ = True
            models[kind].finetune(KINDS, penalty=1.0, **TUNE)
        return models[kind]

    return get


def in_train(kind, _):
    model = made(kind, labels_key=KINDS, event_key={"time": "event"})
    model.train(**{**FIT, "max_epochs": 1, "train_size": 1.0})
    assert set(model.heads) == set(KINDS), "train learns no labels"


def finetuned(mode, keys=KINDS, **arguments):
    def run(kind, _):
        model = made(kind)
        model.is_trained_ = True
        model.finetune(keys, mode=mode, **{**TUNE, "max_epochs": 1, "penalty": 1.0, **arguments})
        assert {one.mode for one in model.heads.values()} == {mode}

    return run


def of_cells(kind, _):
    model = made(kind)
    model.is_trained_ = True
    model.finetune("cell_type", level="cell", **QUIET)
    assert len(model.predict()) == model.adata.n_obs


def predicted(label):
    def run(kind, learned):
        assert learned(kind).predict(label_key=label)[label].notna().all()

    return run


def probabilities(label):
    def run(kind, learned):
        assert learned(kind).predict_proba(label_key=label).notna().all(axis=None)

    return run


def evaluated(label):
    def run(kind, learned):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # samples of training
            assert np.isfinite(learned(kind).evaluate(label_key=label)["mean"].iloc[0])

    return run


def attributed(**how):
    def run(kind, learned):
        found = learned(kind).get_attributions("condition", **NEW, groupby="cell_type", **how)
        assert found.head == how["head"]
        assert np.isfinite(found.features).all(axis=None)
        assert found.groups.shape == (2, 2)
        assert found.cells.notna().any(axis=None)

    return run


def to_a_kind(label):
    def run(kind, learned):
        assert np.isfinite(learned(kind).get_attributions(label, **NEW).values).all()

    return run


def attention(**build):
    def run(kind, _):
        cls, sizes = MODELS[kind]
        adata = labelled()
        cls.setup_anndata(adata, "sample")
        model = cls(adata, **{**sizes, **(build if kind == "selfguidedmae" else {})})
        model.is_trained_ = True
        assert np.allclose(model.get_attention().groupby(adata.obs["sample"].to_numpy()).sum(), 1, atol=1e-4)

    return run


def trusted(kind, _):
    cls, build = MODELS[kind]
    found = sst.model.trust_attributions(
        cls,
        labelled(),
        "condition",
        sample_key="sample",
        build=build,
        train={**FIT, "max_epochs": 1, "train_size": 1.0},
        finetune={"penalty": 1.0, "accelerator": "cpu"},
        attribute=NEW,
        n_seeds=2,
        n_permutations=3,
    )
    assert found.features["p_value"].between(0, 1).all()


ROWS = {
    "labels in `train`": in_train,
    "`finetune`, frozen": finetuned("frozen"),
    "`finetune`, partial": finetuned("partial"),
    "`finetune`, end to end": finetuned("end_to_end"),
    "`finetune`, an MLP": finetuned("frozen", head="mlp"),
    "labels of cells": of_cells,
    **{f"`predict`, {KINDS[label].replace('_', ' ')}": predicted(label) for label in KINDS},
    "`predict_proba`, class": probabilities("condition"),
    "`predict_proba`, ordinal": probabilities("stage"),
    "`predict_proba`, continuous": probabilities("age"),
    "`predict_proba`, time to event": probabilities("time"),
    **{f"`evaluate`, {KINDS[label].replace('_', ' ')}": evaluated(label) for label in KINDS},
    "attributions of the head, by feature, cell and group": attributed(head="finetuned"),
    "attributions of a probe, by feature, cell and group": attributed(head="probe"),
    **{f"attributions, {KINDS[label].replace('_', ' ')}": to_a_kind(label) for label in KINDS if label != "condition"},
    "attention": attention(),
    'attention, `sample_pooling="attention"`': attention(sample_pooling="attention"),
    "`trust_attributions`": trusted,
}


def page_table() -> dict[str, dict[str, str]]:
    """Rows of the table of the page: what, and what each model says to it."""
    text = PAGE.split("## What each model can do\n")[1].split("\n## ")[0]
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


TABLE = page_table()


def test_the_page_lists_every_row_and_model():
    assert list(TABLE) == list(ROWS)
    assert all(list(row) == list(NAMES) for row in TABLE.values())
    reasons = set(re.findall(r"no \((\d)\)", PAGE))
    assert reasons == set(re.findall(r"^(\d)\. ", PAGE.split("## What each model can do\n")[1], re.MULTILINE))


REFUSED = {
    "1": (AssertionError, "train learns no labels"),
    "2": (ValueError, "has vectors of samples, not of cells: level='cell' is for SelfGuidedMAE"),
    "3": (ValueError, "'age' is a number, which has no probabilities: use predict"),
    "4": (ValueError, "has no attention: "),
}


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("row", ROWS)
def test_every_cell_works_or_is_refused_with_its_reason(row, model, learned):
    says = TABLE[row][model]
    if says == "yes":
        ROWS[row](NAMES[model], learned)
        return
    error, match = REFUSED[re.fullmatch(r"no \((\d)\)", says)[1]]
    with pytest.raises(error, match=re.escape(match)):
        ROWS[row](NAMES[model], learned)

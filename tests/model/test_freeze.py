"""Parts of a network that are frozen stay as they are, in every model and every training."""

from __future__ import annotations

import pytest
import torch
from _cohort import FIT, make_cohort

import scset_tools as sst

MODELS = {
    "maestro": (sst.MAESTRO, {"n_hidden": 16, "n_latent": 6, "n_inducing": 4, "n_cells": 20, "n_heads": 2}, "block_1"),
    "scset": (sst.ScSet, {"n_hidden": 16, "n_latent": 6, "n_cells": 20, "n_heads": 2}, "encoder"),
    "pascient": (sst.PaSCient, {"n_hidden": 8, "n_latent": 4}, "sample_encoder"),
    "selfguided": (sst.SelfGuidedMAE, {"n_hidden": 16, "n_layers": 1, "n_heads": 2, "values": "normalized"}, "decoder"),
}


@pytest.fixture(params=MODELS, ids=str)
def made(request):
    cls, arguments, part = MODELS[request.param]
    adata = make_cohort()
    cls.setup_anndata(adata, "sample", labels_key="condition")
    return cls(adata, random_state=0, **arguments), part


def test_a_frozen_part_does_not_learn(made):
    model, part = made
    model.freeze([part])
    frozen = [p.clone() for p in model.module.named_parts()[part].parameters()]
    others = {n: [p.clone() for p in c.parameters()] for n, c in model.module.named_parts().items() if n != part}
    model.train(**{**FIT, "max_epochs": 1})
    for now, before in zip(model.module.named_parts()[part].parameters(), frozen, strict=True):
        assert torch.equal(now, before)
    moved = [
        n
        for n, before in others.items()
        if any(not torch.equal(p, b) for p, b in zip(model.module.named_parts()[n].parameters(), before, strict=True))
    ]
    assert moved
    model.freeze([])
    assert all(p.requires_grad for p in model.module.named_parts()[part].parameters())


def test_parts_that_there_are_not(made):
    model, part = made
    with pytest.raises(
        ValueError,
        match=rf"freeze=\['tail'\] must be a list of parts of {type(model).__name__}Module, which are .*'{part}'",
    ):
        model.freeze(["tail"])
    with pytest.raises(ValueError, match="leaves nothing to learn"):
        model.freeze(list(model.module.named_parts()))
    assert model.module.frozen == ()

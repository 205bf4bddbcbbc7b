"""Kinds of cells inside MAESTRO and ScSet: fitted once, in pieces as in one, and left out where they are not asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scset_tools as sst
from scset_tools.model import _tokens

SMALL = {
    sst.MAESTRO: {"n_hidden": 16, "n_latent": 8, "n_inducing": 4, "n_cells": 30},
    sst.ScSet: {"n_hidden": 16, "n_latent": 8, "n_cells": 30, "n_targets": 4},
}
QUICK = {"enable_progress_bar": False, "accelerator": "cpu", "seed": 0}


@pytest.fixture(scope="module", params=SMALL, ids=lambda cls: cls.__name__)
def trained(request):
    adata = sst.datasets.perturbation_cohort(n_samples=6, n_cells=(20, 50))
    cls = request.param
    cls.setup_anndata(adata, sample_key="sample")
    model = cls(adata, random_state=0, **SMALL[cls])
    model.train(max_epochs=2, **QUICK)
    return model


def test_kinds_are_fitted_to_the_training_samples_once_and_kept(trained):
    tokens = trained.module.tokens
    assert bool(tokens.is_fitted)
    assert float(tokens.log_weight.exp().sum()) == pytest.approx(1, abs=1e-5)
    before = {name: value.clone() for name, value in tokens.named_buffers()}
    trained.train(max_epochs=1, **QUICK)
    assert all(torch.equal(value, before[name]) for name, value in tokens.named_buffers())


def test_kinds_do_not_see_held_out_samples_or_the_order_of_rows_or_whether_cells_are_kept(trained, monkeypatch):
    adata, cls = trained.adata, type(trained)
    names = list(adata.obs["sample"].unique())
    buffers = []
    for change in ("none", "held-out cells", "order of rows", "read again"):
        changed = adata.copy()
        if change == "held-out cells":
            changed.X[(changed.obs["sample"] == names[-1]).to_numpy()] += 3.0
        elif change == "order of rows":
            changed = changed[np.random.default_rng(0).permutation(changed.n_obs)].copy()
        elif change == "read again":
            monkeypatch.setattr(_tokens, "KEPT_BYTES", 0)
        cls.setup_anndata(changed, sample_key="sample")
        model = cls(changed, random_state=0, standardize=False, **SMALL[cls])
        model.train(max_epochs=1, external_indexing=[names[:-1]], **QUICK)
        buffers.append(dict(model.module.tokens.named_buffers()))
    for other in buffers[1:]:
        for name, value in buffers[0].items():
            torch.testing.assert_close(other[name], value, atol=1e-5, rtol=1e-5)


def test_a_sample_in_pieces_has_the_vector_of_the_whole(trained):
    module = trained.module.eval()
    batch = trained._dataset(trained.adata)[0, [2]]

    def pieces():
        for rows in torch.arange(len(batch.x)).split(7):
            yield type(batch)(
                x=batch.x[rows],
                ptr=torch.tensor([0, len(rows)]),
                sample=batch.sample,
                seed=batch.seed,
                rows=batch.rows[rows],
                covariates={name: codes[rows] for name, codes in batch.covariates.items()},
            )

    with torch.no_grad():
        torch.testing.assert_close(module.represent_in_pieces(pieces), module.represent(batch), atol=1e-5, rtol=1e-5)


def test_without_tokens_there_is_no_trace_of_them(trained):
    cls = type(trained)
    model = cls(trained.adata, random_state=0, n_tokens=0, **SMALL[cls])
    assert model.module.tokens is None
    assert not any("tokens" in name for name in model.module.state_dict())


def test_fewer_cells_than_tokens_train(trained):
    cls, adata = type(trained), trained.adata
    fewest = 2 if cls is sst.ScSet else 1
    adata = adata[adata.obs.groupby("sample", observed=True).cumcount().to_numpy() < fewest].copy()
    cls.setup_anndata(adata, sample_key="sample")
    model = cls(adata, random_state=0, n_tokens=14, **SMALL[cls])
    model.train(max_epochs=1, **QUICK)
    assert np.isfinite(model.get_sample_representation().to_numpy()).all()


def test_negative_numbers_of_tokens_are_refused(trained):
    with pytest.raises(ValueError, match="n_tokens=-1"):
        type(trained)(trained.adata, n_tokens=-1, **SMALL[type(trained)])


def test_fine_tuning_fits_the_kinds_of_its_copy_and_leaves_the_model_alone(trained):
    adata, cls = trained.adata.copy(), type(trained)
    adata.obs["age"] = adata.obs["sample"].cat.codes.astype(float)
    cls.setup_anndata(adata, sample_key="sample")
    model = cls(adata, random_state=0, **SMALL[cls])
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    model.finetune("age", mode="end_to_end", max_epochs=1, **QUICK)
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
    (head,) = model.heads.values()
    assert bool(head.module.tokens.is_fitted)

"""The tokenizer inside MAESTRO: started once, in pieces as in one, and left out where it is not asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scset_tools as sst

SMALL = {"n_hidden": 16, "n_latent": 8, "n_inducing": 4, "n_cells": 30}
QUICK = {"enable_progress_bar": False, "accelerator": "cpu", "seed": 0}


@pytest.fixture(scope="module")
def trained():
    adata = sst.datasets.perturbation_cohort(n_samples=6, n_cells=(20, 50))
    sst.MAESTRO.setup_anndata(adata, sample_key="sample")
    model = sst.MAESTRO(adata, random_state=0, **SMALL)
    model.train(max_epochs=2, **QUICK)
    return model


def test_prototypes_start_from_the_cells_and_follow_them(trained):
    tokens = trained.module.tokens
    assert int(tokens.n_updates) == 2
    assert float(tokens.share.sum()) == pytest.approx(1, abs=1e-5)
    assert float(tokens.spread) < tokens.prototypes.shape[1]  # cells lie nearer to prototypes than to the origin


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
    model = sst.MAESTRO(trained.adata, random_state=0, n_tokens=0, **SMALL)
    assert model.module.tokens is None
    assert not any("tokens" in name for name in model.module.state_dict())


def test_fewer_cells_than_tokens_train(trained):
    adata = trained.adata[trained.adata.obs.groupby("sample", observed=True).cumcount().to_numpy() < 1].copy()
    sst.MAESTRO.setup_anndata(adata, sample_key="sample")
    model = sst.MAESTRO(adata, random_state=0, n_tokens=12, **SMALL)
    model.train(max_epochs=1, **QUICK)
    assert np.isfinite(model.get_sample_representation().to_numpy()).all()


def test_negative_numbers_of_tokens_are_refused(trained):
    with pytest.raises(ValueError, match="n_tokens=-1"):
        sst.MAESTRO(trained.adata, n_tokens=-1, **SMALL)

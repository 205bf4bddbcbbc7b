"""Cells live as long as a model or the user holds them, and no longer."""

from __future__ import annotations

import gc
import pickle
import weakref

import pytest
from _cohort import FIT, make_cohort

import scset_tools as sst

SMALL = {"n_hidden": 8, "n_latent": 4, "n_inducing": 2, "n_layers": 1, "n_cells": 20, "n_heads": 2, "random_state": 0}


def test_cells_go_with_the_model():
    adata = make_cohort()
    sst.MAESTRO.setup_anndata(adata, "sample")
    model = sst.MAESTRO(adata, **SMALL)
    model.train(**{**FIT, "max_epochs": 1})
    seen, stores = weakref.ref(adata), (sst.MAESTRO._setup_adata_manager_store, sst.MAESTRO._per_instance_manager_store)
    uuid, number = model.adata_manager.adata_uuid, model.id
    del adata
    gc.collect()
    assert seen() is model.adata
    del model
    gc.collect()
    assert seen() is None
    assert uuid not in stores[0]
    assert number not in stores[1]


def test_cells_that_were_set_up_and_dropped_are_gone():
    adata = make_cohort()
    sst.PaSCient.setup_anndata(adata, "sample", labels_key="condition")
    seen = weakref.ref(adata)
    del adata
    gc.collect()
    assert seen() is None


@pytest.mark.filterwarnings("ignore:.*is not trained")
def test_no_fold_of_a_benchmark_stays():
    before = len(sst.MAESTRO._setup_adata_manager_store)
    profile = sst.model.ModelProfile(sst.MAESTRO, sample_key="sample", build=SMALL)
    sst.tl.benchmark(
        make_cohort(), {"m": profile}, "condition", sample_key="sample", cv=2, n_repeats=2, tune=False, progress=False
    )
    gc.collect()
    assert len(sst.MAESTRO._setup_adata_manager_store) <= before


def test_a_manager_takes_its_cells_to_another_process():
    adata = make_cohort()
    sst.MAESTRO.setup_anndata(adata, "sample")
    manager = pickle.loads(pickle.dumps(sst.MAESTRO(adata, **SMALL).adata_manager))
    gc.collect()
    assert manager.adata.n_obs == adata.n_obs

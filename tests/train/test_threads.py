"""Torch is to compute with as many threads as were asked for."""

import warnings

import numpy as np
import pytest
import torch

import scset_tools as sst
from scset_tools.train._threads import warn_of_more_threads


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def warnings_of(call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return found


@pytest.mark.parametrize("asked", ["1", " 1", "1,4"])
def test_more_threads_than_asked_for_are_told(monkeypatch, two_threads, asked):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    with pytest.warns(UserWarning, match=r"2 threads, where OMP_NUM_THREADS=1: .*torch.set_num_threads\(1\)"):
        warn_of_more_threads()


@pytest.mark.parametrize("asked", ["2", "8", "", "many", None])
def test_as_many_as_asked_for_are_not(monkeypatch, two_threads, asked):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if asked is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert warnings_of(warn_of_more_threads) == []


def test_on_a_gpu_they_do_not_matter(monkeypatch, two_threads):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert warnings_of(warn_of_more_threads) == []


def test_training_tells(monkeypatch, two_threads):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    adata = sst.datasets.perturbation_cohort(n_samples=4, n_cells=20, rng=0)
    sst.ScSet.setup_anndata(adata, "sample")
    model = sst.ScSet(adata, n_latent=4, n_hidden=8, n_cells=8, n_targets=2)
    with pytest.warns(UserWarning, match="torch computes with 2 threads"):
        model.train(1, accelerator="cpu", enable_progress_bar=False)
    assert np.isfinite(model.get_sample_representation()).all(axis=None)

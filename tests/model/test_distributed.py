"""Two processes on the CPU share the training samples and agree on everything else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from _cohort import FIT, make_cohort

import scset_tools as sst
from scset_tools.model._processes import is_shared, shares_of

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> dict[str, list[dict]]:
    """What each rank saw, by run."""
    folder = tmp_path_factory.mktemp("ddp")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1] / "src"), str(HERE)])}
    command = [sys.executable, "-W", "ignore", str(HERE / "_ddp_script.py"), str(folder)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-4000:]
    return {
        run: [json.loads((folder / f"{run}.rank{rank}.json").read_text()) for rank in (0, 1)]
        for run in ("seeded", "unnamed", "three", "drawn", "stopped", "masks")
    }


def epochs(batches: list) -> dict[int, list[int]]:
    seen: dict[int, list[int]] = {}
    for epoch, samples in batches:
        seen.setdefault(epoch, []).extend(samples)
    return seen


@pytest.mark.parametrize("run", ["seeded", "unnamed", "three", "drawn", "stopped"])
def test_processes_agree_on_split_and_weights(reports, run):
    first, second = reports[run]
    assert first["world"] == second["world"] == 2
    assert first["weights"] == second["weights"]
    assert first["split"] == second["split"]
    assert first["positions"] == second["positions"]


@pytest.mark.parametrize("run", ["seeded", "unnamed", "three", "drawn"])
def test_each_training_sample_once_per_epoch_and_validation_everywhere(reports, run):
    first, second = reports[run]
    train, validation, _ = first["positions"]
    for epoch in range(first["n_epochs"]):
        a, b = epochs(first["train"])[epoch], epochs(second["train"])[epoch]
        assert sorted(a + b) == sorted(train)
        assert a
        assert b
        for report in (first, second):
            assert sorted(epochs(report["validation"])[epoch]) == sorted(validation)
    assert len(first["train"]) == len(second["train"])
    if run != "three":  # two samples on two processes: one each
        assert epochs(first["train"])[0] != epochs(first["train"])[1]


def test_history_has_one_row_per_epoch(reports):
    first, _ = reports["seeded"]
    assert len(first["history"]["loss_train"]) == len(first["history"]["loss_validation"]) == 2


def test_the_best_model_is_saved_once_and_loaded_everywhere(reports):
    first, second = reports["drawn"]
    assert first["best"] == second["best"]
    assert "best0" in first["best"]
    assert first["best_weights"] == first["weights"] == second["weights"]
    assert first["best_split"] == first["split"][0]


def test_masking_is_counted_over_all_processes(reports):
    first, second = reports["masks"]
    assert first["counts"] == second["counts"]
    assert first["counts"]["n_cells"] == 2 * first["n_cells"]
    assert first["counts"]["times_expressed"] == [2 * n for n in first["n_expressed"]]


def test_early_stopping_stops_all_processes(reports):
    first, second = reports["stopped"]
    assert first["n_epochs"] == second["n_epochs"] == 3  # nothing is learned: the first epoch and a patience of two


def run_alone_and_on_two_ranks(script, folder, *arguments, timeout):
    """A script, which writes what it finds into the folder, in one process and then in two."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1] / "src"), str(HERE)])}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for start in ([], torchrun):
        command = [sys.executable, "-W", "ignore", *start, str(HERE / script), str(folder), *arguments]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=timeout)
        assert done.returncode == 0, done.stderr[-4000:]


def test_two_processes_share_inference_and_find_what_one_finds(tmp_path):
    """Also of fewer samples than processes: then one of them has nothing to do."""
    adata = make_cohort(9)
    sst.MAESTRO.setup_anndata(adata, "sample", labels_key="condition")
    sizes = {"n_hidden": 8, "n_latent": 4, "n_inducing": 2, "n_layers": 1, "n_cells": 20, "n_heads": 2}
    model = sst.MAESTRO(adata, random_state=0, **sizes)
    model.train(**{**FIT, "max_epochs": 1})
    model.finetune("condition", mode="frozen")
    model.save(tmp_path / "model")
    run_alone_and_on_two_ranks("_processes_script.py", tmp_path, "3", "1", timeout=400)
    for n in (3, 1):
        alone = np.load(tmp_path / f"found{n}.1.0.npz")
        for rank in (0, 1):
            together = np.load(tmp_path / f"found{n}.2.{rank}.npz")
            for name in alone:
                np.testing.assert_allclose(together[name], alone[name], atol=2e-6, rtol=1e-5, err_msg=name)


def test_two_processes_train_embed_predict_attribute_and_write_what_one_does(tmp_path):
    """Three samples: one process has two of them in its batch and the other one, and each sample has the same say."""
    run_alone_and_on_two_ranks("_ranks_script.py", tmp_path, "PaSCient", "ScSet", timeout=900)
    for kind in ("PaSCient", "ScSet"):
        alone = np.load(tmp_path / f"{kind}.1.0.npz")
        for rank in (0, 1):
            together = np.load(tmp_path / f"{kind}.2.{rank}.npz")
            assert set(together) == set(alone)
            for name in alone:
                np.testing.assert_allclose(together[name], alone[name], atol=2e-5, rtol=1e-4, err_msg=f"{kind} {name}")
        one, two = (ad.read_h5ad(tmp_path / f"{kind}.{world}.h5ad") for world in (1, 2))
        np.testing.assert_allclose(two.X, one.X, atol=2e-5, rtol=1e-4)
        pd.testing.assert_frame_equal(two.obs, one.obs)


def test_shares_have_about_as_many_cells():
    sizes = np.array([10, 1, 7, 3, 5])
    shares = shares_of(np.arange(5), sizes, 2)
    assert sorted(np.concatenate(shares)) == [0, 1, 2, 3, 4]
    assert abs(sizes[shares[0]].sum() - sizes[shares[1]].sum()) <= 2
    assert [len(s) for s in shares_of(np.arange(2), sizes, 3)] == [1, 1, 0]


def test_one_process_shares_nothing():
    with sst.model.share_inference() as rank:
        assert rank == 0
        assert not is_shared()


def test_processes_of_a_notebook_bring_weights_and_history_back(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1] / "src"), str(HERE)])}
    command = [sys.executable, "-W", "ignore", str(HERE / "_notebook_script.py")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["moved"]
    assert report["is_trained"]
    assert report["history"]["loss_train"] == report["history"]["loss_validation"] == [0, 1]
    assert report["finite"]
    assert sorted(name for part in report["split"] for name in part) == [f"s{i:02d}" for i in range(9)]

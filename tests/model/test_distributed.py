"""Two processes on the CPU share the training samples and agree on everything else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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

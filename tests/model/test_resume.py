"""A run that was killed ends as one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from _resume_script import N_EPOCHS, VARIANTS, train

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """Folders of runs that were killed with SIGKILL in their fourth epoch, one for each variant."""
    folder = tmp_path_factory.mktemp("killed")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1] / "src"), str(HERE)])}
    command = [sys.executable, "-W", "ignore", str(HERE / "_resume_script.py"), str(folder)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    for variant in VARIANTS:
        assert (folder / variant / "signal").read_text() == str(int(signal.SIGKILL)), done.stderr[-3000:]
        assert (folder / variant / "last.ckpt").exists()
    return folder


def assert_same_runs(a, b):
    a_weights, b_weights = a.module.state_dict(), b.module.state_dict()
    differ = [name for name in a_weights if not torch.equal(a_weights[name], b_weights[name])]
    assert differ == []
    assert a.history.keys() == b.history.keys()
    for name in a.history:
        pd.testing.assert_frame_equal(a.history[name], b.history[name])
    assert a.train_samples_ == b.train_samples_


@pytest.mark.parametrize("variant", ["dropout", "plateau"])
def test_a_killed_run_ends_with_the_weights_and_history_of_an_uninterrupted_one(killed, tmp_path, variant):
    resumed, whole = train(variant, killed / variant), train(variant, tmp_path)
    assert_same_runs(resumed, whole)
    assert list(resumed.history["loss_train"].index) == list(range(N_EPOCHS))
    assert list(resumed.history["loss_validation"].index) == list(range(N_EPOCHS))
    again = train(variant, tmp_path)  # a finished run has nothing left to do
    assert_same_runs(again, whole)


def test_a_split_that_was_drawn_is_kept(killed):
    before = json.loads((killed / "drawn_seed" / "split.json").read_text())
    resumed = train("drawn_seed", killed / "drawn_seed")
    assert [resumed.train_samples_, resumed.validation_samples_, resumed.test_samples_] == before
    assert list(resumed.history["loss_train"].index) == list(range(N_EPOCHS))

"""What only a process of its own can show: quick help, and an interruption in the middle of training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[2] / "src"
COMMAND = [sys.executable, "-c", "from scset_tools.cli import main; main()"]
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SRC), os.environ.get("PYTHONPATH", "")])}


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nsys.argv = ['scset-tools', 'fit', '--help']\nfrom scset_tools.cli import main\n"
        "try:\n    main()\nexcept SystemExit as e:\n    code = e.code\n"
        "sys.stderr.write(str(code) + ' ' + ' '.join(m for m in ('torch', 'scvi', 'scanpy', 'matplotlib') if m in sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, text=True, check=True)
    assert run.stderr == "0 "
    for text in (
        "--sample-key",
        "--save-model",
        "maestro",
        "kmeans_fractions",
        "Exit codes",
        "Example: scset-tools fit",
    ):
        assert text in run.stdout


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_interrupted_in_training(cohort, tmp_path, name, code):
    log = tmp_path / "log.jsonl"
    options = ["--max-epochs", "100000", "--accelerator", "cpu", "--log", str(log), "--save-model", str(tmp_path / "m")]
    sizes = [part for size in ("n_hidden=8", "n_latent=4", "n_inducing=4", "n_cells=10") for part in ("--build", size)]
    process = subprocess.Popen(
        [*COMMAND, "fit", "maestro", str(cohort), "-s", "sample", "-o", str(tmp_path / "s.h5ad"), *options, *sizes],
        env=ENV,
        stderr=subprocess.PIPE,
        text=True,
        # a test run under nohup, or in the background of a shell, hands down signals that are ignored
        preexec_fn=lambda: signal.signal(
            getattr(signal, name), signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
        ),
    )
    try:
        deadline = time.monotonic() + 120
        while '"epoch"' not in (log.read_text() if log.exists() else "") and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len([p for p in os.listdir(tmp_path) if p.endswith(".part")]) == 2
        process.send_signal(getattr(signal, name))
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, err
    assert f"error: fit was stopped by {name}; nothing was written." in err
    assert os.listdir(tmp_path) == ["log.jsonl"]
    assert json.loads(log.read_text().splitlines()[-1])["exit_code"] == code


def test_outputs_that_cannot_be_written_end_with_5(run, cohort, tmp_path):
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / "run"
    fit = ["fit", "maestro", cohort, "-s", "sample", "-o", tmp_path / "s.h5ad", "--max-epochs", "1"]
    ended = run(*fit, "--accelerator", "cpu", "--checkpoint-dir", folder)
    assert ended.code == 5, ended.err
    assert "file/run cannot be written: Not a directory" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no full device")
def test_a_full_log_ends_with_5(cohort, tmp_path):
    fit = [*COMMAND, "fit", "mean", str(cohort), "-s", "sample", "-o", str(tmp_path / "s.h5ad")]
    run = subprocess.run([*fit, "--log", "/dev/full"], env=ENV, capture_output=True, text=True)
    assert (run.returncode, os.listdir(tmp_path)) == (5, []), run.stderr
    assert "The log /dev/full cannot be written: No space left on device" in run.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no full device")
def test_a_full_standard_output_ends_with_5(samples):
    probe = [*COMMAND, "probe", str(samples), "subtype", "--cv", "2", "--n-repeats", "1", "--no-tune"]
    with open("/dev/full", "w") as full:
        run = subprocess.run(probe, env=ENV, stdout=full, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 5, run.stderr
    assert "standard output cannot be written" in run.stderr
    assert "Traceback" not in run.stderr

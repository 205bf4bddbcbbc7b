"""What becomes of a run when things go wrong: kills, full disks, damaged files, two runs at once; prints one table.

Everything happens in forked processes, so that torch is imported once. ``python benchmarks/faults.py [--kills 20] [--pairs 5] [--folds 200] [--models 50]``.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np
import torch
from _quiet import one_quiet_thread

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "model"))
from _cohort import make_cohort

import scset_tools as sst
from scset_tools.train import ResumeCheckpoint

SIZES = {"n_hidden": 8, "n_latent": 4, "n_inducing": 2, "n_layers": 1, "n_cells": 10, "n_heads": 2, "dropout_rate": 0.1}
SHORT = {"max_epochs": 1, "batch_size": 4, "enable_progress_bar": False, "accelerator": "cpu", "watch_health": False}
FIT = {"batch_size": 4, "train_size": 0.75, "enable_progress_bar": False, "accelerator": "cpu", "seed": 0}


def build(seed: int = 0, n_samples: int = 8) -> sst.MAESTRO:
    """A small model on a small cohort."""
    adata = make_cohort(n_samples, seed=seed)
    sst.MAESTRO.setup_anndata(adata, "sample", labels_key="condition")
    return sst.MAESTRO(adata, random_state=0, **SIZES)


def train(folder: Path, *, seed: int = 0, max_epochs: int = 4) -> sst.MAESTRO:
    """Train it with a checkpoint folder."""
    model = build(seed)
    model.train(**FIT, max_epochs=max_epochs, stop_at_plateau=False, checkpoint_dir=folder)
    return model


def forked(work, *arguments, wait: bool = True):
    """Run something in a process of its own; its number, or how it ended: 0 done, 10 a clear error, 11 another."""
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            work(*arguments)
        except (ValueError, OSError, RuntimeError) as error:
            print(f"    {type(error).__name__}: {str(error)[:160]}", file=sys.stderr)
            code = 10
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
            code = 11
        os._exit(code)
    return ended(pid) if wait else pid


def ended(pid: int) -> int:
    """Exit status of a process, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def save_state(folder: Path, out: Path) -> None:
    """Train and leave the weights."""
    torch.save(train(folder).module.state_dict(), out)


def kills(place: Path, n: int) -> str:
    """Kill at random points, resume, and compare with an uninterrupted run."""
    started = time.monotonic()
    forked(save_state, place / "timed", place / "whole.pt")
    duration, rng, same = time.monotonic() - started, np.random.default_rng(0), 0
    whole = torch.load(place / "whole.pt", weights_only=True)
    for i in range(n):
        pid = forked(save_state, place / f"run{i}", place / f"{i}.pt", wait=False)
        time.sleep(float(rng.uniform(0.1, 0.9)) * duration)
        os.kill(pid, signal.SIGKILL)
        ended(pid)
        (place / f"{i}.pt").unlink(missing_ok=True)
        if forked(save_state, place / f"run{i}", place / f"{i}.pt") == 0:
            found = torch.load(place / f"{i}.pt", weights_only=True)
            same += all(torch.equal(v, found[k]) for k, v in whole.items())
    return f"{same} of {n} bit-identical"


def damaged(place: Path, n: int = 25) -> tuple[str, str]:
    """Truncate the file of a run, and flip bits in it."""
    path = place / "whole" / "last.ckpt"
    content, rng, refused = path.read_bytes(), np.random.default_rng(0), [0, 0]
    checkpoint = ResumeCheckpoint(path.parent)
    for i in range(2 * n):
        flipped = bytearray(content)
        flipped[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped if i % 2 else content[: int(rng.integers(len(content)))])
        try:
            checkpoint.read()
        except ValueError as error:
            refused[i % 2] += "delete it to start anew" in str(error)
    path.write_bytes(content)
    return f"{refused[0]} of {n} refused", f"{refused[1]} of {n} refused"


def full_disk(place: Path) -> tuple[str, str]:
    """No file may grow beyond 20 kB: neither the checkpoint nor a saved model; what was there stays."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    model = build()
    model.is_trained_ = True
    model.save(place / "model")
    before = (place / "model" / "model.pt").read_bytes()
    limit = (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    def resume() -> None:
        small()
        train(place / "whole", max_epochs=5)

    def save() -> None:
        small()
        model.save(place / "model", overwrite=True)

    state = (place / "whole" / "last.ckpt").read_bytes()
    trained = forked(resume) == 10 and (place / "whole" / "last.ckpt").read_bytes() == state
    saved = forked(save) == 10 and (place / "model" / "model.pt").read_bytes() == before
    words = ("told, the state before is whole", "told, the old model is whole")
    return tuple(word if ok else "LOST" for word, ok in zip(words, (trained, saved), strict=True))


def no_folder(place: Path) -> str:
    """A checkpoint folder that cannot be made (root may write everywhere, so a file is in the way)."""
    (place / "file").write_text("in the way")
    return "told before the first epoch" if forked(train, place / "file" / "run") == 10 else "NOT TOLD"


def other_run(place: Path) -> str:
    """A folder of another cohort."""
    return "refused" if forked(lambda: train(place / "whole", seed=9)) == 10 else "TAKEN OVER"


def two_at_once(place: Path, n: int) -> str:
    """Two processes on one folder: one trains to the end, the other is told."""
    good = 0
    for i in range(n):
        both = [forked(save_state, place / f"both{i}", place / f"both{i}{k}.pt", wait=False) for k in "ab"]
        good += sorted(map(ended, both)) in ([0, 0], [0, 10])  # one after the other, or one refused
    return f"{good} of {n} without a crash"


def memory(n_folds: int, n_models: int) -> tuple[str, str]:
    """Growth of the resident memory over folds of a benchmark and over models."""
    adata = make_cohort(12, n_features=2000)
    profile = sst.model.ModelProfile(sst.MAESTRO, sample_key="sample", build={**SIZES, "random_state": 0}, train=SHORT)
    how = {"sample_key": "sample", "cv": 2, "tune": False, "progress": False}

    def folds(n: int) -> None:
        sst.tl.benchmark(adata, {"m": profile}, "condition", n_repeats=n // 2, **how)

    def models(n: int) -> None:
        for _ in range(n):
            cells = adata.copy()
            sst.MAESTRO.setup_anndata(cells, "sample")
            sst.MAESTRO(cells, random_state=0, **SIZES)
            gc.collect()

    out = []
    for work, n in ((folds, n_folds), (models, n_models)):
        work(10)
        before = resident()
        work(n)
        gc.collect()
        out.append(f"{resident() - before:+.0f} MB (cells of one: {adata.X.nbytes / 1e6:.0f} MB)")
    return tuple(out)


def resident() -> float:
    """Memory of this process, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Do all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--folds", type=int, default=200)
    parser.add_argument("--models", type=int, default=50)
    given = parser.parse_args()
    one_quiet_thread()
    place = Path(tempfile.mkdtemp(prefix="faults_"))
    rows: list[tuple[str, str]] = []

    def note(*found: tuple[str, str]) -> None:
        for row in found:
            rows.append(row)
            print(f"| {row[0]} | {row[1]} |", flush=True)

    try:
        forked(train, place / "whole")
        note(
            *zip(("last.ckpt cut short, 25 times", "a bit of last.ckpt flipped, 25 times"), damaged(place), strict=True)
        )
        note(("checkpoint folder of another cohort", other_run(place)))
        note(("checkpoint folder that cannot be made", no_folder(place)))
        note(*zip(("full disk while resuming", "full disk in save(overwrite=True)"), full_disk(place), strict=True))
        names = (f"memory after {given.folds} folds", f"memory after {given.models} models")
        note(*zip(names, memory(given.folds, given.models), strict=True))
        note((f"two processes on one folder, {given.pairs} times", two_at_once(place, given.pairs)))
        note((f"SIGKILL at {given.kills} random points, resumed", kills(place, given.kills)))
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()

"""The folder of a run: room, lock, checksum, and what distinguishes two runs."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from scset_tools.train._run_folder import alone_in, differences, require_room
from scset_tools.train._seal import is_sealed, seal

HOLD = """
import sys, time
from pathlib import Path
from scset_tools.train._run_folder import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def sealed(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"weights": torch.arange(1000.0), "name": "x"}, path)
    seal(path)
    return path


def test_torch_reads_a_sealed_file(sealed):
    assert is_sealed(sealed)
    state = torch.load(sealed, weights_only=True, mmap=True)
    assert torch.equal(state["weights"], torch.arange(1000.0))


def test_no_flipped_bit_passes(sealed):
    whole, rng = sealed.read_bytes(), np.random.default_rng(0)
    for place in rng.integers(len(whole), size=200):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        sealed.write_bytes(damaged)
        assert not is_sealed(sealed)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\0" * 100_000], ids=["empty", "text", "zeros"])
def test_a_foreign_file_is_not_sealed(tmp_path, content):
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    assert not is_sealed(path)


def test_no_truncation_passes(sealed):
    whole = sealed.read_bytes()
    for n in range(0, len(whole), 97):
        sealed.write_bytes(whole[:n])
        assert not is_sealed(sealed)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"file/run cannot be written: Not a directory"):
        require_room(tmp_path / "file" / "run", 10)
    require_room(tmp_path / "new" / "run", 10)
    assert list((tmp_path / "new" / "run").iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot set room aside")
def test_a_disk_without_room_is_told_before_the_first_epoch(tmp_path, monkeypatch):
    def full(file, start, n):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="cannot be written: No space left on device") as error:
        require_room(tmp_path, 10)
    assert error.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_one_process_at_a_time_and_none_after_a_kill(tmp_path):
    pytest.importorskip("fcntl")
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(RuntimeError, match=f"is in use: process {other.pid} on .* trains there now"),
            alone_in(tmp_path),
        ):
            pass
        other.kill()
        other.wait()
        with alone_in(tmp_path):  # the lock of a dead process is none
            pass


def test_differences_name_aspect_and_culprits():
    then = {"model": "A", "samples": ["a", "b", "c"], "labels": {"a": "x", "b": "y"}, "features": ["g0", "g1"]}
    assert differences(then, dict(then)) == []
    now = {"model": "B", "samples": ["a", "b", "d"], "labels": {"a": "x", "b": "z"}, "features": ["g1", "g0"], "new": 1}
    assert differences(then, now) == [
        "model ('A' then, 'B' now)",
        "samples (1 of then are gone: ['c']; 1 are new: ['d'])",
        "labels (b: 'y' then, 'z' now)",
        "features (in another order)",
        "new (None then, 1 now)",
    ]

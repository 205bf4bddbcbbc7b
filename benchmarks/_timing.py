"""Shared by the benchmarks: medians of interleaved runs, peak memory of a fresh process, tables.

Ratios within one run carry over to other machines; seconds do not.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def interleaved_medians(
    runs: Mapping[str, Callable[[], Any]], *, repeats: int = 5, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each run, after one warm-up each.

    The runs take turns, so that a slow moment of a shared machine falls on all of them. On a machine that is busy with
    other work, ``clock=time.process_time`` with one thread counts the processor time of this process alone.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if turn:
                seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_bytes() -> int:
    """Largest resident memory of this process so far.

    On Linux from ``VmHWM``: ``ru_maxrss`` of a new process starts at the peak of the process that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def peak_above_now(run: Callable[[], Any]) -> tuple[Any, int]:
    """What a run returns, and the largest resident memory during it above that at its start (Linux).

    The kernel's high-water mark is reset first, so that one process can measure several runs.
    """
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed before would be used again unseen
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_bytes()
    result = run()
    return result, peak_bytes() - before


def in_fresh_process(script: str, *arguments: str) -> dict[str, Any]:
    """Run a script with arguments in a new interpreter and return the JSON object of its last printed line."""
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{script} {' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def hardware_line() -> str:
    """Processor, threads and torch version, for the top of a table."""
    import torch

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    )


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a Markdown table; floats with four significant digits."""
    cells = [[f"{value:.4g}" if isinstance(value, float) else str(value) for value in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for number, row in enumerate(cells):
        print("| " + " | ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def one_number_of_threads() -> dict[str, str]:
    """The environment for a process of its own, where numba, which scanpy counts with and which sets the threads of torch, has as many."""
    n = os.environ.get("OMP_NUM_THREADS")
    return {**os.environ, **({"NUMBA_NUM_THREADS": n} if n else {})}

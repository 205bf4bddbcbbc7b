"""A training step of PaSCient from sparse counts against densify-and-pad, and its peak memory.

    python benchmarks/pascient_step.py [--process-time] [--repeats 3] [--write]

The alternative reads the same rows, makes them dense, pads the samples to (samples, longest, genes) and multiplies with
``torch.nn.Linear``; all else (attention, heads, AdamW) is the same. Both start from the rows of one CSR matrix in memory and take
one step of the optimiser. Peak memory is above what the counts take.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch
from _pascient import pascient_module
from _results import write_section
from _timing import hardware_line, peak_above_now
from torch import nn

from scset_tools.data._batch import SampleBatch
from scset_tools.data._sparse import SparseRows
from scset_tools.model.pascient._module import PaSCientModule
from scset_tools.nn import ptr_from_sizes

N_SAMPLES, N_CELLS, N_GENES, DENSITY, N_CLASSES = 8, 1_500, 28_231, 0.05, 9


def counts(scale: float) -> sp.csr_array:
    """Normalised values of all cells in CSR; genes drawn for each cell."""
    rng = np.random.default_rng(0)
    n, per_cell = N_SAMPLES * round(N_CELLS * scale), round(N_GENES * DENSITY)
    indices = np.empty((n, per_cell), dtype=np.int32)
    for i in range(n):
        indices[i] = np.sort(rng.choice(N_GENES, per_cell, replace=False))
    values = rng.random(n * per_cell, dtype=np.float32) * 3
    indptr = np.arange(n + 1, dtype=np.int32) * np.int32(per_cell)
    return sp.csr_array((values, indices.ravel(), indptr), shape=(n, N_GENES))


def module(width: int) -> PaSCientModule:
    return pascient_module(N_GENES, width, classes=tuple(map(str, range(N_CLASSES)))).train()


class Padded(nn.Module):
    """The same network on (samples, slots, genes): linear encoder, softmax over slots that hold a cell, heads."""

    def __init__(self, ours: PaSCientModule, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(N_GENES, width)
        with torch.no_grad():
            self.first.weight.copy_(ours.first.weight.T)
            self.first.bias.copy_(ours.first.bias)
        self.score, self.rest, self.head = ours.aggregator.pool.score, ours.sample_encoder, ours.heads[0].linear

    def forward(self, x: torch.Tensor, is_real: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        scores = self.score(h).masked_fill(~is_real[..., None], -torch.inf)
        return self.head(self.rest((scores.softmax(1) * h).sum(1)))


def make_step(way: str, width: int, x: sp.csr_array) -> Callable[[], float]:
    """A function that makes one step of training and returns its loss."""
    y = torch.arange(N_SAMPLES) % N_CLASSES
    n_each, rows = x.shape[0] // N_SAMPLES, np.arange(x.shape[0])
    if way == "sparse":
        ours = module(width)
        opt = torch.optim.AdamW(ours.parameters(), lr=1e-4)

        def sparse_step() -> float:
            batch = SampleBatch(
                x=SparseRows.from_scipy(sp.csr_array(x[rows])),
                ptr=ptr_from_sizes([n_each] * N_SAMPLES),
                sample=torch.arange(N_SAMPLES),
                seed=torch.arange(N_SAMPLES),
                rows=torch.from_numpy(rows),
                labels={"labels": y},
            )
            opt.zero_grad()
            loss = ours.loss(batch).loss
            loss.backward()
            opt.step()
            return float(loss.detach())

        return sparse_step

    theirs = Padded(module(width), width)
    opt_padded = torch.optim.AdamW(theirs.parameters(), lr=1e-4)

    def padded_step() -> float:
        dense = torch.from_numpy(x[rows].toarray())
        padded = torch.zeros(N_SAMPLES, n_each, N_GENES)
        is_real = torch.zeros(N_SAMPLES, n_each, dtype=torch.bool)
        for i, part in enumerate(dense.split(n_each)):
            padded[i, : len(part)], is_real[i, : len(part)] = part, True
        opt_padded.zero_grad()
        loss = nn.functional.cross_entropy(theirs(padded, is_real), y)
        loss.backward()
        opt_padded.step()
        return float(loss.detach())

    return padded_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the cells of each sample")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--process-time", action="store_true", help="processor time of one thread")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    clock = time.perf_counter
    if arguments.process_time:
        torch.set_num_threads(1)
        clock = time.process_time
    lines = [
        "| width | step, padded | step, sparse | ratio | peak, padded | peak, sparse | share | difference of losses |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for width in arguments.width:
        seconds: dict[str, list[float]] = {}
        peak: dict[str, int] = {}
        first: dict[str, float] = {}  # the loss of the first step, of equal weights
        for name in ("padded", "sparse"):
            x = counts(arguments.scale)

            def several(name=name, x=x, width=width, first=first, seconds=seconds) -> None:
                step = make_step(name, width, x)
                for turn in range(arguments.repeats + 1):  # the first makes the moments of the optimiser
                    start = clock()
                    loss = step()
                    first.setdefault(name, loss)
                    if turn:
                        seconds.setdefault(name, []).append(clock() - start)

            peak[name] = peak_above_now(several)[1]
        took = {name: statistics.median(values) for name, values in seconds.items()}
        lines.append(
            f"| {width} | {took['padded']:.2f} s | {took['sparse']:.2f} s | {took['padded'] / took['sparse']:.1f}x "
            f"| {peak['padded'] / 2**30:.2f} GiB | {peak['sparse'] / 2**30:.2f} GiB | {peak['sparse'] / peak['padded']:.2f} "
            f"| {abs(first['padded'] - first['sparse']):.1e} |"
        )
        print(lines[-1], flush=True)
    unit = "processor seconds of one thread" if arguments.process_time else "seconds"
    text = (
        f"{hardware_line()}; {unit}, median of {arguments.repeats} steps after a first one.\n\n{N_SAMPLES} samples x "
        f"{round(N_CELLS * arguments.scale):,} cells x {N_GENES:,} genes, {DENSITY:.0%} of the values not zero, attention, AdamW. "
        "Peak: above the memory that the counts take; weights, gradients and moments of the optimiser included.\n\n"
        + "\n".join(lines)
    )
    print(text)
    if arguments.write:
        write_section("pascient_step", "PaSCient: training step from sparse counts", text)


if __name__ == "__main__":
    main()

"""Optimal transport between original and decoded cells: value and gradient of each solver against exact transport.

Run ``PYTHONPATH=src python benchmarks/sinkhorn.py``; ``--full`` adds the rows that take minutes. One table per number of
cells: seconds of a forward and a backward pass, the ratio to geomloss at blur .05, scaling .5 (debiased, as the published
code calls it) in the same run, the error of the value, and the cosine between the gradient of the decoded cells and that
of exact transport. Then the peak memory of a fresh process at 2,000 cells, three other pairs of clouds, and batches.
The default, ``solver="auto"``, is ``exact`` up to 500 x 500 cells on a CPU and ``scaling`` beyond.

x are cells of nine types in 30 dimensions; y are as many from the same types with moved centres, other shares and 0.6 of
the width, as an imperfect reconstruction. geomloss's cost is half the squared distance: its value is doubled here, and
its blur of .05 is a temperature of .005 in squared units.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock

import ot
import torch
from _timing import hardware_line, in_fresh_process, interleaved_medians, peak_bytes, print_table

from scset_tools.nn import ptr_from_sizes
from scset_tools.nn.loss import SinkhornLoss, _sinkhorn

if TYPE_CHECKING:
    from collections.abc import Callable

N_FEATURES, N_TYPES = 30, 9
BASELINE = "geomloss .05/.5, debiased"
EXACT = "exact (POT's network simplex)"
# A run that takes longer is timed once, without a warm-up.
SLOW_SECONDS = 1.0


def cells(n: int, *, seed: int, drift: float = 0.0, width: float = 1.0) -> torch.Tensor:
    """Cells of nine types; ``drift`` moves the centres and changes the shares of the types."""
    types = torch.Generator().manual_seed(0)
    centers = 2 * torch.randn(N_TYPES, N_FEATURES, generator=types)
    logits = torch.randn(N_TYPES, generator=types)
    widths = 0.4 + 0.6 * torch.rand(N_TYPES, N_FEATURES, generator=types)
    generator = torch.Generator().manual_seed(seed)
    centers = centers + drift * torch.randn(N_TYPES, N_FEATURES, generator=generator)
    shares = torch.softmax(logits + drift / 2 * torch.randn(N_TYPES, generator=generator), dim=0)
    kinds = torch.multinomial(shares, n, replacement=True, generator=generator)
    return centers[kinds] + width * widths[kinds] * torch.randn(n, N_FEATURES, generator=generator)


def reconstruction(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return cells(n, seed=1), cells(n, seed=2, drift=0.5, width=0.6)


def other_clouds(n: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    x, noise = cells(n, seed=1), torch.randn(n, N_FEATURES, generator=torch.Generator().manual_seed(3))
    return {
        "untrained decoder (y nearly one point)": (x, 0.01 * noise),
        "near-perfect decoder (y = x + noise of 0.05)": (x, x.flip(0) + 0.05 * noise),
        "same law (independent draws)": (x, cells(n, seed=2)),
    }


# The candidates: functions of x and y that return a value with a graph.


def geomloss(x: torch.Tensor, y: torch.Tensor, *, blur: float, scaling: float, debias: bool = True) -> torch.Tensor:
    from geomloss import SamplesLoss

    loss = SamplesLoss("sinkhorn", p=2, blur=blur, scaling=scaling, debias=debias, backend="tensorized")
    return 2 * loss(x, y)


def temperature_of(x: torch.Tensor, y: torch.Tensor, epsilon: float) -> float:
    """The temperature of SinkhornLoss in squared units, for the solvers that want it so."""
    with torch.no_grad():
        centred = (points - points.mean(dim=0) for points in (x, y))
        return epsilon * _sinkhorn._spread(*(points.unsqueeze(0) for points in centred)).item()


def pot_log_autograd(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    uniform = (x.new_full((len(points),), 1 / len(points)) for points in (x, y))
    cost = torch.cdist(x, y).square()
    return ot.sinkhorn2(*uniform, cost, temperature_of(x, y, 0.01), method="sinkhorn_log", numItermax=100, warn=False)


def pot_lazy(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Its lazy plan has no gradient: the plan is read block by block and the envelope theorem applied here."""
    with torch.no_grad():
        reg = temperature_of(x, y, 0.01)
        plan = ot.solve_sample(x, y, reg=reg, lazy=True, batch_size=500, max_iter=100).lazy_plan
        blocks = [plan[start : start + 500] for start in range(0, len(x), 500)]
        target = sum(block.T @ rows for block, rows in zip(blocks, x.split(500), strict=True))
        of_x, of_y = torch.cat([block.sum(dim=1) for block in blocks]), sum(block.sum(dim=0) for block in blocks)
    return of_x @ x.square().sum(dim=1) + of_y @ y.square().sum(dim=1) - 2 * (target * y).sum()


def pot_batch(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    reg = temperature_of(x, y, 0.01)
    return ot.batch.solve_sample_batch(
        x[None], y[None], reg=reg, max_iter=100, method="log_sinkhorn"
    ).value_linear.sum()


def ours(x: torch.Tensor, y: torch.Tensor, **arguments: object) -> torch.Tensor:
    return SinkhornLoss(**arguments)(x, y).sum()


def without_newton(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The same kernels, sweeps alone: as many products as in the rounds with Newton steps."""
    with mock.patch.object(_sinkhorn, "solve_scaling", partial(_sinkhorn.solve_scaling, n_cg=0)):
        return SinkhornLoss(solver="scaling", n_iterations=40)(x, y).sum()


class Candidate(NamedTuple):
    run: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    largest: int  # most cells in the default run
    largest_full: int = 5000
    reason: str = ""  # why not beyond


CANDIDATES = {
    BASELINE: Candidate(partial(geomloss, blur=0.05, scaling=0.5), 5000),
    "geomloss .05/.5": Candidate(
        partial(geomloss, blur=0.05, scaling=0.5, debias=False), 2000, 5000, "half the row above"
    ),
    "geomloss .005/.95, debiased": Candidate(partial(geomloss, blur=0.005, scaling=0.95), 500, 5000, "15 s at 2,000"),
    "POT log, autograd, eps .01, 100 it.": Candidate(
        pot_log_autograd, 500, 2000, "keeps all iterations: 2.5 GB at 2,000"
    ),
    "POT lazy, eps .01, 100 it.": Candidate(pot_lazy, 500, 5000, "slow, see 500"),
    "POT batch, eps .01, 100 it.": Candidate(pot_batch, 500, 2000, "slow, see 500"),
    EXACT: Candidate(partial(ours, solver="exact"), 1000, 1000),
    "log, eps .01": Candidate(partial(ours, solver="log", epsilon=0.01, n_iterations=200), 500, 2000, "slow, see 500"),
    "scaling without Newton": Candidate(without_newton, 2000, 5000, "see 2,000"),
    "scaling, eps .01": Candidate(partial(ours, solver="scaling", epsilon=0.01), 2000, 5000, "see 2,000"),
    "scaling, eps .001": Candidate(partial(ours, solver="scaling", epsilon=0.001), 5000),
    "scaling, tolerance .001": Candidate(partial(ours, solver="scaling", tolerance=1e-3), 2000, 5000, "see 2,000"),
    "scaling, debiased": Candidate(
        partial(ours, solver="scaling", debiased=True), 2000, 5000, "three times the next row"
    ),
    "scaling": Candidate(partial(ours, solver="scaling"), 5000),
}


class Reference(NamedTuple):
    value: float
    gradient: torch.Tensor  # of the decoded cells
    seconds: float


def exact(x: torch.Tensor, y: torch.Tensor, clock: Callable[[], float]) -> Reference:
    y = y.clone().requires_grad_()
    start = clock()
    value = ours(x, y, solver="exact")
    value.backward()
    return Reference(value.item(), y.grad, clock() - start)


def forward_backward(run: Callable, x: torch.Tensor, y: torch.Tensor) -> tuple[float, torch.Tensor]:
    y = y.clone().requires_grad_()
    value = run(x, y)
    value.backward()
    return value.item(), y.grad


def quality(value: float, gradient: torch.Tensor, reference: Reference) -> tuple[str, float]:
    cosine = torch.nn.functional.cosine_similarity(gradient.flatten(), reference.gradient.flatten(), dim=0).item()
    return f"{100 * (value / reference.value - 1):+.1f} %", cosine


def table(n: int, *, is_full: bool, clock: Callable[[], float]) -> None:
    x, y = reconstruction(n)
    reference = exact(x, y, clock)
    runs, seconds, qualities = {}, {}, {}
    for name, candidate in CANDIDATES.items():
        if n > (candidate.largest_full if is_full else candidate.largest):
            continue
        runs[name] = partial(forward_backward, candidate.run, x, y)
        start = clock()
        qualities[name] = quality(*runs[name](), reference)
        seconds[name] = clock() - start
    seconds |= interleaved_medians(
        {name: run for name, run in runs.items() if seconds[name] < SLOW_SECONDS}, repeats=3, clock=clock
    )
    if EXACT not in seconds:  # timed once, as the reference
        seconds[EXACT], qualities[EXACT] = reference.seconds, ("+0.0 %", 1.0)
    print(f"\n{n:,} x {n:,} cells\n")
    rows = [
        (name, seconds[name], f"{seconds[BASELINE] / seconds[name]:.1f} x", *qualities[name])
        if name in seconds
        else (name, "-", "-", f"not run: {candidate.reason}", "-")
        for name, candidate in CANDIDATES.items()
    ]
    print_table(("solver", "seconds", "faster", "value", "cosine"), rows)


def other_clouds_table(n: int, clock: Callable[[], float]) -> None:
    print(f"\nOther clouds, {n:,} x {n:,} cells\n")
    rows = []
    for title, (x, y) in other_clouds(n).items():
        reference = exact(x, y, clock)
        for name in (BASELINE, "scaling, eps .001", "scaling"):
            start = clock()
            result = forward_backward(CANDIDATES[name].run, x, y)
            rows.append((title, name, clock() - start, *quality(*result, reference)))
        rows.append((title, EXACT, reference.seconds, "+0.0 %", 1.0))
    print_table(("clouds", "solver", "seconds", "value", "cosine"), rows)


def batches_table(clock: Callable[[], float]) -> None:
    """What batching sets of one size is worth, and where it stops to be."""
    print("\nBatches of sets of one size, solver='scaling', forward and backward\n")
    rows = []
    for n, n_samples in ((50, 32), (100, 32), (200, 16), (500, 4)):
        x = cells(n * n_samples, seed=1)
        y = cells(n * n_samples, seed=2, drift=0.5, width=0.6)
        ptr = ptr_from_sizes([n] * n_samples)
        loss = partial(SinkhornLoss(solver="scaling"), x_ptr=ptr, y_ptr=ptr)
        run = partial(forward_backward, lambda x, y, loss=loss: loss(x, y).sum(), x, y)

        def at_most(entries: int, run: Callable = run) -> None:
            with mock.patch.object(_sinkhorn, "_CPU_ENTRIES", entries):
                run()

        seconds = interleaved_medians({"loop": partial(at_most, 0), "default": run}, repeats=3, clock=clock)
        rows.append(
            (n, n_samples, seconds["loop"], seconds["default"], f"{seconds['loop'] / seconds['default']:.1f} x")
        )
    print_table(("cells", "samples", "loop, seconds", "batched, seconds", "faster"), rows)


def memory(name: str, n: int) -> None:
    """Peak of this process over what it held before, as JSON (for a fresh process)."""
    x, y = reconstruction(n)
    forward_backward(CANDIDATES[name].run, *reconstruction(32))  # imports and buffers of libraries
    before = peak_bytes()
    forward_backward(CANDIDATES[name].run, x, y)
    print(json.dumps({"mib": (peak_bytes() - before) / 2**20}))


def memory_table(n: int, *, is_full: bool) -> None:
    print(
        f"\nPeak memory of a fresh process over what it held before, {n:,} x {n:,} cells (the cost matrix is {4 * n * n / 2**20:.0f} MiB)\n"
    )
    names = [name for name in CANDIDATES if is_full or name in (BASELINE, EXACT, "scaling")]
    rows = [(name, in_fresh_process(__file__, "--memory-of", name, "--cells", str(n))["mib"]) for name in names]
    print_table(("solver", "MiB"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[500, 1000, 2000, 5000])
    parser.add_argument("--full", action="store_true", help="also run the rows that take minutes")
    parser.add_argument("--threads", type=int, help="threads of torch (default: its own choice)")
    parser.add_argument(
        "--process-time", action="store_true", help="processor time instead of wall time: for a busy machine"
    )
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        memory(arguments.memory_of, arguments.cells[0])
        return
    clock = time.process_time if arguments.process_time else time.perf_counter
    print(hardware_line())
    for n in arguments.cells:
        table(n, is_full=arguments.full, clock=clock)
    memory_table(2000, is_full=arguments.full)
    other_clouds_table(1000, clock)
    batches_table(clock)


if __name__ == "__main__":
    main()

"""Integrated gradients of PaSCient through its linear first layer against captum on the cells: time, error, peak memory.

    python benchmarks/attribution.py [--process-time] [--repeats 3] [--write]
    python benchmarks/attribution.py --part scaling [--write]

The second prints what two classes cost against one, and attributions by group against the number of samples, through
``get_attributions``: forward passes and processor seconds.

Both take 50 gradients of the same score of one sample, of Gauss and Legendre, one at a time (captum: ``internal_batch_size=1``; with
its default it would hold 50 copies of the cells). Peak memory is above what network and input take.
"""

from __future__ import annotations

import argparse
import statistics
import time

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from _pascient import pascient_module
from _results import write_section
from _timing import hardware_line, peak_above_now

import scset_tools as sst
from scset_tools.data._sparse import SparseRows
from scset_tools.model.pascient._module import PaSCientModule
from scset_tools.nn import attribute_through_linear, ptr_from_sizes

N_CELLS, N_GENES, DENSITY, N_STEPS = 1_500, 5_000, 0.1, 50


def network(width: int) -> PaSCientModule:
    made = pascient_module(N_GENES, width, classes=("a", "b")).eval()
    with torch.no_grad():  # sharper than at the start, as after training, so that the path is not nearly straight
        made.aggregator.pool.score[-1].weight.mul_(20)
        made.heads[0].linear.weight.mul_(20)
    return made


def cells(*, is_sparse: bool) -> torch.Tensor | SparseRows:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(N_CELLS, N_GENES, generator=generator).mul_(3)
    x[torch.rand(N_CELLS, N_GENES, generator=generator) > DENSITY] = 0
    return SparseRows.from_dense(x) if is_sparse else x


def log_odds(made: PaSCientModule, z: torch.Tensor) -> torch.Tensor:
    return made.heads[0].scores(z) @ z.new_tensor([1.0, -1.0])


def behind(made: PaSCientModule):
    return lambda h, ptr: log_odds(made, made.from_first_layer(h, ptr))


def ours(made: PaSCientModule, x: torch.Tensor | SparseRows) -> tuple[torch.Tensor, float]:
    ptr = ptr_from_sizes([N_CELLS])
    with torch.no_grad():
        hidden = made.first(x)
    found = attribute_through_linear(
        lambda both, ptr: log_odds(made, made.from_two_layers(both, ptr)),
        x,
        ptr,
        hidden=hidden,
        weight=made.first.folded()[0],
        bias=made.first.folded()[1],
        second=made.second_layer(),
        n_steps=N_STEPS,
    )
    return found.values(), float(found.completeness_error[0])


def captums(made: PaSCientModule, x: torch.Tensor) -> tuple[torch.Tensor, float]:
    from captum.attr import IntegratedGradients

    f = behind(made)

    def score(batch: torch.Tensor) -> torch.Tensor:
        return torch.cat([f(made.first(one), ptr_from_sizes([len(one)])) for one in batch])

    values = IntegratedGradients(score).attribute(
        x[None], n_steps=N_STEPS, method="gausslegendre", internal_batch_size=1
    )[0]
    with torch.no_grad():
        difference = float(score(x[None]) - score(torch.zeros_like(x)[None]))
    return values.detach(), abs(float(values.sum()) - difference) / abs(difference)


QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "watch_health": False, "seed": 0}


def cohort(n_samples: int, *, n_cells: int = 20, n_genes: int = 300) -> ad.AnnData:
    """Samples of sparse counts in two conditions and three subtypes, with eight types of cells."""
    rng = np.random.default_rng(0)
    sample = np.repeat(np.arange(n_samples), n_cells)
    x = sp.random(len(sample), n_genes, DENSITY, "csr", np.float32, rng=rng, data_rvs=lambda n: rng.integers(1, 9, n))
    obs = pd.DataFrame(
        {
            "sample": [f"s{i:05d}" for i in sample],
            "two": np.where(sample % 2, "case", "control"),
            "three": np.asarray(["a", "b", "c"])[sample % 3],
            "type": np.asarray(list("ABCDEFGH"))[rng.integers(0, 8, len(sample))],
        },
        index=[f"c{i}" for i in range(len(sample))],
    )
    return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"g{j}" for j in range(n_genes)]))


def measured(model: object, label: str, **arguments: object) -> tuple[int, float]:
    """Forward passes of the network with a gradient or of scores, and processor seconds."""
    n_passes = 0

    def count(*_: object) -> None:
        nonlocal n_passes
        n_passes += 1

    handle = model.module.student.encoder.register_forward_hook(count) if hasattr(model.module, "student") else None
    start = time.process_time()
    model.get_attributions(label, tolerance=np.inf, **arguments)
    seconds = time.process_time() - start
    if handle is not None:
        handle.remove()
    return n_passes, seconds


def scaling(sizes: list[int]) -> str:
    torch.set_num_threads(1)
    adata = cohort(24, n_cells=200, n_genes=40)
    adata.X = adata.X.toarray() + 1  # MAESTRO takes no cell of zeros
    sst.MAESTRO.setup_anndata(adata, "sample")
    model = sst.MAESTRO(adata, random_state=0)
    model.train(1, **QUIET)
    model.get_attributions("two", n_steps=1, tolerance=np.inf)  # loads what is loaded on first use
    lines = ["| MAESTRO, 24 samples x 200 cells | forward passes | processor seconds |", "|---|---|---|"]
    for name, label, targets in (
        ("two classes", "two", [None]),
        ("two classes, one after the other", "two", ["case", "control"]),
        ("three classes", "three", [None]),
        ("three classes, one after the other", "three", ["a", "b", "c"]),
    ):
        found = [measured(model, label, target=target) for target in targets]
        lines.append(f"| {name} | {sum(n for n, _ in found)} | {sum(t for _, t in found):.2f} |")
        print(lines[-1], flush=True)
    lines += [
        "",
        "| PaSCient by eight groups | processor seconds | per sample, ms | against the fewest |",
        "|---|---|---|---|",
    ]
    first = None
    for n in sizes:
        adata = cohort(n)
        sst.PaSCient.setup_anndata(adata, "sample", labels_key="two")
        model = sst.PaSCient(adata, random_state=0)
        model.train(1, **QUIET)
        model.get_attributions("two", samples=model.sample_names[:16], groupby="type", tolerance=np.inf)
        _, seconds = measured(model, "two", groupby="type")
        first = first or (n, seconds)
        ratio = f"{seconds / first[1]:.1f}x for {n / first[0]:.0f}x the samples"
        lines.append(f"| {n} samples | {seconds:.2f} | {1e3 * seconds / n:.2f} | {ratio} |")
        print(lines[-1], flush=True)
    return f"{hardware_line()}; processor seconds of one thread, 20 steps.\n\n" + "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["captum", "scaling"], default="captum")
    parser.add_argument("--samples", type=int, nargs="+", default=[100, 1000, 3000])
    parser.add_argument("--width", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--process-time", action="store_true", help="processor time of one thread")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if arguments.part == "scaling":
        text = scaling(arguments.samples)
        if arguments.write:
            write_section("attribution-scaling", "Attributions: classes at once, and by group for many samples", text)
        return
    clock = time.perf_counter
    if arguments.process_time:
        torch.set_num_threads(1)
        clock = time.process_time
    lines = [
        "| width | way | time | captum / time | completeness error | largest difference / largest value | peak above the input |",
        "|---|---|---|---|---|---|---|",
    ]
    for width in arguments.width:
        made, dense, compressed = network(width), cells(is_sparse=False), cells(is_sparse=True)
        found: dict[str, tuple[torch.Tensor, float]] = {}
        seconds: dict[str, list[float]] = {}
        peak: dict[str, int] = {}
        ours(made, compressed)  # loads what is loaded on first use
        captums(made, dense[:2])
        for _ in range(arguments.repeats):
            for name, way, x in (("ours", ours, dense), ("ours, sparse", ours, compressed), ("captum", captums, dense)):
                start = clock()
                found[name], peak[name] = peak_above_now(lambda way=way, x=x, made=made: way(made, x))
                seconds.setdefault(name, []).append(clock() - start)
        want = found["captum"][0]
        for name, (values, error) in found.items():
            other = want[dense != 0] if values.ndim == 1 else want
            gap = float((values - other).abs().max() / want.abs().max())
            took = statistics.median(seconds[name])
            lines.append(
                f"| {width} | {name} | {took:.2f} s | {statistics.median(seconds['captum']) / took:.1f}x | {error:.1e} | {gap:.1e} "
                f"| {peak[name] / 2**20:.0f} MiB |"
            )
            print(lines[-1], flush=True)
    unit = "processor seconds of one thread" if arguments.process_time else "seconds"
    text = (
        f"{hardware_line()}; {unit}, median of {arguments.repeats} interleaved runs.\n\n{N_CELLS:,} cells x {N_GENES:,} genes, "
        f"{DENSITY:.0%} of the values not zero, {N_STEPS} steps, attention.\n\n" + "\n".join(lines)
    )
    print(text)
    if arguments.write:
        write_section("attribution", "Integrated gradients: through the first layer against captum", text)


if __name__ == "__main__":
    main()

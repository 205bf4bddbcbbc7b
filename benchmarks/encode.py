"""Embedding one large sample: the stream of cells against the whole set at once.

Run ``PYTHONPATH=src python benchmarks/encode.py``. Every row is measured in a fresh process; memory is the peak over
what the process held with the input in memory.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from _timing import hardware_line, in_fresh_process, interleaved_medians, peak_bytes, print_table

from scset_tools.nn import SetEncoder, stream_embed

N_INPUT = 30
SIZES = (100_000, 1_000_000, 3_000_000)
# The whole set at once needs several GB at a million cells.
LARGEST_WHOLE = 1_000_000


def make(n_cells: int) -> tuple[SetEncoder, torch.Tensor]:
    """An encoder with the default widths of the library and one sample of clustered cells."""
    torch.manual_seed(0)
    encoder = SetEncoder(N_INPUT, 128, 64)
    centres = 2 * torch.randn(12, N_INPUT)
    x = torch.empty(n_cells, N_INPUT)
    for part in x.split(100_000):  # in parts, so that making the input leaves no peak behind
        part.normal_().add_(centres[torch.randint(12, (len(part),))])
    return encoder, x


def measure(way: str, n_cells: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Peak memory and seconds of one embedding of ``n_cells`` cells."""
    encoder, x = make(n_cells)

    def run() -> torch.Tensor:
        with torch.no_grad():
            if way == "whole":
                return encoder(x)
            cache_bytes = int(arguments.cache_mib * 2**20)
            return stream_embed(encoder, lambda: x.split(arguments.chunk_cells), cache_bytes=cache_bytes)

    before = peak_bytes()
    clock = time.process_time if arguments.processor_time else time.perf_counter
    start = clock()
    run()
    seconds = clock() - start
    peak = peak_bytes() - before
    if n_cells <= 100_000:
        seconds = interleaved_medians({way: run}, repeats=arguments.repeats, clock=clock)[way]
    return {"peak": peak, "seconds": seconds}


def compare(n_cells: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Relative difference of both ways, and their times in turns in one process."""
    encoder, x = make(n_cells)

    def whole() -> torch.Tensor:
        with torch.no_grad():
            return encoder(x)

    def stream() -> torch.Tensor:
        return stream_embed(
            encoder, lambda: x.split(arguments.chunk_cells), cache_bytes=int(arguments.cache_mib * 2**20)
        )

    expected = whole()
    error = float((stream() - expected).norm() / expected.norm())
    clock = time.process_time if arguments.processor_time else time.perf_counter
    seconds = interleaved_medians({"whole": whole, "stream": stream}, repeats=arguments.repeats, clock=clock)
    return {"error": error, **seconds}


def main() -> None:
    """Print the table, or, with ``--case``, one measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", nargs=2, metavar=("WAY", "CELLS"))
    parser.add_argument("--sizes", nargs="*", type=int, default=SIZES)
    parser.add_argument("--chunk-cells", type=int, default=50_000)
    parser.add_argument("--cache-mib", type=float, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--processor-time", action="store_true", help="count processor time: for a busy machine")
    arguments = parser.parse_args()
    if arguments.case:
        way, n_cells = arguments.case[0], int(arguments.case[1])
        result = compare(n_cells, arguments) if way == "compare" else measure(way, n_cells, arguments)
        print(json.dumps(result))
        return

    shared = ["--chunk-cells", str(arguments.chunk_cells), "--cache-mib", str(arguments.cache_mib)]
    shared += ["--repeats", str(arguments.repeats)] + ["--processor-time"] * arguments.processor_time
    print(hardware_line())
    print(
        f"One sample x {N_INPUT} markers, SetEncoder({N_INPUT}, 128, 64), no gradient, cache {arguments.cache_mib} MiB."
    )
    rows = []
    for n_cells in arguments.sizes:
        for way in ("whole", "stream"):
            if way == "whole" and n_cells > LARGEST_WHOLE:
                continue
            result = in_fresh_process(__file__, *shared, "--case", way, str(n_cells))
            rows.append([n_cells, way, result["seconds"], n_cells / result["seconds"] / 1e3, result["peak"] / 1e6])
    print_table(["cells", "way", "seconds", "thousand cells / s", "peak MB over the input"], rows)
    result = in_fresh_process(__file__, *shared, "--case", "compare", str(min(arguments.sizes)))
    print(
        f"\n{min(arguments.sizes)} cells, in turns in one process: stream / whole throughput "
        f"{result['whole'] / result['stream']:.2f} ({result['stream']:.3f} s / {result['whole']:.3f} s), "
        f"relative difference {result['error']:.1e}."
    )


if __name__ == "__main__":
    main()

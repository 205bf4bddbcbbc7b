"""A store of a cohort: cells written per second against copying bytes, memory, and batches of samples against other ways to read.

    python benchmarks/store.py [--cells 200000] [--genes 2000] [--values 100] [--samples 40] [--files 20]

Synthetic cells in unsorted h5ad files, every file with cells of its own samples in random order. Each figure is in processor
seconds but for memory, the peak of this process over what it held before. ``--other-python`` names an interpreter with annbatch
(which needs Python 3.12), anndata and zarr: the same batches are read there by its loader and by ours, in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from scset_tools.data._rows import RowReader

BATCH, DRAWN = 16, 1_000


def write_files(folder: Path, args: argparse.Namespace) -> list[Path]:
    """Files of the same values, in which every cell is of a sample drawn from those of its file."""
    rng = np.random.default_rng(0)
    paths, n = [], args.cells // args.files
    own = np.array_split(np.arange(args.samples), args.files)
    genes = np.sort(rng.integers(0, args.genes, (n, args.values), dtype=np.int32), axis=1)
    values = rng.poisson(2.0, genes.shape).astype(np.float32) + 1
    x = sparse.csr_matrix((values.ravel(), genes.ravel(), args.values * np.arange(n + 1)), shape=(n, args.genes))
    x.sum_duplicates()
    del genes, values
    for i in range(args.files):
        sample = rng.choice(own[i], n)
        obs = pd.DataFrame(
            {"sample": [f"s{k:05d}" for k in sample], "label": np.where(sample % 2, "case", "control")},
            index=[f"c{i}_{j}" for j in range(n)],
        )
        paths.append(folder / f"part{i:02d}.h5ad")
        ad.AnnData(x, obs).write_h5ad(paths[-1])
    return paths


def seconds(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def rate(n_cells: int, call: Callable[[], Any]) -> float:
    """Cells per processor second."""
    return n_cells / seconds(call)


def each(read: Callable[[Any], Any], batches: Iterable[Any]) -> Callable[[], None]:
    """Read one batch after the other and keep none."""

    def through() -> None:
        for rows in batches:
            read(rows)

    return through


def orders(n_samples: int) -> np.ndarray:
    """Two epochs of batches of samples, (batches, BATCH)."""
    rng = np.random.default_rng(1)
    whole = n_samples // BATCH * BATCH
    return np.concatenate([rng.permutation(n_samples)[:whole] for _ in range(2)]).reshape(-1, BATCH)[:12]


def by_annbatch(path: str) -> dict[str, float]:
    """Cells per processor second of batches of whole samples through annbatch's loader and through our reader."""
    import zarr
    from annbatch import Loader
    from annbatch.abc import Sampler

    store = ad.io.sparse_dataset(zarr.open_group(path, mode="r")["X"])
    indptr = zarr.open_group(path, mode="r")["uns/store/indptr"][:]
    ranges = [[slice(int(indptr[s]), int(indptr[s + 1])) for s in samples] for samples in orders(len(indptr) - 1)]
    batches = [np.concatenate([np.arange(s.start, s.stop) for s in own]) for own in ranges]

    class Samples(Sampler):
        batch_size, shuffle = None, False

        def n_batches(self, n_obs: int) -> int:
            return len(batches)

        def validate(self, n_obs: int) -> None:
            pass

        def _sample(self, n_obs: int) -> Any:
            for rows, slices in zip(batches, ranges, strict=True):
                yield {"requests": slices, "splits": [np.arange(len(rows))]}

    def through() -> None:
        for batch in loader:
            assert batch["X"].shape[1]

    loader = Loader(batch_sampler=Samples(), preload_to_gpu=False)
    loader.add_dataset(dataset=store)
    first = next(iter(loader))["X"]  # compiles and fills caches
    reader = RowReader(store)
    assert (first != reader.csr(batches[0])).nnz == 0
    n = sum(map(len, batches))
    return {"annbatch": rate(n, through), "ours": rate(n, each(reader.csr, batches))}


def compare_elsewhere(python: str, path: Path) -> None:
    """Print what the loader of annbatch takes under another Python, with and without the decoder in Rust."""
    for pipeline in ("zarr.core.codec_pipeline.BatchedCodecPipeline", "zarrs.ZarrsCodecPipeline"):
        done = subprocess.run(
            [python, __file__, "--annbatch", str(path)],
            env={
                **os.environ,
                "ZARR_CODEC_PIPELINE__PATH": pipeline,
                "PYTHONPATH": str(Path(__file__).parents[1] / "src"),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            print(f"annbatch, {pipeline.split('.')[0]}: failed: {done.stderr.strip().splitlines()[-1]}")
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        print(
            f"the same batches through annbatch ({pipeline.split('.')[0]} decodes): {found['annbatch']:,.0f} cells/s, ours in the same process "
            f"{found['ours']:,.0f}, {found['ours'] / found['annbatch']:.2f} times as many",
            flush=True,
        )


def fit(path: Path, model: str) -> None:
    """One epoch on the command line, vectors of all samples included, in a process of its own."""
    own = (
        "import atexit, json, sys, time; from _timing import peak_bytes; from scset_tools.cli import main; "
        "atexit.register(lambda: print(json.dumps([time.process_time(), peak_bytes()]))); sys.exit(main())"
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "samples.h5ad"
        options = [
            "-s",
            "sample",
            "-o",
            str(out),
            "--max-epochs",
            "1",
            "--train",
            f"n_cells={DRAWN}",
            "--accelerator",
            "cpu",
        ]
        options += ["--labels-key", "label"] if model == "pascient" else []
        done = subprocess.run(
            [sys.executable, "-c", own, "fit", model, str(path), *options],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            print(f"scset-tools fit {model}: failed: {done.stderr.strip().splitlines()[-1]}")
            return
        taken, peak = json.loads(done.stdout.splitlines()[-1])
        n_samples = ad.read_h5ad(out).n_obs
    print(
        f"scset-tools fit {model} on the store, one epoch of {DRAWN:,} cells of each sample, vectors of {n_samples} samples: {taken:.0f} processor "
        f"seconds, imports included; peak of the process {peak / 2**20:,.0f} MB",
        flush=True,
    )


def n_bytes(path: Path) -> int:
    return sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())


def main() -> None:
    """Print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("cells", 200_000), ("genes", 2_000), ("values", 100), ("samples", 40), ("files", 20)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--other-python", help="interpreter with annbatch, anndata and zarr")
    parser.add_argument("--fit", nargs="+", default=[], help="models to fit on the command line, as pascient maestro")
    parser.add_argument("--store", help="one that was written before: it is only read")
    parser.add_argument("--folder", help="where the files are made and removed again; default: the system's")
    parser.add_argument("--annbatch", help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    if args.annbatch:
        print(json.dumps(by_annbatch(args.annbatch)))
        return
    from _timing import hardware_line

    print(hardware_line())
    if args.store:
        read(Path(args.store), args)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        unsorted = write(Path(name), args)
        read(Path(name) / "cohort.zarr", args)
        rows = np.sort(np.random.default_rng(2).choice(unsorted.shape[0], min(unsorted.shape[0], 1_000), replace=False))
        print(
            f"1,000 scattered cells of an unsorted h5ad file: {rate(len(rows), lambda: RowReader(unsorted).csr(rows)):,.0f} cells/s"
        )


def write(folder: Path, args: argparse.Namespace) -> Any:
    """Write the store ``cohort.zarr`` and return the values of one of its sources."""
    from _timing import peak_above_now

    import scset_tools as sst

    paths = write_files(folder, args)
    size = sum(map(n_bytes, paths))
    copy = seconds(lambda: [shutil.copy(p, folder / "copy") for p in paths])
    out = folder / "cohort.zarr"
    taken, peak = peak_above_now(
        lambda: seconds(lambda: sst.pp.write_store(paths, out, sample_key="sample", progress=False))
    )
    print(
        f"write {args.cells:,} cells from {args.files} files ({size / 2**20:,.0f} MiB): {taken:.1f} s, "
        f"{args.cells / taken:,.0f} cells/s, {taken / max(copy, 1e-9):.0f} times copying them, {peak / 2**20:,.0f} MB over before; "
        f"store {n_bytes(out) / 2**20:,.0f} MiB",
        flush=True,
    )
    unsorted = ad.read_h5ad(paths[0], backed="r").X
    for path in paths[1:]:
        path.unlink()
    (folder / "copy").unlink()
    return unsorted


def read(path: Path, args: argparse.Namespace) -> None:
    """Open a store, set up a model on it and read it in several ways."""
    from _timing import peak_above_now

    import scset_tools as sst

    store, opened = peak_above_now(lambda: sst.pp.read_store(path))
    _ = sst.ScSet  # imports are not what is measured
    set_up = [seconds(lambda: sst.ScSet.setup_anndata(store, sample_key="sample")) for _ in range(2)]
    print(
        f"opened in {opened / 2**20:,.0f} MB; set-up of ScSet on the store: {set_up[0]:.2f} s, again {set_up[1]:.2f} s"
    )
    reader, indptr = RowReader(store.X), store.uns["store"]["indptr"]
    n_cells, n_samples = store.n_obs, len(indptr) - 1
    blocks = [np.arange(i, min(i + 4096, n_cells)) for i in range(0, min(n_cells, 2**19), 4096)]
    whole = rate(sum(map(len, blocks)), each(reader.csr, blocks))
    few = blocks[:32]
    slices = rate(sum(map(len, few)), each(lambda rows: store.X[int(rows[0]) : int(rows[-1]) + 1], few))
    print(f"read from first to last: {whole:,.0f} cells/s; by slices of anndata {slices:,.0f}", flush=True)
    rng = np.random.default_rng(2)
    samples = [np.arange(indptr[s], indptr[s + 1]) for s in range(n_samples)]
    kinds = {
        f"{BATCH} whole samples": lambda rows: rows,
        f"{BATCH} samples x {DRAWN:,} cells drawn, by row": lambda rows: np.sort(rng.permutation(rows)[:DRAWN]),
        f"{BATCH} samples x {DRAWN:,} cells drawn, by name": lambda rows: rng.permutation(rows)[:DRAWN],
    }
    for kind, cells_of in kinds.items():
        batches = [np.concatenate([cells_of(samples[s]) for s in own]) for own in orders(n_samples)]
        by_range, peak = peak_above_now(lambda batches=batches: rate(sum(map(len, batches)), each(reader.csr, batches)))
        part = batches[0][: 4 * DRAWN]
        row_by_row = rate(len(part), lambda part=part: store.X[np.sort(part)])
        print(
            f"batches of {kind}: {by_range:,.0f} cells/s, {by_range / whole:.2f} of ours from first to last, "
            f"{by_range / slices:.2f} of anndata's, {by_range / row_by_row:.1f} times rows picked by anndata; {peak / 2**20:,.0f} MB",
            flush=True,
        )
    for model in args.fit:
        fit(path, model)
    if args.other_python:
        compare_elsewhere(args.other_python, path)


if __name__ == "__main__":
    main()

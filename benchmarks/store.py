"""A store of a cohort: cells written per second against copying bytes, memory, and batches of samples against other ways to read.

    python benchmarks/store.py [--cells 200000] [--genes 2000] [--values 100] [--samples 40] [--files 20]

Synthetic cells in unsorted h5ad files, every file with cells of its own samples in random order. Each figure is in processor
seconds but for memory, the peak of this process over what it held before.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from _timing import hardware_line
from scipy import sparse

import scset_tools as sst
from scset_tools.data._rows import RowReader

BATCH = 16


def write_files(folder: Path, args: argparse.Namespace) -> list[Path]:
    rng = np.random.default_rng(0)
    paths, n = [], args.cells // args.files
    own = np.array_split(np.arange(args.samples), args.files)
    for i in range(args.files):
        genes = np.sort(rng.integers(0, args.genes, (n, args.values)), axis=1).astype(np.int32)
        values = rng.poisson(2.0, genes.shape).astype(np.float32) + 1
        x = sparse.csr_matrix((values.ravel(), genes.ravel(), args.values * np.arange(n + 1)), shape=(n, args.genes))
        x.sum_duplicates()
        obs = pd.DataFrame(
            {"sample": rng.choice([f"s{k:05d}" for k in own[i]], n)}, index=[f"c{i}_{j}" for j in range(n)]
        )
        paths.append(folder / f"part{i:02d}.h5ad")
        ad.AnnData(x, obs).write_h5ad(paths[-1])
    return paths


def seconds(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def by_annbatch(store: Any, batches: list[np.ndarray], ranges: list[list[slice]]) -> float | None:
    """Cells per processor second of the same batches through annbatch's loader; None where it is not installed."""
    try:
        from annbatch import Loader
        from annbatch.abc import Sampler
    except ImportError:
        return None

    class Samples(Sampler):
        batch_size, shuffle = None, False

        def n_batches(self, n_obs: int) -> int:
            return len(batches)

        def validate(self, n_obs: int) -> None:
            pass

        def _sample(self, n_obs: int) -> Any:
            for rows, slices in zip(batches, ranges, strict=True):
                yield {"requests": slices, "splits": [np.arange(len(rows))]}

    loader = Loader(batch_sampler=Samples(), preload_to_gpu=False)
    loader.add_dataset(dataset=store.X)
    first = next(iter(loader))["X"]  # compiles and fills caches
    expected = RowReader(store.X).csr(np.concatenate([np.arange(s.start, s.stop) for s in ranges[0]]))
    assert (first != expected).nnz == 0
    start, n = time.process_time(), 0
    for batch in loader:
        n += batch["X"].shape[0]
    return n / (time.process_time() - start)


def n_bytes(path: Path) -> int:
    return sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())


def main() -> None:
    """Print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("cells", 200_000), ("genes", 2_000), ("values", 100), ("samples", 40), ("files", 20)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    print(hardware_line())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_files(folder, args)
        size = sum(map(n_bytes, paths))
        copy = seconds(lambda: [shutil.copy(p, folder / "copy") for p in paths])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        out = folder / "cohort.zarr"
        taken = seconds(lambda: sst.pp.write_store(paths, out, sample_key="sample", progress=False))
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(
            f"write {args.cells:,} cells from {args.files} files ({size / 2**20:,.0f} MiB): {taken:.1f} s, "
            f"{args.cells / taken:,.0f} cells/s, {taken / max(copy, 1e-9):.0f} times copying them, {peak:,.0f} MB over before; "
            f"store {n_bytes(out) / 2**20:,.0f} MiB"
        )
        store = sst.pp.read_store(out)
        set_up = [seconds(lambda: sst.ScSet.setup_anndata(store, sample_key="sample")) for _ in range(2)]
        print(f"set-up of ScSet on the store: {set_up[0]:.2f} s (libraries are imported), again {set_up[1]:.2f} s")
        reader, indptr = RowReader(store.X), store.uns["store"]["indptr"]
        whole = seconds(
            lambda: [reader.csr(np.arange(i, min(i + 4096, args.cells))) for i in range(0, args.cells, 4096)]
        )
        print(f"read from first to last: {args.cells / whole:,.0f} cells/s")
        rng = np.random.default_rng(1)
        order = np.concatenate(
            [rng.permutation(args.samples)[: args.samples // BATCH * BATCH] for _ in range(2)]
        ).reshape(-1, BATCH)
        batches = [np.concatenate([np.arange(indptr[s], indptr[s + 1]) for s in samples]) for samples in order]
        ranges = [[slice(int(indptr[s]), int(indptr[s + 1])) for s in samples] for samples in order]
        n_cells = sum(map(len, batches))
        by_range = n_cells / seconds(lambda: [reader.csr(rows) for rows in batches])
        annbatch = by_annbatch(store, batches, ranges)
        if annbatch is None:
            print("annbatch is not installed (it needs Python 3.12)")
        else:
            print(
                f"the same batches through annbatch: {annbatch:,.0f} cells/s, {by_range / annbatch:.2f} of it by ranges of ours"
            )
        plain = RowReader(store.X, max_gap=0)
        few = batches[: max(1, len(batches) // 8)]
        one_by_one = sum(map(len, few)) / seconds(lambda: [plain.csr(rows) for rows in few])
        unsorted = RowReader(ad.read_h5ad(paths[0], backed="r").X)
        rows = np.sort(rng.choice(unsorted.n_rows, min(unsorted.n_rows, 1_000), replace=False))
        scattered = len(rows) / seconds(lambda: unsorted.csr(rows))
        print(
            f"batches of {BATCH} whole samples: {by_range:,.0f} cells/s from the store, {by_range * whole / args.cells:.2f} of reading "
            f"from first to last, {by_range / one_by_one:.1f} times row by row, {by_range / scattered:.1f} times 1,000 "
            "scattered cells of an unsorted h5ad file"
        )


if __name__ == "__main__":
    main()

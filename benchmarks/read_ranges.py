"""Cells per processor second of batches of samples from a file: range by range, against rows picked by anndata.

    python benchmarks/read_ranges.py [--cells 40000] [--genes 2000] [--values 100]

A cohort of 40 samples in an h5ad file, sorted by sample; batches of 16 samples in random order, whole and 500 cells of each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
from _timing import hardware_line
from scipy import sparse

from scset_tools.data._rows import RowReader

N_SAMPLES, BATCH = 40, 16


def cohort(path: Path, n_cells: int, n_genes: int, n_values: int) -> Path:
    rng = np.random.default_rng(0)
    genes = np.sort(rng.integers(0, n_genes, (n_cells, n_values)), axis=1).astype(np.int32)
    values = rng.poisson(2.0, genes.shape).astype(np.float32) + 1
    x = sparse.csr_matrix((values.ravel(), genes.ravel(), n_values * np.arange(n_cells + 1)), shape=(n_cells, n_genes))
    x.sum_duplicates()
    ad.AnnData(x).write_h5ad(path)
    return path


def rate(read: Callable[[np.ndarray], Any], batches: list[np.ndarray]) -> float:
    start = time.process_time()
    for rows in batches:
        read(rows)
    return sum(map(len, batches)) / (time.process_time() - start)


def main() -> None:
    """Print one line for whole and for drawn samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=40_000)
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--values", type=int, default=100)
    args = parser.parse_args()
    print(hardware_line())
    rng = np.random.default_rng(1)
    each = args.cells // N_SAMPLES
    with tempfile.TemporaryDirectory() as folder:
        path = cohort(Path(folder) / "cohort.h5ad", args.cells, args.genes, args.values)
        reader = RowReader(ad.read_h5ad(path, backed="r").X)
        for name, n in (("whole samples", each), ("half of the cells of each sample", each // 2)):
            batches: list[Any] = []
            for _ in range(3):
                samples = rng.choice(N_SAMPLES, BATCH, replace=False)
                batches.append(
                    np.concatenate([s * each + np.sort(rng.choice(each, n, replace=False)) for s in samples])
                )
            by_range = rate(reader.csr, batches)
            one_by_one = rate(lambda rows: reader.source[np.sort(rows)], batches)  # h5 takes no other order
            print(
                f"{name}: {by_range:,.0f} cells/s by range, {one_by_one:,.0f} by rows of anndata, {by_range / one_by_one:.1f}x"
            )


if __name__ == "__main__":
    main()

"""What it costs to set a model up and to embed samples: time and memory, against another tree of this repository.

Each figure is the least of some repeats, each in a process of its own, in turn with the other tree; time is processor time.

    git worktree add /tmp/before <commit>
    python benchmarks/setup_cost.py /tmp/before
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
COHORTS = {"1,000,000 x 30, dense": (1_000_000, 30, 1.0), "200,000 x 2,000, sparse": (200_000, 2_000, 0.08)}
N_SAMPLES = 400


def make(path: Path, *, n_cells: int, n_features: int, density: float) -> None:
    """A cohort on disk: samples in any order of rows, a label of each sample, text in two columns more."""
    import anndata as ad
    import numpy as np
    import pandas as pd
    from scipy import sparse

    rng = np.random.default_rng(0)
    sample = rng.integers(0, N_SAMPLES, n_cells)
    if density < 1:
        per_row = int(n_features * density)
        columns = np.sort(
            rng.integers(0, n_features // per_row, (n_cells, per_row)) + np.arange(per_row) * (n_features // per_row)
        )
        values = rng.integers(1, 9, n_cells * per_row).astype(np.float32)
        x = sparse.csr_matrix((values, columns.ravel(), np.arange(n_cells + 1) * per_row), shape=(n_cells, n_features))
    else:
        x = rng.random((n_cells, n_features), dtype=np.float32)
    obs = pd.DataFrame(
        {
            "sample": pd.Categorical.from_codes(sample, [f"s{i:03d}" for i in range(N_SAMPLES)]),
            "condition": np.where(sample % 2, "case", "control"),
            "cell_type": rng.choice(["T", "B", "NK"], n_cells),
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    ad.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(n_features)])).write_h5ad(path)


def measure(path: Path, *, backed: bool) -> dict[str, float]:
    """Seconds and peak memory (GB) of set-up, of a second set-up and of vectors of all samples, in this process."""
    import resource
    import time
    import warnings

    warnings.simplefilter("ignore")
    import anndata as ad
    import torch

    import scset_tools as sst

    torch.set_num_threads(1)
    adata = ad.read_h5ad(path, backed="r" if backed else None)
    out = {}

    def timed(name: str, call) -> None:
        start = time.process_time()
        call()
        out[name] = time.process_time() - start

    timed("set-up", lambda: sst.PaSCient.setup_anndata(adata, "sample", labels_key="condition"))
    timed("set-up again", lambda: sst.PaSCient.setup_anndata(adata, "sample", labels_key="condition"))
    model = sst.PaSCient(adata, n_hidden=64, n_latent=32, random_state=0)
    timed("vectors", model.get_sample_representation)
    timed("vectors again", model.get_sample_representation)
    timed("samples", model.to_sample_adata)
    out["GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return out


def run(tree: Path, path: Path, *, backed: bool) -> dict[str, float]:
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", str(path), *(["--backed"] if backed else [])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", nargs="?", type=Path, default=HERE, help="tree to compare with; default: this one")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the cells")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--backed", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, backed=arguments.backed)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, (n_cells, n_features, density) in COHORTS.items():
            path = Path(folder) / "cells.h5ad"
            make(path, n_cells=int(n_cells * arguments.scale), n_features=n_features, density=density)
            for backed in (False, True):
                found: dict[str, list[dict[str, float]]] = {"before": [], "now": []}
                for _ in range(arguments.repeats):
                    found["before"].append(run(arguments.before, path, backed=backed))
                    found["now"].append(run(HERE, path, backed=backed))
                print(f"{name}{', backed' if backed else ''}: least of {arguments.repeats}")
                for key in found["now"][0]:
                    before, now = (min(one[key] for one in found[side]) for side in ("before", "now"))
                    print(f"  {key:14s} {before:8.2f} -> {now:8.2f}  ({now / max(before, 1e-3):.2f})", flush=True)


if __name__ == "__main__":
    main()

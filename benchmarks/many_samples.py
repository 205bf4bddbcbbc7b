"""Many small samples: processor seconds and memory of training, embedding, profiles and a probe, by the number of samples.

    python benchmarks/many_samples.py [--samples 5000 20000] [--cells 20] [--features 30] [--epochs 1]   # 0: no training

Each line is a process of its own, with MAESTRO at small sizes. Linear is a ratio per sample of 1 between the numbers.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings

import numpy as np
from _timing import hardware_line, peak_above_now

STEPS = (
    "set-up",
    "training",
    "embedding",
    "mean profile",
    "k-means profile",
    "probe",
    "probe by neighbours",
    "health",
    "neighbour table",
)


def measure(n_samples: int, n_cells: int, n_features: int, epochs: int) -> dict[str, float]:
    """Processor seconds of each step, and the peak of memory over that of the cells in MB."""
    import anndata as ad
    import pandas as pd

    import scset_tools as sst

    warnings.filterwarnings("ignore")
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, n_samples)
    x = rng.standard_normal((n_samples * n_cells, n_features)).astype(np.float32)
    x[:, 0] += np.repeat(label, n_cells)
    names = np.char.add("s", np.char.zfill(np.arange(n_samples).astype(str), 6))
    obs = pd.DataFrame(
        {
            "sample": pd.Categorical(np.repeat(names, n_cells)),
            "label": np.repeat(np.where(label, "case", "control"), n_cells),
        },
        index=np.arange(len(x)).astype(str),
    )
    adata = ad.AnnData(x, obs)
    _ = sst.MAESTRO, sst.profiles, sst.tl  # imports are not what is measured
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken: dict[str, float] = {}

    def timed(name, call):
        start = time.process_time()
        out, peak = peak_above_now(call)
        taken[name], taken[f"{name}, MB"] = time.process_time() - start, peak / 2**20
        return out

    timed("set-up", lambda: sst.MAESTRO.setup_anndata(adata, sample_key="sample"))
    model = sst.MAESTRO(adata, n_hidden=16, n_latent=8, n_inducing=4, n_cells=n_cells, n_heads=2, random_state=0)
    how = {"batch_size": 256, "accelerator": "cpu", "enable_progress_bar": False, "watch_health": False, "seed": 0}
    timed("training", lambda: model.train(epochs, **how) if epochs else None)
    samples = timed("embedding", lambda: model.to_sample_adata(batch_size=256))
    timed("mean profile", lambda: sst.profiles.mean(adata, sample_key="sample"))
    timed("k-means profile", lambda: sst.profiles.kmeans_fractions(adata, sample_key="sample", n_clusters=10))
    timed("probe", lambda: sst.tl.probe(samples, label_key="label", n_repeats=1))
    timed("probe by neighbours", lambda: sst.tl.probe(samples, label_key="label", probe="knn", n_repeats=1))
    second = samples.copy()
    second.X = samples.X + rng.normal(scale=0.1, size=samples.shape)
    timed("health", lambda: sst.tl.representation_health(samples, second=second))
    timed("neighbour table", lambda: sst.tl.neighbor_table(samples, "label", n_neighbors=5))
    taken["memory"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return taken


def main() -> None:
    """Print one line for each step, with what a sample costs at the largest number over that at the smallest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[5_000, 20_000])
    for name, value in (("cells", 20), ("features", 30), ("epochs", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.samples[0], args.cells, args.features, args.epochs)))
        return
    print(hardware_line())
    found = {}
    for n in args.samples:
        command = [sys.executable, __file__, "--one", "--samples", str(n)]
        command += [w for name in ("cells", "features", "epochs") for w in (f"--{name}", str(getattr(args, name)))]
        found[n] = json.loads(
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        )
    low, high = min(found), max(found)
    print("| | " + " | ".join(f"{n:,} samples" for n in found) + " | per sample |")
    print("|---" * (len(found) + 2) + "|")
    for step in (*STEPS, "memory"):
        ratio = found[high][step] / high / max(found[low][step] / low, 1e-12)
        unit = "MB" if step == "memory" else "s"
        cells = " | ".join(
            f"{found[n][step]:,.1f} {unit}" + (f", {found[n][f'{step}, MB']:,.0f} MB" if unit == "s" else "")
            for n in found
        )
        print(f"| {step}{' over the cells' if step == 'memory' else ''} | {cells} | {ratio:.2f}x |")


if __name__ == "__main__":
    main()

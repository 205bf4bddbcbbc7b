"""Time and memory of every method in its default sizes, on cohorts of the kind it is made for.

``OMP_NUM_THREADS=1 python benchmarks/methods.py [--write]``: each method in a process of its own, one thread, processor seconds of one epoch of
training (after a first one that warms up) and of embedding all cells; peak memory over what the process had before the method was
built. 24 samples of 500 cells: blood cells resampled from 68k PBMC (26 markers, 14 principal components) or, for methods that read
genes, 12,000 cells drawn from the pancreas cohort (500 genes).
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings

import numpy as np
from _results import write_section
from _timing import in_fresh_process, peak_above_now

N_SAMPLES, N_CELLS = 24, 500
MODELS = {
    "MAESTRO": ("markers", {}, {}),
    "ScSet": ("components", {}, {}),
    "PaSCient": ("genes", {"labels_key": "label"}, {}),
    "SelfGuidedMAE": ("genes", {}, {"values": "normalized"}),
}
PROFILES = [
    "Mean", "MeanPerType", "Fractions", "KMeansFractions", "KMeansMeans", "MixtureFractions", "OTKE", "KernelMean",
    "NumberOfCells", "SequencingDepth", "RandomVector",
]  # fmt: skip


TEXT = (
    "2 cores of a shared x86 machine, no GPU; one thread, processor seconds. 24 samples of 500 cells; default sizes of every method; a second "
    "epoch, with train_size=1 and the default batch size. Memory: peak over what the process had before the method was built."
)


def cohort(kind: str):
    """12,000 cells of 24 samples, with a label and a cell type."""
    import scset_tools as sst

    if kind == "markers":
        adata = sst.datasets.cytometry_cohort(n_donors=N_SAMPLES // 2, n_cells=N_CELLS)
        adata.obs["label"] = adata.obs["condition"]
    elif kind == "components":
        adata = sst.datasets.composition_cohort(n_samples=N_SAMPLES, n_cells=N_CELLS)
        adata.obs["label"] = adata.obs["subtype"]
    else:
        import scanpy as sc

        base = sst.datasets.pancreas()
        sc.pp.highly_variable_genes(base, n_top_genes=500)
        rows = np.random.default_rng(0).integers(base.n_obs, size=N_SAMPLES * N_CELLS)
        adata = base[rows, base.var["highly_variable"]].copy()
        adata.obs_names_make_unique()
        which = np.repeat(np.arange(N_SAMPLES), N_CELLS)
        adata.obs["sample"] = [f"s{i:02d}" for i in which]
        adata.obs["label"] = np.where(which % 2, "a", "b")
        adata.obs["cell_type"] = adata.obs["cell_type"].astype("category")
    return adata


def measure(name: str) -> dict:
    """Seconds and memory of one method, in this process."""
    warnings.filterwarnings("ignore")
    import scvi

    import scset_tools as sst

    scvi.settings.verbosity = logging.ERROR
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if name in MODELS:
        kind, setup, build = MODELS[name]
        adata = cohort(kind)
        cls = getattr(sst, name)
        cls.setup_anndata(adata, sample_key="sample", **setup)
        options = {"accelerator": "cpu", "enable_progress_bar": False, "train_size": 1.0, "seed": 0}
        seconds = {}

        def run() -> None:
            model = cls(adata, random_state=0, **build)
            model.train(1, **options)
            start = time.process_time()
            model.train(1, **options)
            seconds["epoch"] = time.process_time() - start
            start = time.process_time()
            model.to_sample_adata()
            seconds["embed"] = time.process_time() - start

        _, memory = peak_above_now(run)
        return {"reads": f"{adata.n_vars} {kind}", **seconds, "memory": memory / 1e6}
    import inspect

    adata = cohort("markers")
    cls = getattr(sst.profiles, name)
    keys = {"cell_type_key": "cell_type"} if "cell_type_key" in inspect.signature(cls).parameters else {}
    start = time.process_time()
    _, memory = peak_above_now(lambda: cls(sample_key="sample", **keys).fit_transform(adata))
    return {"reads": "26 markers", "epoch": None, "embed": time.process_time() - start, "memory": memory / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table into RESULTS.md")
    parser.add_argument("--only", help="one method, in this process, as JSON")
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args.only)))
        return
    lines = ["| method | reads | one epoch, s | embed (models), fit and transform (profiles), s | peak memory, MB |"]
    lines.append("|---|---|---|---|---|")
    print(*lines, sep="\n")
    for name in [*MODELS, *PROFILES]:
        r = in_fresh_process(__file__, "--only", name)
        epoch = "" if r["epoch"] is None else f"{r['epoch']:.1f}"
        lines.append(f"| {name} | {r['reads']} | {epoch} | {r['embed']:.2f} | {r['memory']:.0f} |")
        print(lines[-1], flush=True)
    if args.write:
        write_section("methods", "Time and memory of each method", "\n".join([TEXT, "", *lines]))


if __name__ == "__main__":
    main()

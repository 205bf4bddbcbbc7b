"""Other packages on the same cells, in one run: what each takes in processor seconds.

    python benchmarks/peers.py [--samples 16] [--cells 250] [--genes 500]

Training: MrVI (scvi-tools), which has a vector per sample too, MultiMIL, and our models at their default sizes, cells per second over one
epoch; what a package learns and how long it has to train differ. Pseudobulk: scanpy and decoupler, where installed, and our mean profile.
Transport between two sets: POT's network simplex, geomloss and ours. Integrated gradients of one sample (1,500 cells x 5,000 genes, 50 steps):
captum and ours. What is not installed is left out with a word; MultiMIL and decoupler were put into a folder of their own:

    pip install --no-deps --target peers decoupler==2.2.0 marsilea adjustText legendkit session-info2
    pip install --no-deps --target peers --ignore-requires-python multimil==1.0.0
    PYTHONPATH=peers python benchmarks/peers.py
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from _timing import hardware_line
from scipy import sparse

import scset_tools as sst

FIT = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False}


def counts(n_samples: int, n_cells: int, n_genes: int) -> ad.AnnData:
    rng = np.random.default_rng(0)
    n = n_samples * n_cells
    x = sparse.csr_matrix(rng.poisson(0.2, (n, n_genes)).astype(np.float32))
    obs = pd.DataFrame(
        {
            "sample": pd.Categorical(np.repeat([f"s{i:02d}" for i in range(n_samples)], n_cells)),
            "label": pd.Categorical(np.where(np.arange(n) // n_cells % 2, "case", "control")),
        },
        index=[f"c{i}" for i in range(n)],
    )
    return ad.AnnData(x, obs, pd.DataFrame(index=[f"g{i}" for i in range(n_genes)]))


def seconds(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def line(what: str, call: Callable[[], Any], *, unit: str = "s", of: int = 0) -> None:
    try:
        if not of:
            call()  # imports and compiles
        taken = seconds(call)
    except ImportError as error:
        print(f"| {what} | not installed ({error.name}) |", flush=True)
        return
    except Exception as error:  # noqa: BLE001 - of another package: its line says so
        print(f"| {what} | {type(error).__name__}: {str(error).splitlines()[0][:100]} |", flush=True)
        return
    print(f"| {what} | {of / taken:,.0f} {unit} |" if of else f"| {what} | {taken:.3f} s |", flush=True)


def mrvi(adata: ad.AnnData) -> None:
    from scvi.external import MRVI

    MRVI.setup_anndata(adata, sample_key="sample")
    MRVI(adata).train(**FIT)


def multimil(adata: ad.AnnData) -> None:
    from multimil.model import MILClassifier

    dense = ad.AnnData(adata.X.toarray(), adata.obs.copy(), adata.var)  # it wants vectors of cells, dense
    MILClassifier.setup_anndata(dense, categorical_covariate_keys=["sample", "label"])
    model = MILClassifier(dense, sample_key="sample", classification=["label"])
    model.train(**FIT, early_stopping=False, save_best=False)


def ours(name: str, adata: ad.AnnData, **build: Any) -> None:
    cls = getattr(sst, name)
    cls.setup_anndata(adata, "sample", labels_key="label")
    cls(adata, random_state=0, **build).train(**FIT, watch_health=False, seed=0)


def decoupler(adata: ad.AnnData) -> None:
    import decoupler as dc

    dc.pp.pseudobulk(adata, sample_col="sample", groups_col=None, mode="sum", empty=False)


def scanpy(adata: ad.AnnData) -> None:
    import scanpy as sc

    sc.get.aggregate(adata, by="sample", func="mean")


def transports(n: int = 400) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 30, generator=generator) for _ in range(2))

    def pot() -> None:
        import ot

        ot.emd2(ot.unif(n), ot.unif(n), ot.dist(x.numpy(), y.numpy()))

    def geomloss() -> None:
        from geomloss import SamplesLoss

        SamplesLoss("sinkhorn", p=2, blur=0.05, scaling=0.9, backend="tensorized")(x, y)

    from scset_tools.nn.loss import SinkhornLoss

    line(f"transport of {n} to {n} cells: POT, exact", pot)
    line("the same: geomloss, blur .05, scaling .9", geomloss)
    for solver in ("exact", "scaling"):
        loss = SinkhornLoss(solver=solver)
        line(f"the same: ours, {solver}, with gradient", lambda loss=loss: loss(x, y))


def attributions() -> None:
    import attribution

    made = attribution.network(64)
    dense, compressed = attribution.cells(is_sparse=False), attribution.cells(is_sparse=True)
    line("integrated gradients of one sample: captum", lambda: attribution.captums(made, dense))
    line("the same: ours, through the first layer", lambda: attribution.ours(made, dense))
    line("the same: ours, sparse", lambda: attribution.ours(made, compressed))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("samples", 16), ("cells", 250), ("genes", 500)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    print(hardware_line())
    adata = counts(args.samples, args.cells, args.genes)
    n = adata.n_obs
    print(f"| {args.samples} samples x {args.cells} cells x {args.genes} genes | |\n|---|---|")
    for package in (scanpy, decoupler):
        line(f"pseudobulk: {package.__name__}", lambda package=package: package(adata))
    line("pseudobulk: profiles.mean", lambda: sst.profiles.mean(adata, sample_key="sample"))
    transports()
    attributions()
    for name, build in (("PaSCient", {"log_normalize": True}), ("ScSet", {}), ("MAESTRO", {})):
        line(f"training, cells/s: {name}", lambda name=name, build=build: ours(name, adata, **build), unit="", of=n)
    line("training, cells/s: MrVI", lambda: mrvi(adata), unit="", of=n)
    line("training, cells/s: MultiMIL", lambda: multimil(adata), unit="", of=n)


if __name__ == "__main__":
    main()

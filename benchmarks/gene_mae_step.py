"""What it saves to encode expressed genes only, and to put cells with like numbers of them into one batch.

    python benchmarks/gene_mae_step.py --process-time            # CPU, ratios within the run
    python benchmarks/gene_mae_step.py --part gpu                # scfoundation preset in bf16: tokens per second, memory

A step is loss, gradients and optimiser of the default preset. `all genes` gives the encoder every gene as a token, hides as many of
them, and is otherwise the same code. `padded to longest` takes cells in random order; real cells, whose numbers of
expressed genes differ as they do (../shared/data or $SCSET_TOOLS_DATA; made-up ones if it is not there).
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
import torch
from _timing import hardware_line, interleaved_medians, print_table

import scset_tools as sst
from scset_tools.data._cell_splitter import CellDataSplitter
from scset_tools.data._cells import CellBatch
from scset_tools.model.selfguided import _encoder

DATA = Path(os.environ.get("SCSET_TOOLS_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def made_up(n_cells: int, n_genes: int, density: float, *, spread: float = 0.0) -> ad.AnnData:
    rng = np.random.default_rng(0)
    share = np.clip(density * np.exp(spread * rng.normal(size=n_cells) - spread**2 / 2), 2 / n_genes, 0.9)
    x = rng.gamma(2.0, 1.0, (n_cells, n_genes)).astype(np.float32) * (rng.random((n_cells, n_genes)) < share[:, None])
    x[:, :2] += 0.1
    obs = pd.DataFrame({"donor": [f"d{i % 4}" for i in range(n_cells)]}, index=[str(i) for i in range(n_cells)])
    return ad.AnnData(sp.csr_matrix(x), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(n_genes)]))


def real(n_genes: int) -> ad.AnnData:
    file = DATA / "pancreas_atlas_hormone2cell.h5ad"
    if not file.exists():
        return made_up(3000, n_genes, 0.06, spread=0.8)
    adata = ad.read_h5ad(file)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=n_genes, batch_key="study")
    adata = adata[:, adata.var["highly_variable"]].copy()
    sc.pp.filter_cells(adata, min_genes=2)
    adata.obs["donor"] = adata.obs["donor_id"]
    return adata


def built(adata: ad.AnnData, **build: object) -> sst.SelfGuidedMAE:
    sst.SelfGuidedMAE.setup_anndata(adata, "donor")
    return sst.SelfGuidedMAE(adata, values="normalized", random_state=0, **build)


def stepper(model: sst.SelfGuidedMAE):
    optimizer = torch.optim.AdamW(model.module.parameters(), lr=1e-4, fused=True)

    def step(batch: CellBatch) -> None:
        optimizer.zero_grad()
        model.module.loss(batch).loss.backward()
        optimizer.step()

    return step


def all_genes(batch: CellBatch, n_genes: int) -> CellBatch:
    """The same cells with a token for every gene, zero or not."""
    value = torch.zeros(batch.n_cells, n_genes)
    cell = torch.arange(batch.n_cells).repeat_interleave(batch.ptr.diff())
    value[cell, batch.gene] = batch.value
    gene = torch.arange(n_genes).repeat(batch.n_cells)
    return replace(batch, gene=gene, value=value.flatten(), ptr=torch.arange(batch.n_cells + 1) * n_genes)


def encoding(n_genes: int, density: float, *, n_cells: int, repeats: int, clock) -> list:
    model = built(made_up(n_cells, n_genes, density))
    batch = model._dataset(model.adata).cells(np.arange(n_cells))
    whole = all_genes(batch, n_genes)
    step = stepper(model)
    share_hidden = 0.3 * density + 0.03 * (1 - density)

    def expressed_only() -> None:
        model.module.mask_rate = 0.3
        step(batch)

    def every_gene() -> None:
        model.module.mask_rate = share_hidden
        step(whole)

    def embed(what: CellBatch) -> None:
        with torch.inference_mode():
            model.module.embed_cells(what)

    runs = {
        "step": expressed_only,
        "step, all genes": every_gene,
        "embed": lambda: embed(batch),
        "embed, all genes": lambda: embed(whole),
    }
    seconds = interleaved_medians(runs, repeats=repeats, clock=clock)
    return [
        n_genes,
        f"{density:.0%}",
        *(1e3 * s for s in seconds.values()),
        seconds["step, all genes"] / seconds["step"],
        seconds["embed, all genes"] / seconds["embed"],
    ]


def embedding(*, n_cells: int, repeats: int, clock) -> None:
    """Vectors of cells with and without torch's fused path of inference, all else equal."""
    model = built(made_up(n_cells, 2_000, 0.1, spread=0.4))
    batch = model._dataset(model.adata).cells(np.arange(n_cells))
    model.module.eval()

    def vectors(*, fused: bool):
        with torch.inference_mode(), mock.patch.object(_encoder, "_fused_kernels", partial(_fused, is_on=fused)):
            return model.module.embed_cells(batch)

    apart = float((vectors(fused=True) - vectors(fused=False)).abs().max())
    seconds = interleaved_medians(
        {"fused": lambda: vectors(fused=True), "plain": lambda: vectors(fused=False)}, repeats=repeats, clock=clock
    )
    print(
        f"vectors of {n_cells} cells of 2,000 genes, {len(batch.gene):,} expressed: fused path {seconds['fused']:.2f} s, plain layers (ours on a CPU) "
        f"{seconds['plain']:.2f} s, {seconds['fused'] / seconds['plain']:.2f} times; largest difference {apart:.1e}"
    )


@contextmanager
def _fused(*, is_on: bool, enabled: bool):
    del enabled
    torch.backends.mha.set_fastpath_enabled(is_on)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def decoding(n_genes: int, density: float, *, n_cells: int, repeats: int, clock) -> list:
    model = built(made_up(n_cells, n_genes, density))
    batch = model._dataset(model.adata).cells(np.arange(n_cells))
    step = stepper(model)

    def run(*, is_sparse: bool) -> None:
        model.module.decoder.is_sparse = is_sparse
        step(batch)

    runs = {"sums updated": lambda: run(is_sparse=True), "all genes": lambda: run(is_sparse=False)}
    seconds = interleaved_medians(runs, repeats=repeats, clock=clock)
    return [
        n_genes,
        f"{density:.0%}",
        *(1e3 * s for s in seconds.values()),
        seconds["all genes"] / seconds["sums updated"],
    ]


def some_of(adata: ad.AnnData, n_cells: int) -> ad.AnnData:
    return adata[np.sort(np.random.default_rng(0).choice(adata.n_obs, min(n_cells, adata.n_obs), replace=False))].copy()


def batching(adata: ad.AnnData, batch_size: int, *, repeats: int, clock) -> list:
    model = built(adata)
    step = stepper(model)
    loaders, padding = {}, {}
    for name, is_grouped in (("grouped", True), ("padded to longest", False)):
        splitter = CellDataSplitter(
            model.adata_manager,
            train_size=1.0,
            batch_size=batch_size,
            seed=0,
            group_by_length=is_grouped,
            **model._read,
        )
        splitter.trainer = None
        batches = list(splitter.train_dataloader())
        padding[name] = sum(b.n_cells * int(b.ptr.diff().max()) for b in batches) / sum(len(b.gene) for b in batches)
        loaders[name] = batches  # a whole epoch: grouped batches are of very different lengths

    seconds: dict[str, list[float]] = {name: [] for name in loaders}
    for turn in range(repeats + 1):  # the first is a warm-up
        for name, batches in loaders.items():
            total = 0.0
            for batch in batches:
                start = clock()
                step(batch)
                total += clock() - start
            if turn:
                seconds[name].append(total)
    per_cell = {name: np.median(seconds[name]) / sum(b.n_cells for b in loaders[name]) for name in seconds}
    return [
        batch_size,
        *(f"{p:.2f}" for p in padding.values()),
        *(1e3 * s for s in per_cell.values()),
        per_cell["padded to longest"] / per_cell["grouped"],
    ]


def accelerator(device: str, *, n_genes: int, n_cells: int, n_steps: int, small: bool) -> None:
    """Tokens per second and peak memory of training steps of the scfoundation preset in bf16."""
    preset = dict(sst.SelfGuidedMAE.preset("scfoundation").model)
    if small:  # to try the code where there is no GPU
        preset |= {"n_hidden": 24, "n_layers": 1, "n_ff": 48, "n_decoder_hidden": 16, "n_decoder_layers": 1}
        preset |= {"n_decoder_heads": 2, "dim_decoder_head": 8, "n_decoder_features": 16}
    adata = made_up(n_cells, n_genes, 0.08)
    adata.X.data = np.ceil(adata.X.data)
    sst.SelfGuidedMAE.setup_anndata(adata, "donor")
    model = sst.SelfGuidedMAE(adata, random_state=0, **preset)
    model.module.to(device)
    batch = model._dataset(adata).cells(np.arange(n_cells)).to(device)
    optimizer = torch.optim.AdamW(model.module.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = model.module.loss(batch).loss
        loss.backward()
        optimizer.step()

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    step()
    wait()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    for _ in range(n_steps):
        step()
    wait()
    seconds = (time.perf_counter() - start) / n_steps
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else float("nan")
    print(
        f"{n_cells} cells x {n_genes} genes, {len(batch.gene):,} expressed genes: {seconds:.3f} s a step, "
        f"{len(batch.gene) / seconds:,.0f} expressed genes and {n_cells * n_genes / seconds:,.0f} genes per second, "
        f"peak {peak:.1f} GiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--part", choices=["cpu", "encoding", "embedding", "decoding", "batching", "gpu"], default="cpu"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cells", type=int, default=8, help="in a batch of the comparison of encodings")
    parser.add_argument("--subset", type=int, default=640, help="cells of the comparison of batches")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64], help="batch sizes of that comparison")
    parser.add_argument("--process-time", action="store_true", help="processor time of one thread instead of wall time")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="small sizes, for a trial of the part gpu on a CPU")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    if arguments.part == "gpu":
        n_genes = 500 if arguments.small else 19_264
        accelerator(arguments.device, n_genes=n_genes, n_cells=arguments.cells, n_steps=5, small=arguments.small)
        return
    clock = time.perf_counter
    if arguments.process_time:
        torch.set_num_threads(1)
        clock = time.process_time
    print(hardware_line(), "\n")
    common = {"repeats": arguments.repeats, "clock": clock}
    if arguments.part in ("cpu", "encoding"):
        header = [
            "genes",
            "density",
            "step, ms",
            "all genes, ms",
            "embed, ms",
            "all genes, ms",
            "step ratio",
            "embed ratio",
        ]
        cases = [(2000, 0.05), (2000, 0.1), (4000, 0.05)]
        print_table(header, [encoding(n, d, n_cells=arguments.cells, **common) for n, d in cases])
        print()
    if arguments.part in ("cpu", "embedding"):
        embedding(n_cells=8 * arguments.cells, **common)
    if arguments.part in ("cpu", "decoding"):
        cases = [(2000, 0.05), (2000, 0.1), (19_264, 0.05)]
        print_table(
            ["genes", "density", "decoder sums updated, ms", "decoder over all genes, ms", "ratio"],
            [decoding(n, d, n_cells=arguments.cells, **common) for n, d in cases],
        )
        print()
    if arguments.part in ("cpu", "batching"):
        header = [
            "batch size",
            "padding, grouped",
            "padding, random",
            "grouped, ms per cell",
            "random, ms per cell",
            "ratio",
        ]
        print_table(
            header, [batching(some_of(real(2000), arguments.subset), size, **common) for size in arguments.sizes]
        )


if __name__ == "__main__":
    main()

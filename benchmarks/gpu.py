"""What one GPU makes of the models: steps, whole samples, batches from a store, transport, and equality with the CPU.

    python benchmarks/gpu.py [--minutes 8]

Sized for eight minutes of one data-centre GPU in bf16. Without a GPU the same script runs the same parts on small data in
float32 and says so: its figures then show that it runs, and nothing else.

Parts: a step of each model at the sizes of its paper (samples and cells per second, peak memory, share of the matrix rate that is
measured in the same run, without the fused attention of sets of unequal size, which torch's counter does not know; times that
the host waited); vectors of one sample of 1.39 million cells x 30; PaSCient on 32 samples of
1,500 cells x 28,231 genes from a store; transport against geomloss; vectors against those of the CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from _timing import hardware_line
from scipy import sparse
from torch.utils.flop_counter import FlopCounterMode

import scset_tools as sst

IS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if IS_GPU else "cpu")
N_STEPS = 5 if IS_GPU else 2


def cells_of(n_samples: int, n_cells: int, n_features: int, *, density: float | None = None) -> ad.AnnData:
    rng = np.random.default_rng(0)
    n = n_samples * n_cells
    if density is None:
        x: Any = rng.standard_normal((n, n_features), dtype=np.float32)
    else:
        n_values = max(1, int(density * n_features))
        genes = np.sort(rng.integers(0, n_features, (n, n_values)), axis=1).astype(np.int32)
        values = rng.poisson(2.0, genes.size).astype(np.float32) + 1
        x = sparse.csr_matrix((values, genes.ravel(), n_values * np.arange(n + 1)), shape=(n, n_features))
        x.sum_duplicates()
    sample = np.repeat([f"s{i:04d}" for i in range(n_samples)], n_cells)
    obs = pd.DataFrame({"sample": sample, "label": np.where(np.arange(n) // n_cells % 2, "case", "control")})
    obs.index = obs.index.astype(str)
    return ad.AnnData(x, obs)


def seconds(call: Callable[[], Any], *, repeats: int = 1) -> float:
    if IS_GPU:
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    if IS_GPU:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def matrix_rate(dtype: torch.dtype) -> float:
    n = 8192 if IS_GPU else 1024
    a, b = (torch.randn(n, n, device=DEVICE, dtype=dtype) for _ in range(2))
    seconds(lambda: a @ b)
    return 2 * n**3 / seconds(lambda: a @ b, repeats=5)


@contextlib.contextmanager
def precision() -> Iterator[None]:
    with torch.autocast("cuda", dtype=torch.bfloat16) if IS_GPU else contextlib.nullcontext():
        yield


def host_waits(call: Callable[[], Any]) -> int | None:
    """Synchronising calls that CUDA reports; None without a GPU (tests/model/test_waits.py counts on a CPU)."""
    if not IS_GPU:
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(w.message) for w in caught)


def models() -> dict[str, tuple[Any, Callable[[], ad.AnnData], dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Class, how its cells are made, and arguments of set-up, constructor and splitter of each model: the paper's sizes on a GPU."""
    big = IS_GPU
    small = {"n_hidden": 32, "n_latent": 16, "n_cells": 100}
    maestro = sst.MAESTRO.preset("paper").model if big else {**small, "n_inducing": 8}
    scset = sst.ScSet.preset("paper").model if big else small
    pascient = sst.PaSCient.preset("paper").model if big else {"n_hidden": 64, "n_latent": 32, "log_normalize": True}
    of_genes = {"n_hidden": 512, "n_layers": 6, "n_heads": 8} if big else {"n_hidden": 16, "n_layers": 1, "n_heads": 2}
    genes = partial(cells_of, 32, 1_500 if big else 60, 28_231 if big else 500, density=0.05)
    few_genes = partial(cells_of, 8, 64 if big else 20, 2_000 if big else 200, density=0.1)
    labelled = {"labels_key": "label"}
    return {
        "MAESTRO": (sst.MAESTRO, partial(cells_of, 2, 50_000 if big else 300, 30), {}, maestro, {"batch_size": 1}),
        "ScSet": (sst.ScSet, partial(cells_of, 32, 2_048 if big else 200, 50), {}, scset, {"batch_size": 32}),
        "PaSCient": (sst.PaSCient, genes, labelled, pascient, {"batch_size": 32, "n_cells": 1_500}),
        "SelfGuidedMAE": (sst.SelfGuidedMAE, few_genes, {}, {**of_genes, "values": "counts"}, {"batch_size": 64}),
    }


def step_of(cls: Any, adata: ad.AnnData, setup: dict, build: dict, split: dict) -> tuple[Callable[[], None], Any]:
    cls.setup_anndata(adata, sample_key="sample", **setup)
    model = cls(adata, random_state=0, **build)
    module = model.module.to(DEVICE).train()
    read = model._read if cls is sst.SelfGuidedMAE else {}
    splitter = model._data_splitter_cls(model.adata_manager, seed=0, **split, **read)
    splitter.setup()
    with contextlib.suppress(ValueError):  # kinds of cells ask for more samples than are here
        model._before_training(module, splitter)
    batch = next(iter(splitter.train_dataloader())).to(DEVICE)
    optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        with precision():
            loss = module.loss(batch).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        module.after_step(1)

    return step, batch


def steps() -> None:
    rate = matrix_rate(torch.bfloat16 if IS_GPU else torch.float32)
    print(f"matrix product: {rate / 1e12:.2f} Tflop/s")
    print(
        "| step | samples/s | cells/s | peak memory, MB | share of the matrix rate | host waits |\n|---|---|---|---|---|---|"
    )
    for name, (cls, make_cells, *arguments) in models().items():
        step, batch = step_of(cls, make_cells(), *arguments)
        step()
        if IS_GPU:
            torch.cuda.reset_peak_memory_stats()
        taken = seconds(step, repeats=N_STEPS)
        peak = f"{torch.cuda.max_memory_allocated() / 2**20:,.0f}" if IS_GPU else "-"
        with FlopCounterMode(display=False) as counter:
            step()
        share = counter.get_total_flops() / taken / rate
        waits = host_waits(step)
        n_samples = len(batch.sample) or "-"
        per_second = f"{n_samples / taken:,.1f}" if isinstance(n_samples, int) else "-"
        print(
            f"| {name} | {per_second} | {len(batch.rows) / taken:,.0f} | {peak} | {share:.1%} | {'-' if waits is None else waits} |"
        )


def whole_sample() -> None:
    n = 1_390_000 if IS_GPU else 20_000
    adata = cells_of(2, 2_000, 30)
    build = {} if IS_GPU else {"n_hidden": 16, "n_latent": 8, "n_inducing": 4}
    sst.MAESTRO.setup_anndata(adata, sample_key="sample")
    model = sst.MAESTRO(adata, random_state=0, **build)
    model.is_trained_ = True
    model.to_device(DEVICE)
    large = cells_of(1, n, 30)
    print(f"vector of one sample of {n:,} cells x 30: {seconds(lambda: model.get_sample_representation(large)):.2f} s")
    on_device = model.get_sample_representation(adata).to_numpy()
    model.to_device("cpu")
    apart = np.abs(on_device - model.get_sample_representation(adata).to_numpy()).max() / np.abs(on_device).max()
    print(
        f"vectors on {DEVICE.type} against the CPU: {apart:.1e} of the largest value apart{'' if IS_GPU else ' (both are the CPU)'}"
    )


def from_store() -> None:
    n_cells, n_genes = (1_500, 28_231) if IS_GPU else (60, 500)
    with tempfile.TemporaryDirectory() as folder:
        path = sst.pp.write_store(
            cells_of(32, n_cells, n_genes, density=0.05), Path(folder) / "c.zarr", sample_key="sample", progress=False
        )
        store = sst.pp.read_store(path)
        _, _, setup, build, split = models()["PaSCient"]
        step, _ = step_of(sst.PaSCient, store, setup, build, split)
        step()
        model_step = seconds(step, repeats=N_STEPS)
        sst.PaSCient.setup_anndata(store, sample_key="sample", **setup)
        model = sst.PaSCient(store, random_state=0, **build)
        splitter = model._data_splitter_cls(model.adata_manager, seed=0, **split)
        splitter.setup()
        read = seconds(lambda: next(iter(splitter.train_dataloader())))
    print(
        f"PaSCient, 32 samples x {n_cells:,} cells x {n_genes:,} genes: step {model_step:.2f} s, its batch from the store {read:.2f} s"
    )


def transport() -> None:
    from scset_tools.nn.loss import SinkhornLoss

    n, n_sets = (2_000, 8) if IS_GPU else (200, 4)
    x, y = (torch.randn(n_sets * n, 30, device=DEVICE) for _ in range(2))
    ptr = torch.arange(0, n_sets * n + 1, n, device=DEVICE)
    ours = SinkhornLoss()
    ours(x, y, x_ptr=ptr, y_ptr=ptr)
    taken = seconds(lambda: ours(x, y, x_ptr=ptr, y_ptr=ptr), repeats=N_STEPS)
    line = f"transport of {n_sets} pairs of sets of {n:,} cells: {taken:.3f} s"
    try:
        from geomloss import SamplesLoss
    except ImportError:
        print(f"{line} (geomloss is not installed)")
        return
    theirs = SamplesLoss("sinkhorn", p=2, blur=0.05, scaling=0.5, backend="tensorized")
    pairs = x.view(n_sets, n, -1), y.view(n_sets, n, -1)
    theirs(*pairs)
    print(f"{line}, geomloss (blur .05, scaling .5) {seconds(lambda: theirs(*pairs), repeats=N_STEPS):.3f} s")


def main() -> None:
    """Run all parts, or say which the time did not suffice for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="no part begins later than this")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    print(hardware_line())
    print(
        torch.cuda.get_device_name()
        if IS_GPU
        else "No GPU here: small data, float32, to show that the script runs. No figure of it is one of a GPU."
    )
    start = time.perf_counter()
    for part in (steps, whole_sample, from_store, transport):
        if time.perf_counter() - start > 60 * args.minutes:
            print(f"{part.__name__}: not run, the time is over")
            continue
        part()
    print(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()

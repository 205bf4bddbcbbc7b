"""A loader that reads ahead gives the same batches, one at most before it is asked, and leaves no thread behind."""

from __future__ import annotations

import gc
import threading
import time

import anndata as ad
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import scset_tools as sst
from scset_tools.data._ahead import AheadLoader, ReadAhead
from scset_tools.data._splitter import SampleDataSplitter, make_loader
from scset_tools.model.supervise._vectors import VectorDataset

pytestmark = pytest.mark.platform


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("read-ahead")]


def wait_until(is_so, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        time.sleep(0.005)
    return is_so()


@pytest.fixture(autouse=True)
def no_thread_stays():
    gc.collect()
    assert wait_until(lambda: not threads())
    yield
    gc.collect()
    assert wait_until(lambda: not threads())


def test_items_come_in_order_and_one_of_them_before_it_is_asked_for():
    made = []

    def items():
        for i in range(5):
            made.append(i)
            yield i

    ahead = ReadAhead(items())
    assert wait_until(lambda: made == [0])
    assert next(ahead) == 0
    assert wait_until(lambda: made == [0, 1])
    time.sleep(0.05)
    assert made == [0, 1]
    assert list(ahead) == [1, 2, 3, 4]
    assert list(ahead) == []


def test_an_item_is_made_while_another_is_in_use():
    begun, used = threading.Event(), threading.Event()

    def items():
        yield 0
        begun.set()
        assert used.wait(10)  # made only if the main thread goes on meanwhile
        yield 1

    ahead = ReadAhead(items())
    assert next(ahead) == 0
    assert begun.wait(10)
    used.set()
    assert next(ahead) == 1


def test_an_error_comes_where_its_item_would_have():
    def items():
        yield 0
        msg = "cell 'c1' is not finite"
        raise ValueError(msg)

    ahead = ReadAhead(items())
    assert next(ahead) == 0
    with pytest.raises(ValueError, match="cell 'c1' is not finite"):
        next(ahead)
    assert next(ahead, "no more") == "no more"


def test_a_reader_that_stops_early_makes_no_more():
    made = []
    ahead = ReadAhead(made.append(i) or i for i in range(1000))
    assert next(ahead) == 0
    del ahead
    gc.collect()
    assert wait_until(lambda: not threads())
    assert len(made) <= 3


def batches(loader) -> list[tuple]:
    """All tensors of the batches of two epochs."""
    out = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        out += [(b.x, b.ptr, b.sample, b.seed, b.rows) for b in loader]
    return out


@pytest.mark.parametrize("storage", ["h5ad", "zarr"])
def test_batches_of_a_file_are_read_ahead_and_the_same(adata, register, tmp_path, storage):
    path = tmp_path / f"cells.{storage}"
    (adata.write_h5ad if storage == "h5ad" else adata.write_zarr)(path)
    cells = ad.read_h5ad(path, backed="r") if storage == "h5ad" else sst.pp.read_store(path)
    manager = register(cells)

    def loader(**how):
        return SampleDataSplitter(manager, train_size=1.0, batch_size=2, n_cells=4, seed=0, **how).train_dataloader()

    assert type(loader()) is AheadLoader
    assert type(loader(num_workers=1)) is DataLoader
    plain = loader(read_ahead=False)
    assert type(plain) is DataLoader
    expected, got = batches(plain), batches(loader())
    assert len(got) == len(expected) == 4
    for a, b in zip(got, expected, strict=True):
        assert all(torch.equal(s, t) for s, t in zip(a, b, strict=True))


def test_cells_in_memory_are_not_read_ahead_unless_asked(adata, register):
    manager = register(adata)
    kinds = {
        ahead: type(SampleDataSplitter(manager, train_size=1.0, read_ahead=ahead).train_dataloader())
        for ahead in (None, False, True)
    }
    assert kinds == {None: DataLoader, False: DataLoader, True: AheadLoader}


def test_a_resumed_run_starts_in_its_epoch(adata, register):
    """The first batch is read before Lightning sets the epoch."""

    class Trainer:
        world_size, global_rank = 1, 0

        class fit_loop:
            class epoch_progress:
                class current:
                    processed = 3

    splitter = SampleDataSplitter(register(adata), train_size=1.0, batch_size=2, n_cells=4, seed=0, read_ahead=True)
    splitter.trainer = Trainer()
    rows = [b.rows.tolist() for b in splitter.train_dataloader()]
    plain = SampleDataSplitter(register(adata), train_size=1.0, batch_size=2, n_cells=4, seed=0).train_dataloader()
    plain.sampler.set_epoch(3)
    assert rows == [b.rows.tolist() for b in plain]


def test_workers_and_a_thread_together_are_refused(adata, register):
    splitter = SampleDataSplitter(register(adata), train_size=1.0, read_ahead=True, num_workers=2)
    with pytest.raises(ValueError, match="read_ahead=True has no effect beside num_workers=2"):
        splitter.train_dataloader()


def test_a_value_that_is_not_finite_is_told_from_the_thread(adata, register, tmp_path):
    manager = register(adata)
    splitter = SampleDataSplitter(manager, train_size=1.0, batch_size=4, read_ahead=True)
    loader = splitter.train_dataloader()
    loader.dataset.reader.source[0, 1] = float("nan")
    with pytest.raises(ValueError, match="1 values that are not finite"):
        list(loader)


@pytest.mark.parametrize("kind", ["PaSCient", "MAESTRO"])
def test_training_that_stops_early_ends_at_the_same_weights(kind, adata, tmp_path):
    adata.write_h5ad(tmp_path / "cells.h5ad")
    cls, labels = getattr(sst, kind), {"labels_key": "condition"} if kind == "PaSCient" else {}
    small = {"n_hidden": 4, "n_latent": 3} | (
        {} if labels else {"n_inducing": 2, "n_layers": 1, "n_heads": 2, "n_cells": 10}
    )
    weights = []
    for ahead in (False, None):
        backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
        cls.setup_anndata(backed, "sample", **labels)
        model = cls(backed, random_state=0, **small)
        how = {"max_steps": 3, "batch_size": 2, "seed": 0, "accelerator": "cpu", "enable_progress_bar": False}
        model.train(**how, datasplitter_kwargs={"read_ahead": ahead})
        weights.append(torch.cat([p.detach().ravel() for p in model.module.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_vectors_in_memory_are_loaded_like_cells(num_workers):
    vectors = np.arange(6, dtype=np.float32)[:, None]
    loader = make_loader(VectorDataset(vectors, 0), [(0, [2, 0]), (0, [5])], seed=0, num_workers=num_workers)
    assert not isinstance(loader, AheadLoader)
    assert [batch.z.flatten().tolist() for batch in loader] == [[2, 0], [5]]

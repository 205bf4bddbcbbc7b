"""The message between data and modules moves whole."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.plugins.precision import DoublePrecision

from scset_tools.data._batch import SampleBatch


@pytest.fixture
def batch() -> SampleBatch:
    return SampleBatch(
        x=torch.ones(5, 2),
        ptr=torch.tensor([0, 2, 2, 5]),
        sample=torch.tensor([4, 0, 1]),
        seed=torch.tensor([7, 8, 9]),
        rows=torch.arange(5),
        labels={"labels": torch.tensor([0, 1, -1])},
        covariates={"batch": torch.zeros(5, dtype=torch.int64)},
    )


def tensors(batch: SampleBatch) -> list[torch.Tensor]:
    values = [getattr(batch, f.name) for f in dataclasses.fields(batch)]
    return [t for v in values for t in (v.values() if isinstance(v, dict) else [v])]


def test_number_and_sizes_of_samples(batch):
    assert batch.n_samples == 3
    assert batch.sizes.tolist() == [2, 0, 3]


def test_every_tensor_moves(batch):
    for moved in (
        batch.to("meta"),
        batch.to("meta", non_blocking=True),
        move_data_to_device(batch, torch.device("meta")),
    ):
        assert isinstance(moved, SampleBatch)
        assert [t.device.type for t in tensors(moved)] == ["meta"] * 7
        assert [t.shape for t in tensors(moved)] == [t.shape for t in tensors(batch)]
    assert all(t.device.type == "cpu" for t in tensors(batch))


def test_every_tensor_is_pinned(batch, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: pinned.append(t) or t.clone())
    copy = batch.pin_memory()
    assert len(pinned) == 7
    assert all(torch.equal(a, b) for a, b in zip(tensors(batch), tensors(copy), strict=True))


def test_lightning_changes_the_precision_of_a_copy(batch):
    double = DoublePrecision().convert_input(batch)
    assert double.x.dtype == torch.float64
    assert double.ptr.dtype == torch.int64
    assert torch.equal(double.x.float(), batch.x)
    assert batch.x.dtype == torch.float32

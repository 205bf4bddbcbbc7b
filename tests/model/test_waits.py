"""A training step asks the device for next to nothing: a GPU runs on while the host prepares the next step."""

from __future__ import annotations

import pytest
import torch
from _cohort import make_cohort
from _waits import HostWaits
from test_contract import MODELS

from scset_tools.nn import _ragged, host_sizes, ptr_from_sizes, rows_where

MOST = {"maestro": 9, "scset": 2, "pascient": 4, "selfguidedmae": 8}
"""Waits of a step that are left (before they were counted: 60, 15, 13 and 30). The exact transport is one of CPUs alone."""


def plan_and_batches(kind):
    cls, arguments = MODELS[kind]
    adata = make_cohort()
    cls.setup_anndata(adata, "sample", labels_key="condition", batch_key="batch")
    model = cls(adata, random_state=0, **arguments)
    model.module.train()
    read = model._read if kind == "selfguidedmae" else {}
    splitter = model._data_splitter_cls(model.adata_manager, batch_size=4, n_cells=20, seed=0, **read)
    splitter.setup()
    model._before_training(model.module, splitter)
    plan = model._training_plan_cls(model.module)
    plan.log = lambda *args, **kwargs: None
    plan._trainer = type("Trainer", (), {"global_step": 0, "global_rank": 0})()
    return plan, list(splitter.train_dataloader())


def step(plan, batch):
    torch.manual_seed(0)
    loss = plan._step(batch, "train")
    loss.backward()
    return float(loss.detach()), [None if p.grad is None else p.grad.clone() for p in plan.module.parameters()]


@pytest.mark.parametrize("kind", MODELS)
def test_a_step_hardly_waits_for_the_device(kind, monkeypatch):
    plan, batches = plan_and_batches(kind)
    monkeypatch.setattr(_ragged, "_AS_ON_GPU", True)
    monkeypatch.setattr(plan, "steps_unseen", {"cpu": 16})
    plan._step(batches[0], "train").backward()
    with HostWaits() as waits:
        plan._step(batches[-1], "train").backward()
        plan.module.after_step(1)
    of_a_gpu = {place: n for place, n in waits.places.items() if "_sinkhorn_exact" not in place}
    assert sum(of_a_gpu.values()) <= MOST[kind], of_a_gpu


@pytest.mark.parametrize("kind", MODELS)
def test_a_step_that_asks_for_nothing_is_the_same_step(kind, monkeypatch):
    results = []
    for as_on_gpu in (False, True):
        monkeypatch.setattr(_ragged, "_AS_ON_GPU", as_on_gpu)
        plan, batches = plan_and_batches(kind)
        results.append(step(plan, batches[0]))
    (a, a_grads), (b, b_grads) = results
    assert a == b
    for one, other in zip(a_grads, b_grads, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)


def test_waits_are_counted():
    with HostWaits() as waits:
        ptr = ptr_from_sizes(torch.tensor([2, 3]))
        host_sizes(ptr)
        host_sizes(ptr)  # known by now
    assert [place.split(":")[0] for place in waits.places] == [
        "_local_scalar_dense in nn/_ragged.py",
        "tolist in nn/_ragged.py",
    ]
    assert waits.n == 2


def test_boundaries_that_change_are_asked_for_again():
    ptr = ptr_from_sizes([2, 3])
    assert host_sizes(ptr) == [2, 3]
    ptr[1] = 4
    assert host_sizes(ptr) == [4, 1]
    with torch.inference_mode():
        ptr = ptr_from_sizes(torch.tensor([1, 1]))
        assert host_sizes(ptr) == [1, 1]
        ptr[1] = 0
        assert host_sizes(ptr) == [0, 2]


def test_rows_of_a_known_number(monkeypatch):
    mask = torch.rand(50, generator=torch.Generator().manual_seed(0)) < 0.3
    expected = rows_where(mask, int(mask.sum()))
    monkeypatch.setattr(_ragged, "_AS_ON_GPU", True)
    assert torch.equal(rows_where(mask, int(mask.sum())), expected)
    assert torch.equal(expected, mask.nonzero().squeeze(1))


@pytest.mark.parametrize("n_steps", [1, 3])
def test_a_loss_that_is_not_finite_is_named_by_its_own_step(n_steps, monkeypatch):
    """Also where losses are looked at later, before weights are saved at the latest."""
    plan, batches = plan_and_batches("maestro")
    monkeypatch.setattr(plan, "steps_unseen", {"cpu": 3})
    loss = plan.module.loss

    def broken(batch):
        out = loss(batch)
        out.loss = out.loss * (torch.nan if plan._trainer.global_step == 1 else 1.0)
        return out

    monkeypatch.setattr(plan.module, "loss", broken)
    with pytest.raises(ValueError, match=r"The loss is nan in step 1 \(train\)"):  # noqa: PT012
        for number in range(n_steps + 1):
            plan._trainer.global_step = number
            plan._step(batches[0], "train")
        plan.on_save_checkpoint({})

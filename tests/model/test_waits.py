"""A training step asks the device for nothing: a GPU runs on while the host prepares the next step."""

from __future__ import annotations

import pytest
import torch
from _cohort import make_cohort
from _fake_cuda import CUDA, FakeCuda, Waits
from _waits import HostWaits
from test_contract import MODELS

from scset_tools.model._training import pins_memory
from scset_tools.nn import _ragged, _varlen, host_sizes, ptr_from_sizes, rows_where, to_device
from scset_tools.nn.loss import _sinkhorn
from scset_tools.nn.loss._sinkhorn_sets import Behind, Now

VARIANTS = {
    "maestro": {},
    "maestro farthest": {
        "views": ("random", "farthest"),
        "one_rate": True,
        "distillation": "prototypes",
        "unmasked_view": False,
    },
    "scset": {},
    "scset flow": {"decoder": "flow", "tilt": 1.0, "shared_times": True},
    "scset told": {"batch_weight": 0.5},
    "scset told of cells": {"batch_weight": {"study": 0.5}},
    "maestro told": {"batch_weight": {"study": 0.5, "age": 0.2}},
    "pascient": {},
    "selfguidedmae": {},
}
COVARIATES = {
    "scset told": ["study", "age"],
    "scset told of cells": {"study": "class", "cell_type": "cell"},
    "maestro told": ["study", "age"],
}
NAMED = {"selfguidedmae": ({"mask_candidates": "all"}, "model/selfguided/_tokens.py")}
"""What does wait, and where: among all genes the draw decides how many of those in sight are left, and to encode all of them would
take longer than to ask. Times to an event and panels with missing markers wait as well: their sorting is by value."""


def plan_and_batches(kind, more=None, *, n_cells=20):
    cls, arguments = MODELS[kind.split()[0]]
    adata = make_cohort()
    told = {"covariate_keys": COVARIATES[kind]} if kind in COVARIATES else {}
    cls.setup_anndata(adata, "sample", labels_key="condition", batch_key="batch", **told)
    model = cls(adata, random_state=0, **{**arguments, **(more or {})})
    model.module.train()
    read = model._read if kind.startswith("selfguidedmae") else {}
    splitter = model._data_splitter_cls(model.adata_manager, batch_size=4, n_cells=n_cells, seed=0, **read)
    splitter.setup()
    model._before_training(model.module, splitter)
    plan = model._training_plan_cls(model.module)
    plan.log = lambda *args, **kwargs: None
    plan._trainer = type("Trainer", (), {"global_step": 0, "global_rank": 0})()
    return plan, list(splitter.train_dataloader())


def step(plan, batch):
    torch.manual_seed(0)
    loss = plan._step(batch, "train").loss
    loss.backward()
    return float(loss.detach()), [None if p.grad is None else p.grad.clone() for p in plan.module.parameters()]


class TwoRounds(Now):
    """Answers as a GPU would where all sets are done after two rounds; nothing can be asked of a fake one."""

    n = 0

    def tell(self, is_done):
        self.n += 1

    def answer(self):
        return self.n > 2

    def asked(self, is_done):
        self.tell(is_done)
        return self.answer()


@pytest.mark.parametrize("kind", VARIANTS)
def test_a_step_does_not_wait_for_the_gpu(kind, monkeypatch):
    """Forward on a GPU without values: whatever would be asked of it raises, and so does a copy that is waited for."""
    plan, batches = plan_and_batches(kind, VARIANTS[kind])
    way = _sinkhorn._way(torch.device("cuda"))
    assert way.look is Behind
    monkeypatch.setattr(_sinkhorn, "_way", lambda _: way._replace(look=TwoRounds))
    with FakeCuda() as fake:
        batch = batches[-1].to(CUDA, non_blocking=True)
        out = fake.module(plan.module).loss(batch)
        plan.module.after_step(1)
    assert out.loss.device == CUDA
    assert sum(fake.operators.values()) > 50
    assert not fake.waits, fake.waits


@pytest.mark.parametrize("kind", VARIANTS)
def test_embedding_waits_for_the_vectors_alone(kind):
    """Which are asked for once a batch, by what represents samples, and not within it."""
    plan, batches = plan_and_batches(
        kind, VARIANTS[kind], n_cells=None
    )  # some samples are more than ScSet reads at once
    with FakeCuda() as fake:
        batch = batches[-1].to(CUDA, non_blocking=True)
        module = fake.module(plan.module).eval()
        # a training step of the masked autoencoder has cells, of no sample
        vectors = module.embed_cells(batch) if kind.startswith("selfguided") else module.represent(batch)
    assert vectors.device == CUDA
    assert not fake.waits, fake.waits


def test_half_precision_takes_the_fused_attention(monkeypatch):
    """All of MAESTRO's attention on ragged sets, but for views that hide nothing, of which no cell is decoded."""
    plan, batches = plan_and_batches("maestro", {"n_hidden": 32, "unmasked_view": False})
    way = _sinkhorn._way(torch.device("cuda"))
    monkeypatch.setattr(_sinkhorn, "_way", lambda _: way._replace(look=TwoRounds))
    monkeypatch.setattr(_varlen, "_is_new_enough", lambda _: True)
    with FakeCuda() as fake:
        batch = batches[-1].to(CUDA, non_blocking=True)
        fake.module(plan.module, torch.bfloat16).loss(batch)
    # three layers of two reads and the pool, of the student; unpooling and three layers of the decoder
    assert fake.operators["torch_attn._varlen_attn"] == 11
    assert not fake.waits, fake.waits


@pytest.mark.parametrize("kind", NAMED)
def test_what_waits_is_named(kind):
    arguments, where = NAMED[kind]
    plan, batches = plan_and_batches(kind, arguments)
    with FakeCuda() as fake:
        batch = batches[-1].to(CUDA, non_blocking=True)
        fake.module(plan.module)
        with pytest.raises(Waits, match="int") as error:
            plan.module.loss(batch)
    assert where in str(error.traceback[-1].path) or any(where in str(entry.path) for entry in error.traceback)


@pytest.mark.parametrize("kind", VARIANTS)
def test_the_gradient_does_not_wait(kind, monkeypatch):
    """On a CPU, where the same calls are made."""
    plan, batches = plan_and_batches(kind, VARIANTS[kind])
    monkeypatch.setattr(_ragged, "_AS_ON_GPU", True)
    monkeypatch.setattr(plan, "steps_unseen", {"cpu": 16})
    loss = plan._step(batches[-1], "train").loss
    with HostWaits() as waits:
        loss.backward()
        plan.module.after_step(1)
    assert not waits.places


WAITS = [
    lambda x: float(x.sum()),
    lambda x: x[x[:, 0] > 0],
    lambda x: x.cpu(),
    lambda x: x.tolist(),
    lambda x: (x > 0).nonzero(),
    lambda x: torch.unique(x),
    lambda x: torch.repeat_interleave(x.long().flatten()),
]


def test_a_fake_gpu_tells_on_what_waits():
    with FakeCuda() as fake:
        x = fake.empty((4, 2), torch.float32)
        for asks in WAITS:
            with pytest.raises(Waits, match=r"\w"):
                asks(x)
        assert not fake.waits
        torch.tensor([1, 2]).to(CUDA)
        torch.tensor([1, 2], device=CUDA)
        assert fake.waits.total() == 2
        to_device(torch.tensor([1, 2]), CUDA)
        assert fake.waits.total() == 2


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


def test_cells_are_told_one_by_one_or_by_kind(monkeypatch):
    """A row for each cell, or for the cells of a kind together: what a GPU does, and a CPU."""
    losses = []
    for as_on_gpu in (False, True):
        monkeypatch.setattr(_ragged, "_AS_ON_GPU", as_on_gpu)
        plan, batches = plan_and_batches("scset told of cells", VARIANTS["scset told of cells"])
        torch.nn.init.normal_(plan.module.denoiser.output.weight, generator=torch.Generator().manual_seed(0))
        losses.append(step(plan, batches[0]))
    (a, a_grads), (b, b_grads) = losses
    assert a == pytest.approx(b, rel=1e-5)
    for one, other in zip(a_grads, b_grads, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


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


@pytest.mark.parametrize("kind", MODELS)
def test_batches_go_to_the_gpu_without_a_wait(kind, monkeypatch):
    _, batches = plan_and_batches(kind)
    with FakeCuda() as fake:
        batch = batches[0].to(CUDA, non_blocking=True)
    assert batch.ptr.device == CUDA
    assert host_sizes(batch.ptr) == host_sizes(batches[0].ptr)
    assert not fake.waits
    assert not pins_memory("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pins_memory(None)
    assert pins_memory("cuda")
    assert not pins_memory("cpu")


@pytest.mark.parametrize("kind", MODELS)
def test_every_splitter_can_pin(kind):
    cls, arguments = MODELS[kind]
    adata = make_cohort()
    cls.setup_anndata(adata, "sample", labels_key="condition")
    model = cls(adata, random_state=0, **arguments)
    read = model._read if kind == "selfguidedmae" else {}
    splitter = model._data_splitter_cls(model.adata_manager, batch_size=4, seed=0, pin_memory=True, **read)
    assert splitter.loader_kwargs["pin_memory"] is True

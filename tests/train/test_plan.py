"""The training plan on a toy module: optimiser, schedules, metrics, modes, seeds."""

from __future__ import annotations

import itertools
import math

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from scset_tools.train import SampleTrainingPlan, TwoRatePlan, _plan
from scset_tools.train._plan import can_fuse


def groups_of(plan: SampleTrainingPlan) -> dict[str, tuple[float, float]]:
    """Weight decay and learning rate of each trained parameter."""
    optimizer = plan.configure_optimizers()
    optimizer = optimizer["optimizer"] if isinstance(optimizer, dict) else optimizer
    assert isinstance(optimizer, torch.optim.AdamW)
    names = {id(p): n for n, p in plan.module.named_parameters()}
    return {names[id(p)]: (g["weight_decay"], g["lr"]) for g in optimizer.param_groups for p in g["params"]}


def test_only_matrices_decay_and_frozen_parameters_are_left_out(toy):
    groups = groups_of(SampleTrainingPlan(toy(), lr=0.01, weight_decay=0.3))
    assert groups == {
        "linear.weight": (0.3, 0.01),
        "linear.bias": (0.0, 0.01),
        "norm.weight": (0.0, 0.01),
        "norm.bias": (0.0, 0.01),
        "token": (0.0, 0.01),  # a single row is a vector
    }


def test_a_module_without_matrices(toy):
    module = toy()
    module.linear.weight.requires_grad_(False)
    assert {d for d, _ in groups_of(SampleTrainingPlan(module)).values()} == {0.0}


def test_arguments_reach_the_optimiser(toy):
    plan = SampleTrainingPlan(toy(), eps=1e-5, betas=(0.8, 0.9))
    optimizer = plan.configure_optimizers()
    assert (optimizer.defaults["eps"], optimizer.defaults["betas"]) == (1e-5, (0.8, 0.9))


class Rates(pl.Callback):
    """Learning rate that each step of the optimiser uses, and by epoch."""

    def __init__(self):
        self.steps, self.epochs = [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.steps.append(optimizer.param_groups[0]["lr"])

    def on_train_epoch_start(self, trainer, pl_module):
        self.epochs.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_cosine_in_closed_form(toy, fit, warmup, accumulate):
    lr, lr_min = 0.02, 0.002
    plan = SampleTrainingPlan(toy(), lr=lr, lr_min=lr_min, lr_schedule="cosine", n_steps_warmup=warmup)
    rates = Rates()
    fit(plan, max_epochs=3, callbacks=[rates], accumulate_grad_batches=accumulate)
    n = 3 * 4 // accumulate
    expected = [
        lr * (t + 1) / warmup
        if t < warmup
        else lr_min + (lr - lr_min) * (1 + math.cos(math.pi * (t - warmup) / (n - warmup))) / 2
        for t in range(n)
    ]
    np.testing.assert_allclose(rates.steps, expected, rtol=1e-12)
    np.testing.assert_allclose(plan.lr_schedulers().get_last_lr(), lr_min, rtol=1e-12)


def test_constant_with_and_without_warmup(toy, fit):
    for warmup, expected in ((0, [0.02] * 8), (4, [0.005, 0.01, 0.015, 0.02, 0.02, 0.02, 0.02, 0.02])):
        rates = Rates()
        fit(SampleTrainingPlan(toy(), lr=0.02, n_steps_warmup=warmup), callbacks=[rates])
        np.testing.assert_allclose(rates.steps, expected, rtol=1e-12)


@pytest.mark.parametrize("part", ["train", "validation"])
def test_plateau_divides_the_rate_after_its_patience(toy, fit, part):
    flat = [{"x": torch.ones(2, 3), "loss": torch.ones(2)}]
    plan = SampleTrainingPlan(
        toy(),
        lr=0.8,
        lr_min=0.15,
        lr_schedule="plateau",
        lr_factor=0.5,
        lr_patience=1,
        lr_scheduler_metric=f"loss_{part}",
    )
    rates = Rates()
    fit(plan, flat, flat, max_epochs=8, callbacks=[rates])
    # the first epoch sets the best; after two more that are no better the rate is halved, down to lr_min
    np.testing.assert_allclose(rates.epochs, [0.8, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.15])


def test_plateau_looks_at_validation_only_where_there_was_one(toy, fit):
    flat = [{"x": torch.ones(2, 3), "loss": torch.ones(2)}]
    plan = SampleTrainingPlan(toy(), lr=0.8, lr_schedule="plateau", lr_patience=0)
    rates = Rates()
    fit(plan, flat, flat, max_epochs=7, check_val_every_n_epoch=2, callbacks=[rates])
    np.testing.assert_allclose(rates.epochs, [0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.2])


def test_metrics_are_averaged_by_number_of_samples(toy, fit):
    def batch(losses):
        return {"x": torch.ones(len(losses), 3), "loss": torch.tensor(losses)}

    train = [batch([1.0]), batch([2.0, 4.0]), batch([10.0, 20.0, 30.0, 40.0, 50.0])]
    trainer = fit(SampleTrainingPlan(toy()), train, [batch([8.0]), batch([1.0, 3.0, 5.0])], max_epochs=3)
    history = trainer.logger.history
    expected = {
        "loss_train": (1 * 1 + 2 * 3 + 5 * 30) / 8,
        "loss_validation": (8 + 1 + 3 + 5) / 4,
        "size_train": (1 * 1 + 2 * 2 + 5 * 5) / 8,
        "size_validation": (1 + 9) / 4,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(history[name][name].astype(float), [value] * 3, rtol=1e-6)


def test_the_test_part_is_logged_too(toy, fit):
    plan = SampleTrainingPlan(toy())
    trainer = fit(plan)
    loader = torch.utils.data.DataLoader([{"x": torch.ones(2, 3), "loss": torch.tensor([1.0, 4.0])}], batch_size=None)
    (result,) = trainer.test(plan, loader, verbose=False)
    assert result == {"loss_test": 2.5, "size_test": 2.0}


def test_the_module_trains_in_training_mode_even_if_it_was_left_in_eval_mode(toy, fit):
    module = toy()
    for _ in range(2):
        module.eval()  # as scvi-tools leaves it
        module.modes.clear()
        fit(SampleTrainingPlan(module), (4, 4), (4,), max_epochs=2)
        assert module.modes == [True, True, False, True, True, False]


def test_what_a_step_draws_depends_on_seed_and_step_alone(toy, fit):
    def drawn(*, seed, disturb, **arguments):
        module = toy()
        torch.manual_seed(disturb)
        fit(SampleTrainingPlan(module, seed=seed), **arguments)
        return module.drawn

    first = drawn(seed=1, disturb=0)
    assert len(set(first)) == 8
    assert drawn(seed=1, disturb=99, validation=(3, 3)) == first
    assert drawn(seed=1, disturb=0, max_epochs=3)[:8] == first
    assert set(drawn(seed=2, disturb=0)).isdisjoint(first)
    assert len(set(drawn(seed=1, disturb=0, accumulate_grad_batches=2))) == 8


def test_dropout_repeats_with_the_seed(toy, fit):
    def weights(seed):
        module = toy(dropout_rate=0.5)
        fit(SampleTrainingPlan(module, seed=seed))
        return module.linear.weight.detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 8), (2, 4), (3, 4)])
def test_after_step_once_for_each_step_of_the_optimiser(toy, fit, accumulate, steps):
    module = toy()
    trainer = fit(SampleTrainingPlan(module), accumulate_grad_batches=accumulate)
    assert module.steps == list(range(steps))
    assert trainer.global_step == steps


def test_after_step_sees_the_new_weights(toy, fit):
    module = toy()
    seen = [module.linear.weight.detach().clone()]
    module.after_step = lambda step: seen.append(module.linear.weight.detach().clone())
    fit(SampleTrainingPlan(module), max_epochs=1)
    assert len(seen) == 5
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(seen))
    assert torch.equal(seen[-1], module.linear.weight)


class Norms(pl.Callback):
    """Norm of the gradient of each part as the optimiser sees it."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):  # before clipping
        self.before = {name: self._norm(part) for name, part in pl_module.module.named_children()}

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.seen.append((self.before, {name: self._norm(part) for name, part in pl_module.module.named_children()}))

    @staticmethod
    def _norm(part):
        return float(sum((p.grad**2).sum() for p in part.parameters() if p.grad is not None)) ** 0.5


@pytest.mark.parametrize("apart", [("linear", "norm"), ("linear",), ()])
def test_parts_are_clipped_by_their_own_norm(toy, fit, apart):
    norms = Norms()
    fit(SampleTrainingPlan(toy(), clip_apart=apart), callbacks=[norms], gradient_clip_val=1e-3)
    before, after = norms.seen[0]
    assert min(before["linear"], before["norm"]) > 1e-3
    if "linear" in apart:  # each at the bound, the rest with the single vector beside it
        np.testing.assert_allclose(after["linear"], 1e-3, rtol=1e-4)
        assert 0.5e-3 < after["norm"] < (1 + 1e-4) * 1e-3
    else:  # one factor for all
        np.testing.assert_allclose(after["linear"] / after["norm"], before["linear"] / before["norm"], rtol=1e-4)
    with pytest.raises(ValueError, match=r"clip_apart=\('linear',\) needs gradient_clip_val, a norm, but it is None"):
        fit(SampleTrainingPlan(toy(), clip_apart=("linear",)))


def test_bad_arguments(toy):
    with pytest.raises(ValueError, match=r"lr_schedule='linear' is not one of \['constant', 'cosine', 'plateau'\]"):
        SampleTrainingPlan(toy(), lr_schedule="linear")
    with pytest.raises(
        ValueError, match=r"clip_apart=\('encoder',\) must be a list of parts of the model, which are \['linear', "
    ):
        SampleTrainingPlan(toy(), clip_apart=("encoder",))
    with pytest.raises(ValueError, match="clip_apart='linear' must be a list"):
        SampleTrainingPlan(toy(), clip_apart="linear")
    with pytest.raises(ValueError, match="n_steps_warmup=5 is for the schedules 'constant' and 'cosine'"):
        SampleTrainingPlan(toy(), lr_schedule="plateau", n_steps_warmup=5)


class Odd(torch.nn.Module):
    """Parameters of every layout: transposed, without a number, of one number, in both precisions, and one that gets no gradient."""

    metrics = ()
    device = torch.device("cpu")

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.transposed = torch.nn.Parameter(torch.randn(3, 4, generator=generator).to(dtype).T)
        self.matrix = torch.nn.Parameter(torch.randn(3, 2, generator=generator).double())
        self.bias = torch.nn.Parameter(torch.randn(2, generator=generator).to(dtype))
        self.number = torch.nn.Parameter(torch.ones((), dtype=dtype))
        self.empty = torch.nn.Parameter(torch.zeros(0, 3, dtype=dtype))
        self.unused = torch.nn.Parameter(torch.ones(2, 2, dtype=dtype))

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        out = (x.double() @ self.transposed.double() @ self.matrix + self.bias) * self.number
        return out.square().mean() + self.empty.sum()


@pytest.mark.parametrize("plan_class", [SampleTrainingPlan, TwoRatePlan])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_a_fused_step_is_that_of_one_parameter_after_the_other(monkeypatch, plan_class, dtype, tolerance):
    ends = []
    for is_fused in (False, True):
        module = Odd(dtype)
        module.new_parameters = lambda module=module: [module.bias, module.matrix]
        more = {"lr_backbone": 0.003} if plan_class is TwoRatePlan else {}
        plan = plan_class(module, lr=0.01, weight_decay=0.1, **more)
        with monkeypatch.context() as patch:
            if not is_fused:
                patch.setattr(_plan, "can_fuse", lambda _: False)
            optimizer = plan.configure_optimizers()
        assert {g["fused"] for g in optimizer.param_groups} == {is_fused}
        # gradients of an optimiser that unscales them by itself could not be clipped in half precision
        assert not getattr(optimizer, "_step_supports_amp_scaling", False)
        generator = torch.Generator().manual_seed(1)
        for _ in range(20):
            optimizer.zero_grad()
            module.loss(torch.randn(5, 4, generator=generator)).backward()
            optimizer.step()
        ends.append({name: p.detach().clone() for name, p in module.named_parameters()})
    one, fused = ends
    assert not torch.equal(fused["transposed"], Odd(dtype).transposed)
    torch.testing.assert_close(fused, one, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("param", "fuses"),
    [
        (torch.zeros(2), True),
        (torch.zeros(2, dtype=torch.bfloat16), True),
        (torch.zeros(2, dtype=torch.complex64), False),
        (torch.zeros(2, device="meta"), False),
    ],
    ids=["float32", "bfloat16", "complex", "a device without the kernel"],
)
def test_what_cannot_be_fused_is_not(param, fuses):
    assert can_fuse([torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(param)]) == fuses


def test_gradients_in_half_precision_are_clipped(toy, fit):
    norms = Norms()
    fit(SampleTrainingPlan(toy()), callbacks=[norms], gradient_clip_val=1e-3, precision="bf16-mixed")
    before, after = norms.seen[0]
    assert before["linear"] > 1e-3 >= after["linear"]


def test_what_scvi_tools_reads_is_there(toy):
    plan = SampleTrainingPlan(toy(), lr_schedule="plateau")
    assert plan.reduce_lr_on_plateau
    assert not SampleTrainingPlan(toy()).reduce_lr_on_plateau
    read = ["lr", "eps", "lr_factor", "lr_patience", "n_epochs_kl_warmup", "n_steps_kl_warmup", "weight_decay"]
    read += ["max_kl_weight", "min_kl_weight", "n_obs_training", "n_obs_validation"]
    assert [name for name in read if not hasattr(plan, name)] == []


def test_a_compiled_step_learns_the_same(toy, fit):
    """Traced whole, whatever makes programs of the pieces."""
    traced = []

    def trace(graph, inputs):
        traced.append(graph)
        return graph.forward

    weights = []
    for how in ({}, {"compile": True, "compile_kwargs": {"backend": trace}}):
        torch.manual_seed(0)
        plan = SampleTrainingPlan(toy(), **how)
        fit(plan, max_epochs=1)
        weights.append(torch.cat([p.detach().ravel() for p in plan.module.parameters()]))
    assert traced
    torch.testing.assert_close(*weights)
    with pytest.raises(ValueError, match="no effect without compile=True"):
        SampleTrainingPlan(toy(), compile_kwargs={"mode": "default"})

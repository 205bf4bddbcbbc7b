"""The loss of MAESTRO against a slow transcription of Algorithm 3: one sample, one view, one token per cell at a time."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch
from scipy.special import log_softmax

from scset_tools.data._batch import SampleBatch
from scset_tools.model.maestro import MAESTROModule
from scset_tools.model.maestro._views import student_views
from scset_tools.nn import ptr_from_sizes

ARGUMENTS = {
    "n_hidden": 16,
    "n_latent": 6,
    "n_inducing": 3,
    "n_heads": 2,
    "n_layers": 2,
    "n_cells": 20,
    "mask_rates": (0.25, 0.6),
    "masking": "block",
    "views": ("random",),
    "decoder": "sab",
    "reconstruct": "masked",
    "reconstruction_weight": 0.7,
    "distillation_weight": 1.3,
    "distillation": "prototypes",
    "n_tokens": 0,
    "token_weight": 1.0,
    "standardize_latent": False,
    "one_rate": False,
    "unmasked_view": False,
    "n_prototypes": 5,
    "student_temperature": 0.1,
    "teacher_temperature": 0.07,
    "center_momentum": 0.9,
    "ema_decay": 0.999,
    "dropout_rate": 0.0,
    "represent_with": "student",
}
SIZES = [30, 12, 5]


def make_module(**changes) -> MAESTROModule:
    torch.manual_seed(0)
    mean, scale = torch.tensor([[0.5, -1.0, 0.0, 2.0]]), torch.tensor([[1.0, 2.0, 0.5, 1.5]])
    module = MAESTROModule(mean, scale, **{**ARGUMENTS, **changes})
    with torch.no_grad():
        module.hidden_token.normal_()
    return module


def make_batch() -> SampleBatch:
    generator = torch.Generator().manual_seed(1)
    n = sum(SIZES)
    return SampleBatch(
        x=torch.randn(n, 4, generator=generator) + 1,
        ptr=ptr_from_sizes(torch.tensor(SIZES)),
        sample=torch.arange(len(SIZES)),
        seed=torch.tensor([5, 6, 7]),
        rows=torch.arange(n),
    )


@torch.no_grad()
def slow_loss(module: MAESTROModule, batch: SampleBatch) -> tuple[float, float]:
    """Reconstruction and distillation as the paper writes them, with exact transport."""
    x = (batch.x - module.mean[0]) / module.scale[0]
    costs, divergences = [], []
    for s in range(len(SIZES)):
        rows = slice(int(batch.ptr[s]), int(batch.ptr[s + 1]))
        ptr, seed = torch.tensor([0, SIZES[s]]), batch.seed[s : s + 1]
        teacher = module.teacher.head(module.teacher.encoder(x[rows]))[0]
        log_p = log_softmax((teacher - module.distillation.center).numpy() / 0.07)
        for v in range(len(module.mask_rates)):
            views = student_views(
                batch.x[rows],
                ptr,
                seed,
                n_cells=module.n_cells,
                mask_rates=module.mask_rates,
                masking=module.masking,
            )
            at = slice(int(views.ptr[v]), int(views.ptr[v + 1]))
            cells, is_hidden = x[rows][views.index[at]], views.is_hidden[at]
            seen = torch.where(is_hidden[:, None], module.hidden_token, cells)
            z = module.student.encoder(seen)[0]
            log_q = log_softmax(module.student.head(z[None])[0].numpy() / 0.1)
            divergences.append(float(np.sum(np.exp(log_p) * (log_p - log_q))))
            slots = torch.where(is_hidden[:, None], module.decoder.hidden_token, z)
            seeds = module.decoder.seeds[views.slot[at]][is_hidden]
            decoded = module.decoder.unpool(seeds, module.decoder.lift(slots))
            for layer in module.decoder.layers:
                decoded = layer(decoded)
            decoded, target = module.decoder.output(decoded).numpy(), cells[is_hidden].numpy()
            costs.append(ot.emd2([], [], ot.dist(target, decoded)))
    return float(np.mean(costs)), float(np.mean(divergences))


def test_loss_equals_a_slow_transcription_of_the_algorithm():
    module, batch = make_module(), make_batch()
    module.distillation.center += 0.05
    reconstruction, distillation = slow_loss(module, batch)
    with torch.inference_mode():
        out = module.eval().loss(batch)
    assert float(out.extra_metrics["distillation"]) == pytest.approx(distillation, rel=1e-4)
    assert float(out.extra_metrics["reconstruction"]) == pytest.approx(reconstruction, rel=0.05)  # entropic
    parts = {name: float(value) for name, value in out.extra_metrics.items()}
    assert float(out.loss) == pytest.approx(0.7 * parts["reconstruction"] + 1.3 * parts["distillation"], rel=1e-5)
    assert out.n_obs_minibatch == 3


@pytest.mark.parametrize(
    ("changes", "metrics"),
    [
        ({"reconstruction_weight": 0.0}, ("distillation",)),
        ({"distillation_weight": 0.0}, ("reconstruction",)),
        ({}, ("reconstruction", "distillation")),
    ],
    ids=["distillation_alone", "reconstruction_alone", "both"],
)
def test_parts_without_a_share_in_the_loss_are_not_made(changes, metrics):
    module = make_module(**changes)
    out = module.train().loss(make_batch())
    assert module.metrics == metrics == tuple(out.extra_metrics)
    out.loss.backward()
    without = [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []  # several processes would wait for such a gradient


def test_teacher_follows_the_student_and_gets_no_gradient():
    module = make_module().train()
    before = [p.clone() for p in module.teacher.parameters()]
    module.loss(make_batch()).loss.backward()
    assert all(p.grad is None for p in module.teacher.parameters())
    with torch.no_grad():
        for p in module.student.parameters():
            p.add_(1.0)
    module.after_step(90)  # decay min(0.999, 91 / 100)
    for old, new in zip(before, module.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, 0.91 * old + 0.09 * (old + 1))


def test_centre_moves_in_training_and_stays_in_validation():
    module, batch = make_module(), make_batch()
    module.eval().loss(batch)
    assert torch.equal(module.distillation.center, torch.zeros(5))
    module.train().loss(batch)
    x = (batch.x - module.mean[0]) / module.scale[0]
    with torch.no_grad():
        mean = module.teacher.head(module.teacher.encoder(x, batch.ptr)).mean(0)
    torch.testing.assert_close(module.distillation.center, 0.1 * mean)


def test_reconstruct_all_compares_whole_crops():
    module, batch = make_module(reconstruct="all"), make_batch()
    views = student_views(batch.x, batch.ptr, batch.seed, n_cells=20, mask_rates=module.mask_rates)
    x = module.standardize(batch)
    decoded, rows, ptr = module.decode(views, module.encode_views(x, views))
    assert rows.tolist() == list(range(len(views.index)))
    assert ptr.diff().tolist() == [20, 12, 5] * 2
    assert decoded.shape == (2 * 37, 4)


def test_teacher_sees_the_full_set_and_streams_large_ones(monkeypatch):
    module, batch = make_module().eval(), make_batch()
    with torch.inference_mode():
        whole = float(module.loss(batch).extra_metrics["distillation"])
        monkeypatch.setattr("scset_tools.model.maestro._teacher.MAX_TEACHER_CELLS", 10)
        streamed = float(module.loss(batch).extra_metrics["distillation"])
    assert streamed == pytest.approx(whole, rel=1e-4)


def test_dropout_of_the_student_leaves_the_teacher_alone():
    module = make_module(dropout_rate=0.5).train()
    assert module.student.encoder.training
    assert not module.teacher.encoder.training

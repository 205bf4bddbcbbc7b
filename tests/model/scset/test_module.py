"""The loss of ScSet against a slow transcription of Algorithm 1: one sample, one target, one time step at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scset_tools.data._batch import SampleBatch
from scset_tools.model.scset import ScSetModule
from scset_tools.model.scset._encoders import ENCODERS
from scset_tools.model.scset._module import STREAM_NOISE, STREAM_TIME
from scset_tools.nn import cell_normal, cell_uniform, ptr_from_sizes, sinusoidal_embedding

ARGUMENTS = {
    "n_tokens": 0,
    "token_weight": 1.0,
    "n_latent": 8,
    "n_layers": 2,
    "n_heads": 2,
    "n_cells": 20,
    "n_targets": 4,
    "n_times": 3,
    "tilt": 0.0,
    "max_value": 1.0,
    "encoder": "transformer",
    "decoder": "diffusion",
    "n_hidden": 8,
    "n_blocks": 2,
    "schedule": "cosine",
    "n_steps": 1000,
    "dropout_rate": 0.0,
}
SIZES = [30, 16, 9, 2]


def make_module(**changes) -> ScSetModule:
    torch.manual_seed(0)
    mean, scale = torch.tensor([[0.5, -1.0, 0.0, 2.0]]), torch.tensor([[1.0, 2.0, 0.5, 1.5]])
    module = ScSetModule(mean, scale, -torch.ones(4), high=torch.ones(4), **{**ARGUMENTS, **changes})
    with torch.no_grad():
        for p in module.parameters():
            p += 0.1 * torch.randn_like(p)
    return module.double()


def make_batch(sizes=SIZES, seed=0) -> SampleBatch:
    generator = torch.Generator().manual_seed(seed)
    n = sum(sizes)
    return SampleBatch(
        x=torch.randn(n, 4, generator=generator, dtype=torch.float64),
        ptr=ptr_from_sizes(sizes),
        sample=torch.arange(len(sizes)),
        seed=torch.arange(len(sizes)) + 11,
        rows=torch.arange(n),
    )


def plain_encode(encoder, cells):
    """Section 3.2: every block in full, one head at a time."""
    rows = torch.cat([encoder.pool.cls[None], encoder.lift(cells)])
    for block in encoder.pool.layers:
        q, k, v = block.query_key_value(rows).chunk(3, -1)
        e = rows.shape[1] // block.n_heads
        heads = [
            torch.softmax(q[:, p] @ k[:, p].T / math.sqrt(e), -1) @ v[:, p]
            for p in (slice(h * e, (h + 1) * e) for h in range(block.n_heads))
        ]
        hidden = block.norm_attention(rows + block.output(torch.cat(heads, -1)))
        rows = block.norm_output(hidden + block.feed_forward(hidden))
    return rows[0]


def plain_denoise(network, cell, t, z):
    """Section 3.1 for one cell: both embeddings are summed and steer every block."""
    time = network.time(sinusoidal_embedding(t[None], network.n_time))
    steer = network.modulation(time + network.sample(z[None]))[0].split(network.n_hidden)
    h = network.input(cell)
    for i, block in enumerate(network.blocks):
        shift, scale, gate = steer[3 * i : 3 * i + 3]
        h = h + gate * block((1 + scale) * torch.nn.functional.layer_norm(h, h.shape) + shift)
    return network.output((1 + steer[-1]) * torch.nn.functional.layer_norm(h, h.shape) + steer[-2])


def plain_loss(module, batch):
    """Algorithm 1, with the cells, times and noise that the module draws."""
    anchors, anchor_ptr, targets, target_ptr = module.split(batch.ptr, batch.seed)
    x = (batch.x - module.mean[0]) / module.scale[0]
    per_sample = []
    for s in range(batch.n_samples):
        z = plain_encode(module.encoder, x[anchors[anchor_ptr[s] : anchor_ptr[s + 1]]].clamp(-1, 1))
        own = targets[target_ptr[s] : target_ptr[s + 1]]
        rows = torch.tensor([0, len(own) * module.n_times])
        u = cell_uniform(batch.seed[s : s + 1], rows, stream=STREAM_TIME)
        if module.shared_times:  # t_1, ..., t_n of the sample, for each of its targets
            u = u[: module.n_times].repeat(len(own))
        noise = cell_normal(batch.seed[s : s + 1], rows, 4, stream=STREAM_NOISE)
        errors = []
        for k, row in enumerate(own):
            for step in range(module.n_times):
                i = k * module.n_times + step
                if module.schedule is not None:
                    t = int(u[i] * 1000) + 1
                    kept = module.schedule.alpha_bar[t]
                    state, wanted = kept.sqrt() * x[row] + (1 - kept).sqrt() * noise[i], noise[i]
                    time = torch.tensor(float(t)).double()
                else:
                    state, wanted = (1 - u[i]) * noise[i] + u[i] * x[row], x[row] - noise[i]
                    time = u[i] * 1000
                errors.append((plain_denoise(module.denoiser, state, time, z) - wanted).square().mean())
        per_sample.append(torch.stack(errors).mean())
    return torch.stack(per_sample).mean()


@pytest.mark.parametrize("shared_times", [False, True])
@pytest.mark.parametrize("decoder", ["diffusion", "flow"])
def test_the_loss_is_algorithm_1(decoder, shared_times):
    module, batch = make_module(decoder=decoder, shared_times=shared_times), make_batch()
    got, want = module.loss(batch).loss, plain_loss(module, batch)
    # the loss itself is taken in float32
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=0)
    weights = [p for p in module.parameters() if p.requires_grad]
    for a, b in zip(torch.autograd.grad(got, weights), torch.autograd.grad(want, weights), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_steps_are_embedded_once_when_rows_outnumber_them():
    batch = make_batch()
    few, many = make_module(n_steps=1000), make_module(n_steps=10)
    assert few.schedule.n_steps > 12 * len(SIZES) > many.schedule.n_steps
    anchors, anchor_ptr, targets, target_ptr = many.split(batch.ptr, batch.seed)
    x, ptr = many.standardize(batch), target_ptr * many.n_times
    z = many.encoder(x[anchors], anchor_ptr)
    t = torch.arange(int(ptr[-1])) % 10 + 1
    state = x[targets].repeat_interleave(many.n_times, 0)
    got = many._predict(state, t, z, ptr)
    rows = z.repeat_interleave(ptr.diff(), 0)
    want = torch.stack([plain_denoise(many.denoiser, c, s.double(), v) for c, s, v in zip(state, t, rows, strict=True)])
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)


def test_anchors_and_targets_are_disjoint_and_counted():
    module = make_module()
    batch = make_batch([200, 26, 16, 9, 3, 2])
    anchors, anchor_ptr, targets, target_ptr = module.split(batch.ptr, batch.seed)
    assert set(anchors.tolist()).isdisjoint(targets.tolist())
    assert target_ptr.diff().tolist() == [4, 4, 4, 2, 1, 1]
    assert anchor_ptr.diff().tolist() == [20, 20, 12, 7, 2, 1]
    for rows, ptr in ((anchors, anchor_ptr), (targets, target_ptr)):
        for s in range(batch.n_samples):
            own = rows[ptr[s] : ptr[s + 1]]
            assert ((own >= batch.ptr[s]) & (own < batch.ptr[s + 1])).all()
            assert len(set(own.tolist())) == len(own)


def test_every_cell_is_a_target_as_often_as_any_other():
    module, counts = make_module(), torch.zeros(40)
    for seed in range(400):
        counts[module.split(torch.tensor([0, 40]), torch.tensor([seed]))[2]] += 1
    assert counts.sum() == 400 * 4
    # 400 draws of 4 in 40: mean 40, standard deviation 6
    assert counts.min() > 15
    assert counts.max() < 65


def test_a_tilt_keeps_half_of_the_cells_of_one_side():
    module = make_module(tilt=3.0)
    batch = make_batch([300, 301, 5, 2, 1])
    x = module.standardize(batch)
    kept, ptr = module.tilted(x, batch.ptr, batch.seed)
    assert ptr.diff().tolist() == [150, 151, 3, 2, 1]
    for s in range(batch.n_samples):
        own = kept[ptr[s] : ptr[s + 1]]
        assert ((own >= batch.ptr[s]) & (own < batch.ptr[s + 1])).all()
        assert len(set(own.tolist())) == len(own)
    # the kept half lies to one side: further from the mean than a draw without a tilt (0.06 or so per feature)
    apart = [(x[kept[ptr[s] : ptr[s + 1]]].mean(0) - x[batch.ptr[s] : batch.ptr[s + 1]].mean(0)).norm() for s in (0, 1)]
    module.tilt = 1e-9
    even, even_ptr = module.tilted(x, batch.ptr, batch.seed)
    fair = (x[even[: even_ptr[1]]].mean(0) - x[:300].mean(0)).norm()
    assert max(apart) > 3 * fair


def test_a_tilt_belongs_to_training_and_to_the_sample():
    plain, tilted = make_module(), make_module(tilt=2.0)
    batch = make_batch([60, 50])
    assert not torch.equal(tilted.train().loss(batch).loss, plain.train().loss(batch).loss)
    torch.testing.assert_close(tilted.eval().loss(batch).loss, plain.eval().loss(batch).loss)
    x = tilted.standardize(batch)
    alone = tilted.tilted(x[60:], torch.tensor([0, 50]), batch.seed[1:])[0]
    torch.testing.assert_close(tilted.tilted(x, batch.ptr, batch.seed)[0][30:] - 60, alone)


def test_a_sample_draws_the_same_whoever_is_beside_it():
    module, batch = make_module(), make_batch()
    alone = SampleBatch(batch.x[30:46], torch.tensor([0, 16]), batch.sample[1:2], batch.seed[1:2], batch.rows[30:46])
    together, by_itself = module.split(batch.ptr, batch.seed), module.split(alone.ptr, alone.seed)
    torch.testing.assert_close(together[2][4:8] - 30, by_itself[2])
    losses = [
        module.loss(
            SampleBatch(batch.x[a:b], torch.tensor([0, b - a]), batch.sample[[s]], batch.seed[[s]], batch.rows[a:b])
        ).loss
        for s, (a, b) in enumerate(zip(batch.ptr.tolist(), batch.ptr.tolist()[1:], strict=False))
    ]
    torch.testing.assert_close(module.loss(batch).loss, torch.stack(losses).mean(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_are_functions_of_the_set(name):
    module, batch = make_module(encoder=name).eval(), make_batch()
    z = module.represent(batch)
    assert z.shape == (4, 8)
    one = SampleBatch(
        batch.x[:30].flip(0), torch.tensor([0, 30]), batch.sample[:1], batch.seed[:1] + 5, batch.rows[:30]
    )
    torch.testing.assert_close(module.represent(one)[0], z[0])
    weights = module.attention(batch)
    sums = torch.stack([w.sum(0) for w in weights.split(SIZES)])
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_gated_attention_is_that_of_ilse():
    module, batch = make_module(encoder="abmil", n_cells=50).eval(), make_batch()
    pool, cells = module.encoder.pool, module.encoder.cell(module.read(batch)[:30])
    scores = pool.score(torch.tanh(pool.value(cells)) * torch.sigmoid(pool.gate(cells)))
    weights = torch.softmax(scores, 0)
    torch.testing.assert_close(module.attention(batch)[:30], weights)
    torch.testing.assert_close(module.represent(batch)[0], module.encoder.project((weights * cells).sum(0)))


def test_units_are_undone():
    module, batch = make_module(), make_batch()
    torch.testing.assert_close(module.original_units(module.standardize(batch)), batch.x)
    np.testing.assert_allclose(module.baseline(batch)[3], module.mean[0])


def test_tokens_add_what_they_pool_of_all_cells_to_the_mean_over_groups():
    module, batch = make_module(n_tokens=3, token_weight=0.5).eval(), make_batch()
    without = make_module().eval()
    without.load_state_dict({k: v for k, v in module.state_dict().items() if not k.startswith("tokens.")})
    with torch.no_grad():
        pooled = module.tokens(module.read(batch), batch.ptr)
        torch.testing.assert_close(module.represent(batch), without.represent(batch) + 0.5 * pooled)

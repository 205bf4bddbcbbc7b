"""A training step of ScSet against a plain transcription of the paper, in the same run and with the same weights.

The plain step pads every sample to the longest and masks, runs every transformer block in full for all slots, repeats the
vector of a sample for each of its rows and embeds sample and time for every row of the denoiser. Ours keeps samples packed,
reads one query in the last block, and embeds each sample and each time once. The floor is the time that the operations of our
step (matrix products and attention) would take at the matrix rate measured in the same run.

    python benchmarks/scset_step.py [--precision bf16] [--device cuda] [--process-time]
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from _timing import hardware_line, interleaved_medians, print_table
from torch.utils.flop_counter import FlopCounterMode

from scset_tools.data._batch import SampleBatch
from scset_tools.model.scset._module import STREAM_NOISE, STREAM_TIME, ScSetModule
from scset_tools.nn import cell_normal, cell_uniform, ptr_from_sizes, sinusoidal_embedding, to_padded

N_FEATURES = 14
ARGUMENTS = {
    "n_latent": 256, "n_layers": 2, "n_heads": 4, "n_cells": 1024, "n_targets": 16, "n_times": 16, "tilt": 0.0, "max_value": 4.0,
    "encoder": "transformer", "decoder": "diffusion", "n_hidden": 256, "n_blocks": 5, "schedule": "cosine", "n_steps": 1000,
    "dropout_rate": 0.0, "n_tokens": 0, "token_weight": 1.0,
}  # fmt: skip


def make_batch(n_samples: int, device: str) -> SampleBatch:
    """Samples of made-up cells; the numbers of cells are log-normal, cut to 128 to 1,024."""
    rng = np.random.default_rng(0)
    sizes = np.clip(np.exp(rng.normal(math.log(350), 0.6, n_samples)), 128, 1024).astype(int) + 16
    n = int(sizes.sum())
    x = torch.from_numpy(rng.normal(size=(n, N_FEATURES)).astype(np.float32))
    seed = torch.arange(n_samples) + 100
    return SampleBatch(x, ptr_from_sizes(sizes), torch.arange(n_samples), seed, torch.arange(n)).to(device)


# ---- the paper, written down plainly


def plain_encode(encoder: torch.nn.Module, cells: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
    """Section 3.2 on a padded batch: explicit softmax with a mask, every block for every slot."""
    dense, is_real = to_padded(cells, ptr)
    rows = torch.cat([encoder.pool.cls.expand(len(dense), 1, -1), encoder.lift(dense)], 1)
    is_key = torch.cat([torch.ones_like(is_real[:, :1]), is_real], 1)[:, None, None]
    for block in encoder.pool.layers:
        q, k, v = block.query_key_value(rows).unflatten(-1, (3, block.n_heads, -1)).permute(2, 0, 3, 1, 4)
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        heads = torch.softmax(scores.masked_fill(~is_key, -torch.inf), -1) @ v
        hidden = block.norm_attention(rows + block.output(heads.transpose(1, 2).flatten(2)))
        rows = block.norm_output(hidden + block.feed_forward(hidden))
    return rows[:, 0]


def plain_denoise(network: torch.nn.Module, x: torch.Tensor, t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Section 3.1 with a time and a vector for every row."""
    steer = network.modulation(network.time(sinusoidal_embedding(t, network.n_time)) + network.sample(z))
    steer = steer.split(network.n_hidden, 1)
    h = network.input(x)
    for i, block in enumerate(network.blocks):
        shift, scale, gate = steer[3 * i : 3 * i + 3]
        h = h + gate * block((1 + scale) * F.layer_norm(h, h.shape[-1:]) + shift)
    return network.output((1 + steer[-1]) * F.layer_norm(h, h.shape[-1:]) + steer[-2])


def plain_loss(module: ScSetModule, batch: SampleBatch) -> torch.Tensor:
    """Algorithm 1."""
    anchors, anchor_ptr, targets, target_ptr = module.split(batch.ptr, batch.seed)
    x = module.standardize(batch)
    z = plain_encode(module.encoder, x[anchors].clamp(-module.max_value, module.max_value), anchor_ptr)
    ptr = target_ptr * module.n_times
    clean = x[targets].repeat_interleave(module.n_times, 0)
    noise = cell_normal(batch.seed, ptr, x.shape[1], stream=STREAM_NOISE).to(x.dtype)
    t = (cell_uniform(batch.seed, ptr, stream=STREAM_TIME) * module.schedule.n_steps).long() + 1
    state = module.schedule.add_noise(clean, t, noise)
    predicted = plain_denoise(module.denoiser, state, t, z.repeat_interleave(ptr.diff(), 0))
    return (predicted.float() - noise).square().mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-plain", action="store_true", help="our step and the floor alone")
    parser.add_argument("--process-time", action="store_true", help="count processor time of this process (one thread)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    mean, low = torch.zeros(1, N_FEATURES), -4 * torch.ones(N_FEATURES)
    module = ScSetModule(mean, torch.ones_like(mean), low, high=-low, **ARGUMENTS).to(args.device).train()
    torch.nn.init.normal_(module.denoiser.output.weight, std=0.05)
    batch = make_batch(args.samples, args.device)
    clock = time.process_time if args.process_time else time.perf_counter
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    autocast = torch.autocast(args.device, dtype=torch.bfloat16, enabled=args.precision == "bf16")

    def step(loss) -> torch.Tensor:
        module.zero_grad(set_to_none=True)
        with autocast:
            value = loss()
        value.backward()
        if args.device == "cuda":
            torch.cuda.synchronize()
        return value

    def encode_only() -> torch.Tensor:
        anchors, ptr, *_ = module.split(batch.ptr, batch.seed)
        return module.encoder(module.read(batch)[anchors], ptr).square().mean()

    print(hardware_line())
    if not args.no_plain:
        ours, plain = (step(f).item() for f in (lambda: module.loss(batch).loss, lambda: plain_loss(module, batch)))
        print(f"the same loss: ours {ours:.6f}, plain {plain:.6f}")
    n = 8192 if args.device == "cuda" else 1024
    a, b = (torch.randn(n, n, device=args.device, dtype=dtype) for _ in range(2))
    runs = {
        "ours": lambda: step(lambda: module.loss(batch).loss),
        "plain": lambda: step(lambda: plain_loss(module, batch)),
        "ours, encoder": lambda: step(encode_only),
        # in turn with the others, so that a slow moment of the machine slows the floor as well
        "matrix product": lambda: (a @ b, torch.cuda.synchronize() if args.device == "cuda" else None),
    }
    if args.no_plain:
        del runs["plain"]
    seconds = interleaved_medians(runs, repeats=args.repeats, clock=clock)
    with FlopCounterMode(display=False) as counter:
        step(lambda: module.loss(batch).loss)
    operations = counter.get_total_flops()
    rate = 2 * n**3 / seconds["matrix product"]
    sizes = (batch.sizes - 16).tolist()
    print(
        f"\n{args.samples} samples of {min(sizes)} to {max(sizes)} cells (mean {np.mean(sizes):.0f}), 16 x 16 targets and times, "
        f"{args.precision}, {'processor ' if args.process_time else ''}seconds:\n"
    )
    del runs["matrix product"]
    rows = [(name, seconds[name], seconds.get("plain", math.nan) / seconds[name]) for name in runs]
    print_table(["step", "seconds", "times faster than plain"], rows)
    floor = operations / rate
    print(
        f"\nFloor of our step: {operations / 1e9:.1f} GFLOP at {rate / 1e9:.0f} "
        f"GFLOP/s = {floor:.3f} s; our step takes {seconds['ours'] / floor:.2f} times that."
    )


if __name__ == "__main__":
    main()

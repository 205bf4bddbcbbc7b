"""A training step of MAESTRO against a plain transcription of the paper, in the same run and with the same weights.

The plain step follows the paper and its published code: one sample at a time, explicit softmax attention, every masked view
encoded on its own with one token per hidden cell, the decoder pooling all slots and decoding all of them, and geomloss for
the transport. Network and transport are timed apart. The floor is the time that the matrix products of our step would take
at the matrix rate measured in the same run.

    python benchmarks/train_step.py [--preset paper] [--device cuda] [--precision bf16]
    python benchmarks/train_step.py --operators
"""

from __future__ import annotations

import argparse
import time
from unittest import mock

import torch
from _timing import hardware_line, interleaved_medians, print_table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from scset_tools.data._batch import SampleBatch
from scset_tools.model import MAESTRO
from scset_tools.model.maestro import MAESTROModule
from scset_tools.model.maestro._presets import PRESETS, RECIPE
from scset_tools.model.maestro._views import student_views
from scset_tools.nn import ptr_from_sizes
from scset_tools.nn.loss import _sinkhorn
from scset_tools.nn.loss._sinkhorn_sets import Now

N_MARKERS = 30
# the recipe of the paper, in small
DEFAULTS = {
    **RECIPE, "n_hidden": 128, "n_latent": 64, "n_inducing": 32, "n_heads": 4, "n_layers": 3, "n_cells": 1000,
    "mask_rates": (0.2, 0.4, 0.6, 0.8), "masking": "block", "views": ("random",), "decoder": "sab", "reconstruct": "masked",
    "distillation_weight": 0.1, "token_weight": 1.0, "n_prototypes": 256, "student_temperature": 0.1,
    "teacher_temperature": 0.07, "center_momentum": 0.9, "ema_decay": 0.999, "dropout_rate": 0.0, "represent_with": "student",
}  # fmt: skip


def make_batch(n_samples: int, low: int, high: int, device: str) -> SampleBatch:
    """Samples of made-up cells, sizes evenly spaced between ``low`` and ``high``."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.linspace(low, high, n_samples).long()
    n = int(sizes.sum())
    centres = torch.randn(8, N_MARKERS, generator=generator) * 2
    x = centres[torch.randint(8, (n,), generator=generator)] + torch.randn(n, N_MARKERS, generator=generator)
    seed = torch.arange(n_samples) + 100
    return SampleBatch(x, ptr_from_sizes(sizes), torch.arange(n_samples), seed, torch.arange(n)).to(device)


# ---- the paper, written down plainly


def plain_attention(attention: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Softmax attention with the whole matrix of weights (eq. 1-2)."""
    q, k, v = (f(t).unflatten(-1, (attention.n_heads, -1)).transpose(0, 1)
               for f, t in ((attention.query, x), (attention.key, y), (attention.value, y)))  # fmt: skip
    weights = torch.softmax(q @ k.transpose(1, 2) * attention.scale, -1)
    return attention.output((weights @ v).transpose(0, 1).flatten(1))


def plain_mab(mab: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Eq. 3-4."""
    hidden = mab.norm_attention(x + plain_attention(mab.attention, x, y))
    return mab.norm_output(hidden + mab.feed_forward(hidden))


def plain_encode(encoder: torch.nn.Module, cells: torch.Tensor) -> torch.Tensor:
    """Eq. 8 for one sample."""
    rows = encoder.lift(cells)
    for layer in encoder.layers:
        rows = plain_mab(layer.spread, rows, plain_mab(layer.gather, layer.inducing, rows))
    return encoder.project(plain_mab(encoder.pool.mab, encoder.pool.seeds, rows))[0]


def plain_decode(decoder: torch.nn.Module, z: torch.Tensor, is_hidden: torch.Tensor) -> torch.Tensor:
    """Eq. 9 for one view: all slots filled, all slots decoded."""
    slots = torch.where(is_hidden[:, None], decoder.hidden_token, z)
    cells = plain_mab(decoder.unpool, decoder.seeds[: len(slots)], decoder.lift(slots))
    for layer in decoder.layers:
        cells = plain_mab(layer.mab, cells, cells)
    return decoder.output(cells)


def plain_step(module: MAESTROModule, batch: SampleBatch, transport) -> torch.Tensor:
    """Algorithm 3, a sample and a view at a time."""
    x_all = (batch.x - module.mean[0]) / module.scale[0]
    losses = []
    for s, cells in enumerate(x_all.split(batch.sizes.tolist())):
        ptr = torch.tensor([0, len(cells)], device=cells.device)
        with torch.no_grad():
            target = module.teacher.head(plain_encode(module.teacher.encoder, cells)[None])
        for rate in module.mask_rates:
            views = student_views(cells, ptr, batch.seed[s : s + 1], n_cells=module.n_cells, mask_rates=(rate,))
            crop = cells[views.index]
            seen = torch.where(views.is_hidden[:, None], module.hidden_token, crop)
            z = plain_encode(module.student.encoder, seen)
            predicted = plain_decode(module.decoder, z, views.is_hidden)[views.is_hidden]
            rec = transport(crop[views.is_hidden], predicted)
            kl = module.distillation(module.student.head(z[None]), target)
            losses.append(module.reconstruction_weight * rec + module.distillation_weight * kl)
    return torch.stack(losses).mean()


def squared_distance_of_means(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A stand-in for transport that costs nothing, to time the network alone."""
    return (x.mean(0) - y.mean(0)).square().sum()


class FreeTransport(torch.nn.Module):
    """The same for ragged sets."""

    def forward(self, x: torch.Tensor, y: torch.Tensor, *, x_ptr: torch.Tensor, y_ptr: torch.Tensor) -> torch.Tensor:
        sizes = x_ptr.diff().tolist()
        return torch.stack(
            [squared_distance_of_means(a, b) for a, b in zip(x.split(sizes), y.split(sizes), strict=True)]
        )


def published_transport():
    """geomloss as the published code calls it (p=2, blur .005, scaling .95), and at its quicker default setting."""
    from geomloss import SamplesLoss

    return {
        ".005/.95": SamplesLoss("sinkhorn", p=2, blur=0.005, scaling=0.95, backend="tensorized"),
        ".05/.5": SamplesLoss("sinkhorn", p=2, blur=0.05, scaling=0.5, backend="tensorized"),
    }


class Operators(TorchDispatchMode):
    """Operations that a GPU would run as one kernel each, counted on a CPU; ``waits`` are values that the host asks for."""

    no_kernel = frozenset(
        "transpose unsqueeze squeeze view expand detach select slice alias t permute unbind _unsafe_view split empty "
        "empty_like is_same_size _local_scalar_dense scalar_tensor lift_fresh unfold as_strided diagonal".split()
    )

    def __init__(self) -> None:
        super().__init__()
        self.n = self.waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func.overloadpacket).rpartition(".")[2]
        self.n += name not in self.no_kernel
        self.waits += name in ("_local_scalar_dense", "nonzero", "masked_select")
        return func(*args, **(kwargs or {}))


class Late(Now):
    """The answer of the call before: what :class:`~scset_tools.nn.loss._sinkhorn_sets.Behind` says, without its events."""

    def asked(self, is_done: torch.Tensor) -> bool:
        answer = self.answer()
        self.tell(is_done)
        return answer


def count_operators(module: MAESTROModule, batch: SampleBatch) -> None:
    """Operations of a step as a GPU would run it: sets of equal sizes together as before, and all sets padded together."""
    way = _sinkhorn._Way
    ways = {
        "none": None,
        "sets of equal sizes together, looked at after each round": way(
            2**27, is_padded=False, is_exact=False, look=Now
        ),
        "sets of any size together, looked at a round behind": way(2**27, is_padded=True, is_exact=False, look=Late),
    }
    ours, rows, losses = module.transport, [], {}
    for name, how in ways.items():
        module.transport = FreeTransport() if how is None else ours
        module.zero_grad(set_to_none=True)
        torch.manual_seed(0)
        with mock.patch.object(_sinkhorn, "_way", lambda _, how=how: how), Operators() as counted:
            start = time.process_time()
            loss = module.loss(batch).loss
            loss.backward()
            taken = time.process_time() - start
        losses[name] = float(loss.detach())
        rows.append((name, counted.n, counted.waits, taken))
    module.transport = ours
    print(f"\nA step of {batch.n_samples} samples of {batch.sizes.min()} to {batch.sizes.max()} cells:\n")
    print_table(["transport", "operations", "values asked for", "CPU seconds"], rows)
    *_, before, after = losses.values()
    print(f"\nThe losses are {abs(before - after) / before:.1e} of their value apart.")


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product."""
    n = 8192 if device == "cuda" else 1536
    a, b = torch.randn(n, n, device=device, dtype=dtype), torch.randn(n, n, device=device, dtype=dtype)

    def product() -> None:
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()

    return 2 * n**3 / interleaved_medians({"product": product}, repeats=5)["product"]


def fused_attention_flops() -> dict:
    """Operations of the fused attention on a CPU, which torch's counter leaves out: q k' and a v, and five products back."""

    def forward(q: tuple, k: tuple, v: tuple, *_, **__) -> int:
        return sdpa_flop_count(q, k, v)

    def backward(_grad: tuple, q: tuple, k: tuple, v: tuple, *_, **__) -> int:
        return sdpa_backward_flop_count(_grad, q, k, v)

    aten = torch.ops.aten
    return {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["default", *PRESETS], default="default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--operators",
        action="store_true",
        help="count operations instead of taking times (8 samples of 100 to 600 cells)",
    )
    parser.add_argument(
        "--plain",
        choices=["full", "quick", "no"],
        default="full",
        help="plain step: with the published setting of geomloss (minutes), without it, or not at all",
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    arguments = {**DEFAULTS, **MAESTRO.preset(args.preset).model}
    module = MAESTROModule(torch.zeros(1, N_MARKERS), torch.ones(1, N_MARKERS), **arguments).to(args.device).train()
    if args.operators:
        print(hardware_line())
        count_operators(module, make_batch(8, 100, 600, "cpu"))
        return
    batch = make_batch(16, 500, 5000, args.device)
    ours = module.transport
    autocast = torch.autocast(args.device, dtype=torch.bfloat16, enabled=args.precision == "bf16")

    def step(loss) -> None:
        module.zero_grad(set_to_none=True)
        with autocast:
            value = loss()
        value.backward()
        if args.device == "cuda":
            torch.cuda.synchronize()

    def our_step(transport) -> None:
        module.transport = transport
        step(lambda: module.loss(batch).loss)

    runs = {"ours": lambda: our_step(ours), "ours, network": lambda: our_step(FreeTransport())}
    if args.plain != "no":
        published = published_transport()
        runs["plain, network"] = lambda: step(lambda: plain_step(module, batch, squared_distance_of_means))
        runs["plain, geomloss .05/.5"] = lambda: step(lambda: plain_step(module, batch, published[".05/.5"]))
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        our_step(ours)
        print(f"peak GPU memory of our step: {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")
    print(hardware_line())
    seconds = interleaved_medians(runs, repeats=args.repeats)
    if args.plain == "full" and args.device == "cpu":
        # minutes, so once: the published setting of geomloss
        start = time.perf_counter()
        step(lambda: plain_step(module, batch, published[".005/.95"]))
        seconds["plain, geomloss .005/.95 (published; 1 run)"] = time.perf_counter() - start
    seconds["ours, transport"] = seconds["ours"] - seconds["ours, network"]
    print(
        f"\nA training step of {batch.n_samples} samples of 500 to 5,000 cells, {args.preset} preset, {args.precision}:\n"
    )
    baseline = {"ours, network": "plain, network", "ours": "plain, geomloss .05/.5"}
    rows = []
    for name in sorted(seconds):
        against = baseline.get(name)
        ratio = f"{seconds[against] / seconds[name]:.1f}x faster than {against}" if against in seconds else ""
        rows.append((name, seconds[name], batch.n_samples / seconds[name], ratio))
    print_table(["step", "seconds", "samples per second", "ratio"], rows)
    module.transport = FreeTransport()
    with FlopCounterMode(display=False, custom_mapping=fused_attention_flops()) as counter:
        step(lambda: module.loss(batch).loss)
    rate = matrix_rate(args.device, torch.bfloat16 if args.precision == "bf16" else torch.float32)
    floor = counter.get_total_flops() / rate
    print(
        f"\nArithmetic floor of our network: {counter.get_total_flops() / 1e9:.1f} GFLOP at {rate / 1e9:.0f} GFLOP/s = "
        f"{floor:.3f} s; our network takes {seconds['ours, network'] / floor:.2f} times that."
    )


if __name__ == "__main__":
    main()

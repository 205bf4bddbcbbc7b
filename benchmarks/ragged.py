"""Ragged attention against padding: one forward and backward pass of a set encoder over samples of unequal size.

Run ``PYTHONPATH=src python benchmarks/ragged.py``. All rows use the same weights and the same cells. Times are medians
of runs that take turns in one process; memory is the peak of a fresh process over what it held before the pass.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from _timing import hardware_line, in_fresh_process, interleaved_medians, peak_bytes, print_table

from scset_tools.nn import SetEncoder, ptr_from_sizes, to_padded

if TYPE_CHECKING:
    from collections.abc import Callable

    Embed = Callable[[SetEncoder, torch.Tensor, torch.Tensor], torch.Tensor]

N_INPUT, WIDTH, N_HEADS, N_INDUCING, N_SAMPLES = 30, 256, 4, 32, 16
BASELINE = "padded + mask, SDPA"


def make(smallest: int, largest: int) -> tuple[SetEncoder, torch.Tensor, torch.Tensor]:
    """An encoder and samples whose sizes are evenly spaced on a log scale, in shuffled order."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    encoder = SetEncoder(N_INPUT, WIDTH, 64, n_heads=N_HEADS, n_inducing=N_INDUCING)
    counts = torch.logspace(math.log10(smallest), math.log10(largest), N_SAMPLES).round().long()
    ptr = ptr_from_sizes(counts[torch.randperm(N_SAMPLES, generator=generator)])
    return encoder, torch.randn(int(ptr[-1]), N_INPUT, generator=generator).requires_grad_(), ptr


# The alternatives, written with the usual projections on the weights of the same encoder.


def sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, is_key: torch.Tensor | None) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=None if is_key is None else is_key[:, None, None])


def explicit(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, is_key: torch.Tensor | None) -> torch.Tensor:
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if is_key is not None:
        scores = scores.masked_fill(~is_key[:, None, None], -torch.inf)
    return scores.softmax(-1) @ v


def mab(block, x, y, is_key, attend):
    heads = [
        rows.unflatten(-1, (N_HEADS, -1)).transpose(1, 2)
        for rows in (block.attention.query(x), block.attention.key(y), block.attention.value(y))
    ]
    attended = block.attention.output(attend(*heads, is_key).transpose(1, 2).flatten(-2))
    hidden = block.norm_attention(x + attended)
    return block.norm_output(hidden + feed_forward(block.feed_forward, hidden))


def feed_forward(layer, hidden):
    gate, value = layer.gate_and_value(hidden).chunk(2, -1)
    return layer.output(F.silu(gate) * value)


def embed_dense(encoder, dense, is_key, attend):
    rows, n_samples = encoder.lift(dense), len(dense)
    for layer in encoder.layers:
        induced = mab(layer.gather, layer.inducing.expand(n_samples, -1, -1), rows, is_key, attend)
        rows = mab(layer.spread, rows, induced, None, attend)
    pooled = mab(encoder.pool.mab, encoder.pool.seeds.expand(n_samples, -1, -1), rows, is_key, attend)
    return encoder.project(pooled[:, 0])


def padded(attend: Callable[..., torch.Tensor]) -> Embed:
    def embed(encoder: SetEncoder, x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
        return embed_dense(encoder, *to_padded(x, ptr), attend)

    return embed


def buckets(n_buckets: int) -> Embed:
    def embed(encoder: SetEncoder, x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
        parts, order = x.split(ptr.diff().tolist()), ptr.diff().argsort()
        results = []
        for bucket in order.chunk(n_buckets):
            members = [parts[i] for i in bucket.tolist()]
            bounds = ptr_from_sizes([len(part) for part in members])
            results.append(embed_dense(encoder, *to_padded(torch.cat(members), bounds), sdpa))
        return torch.cat(results)[order.argsort()]

    return embed


def loop(encoder: SetEncoder, x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
    return torch.cat([embed_dense(encoder, part[None], None, sdpa) for part in x.split(ptr.diff().tolist())])


def nested(encoder: SetEncoder, x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
    jagged = torch.nested.nested_tensor_from_jagged(x, ptr)

    def jagged_mab(block, x, y):
        heads = [
            rows.unflatten(-1, [N_HEADS, -1]).transpose(1, 2)
            for rows in (block.attention.query(x), block.attention.key(y), block.attention.value(y))
        ]
        attended = block.attention.output(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(-2))
        hidden = block.norm_attention(x + attended)
        return block.norm_output(hidden + feed_forward(block.feed_forward, hidden))

    def repeat(shared: torch.Tensor) -> torch.Tensor:
        bounds = torch.arange(len(ptr)) * len(shared)
        return torch.nested.nested_tensor_from_jagged(shared.repeat(len(ptr) - 1, 1), bounds)

    rows = encoder.lift(jagged)
    for layer in encoder.layers:
        rows = jagged_mab(layer.spread, rows, jagged_mab(layer.gather, repeat(layer.inducing), rows))
    return encoder.project(jagged_mab(encoder.pool.mab, repeat(encoder.pool.seeds), rows).values())


def ours(encoder: SetEncoder, x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
    return encoder(x, ptr)


def in_bfloat16(embed: Embed) -> Embed:
    def run(encoder: SetEncoder, x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return embed(encoder, x, ptr)

    return run


CASES: dict[str, Embed] = {
    BASELINE: padded(sdpa),
    "padded + mask, explicit softmax": padded(explicit),
    "four buckets, SDPA": buckets(4),
    "loop of SDPA": loop,
    "nested jagged": nested,
    "ours (packed)": ours,
    "padded + mask, SDPA, bf16": in_bfloat16(padded(sdpa)),
    "ours (packed), bf16": in_bfloat16(ours),
}


def step(embed: Embed, encoder: SetEncoder, x: torch.Tensor, ptr: torch.Tensor) -> list[torch.Tensor]:
    """Embeddings, then gradients of their sum of squares with respect to the cells and every weight."""
    embeddings = embed(encoder, x, ptr)
    return [embeddings, *torch.autograd.grad(embeddings.float().square().sum(), [x, *encoder.parameters()])]


def main() -> None:
    """Print the table, or, with ``--case``, the peak memory of one case as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case")
    # Without hardware support bfloat16 is emulated, an order of magnitude slower than float32: only when asked for.
    has_bf16 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    usual = [name for name in CASES if has_bf16 or "bf16" not in name]
    parser.add_argument("--cases", nargs="*", default=usual, choices=list(CASES))
    parser.add_argument("--sizes", nargs=2, type=int, default=(300, 12_000), metavar=("SMALLEST", "LARGEST"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--processor-time", action="store_true", help="count processor time: for a busy machine")
    arguments = parser.parse_args()
    problem = make(*arguments.sizes)
    if arguments.case:
        before = peak_bytes()
        step(CASES[arguments.case], *problem)
        print(json.dumps({"peak": peak_bytes() - before}))
        return

    counts = problem[2].diff()
    slots = int(counts.max()) * N_SAMPLES
    print(hardware_line())
    print(
        f"{N_SAMPLES} samples of {int(counts.min())} to {int(counts.max())} cells, {int(counts.sum())} in all; padding "
        f"makes {slots} slots ({slots / int(counts.sum()):.2f} per cell). Width {WIDTH}, {N_HEADS} heads, "
        f"{N_INDUCING} inducing points, 3 x ISAB + PMA, float32 unless named, forward + backward."
    )
    if arguments.cases == usual and not has_bf16:
        print("No bf16 rows: this processor emulates bfloat16 (name the rows with --cases to run them all the same).")
    sizes = [str(size) for size in arguments.sizes]
    cases = {name: CASES[name] for name in arguments.cases}
    peaks = {name: in_fresh_process(__file__, "--case", name, "--sizes", *sizes)["peak"] for name in cases}
    expected = step(CASES[BASELINE], *problem)
    errors = {}
    for name, embed in cases.items():
        pairs = list(zip(step(embed, *problem), expected, strict=True))
        errors[name] = [float((a - b).detach().norm() / b.detach().norm()) for a, b in pairs]
    seconds = interleaved_medians(
        {name: (lambda embed=embed: step(embed, *problem)) for name, embed in cases.items()},
        repeats=arguments.repeats,
        clock=time.process_time if arguments.processor_time else time.perf_counter,
    )
    reference = arguments.cases[0]
    print_table(
        ["way", "seconds", "faster", "peak MB", "memory", "error of result", "worst error of a gradient"],
        [
            [
                name,
                seconds[name],
                f"{seconds[reference] / seconds[name]:.2f} x",
                peaks[name] / 1e6,
                f"{peaks[name] / peaks[reference]:.2f}",
                errors[name][0],
                max(errors[name][1:]),
            ]
            for name in cases
        ],
    )


if __name__ == "__main__":
    main()

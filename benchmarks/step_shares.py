"""Where the processor time of a training step goes, and the step against the floor of its arithmetic.

    OMP_NUM_THREADS=1 python benchmarks/step_shares.py [--models MAESTRO ScSet] [--cohorts hiv krieg] [--steps 60] [--operators 12]

Each model learns at its default sizes on real cells. The parts of a step do not overlap: each is without those that it calls. The floor is
the time that the matrix products of forward and backward pass (attention among them) would take at the rate of a large matrix product,
measured in turn with the step, as in ``train_step.py`` and ``scset_step.py``; a second one is what these products take in the step itself,
at their own sizes, which at the widths of the defaults is far below that rate. Transport is no matrix product: the step is given with and
without it. Real cohorts are read from ../shared/data or $SCSET_TOOLS_DATA.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch
from _quiet import one_quiet_thread
from _timing import hardware_line, interleaved_medians, print_table
from defaults import QUIET, read
from lightning.pytorch.profilers import Profiler
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from train_step import FreeTransport, fused_attention_flops

import scset_tools as sst
from scset_tools.model.maestro import _module as maestro
from scset_tools.model.scset import _module as scset

LIGHTNING = {
    "train_dataloader_next": "reading",
    "batch_to_device": "reading",
    "training_step": "forward: the rest",
    "backward": "backward",
    "WatchHealth": "watching health",
    "gradient_clipping": "clipping",
    "optimizer_zero_grad": "zeroing gradients",
    "optimizer_step": "optimiser",
}
"""Part of a step by a word of what Lightning calls it."""
LOOP = "loop, logging, other callbacks"
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "scaled_dot_product_flash_attention_for_cpu")


class Shares(Profiler):
    """Processor seconds of named parts, each without those that it calls."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = defaultdict(float)
        self.n_steps = 0
        self._open: list[list[Any]] = []

    def start(self, action_name: str) -> None:
        """Begin a part that Lightning names."""
        self.n_steps += action_name == "run_training_batch"
        self.begin(next((part for word, part in LIGHTNING.items() if word in action_name), LOOP))

    def stop(self, action_name: str) -> None:
        """End it."""
        del action_name
        if self._open:
            self.end()

    def begin(self, name: str) -> None:
        """Begin a part."""
        self._open.append([name, time.process_time(), 0.0])

    def end(self) -> None:
        """End the part that was begun last."""
        name, start, inner = self._open.pop()
        taken = time.process_time() - start
        self.seconds[name] += taken - inner
        if self._open:
            self._open[-1][2] += taken

    def around(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        """A function whose time is noted."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.begin(name)
            try:
                return call(*args, **kwargs)
            finally:
                self.end()

        return timed

    def describe(self) -> None:
        """Print nothing."""


class Operators(TorchDispatchMode):
    """Processor seconds and calls of each operation of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func.overloadpacket).rpartition(".")[2].removeprefix("_")
        start = time.process_time()
        out = func(*args, **(kwargs or {}))
        self.seconds[name] += time.process_time() - start
        self.calls[name] += 1
        return out

    def of_products(self) -> float:
        """Seconds of matrix products and attention."""
        return sum(s for name, s in self.seconds.items() if name.removesuffix("_backward") in PRODUCTS)


def clocks(module: Any, shares: Shares) -> list[Any]:
    """What puts a clock around each part of the loss."""
    if isinstance(module, maestro.MAESTROModule):
        parts = [(module.student.encoder, "forward: encoder"), (module.decoder, "forward: decoder")]
        parts += [(module.transport, "forward: transport"), (module.distillation, "forward: distillation")]
        calls = [(maestro, "student_views", "forward: draws, views"), (maestro, "encode_all", "forward: teacher")]
        calls += [(maestro, "ema_update", "following of the teacher")]
    else:
        parts = [(module.encoder, "forward: encoder"), (module.denoiser, "forward: denoiser")]
        calls = [(module, "split", "forward: draws"), (module, "times", "forward: draws")]
        calls += [(scset, "cell_normal", "forward: draws")]
    calls += [(part, "forward", name) for part, name in [*parts, (module.tokens, "forward: tokens")]]
    return [mock.patch.object(owner, name, shares.around(getattr(owner, name), part)) for owner, name, part in calls]


def train(model: Any, n_steps: int, **how: Any) -> int:
    """Learn for about so many steps by the defaults of the model; the number of steps."""
    n_epochs = max(1, round(n_steps / -(-len(model.sample_names) // 16)))
    model.train(n_epochs, seed=0, stop_at_plateau=False, **how, **QUIET)
    return model.trainer.global_step


def shares_of(model: Any, n_steps: int) -> Shares:
    """Processor seconds of the parts of a training."""
    shares = Shares()
    with ExitStack() as stack:
        for patch in clocks(model.module, shares):
            stack.enter_context(patch)
        train(model, n_steps, profiler=shares)
    return shares


def one_batch(model: Any) -> Any:
    """The first samples of the cohort, as many as in a batch of a training, with their cells drawn as there."""
    dataset = model._dataset(model.adata)
    return dataset[0, list(range(min(16, len(dataset.index))))]


def floors(model: Any, n_operators: int) -> None:
    """Print the step, of forward and backward pass, against the time of its matrix products."""
    module = model.module.train()
    batch = one_batch(model)
    transport = getattr(module, "transport", None)

    def step(moves: Any = None) -> None:
        if transport is not None:
            module.transport = moves or transport
        module.zero_grad(set_to_none=True)
        module.loss(batch).loss.backward()

    n = 1024
    a, b = torch.randn(n, n), torch.randn(n, n)
    step()
    parameters = [p for p in module.parameters() if p.grad is not None]
    gradients = [p.grad.clone() for p in parameters]
    copies = [torch.nn.Parameter(p.detach().clone()) for p in parameters]
    optimisers = {fused: torch.optim.AdamW(copies, fused=fused) for fused in (False, True)}

    def optimise(*, fused: bool) -> None:
        for p, gradient in zip(copies, gradients, strict=True):
            p.grad = gradient
        optimisers[fused].step()

    runs = {"whole": step, "a large product": lambda: a @ b}
    runs |= {"fused": lambda: optimise(fused=True), "one by one": lambda: optimise(fused=False)}
    if transport is not None:
        runs["without transport"] = lambda: step(FreeTransport())
    seconds = interleaved_medians(runs, repeats=15, clock=time.process_time)
    free = None if transport is None else FreeTransport()
    with FlopCounterMode(display=False, custom_mapping=fused_attention_flops()) as counter:
        step(free)
    floor = counter.get_total_flops() * seconds["a large product"] / (2 * n**3)
    products, whole = [], []
    for _ in range(5):
        with Operators() as operators:
            start = time.process_time()
            step(free)
            whole.append(time.process_time() - start)
        products.append(operators.of_products())
    own = sorted(products)[2]
    network = seconds["without transport" if transport is not None else "whole"]
    print(
        f"\nForward and backward pass of {batch.n_samples} samples, {len(batch.x):,} cells: {seconds['whole'] * 1e3:.1f} ms"
        + (f", {network * 1e3:.1f} without transport" if transport is not None else "")
        + f". Floor: {counter.get_total_flops() / 1e9:.2f} GFLOP at {2 * n**3 / seconds['a large product'] / 1e9:.0f} GFLOP/s = "
        f"{floor * 1e3:.1f} ms, **{network / floor:.2f}** times that. The same products in the step itself: {own * 1e3:.1f} ms, "
        f"**{network / own:.2f}** times that. Optimiser, {len(parameters)} parameters: {seconds['one by one'] * 1e3:.2f} ms one by one, "
        f"{seconds['fused'] * 1e3:.2f} in one call."
    )
    if n_operators:
        most = sorted(operators.seconds.items(), key=lambda item: -item[1])[:n_operators]
        print(f"\n{sum(operators.calls.values())} operations:\n")
        print_table(["operation", "calls", "ms"], [(name, operators.calls[name], s * 1e3) for name, s in most])


def main() -> None:
    """Print a table of shares, and the floor, for each model and cohort."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["MAESTRO", "ScSet"])
    parser.add_argument("--cohorts", nargs="+", default=["hiv", "krieg"])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--operators", type=int, default=0, help="operations to print, those that take most first")
    args = parser.parse_args()
    one_quiet_thread()
    print(hardware_line())
    for name in args.models:
        for cohort in args.cohorts:
            adata, _ = read(cohort, 0)
            cls = getattr(sst, name)
            cls.setup_anndata(adata, "sample")
            model = cls(adata, random_state=0)
            train(model, 4)  # what is done once
            shares = shares_of(model, args.steps)
            total = sum(shares.seconds.values())
            print(
                f"\n{name} on {cohort}: {shares.n_steps} steps of {total / shares.n_steps * 1e3:.1f} ms of processor time\n"
            )
            rows = sorted(shares.seconds.items(), key=lambda item: -item[1])
            print_table(
                ["part", "ms a step", "share"], [(p, s / shares.n_steps * 1e3, f"{s / total:.1%}") for p, s in rows]
            )
            floors(model, args.operators)


if __name__ == "__main__":
    main()

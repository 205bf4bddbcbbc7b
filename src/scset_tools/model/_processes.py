"""Inference by several processes: each takes some samples, and all get all results."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch.distributed as dist
from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]  # public, though not marked so


@dataclass(frozen=True)
class _Processes:
    rank: int
    world: int
    group: Any


_ACTIVE: ContextVar[_Processes | None] = ContextVar("scset_tools_processes", default=None)
_BLOCKS = count()


@contextmanager
def share_inference() -> Iterator[int]:
    """Within the block, the processes of a run share the samples of inference, and each gets all results.

    For scripts that ``torchrun`` or ``srun`` starts several times. Embeddings, predictions, scores of cells and attributions
    are those of one process; every process must make the same calls, and whatever is written, one of them writes. Outside
    of the block each process does all the work, as ever. A single process does nothing special.

    Yields
    ------
    Number of the process, 0 to one less than there are.

    Raises
    ------
    RuntimeError
        If a call fails in another process.

    Examples
    --------
    >>> import scset_tools as sst
    >>> with sst.model.share_inference() as rank:
    ...     print(rank)
    0
    """
    own = not (dist.is_available() and dist.is_initialized())
    if own and int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield 0
        return
    if own:
        _join()
    # on the host, whatever the devices of training speak
    processes = _Processes(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo"))
    token = _ACTIVE.set(processes)
    try:
        yield processes.rank
    finally:
        _ACTIVE.reset(token)
        dist.destroy_process_group(None if own else processes.group)


def _join() -> None:
    """Open a group whose keys in the store are its own.

    A closed group leaves its addresses in the store; a second one under the same keys would at times read them, and
    knock where nobody listens any more.
    """
    store, rank, world = next(rendezvous("env://"))
    store = PrefixStore(f"share_inference/{next(_BLOCKS)}", store)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)


def is_shared() -> bool:
    """Whether several processes share the samples of inference."""
    return _ACTIVE.get() is not None


def shared(numbers: np.ndarray, sizes: np.ndarray, work: Callable[[np.ndarray], Any]) -> list[Any]:
    """What is found of the shares of all processes, in their order; without :func:`share_inference` of one share that is all.

    Parameters
    ----------
    numbers
        Numbers of the samples, distinct, (n,).
    sizes
        Number of cells of every sample of the data, indexed by sample number.
    work
        From the numbers of some samples to what is found of them, which must survive pickling.
    """
    processes = _ACTIVE.get()
    if processes is None:
        return [work(numbers)]
    error, found = None, None
    try:
        found = work(shares_of(numbers, sizes, processes.world)[processes.rank])
    except Exception as caught:  # noqa: BLE001  (the others wait, and are told)
        error = caught
    everything: list[Any] = [None] * processes.world
    told = None if error is None else f"{type(error).__name__}: {error}"
    dist.all_gather_object(everything, (told, found), group=processes.group)
    if error is not None:
        raise error
    failed = {rank: what for rank, (what, _) in enumerate(everything) if what is not None}
    if failed:
        rank, what = next(iter(failed.items()))
        msg = f"Process {rank} of {processes.world} failed: {what}"
        raise RuntimeError(msg)
    return [found for _, found in everything]


def shares_of(numbers: np.ndarray, sizes: np.ndarray, n_shares: int) -> list[np.ndarray]:
    """Samples dealt out so that each share has about as many cells: the largest first, to whom has the fewest.

    Parameters
    ----------
    numbers
        Numbers of the samples, (n,).
    sizes
        Number of cells of every sample of the data, indexed by sample number.
    n_shares
        Number of shares; with more shares than samples some are empty.
    """
    shares: list[list[int]] = [[] for _ in range(n_shares)]
    n_cells = np.zeros(n_shares, dtype=np.int64)
    for number in sorted(np.asarray(numbers).tolist(), key=lambda i: (-int(sizes[i]), i)):
        least = int(n_cells.argmin())
        shares[least].append(number)
        n_cells[least] += int(sizes[number])
    return [np.asarray(sorted(share), dtype=np.int64) for share in shares]

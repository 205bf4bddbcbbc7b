"""Sets of several sizes side by side: which are solved together, and where their cells lie."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scset_tools.nn import _ragged
from scset_tools.nn._packed import PackedSets

if TYPE_CHECKING:
    from collections.abc import Iterator

# Entries of the kernel that a GPU works on in less time than it takes to issue the operation: padding up to here is free.
_FREE_ENTRIES = 2**22
# Otherwise so many times as many entries may be worked on as there are pairs of cells.
_MOST_PADDING = 2.0
# Lower than any potential, and in single precision still finite after a division by the last temperature.
_NEVER = -1e28


@dataclass(frozen=True)
class Cells:
    """One side of a group of sets, (sets, longest, d): how many cells each has, and which slots hold one.

    Attributes
    ----------
    n
        Number of cells: one for all, or of each set, (sets, 1, 1).
    real
        1 where a slot holds a cell and 0 elsewhere, (sets, longest, 1); None where all do.
    """

    n: int | Tensor
    real: Tensor | None = None

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the cells of each set of values that are 0 in empty slots, (sets, 1, k)."""
        return values.mean(dim=1, keepdim=True) if self.real is None else values.sum(dim=1, keepdim=True) / self.n

    def only(self, values: Tensor) -> Tensor:
        """The same values (sets, longest, k), 0 in empty slots."""
        return values if self.real is None else values * self.real.to(values.dtype)

    def fill(self, values: Tensor, value: float) -> Tensor:
        """The same values (sets, longest), another one in empty slots."""
        return values if self.real is None else values.masked_fill(self.real.squeeze(2) == 0, value)

    def median(self, values: Tensor) -> Tensor:
        """Lower median over the cells of each set, (sets, 1, k)."""
        if self.real is None:
            return values.median(dim=1, keepdim=True).values
        return values.masked_fill(self.real == 0, torch.nan).nanmedian(dim=1, keepdim=True).values

    def potential(self, points: Tensor) -> Tensor:
        """Potentials to start from, (sets, longest): no mass ever goes to an empty slot."""
        return self.fill(points.new_zeros(points.shape[:2]), _NEVER)


class Side:
    """Which cells of the ragged batch make up the sets of a group.

    Parameters
    ----------
    bounds
        Boundaries of all sets.
    samples
        Those of the group.
    device
        Where the cells lie.
    """

    def __init__(self, bounds: list[int], samples: list[int], device: torch.device) -> None:
        parts = [(bounds[i], bounds[i + 1]) for i in samples]
        sizes = [high - low for low, high in parts]
        self._sets = PackedSets.of(sizes, device, "padded")
        rows = torch.cat([torch.arange(low, high) for low, high in parts])
        self._rows = _ragged.to_device(rows, device)
        if self._sets.is_uniform:
            self.cells = Cells(sizes[0])
            return
        n = _ragged.to_device(torch.tensor(sizes), device)[:, None, None]
        is_real = torch.arange(max(sizes), device=device)[None, :, None] < n
        self.cells = Cells(n.to(torch.float32), is_real.to(torch.float32))

    def gather(self, x: Tensor) -> Tensor:
        """The cells as (sets, longest, d), empty slots filled with zeros."""
        rows = x.index_select(0, self._rows)
        return self._sets.dense(rows) if self.cells.real is None else self._sets.to_padded(rows)[0]

    def scatter(self, out: Tensor, dense: Tensor) -> None:
        """Write (sets, longest, d) to the rows of the cells."""
        rows = dense.flatten(0, 1) if self.cells.real is None else self._sets.from_padded(dense)
        out.index_copy_(0, self._rows, rows)


def groups_of(x_bounds: list[int], y_bounds: list[int], *, limit: int, is_padded: bool) -> Iterator[list[int]]:
    """Samples without an empty side, in groups whose kernels together have at most ``limit`` entries (or one set).

    Sets of equal sizes; or of any, the larger first, as long as padding them to the largest costs little.

    Parameters
    ----------
    x_bounds, y_bounds
        Boundaries of both sides.
    limit
        Most entries.
    is_padded
        Whether sets of different sizes may be together.
    """
    n_x = [high - low for low, high in itertools.pairwise(x_bounds)]
    n_y = [high - low for low, high in itertools.pairwise(y_bounds)]
    found = [i for i, size in enumerate(zip(n_x, n_y, strict=True)) if min(size) > 0]
    if not is_padded:
        of_size: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for i in found:
            of_size[n_x[i], n_y[i]].append(i)
        for (n, m), samples in of_size.items():
            n_together = max(1, limit // (n * m))
            for start in range(0, len(samples), n_together):
                yield samples[start : start + n_together]
        return
    group: list[int] = []
    n, m, n_pairs = 0, 0, 0
    for i in sorted(found, key=lambda i: (-n_x[i] * n_y[i], -n_x[i], i)):
        longer = max(n, n_x[i]), max(m, n_y[i])
        entries, pairs = (len(group) + 1) * longer[0] * longer[1], n_pairs + n_x[i] * n_y[i]
        if group and (entries > limit or entries > max(_FREE_ENTRIES, _MOST_PADDING * pairs)):
            yield group
            group, longer, pairs = [], (n_x[i], n_y[i]), n_x[i] * n_y[i]
        group.append(i)
        (n, m), n_pairs = longer, pairs
    if group:
        yield group


class Now:
    """Whether all sets are done, asked at once: on a CPU it costs nothing."""

    def __init__(self) -> None:
        self._is_done: Tensor | None = None

    def tell(self, is_done: Tensor) -> None:
        """Which sets are done, (sets,)."""
        self._is_done = is_done

    def answer(self) -> bool:
        """Whether all were, when it was last told; False before."""
        return self._is_done is not None and bool(self._is_done.all())

    def asked(self, is_done: Tensor) -> bool:
        """Whether all of these are done."""
        self.tell(is_done)
        return self.answer()


class Behind(Now):
    """The same as of the last time it was asked: while the host waits for that answer, a GPU has the work issued since then."""

    _told: tuple[Tensor, torch.cuda.Event] | None = None

    def tell(self, is_done: Tensor) -> None:
        """Which sets are done, (sets,): sent to the host, which does not wait for it here."""
        answer = torch.empty((), dtype=torch.bool, pin_memory=True)
        answer.copy_(is_done.all(), non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._told = answer, event

    def answer(self) -> bool:
        """Whether all were, when it was last told; False before."""
        if self._told is None:
            return False
        self._told[1].synchronize()
        return bool(self._told[0])

    def asked(self, is_done: Tensor) -> bool:
        """Whether all were done when this was last asked."""
        answer = self.answer()
        self.tell(is_done)
        return answer

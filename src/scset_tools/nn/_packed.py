"""How packed rows fall into samples, whichever way a batch is spelled."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import torch

from scset_tools.nn._ragged import check_ptr, from_padded, ptr_from_sizes, slots, to_padded


@dataclass(frozen=True)
class PackedSets:
    """How packed rows fall into samples, read from the device once per forward pass."""

    sizes: list[int]
    # "uniform": all sizes equal, one batched call. "loop": one call per run of equal sizes. "padded": one call on padded rows.
    # "fused": one call of the kernel for packed rows, or where it does not take them (:func:`can_fuse`) on padded ones.
    layout: str

    @classmethod
    def of(cls, sizes: list[int], device: torch.device, layout: str | None = None) -> PackedSets:
        if layout is None:
            ragged = "fused" if device.type == "cuda" else "loop"
            layout = "uniform" if len(set(sizes)) <= 1 else ragged
        return cls(sizes, layout)

    def runs(self, *others: PackedSets) -> tuple[list[int], list[list[int]]]:
        """Consecutive samples of equal size, in these and in other sets: samples in each run, and its rows in each of the sets.

        Views of a sample at one masking rate have equal sizes, so that a batch has few runs and each is one batched call. Given
        as lengths for ``Tensor.split``, whose backward pass is one concatenation: that of a slice fills a tensor of full size.
        """
        columns = list(zip(self.sizes, *(other.sizes for other in others), strict=True))
        n_samples = [len(list(run)) for _, run in itertools.groupby(columns)]
        sizes = [size for size, _ in itertools.groupby(columns)]
        return n_samples, [
            [n * size[i] for n, size in zip(n_samples, sizes, strict=True)] for i in range(len(others) + 1)
        ]

    @property
    def is_padded(self) -> bool:
        """Whether what is not fused is padded."""
        return self.layout in ("padded", "fused")

    @property
    def is_uniform(self) -> bool:
        return len(set(self.sizes)) <= 1

    @cached_property
    def _ptr(self) -> dict[torch.device, torch.Tensor]:
        return {}

    def ptr(self, device: torch.device) -> torch.Tensor:
        """Boundaries on a device, made once, (samples + 1,)."""
        if device not in self._ptr:
            self._ptr[device] = ptr_from_sizes(self.sizes, device=device)
        return self._ptr[device]

    def to_padded(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Packed rows as (samples, longest, ...), and where a slot holds a row."""
        return to_padded(rows, self.ptr(rows.device))

    def from_padded(self, dense: torch.Tensor) -> torch.Tensor:
        """Rows of (samples, longest, d), packed again."""
        if not self.sizes:
            return dense.flatten(0, 1)
        ptr = self.ptr(dense.device)
        return dense.flatten(0, 1).index_select(0, slots(ptr, dense.shape[1], n_cells=sum(self.sizes)))

    def dense(self, rows: torch.Tensor) -> torch.Tensor:
        """View packed rows as (samples, size, ...); only for uniform sizes."""
        size = self.sizes[0] if self.sizes else 0
        return rows.reshape(len(self.sizes), size, *rows.shape[1:])


def pack(
    x: torch.Tensor,
    ptr: torch.Tensor | None,
    is_real: torch.Tensor | None,
    *,
    layout: str | None = None,
) -> tuple[torch.Tensor, PackedSets]:
    """Rows and sets of either spelling of a batch: (cells, d) with ``ptr``, or (samples, slots, d) with ``is_real``."""
    if x.ndim == 2 and is_real is None:
        counts = [len(x)] if ptr is None else check_ptr(x, ptr)
    elif x.ndim == 3 and ptr is None:
        counts = [x.shape[1]] * x.shape[0] if is_real is None else is_real.sum(1).tolist()
        x = x.flatten(0, 1) if is_real is None else from_padded(x, is_real)[0]
    else:
        raise ValueError(
            f"Expected x of shape (cells, dim) with `ptr`, or (samples, slots, dim) with `is_real`, found shape "
            f"{tuple(x.shape)} with ptr={'None' if ptr is None else 'given'}, "
            f"is_real={'None' if is_real is None else 'given'}."
        )
    return x, PackedSets.of(counts, x.device, layout)


def pack_weight(log_weight: torch.Tensor | None, x: torch.Tensor, is_real: torch.Tensor | None) -> torch.Tensor | None:
    """The log multiplicities of the rows that ``_pack`` returns, shape (cells,)."""
    if log_weight is None:
        return None
    if log_weight.shape != x.shape[:-1]:
        raise ValueError(
            f"`log_weight` must have one entry per key, shape {tuple(x.shape[:-1])}, found {tuple(log_weight.shape)}."
        )
    return log_weight.flatten() if is_real is None else log_weight[is_real]


def unpack(rows: torch.Tensor, x: torch.Tensor, is_real: torch.Tensor | None) -> torch.Tensor:
    """Rows back in the spelling in which ``x`` came; slots that are not real hold zeros."""
    if is_real is None:
        return rows.view(*x.shape[:-1], rows.shape[-1])
    return rows.new_zeros(*is_real.shape, rows.shape[-1]).masked_scatter(is_real[..., None], rows)

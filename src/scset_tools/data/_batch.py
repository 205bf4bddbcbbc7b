"""The one message between data and modules."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import torch

from scset_tools.data._sparse import SparseRows


def with_numbers(ptr: torch.Tensor, *, like: torch.Tensor | None = None) -> torch.Tensor:
    """Boundaries with the same as Python numbers beside them, for which :mod:`scset_tools.nn` would have to ask a GPU.

    Parameters
    ----------
    ptr
        Boundaries, (samples + 1,).
    like
        The same on the host, if they were moved. Boundaries that are not on the host and of which nothing is known stay as they are.
    """
    known = getattr(ptr if like is None else like, "_bounds", None)
    found = known[1] if known is not None else ptr.tolist() if ptr.device.type == "cpu" else None
    if found is not None:
        ptr._bounds = (None if ptr.is_inference() else ptr._version, found)  # type: ignore[attr-defined]
    return ptr


def with_host(x: torch.Tensor, *, like: torch.Tensor | None = None) -> torch.Tensor:
    """A small tensor with the same on the host beside it, for which :mod:`scset_tools.nn` would have to ask a GPU.

    Parameters
    ----------
    x
        Seeds, numbers or labels of samples.
    like
        The same where it came from, if it was moved.
    """
    source = x if like is None else like
    known = getattr(source, "_on_host", None)
    host = source if source.device.type == "cpu" else None if known is None else known[1]
    if host is not None and x.device.type != "cpu":
        x._on_host = (None if x.is_inference() else x._version, host)  # type: ignore[attr-defined]
    return x


@dataclass  # not frozen: Lightning sets the fields of a copy when it changes the precision of its input
class SampleBatch:
    """A ragged batch of samples: set ``i`` is ``x[ptr[i]:ptr[i + 1]]``.

    Has ``to`` and ``pin_memory``, so that Lightning and PyTorch's loader move it like a tensor.

    Attributes
    ----------
    x
        Features, (cells, features), float32; in compressed rows where a model asks for them and the array is sparse.
    ptr
        Where each sample begins and ends, (samples + 1,), int64.
    sample
        Number of each sample in its :class:`~scset_tools.data._index.SampleIndex`, (samples,), int64.
    seed
        Seed of each sample for whatever a module draws: a function of (seed, epoch, sample name), (samples,), int64.
    rows
        Row of each cell in the AnnData, (cells,), int64.
    labels
        Per-sample targets by registry key, each (samples,).
    covariates
        Per-cell covariates by registry key, each (cells,).
    """

    x: torch.Tensor | SparseRows
    ptr: torch.Tensor
    sample: torch.Tensor
    seed: torch.Tensor
    rows: torch.Tensor
    labels: dict[str, torch.Tensor] = field(default_factory=dict)
    covariates: dict[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with_numbers(self.ptr)

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return len(self.sample)

    @property
    def sizes(self) -> torch.Tensor:
        """Number of cells of each sample, (samples,)."""
        return self.ptr.diff()

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> SampleBatch:
        """The same batch on another device."""
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> SampleBatch:
        """The same batch in page-locked memory."""
        return self._map(lambda t: t.pin_memory())

    def _map(self, move: Any) -> SampleBatch:
        moved: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            moved[f.name] = {k: move(v) for k, v in value.items()} if isinstance(value, dict) else move(value)
        with_numbers(moved["ptr"], like=self.ptr)
        for name in ("sample", "seed"):
            with_host(moved[name], like=getattr(self, name))
        for name, label in self.labels.items():
            with_host(moved["labels"][name], like=label)
        return SampleBatch(**moved)

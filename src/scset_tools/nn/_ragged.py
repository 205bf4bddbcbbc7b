"""Ragged batches of sets: rows packed one sample after the other, with the boundaries in ``ptr``.

Set ``i`` of a batch is ``x[ptr[i]:ptr[i + 1]]``; an empty set has two equal boundaries. All functions here are plain
tensor operations with gradients, and none of them lets one sample see another.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "from_padded",
    "host_sizes",
    "on_host",
    "ptr_from_sizes",
    "rows_where",
    "sample_of_cell",
    "scaled_ptr",
    "segment_mean",
    "segment_softmax",
    "segment_sum",
    "sizes",
    "to_device",
    "to_padded",
]


def ptr_from_sizes(
    n_cells: Sequence[int] | torch.Tensor,
    *,
    known: Sequence[int] | None = None,
    device: torch.device | None = None,
) -> torch.Tensor:
    """Boundaries of sets with the given numbers of cells.

    Parameters
    ----------
    n_cells
        Number of cells of each sample, shape (samples,).
    known
        The same as Python numbers, where the caller has them: a GPU need not be asked for them later.
    device
        Where the boundaries of Python numbers are to lie; by default on the CPU.

    Returns
    -------
    int64 tensor of shape (samples + 1,) that starts at 0, on the device of ``n_cells`` if that is a tensor.

    Raises
    ------
    ValueError
        If a size is negative or the sizes are not one-dimensional.
    """
    counts = (
        n_cells.to(torch.int64) if isinstance(n_cells, torch.Tensor) else torch.as_tensor(n_cells, dtype=torch.int64)
    )
    if counts.ndim != 1:
        raise ValueError(f"`n_cells` must have one entry per sample, found shape {tuple(counts.shape)}.")
    if not isinstance(n_cells, torch.Tensor):
        return _from_host([int(n) for n in n_cells], device)

    def complaint() -> str:
        first = int((counts < 0).nonzero()[0, 0])
        return f"`n_cells` must not be negative, found {int(counts[first])} for sample {first}."

    require(counts >= 0, complaint)
    ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return ptr if known is None else remember(ptr, [0, *itertools.accumulate(known)])


def _from_host(counts: list[int], device: torch.device | None) -> torch.Tensor:
    if counts and min(counts) < 0:
        first = next(i for i, n in enumerate(counts) if n < 0)
        raise ValueError(f"`n_cells` must not be negative, found {counts[first]} for sample {first}.")
    found = [0, *itertools.accumulate(counts)]
    ptr = torch.tensor(found, dtype=torch.int64)
    return remember(ptr if device is None else to_device(ptr, device), found)


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Numbers of the host on a device; a GPU gets them from page-locked memory, and is not waited for.

    Parameters
    ----------
    values
        A tensor on the CPU.
    device
        Where it is wanted.
    """
    if device.type == "cuda" and torch.cuda.is_available():
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def on_host(x: torch.Tensor) -> torch.Tensor:
    """A tensor on the CPU: the one that a batch keeps beside what it moved to a GPU, or what the GPU says, once it is asked.

    Parameters
    ----------
    x
        A tensor on any device.
    """
    if x.device.type == "cpu":
        return x
    known = getattr(x, "_on_host", None)
    version = None if x.is_inference() else x._version
    return known[1] if known is not None and known[0] == version else x.cpu()


def require(is_good: torch.Tensor, complaint: Callable[[], str]) -> None:
    """Raise unless all is good: at once on a CPU; on a GPU, which is not waited for, as its error when it gets there.

    Parameters
    ----------
    is_good
        What must be True everywhere.
    complaint
        Makes the message.

    Raises
    ------
    ValueError
        If something is not, on a CPU.
    """
    if is_good.device.type != "cpu" or _AS_ON_GPU:
        torch._assert_async(is_good.all(), "values that scset_tools.nn refuses: run the step on a CPU to see which")
    elif not bool(is_good.all()):
        raise ValueError(complaint())


_AS_ON_GPU = False
"""Whether to ask a CPU for no more than a GPU would be asked for; for tests that count."""


def bounds(ptr: torch.Tensor) -> list[int]:
    """Boundaries as numbers: what :func:`remember` wrote down, or what the device says, for which a GPU has to be waited for.

    Parameters
    ----------
    ptr
        Boundaries, shape (samples + 1,).
    """
    known = getattr(ptr, "_bounds", None)
    version = None if ptr.is_inference() else ptr._version
    if known is not None and known[0] == version:
        return known[1]
    found = ptr.tolist()
    if version is not None:  # a tensor of inference mode does not say when it changes
        remember(ptr, found)
    return found


def host_sizes(ptr: torch.Tensor) -> list[int]:
    """Number of cells of each sample as Python numbers; see :func:`bounds`.

    Parameters
    ----------
    ptr
        Boundaries, shape (samples + 1,).
    """
    return [after - before for before, after in itertools.pairwise(bounds(ptr))]


def scaled_ptr(ptr: torch.Tensor, factor: int) -> torch.Tensor:
    """Boundaries of sets in which each cell is there ``factor`` times, one copy after the other, (samples + 1,).

    Parameters
    ----------
    ptr
        Boundaries, shape (samples + 1,).
    factor
        Number of copies.
    """
    return remember(ptr * factor, [factor * bound for bound in bounds(ptr)])


def rows_where(mask: torch.Tensor, n_rows: int) -> torch.Tensor:
    """The rows of which ``mask`` is True, ascending, (n_rows,): ``mask.nonzero()`` for a number that is known.

    Parameters
    ----------
    mask
        bool, (rows,).
    n_rows
        How many are True.
    """
    if mask.device.type == "cpu" and not _AS_ON_GPU:
        return mask.nonzero().squeeze(1)
    return torch.argsort(~mask, stable=True)[:n_rows]


def remember(ptr: torch.Tensor, found: list[int]) -> torch.Tensor:
    """Write boundaries down beside the tensor that holds them, until it changes; returns the tensor.

    Parameters
    ----------
    ptr
        Boundaries, shape (samples + 1,).
    found
        The same as numbers.
    """
    ptr._bounds = (None if ptr.is_inference() else ptr._version, found)  # type: ignore[attr-defined]
    return ptr


def sizes(ptr: torch.Tensor) -> torch.Tensor:
    """Number of cells of each sample, shape (samples,), from the boundaries ``ptr`` (samples + 1,)."""
    return ptr.diff()


def sample_of_cell(ptr: torch.Tensor, *, n_cells: int | None = None) -> torch.Tensor:
    """Sample number of every cell, shape (cells,): the long form of ``ptr``.

    Parameters
    ----------
    ptr
        Boundaries, shape (samples + 1,).
    n_cells
        ``ptr[-1]`` where the caller knows it (``len(x)``). Without it the value is read from the device, which makes
        a GPU wait for all earlier work.
    """
    total = bounds(ptr)[-1] if n_cells is None else n_cells
    samples = torch.arange(len(ptr) - 1, device=ptr.device)
    return torch.repeat_interleave(samples, sizes(ptr), output_size=total)


def to_padded(x: torch.Tensor, ptr: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Spread a ragged batch over a dense one; slots past the end of a sample hold zeros.

    Parameters
    ----------
    x
        Rows of all samples, shape (cells, ...).
    ptr
        Boundaries, shape (samples + 1,).

    Returns
    -------
    dense
        Shape (samples, longest, ...), where ``longest`` is the size of the largest sample.
    is_real
        Boolean (samples, longest), True where a slot holds a cell.
    """
    longest = max(check_ptr(x, ptr), default=0)
    n_samples = len(ptr) - 1
    is_real = torch.arange(longest, device=x.device) < sizes(ptr)[:, None]  # (samples, longest)
    slot = slots(ptr, longest, n_cells=len(x))
    flat = x.new_zeros(n_samples * longest, *x.shape[1:]).index_copy(0, slot, x)
    return flat.view(n_samples, longest, *x.shape[1:]), is_real


def slots(ptr: torch.Tensor, longest: int, *, n_cells: int) -> torch.Tensor:
    """Where :func:`to_padded` puts each cell, counted over all slots, (cells,): what it wrote is ``dense.flatten(0, 1)[slots]``.

    Unlike :func:`from_padded` no mask is asked for its number of cells, for which a GPU would have to be waited for.

    Parameters
    ----------
    ptr
        Boundaries, shape (samples + 1,).
    longest
        Slots of a sample.
    n_cells
        ``ptr[-1]``.
    """
    sample = sample_of_cell(ptr, n_cells=n_cells)
    return sample * longest + torch.arange(n_cells, device=ptr.device) - ptr[sample]


def from_padded(dense: torch.Tensor, is_real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pack the real slots of a dense batch; what the other slots hold never matters, NaN included.

    Parameters
    ----------
    dense
        Shape (samples, slots, ...).
    is_real
        Boolean (samples, slots), True where a slot holds a cell. The real slots may lie anywhere in a row.

    Returns
    -------
    x
        Shape (cells, ...), samples one after the other, the order of the slots kept.
    ptr
        Boundaries, shape (samples + 1,).
    """
    if is_real.dtype != torch.bool or is_real.shape != dense.shape[:2]:
        raise ValueError(
            f"`is_real` must be boolean of shape {tuple(dense.shape[:2])} like the first two dimensions of `dense`, "
            f"found {is_real.dtype} of shape {tuple(is_real.shape)}."
        )
    counts = is_real.sum(1)
    return dense[is_real], torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def segment_sum(x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
    """Sum over the cells of each sample.

    Parameters
    ----------
    x
        Shape (cells, ...), floating point.
    ptr
        Boundaries, shape (samples + 1,).

    Returns
    -------
    Shape (samples, ...), dtype of ``x``; summed in float32 or better. An empty set gives zeros.
    """
    return _sums(x, ptr).to(x.dtype)


def segment_mean(x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
    """Mean over the cells of each sample.

    Parameters
    ----------
    x
        Shape (cells, ...), floating point.
    ptr
        Boundaries, shape (samples + 1,).

    Returns
    -------
    Shape (samples, ...), dtype of ``x``; summed in float32 or better. An empty set gives zeros, not NaN.
    """
    total = _sums(x, ptr)
    counts = sizes(ptr).clamp(min=1).to(total.dtype)
    return (total / counts.view(-1, *[1] * (x.ndim - 1))).to(x.dtype)


def segment_softmax(scores: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
    """Softmax over the cells of each sample, separately for every trailing entry.

    Parameters
    ----------
    scores
        Shape (cells, ...), floating point. ``-inf`` gives a weight of zero.
    ptr
        Boundaries, shape (samples + 1,).

    Returns
    -------
    Shape (cells, ...), dtype of ``scores``, computed in float32 or better. The weights of a sample sum to one; where
    all scores of a sample are ``-inf`` they are all zero.
    """
    parts = scores.to(accumulation_dtype(scores)).split(check_ptr(scores, ptr))
    weights = []
    for part in parts:
        if len(part) == 0:
            weights.append(part)
            continue
        # A maximum of -inf would turn -inf - -inf into NaN: shift by zero there instead.
        top = part.detach().amax(0, keepdim=True)
        raw = (part - top.masked_fill(top == -torch.inf, 0)).exp()
        total = raw.sum(0, keepdim=True)
        weights.append(raw / total.masked_fill(total == 0, 1))
    return torch.cat(weights).to(scores.dtype) if weights else scores


def _sums(x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
    # One sum per sample beats index_add and segment_reduce on CPU, and gives the same bits on every run on a GPU.
    parts = x.to(accumulation_dtype(x)).split(check_ptr(x, ptr))
    if not parts:
        return x.new_zeros((0, *x.shape[1:]), dtype=accumulation_dtype(x))
    return torch.stack([part.sum(0) for part in parts])


def accumulation_dtype(x: torch.Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def compute_dtype(x: torch.Tensor) -> torch.dtype:
    """The type in which a linear layer would put out rows like ``x``: that of autocast where it is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def check_ptr(x: torch.Tensor, ptr: torch.Tensor) -> list[int]:
    """Sizes as Python numbers, after checking that ``ptr`` covers the rows of ``x``."""
    found = bounds(ptr)
    if not found or found[0] != 0 or found[-1] != len(x):
        ends = f"{found[0]} to {found[-1]}" if found else "nothing"
        raise ValueError(f"`ptr` must run from 0 to the number of cells ({len(x)}), but it runs from {ends}.")
    counts = [after - before for before, after in itertools.pairwise(found)]
    if counts and min(counts) < 0:
        first = next(i for i, count in enumerate(counts) if count < 0)
        raise ValueError(f"`ptr` must not decrease, but falls from {found[first]} to {found[first + 1]} at {first}.")
    return counts

"""Attention within sets of several sizes in one fused call, where the device has one: no padding, no matrix of scores."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from scset_tools.nn._packed import PackedSets

__all__ = ["attend_packed", "can_fuse"]

_HALF = (torch.float16, torch.bfloat16)
# Heads that the kernel has for every card that it runs on (FlashAttention: 256 less the backward pass of smaller cards).
_WIDEST_HEAD = 192
_MULTIPLE = 8
# Lower than any score. exp underflows long before, and half precision can hold it after the division by the scale of a head.
_LOWEST_WEIGHT = -1e3
_OLDEST_CARD = 8  # major number of the compute capability


@cache
def kernel() -> Any:
    """Torch's fused attention of ragged sets; None where torch is older than it."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn


@cache
def _is_new_enough(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device)[0] >= _OLDEST_CARD


def can_fuse(
    dtype: torch.dtype, q_sets: PackedSets, k_sets: PackedSets, *, dim_head: int, device: torch.device
) -> bool:
    """Whether the fused attention takes these sets: half precision on a CUDA card of the Ampere generation or later.

    Queries without keys, and keys without queries, are left to the padded way: kernels of several versions fail on them, in the
    backward pass above all. Sets without either take no part.

    Parameters
    ----------
    dtype, device
        Of queries, keys and values.
    dim_head
        Width of a head.
    q_sets, k_sets
        Of queries and of keys.
    """
    if "fused" not in (q_sets.layout, k_sets.layout) or not any(q_sets.sizes):
        return False
    if any((n > 0) != (m > 0) for n, m in zip(q_sets.sizes, k_sets.sizes, strict=True)):
        return False
    if dtype not in _HALF or dim_head + _MULTIPLE > _WIDEST_HEAD or dim_head % _MULTIPLE:
        return False
    return kernel() is not None and _has_kernel(device)


def _has_kernel(device: torch.device) -> bool:
    return device.type == "cuda" and _is_new_enough(device)


def attend_packed(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    q_sets: PackedSets,
    k_sets: PackedSets,
    log_weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Softmax attention of packed queries to the keys of their own set.

    The fused call takes no bias. The logarithm of a key's multiplicity is therefore a product of further entries of query and
    key, ones on the side of the query: of three numbers in half precision that add up to it.

    Parameters
    ----------
    q, k, v
        (rows, heads, width of a head), in half precision.
    q_sets, k_sets
        How the rows fall into sets.
    log_weight
        Log multiplicity of each key, (keys,).

    Returns
    -------
    (queries, heads, width of a head).
    """
    width = q.shape[-1]
    scale = width**-0.5
    if log_weight is not None:
        q, k, v = _with_weight(q, k, v, log_weight.float().clamp_min(_LOWEST_WEIGHT) / scale)
    q_sets, k_sets = _without_empty(q_sets), _without_empty(k_sets)
    attended = kernel()(
        q,
        k,
        v,
        q_sets.ptr(q.device).to(torch.int32),
        k_sets.ptr(q.device).to(torch.int32),
        max(q_sets.sizes),
        max(k_sets.sizes),
        scale=scale,
    )
    return attended[..., :width]


def _without_empty(sets: PackedSets) -> PackedSets:
    return sets if min(sets.sizes) > 0 else PackedSets([n for n in sets.sizes if n > 0], "fused")


def _with_weight(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values with as many further entries as the kernel wants, whose products add ``weight`` (keys,) to the scores."""
    parts, rest = [], weight
    for _ in range(3):
        parts.append(rest.to(k.dtype))
        rest = rest - parts[-1].float()
    n_heads = q.shape[1]
    of_key = torch.stack(parts, 1)[:, None].expand(-1, n_heads, -1)  # (keys, heads, 3)
    ones = q.new_ones(len(q), n_heads, len(parts))
    blank = _MULTIPLE - len(parts)

    def widen(rows: torch.Tensor, more: torch.Tensor | None) -> torch.Tensor:
        zeros = rows.new_zeros(len(rows), n_heads, blank if more is not None else _MULTIPLE)
        return torch.cat([rows, zeros] if more is None else [rows, more, zeros], -1)

    return widen(q, ones), widen(k, of_key), widen(v, None)

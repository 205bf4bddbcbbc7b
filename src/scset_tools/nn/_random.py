"""Random numbers that depend on a sample's own seed and on nothing else.

A generator hands out its numbers in order, so what a sample receives depends on who was served before it: on its batch
mates, its worker, its rank and its device. Here each number is a hash of (seed of the sample, stream, position of the
cell), so it can be computed anywhere, in any order, and is always the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scset_tools.nn._ragged import sample_of_cell, scaled_ptr

_BLOCK = 2**20
"""Numbers that are hashed at once, so that memory stays bounded for cells of many features."""
_WORD = 1 << 64
_GAMMA = 0x9E3779B97F4A7C15
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9
_MULTIPLIER_2 = 0x94D049BB133111EB


def _signed(word: int) -> int:
    """Write an unsigned 64-bit word as the int64 with the same bits."""
    word %= _WORD
    return word - _WORD if word >= _WORD // 2 else word


def _shift_right(word: Tensor, n_bits: int) -> Tensor:
    """Shift right filling with zeros; int64 alone would repeat the sign bit."""
    return (word >> n_bits) & ((1 << (64 - n_bits)) - 1)


def _mix(word: Tensor) -> Tensor:
    """Finaliser of splitmix64: a bijection of 64-bit words in which every input bit moves every output bit."""
    word = (word ^ _shift_right(word, 30)) * _signed(_MULTIPLIER_1)
    word = (word ^ _shift_right(word, 27)) * _signed(_MULTIPLIER_2)
    return word ^ _shift_right(word, 31)


def _key(seed: Tensor, stream: int) -> Tensor:
    """Hash (seed, stream); the seed is mixed first so that neighbouring seeds and streams cannot meet."""
    if seed.dtype != torch.int64 or seed.ndim != 1:
        raise TypeError(f"seed must be int64 with shape (samples,), got {seed.dtype} with shape {tuple(seed.shape)}.")
    if stream < 0:
        raise ValueError(f"stream must be 0 or larger, got {stream}.")
    return _mix(_mix(seed + _signed(_GAMMA)) + _signed(_GAMMA * (stream + 1)))


def _to_uniform(word: Tensor) -> Tensor:
    """Map the upper 53 bits to a float64 in [0, 1): every value is exact."""
    return _shift_right(word, 11).to(torch.float64) * 2.0**-53


def cell_uniform(seed: Tensor, ptr: Tensor, *, stream: int) -> Tensor:
    """Draw one uniform number per cell of a ragged batch.

    The number of a cell is a hash of its sample's seed, its position in the sample and the stream: batch mates, device,
    worker and rank do not matter, and torch's own generators are neither read nor moved.

    Parameters
    ----------
    seed
        int64 seed of each sample, (samples,).
    ptr
        int64 boundaries of the sets, (samples + 1,).
    stream
        Which of the independent sequences of the seed to read; use another number for each purpose.

    Returns
    -------
    Tensor
        float64 in [0, 1), (cells,).

    Raises
    ------
    TypeError
        If ``seed`` is not int64 with one dimension.
    ValueError
        If ``stream`` is negative or ``seed`` and ``ptr`` disagree on the number of samples.

    Notes
    -----
    The hash is splitmix64 [1]_ seeded with ``mix(mix(seed + g) + g * (stream + 1))`` and read at ``position + 1``.

    References
    ----------
    .. [1] Steele, Lea, Flood (2014). Fast splittable pseudorandom number generators. OOPSLA.
    """
    if len(ptr) != len(seed) + 1:
        raise ValueError(f"ptr must have one entry more than seed, got {len(ptr)} and {len(seed)}.")
    sample = sample_of_cell(ptr)
    position = torch.arange(len(sample), device=ptr.device) - ptr[sample]
    return _to_uniform(_mix(_key(seed, stream)[sample] + (position + 1) * _signed(_GAMMA)))


def cell_normal(seed: Tensor, ptr: Tensor, n_features: int, *, stream: int) -> Tensor:
    """Draw standard normal numbers for the features of every cell of a ragged batch.

    The inverse normal distribution function of one uniform number each: of those that :func:`cell_uniform` gives to
    ``n_features`` times as many cells.

    Parameters
    ----------
    seed
        int64 seed of each sample, (samples,).
    ptr
        int64 boundaries of the sets, (samples + 1,).
    n_features
        Numbers per cell.
    stream
        Which of the independent sequences of the seed to read.

    Returns
    -------
    Tensor
        float64, (cells, n_features).
    """
    u = cell_uniform(seed, scaled_ptr(ptr, n_features), stream=stream)
    # the middle of each of the 2**53 equal parts of [0, 1): neither end is met, where the quantile is not finite
    return torch.special.ndtri(u + 2.0**-54).view(-1, n_features)


def sample_uniform(seed: Tensor, *, stream: int) -> Tensor:
    """Draw one uniform number per sample.

    Parameters
    ----------
    seed
        int64 seed of each sample, (samples,).
    stream
        Which of the independent sequences of the seed to read. The number differs from those that
        :func:`cell_uniform` gives to cells for the same stream.

    Returns
    -------
    Tensor
        float64 in [0, 1), (samples,).

    Raises
    ------
    TypeError
        If ``seed`` is not int64 with one dimension.
    ValueError
        If ``stream`` is negative.
    """
    # Position 0 of the sequence: cells start at 1.
    return _to_uniform(_mix(_key(seed, stream)))


def content_hash(x: Tensor) -> Tensor:
    """A 64-bit number for each cell that depends on its features alone, int64 (cells,).

    Multilinear hashing of the bits of the features as float32, with odd keys, followed by a bijection.

    Parameters
    ----------
    x
        Features, (cells, features).
    """
    n_features = x.shape[1]
    keys = _mix(torch.arange(1, n_features + 1, device=x.device)) | 1
    hashed = []
    for rows in x.split(max(1, _BLOCK // max(1, n_features))):
        bits = (
            (rows.float() + 0.0).contiguous().view(torch.int32).to(torch.int64)
        )  # adding zero makes -0.0 equal to 0.0
        hashed.append(_mix((bits * keys).sum(1)))
    return torch.cat(hashed) if hashed else x.new_zeros(0, dtype=torch.int64)

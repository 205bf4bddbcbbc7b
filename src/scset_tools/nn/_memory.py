"""How much is worked on at once: on a CPU as much as its cache holds, on a GPU a share of its memory."""

from __future__ import annotations

from functools import cache

import torch

_SHARE = 16
"""One block takes at most so small a part of the memory that is free when it is first asked for."""
_UNKNOWN = 16 * 2**30
"""Free memory where there is no card to ask, as in tests."""


def rows_at_once(device: torch.device, bytes_of_row: int, *, on_cpu: int) -> int:
    """How many rows to work on at once.

    A power of two, found from the memory that is free when a process first asks: however much other arrays take later, the sums
    are cut in the same places, and the result is the same bit for bit.

    Parameters
    ----------
    device
        Where the rows are worked on.
    bytes_of_row
        What working on one takes.
    on_cpu
        The number for a CPU.
    """
    if device.type != "cuda":
        return on_cpu
    return 1 << max(11, (_free(device) // (_SHARE * max(1, bytes_of_row))).bit_length() - 1)


@cache
def _free(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if torch.cuda.is_available() else _UNKNOWN

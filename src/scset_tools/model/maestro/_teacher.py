"""What learns and what the teacher averages, and how the teacher sees all cells of large samples."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from scset_tools.nn import SetEncoder, host_sizes, stream_embed
from scset_tools.nn._streaming import block_rows

MAX_TEACHER_CELLS = 8_192
"""Most cells that the teacher encodes in one piece on a CPU; a larger batch is streamed sample by sample, which is quicker there
because a block of cells stays in the cache from layer to layer. On a GPU its memory decides."""


class Student(nn.Module):
    """What learns, and what the teacher averages: encoder and, for distillation, projection head."""

    def __init__(self, encoder: SetEncoder, head: nn.Module | None) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head


def encode_all(encoder: SetEncoder, x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
    """Vectors of sets of any size, (sets, n_latent).

    Parameters
    ----------
    encoder
        Of the teacher.
    x, ptr
        Cells, (cells, features), and boundaries of the sets, (sets + 1,).
    """
    if len(x) <= (MAX_TEACHER_CELLS if x.device.type == "cpu" else block_rows(encoder)):
        return encoder(x, ptr)
    sets = x.split(host_sizes(ptr))
    return torch.cat([stream_embed(encoder, partial(_in_blocks, cells)) for cells in sets])


def _in_blocks(cells: torch.Tensor) -> Iterator[torch.Tensor]:
    return iter(cells.split(32_768))

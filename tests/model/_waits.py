"""Count what makes the host wait for a GPU, on a CPU: reads of values, shapes that depend on values, and copies from lists."""

from __future__ import annotations

import traceback
from collections import Counter
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
READS = {aten._local_scalar_dense, aten.equal, aten.is_nonzero}
"""Operations that give a number to the host."""
SHAPES = {aten.nonzero, aten.masked_select, aten._unique2, aten._unique, aten.unique_dim, aten.unique_consecutive}
"""Operations whose result has a shape that the host must ask for."""
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class HostWaits(TorchFunctionMode):
    """Within the block, ``places`` counts the lines of this package that made the host wait.

    A GPU runs behind the host, which waits wherever it asks for a value: ``item``, ``bool``, ``tolist``, ``nonzero``, an index by a
    mask, ``repeat_interleave`` without its length. On a CPU nothing waits, but the same calls are made.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()
        self._inner = _Dispatch(self)

    @property
    def n(self) -> int:
        """Number of waits."""
        return sum(self.places.values())

    def __enter__(self) -> Any:
        self._inner.__enter__()
        return super().__enter__()

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)
        self._inner.__exit__(*args)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu):
            self.note(func.__name__)
        return func(*args, **(kwargs or {}))

    def note(self, what: str) -> None:
        ours = [f for f in traceback.extract_stack() if "/scset_tools/" in f.filename]
        if ours:
            self.places[f"{what} in {ours[-1].filename.rpartition('/scset_tools/')[2]}:{ours[-1].lineno}"] += 1


class _Dispatch(TorchDispatchMode):
    def __init__(self, waits: HostWaits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        by_mask = packet in INDEXING and any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1])
        of_unknown_length = func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None
        if packet in READS | SHAPES or by_mask or of_unknown_length:
            self.waits.note(str(packet).rpartition(".")[2])
        return func(*args, **kwargs)

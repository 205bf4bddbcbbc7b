"""Walk the branches of a GPU without one: tensors that know their shapes and say that they lie on a GPU, and have no values.

Torch's fake tensors refuse to give a value to the host, so a step that asks for one raises in the line that asked. Copies between
host and GPU are counted where the host waits for them. What lies on the host stays real. Without CUDA in torch's build fake tensors
on it have no autograd: the forward pass alone.
"""

from __future__ import annotations

import traceback
from collections import Counter
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda", 0)


class Waits(RuntimeError):
    """The host asks the GPU for something, and would wait for it."""


VALUES = {
    getattr(torch.Tensor, name)
    for name in ("__float__", "__int__", "__bool__", "__index__", "item", "tolist", "numpy", "nonzero", "cpu")
}


class FakeCuda:
    """``with FakeCuda() as fake``: what is made on a GPU, or moved there, is fake.

    Attributes
    ----------
    waits
        Copies for which the host waits, by line of this package.
    operators
        Operations on the GPU by name.
    """

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.operators: Counter[str] = Counter()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        # what a module does in a training step alone is to be walked as well
        grad = mock.patch.object(torch, "is_grad_enabled", return_value=True)
        self._modes = [
            grad,
            # an index within torch's attention, out of reach of a mode
            mock.patch.object(F, "_in_projection_packed", _in_projection),
            torch.no_grad(),
            _Dispatch(self),
            _Functions(self),
        ]

    def __enter__(self) -> FakeCuda:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *args: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*args)

    def empty(self, shape: Any, dtype: torch.dtype) -> torch.Tensor:
        """A tensor on the GPU."""
        with self.fake:
            return torch.empty(shape, dtype=dtype, device=CUDA)

    def module(self, module: torch.nn.Module, dtype: torch.dtype | None = None) -> torch.nn.Module:
        """Put weights and buffers on the GPU, floating-point ones in another precision if one is given."""
        for part in module.modules():
            for name, p in part._parameters.items():
                if p is not None:
                    kept = self.empty(p.shape, dtype or p.dtype)
                    part._parameters[name] = torch.nn.Parameter(kept, requires_grad=False)
            for name, b in part._buffers.items():
                if b is not None:
                    part._buffers[name] = self.empty(b.shape, dtype if dtype and b.is_floating_point() else b.dtype)
        return module

    def note(self, what: str) -> None:
        """Count a copy for which the host waits."""
        ours = [f for f in traceback.extract_stack() if "/scset_tools/" in f.filename]
        place = f"{ours[-1].filename.rpartition('/scset_tools/')[2]}:{ours[-1].lineno}" if ours else "elsewhere"
        self.waits[f"{what} in {place}"] += 1


def _in_projection(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> list:
    return [torch.clone(part, memory_format=torch.contiguous_format) for part in F.linear(q, w, b).chunk(3, -1)]


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


class _Functions(TorchFunctionMode):
    """Calls that torch's build without CUDA refuses before it sees that a tensor is fake: moves and indices."""

    def __init__(self, gpu: FakeCuda) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in VALUES and isinstance(args[0], FakeTensor):
            raise Waits(func.__name__)
        if func is torch.Tensor.to:
            return self._moved(func, args, kwargs)
        if func is torch.Tensor.__getitem__ and isinstance(args[0], FakeTensor):
            return self._item(*args)
        if func is torch.Tensor.__setitem__ and isinstance(args[0], FakeTensor):
            self._item(*args[:2])
            return None
        if func is torch.Tensor.copy_ and isinstance(args[0], FakeTensor) and isinstance(args[1], FakeTensor):
            return args[0]
        if func is F.scaled_dot_product_attention and isinstance(args[0], FakeTensor):
            self.gpu.operators[func.__name__] += 1  # some of its kernels have no fake in a build without CUDA
            return self.gpu.empty((*args[0].shape[:-1], args[2].shape[-1]), args[0].dtype)
        # torch has no fakes of these
        if func in (torch.cholesky_inverse, torch.logdet) and isinstance(args[0], FakeTensor):
            return self.gpu.empty(args[0].shape[: -2 if func is torch.logdet else None], args[0].dtype)
        if func is torch.Tensor.__invert__ and isinstance(args[0], FakeTensor):
            return torch.bitwise_not(args[0])
        if func is torch.Tensor.contiguous and isinstance(args[0], FakeTensor):
            return torch.clone(args[0], memory_format=torch.contiguous_format)
        if func is torch.where and isinstance(args[0], FakeTensor):
            dtype = next((a.dtype for a in args[1:] if isinstance(a, torch.Tensor)), torch.get_default_dtype())
            args = tuple(a if isinstance(a, torch.Tensor) else self.gpu.empty((), dtype) for a in args)
        if func is torch.tensor and _is_cuda(kwargs.get("device")):
            kwargs.pop("device")
            self.gpu.note("copy from the host")
            made = func(*args, **kwargs)
            return self.gpu.empty(made.shape, made.dtype)
        if _is_cuda(kwargs.get("device")):
            self.gpu.operators[func.__name__] += 1
            with self.gpu.fake:
                return func(*args, **kwargs)
        return func(*args, **kwargs)

    def _moved(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        x, *rest = args
        like = next((a for a in rest if isinstance(a, torch.Tensor)), None)
        device = next((a for a in rest if isinstance(a, (str, torch.device))), kwargs.get("device"))
        dtype = next((a for a in rest if isinstance(a, torch.dtype)), kwargs.get("dtype"))
        if like is not None:
            device, dtype = like.device, like.dtype
        is_there, goes_there = isinstance(x, FakeTensor), _is_cuda(device)
        if is_there and (device is None or goes_there):
            return x if dtype in (None, x.dtype) else torch.ops.aten._to_copy(x, dtype=dtype)
        if is_there:
            raise Waits("to")
        if goes_there:
            if not kwargs.get("non_blocking", False):
                self.gpu.note("copy from the host")
            return self.gpu.empty(x.shape, dtype or x.dtype)
        return func(*args, **kwargs)

    def _item(self, x: torch.Tensor, index: Any) -> torch.Tensor:
        def meta(i: Any) -> Any:
            if not isinstance(i, torch.Tensor):
                return i
            if i.dtype == torch.bool:
                raise Waits("index by a mask")
            return torch.empty(i.shape, dtype=i.dtype, device="meta")

        index = tuple(meta(i) for i in index) if isinstance(index, tuple) else meta(index)
        return self.gpu.empty(torch.empty(x.shape, dtype=x.dtype, device="meta")[index].shape, x.dtype)


class _Dispatch(TorchDispatchMode):
    """Counts operations."""

    def __init__(self, gpu: FakeCuda) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        try:
            out = func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise Waits(str(func)) from error
        if isinstance(out[0] if isinstance(out, tuple) and out else out, FakeTensor):
            self.gpu.operators[str(func.overloadpacket)] += 1
        return out

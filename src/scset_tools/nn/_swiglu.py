"""The gated feed-forward layer of the attention blocks (Shazeer 2020)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable


class _GatedProduct(torch.autograd.Function):
    """``(silu(gate) * value) W3^T`` that keeps only its input for the backward pass.

    The plain operations would keep ``silu(gate)`` and the product as well, half as much again as everything else a
    block keeps per cell, and join the two halves of the gradient by a copy.
    """

    @staticmethod
    def forward(gate_and_value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        gate, value = gate_and_value.chunk(2, -1)
        return F.silu(gate).mul_(value) @ weight.T

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, torch.Tensor], output: torch.Tensor) -> None:
        del output  # recomputed from the inputs
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate_and_value, weight = ctx.saved_tensors
        gate, value = gate_and_value.chunk(2, -1)
        result = torch.empty_like(gate_and_value)
        to_gate, to_value = result.chunk(2, -1)
        inner = gradient @ weight
        opened = F.silu(gate)
        torch.mul(inner, opened, out=to_value)
        torch.ops.aten.silu_backward.grad_input(inner.mul_(value), gate, grad_input=to_gate)
        return result, gradient.T @ opened.mul_(value)


class SwiGLU(nn.Module):
    """Feed-forward ``W3 (silu(W1 x) * W2 x)`` without biases, on rows (n, d)."""

    def __init__(self, dim: int, n_ff: int) -> None:
        super().__init__()
        self.gate_and_value = nn.Linear(dim, 2 * n_ff, bias=False)  # W1 and W2 in one product
        self.output = nn.Linear(n_ff, dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.gate_and_value(x)
        return _GatedProduct.apply(inner, self.output.weight.to(inner.dtype))  # autocast decides the dtype of inner

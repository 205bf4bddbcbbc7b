"""A fitted head with the encoder it belongs to, and the plain form in which both are saved with a model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from scset_tools.model._base_module import SampleModule
from scset_tools.model.supervise._heads import Head, make_head
from scset_tools.model.supervise._targets import Target


@dataclass(frozen=True)
class FittedHead:
    """What predicts a label: ``head(module.represent(batch))``.

    Attributes
    ----------
    target
        The label: its column, kind and classes.
    head
        From vectors to predictions.
    module
        What gives the vectors: the model's own module, or the copy that was fine-tuned with the head.
    level
        ``"sample"`` or ``"cell"``: what is predicted, from the vectors of what.
    mode
        How they were fitted: ``"frozen"``, ``"partial"``, ``"end_to_end"``, or ``"trained"`` by ``train`` itself.
    samples
        Names of the samples that the head was fitted to.
    """

    target: Target
    head: Head = field(repr=False)
    module: SampleModule = field(repr=False)
    level: str = "sample"
    mode: str = "frozen"
    samples: tuple[str, ...] = field(default=(), repr=False)

    @property
    def kind(self) -> str:
        """Kind of the label."""
        return self.target.kind

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes or levels; none of other kinds."""
        return self.target.classes


def pack_head(target: Target, head: Head, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A head in plain types, to be saved."""
    return {
        "name": target.name,
        "kind": target.kind,
        "classes": list(target.classes),
        "event_key": target.event_key,
        "arguments": dict(arguments),
        "head": state_of(head),
    }


def unpack_head(packed: Mapping[str, Any]) -> tuple[Target, Head]:
    """What :func:`pack_head` was given."""
    target = Target(packed["name"], packed["kind"], "", tuple(packed["classes"]), packed["event_key"])
    state = packed["head"]
    head = make_head(target.kind, len(state["center"]), classes=target.classes, **packed["arguments"])
    head.to(state["center"].dtype)
    head.load_state_dict(state)
    return target, head.eval()


def fitted_heads(fits: list[dict[str, Any]], module: SampleModule) -> dict[str, FittedHead]:
    """Heads by label, each with its encoder, on the device of the module; the latest fit of a label counts.

    Parameters
    ----------
    fits
        What a model saves of each call of ``finetune``.
    module
        Its own module.
    """
    out: dict[str, FittedHead] = {}
    for fit in fits:
        encoder = module
        if fit["encoder"] is not None:
            encoder = copy.deepcopy(module)
            encoder.load_state_dict(fit["encoder"], strict=False)
            encoder.requires_grad_(requires_grad=False)
        for packed in fit["heads"]:
            target, head = unpack_head(packed)
            out[target.name] = FittedHead(
                target, head.to(module.device), encoder.eval(), fit["level"], fit["mode"], tuple(fit["samples"])
            )
    return out


def changed(module: nn.Module, own: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a fine-tuned module that differ from those of the model."""
    before = own.state_dict()
    return {k: v for k, v in state_of(module).items() if not torch.equal(v, before[k].cpu())}


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Weights and buffers, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}

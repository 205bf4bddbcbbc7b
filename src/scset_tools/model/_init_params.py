"""What surrounds a model's constructor: its arguments are recorded, for saving and loading, and its draws seeded.

scvi-tools reads the local variables of whichever constructor calls its helper against the signature of the leaf class: a
subclass that forgets the call, or reassigns an argument, silently saves the wrong arguments.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from scvi import settings

from scset_tools._docs import docs

DROPPED_ON_LOAD = frozenset({"pretrained_model", "unlabeled_category", "datamodule"})
"""Names that scvi-tools removes from the arguments when it loads a model."""


def record_init_params(cls: type) -> None:
    """Wrap ``cls.__init__`` so that the outermost call sets ``init_params_`` in the form that scvi-tools saves.

    Raises
    ------
    TypeError
        If an argument has a name that scvi-tools drops on load, or none (``*args``).
    """
    init = vars(cls)["__init__"]
    signature = inspect.signature(init)
    if clash := sorted(DROPPED_ON_LOAD & set(signature.parameters)):
        msg = (
            f"{cls.__name__}.__init__ has arguments that scvi-tools drops when it loads a model: {clash}. Rename them."
        )
        raise TypeError(msg)
    if unnamed := [p.name for p in signature.parameters.values() if p.kind is p.VAR_POSITIONAL]:
        msg = f"{cls.__name__}.__init__ takes *{unnamed[0]}, which scvi-tools cannot load. Name them."
        raise TypeError(msg)
    var_keyword = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)

    @functools.wraps(init)
    def recording_init(self: Any, *args: Any, **kwargs: Any) -> None:
        is_outermost = not getattr(self, "_is_initialising", False)
        self._is_initialising = True
        try:
            init(self, *args, **kwargs)
        finally:
            if is_outermost:
                del self._is_initialising
        if not is_outermost:
            return
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        given = {k: v for k, v in list(bound.arguments.items())[1:] if k not in ("adata", "registry")}
        extra = {var_keyword: given.pop(var_keyword)} if var_keyword in given else {}
        self.init_params_ = {"kwargs": extra, "non_kwargs": given}

    setattr(cls, "__init__", recording_init)  # noqa: B010  (a type checker refuses the assignment)


def with_arguments_of(base: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Let a method that passes ``**kwargs`` on show in their place the arguments of ``base`` that it has not itself.

    They are in its signature, and their descriptions in its docstring where that says ``%(others)s``.

    Parameters
    ----------
    base
        Method of the base class that ``**kwargs`` are passed on to; its docstring is known to ``docs`` by its name.
    """

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        own = [p for p in inspect.signature(method).parameters.values() if p.kind is not p.VAR_KEYWORD]
        names = {p.name for p in own}
        rest = [p for p in inspect.signature(base).parameters.values() if p.name not in names]
        vars(method)["__signature__"] = inspect.Signature([*own, *rest], return_annotation=None)
        doc = inspect.cleandoc(method.__doc__ or "")
        entries = re.split(r"\n(?=\S)", docs.params[f"{base.__name__}.parameters"])
        others = [entry for entry in entries if entry.split("\n")[0] not in doc.splitlines()]
        method.__doc__ = doc.replace("%(others)s", "\n".join(others))
        return method

    return decorate


@contextmanager
def seeded(random_state: int | None) -> Iterator[None]:
    """Draw initial weights from a seed, and leave the global generator of torch as it was found."""
    seed = settings.seed if random_state is None else random_state
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield

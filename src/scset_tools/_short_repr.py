"""How a result prints itself: what it holds and how large that is, not the tables themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

MAX_ENTRIES = 4
MAX_LETTERS = 100


class ShortRepr:
    """``repr`` of a dataclass with one line per field: tables and arrays by their shapes, long values cut.

    Dataclasses take it with ``repr=False``, or their own would win.
    """

    def __repr__(self) -> str:
        lines = [f"    {f.name}: {_short(getattr(self, f.name))}" for f in fields(self) if not f.name.startswith("_")]  # type: ignore[arg-type]
        hint = " (see .summary())" if callable(getattr(self, "summary", None)) else ""
        return "\n".join([type(self).__name__ + hint, *lines])


def _short(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        size = " x ".join(f"{n:,}" for n in shape)
        columns = [str(c) for c in getattr(value, "columns", [])]
        return f"{type(value).__name__}, {size}" + (f": {_first(columns)}" if columns else "")
    if isinstance(value, ShortRepr):
        return type(value).__name__
    if isinstance(value, Mapping):
        return "{" + _first([f"{k}: {_short(v)}" for k, v in value.items()]) + "}"
    if isinstance(value, list | tuple):
        return f"[{_first([_short(v) for v in value])}]"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = repr(value)
    return text if len(text) <= MAX_LETTERS else text[: MAX_LETTERS - 3] + "..."


def _first(names: list[str]) -> str:
    rest = len(names) - MAX_ENTRIES
    return ", ".join(names[:MAX_ENTRIES]) + (f", ... ({rest} more)" if rest > 0 else "")

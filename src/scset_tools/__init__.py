"""Samples as sets of cells: set models, profiles and their evaluation on AnnData.

Rooms and models load on first use, so ``import scset_tools`` costs no torch, scanpy or matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scset_tools import data, datasets, model, nn, pl, pp, pretrained, profiles, tl
    from scset_tools.model import MAESTRO, PaSCient, ScSet, SelfGuidedMAE
    from scset_tools.reporting import report

try:
    __version__ = version("scset-tools")
except PackageNotFoundError:  # a source tree on the path, never installed
    __version__ = "0+unknown"

# Public name -> module that holds it; a room is its own module. One line here (and one above, for type checkers) per name.
_LAZY = {
    "MAESTRO": "scset_tools.model",
    "PaSCient": "scset_tools.model",
    "ScSet": "scset_tools.model",
    "SelfGuidedMAE": "scset_tools.model",
    "data": "scset_tools.data",
    "datasets": "scset_tools.datasets",
    "model": "scset_tools.model",
    "nn": "scset_tools.nn",
    "pl": "scset_tools.pl",
    "pp": "scset_tools.pp",
    "pretrained": "scset_tools.pretrained",
    "profiles": "scset_tools.profiles",
    "report": "scset_tools.reporting",
    "tl": "scset_tools.tl",
}

__all__ = [
    "MAESTRO",
    "PaSCient",
    "ScSet",
    "SelfGuidedMAE",
    "__version__",
    "data",
    "datasets",
    "model",
    "nn",
    "pl",
    "pp",
    "pretrained",
    "profiles",
    "report",
    "tl",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    path = _LAZY[name]
    module = import_module(path)
    value = module if path == f"{__name__}.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

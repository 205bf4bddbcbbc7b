"""Every name that this package writes into an AnnData, built in one place.

A model is known by its lower-case name (``"maestro"``); the same name prefixes what it writes, so that the results of
two models never collide and a plot finds what a model wrote.

Keys hold names of the user's: of labels, classes, groups of cells. In h5ad and zarr a key is a path, so that ``"HIV+/ART"`` would be a
group with something in it. :func:`key` writes what cannot stand in a path as in a web address (``HIV+%2FART``), cuts what is
longer than a file name may be, and :func:`remember` keeps the name itself in ``uns``.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, MutableMapping
from typing import Any

N_CELLS = "n_cells"
"""Column of a sample-level ``obs``: number of cells of the sample."""

OTHER_N_CELLS = "n_cells_in_obs"
"""Column of a sample-level ``obs`` for a column ``n_cells`` that the user had, of other numbers."""

SAMPLE_LEVEL = "scset_tools"
"""Entry of a sample-level ``uns``: which column named the samples, and which package version made it."""

NAMES = "scset_tools_names"
"""Entry of ``uns``: the name behind each key that differs from it, as JSON."""

LONGEST = 180
"""Bytes of a key; a file system holds 255, of which zarr and others want some."""

_ESCAPE = re.compile(r"%(?=[0-9A-F]{2})")
_ESCAPED = re.compile(r"(?:%[0-9A-F]{2})+")


def key(name: object) -> str:
    r"""A name as a key that h5ad, zarr and CSV can hold; most names are their own key.

    Parameters
    ----------
    name
        Any text. ``/``, ``\\``, control characters, lone halves of a character, and a percent sign that would be taken
        for one of these, become ``%`` and the two hexadecimal digits of each byte; a long name is cut, and ends in a checksum.
        Two names never have the same key.
    """
    text = str(name)
    out = "".join(_percent(c) if _is_unfit(c) else c for c in _ESCAPE.sub("%25", text))
    if not out.strip("."):  # empty, or a step in a path
        out = "".join(map(_percent, out)) or "%00"
    if out == "_index":  # anndata's own
        out = "%5Findex"
    size = len(out.encode())
    if size > LONGEST:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        out = f"{out.encode()[: LONGEST - 18].decode(errors='ignore')}%~{digest}"
    return out


def name_of(key: str, uns: MutableMapping[str, Any] | None = None) -> str:
    """The name behind a key.

    Parameters
    ----------
    key
        What :func:`key` gave.
    uns
        Where names are remembered: needed for long ones alone.
    """
    if uns is not None and key in (known := json.loads(str(uns.get(NAMES, "{}")))):
        return str(known[key])
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[0].replace("%", "")).decode("utf-8", "surrogatepass"), key)


def remember(uns: MutableMapping[str, Any], names: Iterable[object]) -> None:
    """Keep the names whose keys differ from them in ``uns``.

    Parameters
    ----------
    uns
        Of the AnnData that gets the keys.
    names
        Names that were made into keys.
    """
    new = {made: str(name) for name in names if (made := key(name)) != str(name)}
    if new:
        known = json.loads(str(uns.get(NAMES, "{}")))
        uns[NAMES] = json.dumps(dict(sorted({**known, **new}.items())))


def nested(value: Any) -> Any:
    """A dictionary with its keys, and those within it, made by :func:`key`, in the order in which a file gives them back.

    Parameters
    ----------
    value
        A dictionary; anything else is returned as it is.
    """
    if not isinstance(value, dict):
        return value
    return dict(sorted((key(name), nested(inner)) for name, inner in value.items()))


def quoted(text: str) -> str:
    """Text for a cell of a CSV file: after an apostrophe if a spreadsheet would run it or it holds control characters.

    Parameters
    ----------
    text
        Text of the user's: the name of a sample, a class, a column.
    """
    is_formula = text.startswith(("=", "+", "-", "@"))
    return f"'{text}" if is_formula or any(unicodedata.category(c) == "Cc" for c in text) else text


def _is_unfit(c: str) -> bool:
    return c in "/\\" or unicodedata.category(c) in ("Cc", "Cs")


def _percent(c: str) -> str:
    return "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "surrogatepass"))


def representation(name: str) -> str:
    """``obsm`` key of a representation: ``X_maestro``."""
    return key(f"X_{name}")


def features(name: str, n: int) -> list[str]:
    """``var_names`` of a sample-level AnnData: ``maestro_0``, ``maestro_1``, ..."""
    return [key(f"{name}_{i}") for i in range(n)]


def attention(name: str) -> str:
    """``obs`` key (mean over heads) and ``obsm`` key (one column per head) of the attention on each cell."""
    return key(f"{name}_attention")


def attribution(name: str, label: str, target: str | None = None) -> str:
    """``obs`` (cells) and ``var`` (genes or markers) key of an attribution to a class of a label, or to the label itself.

    Two labels may have classes of one name: ``maestro_attribution_smoker_yes``, ``maestro_attribution_diabetes_yes``.
    """
    return key(attribution_name(name, label, target))


def attribution_name(name: str, label: str, target: str | None = None) -> str:
    """What :func:`attribution` makes a key of."""
    return f"{name}_attribution_{label}" if target in (None, label) else f"{name}_attribution_{label}_{target}"


def of_model(name: str, what: str) -> str:
    """``obs`` or ``var`` key of something that a model says of a cell or a gene: ``selfguidedmae_times_masked``."""
    return key(f"{name}_{what}")


def role() -> str:
    """``obs`` key that tells input, hidden and predicted cells apart in a reconstruction."""
    return "role"


def step() -> str:
    """``obs`` key of the step of each cell on its way from noise (the last step) to a finished cell (0)."""
    return "step"


def distances(use_rep: str | None) -> str:
    """``obsp`` key of all distances between samples: ``maestro_distances`` for the representation ``X_maestro``."""
    return key(f"{use_rep.removeprefix('X_')}_distances") if use_rep not in (None, "X") else "sample_distances"

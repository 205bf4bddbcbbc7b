"""One FCS file: its channels, what they carry, its events."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from scset_tools import _checks, _markers

MASS, FLUORESCENCE = 5.0, 150.0
"""Cofactors of arcsinh by technology."""

BROKEN = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    EOFError,
    struct.error,
    OverflowError,
    MemoryError,
)
"""What the reader raises of a broken file, beside its own errors."""


@dataclass(frozen=True)
class Channel:
    """A channel of a file.

    Attributes
    ----------
    number
        Its place in the file, from 0.
    name
        Short name (``$PnN``), of the detector.
    description
        Long name (``$PnS``), of what is stained.
    kind
        ``"marker"``, ``"scatter"``, ``"time"``, ``"technical"``, or ``"unused"``: a detector without description where others have one.
    marker
        The marker, in the spelling of :func:`scset_tools.pp.marker_names`; of other channels their own name.
    is_known
        Whether the table of markers knows it.
    """

    number: int
    name: str
    description: str
    kind: str
    marker: str
    is_known: bool


@dataclass(frozen=True)
class FcsFile:
    """What a file says of itself, before its events are read.

    Attributes
    ----------
    path
        The file.
    channels
        Its channels in order.
    n_events
        Number of events.
    cofactor
        Of arcsinh, by the technology: 5 where channels are isotopes or the cytometer is one of mass, else 150.
    has_spillover
        Whether it carries a spillover matrix.
    """

    path: Path
    channels: list[Channel]
    n_events: int
    cofactor: float
    has_spillover: bool


def open_fcs(path: Path, synonyms: Mapping[str, str] | None = None) -> FcsFile:
    """Read what a file says of its channels.

    Parameters
    ----------
    path
        File.
    synonyms
        Further names of markers.

    Raises
    ------
    ValueError
        If it is no FCS file, cut short, or contradicts itself.
    ImportError
        If flowio is missing.
    """
    data = _parse(path, only_text=True)
    names = [str(name).strip() for name in data.pnn_labels]
    texts = [str(text or "").strip() for text in data.pns_labels]
    n_described = sum(
        bool(t) and t != n and _markers.channel_kind(n) == "marker" for n, t in zip(names, texts, strict=True)
    )
    channels = []
    for number, (name, text) in enumerate(zip(names, texts, strict=True)):
        kinds = [_markers.channel_kind(n) for n in (name, text) if n]
        kind = next((k for k in kinds if k != "marker"), "marker")
        marker, is_known = _markers.marker_of(text or name, synonyms)
        if kind == "marker" and not is_known and text and _markers.marker_of(name, synonyms)[1]:
            marker, is_known = _markers.marker_of(name, synonyms)  # some write the marker into the short name
        if kind == "marker" and n_described and (not text or text == name) and not is_known:
            kind = "unused"
        if kind not in ("marker", "unused"):
            marker, is_known = (name or text), False
        channels.append(Channel(number, name, text, kind, marker, is_known))
    is_mass = bool(re.search(r"cytof|helios|dvs|fluidigm|hyperion", str(data.text.get("cyt", "")), re.IGNORECASE))
    is_mass = is_mass or sum(re.search(_markers.ISOTOPE, n) is not None for n in names) > len(names) / 3
    has_spillover = any(str(data.text.get(key, "")).strip() for key in ("spill", "spillover", "comp"))
    return FcsFile(path, channels, int(data.event_count), MASS if is_mass else FLUORESCENCE, has_spillover)


def read_events(file: FcsFile) -> np.ndarray:
    """Events of a file on the linear scale, (events, channels), float64.

    Parameters
    ----------
    file
        What :func:`open_fcs` returned.

    Raises
    ------
    ValueError
        If they cannot be read, there is none, or one is not finite.
    """
    data = _parse(file.path, only_text=False)
    try:
        events = np.asarray(data.as_array(preprocess=True), dtype=np.float64)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise _unreadable(file.path, error) from error
    if events.shape != (file.n_events, len(file.channels)):
        msg = f"{file.path} holds {events.shape[0]} events, but says that it holds {file.n_events}: it is cut short or damaged."
        raise ValueError(msg)
    if len(events) == 0:
        msg = f"{file.path} holds no events. Leave it out."
        raise ValueError(msg)
    if not np.isfinite(events).all():
        row, column = (int(i[0]) for i in np.nonzero(~np.isfinite(events)))
        n = int((~np.isfinite(events)).sum())
        msg = f"{file.path} holds {n} values that are not finite (first: event {row}, channel {file.channels[column].name!r})."
        raise ValueError(msg)
    return events


def _parse(path: Path, *, only_text: bool) -> Any:
    try:
        flowio: Any = import_module("flowio")
    except ImportError as error:
        msg = 'Reading FCS files needs the package flowio: pip install "scset-tools[fcs]".'
        raise ImportError(msg) from error
    try:
        with path.open("rb") as handle, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of flowio, about keywords that are not read here
            if handle.read(3) != b"FCS":
                msg = "it does not begin with 'FCS'"
                raise ValueError(msg)
            return flowio.FlowData(handle, only_text=only_text)
    except (flowio.exceptions.FlowIOException, *BROKEN) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ValueError:
    what = (
        f"the keyword {str(error.args[0])!r} is missing" if isinstance(error, KeyError) and error.args else str(error)
    )
    return ValueError(f"{path} cannot be read as an FCS file: {what.rstrip('.')}.")


def conflicts_of(file: FcsFile) -> dict[int, str]:
    """Channel number to what is wrong with it within its file: two markers in one, or one marker in two.

    Parameters
    ----------
    file
        What :func:`open_fcs` returned.
    """
    found = {}
    markers = [c for c in file.channels if c.kind == "marker"]
    keys = [_markers.marker_key(c.marker) for c in markers]
    for channel, key in zip(markers, keys, strict=True):
        parts = {_markers.marker_of(p)[0] for p in re.split(r"[/,+&]", channel.description) if _markers.marker_of(p)[1]}
        if len(parts) > 1 and not channel.is_known:
            found[channel.number] = f"carries several markers: {_checks.first(sorted(parts))}"
        elif keys.count(key) > 1:
            others = [c.name for c, k in zip(markers, keys, strict=True) if k == key and c is not channel]
            found[channel.number] = f"marker also in channel {_checks.first(others)}"
    return found

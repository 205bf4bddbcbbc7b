"""What the markers of a cytometry panel are called: ``CD3E``, ``CD3-FITC`` and ``CD3(Yb170)Di`` are one of them.

A name is cut down to the marker (isotope, fluorochrome, and what a cytometer adds are dropped) and looked up in the table
``markers.csv`` beside this file. Nothing is guessed: what the table does not know keeps the name that is left.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files

GREEK = dict(zip("αβγδεκ", ("alpha", "beta", "gamma", "delta", "epsilon", "kappa"), strict=True))

METAL = "Ag|Ba|Bi|Cd|Ce|Cs|Dy|Er|Eu|Gd|Ho|I|In|Ir|La|Lu|Nd|Os|Pb|Pd|Pr|Pt|Rh|Sm|Sn|Ta|Tb|Te|Tm|Xe|Y|Yb"
"""Elements of mass cytometry."""

MASS = r"(?:89|1[0-9]{2}|20[3-9])"
ISOTOPE = rf"(?-i:(?:(?:{METAL})_?{MASS}|{MASS}_?(?:{METAL}))(?:D[id])?)"
"""Case matters: Cd112 is cadmium, CD112 a molecule."""

DYE = (
    r"Per-?CP(?:[-/ ]?(?:Cy|e-?Fluor)[-. ]?[\d.]+)?|PE[-/ ]?(?:Cy|CF|Dazzle|Fire|Vio|AF|e-?Fluor|Alexa(?:[- ]?Fluor)?)[-. ]?[\d.]+|"
    r"PE[-/ ]?(?:Texas[- ]?Red|TR)|APC[-/ ]?(?:Cy|H|R|Fire|AF|e-?Fluor|Vio|Alexa(?:[- ]?Fluor)?)[-. ]?[\d.]+|"
    r"(?:BV|BUV|BB|BYG|RB|RY|SB|Super[- ]?Bright|Brilliant[- ]?Violet|e-?Fluor|Alexa[- ]?Fluor|Alexa|AF|QD|Q-?dot|Spark[- ]?[A-Z]+|NovaFluor|cFluor[- ]?[A-Z]*)[- ]?\d{3}|"
    r"V(?:450|500)|R718|Vio(?:Blue|Green|[- ]?\d{3})|FITC|APC|PE|ECD|Cy[357](?:\.5)?|Pacific[- ]?(?:Blue|Orange)|Pac[- ]?Blue|PB|Krome[- ]?Orange|KrO|"
    r"Am[- ]?Cyan|Texas[- ]?Red|TxRed"
)
"""Fluorochromes."""

_AFFIX = re.compile(rf"(?:{ISOTOPE}|{DYE})", re.IGNORECASE)
_EDGE = " \t_-:;,.|/()[]{}<>"
_NOT_MARKERS = re.compile(
    rf"(?:(?P<time>Time|HDR-T|Event[_ -]?(?:length|#|number)?)|(?P<scatter>(?:.*[ _-])?(?:FSC|SSC|FS|SS)(?:[ _-].*|\d*|\d*[AHW])|(?:forward|side)[ _-]?scatter.*)|"
    rf"(?P<technical>(?:{ISOTOPE}_?)?(?:DNA|Ir)?[_ ]?(?:bead|bckg|background|barcode|BCKG|empty|unused|blank).*|(?:{ISOTOPE}_?)?DNA[_ -]?\d?(?:\({ISOTOPE}\).*)?|"
    r"Center|Offset|Width|Residual|File[_ ]?Number|beadDist|bead_dist|sample[_ ]?id|cell_?id))",
    re.IGNORECASE,
)


def marker_of(name: object, synonyms: Mapping[str, str] | None = None) -> tuple[str, bool]:
    """The marker behind the name of a column or a channel, and whether the table (or ``synonyms``) knows it.

    Parameters
    ----------
    name
        Such as ``"CD3-FITC-A"`` or ``"170Yb_CD3"``.
    synonyms
        Further names: as the user writes them, to the marker.
    """
    text = str(name).strip()
    if channel_kind(text) != "marker":
        return text, False
    for candidate in _candidates(text):
        found = _lookup(candidate, synonyms)
        if found is not None:
            return found, True
    rest = _bare(text)
    return (rest or text), False


def marker_key(name: str) -> str:
    """What two spellings of one name share: letters and digits in lower case, Greek letters written out.

    What stands between two digits stays: CD3_2 is not CD32.
    """
    text = unicodedata.normalize("NFKC", str(name)).casefold()
    text = "".join(GREEK.get(c, c) for c in text)
    text = re.sub(r"(?<=\d)[^0-9a-z+]+(?=\d)", "_", text.strip())
    return re.sub(r"[^0-9a-z+_]|(?<!\d)_|_(?!\d)", "", text) or text


def match_key(name: str, synonyms: Mapping[str, str] | None = None) -> str:
    """What two names of one marker share, known to the table or not; a feature of a modality (``"CD3E@rna"``) is itself alone.

    Parameters
    ----------
    name
        Name of a column.
    synonyms
        As for :func:`marker_of`.
    """
    if "@" in str(name):
        return str(name)
    return marker_key(marker_of(name, synonyms)[0])


def channel_kind(name: str) -> str:
    """``"marker"``, ``"scatter"``, ``"time"``, or ``"technical"`` (beads, DNA, Gaussian parameters).

    Parameters
    ----------
    name
        Name or description of a channel.
    """
    found = _NOT_MARKERS.fullmatch(str(name).strip())
    return "marker" if found is None else next(kind for kind, text in found.groupdict().items() if text is not None)


def twice(names: Iterable[str], synonyms: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    """Markers that more than one name stands for, with these names.

    Parameters
    ----------
    names
        Names of columns.
    synonyms
        As for :func:`marker_of`.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(match_key(name, synonyms), []).append(str(name))
    return {marker_of(of[0], synonyms)[0]: of for of in found.values() if len(of) > 1}


def _lookup(text: str, synonyms: Mapping[str, str] | None) -> str | None:
    key = marker_key(text)
    if synonyms:
        own = {marker_key(k): v for k, v in synonyms.items()}
        if key in own:
            return own[key]
    known = _table().get(key)
    if known is None and re.fullmatch(r"cd\d{1,3}[a-z]?", key):  # the molecules that the table does not list
        known = "CD" + key[2:]
    return known


def _candidates(text: str) -> Iterable[str]:
    """The name itself, then what is left without what cytometers add, then parts of that."""
    yield text
    bare = _bare(text)
    if bare:
        yield bare
    for part in re.split(r"[\s_:|;,()\[\]]+", text):
        part = _bare(part)
        if part and re.search(r"[A-Za-z]", part):
            yield part


def _bare(text: str) -> str:
    """The name without isotope, fluorochrome, and the marks of compensated areas, heights and widths."""
    text = unicodedata.normalize("NFKC", text)
    text = re.sub(r"^\s*comp[-_ ]+", "", text, flags=re.IGNORECASE)
    text = re.sub(r"(?<=\))D[id]\s*$", "", text)
    before = None
    while before != text:
        before = text
        text = re.sub(r"[-_](?:A|H|W|Area|Height|Width)\s*$", "", text).strip(_EDGE)
        for pattern in (rf"^(?:{_AFFIX.pattern})(?=[^0-9A-Za-z]|$)", rf"(?:(?<=[^0-9A-Za-z])|^)(?:{_AFFIX.pattern})$"):
            text = re.sub(pattern, "", text, flags=re.IGNORECASE).strip(_EDGE)
    return text


@cache
def _table() -> dict[str, str]:
    """Key of each name in the table to its marker."""
    table = {}
    with (files("scset_tools") / "markers.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name in (row["marker"], *filter(None, row["aliases"].split("|"))):
                table[marker_key(name)] = row["marker"]
    return table

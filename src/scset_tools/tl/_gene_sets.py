"""Sets of genes from wherever they come: mappings, tables, GMT files; what cannot be read is refused by name."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias
from warnings import warn

import pandas as pd

from scset_tools import _checks
from scset_tools._labels import name_of

_WEIGHTED = re.compile(r".+,[+-]?[0-9.]+(e[+-]?[0-9]+)?", re.IGNORECASE)
"""A gene with a weight, as Enrichr's libraries have them."""

GeneSets: TypeAlias = Mapping[str, Iterable[str]] | pd.DataFrame | str | PathLike[str]


def read_gene_sets(gene_sets: GeneSets | object) -> dict[str, list[str]]:
    """Names to genes, each gene once and without missing names.

    Raises
    ------
    TypeError
        If a set is a text, which would be split into letters, or gene sets are none of what is known.
    ValueError
        If a table lacks its columns, or a file cannot be read.
    """
    if isinstance(gene_sets, (str, PathLike)):
        return read_gmt(gene_sets)
    if isinstance(gene_sets, pd.DataFrame):
        return _of_table(gene_sets)
    if not isinstance(gene_sets, Mapping):
        msg = (
            "gene_sets must be a dict of names to genes, the path of a GMT file, or a table with the columns 'source' and "
            f"'target', but is {type(gene_sets).__name__}."
        )
        raise TypeError(msg)
    return {str(name): gene_names(content, what=f"gene set {str(name)!r}") for name, content in gene_sets.items()}


def gene_names(genes: Any, *, what: str) -> list[str]:
    """Names of genes as text, each once; missing ones are left out with a warning.

    Raises TypeError for a text, which is one gene or the name of something rather than a list.
    """
    if isinstance(genes, (str, bytes)) or not isinstance(genes, Iterable):
        msg = f"{what} must be a list of genes, but is {genes!r:.60}."
        raise TypeError(msg)
    listed = list(genes)
    is_name = [pd.api.types.is_scalar(g) and not pd.isna(g) and str(g).strip() != "" for g in listed]
    if not all(is_name):
        warn(
            f"{len(listed) - sum(is_name)} of {len(listed)} names in {what} are missing and are left out.",
            UserWarning,
            stacklevel=4,
        )
    return list(dict.fromkeys(gene_name(g) for g, keep in zip(listed, is_name, strict=True) if keep))


def gene_name(gene: Any) -> str:
    """The name of a gene as text: bytes as files hold them, and numbers that missing ones beside them have made floats."""
    return name_of(gene.decode() if isinstance(gene, bytes) else gene).strip()


def _of_table(table: pd.DataFrame) -> dict[str, list[str]]:
    """From decoupler's form: one row per set (``source``) and gene (``target``); weights say nothing about membership."""
    absent = [c for c in ("source", "target") if c not in table]
    if absent:
        msg = (
            f"A table of gene sets needs the columns 'source' (set) and 'target' (gene), but lacks {_checks.first(absent)}. "
            f"Columns: {_checks.first(table.columns, 20)}."
        )
        raise ValueError(msg)
    known = table.dropna(subset=["source"])
    if len(known) < len(table):
        warn(
            f"{len(table) - len(known)} of {len(table)} rows of the table of gene sets have no 'source' and are left out (first gene: "
            f"{table['target'][table['source'].isna()].iloc[0]!r}).",
            UserWarning,
            stacklevel=4,
        )
    return {
        str(name): gene_names(genes, what=f"gene set {str(name)!r}")
        for name, genes in known["target"]
        .astype(object)
        .groupby(known["source"].map(gene_name).astype(str), sort=False)
    }


def read_gmt(path: str | PathLike[str]) -> dict[str, list[str]]:
    """Read gene sets from a GMT file: one per line, name, description and genes separated by tabs.

    Parameters
    ----------
    path
        Text file in UTF-8 (with or without a byte-order mark) or UTF-16, also compressed by gzip. Fields may be quoted, genes
        followed by a comma and a weight, which says nothing about membership.

    Returns
    -------
    Names to genes, in the order of the file; genes named twice count once.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is in another encoding or damaged, a line has fewer than two fields or no name, or two sets have the same name.
    """
    path = Path(path)
    sets: dict[str, list[str]] = {}
    for number, line in enumerate(_text_of(path).splitlines(), start=1):
        if not line.strip():
            continue
        fields = [_unquoted(f) for f in line.split("\t")]
        if len(fields) < 2:
            msg = f"Line {number} of {path} is no gene set: GMT needs name, description and genes separated by tabs."
            raise ValueError(msg)
        name = fields[0]
        if not name:
            msg = f"Line {number} of {path} has no name of a gene set before its first tab."
            raise ValueError(msg)
        if name in sets:
            msg = f"Line {number} of {path} names the gene set {name!r} a second time. Rename or merge the two."
            raise ValueError(msg)
        genes = [g for g in fields[2:] if g]
        if genes and all(_WEIGHTED.fullmatch(g) for g in genes):
            genes = [g.rpartition(",")[0] for g in genes]
        sets[name] = list(dict.fromkeys(genes))
    return sets


def _text_of(path: Path) -> str:
    raw = path.read_bytes()
    try:
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        msg = f"{path} is compressed by gzip, but cannot be read: {error}. Download it anew."
        raise ValueError(msg) from error
    try:
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        msg = (
            f"{path} is not UTF-8 text (byte {raw[error.start] if error.start < len(raw) else 0:#x} at position {error.start}). "
            "Save it as UTF-8, for example by iconv -f latin1 -t utf-8; a zip archive has to be unpacked first."
        )
        raise ValueError(msg) from error
    if "\0" in text:
        msg = f"{path} is UTF-16 without a byte-order mark, or no text. Save it as UTF-8, for example by iconv -f utf-16le -t utf-8."
        raise ValueError(msg)
    return text


def _unquoted(field: str) -> str:
    field = field.strip()
    return field[1:-1].strip() if len(field) > 1 and field[0] == field[-1] == '"' else field

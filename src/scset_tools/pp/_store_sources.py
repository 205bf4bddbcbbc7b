"""The files of a cohort: what each holds, opened without reading its values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
from anndata import AnnData

from scset_tools import _checks
from scset_tools._panels import MASK, PANELS
from scset_tools._unreadable import why_no_cells
from scset_tools.data._rows import Named, RowReader


@dataclass
class Source:
    """One AnnData of a cohort.

    Attributes
    ----------
    name
        Stem of its file, or its number.
    stamp
        What tells the file from itself after a change: path, size and time of writing. Of cells in memory a new one each time:
        nothing tells whether they are those of a run that was stopped.
    obs
        Its cells; empty once those of the store are made of them.
    features
        Names of its features.
    reader
        Reads its values.
    panels
        Its ``uns["panels"]``, under that name, if it has one.
    """

    name: str
    stamp: str
    obs: pd.DataFrame
    features: pd.Index
    reader: SourceReader
    panels: dict[str, Any]


class SourceReader(RowReader):
    """Reads the values of a source; with an open panel a missing value is one.

    Parameters
    ----------
    source, named, max_gap
        As for :class:`~scset_tools.data._rows.RowReader`.
    is_open
        Whether values may be missing.
    closes
        Whether the file is closed unless it is asked for values: it is no one else's.
    """

    def __init__(self, source: Any, named: Named, *, is_open: bool, closes: bool, max_gap: int = 16) -> None:
        super().__init__(source, named, max_gap=max_gap)
        self.is_open, self._closes = is_open, closes
        if closes:
            self.release()

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """The array, its file open: each h5 file that stays open keeps some 20 MB, and a cohort may have hundreds."""
        self.reopen()
        try:
            yield self.source
        finally:
            if self._closes:
                self.release()

    def _finite(self, x: Any, rows: np.ndarray) -> Any:
        if not self.is_open:
            return super()._finite(x, rows)
        row, column = np.nonzero(np.isinf(x))
        if len(row):
            raise self.complaint(len(row), rows[row[:3]], column[:3])
        return x

    def complaint(self, n: int, rows: np.ndarray, columns: np.ndarray) -> ValueError:
        """As of any reader, with one more way out."""
        error = super().complaint(n, rows, columns)
        if self.is_open:
            return error
        msg = f"{error} If they are missing where a sample's panel lacks a marker, pass panel='open'."
        return ValueError(msg)


class _NamesInFile(Sequence[str]):
    """Names of the cells of a file, read again when a message needs them: those of millions of cells are not kept for that.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __len__(self) -> int:
        return _open_file(self._path).n_obs

    def __getitem__(self, row: Any) -> Any:
        return _open_file(self._path).obs_names[row]


def open_sources(sources: Any, *, layer: str | None, is_open: bool = False) -> list[Source]:
    """Open all of them, under names that differ.

    Parameters
    ----------
    sources
        AnnData or path of an h5ad or zarr file, or several.
    layer
        Layer to read instead of ``X``.
    is_open
        Whether values may be missing.

    Raises
    ------
    ValueError
        If there is none, or features have a name twice.
    FileNotFoundError
        If a path leads nowhere.
    TypeError
        If a source is neither.
    """
    is_one = isinstance(sources, str | Path) or hasattr(sources, "obs")
    given: Sequence[Any] = [sources] if is_one else list(sources)
    if not given:
        msg = "sources is empty: give at least one AnnData or path of an h5ad or zarr file."
        raise ValueError(msg)
    for source in given:
        if not isinstance(source, str | Path):
            _checks.require_anndata(source, caller="pp.write_store")
    stems = [
        str(i) if isinstance(s, AnnData) else Path(s).name.removesuffix(Path(s).suffix) for i, s in enumerate(given)
    ]
    if len(set(stems)) < len(stems):
        stems = [f"{stem}-{i}" for i, stem in enumerate(stems)]
    return [_open(source, name, layer, is_open=is_open) for source, name in zip(given, stems, strict=True)]


def _open(source: Any, name: str, layer: str | None, *, is_open: bool) -> Source:
    adata = source if isinstance(source, AnnData) else _open_file(Path(source))
    what = f"adata.{'X' if layer is None else f'layers[{layer!r}]'} of source {name!r}"
    if layer is not None and layer not in adata.layers:
        msg = f"Source {name!r} has no layer {layer!r}. It has: {_checks.first(list(adata.layers))}."
        raise KeyError(msg)
    values = adata.X if layer is None else adata.layers[layer]
    if values is None:
        msg = f"Source {name!r} has no X. Name the layer to store: layer=..."
        raise ValueError(msg)
    if getattr(values, "format", None) == "csc" and hasattr(values, "to_memory"):
        values = values.to_memory().tocsr()  # the one thing that is not read in pieces: by columns, a piece reads all
    features = pd.Index(adata.var_names.astype(str))
    if not features.is_unique:
        doubled = features[features.duplicated()].unique()
        msg = (
            f"Source {name!r} has {len(doubled)} feature names that stand for several columns: {_checks.first(doubled)}. "
            "Call adata.var_names_make_unique() first."
        )
        raise ValueError(msg)
    stamp = uuid4().hex
    if not isinstance(source, AnnData):
        parts = [p for p in [Path(source), *Path(source).rglob("*")] if p.is_file()]
        stamp = f"{Path(source).absolute()} {sum(p.stat().st_size for p in parts)} {max(p.stat().st_mtime_ns for p in parts)}"
    panels = {PANELS: adata.uns[PANELS]} if PANELS in adata.uns else {}
    if is_open and MASK in adata.layers:
        msg = f"Source {name!r} says by layers[{MASK!r}] what is missing, which a store does not keep: set these values to NaN first."
        raise ValueError(msg)
    is_given = isinstance(source, AnnData)
    reader = SourceReader(
        values,
        Named(what, adata.obs_names if is_given else _NamesInFile(Path(source)), features),
        # a block takes rows from all over a file: reading along what lies between is quicker than asking for each
        max_gap=128,
        is_open=is_open,
        closes=not is_given,
    )
    return Source(name, f"{stamp} {adata.shape} {layer}", pd.DataFrame(adata.obs), features, reader, panels)


def _open_file(path: Path) -> AnnData:
    if path.suffix == ".h5mu" and path.is_file():
        msg = (
            f"{path} holds a MuData, and a store holds the cells of one AnnData: write a modality, or several that are joined, "
            "sst.pp.join_modalities(mudata.read_h5mu(path), sample_key)."
        )
        raise ValueError(msg)
    why = why_no_cells(path)
    if why is not None:
        raise (ValueError if path.exists() else FileNotFoundError)(why)
    if path.is_dir():
        from scset_tools.pp._read_store import read_store

        return read_store(path)
    import anndata

    return anndata.read_h5ad(path, backed="r")

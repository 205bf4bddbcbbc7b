"""A folder of FCS files as one AnnData."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scset_tools import _checks, _markers
from scset_tools._numbers import checks_numbers
from scset_tools._panels import PANELS, panels_entry
from scset_tools.pp._fcs_file import FcsFile, conflicts_of, open_fcs, read_events

if TYPE_CHECKING:
    from anndata import AnnData

FILE_COLUMNS = ("file", "filename", "file_name", "fcs", "fcs_file", "path")


def fcs_panels(files: str | Path | Sequence[str | Path], *, synonyms: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The panels of FCS files, and where they disagree, without reading any event.

    Parameters
    ----------
    files
        Folder of FCS files, one file, or several.
    synonyms
        Further names of markers; see :func:`marker_names`.

    Returns
    -------
    DataFrame with a row for each channel of each file: ``file``, ``channel`` (``$PnN``), ``description`` (``$PnS``), ``kind`` (``"marker"``,
    ``"scatter"``, ``"time"``, ``"technical"`` or ``"unused"``), ``marker``, ``is_known``, ``n_files`` (files that have the marker), ``cofactor``
    (5 for mass cytometry, 150 for fluorescence), ``has_spillover`` and ``conflict``: empty, or that only some files have the marker, that the channel
    carries several markers, that the marker is in two channels, that it is in other channels of other files, or that cofactors differ.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder, or no FCS file in it.
    ValueError
        If a file cannot be read.
    ImportError
        If flowio is not installed.
    """
    return _table([open_fcs(path, synonyms) for path in _paths(files)])


@checks_numbers
def read_fcs(
    files: str | Path | Sequence[str | Path],
    metadata: str | Path | pd.DataFrame | None = None,
    *,
    sample_key: str = "sample",
    cofactor: float | Mapping[str, float] | str | None = "auto",
    markers: Sequence[str] | None = None,
    synonyms: Mapping[str, str] | None = None,
    n_cells: int | None = None,
    seed: int = 0,
) -> AnnData:
    """Read FCS files: one sample each, markers by their names, NaN where a file lacks a marker.

    Nothing is compensated or gated. Where panels differ, set models up with ``panel="open"``, or keep what all files have
    (``adata[:, ~np.isnan(adata.X).any(0)]``); :func:`fcs_panels` shows the panels before.

    Parameters
    ----------
    files
        Folder of FCS files, one file, or several.
    metadata
        CSV file or DataFrame with a column ``file`` (names of the files, with or without ``.fcs``); its other columns go to ``obs``. A column
        ``sample_key`` names the samples, and files of one name are one sample. Default: each file is a sample, named by its stem.
    sample_key
        Column of ``obs`` to write the sample of each cell to.
    cofactor
        Markers become ``arcsinh(x / cofactor)``. ``"auto"``: 5 for files of mass cytometry, 150 for others. A number, one for each marker, or None: as
        stored, on the linear scale.
    markers
        Markers to read. Default: all.
    synonyms
        Further names of markers; see :func:`marker_names`.
    n_cells
        Most events of a file, drawn without replacement. Default: all.
    seed
        Seed of the draw, which depends on it and the name of the file alone.

    Returns
    -------
    AnnData: ``X`` (events x markers, float32); ``obs`` with the sample, ``file``, ``time`` where there is one and the columns of ``metadata``;
    ``obsm["scatter"]`` and ``obsm["technical"]``, DataFrames of what is no marker, as stored; ``var`` with ``is_known`` and ``n_files``;
    ``uns["fcs_panels"]`` as :func:`fcs_panels` returns it, and ``uns["panels"]`` as :func:`concat_panels` writes it.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder, or no FCS file in it.
    ValueError
        If a file cannot be read, holds no event, or has a marker in two channels; or metadata do not fit the files.
    KeyError
        If one of ``markers`` is in no file, or has no cofactor.
    ImportError
        If flowio is not installed.
    """
    import anndata

    paths = _paths(files)
    opened = [open_fcs(path, synonyms) for path in paths]
    rows = _rows(metadata, paths, sample_key)
    wanted = _wanted(opened, markers, synonyms)
    names = list(wanted.values())
    place = {key: i for i, key in enumerate(wanted)}
    values, tables = [], []
    apart: dict[str, list[np.ndarray]] = {"scatter": [], "technical": []}
    for file, row in zip(opened, rows, strict=True):
        own = _own(file, place)
        events = read_events(file)
        if n_cells is not None and n_cells < len(events):
            rng = np.random.default_rng((seed, zlib.crc32(file.path.name.encode())))
            events = events[np.sort(rng.choice(len(events), n_cells, replace=False))]
        x = np.full((len(events), len(names)), np.nan, dtype=np.float32)
        for column, channel in own.items():
            factor = _factor(cofactor, names[column], file)
            x[:, column] = events[:, channel] if factor is None else np.arcsinh(events[:, channel] / factor)
        values.append(x)
        index = pd.Index([f"{file.path.stem}-{i}" for i in range(len(events))])
        table = pd.DataFrame({key: [value] * len(events) for key, value in row.items()}, index=index)
        time = [c.number for c in file.channels if c.name.lower() == "time"]
        if time:
            table["time"] = events[:, time[0]]
        tables.append(table)
        for kind, parts in apart.items():
            kinds = (kind,) if kind == "scatter" else ("technical", "time")  # the length of an event
            of_kind = {c.name: events[:, c.number] for c in file.channels if c.kind in kinds and c.number not in time}
            parts.append(pd.DataFrame(of_kind, index=index, dtype=np.float32))
    x, obs = np.concatenate(values), pd.concat(tables)
    if not obs.index.is_unique:  # files of one name in several folders
        obs.index = pd.Index([f"{i}-{name}" for i, table in enumerate(tables) for name in table.index])
    for key in (sample_key, "file"):
        obs[key] = pd.Categorical(obs[key])
    _warn_of_spillover(opened)
    table = _table(opened)
    of_markers = table[table["kind"] == "marker"].drop_duplicates("marker").set_index("marker")
    var = of_markers.reindex(names)[["is_known", "n_files"]].rename_axis(None)
    obsm = {kind: pd.concat(parts).set_axis(obs.index) for kind, parts in apart.items()}
    entry = panels_entry(x, samples=obs[sample_key].astype(str).to_numpy(), markers=names, cells=obs.index)
    return anndata.AnnData(
        x,
        obs=obs,
        var=var,
        obsm={kind: frame for kind, frame in obsm.items() if frame.shape[1]},
        uns={"fcs_panels": table, PANELS: entry},
    )


def _paths(files: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files, in order of their names; each once."""
    given = [files] if isinstance(files, str | Path) else list(files)
    found: list[Path] = []
    for item in map(Path, given):
        if item.is_dir():
            inside = [p for p in sorted(item.iterdir()) if p.suffix.lower() == ".fcs" and p.is_file()]
            if not inside:
                msg = f"There is no FCS file in the folder {item}."
                raise FileNotFoundError(msg)
            found += inside
        elif item.is_file():
            found.append(item)
        else:
            msg = f"There is no file or folder {item}."
            raise FileNotFoundError(msg)
    if not found:
        msg = "No FCS files were given."
        raise FileNotFoundError(msg)
    return list(dict.fromkeys(found))


def _rows(metadata: str | Path | pd.DataFrame | None, paths: list[Path], sample_key: str) -> list[dict[str, Any]]:
    """What ``obs`` holds of each file."""
    if metadata is None:
        stems = [path.stem for path in paths]
        if len(set(stems)) < len(stems):
            msg = (
                f"Files of one name would be one sample: {_checks.first(sorted({s for s in stems if stems.count(s) > 1}))}. "
                f"Rename them, or name their samples in the column {sample_key!r} of metadata."
            )
            raise ValueError(msg)
        return [{sample_key: stem, "file": path.name} for stem, path in zip(stems, paths, strict=True)]
    where = "metadata" if isinstance(metadata, pd.DataFrame) else str(metadata)
    table = metadata.copy() if isinstance(metadata, pd.DataFrame) else pd.read_csv(metadata, sep=None, engine="python")
    column = next((c for c in table.columns if str(c).strip().lower() in FILE_COLUMNS), None)
    if column is None:
        msg = f"{where} has no column with the names of the files ({_checks.first(FILE_COLUMNS, 6)}). Columns: {_checks.first(table.columns)}."
        raise ValueError(msg)
    keys = table[column].astype(str).map(lambda name: Path(name).name.removesuffix(".fcs").removesuffix(".FCS"))
    if keys.duplicated().any():
        msg = f"{where} names files twice: {_checks.first(keys[keys.duplicated()])}."
        raise ValueError(msg)
    stems = [path.stem for path in paths]
    missing, extra = [s for s in stems if s not in set(keys)], [k for k in keys if k not in set(stems)]
    if missing or extra:
        msg = (
            f"{where} does not fit the files: {len(missing)} files have no row (first: {_checks.first(missing)}), {len(extra)} rows have no "
            f"file (first: {_checks.first(extra)}). Give the files by name, or complete the table."
        )
        raise ValueError(msg)
    table = table.drop(columns=column).set_index(pd.Index(keys)).loc[stems]
    if sample_key not in table:
        table.insert(0, sample_key, stems)
    _checks.require_no_missing(table[sample_key], sample_key)
    table[sample_key] = table[sample_key].astype(str)
    rows = table.to_dict(orient="records")
    return [{**row, "file": path.name} for row, path in zip(rows, paths, strict=True)]


def _wanted(files: list[FcsFile], markers: Sequence[str] | None, synonyms: Mapping[str, str] | None) -> dict[str, str]:
    """Key of each marker to its name, in the order of the files."""
    found: dict[str, str] = {}
    for file in files:
        for channel in file.channels:
            if channel.kind == "marker":
                found.setdefault(_markers.marker_key(channel.marker), channel.marker)
    if markers is None:
        if not found:
            msg = f"The files have no marker, only {_checks.first({c.name for f in files for c in f.channels})}."
            raise ValueError(msg)
        return found
    keys = {str(name): _markers.match_key(name, synonyms) for name in markers}
    missing = [name for name, key in keys.items() if key not in found]
    if missing:
        msg = f"No file has the markers {_checks.first(missing)}. There are {_checks.first(found.values(), 40)}; see pp.fcs_panels."
        raise KeyError(msg)
    return {key: found[key] for key in keys.values()}


def _own(file: FcsFile, place: Mapping[str, int]) -> dict[int, int]:
    """Column of the result to channel of the file, for the markers that it has."""
    own: dict[int, int] = {}
    for channel in file.channels:
        column = place.get(_markers.marker_key(channel.marker)) if channel.kind == "marker" else None
        if column is None:
            continue
        if column in own:
            both = [file.channels[own[column]], channel]
            shown = _checks.first(f"{c.name} ({c.description})" for c in both)
            msg = (
                f"{file.path} has the marker {channel.marker!r} in two channels: {shown}. Tell them apart by synonyms, for instance "
                f"{{{both[1].description or both[1].name!r}: 'another name'}}, or leave the marker out of markers=."
            )
            raise ValueError(msg)
        own[column] = channel.number
    return own


def _factor(cofactor: Any, marker: str, file: FcsFile) -> float | None:
    if cofactor is None:
        return None
    if isinstance(cofactor, str):
        _checks.require_choice("cofactor", cofactor, ("auto",))
        return file.cofactor
    if isinstance(cofactor, Mapping):
        if marker not in cofactor:
            msg = f"cofactor has no entry for marker {marker!r}. Entries: {_checks.first(cofactor)}."
            raise KeyError(msg)
        cofactor = cofactor[marker]
    if not cofactor > 0:
        msg = f"The cofactor {cofactor} must be above 0."
        raise ValueError(msg)
    return float(cofactor)


def _warn_of_spillover(files: list[FcsFile]) -> None:
    carry = [file.path.name for file in files if file.has_spillover]
    if carry:
        msg = (
            f"{len(carry)} of {len(files)} files carry a spillover matrix, which is not applied (first: {_checks.first(carry)}). If they are "
            "not compensated yet, compensate them first, for instance with FlowKit."
        )
        warnings.warn(msg, UserWarning, stacklevel=3)


def _table(files: list[FcsFile]) -> pd.DataFrame:
    rows = []
    for file in files:
        within = conflicts_of(file)
        for c in file.channels:
            row: dict[str, Any] = {
                "file": file.path.name,
                "channel": c.name,
                "description": c.description,
                "kind": c.kind,
            }
            row |= {"marker": c.marker, "is_known": c.is_known, "cofactor": file.cofactor}
            rows.append({**row, "has_spillover": file.has_spillover, "conflict": within.get(c.number, "")})
    table = pd.DataFrame(rows)
    is_marker = table["kind"] == "marker"
    key = table["marker"].map(_markers.marker_key)
    n_files = table[is_marker].groupby(key[is_marker])["file"].nunique()
    table["n_files"] = np.where(is_marker, key.map(n_files), 0).astype(int)
    n_channels = table[is_marker].groupby(key[is_marker])["channel"].nunique()
    notes = {
        "only some files have the marker": is_marker & (table["n_files"] < len(files)),
        "other channels in other files": is_marker & (table["conflict"] == "") & (key.map(n_channels).fillna(0) > 1),
        "cofactors differ between files": is_marker & (table["cofactor"].nunique() > 1),
    }
    for note, applies in notes.items():
        table["conflict"] = np.where(
            applies, table["conflict"].map(lambda t, n=note: f"{t}; {n}" if t else n), table["conflict"]
        )
    return table[
        [
            "file",
            "channel",
            "description",
            "kind",
            "marker",
            "is_known",
            "n_files",
            "cofactor",
            "has_spillover",
            "conflict",
        ]
    ]

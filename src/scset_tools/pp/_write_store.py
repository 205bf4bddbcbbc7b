"""One file for a cohort: the cells of all its files, sample by sample."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from scset_tools import _checks
from scset_tools._lock import held
from scset_tools._numbers import checks_numbers
from scset_tools._samples import sample_codes
from scset_tools.pp._store_run import StoreRun
from scset_tools.pp._store_sources import Source, open_sources

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


@checks_numbers
def write_store(
    sources: AnnData | str | Path | Sequence[AnnData | str | Path],
    path: str | Path,
    *,
    sample_key: str | Sequence[str],
    join: Literal["inner", "outer"] = "inner",
    layer: str | None = None,
    panel: Literal["fixed", "open"] = "fixed",
    same_names: Literal["raise", "merge"] = "raise",
    source_key: str = "source",
    max_bytes: int = 2**29,
    progress: bool = True,
) -> Path:
    """Write the cells of a cohort to one zarr file in which those of a sample lie together.

    Any number of files become one cohort, in bounded memory: sources are read in pieces, as often as there are blocks of
    samples. Values are checked on the way (a value that is not finite raises) and need no second look: models trust the
    store. It is an ordinary zarr file of anndata, in shards (zarr v3); :func:`read_store` opens it with its values on disk.

    A run over files that was stopped goes on from its last block; nothing has the name ``path`` before it is whole.

    Parameters
    ----------
    sources
        AnnData, or path of an h5ad or zarr file, or several of them.
    path
        Folder to make; by custom it ends in ``.zarr``.
    sample_key
        Column of ``obs`` with the sample of each cell; or several columns, which together name a sample: their values are
        joined by ``"/"`` and written as column ``"sample"``. May hold ``source_key``.
    join
        Whether to keep the features that all sources have (``"inner"``) or those of any, with zeros for the others
        (``"outer"``; NaN with an open panel).
    layer
        Layer to store as ``X``. Default: ``X``.
    panel
        ``"open"`` if samples may lack markers, for models that are set up with ``panel="open"``: values may be NaN, a marker in all cells of a sample
        or in none, and what ``uns["panels"]`` of a source calls not measured becomes NaN. The values are stored dense, and ``uns["panels"]`` of
        the store says which sample has which marker.
    same_names
        What to do if several sources have a sample of one name: ``"raise"``, or ``"merge"`` their cells.
    source_key
        Column of ``obs`` that is made, with the name of each cell's source: the stem of its file, or its number.
    max_bytes
        About how much memory may be used for a block of cells.
    progress
        Whether to show a progress bar.

    Returns
    -------
    Path of the store. ``uns["store"]`` of it has the names of samples, where each begins and ends (``indptr``), whether all
    values are whole numbers at least 0 (``is_counts``), and, where none is missing, mean and standard deviation of each feature; ``obs`` has the
    columns of all sources, ``store_total`` (sum of a cell's values) and ``store_n_features`` (number that are not 0).

    Raises
    ------
    FileExistsError
        If ``path`` is there.
    RuntimeError
        If another process writes it now.
    KeyError
        If a source lacks the column or the layer.
    ValueError
        If a cell has no sample, sources share names of samples, no feature is shared, or a value is not finite; with an open panel, if one is
        infinite, a marker is missing in a part of the cells of a sample, or a sample has none.
    """
    path = Path(path)
    there = f"{path} is there already. Remove it, or take another name."
    if path.exists():
        raise FileExistsError(there)
    _checks.require_choice("join", join, ("inner", "outer"))
    _checks.require_choice("same_names", same_names, ("raise", "merge"))
    _checks.require_choice("panel", panel, ("fixed", "open"))

    def complaint(holder: str) -> str:
        return f"{path} is being written by {holder}. Wait for it to end, or take another name."

    opened = open_sources(sources, layer=layer, is_open=panel == "open")
    path.parent.mkdir(parents=True, exist_ok=True)
    with held(path.with_name(f".{path.name}.lock"), complaint, is_removed=True):
        if path.exists():  # by now
            raise FileExistsError(there)
        return _write(
            opened,
            path,
            sample_key=sample_key,
            join=join,
            same_names=same_names,
            source_key=source_key,
            max_bytes=max_bytes,
            settings=f"{join} {layer} {panel}",
            is_open=panel == "open",
            progress=progress,
        )


def _write(
    opened: list[Source],
    path: Path,
    *,
    sample_key: str | Sequence[str],
    join: str,
    same_names: str,
    source_key: str,
    max_bytes: int,
    settings: str,
    is_open: bool,
    progress: bool,
) -> Path:
    """What :func:`write_store` does once nobody else writes the same path."""
    obs, key, origin, row = _cells(opened, sample_key, source_key=source_key, same_names=same_names)
    features = _features(opened, join)
    codes, names = sample_codes(obs[key], key)
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes, minlength=len(names))
    part = path.with_name(path.name + ".part")
    run = StoreRun(
        part,
        opened,
        features,
        origin=origin[order],
        row=row[order],
        codes=codes[order].astype(np.int32),
        samples=names,
        max_bytes=max_bytes,
        settings=f"{key} {settings}",
        is_open=is_open,
    )
    run.begin(obs.iloc[order])
    del obs, origin, row, codes, order  # as large as the cohort has cells
    run.write(progress=progress)
    store = {
        "sample_key": key,
        "samples": names.astype(str),
        "indptr": np.concatenate([[0], np.cumsum(sizes)]),
        "is_counts": bool(run.is_counts),
        "feature_mean": run.mean,
        "feature_sd": run.sd,
    }
    run.close(features, store)
    os.replace(part, path)
    return path


def _cells(
    sources: list[Source], sample_key: str | Sequence[str], *, source_key: str, same_names: str
) -> tuple[pd.DataFrame, str, np.ndarray, np.ndarray]:
    """The cells of all sources, the column of their samples, and source and row of each."""
    keys = [sample_key] if isinstance(sample_key, str) else list(sample_key)
    frames = []
    for source in sources:
        frame = source.obs.assign(**{source_key: source.name})
        for k in keys:
            if k not in frame:
                msg = f"Source {source.name!r} has no column {k!r}. It has: {_checks.first(list(source.obs.columns))}."
                raise KeyError(msg)
            _checks.require_no_missing(frame[k], f"{k} of source {source.name}")
        frames.append(frame)
    key = keys[0] if len(keys) == 1 else "sample"
    if len(keys) > 1:
        for frame in frames:
            frame[key] = frame[keys].astype(str).agg("/".join, axis=1)
    _require_own_samples(sources, frames, key, same_names=same_names)
    obs = pd.concat(
        [_storable(frame, source.name) for frame, source in zip(frames, sources, strict=True)], join="outer"
    )
    origin = np.repeat(np.arange(len(frames), dtype=np.int32), [len(f) for f in frames])
    row = np.concatenate([np.arange(len(f), dtype=np.int32) for f in frames])
    del frames, frame
    for source in sources:
        source.obs = pd.DataFrame()
    names = pd.Index(obs.index.astype(str))
    if not names.is_unique:
        names = names + "-" + np.asarray([s.name for s in sources], dtype=object)[origin]
    obs.index = pd.Index(names.to_numpy())  # without the table by which it was seen whether they differ
    obs[[key, source_key]] = obs[[key, source_key]].astype(str).astype("category")
    return obs, key, origin, row


def _require_own_samples(sources: list[Source], frames: list[pd.DataFrame], key: str, *, same_names: str) -> None:
    if same_names == "merge":
        return
    seen: dict[str, str] = {}
    shared: list[str] = []
    for source, frame in zip(sources, frames, strict=True):
        for name in sample_codes(frame[key], key)[1]:
            if name in seen:
                shared.append(f"{name} ({seen[name]}, {source.name})")
            seen.setdefault(str(name), source.name)
    if shared:
        msg = (
            f"{len(shared)} samples have the same name in several sources: {_checks.first(shared)}. If they are the same "
            f"samples, pass same_names='merge'; if not, name samples by several columns: sample_key=('source', {key!r})."
        )
        raise ValueError(msg)


def _storable(obs: pd.DataFrame, name: str) -> pd.DataFrame:
    """The columns that a file can hold: those of lists and the like are left out, and named."""
    kinds = {c: pd.api.types.infer_dtype(obs[c], skipna=True) for c in obs.columns if obs[c].dtype == object}
    left_out = [c for c, kind in kinds.items() if kind not in ("string", "empty", "boolean", "integer", "floating")]
    if left_out:
        msg = f"Columns of obs of source {name!r} that no file can hold are left out: {_checks.first(left_out)}."
        warnings.warn(msg, stacklevel=2)
    return obs.drop(columns=left_out)


def _features(sources: list[Source], join: str) -> pd.Index:
    """Features in the order of the first source that has them."""
    features = sources[0].features
    for source in sources[1:]:
        other = source.features
        features = (
            features[features.isin(other)]
            if join == "inner"
            else features.append(other.difference(features, sort=False))
        )
    if not len(features):
        msg = (
            f"The {len(sources)} sources have no feature in common. {sources[0].name!r} has "
            f"{_checks.first(sources[0].features)}; {sources[-1].name!r} has {_checks.first(sources[-1].features)}. "
            "Use one kind of names, or join='outer'."
        )
        raise ValueError(msg)
    return features

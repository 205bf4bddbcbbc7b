"""An open panel: features that some samples lack.

The model knows its markers by name. A sample has a marker in all of its cells or in none; what it lacks is read as NaN, whether the AnnData has
no such column, a column of NaN, zeros under a mask (the ``_nan_mask`` of CytoVI), or says so in ``uns["panels"]``. Of joined modalities the cells
of a sample may differ in those that they have: then it is all cells of a sample with the same modalities, or none.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scset_tools import _checks, _markers
from scset_tools._joined import CELL_MODALITIES, JOINED
from scset_tools._panels import MASK, PanelCount, panels_of
from scset_tools._samples import as_text, sample_codes
from scset_tools.data._feature_fields import CellLayerField, Change
from scset_tools.data._rows import Named, RowReader

PANEL = "panel"
"""Entry of a state: the :class:`Panel`, which the manager keeps."""

MODALITY, IS_PAIRED = "modality", "is_paired"
"""Entries of a state, where modalities were joined: the modality of each marker, and whether cells have several."""


class Panel:
    """Which column holds each marker of the model, and which samples have it.

    Parameters
    ----------
    columns
        Column of each marker in the AnnData, -1 where there is none, (markers,).
    codes
        Number of the group of each cell, (cells,): its sample, or, of joined modalities, sample and set of modalities.
    measured
        Whether a group has a marker, (groups, markers).
    """

    def __init__(self, columns: np.ndarray, codes: np.ndarray, measured: np.ndarray) -> None:
        self.columns, self.codes, self.measured = columns, codes, measured


class PanelReader(RowReader):
    """Rows in the order of the model's markers, NaN for those that their sample lacks.

    Parameters
    ----------
    source, named, max_gap
        As for :class:`~scset_tools.data._rows.RowReader`; features are named in the model's order.
    panel
        Columns and samples. Without ``measured`` nothing is looked at: for the first pass.
    """

    def __init__(self, source: Any, named: Named, *, panel: Panel, max_gap: int = 16) -> None:
        super().__init__(source, named, max_gap=max_gap)
        self.panel = panel
        self.n_features = len(panel.columns)
        self.is_sparse = False

    def _dense(self, x: Any) -> np.ndarray:
        columns = self.panel.columns
        out = np.full((x.shape[0], len(columns)), np.nan, dtype=np.float32)
        if len(out):
            has = columns >= 0
            out[:, has] = super()._dense(x)[:, columns[has]]
        return out

    def _finite(self, x: Any, rows: np.ndarray) -> Any:
        """The block, with NaN where a sample has no such marker; a ValueError for any other value that is not finite."""
        measured = self.panel.measured[self.panel.codes[rows]]
        x[~measured] = np.nan  # one and the same NaN, whatever stands there
        bad = measured & ~np.isfinite(x)
        if bad.any():
            row, column = np.nonzero(bad)
            raise self.complaint(len(row), rows[row[:3]], column[:3])
        return x


class PanelField(CellLayerField):
    """Markers of each cell from ``X`` or a layer; samples may lack some.

    Parameters
    ----------
    registry_key, layer, forbid_zero_cells
        As for :class:`~scset_tools.data._feature_fields.CellLayerField`.
    sample_key
        Column of ``obs`` with the sample of each cell.
    """

    def __init__(
        self, registry_key: str, layer: str | None, sample_key: str, *, forbid_zero_cells: bool = False
    ) -> None:
        super().__init__(registry_key, layer, forbid_zero_cells=forbid_zero_cells)
        self._sample_key = sample_key

    def register_field(self, adata: AnnData) -> dict:
        self._require_source(adata)
        given = as_text(adata.var_names)
        _require_once(given)
        # in the order of their names, so that the order of columns matters nowhere
        markers = np.asarray(sorted(given))
        state = self._register_panel(adata, markers, forbid_zero_cells=self._forbid_zero_cells, is_new=True)
        if JOINED in adata.uns and "modality" in adata.var:
            of = dict(zip(given, as_text(adata.var["modality"]), strict=True))
            state[MODALITY] = np.asarray([of[m] for m in markers], dtype=object)
            state[IS_PAIRED] = bool(adata.uns[JOINED].get("paired", True))
        return state

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: object) -> dict:
        self._require_source(adata_target)
        known = as_text(state_registry[self.COLUMN_NAMES_KEY])
        given = as_text(adata_target.var_names)
        columns = match_markers(known, given)
        used = columns[columns >= 0]
        unknown = np.delete(given, used)
        if len(used) == 0:
            msg = (
                f"adata has no marker in common with the model: it has {_checks.first(given)}, the model knows {_checks.first(known, 20)}. "
                "See pp.marker_names for what the names stand for, and rename those that differ."
            )
            raise ValueError(msg)
        if len(unknown):
            msg = (
                f"{len(unknown)} of {len(given)} markers in adata are unknown to the model and are not read (first: {_checks.first(unknown)}). "
                f"The model knows {_checks.first(known, 20)}."
            )
            warnings.warn(msg, UserWarning, stacklevel=2)
        state = self._register_panel(adata_target, known, forbid_zero_cells=False, is_new=False)
        return state | {key: state_registry[key] for key in (MODALITY, IS_PAIRED) if key in state_registry}

    def change(self, adata: AnnData, state: dict, **kept: Any) -> Change:
        """What changed since the field was registered, if anything."""
        try:
            self._require_source(adata)
        except (KeyError, ValueError) as error:
            return type(error), str(error.args[0]).rstrip(".")
        columns = match_markers(as_text(state[self.COLUMN_NAMES_KEY]), as_text(adata.var_names))
        if np.array_equal(columns, kept["panel"].columns):
            return None
        return ValueError, "adata.var_names are no longer those that were registered, or in another order"

    def _register_panel(self, adata: AnnData, markers: np.ndarray, *, forbid_zero_cells: bool, is_new: bool) -> dict:
        if len(markers) == 0:
            msg = f"{self.where} has no markers (shape {adata.shape})."
            raise ValueError(msg)
        columns = match_markers(markers, as_text(adata.var_names))
        codes, samples = sample_codes(_checks.require_obs(adata, self._sample_key), self._sample_key)
        codes = np.asarray(codes, dtype=np.int64)
        named = Named(self.where, adata.obs_names, markers, lambda row: str(samples[codes[row]]))
        groups, sample_of_group = _groups_of(adata, codes)
        names = samples[sample_of_group]
        panel = Panel(columns, groups, np.zeros((0, len(markers)), dtype=bool))
        mask = adata.layers[MASK] if MASK in adata.layers else None
        said = panels_of(adata.uns, samples, adata.var_names)
        said = np.where(columns >= 0, said[:, columns], False)[sample_of_group]  # noqa: FBT003
        count = PanelCount(len(names), len(markers))
        masks = iter(()) if mask is None else PanelReader(mask, named, panel=panel).unchecked_chunks()
        reader = PanelReader(self.get_field_data(adata), named, panel=panel)
        n_zero, first_zero = 0, []
        for start, block in reader.unchecked_chunks():
            own = groups[start : start + len(block)]
            is_missing = np.isnan(block) | ~said[own]
            if mask is not None:
                is_missing |= next(masks)[1] == 0
            infinite = np.isinf(block) & ~is_missing
            if infinite.any():
                row, column = np.nonzero(infinite)
                raise reader.complaint(len(row), start + row[:3], column[:3])
            count.add(is_missing, own)
            if forbid_zero_cells:
                is_zero = ~((block != 0) & ~is_missing).any(axis=1) & ~is_missing.all(axis=1)
                n_zero += int(is_zero.sum())
                first_zero += [str(adata.obs_names[start + i]) for i in np.flatnonzero(is_zero)[: _checks.SHOW]]
        panel.measured = count.measured(names, markers, where=self.where)
        if n_zero:
            msg = (
                f"{self.where} has {n_zero} cells whose measured markers are all zero (first: {_checks.first(first_zero)}): cosine similarity to them "
                "is undefined. Drop them."
            )
            raise ValueError(msg)
        nowhere = markers[~panel.measured.any(axis=0)]
        if is_new and len(nowhere):
            msg = (
                f"{len(nowhere)} of {len(markers)} markers are measured in no sample (first: {_checks.first(nowhere)}): nothing can be learned of "
                "them. Drop these columns."
            )
            raise ValueError(msg)
        return {
            self.N_OBS_KEY: adata.n_obs,
            self.N_VARS_KEY: len(markers),
            self.COLUMN_NAMES_KEY: markers,
            PANEL: panel,
        }


def _groups_of(adata: AnnData, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of the group of each cell, all of which have the same markers, and the sample of each group."""
    if JOINED not in adata.uns or CELL_MODALITIES not in adata.obs:
        return codes, np.arange(codes.max(initial=-1) + 1)
    sets, _ = pd.factorize(adata.obs[CELL_MODALITIES])
    n_sets = int(sets.max(initial=-1)) + 2
    found, groups = np.unique(codes * n_sets + sets + 1, return_inverse=True)
    return groups.astype(np.int64), found // n_sets


def match_markers(markers: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Column of each marker, -1 where there is none: by its name, or by any other name of it.

    Parameters
    ----------
    markers
        Names that the model knows.
    given
        Names of columns.

    Raises
    ------
    ValueError
        If two columns are the same marker of the model.
    """
    if len(markers) == len(given) and np.array_equal(markers, given):
        return np.arange(len(markers))
    keys = pd.Index([_markers.match_key(name) for name in given], dtype=object)
    wanted = pd.Index([_markers.match_key(name) for name in markers], dtype=object)
    twice = keys[keys.duplicated()].intersection(wanted)
    if len(twice):
        names = [str(n) for n, k in zip(given, keys, strict=True) if k == twice[0]]
        marker = next(str(m) for m, k in zip(markers, wanted, strict=True) if k == twice[0])
        msg = (
            f"{len(twice)} markers stand in more than one column, first {marker!r}: {_checks.first(names)}. Drop all but one, or rename what is "
            "another marker."
        )
        raise ValueError(msg)
    return keys.get_indexer(wanted).astype(np.int64)


def _require_once(given: np.ndarray) -> None:
    """Raise if two columns stand for one marker."""
    clashes = _markers.twice(given)
    if clashes:
        marker, names = next(iter(clashes.items()))
        msg = (
            f"{len(clashes)} markers stand in more than one column, first {marker!r}: {_checks.first(names)}. Drop all but one, or rename what is "
            "another marker."
        )
        raise ValueError(msg)


def panel_moments(
    reader: PanelReader, groups: np.ndarray | None = None, n_groups: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each marker over the cells that have it, by group of cells.

    Parameters
    ----------
    reader
        Reader of the cells.
    groups
        Number of the group of each cell, (cells,). Default: all in one.
    n_groups
        Number of groups.

    Returns
    -------
    Mean and standard deviation, each (n_groups, markers), float32. A marker that a group lacks gets the mean of those of the others; one
    without spread the standard deviation 1.
    """
    count, mean, squares = (np.zeros((n_groups, reader.n_features)) for _ in range(3))
    for start, block in reader.chunks():
        group = np.zeros(len(block), dtype=np.int64) if groups is None else groups[start : start + len(block)]
        for g in np.unique(group):
            x = block[group == g].astype(np.float64)
            has = ~np.isnan(x)
            n = has.sum(axis=0)
            m = np.where(has, x, 0).sum(axis=0) / np.maximum(n, 1)
            apart, total = m - mean[g], np.maximum(count[g] + n, 1)
            squares[g] += (np.where(has, x - m, 0) ** 2).sum(axis=0) + apart**2 * (count[g] * n / total)
            mean[g] += apart * (n / total)
            count[g] += n
    sd = np.sqrt(squares / np.maximum(count, 1))
    sd[sd <= 1e-9 * np.abs(mean)] = 1.0
    has = count > 0
    n_having = np.maximum(has.sum(axis=0), 1)
    mean = np.where(has, mean, np.where(has, mean, 0).sum(axis=0) / n_having)
    sd = np.where(has, sd, np.where(has.any(axis=0), np.where(has, sd, 0).sum(axis=0) / n_having, 1.0))
    return mean.astype(np.float32), sd.astype(np.float32)

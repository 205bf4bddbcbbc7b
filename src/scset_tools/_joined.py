"""Cells of several modalities as one AnnData, and results of these cells back to each modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from scset_tools import _checks
from scset_tools._joined_parts import matrix_of, parts_of, require_paired, rows_of, warn_of_left_out
from scset_tools._modalities import is_mudata, modality_of
from scset_tools._panels import PANELS, panels_entry

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

JOINED = "modalities"
"""Entry of ``uns``: the modalities, whether their cells are paired, and the keys that were there when they were joined."""
CELL_MODALITIES = "cell_modalities"
"""Column of ``obs``: the modalities that a cell has, as ``"rna+adt"``. Cells of a sample may differ in it, and so in their features."""
SLOTS = ("obs", "obsm", "var", "varm")


def joined_cells(
    mdata: MuData,
    sample_key: str,
    *,
    modalities: Sequence[str],
    use_rep: Mapping[str, str] | None = None,
    layer: Mapping[str, str] | None = None,
    keep_incomplete: bool = False,
    paired: bool | None = None,
    keys: Sequence[str] = (),
    caller: str,
) -> AnnData:
    """One AnnData of the cells of several modalities; see :func:`scset_tools.pp.join_modalities`.

    Parameters
    ----------
    mdata, sample_key, modalities, use_rep, layer
        As there.
    keep_incomplete
        Whether to keep cells that lack a modality of their sample.
    paired
        Whether cells have several modalities. None: if any cell has.
    keys
        Further columns that are taken from wherever they stand: the ``obs`` of the MuData and of the modalities must agree.
    caller
        What messages call the function.
    """
    import anndata

    parts = parts_of(mdata, modalities, caller=caller)
    for which, given in (("use_rep", use_rep), ("layer", layer)):
        unknown = set(given or ()) - set(parts)
        if unknown:
            msg = f"{which} names {_checks.first(sorted(unknown))}, which are not among the modalities {_checks.first(parts, 20)}."
            raise KeyError(msg)
    cells = pd.Index(mdata.obs_names)
    is_there = pd.DataFrame({name: cells.isin(part.obs_names) for name, part in parts.items()}, index=cells)
    cells, is_there = cells[is_there.any(axis=1)], is_there[is_there.any(axis=1)]
    sample = _column(mdata, parts, cells, sample_key, others="puts {n} cells into another sample than")
    if sample is None:
        raise _no_column(mdata, parts, sample_key)
    _checks.require_no_missing(sample.rename(sample_key), sample_key)
    if sample_key in mdata.obs:
        bare = pd.Index(mdata.obs[sample_key].dropna().astype(str).unique()).difference(sample.astype(str))
        if len(bare):
            msg = (
                f"{len(bare)} of {len(bare) + sample.nunique()} samples have no cell in any of the modalities {_checks.first(parts, 20)} (first: "
                f"{_checks.first(bare)}). Leave them out: mdata[mdata.obs[{sample_key!r}].isin(...)].copy()."
            )
            raise ValueError(msg)
    n_shared = int((is_there.sum(axis=1) > 1).sum())
    if paired is False and n_shared:
        msg = (
            f"paired=False, but {n_shared} of {len(cells)} cells are in several of the modalities {_checks.first(parts, 20)} (first: "
            f"{_checks.first(cells[is_there.sum(axis=1) > 1])}): cells are known by their names. Leave `paired` out, or rename the cells of "
            "a modality."
        )
        raise ValueError(msg)
    is_paired = n_shared > 0 if paired is None else paired
    has = is_there.groupby(sample.to_numpy()).any()
    if is_paired or not keep_incomplete:
        complete = (is_there.to_numpy() == has.loc[sample].to_numpy()).all(axis=1)
        require_paired(sample, is_there, has, keep_incomplete=keep_incomplete)
        if not keep_incomplete:
            warn_of_left_out(sample, complete)
            cells, sample, is_there = cells[complete], sample[complete], is_there[complete]
    values, tables = [], []
    for name, part in parts.items():
        x, features = matrix_of(
            part, name, rep=(use_rep or {}).get(name), layer=(layer or {}).get(name), beside=mdata.obsm.keys()
        )
        values.append(rows_of(x, part.obs_names.get_indexer(cells)))
        # always with the modality: a gene and its protein are two features, however an open panel matches names
        tables.append(pd.DataFrame({"modality": name}, index=[f"{feature}@{name}" for feature in features]))
    var = pd.concat(tables)
    var["modality"] = pd.Categorical(var["modality"], categories=list(parts))
    if all(sparse.issparse(x) for x in values):
        joined: Any = sparse.hstack(values, format="csr", dtype=np.float32)
    else:
        joined = np.concatenate([x.toarray() if sparse.issparse(x) else x for x in values], axis=1)
    adata = anndata.AnnData(joined, obs=_obs(mdata, parts, cells), var=var)
    for key in keys:
        column = _column(mdata, parts, cells, key, others="says otherwise of {n} cells than")
        if column is not None:
            adata.obs[key] = column
    adata.obs[sample_key] = pd.Categorical(sample.to_numpy())
    adata.obs[CELL_MODALITIES] = pd.Categorical(_named_sets(is_there))
    if not keep_incomplete and not has.all(axis=None):
        adata.uns[PANELS] = panels_entry(
            joined, samples=sample.astype(str).to_numpy(), markers=var.index, cells=adata.obs_names
        )
    adata.uns[JOINED] = {
        "names": list(parts),
        "paired": bool(is_paired),
        **{slot: list(getattr(adata, slot).keys()) for slot in SLOTS},
    }
    return adata


def cells_of(
    mdata: MuData,
    sample_key: str,
    modalities: Sequence[str] | str,
    *,
    use_rep: Mapping[str, str] | None = None,
    layer: Mapping[str, str] | None = None,
    keep_incomplete: bool = False,
    caller: str,
) -> AnnData:
    """The cells of one modality with the columns of the MuData, or those of several joined, for functions that read an AnnData.

    Parameters
    ----------
    mdata, sample_key, use_rep, layer, keep_incomplete, caller
        As for :func:`joined_cells`.
    modalities
        Names of one or several.
    """
    names = [modalities] if isinstance(modalities, str) else list(modalities)
    if len(names) != 1:
        how: dict[str, Any] = {"use_rep": use_rep, "layer": layer, "keep_incomplete": keep_incomplete, "caller": caller}
        columns = [str(c) for c in mdata.obs.columns if ":" not in str(c)] if hasattr(mdata, "obs") else []
        own = [str(c) for name in names for c in getattr(mdata, "mod", {}).get(name, mdata).obs.columns]
        keys = [c for c in dict.fromkeys([*columns, *own]) if c != sample_key and ":" not in c]
        return joined_cells(mdata, sample_key, modalities=names, keys=keys, **how)
    part = modality_of(mdata, names[0], caller=caller)
    cells = part.copy()
    for key in map(str, mdata.obs.columns):
        if ":" not in key:
            column = _column(mdata, {names[0]: part}, part.obs_names, key, others="says otherwise of {n} cells than")
            if column is not None:
                cells.obs[key] = column
    return cells


def one_anndata(
    data: AnnData | MuData, sample_key: str | None, modalities: Sequence[str] | str | None, *, caller: str
) -> AnnData:
    """An AnnData as it is; of a MuData the cells of the modalities that are named.

    Parameters
    ----------
    data
        What the caller was given.
    sample_key
        Column with the sample of each cell.
    modalities
        One or several, or None.
    caller
        What messages call the function.

    Raises
    ------
    ValueError
        If modalities are named without a MuData, or the other way round.
    """
    if not is_mudata(data):
        if modalities is not None:
            msg = (
                f"{caller} was given modalities={modalities!r}, which are those of a MuData, and {type(data).__name__}."
            )
            raise ValueError(msg)
        return data
    if modalities is None or sample_key is None:
        missing = "modalities" if modalities is None else "sample_key"
        msg = f"{caller} was given a MuData of {_checks.first(data.mod, 20)} and no {missing}: name one modality, or several, and the column of samples."
        raise ValueError(msg)
    return cells_of(data, sample_key, modalities, caller=caller)


def to_read(
    data: AnnData | MuData,
    sample_key: str | None,
    modalities: Sequence[str] | str | None,
    *,
    use_rep: str | Mapping[str, str] | None = None,
    layer: str | Mapping[str, str] | None = None,
    caller: str,
) -> tuple[AnnData, str | None, str | None]:
    """:func:`one_anndata`, and what is left to read of it: nothing where several modalities went into joined cells.

    Parameters
    ----------
    data, sample_key, modalities, caller
        As for :func:`one_anndata`.
    use_rep, layer
        Entry of ``obsm``, or layer, of all modalities or of each by its name.
    """
    names = [modalities] if isinstance(modalities, str) else list(modalities or ())
    if is_mudata(data) and len(names) > 1 and sample_key is not None:
        how: dict[str, Any] = {"use_rep": _by_name(use_rep, names), "layer": _by_name(layer, names)}
        return cells_of(data, sample_key, names, caller=caller, **how), None, None
    cells = one_anndata(data, sample_key, modalities, caller=caller)
    named = [("use_rep", use_rep), ("layer", layer)]
    wrong = [f"{which}={dict(given)}" for which, given in named if isinstance(given, Mapping) and not names]
    if wrong:
        msg = f"{caller} was given {wrong[0]}, a name for each modality of a MuData, and {type(data).__name__}: give one name."
        raise TypeError(msg)
    rep, of_layer = (given.get(names[0]) if isinstance(given, Mapping) else given for _, given in named)
    return cells, rep, of_layer


def _by_name(given: str | Mapping[str, str] | None, names: Sequence[str]) -> dict[str, str]:
    return dict.fromkeys(names, given) if isinstance(given, str) else dict(given or {})


def give_back(adata: AnnData, mdata: MuData, *, caller: str) -> None:
    """Write what is new in joined cells to the modalities; see :func:`scset_tools.pp.to_modalities`.

    Parameters
    ----------
    adata
        From :func:`joined_cells`.
    mdata
        What it was made of.
    caller
        What messages call the function.
    """
    entry = adata.uns[JOINED]
    for name in map(str, entry["names"]):
        if name not in mdata.mod and caller != "pp.to_modalities":
            continue  # a model may know more modalities than its new data have
        part = modality_of(mdata, name, caller=caller)
        rows = adata.obs_names.get_indexer(part.obs_names)
        for slot in ("obs", "obsm"):
            for key in _new(adata, entry, slot):
                getattr(part, slot)[key] = _taken(getattr(adata, slot)[key], rows, part.obs_names)
        is_own = (adata.var["modality"] == name).to_numpy()
        own = adata.var_names[is_own]
        bare = pd.Index([feature.removesuffix(f"@{name}") for feature in own])
        columns = bare.get_indexer(part.var_names)
        if (columns >= 0).any():  # components of a representation are no features of the modality
            where = np.where(columns >= 0, np.flatnonzero(is_own)[columns], -1)
            for slot in ("var", "varm"):
                for key in _new(adata, entry, slot):
                    getattr(part, slot)[key] = _taken(getattr(adata, slot)[key], where, part.var_names)


def _named_sets(is_there: pd.DataFrame) -> np.ndarray:
    """The modalities of each cell by name, joined by a plus."""
    rows, which = np.unique(is_there.to_numpy(), axis=0, return_inverse=True)
    names = np.array(["+".join(is_there.columns[row]) for row in rows], dtype=object)
    return names[which.ravel()]


def _new(adata: AnnData, entry: Mapping[str, Any], slot: str) -> list[str]:
    known = set(map(str, entry[slot]))
    return [key for key in getattr(adata, slot).keys() if key not in known]


def _taken(values: Any, rows: np.ndarray, index: pd.Index) -> Any:
    """Rows of a column, table or array by position, missing where the position is -1."""
    if isinstance(values, (pd.Series, pd.DataFrame)):
        return values.reset_index(drop=True).reindex(pd.Index(np.where(rows < 0, len(values), rows))).set_axis(index)
    out = np.asarray(values)[rows]
    if (rows < 0).any():
        out = out.astype(np.result_type(out.dtype, np.float32))
        out[rows < 0] = np.nan
    return out


def _column(mdata: MuData, parts: Mapping[str, AnnData], cells: pd.Index, key: str, *, others: str) -> pd.Series | None:
    """A column of cells, of whoever has it; None if nobody does. All who have it must say the same."""
    found, first = pd.Series(pd.NA, index=cells, dtype=object), None
    for where, table in _tables(mdata, parts).items():
        if key not in table:
            continue
        own = table[key].reindex(cells)
        first = own.dtype if first is None else first
        own = own.astype(object)
        differs = own.notna() & found.notna() & (own.astype(str) != found.astype(str))
        if differs.any():
            msg = (
                f"{where}[{key!r}] {others.format(n=int(differs.sum()))} the MuData or a modality before it does, "
                f"first: {_checks.first(cells[differs.to_numpy()])}. Correct the column, or drop it from one of them."
            )
            raise ValueError(msg)
        found = found.where(found.notna(), own)
    if first is None or (key not in mdata.obs and found.isna().all()):
        return None
    if isinstance(first, pd.CategoricalDtype) and found.dropna().isin(first.categories).all():
        return found.where(found.notna(), None).astype(first)  # with the order of its levels
    return found.where(found.notna(), np.nan).infer_objects()


def _tables(mdata: MuData, parts: Mapping[str, AnnData]) -> dict[str, pd.DataFrame]:
    return {"mdata.obs": mdata.obs, **{f"mdata[{name!r}].obs": part.obs for name, part in parts.items()}}


def _no_column(mdata: MuData, parts: Mapping[str, AnnData], key: str) -> KeyError:
    columns = sorted({str(c) for table in _tables(mdata, parts).values() for c in table if ":" not in str(c)})
    return KeyError(
        f"{key!r} is a column of neither mdata.obs nor the obs of a modality. Columns: {_checks.first(columns, 20)}."
    )


def _obs(mdata: MuData, parts: Mapping[str, AnnData], cells: pd.Index) -> pd.DataFrame:
    obs = mdata.obs.loc[cells].copy()
    for name, part in parts.items():
        own = part.obs.reindex(cells)
        for column in own:
            key = f"{name}:{column}"
            if key not in obs and column not in obs:
                obs[key] = own[column]
    return obs

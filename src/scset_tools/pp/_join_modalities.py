"""Several modalities of the same cells as one AnnData, and results back to each modality."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from scset_tools import _checks
from scset_tools._modalities import modality_of
from scset_tools._panels import PANELS, panels_entry

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

JOINED = "modalities"
"""Entry of ``uns``: the modalities, and the keys that were there when they were joined."""
SLOTS = ("obs", "obsm", "var", "varm")


def join_modalities(
    mdata: MuData,
    sample_key: str,
    *,
    modalities: Sequence[str] | None = None,
    use_rep: Mapping[str, str] | None = None,
    layer: Mapping[str, str] | None = None,
) -> AnnData:
    """Join modalities that were measured on the same cells: a cell has the features of all of them.

    Every model, profile and function that takes cells takes the result. A sample that lacks a modality altogether has NaN
    there, which :class:`~scset_tools.model.MAESTRO` and :class:`~scset_tools.model.ScSet` leave out with
    ``setup_anndata(..., panel="open")``: it is neither zero nor imputed.

    Models standardise each feature, so a modality weighs by the number of its features. Reduce one of thousands first:
    ``sc.pp.pca(mdata["rna"], n_comps=20)`` and ``use_rep={"rna": "X_pca"}``.

    Parameters
    ----------
    mdata
        Modalities over cells (``axis=0``).
    sample_key
        Column with the sample of each cell, of ``mdata.obs`` or of the ``obs`` of every modality.
    modalities
        Which to join, two at least. Default: all.
    use_rep, layer
        Entry of ``obsm``, or layer, of a modality to take instead of its ``X``.

    Returns
    -------
    AnnData of the cells that every modality of their sample has, in the order of ``mdata``; ``X`` is float32, sparse where all modalities
    are and no sample lacks one. Features are called ``"CD4@rna"``, and ``var["modality"]`` says where they are from. ``obs`` holds the columns of ``mdata.obs``, and those of a modality as ``"rna:n_counts"``. :func:`to_modalities` writes
    results back.

    Raises
    ------
    TypeError
        If given anything but a MuData.
    KeyError
        If a modality, ``sample_key``, an entry of ``obsm`` or a layer is missing.
    ValueError
        If fewer than two modalities are asked for, modalities of a sample have no cell in common (they are not paired: train a model on
        each and join the samples with :func:`scset_tools.tl.join_samples`), or a cell is in different samples.

    Warns
    -----
    UserWarning
        If cells are left out that a modality of their sample lacks.

    Examples
    --------
    >>> import mudata, scset_tools as sst
    >>> cells = sst.datasets.perturbation_cohort(n_samples=4, n_cells=30)
    >>> mdata = mudata.MuData({"rna": cells[:, :8].copy(), "adt": cells[:, 8:].copy()})
    >>> sst.pp.join_modalities(mdata, "sample").var["modality"].value_counts().to_dict()
    {'rna': 8, 'adt': 6}
    """
    import anndata

    names = list(mdata.mod) if modalities is None and hasattr(mdata, "mod") else list(modalities or ())
    parts = {name: modality_of(mdata, name, caller="pp.join_modalities") for name in names}
    if len(parts) < 2:
        modality_of(mdata, next(iter(parts), ""), caller="pp.join_modalities")  # no MuData, or no such modality
        msg = f"pp.join_modalities needs two modalities at least, but was given {_checks.first(names)}."
        raise ValueError(msg)
    for which, given in (("use_rep", use_rep), ("layer", layer)):
        unknown = set(given or ()) - set(parts)
        if unknown:
            msg = f"{which} names {_checks.first(sorted(unknown))}, which are not among the modalities {_checks.first(parts, 20)}."
            raise KeyError(msg)
    cells = pd.Index(mdata.obs_names)
    is_there = pd.DataFrame({name: cells.isin(part.obs_names) for name, part in parts.items()}, index=cells)
    cells, is_there = cells[is_there.any(axis=1)], is_there[is_there.any(axis=1)]
    sample = _sample_of(mdata, parts, cells, sample_key)
    has = is_there.groupby(sample.to_numpy()).any()
    complete = (is_there.to_numpy() == has.loc[sample].to_numpy()).all(axis=1)
    _require_paired(sample, complete, has)
    cells, sample = cells[complete], sample[complete]
    values, tables = [], []
    for name, part in parts.items():
        x, features = _matrix(part, name, (use_rep or {}).get(name), (layer or {}).get(name))
        values.append(_rows(x, part.obs_names.get_indexer(cells)))
        # always with the modality: a gene and its protein are two features, however an open panel matches names
        tables.append(pd.DataFrame({"modality": name}, index=[f"{feature}@{name}" for feature in features]))
    var = pd.concat(tables)
    var["modality"] = pd.Categorical(var["modality"], categories=list(parts))
    if all(sparse.issparse(x) for x in values):
        joined: Any = sparse.hstack(values, format="csr", dtype=np.float32)
    else:
        joined = np.concatenate([x.toarray() if sparse.issparse(x) else x for x in values], axis=1)
    adata = anndata.AnnData(joined, obs=_obs(mdata, parts, cells), var=var)
    adata.obs[sample_key] = pd.Categorical(sample.to_numpy())
    if not has.all(axis=None):
        adata.uns[PANELS] = panels_entry(
            joined, samples=sample.astype(str).to_numpy(), markers=var.index, cells=adata.obs_names
        )
    adata.uns[JOINED] = {"names": list(parts), **{slot: list(getattr(adata, slot).keys()) for slot in SLOTS}}
    return adata


def to_modalities(adata: AnnData, mdata: MuData) -> None:
    """Write what models and functions wrote to joined cells back to the modalities.

    New columns of ``obs`` and entries of ``obsm`` go to the cells of every modality, NaN (or missing) for cells that were left out; new columns
    of ``var`` and entries of ``varm`` to the features they belong to, where the joined features are those of the modality's ``X``.

    Parameters
    ----------
    adata
        From :func:`join_modalities`.
    mdata
        The MuData it was made of.

    Raises
    ------
    ValueError
        If ``adata`` was not made by :func:`join_modalities`, or has features of a modality that ``mdata`` lacks.
    """
    if JOINED not in adata.uns:
        msg = "pp.to_modalities takes an AnnData from pp.join_modalities: this one has no uns['modalities']."
        raise ValueError(msg)
    entry = adata.uns[JOINED]
    for name in map(str, entry["names"]):
        part = modality_of(mdata, name, caller="pp.to_modalities")
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


def _sample_of(mdata: MuData, parts: Mapping[str, AnnData], cells: pd.Index, key: str) -> pd.Series:
    """The sample of each cell, which must be one, whoever says it."""
    found = pd.Series(pd.NA, index=cells, dtype=object)
    sources = {"mdata.obs": mdata.obs, **{f"mdata[{name!r}].obs": part.obs for name, part in parts.items()}}
    for where, table in sources.items():
        if key not in table:
            continue
        own = table[key].astype(object).reindex(cells)
        differs = own.notna() & found.notna() & (own.astype(str) != found.astype(str))
        if differs.any():
            msg = (
                f"{where}[{key!r}] puts {int(differs.sum())} cells into another sample than the MuData or a modality before it does, "
                f"first: {_checks.first(cells[differs.to_numpy()])}. Correct the column, or drop it from one of them."
            )
            raise ValueError(msg)
        found = found.where(found.notna(), own)
    if found.isna().all():
        columns = sorted({str(c) for table in sources.values() for c in table})
        msg = f"{key!r} is a column of neither mdata.obs nor the obs of a modality. Columns: {_checks.first(columns, 20)}."
        raise KeyError(msg)
    _checks.require_no_missing(found.rename(key), key)
    return found


def _require_paired(sample: pd.Series, complete: np.ndarray, has: pd.DataFrame) -> None:
    """Raise where modalities of a sample share no cell; say how many cells are left out."""
    left = pd.Series(complete, index=sample.to_numpy()).groupby(level=0).sum()
    unpaired = left.index[left == 0]
    if len(unpaired):
        msg = (
            f"In {len(unpaired)} of {len(left)} samples the modalities {_checks.first(has.columns, 20)} have no cell in common (first: "
            f"{_checks.first(unpaired)}): they are not paired, or their cells have other names. Give paired cells one name; of unpaired "
            "modalities embed each on its own and join the samples: tl.join_samples({'rna': ..., 'adt': ...})."
        )
        raise ValueError(msg)
    n_dropped = int((~complete).sum())
    if n_dropped:
        where = sample[~complete].astype(str)
        warnings.warn(
            f"{n_dropped} of {len(sample)} cells are left out, since a modality of their sample lacks them "
            f"(in {where.nunique()} samples, first: {_checks.first(dict.fromkeys(where), 3)}).",
            UserWarning,
            stacklevel=3,
        )


def _matrix(part: AnnData, name: str, rep: str | None, layer: str | None) -> tuple[Any, pd.Index]:
    if rep is not None and layer is not None:
        msg = f"use_rep and layer are both given for the modality {name!r}: give one of them."
        raise ValueError(msg)
    if rep is None:
        x = part.X if layer is None else _checks.require_layer(part, layer)
        if not part.var_names.is_unique:
            twice = part.var_names[part.var_names.duplicated()].unique()
            msg = f"{len(twice)} features of the modality {name!r} are there twice, first: {_checks.first(twice)}. Call mdata[{name!r}].var_names_make_unique()."
            raise ValueError(msg)
        return x, pd.Index(part.var_names.astype(str))
    values = _checks.require_obsm(part, rep)
    features = values.columns.astype(str) if isinstance(values, pd.DataFrame) else map(str, range(values.shape[1]))
    return _checks.dense(values, f"obsm[{rep!r}] of the modality {name!r}"), pd.Index(list(features))


def _rows(x: Any, rows: np.ndarray) -> Any:
    """Rows of a matrix by position, NaN where a sample lacks the modality."""
    if (rows >= 0).all():
        taken = x[rows]
        return taken.astype(np.float32) if sparse.issparse(taken) else np.asarray(taken, dtype=np.float32)
    out = np.full((len(rows), x.shape[1]), np.nan, dtype=np.float32)
    taken = x[rows[rows >= 0]]
    out[rows >= 0] = taken.toarray() if sparse.issparse(taken) else taken
    return out


def _obs(mdata: MuData, parts: Mapping[str, AnnData], cells: pd.Index) -> pd.DataFrame:
    obs = mdata.obs.loc[cells].copy()
    for name, part in parts.items():
        own = part.obs.reindex(cells)
        for column in own:
            key = f"{name}:{column}"
            if key not in obs and column not in obs:
                obs[key] = own[column]
    return obs

"""The modalities that are to be joined: what they must be, and what is read of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from scset_tools import _checks
from scset_tools._modalities import modality_of

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

MARKS = "+@"
"""Characters with which cells and features are told apart by their modalities."""


def parts_of(mdata: MuData, modalities: Sequence[str], *, caller: str) -> dict[str, AnnData]:
    """The modalities by name.

    Parameters
    ----------
    mdata, modalities
        What is joined.
    caller
        What messages call the function.

    Raises
    ------
    ValueError
        If a modality is named twice, has no cells, cells of one name, or cells that ``mdata.obs`` does not know; or for a name that would be
        mistaken for several.
    """
    parts: dict[str, AnnData] = {}
    for name in modalities:
        part = modality_of(mdata, name, caller=caller)
        if name in parts:
            msg = f"{caller} was given the modality {name!r} twice: {_checks.first(modalities)}."
            raise ValueError(msg)
        if not name or any(mark in name for mark in MARKS):
            msg = f"The name of the modality {name!r} is empty or holds one of {_checks.first(MARKS)}, with which joined names are written: rename it, MuData({{'new name': mdata[{name!r}], ...}})."
            raise ValueError(msg)
        if part.n_obs == 0:
            msg = f"The modality {name!r} has no cells: leave it out of `modalities`."
            raise ValueError(msg)
        twice = part.obs_names[part.obs_names.duplicated()].unique()
        if len(twice):
            msg = f"{len(twice)} names of cells are in the modality {name!r} more than once, first: {_checks.first(twice)}. Call mdata[{name!r}].obs_names_make_unique() and mdata.update()."
            raise ValueError(msg)
        unknown = part.obs_names.difference(mdata.obs_names)
        if len(unknown):
            msg = f"mdata.obs does not know {len(unknown)} of {part.n_obs} cells of mdata[{name!r}], first: {_checks.first(unknown)}. Bring it up to date with mdata.update()."
            raise ValueError(msg)
        parts[name] = part
    return parts


def in_memory(x: Any) -> Any:
    """Values of an open file, or in pieces, as an array; what lies in memory as it is."""
    if hasattr(x, "to_memory"):  # sparse in a file
        return x.to_memory()
    if hasattr(x, "compute"):
        return x.compute()
    return x if sparse.issparse(x) else _checks.filled(x) if isinstance(x, np.ndarray) else np.asarray(x)


def matrix_of(
    part: AnnData, name: str, *, rep: str | None, layer: str | None, beside: Iterable[str] = ()
) -> tuple[Any, pd.Index]:
    """What is read of a modality, and the names of its features.

    Parameters
    ----------
    part, name
        The modality.
    rep, layer
        Entry of ``obsm``, or layer, to read instead of ``X``.
    beside
        Keys of ``mdata.obsm``, which is not read.
    """
    if rep is not None and layer is not None:
        msg = f"use_rep and layer are both given for the modality {name!r}: give one of them."
        raise ValueError(msg)
    if rep is None:
        x = part.X if layer is None else _checks.require_layer(part, layer)
        if x is None:
            msg = (
                f"The modality {name!r} has no X. Name what to read of it: use_rep={{{name!r}: ...}}, keys {_checks.first(part.obsm.keys(), 20)}; "
                f"or layer={{{name!r}: ...}}, layers {_checks.first(part.layers.keys(), 20)}."
            )
            raise ValueError(msg)
        if x.shape[1] == 0:
            msg = f"The modality {name!r} has no features (shape {part.shape}): leave it out."
            raise ValueError(msg)
        if not part.var_names.is_unique:
            twice = part.var_names[part.var_names.duplicated()].unique()
            msg = f"{len(twice)} features of the modality {name!r} are there twice, first: {_checks.first(twice)}. Call mdata[{name!r}].var_names_make_unique()."
            raise ValueError(msg)
        return x, pd.Index(part.var_names.astype(str))
    if rep not in part.obsm and rep in beside:
        msg = (
            f"{rep!r} is in mdata.obsm, of all cells, and not in mdata[{name!r}].obsm {_checks.first(part.obsm.keys(), 20)}. A representation of several "
            "modalities together is no modality: give it to a model as one, setup_anndata(AnnData(mdata.obsm[...], obs=mdata.obs), sample_key)."
        )
        raise KeyError(msg)
    values = _checks.require_obsm(part, rep)
    features = values.columns.astype(str) if isinstance(values, pd.DataFrame) else map(str, range(values.shape[1]))
    return _checks.dense(values, f"obsm[{rep!r}] of the modality {name!r}"), pd.Index(list(features))


def rows_of(x: Any, rows: np.ndarray) -> Any:
    """Rows of a matrix by position, NaN where a sample lacks the modality; an open file is read in its own order.

    Parameters
    ----------
    x
        In memory, in a file, or in pieces.
    rows
        Position of each row, -1 where there is none.
    """
    x = in_memory(x)
    if (rows >= 0).all():
        taken = x[rows]
        return taken.astype(np.float32) if sparse.issparse(taken) else np.asarray(taken, dtype=np.float32)
    out = np.full((len(rows), x.shape[1]), np.nan, dtype=np.float32)
    taken = x[rows[rows >= 0]]
    out[rows >= 0] = taken.toarray() if sparse.issparse(taken) else taken
    return out


def require_paired(sample: pd.Series, is_there: pd.DataFrame, has: pd.DataFrame, *, keep_incomplete: bool) -> None:
    """Raise where modalities of a sample share no cell.

    Parameters
    ----------
    sample
        Sample of each cell.
    is_there, has
        Which modalities each cell, and each sample, has.
    keep_incomplete
        Whether cells may lack a modality of their sample.
    """
    wanted = (
        is_there.sum(axis=1) > 1 if keep_incomplete else is_there.sum(axis=1) == has.loc[sample].sum(axis=1).to_numpy()
    )
    left = pd.Series(wanted.to_numpy(), index=sample.to_numpy()).groupby(level=0).sum()
    unpaired = left.index[(left == 0) & (has.sum(axis=1).loc[left.index] > 1)]
    if len(unpaired):
        way_out = (
            "Give paired cells one name; of unpaired modalities embed each on its own and join the samples: "
            "tl.join_samples({'rna': ..., 'adt': ...})."
        )
        if keep_incomplete:
            way_out = "Give paired cells one name; if no cell has several modalities, pass paired=False."
        msg = (
            f"In {len(unpaired)} of {len(left)} samples the modalities {_checks.first(has.columns, 20)} have no cell in common (first: "
            f"{_checks.first(unpaired)}): they are not paired, or their cells have other names. {way_out}"
        )
        raise ValueError(msg)


def warn_of_left_out(sample: pd.Series, complete: np.ndarray) -> None:
    """Say how many cells are left out.

    Parameters
    ----------
    sample
        Sample of each cell.
    complete
        Whether it is kept.
    """
    n_dropped = int((~complete).sum())
    if n_dropped:
        where = sample[~complete].astype(str)
        warnings.warn(
            f"{n_dropped} of {len(sample)} cells are left out, since a modality of their sample lacks them "
            f"(in {where.nunique()} samples, first: {_checks.first(dict.fromkeys(where), 3)}).",
            UserWarning,
            stacklevel=4,
        )

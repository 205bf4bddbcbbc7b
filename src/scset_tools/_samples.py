"""What a sample is called, which cells are its own, and the one writer of sample-level AnnData.

Samples are known by text, whatever their column holds: numbers, dates, categories and the string types of any pandas give
the same names, in the same order. So a model, a profile and a table of samples always agree on who is who.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.core.dtypes.dtypes import BaseMaskedDtype  # not exported

from scset_tools import _checks, _keys
from scset_tools._labels import name_of

if TYPE_CHECKING:
    from anndata import AnnData


MANY = 20
"""Fewer ids than this are taken whatever they are."""


def as_name(value: object) -> str:
    """An id as text: what it says when printed, whole numbers without a point, bytes (as some files hold) as text."""
    return value.decode("utf-8") if isinstance(value, bytes) else name_of(value)


def as_text(values: Any) -> np.ndarray:
    """Names of features or cells as an array of str, to compare names of any string type."""
    return np.asarray([as_name(v) for v in values], dtype=object)


def sample_codes(column: pd.Series, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Number of the sample of each cell, and the names of the samples.

    Parameters
    ----------
    column
        The sample of each cell, of any type.
    key
        How messages name the column.

    Returns
    -------
    Codes (cells,), int64, and names (samples,), str, sorted as text; categories without cells are left out.

    Raises
    ------
    ValueError
        If a cell has no sample, two ids are equal as text alone or as values alone (``1`` and ``"1"``, ``1`` and ``True``), or most cells have a
        floating-point number of their own.
    TypeError
        If the column holds what cannot be an id, such as lists.
    """
    _checks.require_no_missing(column, key)
    codes, names = text_codes(column, key)
    if len(names) > max(len(codes) / 2, MANY) and pd.api.types.is_float_dtype(column.dtype):
        msg = (
            f"adata.obs[{key!r}] holds {len(names)} different numbers in {len(codes)} cells, such as {column.iloc[0]}: they are measurements, not "
            f"names of samples. Name the column of samples; if these are names, make them text: adata.obs[{key!r}].astype(str)."
        )
        raise ValueError(msg)
    return codes, names


def sample_of_cells(adata: AnnData, sample_key: str) -> np.ndarray:
    """Name of the sample of each cell, (cells,), str."""
    codes, names = sample_codes(_checks.require_obs(adata, sample_key), sample_key)
    return names[codes]


def text_codes(column: pd.Series, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Number of the name of each cell, -1 where there is none, and the names: as :func:`sample_codes`, of any column."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        raw = column.cat.codes.to_numpy().astype(np.int64)
        is_used = np.bincount(raw[raw >= 0], minlength=len(column.cat.categories)) > 0
        values = np.asarray(column.cat.categories, dtype=object)[is_used]
        raw = np.append(np.cumsum(is_used) - 1, -1)[raw]
    else:
        raw, values = _factorize(column, key)
    names, position = np.unique(np.asarray([as_name(v) for v in values], dtype=object), return_inverse=True)
    if len(names) < len(values):
        same = values[np.isin(position, np.flatnonzero(np.bincount(position) > 1))]
        msg = (
            f"Values of adata.obs[{key!r}] differ in type only, not as text: {[*same[: 2 * _checks.SHOW]]}. "
            f"Name them by text: adata.obs[{key!r}] = adata.obs[{key!r}].astype(str), if they are the same."
        )
        raise ValueError(msg)
    return np.append(position, -1).astype(np.int64)[raw], names


def _factorize(column: pd.Series, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Number of the id of each cell, and the distinct ids."""
    try:
        raw, values = pd.factorize(column)
    except TypeError as error:
        bad = next(v for v in column if not _is_hashable(v))
        msg = f"adata.obs[{key!r}] holds {type(bad).__name__} values (first: {bad!r}), which name nothing."
        raise TypeError(msg) from error
    if column.dtype == object and pd.api.types.infer_dtype(column, skipna=False).startswith("mixed"):
        pairs = pd.DataFrame({"value": raw, "text": [as_name(v) for v in column]}).drop_duplicates()
        equal = pairs["text"][pairs["value"].duplicated(keep=False)]
        if len(equal):  # Python takes 1, 1.0 and True for one value
            msg = (
                f"adata.obs[{key!r}] holds ids that are equal as numbers and differ as text: {_checks.first(equal)}. "
                f"Name them by text, if they are different ones: adata.obs[{key!r}].map(str)."
            )
            raise ValueError(msg)
    return raw, pd.Index(values, dtype=object, tupleize_cols=False).to_numpy()


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def sample_obs(adata: AnnData, sample_key: str) -> pd.DataFrame:
    """One row per sample: the columns of ``adata.obs`` that are constant within samples, and ``n_cells``.

    Columns of lists or other things that cannot be compared are left out, and so are scvi-tools' own. Values that no h5ad
    file can hold (dates, numbers mixed with text) are given as text.

    Parameters
    ----------
    adata
        Cell-level AnnData.
    sample_key
        Column of ``adata.obs`` with the sample of each cell. Must not be missing.

    Returns
    -------
    DataFrame indexed by sample name (sorted; strings), without unused categories.
    """
    obs = _checks.obs_frame(adata)
    codes, names = sample_codes(_checks.require_obs(adata, sample_key), sample_key)
    first_cell = np.unique(codes, return_index=True)[1]
    labels = list(
        obs.columns
    )  # mostly text; a number stays one, which no file holds, the cells' own no more than theirs
    twice = {c for c in labels if labels.count(c) > 1} if len(set(labels)) < len(labels) else set()
    if twice:
        warnings.warn(
            f"adata.obs has several columns of one name: {_checks.first(sorted(twice, key=str))}. They are left out of the samples.",
            stacklevel=2,
        )
    kept = {}
    for position, label in enumerate(labels):
        if str(label).startswith("_scvi") or label == sample_key or label in twice:
            continue
        column = obs.iloc[:, position]
        try:
            is_constant = _checks.is_constant_within_sample(column, codes)
        except TypeError:  # lists, dicts, arrays: nobody's label
            continue
        if is_constant:
            kept[label] = storable(column.iloc[first_cell])
    out = pd.DataFrame(kept, index=obs.index[first_cell])
    out.index = pd.Index(names, dtype=object, name=sample_key)
    n_cells = np.bincount(codes, minlength=len(names))
    if _keys.N_CELLS in out and not np.array_equal(out[_keys.N_CELLS].to_numpy(), n_cells):
        warnings.warn(
            f"adata.obs has a column {_keys.N_CELLS!r} of its own that is not the number of cells here: the samples have it as "
            f"{_keys.OTHER_N_CELLS!r}, and {_keys.N_CELLS!r} is the number of cells.",
            stacklevel=2,
        )
        out = out.rename(columns={_keys.N_CELLS: _keys.OTHER_N_CELLS})
    out[_keys.N_CELLS] = n_cells
    return out


def storable(column: pd.Series) -> pd.Series:
    """A column in a type that h5ad can hold: numbers, booleans, text or categories; what is none of these as text."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.cat.remove_unused_categories()
        categories = column.cat.categories
        is_number = isinstance(categories.dtype, np.dtype) and categories.dtype.kind in "biuf"
        return column if is_number else column.cat.rename_categories(_distinct_text(categories))
    if isinstance(column.dtype, BaseMaskedDtype):  # anndata writes no nullable floats
        return column.astype(np.float64) if column.dtype.kind == "f" else column
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return column if column.dtype.itemsize <= 8 else column.astype(np.float64)
    values, has_missing = column.astype(object), bool(column.isna().any())
    kind = pd.api.types.infer_dtype(values, skipna=True)
    if kind == "boolean":
        return values.astype("boolean" if has_missing else bool)
    if kind == "integer":
        return values.astype("Int64" if has_missing else np.int64)
    if kind in ("empty", "floating", "mixed-integer-float", "decimal"):
        return values.where(values.notna(), np.nan).astype(np.float64)
    values = values.map(as_name, na_action="ignore")
    return values.astype("category") if has_missing else values


def _distinct_text(categories: pd.Index) -> list[object]:
    """Categories as text; where two of them are the same text, with their type."""
    text = [as_name(c) for c in categories]
    return [t if text.count(t) == 1 else f"{t} ({type(c).__name__})" for t, c in zip(text, categories, strict=True)]


def sample_adata(
    x: np.ndarray,
    adata: AnnData,
    *,
    sample_key: str,
    name: str,
    samples: Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    provenance: Mapping[str, Any],
) -> AnnData:
    """A sample-level AnnData: one row per sample, the representation as ``X`` and ``obsm["X_<name>"]``.

    Parameters
    ----------
    x
        Representation, (samples, features).
    adata
        The cells; columns of ``obs`` that are constant within samples go along.
    sample_key
        Column of ``adata.obs`` with the sample of each cell.
    name
        Prefix of what is written.
    samples
        Names of the rows. Default: all samples, sorted.
    features
        Names of the columns. Default: made from ``name``.
    provenance
        Written to ``uns[name]`` in types that h5ad can hold.
    """
    from anndata import AnnData
    from anndata.utils import make_index_unique

    from scset_tools import __version__

    obs = sample_obs(adata, sample_key)
    if samples is not None:
        obs = obs.loc[list(samples)]
    columns_of_obs = list(obs.columns)
    obs = obs.rename(columns=lambda c: _keys.key(c) if isinstance(c, str) else c).rename_axis(
        index=_keys.key(sample_key)
    )
    columns = pd.Index(_keys.features(name, x.shape[1]) if features is None else as_text(features), dtype=object)
    var = pd.DataFrame(index=columns if columns.is_unique else make_index_unique(columns))
    x = np.asarray(x, dtype=np.float32)
    out = AnnData(x, obs=obs, var=var)
    out.obsm[_keys.representation(name)] = x.copy()
    _keys.remember(out.uns, [*filter(lambda c: isinstance(c, str), columns_of_obs), sample_key, name])
    out.uns[_keys.key(name)] = writable(provenance)
    out.uns[_keys.SAMPLE_LEVEL] = {"sample_key": sample_key, "version": __version__}
    return out


def writable(value: Any) -> Any:
    """The value in types that h5ad can hold: without None, tuples as lists, everything else as text."""
    if isinstance(value, Mapping):
        return _keys.nested({k: writable(v) for k, v in value.items() if v is not None})
    if isinstance(value, np.random.Generator):
        return type(value.bit_generator).__name__
    if isinstance(value, list | tuple | set | pd.Index):
        return np.asarray([v if isinstance(v, int | float | np.number) else str(v) for v in value])
    if isinstance(value, str | bool | int | float | np.ndarray | np.generic):
        return value
    return str(value)

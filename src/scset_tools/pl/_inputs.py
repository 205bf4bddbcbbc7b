"""What every plot does with its input: find the table, the representation, the categories; say what is missing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.patches import Patch

from scset_tools import _checks, _labels
from scset_tools.pl._palette import is_asked, n_distinct
from scset_tools.pl._style import MARKERS, MISSING, MISSING_LABEL, OKABE_ITO, colors_for, point_handle, turns

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.lines import Line2D


def table_of(result: object, columns: Iterable[str], *, caller: str) -> pd.DataFrame:
    """The DataFrame itself or the ``summary()`` of a result, with the columns that the plot needs."""
    table = result
    if not isinstance(table, pd.DataFrame):
        summary = getattr(result, "summary", None)
        table = summary() if callable(summary) else None
    if not isinstance(table, pd.DataFrame):
        msg = f"{caller} takes a DataFrame or a result with a summary(), but was given {type(result).__name__}."
        raise TypeError(msg)
    # the summary of a single probe is indexed by metric: an index with a name counts as a column
    table = table.reset_index() if any(name is not None for name in table.index.names) else table
    absent = [column for column in columns if column not in table]
    if absent:
        msg = f"{caller} needs the columns {_checks.first(absent)}. Columns: {_checks.first(list(table.columns), 20)}."
        raise KeyError(msg)
    if not len(table):
        msg = f"{caller} was given a table without rows."
        raise ValueError(msg)
    return table


def result_of(result: object, needed: Iterable[str], *, caller: str, maker: str) -> Any:
    """The result itself, which has the attributes that the plot needs, whoever made it."""
    if not all(hasattr(result, name) for name in needed):
        msg = f"{caller} takes the result of {maker}, but was given {type(result).__name__}."
        raise TypeError(msg)
    return result


def two_axes(axes: np.ndarray) -> np.ndarray:
    """The axes in a row; a ValueError if there are not two."""
    axes = np.ravel(np.asarray(axes, dtype=object))
    if len(axes) != 2:
        msg = f"Two axes are needed, but {len(axes)} were given."
        raise ValueError(msg)
    return axes


def representation(samples: AnnData, use_rep: str | None, *, caller: str) -> np.ndarray:
    """``samples.X`` or ``samples.obsm[use_rep]`` as a dense matrix of finite numbers."""
    _checks.require_anndata(samples, caller=caller)
    values = samples.X if use_rep is None else _checks.require_obsm(samples, use_rep)
    name = "samples.X" if use_rep is None else f"samples.obsm[{use_rep!r}]"
    if values is None or not samples.n_obs:
        msg = f"{name} is empty (samples: {samples.n_obs}). Name a key of samples.obsm with use_rep."
        raise ValueError(msg)
    matrix = _checks.dense(values, name)
    bad = np.asarray(~np.isfinite(matrix).all(axis=1))
    if bad.any():
        culprits = _checks.first(samples.obs_names[bad].tolist())
        msg = f"{name} has values that are not finite in {bad.sum()} of {len(bad)} rows (first: {culprits}). Drop them."
        raise ValueError(msg)
    return matrix


def column(adata: AnnData, key: str, *, caller: str) -> pd.Series:
    """A column of ``obs``."""
    _checks.require_anndata(adata, caller=caller)
    return _checks.require_obs(adata, key)


def values_of(adata: AnnData, key: str, *, caller: str) -> pd.Series:
    """A column of ``obs``, or the values in ``X`` of the feature of that name."""
    _checks.require_anndata(adata, caller=caller)
    if key in adata.obs or key not in adata.var_names:
        if key not in adata.obs and adata.n_vars:
            features = _checks.first(adata.var_names.tolist())
            msg = f"{key!r} is not a column of adata.obs (columns: {_checks.first(list(adata.obs.columns), 20)}), nor in adata.var_names ({features})."
            raise KeyError(msg)
        return _checks.require_obs(adata, key)
    place = np.flatnonzero(adata.var_names == key)
    if len(place) > 1:
        msg = f"{key!r} is the name of {len(place)} features: make them unique (adata.var_names_make_unique())."
        raise ValueError(msg)
    found = adata.X[:, place]
    dense = found.toarray() if hasattr(found, "toarray") else np.asarray(found)
    return pd.Series(dense.ravel().astype(float), index=adata.obs_names, name=key)


def is_number(values: pd.Series) -> bool:
    """Whether a column is drawn on a scale; booleans and categories are not."""
    return _labels.is_number(values)


def category_names(values: pd.Series) -> list[str]:
    """All categories of a column, in its order if it is categorical, otherwise sorted; present or not."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return [_labels.name_of(v) for v in values.cat.categories]
    distinct = list(values.dropna().unique())
    names = [_labels.name_of(v) for v in distinct]
    _labels.require_distinct(distinct, names, values)
    return natural_order(names)


def natural_order(names: Iterable[str]) -> list[str]:
    """Names sorted with the numbers in them as numbers: P1, P2, P10."""
    return sorted(names, key=lambda name: [(not p.isdecimal(), int(p) if p.isdecimal() else p) for p in _parts(name)])


def reading_order(names: Sequence[str]) -> list[str]:
    """The order of a legend: that of the user, but P2 before P10 where names are merely sorted as text."""
    return natural_order(names) if list(names) == sorted(names) else list(names)


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"(\d+)", name) if part]


@dataclass(frozen=True)
class Categories:
    """Colour and shape of each category, the same in every subset that keeps the categories of the column."""

    names: list[str]
    colors: list[str]
    markers: list[str]
    labels: np.ndarray
    """Category of each row, ``MISSING_LABEL`` where missing."""

    def present(self) -> list[tuple[str, str, str, np.ndarray]]:
        """Name, colour, shape and rows of the categories that occur; missing values first, beneath all others."""
        out = []
        if (self.labels == MISSING_LABEL).any():
            out.append((MISSING_LABEL, MISSING, "o", self.labels == MISSING_LABEL))
        for name, color, marker in zip(self.names, self.colors, self.markers, strict=True):
            rows = self.labels == name
            if rows.any():
                out.append((name, color, marker, rows))
        return out

    def handles(self) -> list[Line2D]:
        """Legend entries in the order of the categories, missing last."""
        entry = {n: point_handle(n, color=color, marker=marker) for n, color, marker, _ in self.present()}
        names = reading_order([name for name in self.names if name in entry])
        return [entry[name] for name in (*names, *([MISSING_LABEL] if MISSING_LABEL in entry else []))]

    def numbers(self) -> dict[str, str]:
        """Number of each category, in the order of the legend, where colours repeat; otherwise nothing. For what has colours but no shapes."""
        if len(set(self.colors)) == len(self.colors):
            return {}
        names = [str(entry.get_label()) for entry in self.handles()]
        return {name: str(i + 1) if name != MISSING_LABEL else "" for i, name in enumerate(names)}

    def patches(self) -> list[Patch]:
        """Legend entries as fields of colour, with the numbers."""
        numbers = self.numbers()
        names = [str(entry.get_label()) for entry in self.handles()]
        color_of = dict(zip([*self.names, MISSING_LABEL], [*self.colors, MISSING], strict=True))
        return [Patch(color=color_of[n], label=f"{numbers[n]}  {n}".strip() if numbers else n) for n in names]


def categories(values: pd.Series, *, colors: Iterable[str] | None = None) -> Categories:
    """Colours and shapes for a column; ``colors`` (scanpy's ``uns["<key>_colors"]``) win if there is one per category."""
    names = category_names(values)
    text = values.astype(object).map(_labels.name_of, na_action="ignore")
    labels = text.where(values.notna(), MISSING_LABEL).to_numpy(dtype=object)
    given = [] if colors is None or is_asked() else [str(c) for c in colors]
    if len(given) == len(names) and names:
        return Categories(
            names, given, [MARKERS[i // len(OKABE_ITO) % len(MARKERS)] for i in range(len(names))], labels
        )
    return Categories(names, colors_for(names), turns(len(names), MARKERS), labels)


def stored_colors(adata: AnnData, key: str) -> Iterable[str] | None:
    """Colours that scanpy stored for a column, if any."""
    return adata.uns.get(f"{key}_colors")


def fits_palette(n: int) -> bool:
    """Whether colour alone tells ``n`` categories apart."""
    return n <= n_distinct(n)

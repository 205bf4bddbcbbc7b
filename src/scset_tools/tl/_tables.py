"""Tables of other tools joined to samples by name, and scores of features as the table that other tools read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scset_tools import _checks, _keys
from scset_tools._samples import as_text

if TYPE_CHECKING:
    from anndata import AnnData


def read_table(samples: AnnData, table: pd.DataFrame, *, key_added: str, allow_missing: bool = False) -> None:
    """Write numbers of another tool to ``obsm``, joined by the names of the samples.

    For tables with a row per sample, such as scirpy's diversity and gene usage, proportions, or clinical measurements; :func:`probe`,
    :func:`benchmark` and :func:`association` read them with ``use_rep``.

    Parameters
    ----------
    samples
        Sample-level AnnData.
    table
        Numbers with the names of samples as index, in any order. Rows of other samples are left out.
    key_added
        Key of ``obsm``.
    allow_missing
        Whether samples may lack a row: theirs is NaN, which :func:`association` leaves out column by column.

    Writes
    ------
    ``obsm[key_added]``, a DataFrame of (samples, columns), float64, in the order of ``samples``.

    Raises
    ------
    TypeError
        If it is no DataFrame.
    ValueError
        If a sample has no row, a name or a column occurs twice, or a column holds no numbers.

    Examples
    --------
    >>> import pandas as pd, scset_tools as sst
    >>> samples = sst.profiles.mean(sst.datasets.composition_cohort(n_samples=8, n_cells=30), sample_key="sample")
    >>> diversity = pd.DataFrame({"shannon": range(8)}, index=samples.obs_names[::-1])
    >>> sst.tl.read_table(samples, diversity, key_added="tcr")
    >>> samples.obsm["tcr"]["shannon"].tolist()
    [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
    """
    _checks.require_anndata(samples, caller="tl.read_table")
    if not isinstance(table, pd.DataFrame):
        msg = f"The table must be a DataFrame with the names of the samples as index, not {type(table).__name__}."
        raise TypeError(msg)
    rows, wanted = pd.Index(as_text(table.index)), pd.Index(as_text(samples.obs_names))
    columns = pd.Index([str(c) for c in table.columns])
    _require_once(rows, "rows", "the table")
    _require_once(columns, "columns", "the table")
    is_number = [pd.api.types.is_numeric_dtype(t) or pd.api.types.is_bool_dtype(t) for t in table.dtypes]
    if not all(is_number):
        odd = columns[~np.array(is_number)]
        msg = f"{len(odd)} of {len(columns)} columns of the table hold no numbers: {_checks.first(odd)}. Leave them out, or put them into obs."
        raise ValueError(msg)
    absent = wanted.difference(rows)
    if len(absent) == len(wanted) or (len(absent) and not allow_missing):
        hint = " The table is numbered, not named." if list(rows) == [str(i) for i in range(len(rows))] else ""
        msg = (
            f"The table has no row for {len(absent)} of {len(wanted)} samples (first: {_checks.first(absent)}; names there: "
            f"{_checks.first(rows)}).{hint} Leave these samples out, or pass allow_missing=True."
        )
        raise ValueError(msg)
    values = table.astype(np.float64).set_axis(rows, axis=0).set_axis(columns, axis=1).reindex(wanted)
    samples.obsm[_keys.key(key_added)] = values.set_axis(samples.obs_names, axis=0)


def get_score_table(scores: pd.Series | Mapping[str, pd.Series], *, name: str = "score") -> pd.DataFrame:
    """Scores of features as a table of one row per ranking, the form that decoupler reads.

    ``decoupler.mt.ulm(data=table, net=net)`` and its other methods give the activity of each source of ``net`` (columns ``source``, ``target``
    and, where there is one, ``weight``) in each row. :func:`enrichment` tests one list without that package.

    Parameters
    ----------
    scores
        ``found.rank_features(...)``, or names of rows to such series. All must score the same features, in any order.
    name
        Name of the row of a single series.

    Returns
    -------
    DataFrame
        (rankings, features), float64, features by name.

    Raises
    ------
    TypeError
        If a score is no Series of numbers.
    ValueError
        If there are none, a feature occurs twice or is scored in some rankings only, or a score is missing or infinite.

    Examples
    --------
    >>> import pandas as pd, scset_tools as sst
    >>> sst.tl.get_score_table(pd.Series([0.5, -0.1], index=["GNLY", "CD3D"]), name="COVID-19")
              CD3D  GNLY
    COVID-19  -0.1   0.5
    """
    given = {name: scores} if isinstance(scores, pd.Series) else scores
    if not isinstance(given, Mapping) or not all(isinstance(v, pd.Series) for v in given.values()):
        odd = type(scores).__name__ if not isinstance(given, Mapping) else "a dict of other things"
        msg = f"scores must be a Series of numbers with features as index, or a dict of such, not {odd}."
        raise TypeError(msg)
    if not given:
        msg = "scores is empty: no ranking to make a table of."
        raise ValueError(msg)
    rows: dict[str, pd.Series] = {}
    for row, values in given.items():
        if not pd.api.types.is_numeric_dtype(values.dtype):
            msg = f"Scores {str(row)!r} must be numbers, but have dtype {values.dtype}."
            raise TypeError(msg)
        features = pd.Index([str(f) for f in values.index])
        _require_once(features, "features", f"scores {str(row)!r}")
        is_bad = ~np.isfinite(values.to_numpy(dtype=np.float64, na_value=np.nan))
        if is_bad.any():
            msg = f"Scores {str(row)!r} are missing or infinite for {is_bad.sum()} of {len(values)} features (first: {_checks.first(features[is_bad])})."
            raise ValueError(msg)
        rows[str(row)] = values.astype(np.float64).set_axis(features)
    first = next(iter(rows))
    for row, values in rows.items():
        apart = values.index.symmetric_difference(rows[first].index)
        if len(apart):
            msg = f"Scores {row!r} and {first!r} are of other features: {len(apart)} are in one alone (first: {_checks.first(apart)})."
            raise ValueError(msg)
    return pd.DataFrame(rows).T.sort_index(axis=1)


def _require_once(names: pd.Index, what: str, where: str) -> None:
    twice = names[names.duplicated()].unique()
    if len(twice):
        msg = f"{len(twice)} {what} of {where} occur more than once (first: {_checks.first(twice)})."
        raise ValueError(msg)

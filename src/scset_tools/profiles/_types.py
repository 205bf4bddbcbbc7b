"""Cell types as numbers: which there are, and what to say about one that was not there before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from scset_tools import _checks
from scset_tools._samples import as_text, text_codes
from scset_tools.profiles._cells import Cells


def type_names(cells: Cells, key: str, cell_types: Sequence[str] | None) -> np.ndarray:
    """Cell types in the order of the output: those given, or those of the cells in use, sorted.

    Raises
    ------
    ValueError
        If a type is given twice, or a cell in use has none of the given types.
    """
    if cell_types is None:
        return text_codes(cells.column(key), key)[1]
    names = as_text(cell_types)
    repeated = pd.Index(names).duplicated()
    if len(names) == 0 or repeated.any():
        msg = f"cell_types must name each type once, but has {len(names)} names and repeats {_checks.first(list(names[repeated]))}."
        raise ValueError(msg)
    type_codes(cells, key, names)
    return names


def type_codes(cells: Cells, key: str, names: np.ndarray) -> np.ndarray:
    """Number in ``names`` of the type of each row, shape (rows,); -1 for rows that are not in use.

    Raises
    ------
    ValueError
        If a cell has a type that is not in ``names``.
    """
    codes, found = text_codes(cells.column(key), key)
    number = pd.Index(names).get_indexer(found)
    in_use = number[codes]
    if (in_use < 0).any():
        unseen = found[number < 0]
        samples = cells.names[np.unique(cells.codes[cells.rows[in_use < 0]])]
        msg = (
            f"{(in_use < 0).sum()} of {cells.n_cells} cells are of {len(unseen)} cell types that the profile does not "
            f"know: {_checks.first(unseen)}, in samples {_checks.first(samples)}. Known from the training samples or "
            f"`cell_types`: {_checks.first(list(names), 20)}. Name all types in advance with cell_types=[...], or drop these cells."
        )
        raise ValueError(msg)
    out = np.full(len(cells.codes), -1, dtype=np.int64)
    out[cells.rows] = in_use
    return out

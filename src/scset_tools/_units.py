"""Is a "sample" one sample? Other columns of ``obs`` may say that it holds the cells of several."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd

from scset_tools import _checks

SAMPLES = {"sample", "samples", "biosample", "specimen"}
PERSONS = {"donor", "patient", "subject", "individual", "indiv", "ind", "participant", "person", "mouse", "animal"}
TECHNICAL = {"library", "well", "file", "filename"}
CLUSTERS = {"leiden", "louvain", "phenograph", "cluster", "clusters", "celltype"}
"""Words by which the field calls columns of samples, of those they are taken from, of what was measured at once, and of kinds of cells."""
_FILLERS = {"id", "ids", "name", "key", "number", "no", "uuid", "fcs", "accession"}

FEWEST_CELLS = 10
"""Cells of a unit on average, below which it is no sample: in plates a well, or a file, is a cell."""


def warn_of_several_samples_in_one(obs: Any, sample_key: str) -> None:
    """Warn once where each "sample" holds several of what a column with a usual name calls a sample, a donor, a library.

    Told are columns that divide each sample, every value of them being in one; and donors of whom each sample has several, wherever else
    they are. Where ``sample_key`` is called a donor nothing is told, and where it is called a sample donors alone are.

    Parameters
    ----------
    obs
        Of the cells; may have been opened lazily.
    sample_key
        Column with the sample of each cell.
    """
    words = _checks.words_of(sample_key)
    if words & PERSONS:
        return
    is_cluster = bool(words & CLUSTERS or {"cell", "type"} <= words)
    kinds = (PERSONS,) if words & (SAMPLES | TECHNICAL) else (SAMPLES, PERSONS, TECHNICAL)
    samples = pd.factorize(_checks.obs_column(obs, sample_key))[0].astype(np.int64)
    n_samples = int(samples.max(initial=-1)) + 1
    if (samples < 0).any():
        return
    for kind in kinds:
        for name in [str(c) for c in obs.columns if str(c) != sample_key and _is_called(str(c), kind)]:
            units = pd.factorize(_checks.obs_column(obs, name))[0].astype(np.int64)
            n_units = int(units.max(initial=-1)) + 1
            if n_units * FEWEST_CELLS > len(units) or (units < 0).any():
                continue
            pairs = pd.unique(samples * n_units + units)
            of_each = np.bincount(pairs // max(n_units, 1), minlength=n_samples)
            is_within = len(pairs) == n_units
            is_across = kind is not TECHNICAL and (is_cluster or (kind is PERSONS and n_units >= 2 * n_samples))
            if (of_each > 1).all() and (is_within or is_across):
                _warn(sample_key, name, of_each, n_units, is_within=is_within, is_cluster=is_cluster)
                return


def _warn(sample_key: str, name: str, of_each: np.ndarray, n_units: int, *, is_within: bool, is_cluster: bool) -> None:
    low, high = int(of_each.min()), int(of_each.max())
    of_each_text = f"{low}" if low == high else f"{low} to {high}"
    if is_within or is_cluster:
        way_out = f"sample_key={name!r}"
    else:
        both = f"obs[{name!r}].astype(str) + '_' + obs[{sample_key!r}].astype(str)"
        way_out = f"give samples a column of their own, such as {both}"
    warnings.warn(
        f"Each of the {len(of_each)} values of adata.obs[{sample_key!r}] has the cells of {of_each_text} of the {n_units} values of "
        f"adata.obs[{name!r}], and gets one vector. If samples are meant, {way_out}; if it is meant as it is, nothing has to be done.",
        UserWarning,
        stacklevel=2,
    )


def _is_called(column: str, words: set[str]) -> bool:
    """Whether the name of a column is one of the words, and no more: ``donor_id``, not ``donor_age``."""
    own = _checks.words_of(column)
    return (len(own - _FILLERS) == 1 and own - _FILLERS <= words) or (words is SAMPLES and own == {"orig", "ident"})

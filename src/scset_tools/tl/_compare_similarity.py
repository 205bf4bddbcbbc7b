"""Do two similarity matrices agree? Mantel's test (PaSCient, App. H-I)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from scset_tools import _checks
from scset_tools._numbers import checks_numbers


@dataclass(frozen=True, repr=False)
class SimilarityComparison:
    """How far two similarity matrices agree.

    Attributes
    ----------
    correlation
        Of the entries above the diagonal.
    p_value
        Share of permutations with a correlation at least as high, the observed one included (one-sided).
    null
        Correlations under permutations of the names of one matrix, (n_permutations,).
    labels
        Names that both have, in the order of the first.
    method
        ``"spearman"`` or ``"pearson"``.
    """

    correlation: float
    p_value: float
    null: np.ndarray
    labels: list[str]
    method: str

    def __repr__(self) -> str:
        return (
            f"SimilarityComparison: {self.method} correlation {self.correlation:.3f} over the pairs of {len(self.labels)} labels, "
            f"p = {self.p_value:.3g} ({len(self.null)} permutations)"
        )


@checks_numbers
def compare_similarity(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    method: Literal["spearman", "pearson"] = "spearman",
    n_permutations: int = 999,
    rng: np.random.Generator | int | None = 0,
) -> SimilarityComparison:
    """Correlate the entries of two similarity (or distance) matrices, with a permutation null (Mantel 1967).

    Pairs that share a label are no independent evidence, so that the p-value of a plain correlation is too small. Here the names of one
    matrix trade places, rows and columns at once.

    Parameters
    ----------
    first
        Square table with names on both sides, as :func:`scset_tools.tl.label_similarity` gives it.
    second
        Another one: of a second model, or curated. Matched by name; names that one of them lacks are left out.
    method
        Correlation of ranks or of values.
    n_permutations
        Number of permutations.
    rng
        Seed or generator.

    Returns
    -------
    Correlation, p-value and null; see :class:`SimilarityComparison`.

    Raises
    ------
    TypeError
        If not given DataFrames.
    ValueError
        If a table is not square with equal and unique names, not symmetric, fewer than four names are shared, entries are missing, or all equal.

    Examples
    --------
    >>> import scset_tools as sst
    >>> samples = sst.profiles.mean(
    ...     sst.datasets.cytometry_cohort(covariates=True, n_donors=8, n_cells=40), sample_key="sample"
    ... )
    >>> table = sst.tl.label_similarity(samples, "donor")
    >>> round(sst.tl.compare_similarity(table, table**3, n_permutations=99).correlation, 3)
    1.0
    """
    _checks.require_choice("method", method, ("spearman", "pearson"))
    if n_permutations < 1:
        msg = f"n_permutations={n_permutations} must be at least 1."
        raise ValueError(msg)
    a, b = _square(first, "first"), _square(second, "second")
    shared = [name for name in a.index if name in b.index]
    if len(shared) < 4:
        msg = f"The tables share {len(shared)} names {_checks.first(shared)}, of {len(a)} and {len(b)}: a comparison needs four at least."
        raise ValueError(msg)
    a, b = (table.loc[shared, shared].to_numpy(dtype=np.float64) for table in (a, b))
    upper = np.triu_indices(len(shared), 1)
    for table, name in ((a, "first"), (b, "second")):
        is_bad = ~np.isfinite(table[upper])
        if is_bad.any() or np.ptp(table[upper]) == 0:
            pairs = _checks.first(
                f"{shared[i]} - {shared[j]}" for i, j in zip(*np.array(upper)[:, is_bad], strict=True)
            )
            msg = f"The {name} table has {is_bad.sum()} missing entries (first: {pairs}) or equal entries throughout. Leave such labels out."
            raise ValueError(msg)
    if method == "spearman":
        a, b = _ranked(a, upper), _ranked(b, upper)
    centred = a[upper] - a[upper].mean()
    observed = _correlation(centred, b[upper])
    generator = np.random.default_rng(rng)
    null = np.empty(n_permutations)
    for i in range(n_permutations):
        order = generator.permutation(len(shared))
        null[i] = _correlation(centred, b[np.ix_(order, order)][upper])
    p_value = (1 + int((null >= observed - 1e-12).sum())) / (1 + n_permutations)
    return SimilarityComparison(observed, p_value, null, [str(s) for s in shared], method)


def _square(table: pd.DataFrame, where: str) -> pd.DataFrame:
    if not isinstance(table, pd.DataFrame):
        msg = f"tl.compare_similarity takes two DataFrames, but the {where} is {type(table).__name__}."
        raise TypeError(msg)
    if not table.index.is_unique or set(table.index) != set(table.columns) or table.shape[0] != table.shape[1]:
        msg = f"The {where} table must be square with the same unique names on both sides, but has the shape {table.shape}."
        raise ValueError(msg)
    table = table.loc[:, table.index]
    values = table.to_numpy(dtype=np.float64)
    if not np.allclose(values, values.T, equal_nan=True):
        msg = f"The {where} table is not symmetric."
        raise ValueError(msg)
    return table


def _ranked(table: np.ndarray, upper: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Ranks of the pairs, in a symmetric table."""
    out = np.zeros_like(table)
    out[upper] = stats.rankdata(table[upper])
    return out + out.T


def _correlation(centred: np.ndarray, values: np.ndarray) -> float:
    other = values - values.mean()
    return float(centred @ other / (np.linalg.norm(centred) * np.linalg.norm(other)))

"""How far a label and a batch are the same thing: counts, Cramér's V, mutual information, eta squared."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import mutual_info_score

from scset_tools import _labels
from scset_tools._permutation import permute_labels, smallest_p, warn_of_few_rearrangements


def label_batch_overlap(
    label: pd.Series, batch: pd.Series, *, groups: np.ndarray, order: np.ndarray, kind: str, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How far label and batch are the same thing, and the table of counts."""
    rng = np.random.default_rng((seed, 2))
    columns = pd.factorize(batch, sort=True)[0]
    y = pd.factorize(as_text(label), sort=True)[0] if kind == "class" else stats.rankdata(label.to_numpy(dtype=float))
    if kind == "class":
        # by place: rows of two joined cohorts may have one name
        counts = pd.crosstab(as_text(label).reset_index(drop=True), batch.reset_index(drop=True))
        counts.index.name, counts.columns.name = label.name, batch.name
        shape = (y.max() + 1, columns.max() + 1)

        def strength(values: np.ndarray) -> float:
            return cramers_v(np.bincount(values * shape[1] + columns, minlength=shape[0] * shape[1]).reshape(shape))[0]

        table = counts.to_numpy()
        v, corrected = cramers_v(table)
        information = mutual_info_score(y, columns)
        out = {
            "cramers_v": v,
            "cramers_v_corrected": corrected,
            "mutual_information": information,
            "label_explained": information / stats.entropy(table.sum(axis=1)),
            "batch_explained": information / stats.entropy(table.sum(axis=0)),
        }
    else:
        counts = pd.DataFrame([np.bincount(columns)], index=["n_samples"], columns=sorted(batch.unique()))

        def strength(values: np.ndarray) -> float:
            means = np.bincount(columns, weights=values) / np.bincount(columns)
            return float(np.var(means[columns]) / np.var(values))

        out = {"eta_squared": strength(y)}
    if smallest_p(y, groups, is_class=kind == "class") > 0.05:  # no answer, whatever the table says
        warn_of_few_rearrangements(y, groups, 999, label_key=str(label.name), is_class=kind == "class")
    observed = strength(y)
    n_extreme = 0
    for _ in range(999):
        shuffled = y[permute_labels(y, groups, rng, order=order)]
        n_extreme += strength(shuffled) >= observed - 1e-12
    out["p_value"] = (1 + n_extreme) / 1000
    n_values = pd.Series(y).groupby(columns).transform("nunique")
    out["share_mixed"] = float((n_values > 1).mean())
    return pd.DataFrame([out]), counts


def cramers_v(table: np.ndarray) -> tuple[float, float]:
    """Cramér's V of a table of counts, and its bias-corrected form (Bergsma 2013, eq. 2-4).

    phi2 = chi2 / n; corrected phi2 = max(0, phi2 - (r - 1)(c - 1) / (n - 1)), r' = r - (r - 1)^2 / (n - 1), c' likewise;
    V' = sqrt(phi2' / (min(r', c') - 1)).
    """
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    (r, c), n = table.shape, table.sum()
    if min(r, c) < 2:
        return 0.0, 0.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
    phi2 = np.sum((table - expected) ** 2 / expected) / n
    v = float(np.sqrt(phi2 / (min(r, c) - 1)))
    corrected = max(0.0, phi2 - (r - 1) * (c - 1) / (n - 1))
    smaller = min(r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1))
    return v, float(min(1.0, np.sqrt(corrected / (smaller - 1)))) if smaller > 1 else 0.0


def as_text(column: pd.Series) -> pd.Series:
    """The names of the classes of a column, whatever its dtype."""
    return column.astype(object).map(_labels.name_of).astype(str)

"""Which columns go with a label: one test per column, of the design that the samples have, corrected over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from scset_tools import _checks, _labels
from scset_tools._numbers import checks_numbers
from scset_tools.tl._design_tests import design_table
from scset_tools.tl._designs import Design, design_groups, read_design
from scset_tools.tl._intervals import benjamini_hochberg, bonferroni
from scset_tools.tl._permuted_tests import rank_p_values, warn_of_few
from scset_tools.tl._splits import read_groups, seed_of

if TYPE_CHECKING:
    from anndata import AnnData

TESTS = ("auto", "rank_sum", "kruskal", "spearman", "t")
CORRECTIONS = ("benjamini_hochberg", "bonferroni")
_EFFECT = {"rank_sum": "rank_biserial", "kruskal": "epsilon_squared", "spearman": "rho", "t": "cohen_d"}


@checks_numbers
def association(
    samples: AnnData,
    label_keys: str | Sequence[str],
    *,
    use_rep: str | None = None,
    obs_keys: Sequence[str] | None = None,
    test: str = "auto",
    correction: Literal["benjamini_hochberg", "bonferroni"] = "benjamini_hochberg",
    formula: str | None = None,
    covariates: Sequence[str] | str | None = None,
    groups_key: str | None = None,
    paired_by: str | None = None,
    blocks_key: str | None = None,
    n_permutations: int = 0,
    level: float = 0.95,
    rng: np.random.Generator | int | None = 0,
) -> pd.DataFrame:
    """Test every column of a representation, or of ``obs``, against sample labels.

    Without a design, rank tests that take samples as independent. With ``covariates`` a linear model of each column; with ``groups_key``
    (donors with several samples) one with a random intercept per donor; with ``paired_by`` a signed-rank test within donors.
    Reports only: nothing is written into ``samples``.

    Parameters
    ----------
    samples
        Sample-level AnnData.
    label_keys
        One or several columns of ``samples.obs``. Numbers with more than two values and ordered categories of more than
        two levels are ordinal; everything else is classes: of two, the second is the higher level, the larger number, True, or
        the later by alphabet.
    use_rep
        Key of ``samples.obsm`` whose columns are tested. Default: ``samples.X``. Missing values are left out per column.
    obs_keys
        Numeric columns of ``samples.obs`` to test instead.
    test
        ``"rank_sum"`` (two classes), ``"kruskal"`` (two or more), ``"spearman"`` (ordinal), or ``"auto"``: the first that fits. ``"t"``:
        Welch's t-test of two classes, which PaSCient's figure of severity has. With a design, ``"auto"`` only.
    correction
        How ``p_adjusted`` allows for the number of tests: the false discovery rate of Benjamini and Hochberg, or Bonferroni.
    formula
        The design as a sum of columns with at most one random intercept: ``"~ label + age + (1 | donor)"`` is the label ``label`` with
        ``covariates=["age"]`` and ``groups_key="donor"``.
    covariates
        Columns of ``samples.obs`` that the label is adjusted for. Samples that miss one are left out.
    groups_key
        Column with the donor of each sample, some of whom have several: a linear mixed model by restricted maximum likelihood, and
        Student's t (Wald's F) with the degrees of freedom of "containment", between donors for a label that is constant within all.
    paired_by
        Column with the donor (or pair) within whom two classes are compared: Wilcoxon's signed-rank test of the difference of their means.
        Donors with one of the classes alone are left out.
    blocks_key
        Column (batch, site) within whose values labels are permuted. Needs ``n_permutations``.
    n_permutations
        Permutations for ``p_permutation``. Rank tests: labels trade places; ``covariates``: residuals do (Freedman and Lane 1983);
        ``groups_key``: donors trade their labels whole; ``paired_by``: the two classes trade places within donors.
    level
        Confidence level of intervals.
    rng
        Seed or generator of the permutations.

    Returns
    -------
    DataFrame
        One row per label and column, smallest p-value first, equal ones by name. Every column is tested as if it were alone:

        - ``label_key``, ``feature``, ``test``, ``n`` (samples with both values);
        - ``statistic``: U of the second class, H, Spearman's rho, or t;
        - ``effect`` and ``effect_name``: rank-biserial correlation 2 U / (n1 n2) - 1 (positive: larger in the second class),
          epsilon squared H / (n - 1), rho, or Cohen's d (difference of the means, second less first, over the pooled standard deviation);
        - ``highest``: the class with the largest mean rank, of ``"t"`` the largest mean (empty for ordinal labels);
        - ``p_value``: two-sided; ``p_adjusted``: corrected over all rows of the table. Columns that are constant,
          or have values for one class only, cannot be tested: p-value and effect are NaN and they do not count.

        With ``n_permutations`` also ``p_permutation``, which ``p_adjusted`` is then computed from. With a design (``test`` is ``"linear"``,
        ``"mixed"`` or ``"signed_rank"``) also ``n_groups`` (donors; pairs, which ``n`` counts as well), ``df``, ``ci_low``, ``ci_high`` (of ``effect``) and
        ``standardized``:

        - ``statistic``: t, F for more than two classes, or the smaller sum of signed ranks;
        - ``effect``: ``"coefficient"`` (second class less first, or per unit or level, in units of the column), ``"partial_eta_squared"`` for
          more than two classes, or ``"median_difference"`` within pairs (Hodges and Lehmann), each with its interval;
        - ``standardized``: the coefficient over the residual standard deviation, or the matched rank-biserial correlation.

    Raises
    ------
    KeyError
        If a column or key does not exist.
    ValueError
        If a label has fewer than two values, if a column is infinite, if both ``use_rep`` and ``obs_keys`` are given, if the
        test does not fit, or if the design contradicts itself or cannot tell the label from its covariates.

    Examples
    --------
    >>> import scset_tools as sst
    >>> samples = sst.profiles.mean(sst.datasets.composition_cohort(n_samples=12, n_cells=40), sample_key="sample")
    >>> samples.obs["age"] = [30, 41, 52, 33, 44, 55, 36, 47, 58, 39, 50, 61]
    >>> table = sst.tl.association(samples, "subtype", covariates="age")
    >>> sorted(table["test"].unique())
    ['linear']
    """
    if test not in TESTS:
        msg = f"test must be one of {TESTS}, but is {test!r}."
        raise ValueError(msg)
    _checks.require_choice("correction", correction, CORRECTIONS)
    if test == "t" and n_permutations:
        msg = f"n_permutations={n_permutations} are of rank tests and designs: with test='t' leave them out."
        raise ValueError(msg)
    values, features = _columns(samples, use_rep, obs_keys)
    is_infinite = np.isinf(values).any(axis=0)
    if is_infinite.any():
        names, rows = np.asarray(features)[is_infinite], samples.obs_names[np.isinf(values).any(axis=1)]
        msg = (
            f"{is_infinite.sum()} of {len(features)} columns to test are infinite (first: {_checks.first(names)}) in samples "
            f"{_checks.first(rows)}. Correct them, or set them to missing."
        )
        raise ValueError(msg)
    keys = [label_keys] if isinstance(label_keys, str) else list(label_keys)
    if n_permutations < 0 or (blocks_key is not None and not n_permutations):
        msg = f"n_permutations={n_permutations} must be at least 0, and at least 1 with blocks_key={blocks_key!r}, which permutations stay within."
        raise ValueError(msg)
    design = read_design(
        keys,
        formula=formula,
        covariates=covariates,
        groups_key=groups_key,
        paired_by=paired_by,
        blocks_key=blocks_key,
    )
    options = {"n_permutations": n_permutations, "seed": seed_of(rng)}
    if design.is_plain:
        tables = [_test_label(samples, key, values, features, test, design, **options) for key in keys]
    elif test != "auto":
        msg = f"test={test!r} is a rank test of independent samples; a design (covariates, groups_key, paired_by) has its own: leave test out."
        raise ValueError(msg)
    else:
        tables = [
            design_table(samples, key, values, features=features, design=design, level=level, **options) for key in keys
        ]
    out = pd.concat(tables, ignore_index=True)
    by = "p_permutation" if n_permutations else "p_value"
    adjust = benjamini_hochberg if correction == "benjamini_hochberg" else bonferroni
    out["p_adjusted"] = adjust(out[by].to_numpy())
    return out.sort_values([by, "p_value", "label_key", "feature"], kind="stable").reset_index(drop=True)


def _columns(samples: AnnData, use_rep: str | None, obs_keys: Sequence[str] | None) -> tuple[np.ndarray, list[str]]:
    """The columns to test, (samples, features) with NaN for missing, and their names."""
    _checks.require_anndata(samples, caller="tl.association")
    if obs_keys is not None:
        if use_rep is not None:
            msg = f"Pass use_rep ({use_rep!r}) or obs_keys ({list(obs_keys)}), not both: columns come from one of them."
            raise ValueError(msg)
        frame = pd.DataFrame({key: _number_column(samples, key) for key in dict.fromkeys(obs_keys)})
        return frame.to_numpy(dtype=np.float64), list(frame.columns)
    matrix: Any = samples.X if use_rep is None else _checks.require_obsm(samples, use_rep)
    if matrix is None:
        msg = f"samples.X is empty. Pass use_rep, one of samples.obsm: {_checks.first(samples.obsm.keys(), 20)}, or obs_keys."
        raise ValueError(msg)
    if isinstance(matrix, pd.DataFrame):
        names = [str(c) for c in matrix.columns]
    elif use_rep is None:
        names = list(samples.var_names)
    else:
        names = [f"{use_rep}_{j}" for j in range(matrix.shape[1])]
    return _checks.dense(matrix, "samples.X" if use_rep is None else f"samples.obsm[{use_rep!r}]"), names


def _number_column(samples: AnnData, key: str) -> np.ndarray:
    column = _checks.require_obs(samples, key)
    if not pd.api.types.is_numeric_dtype(column.dtype):
        msg = f"samples.obs[{key!r}] must hold numbers to be tested, but has dtype {column.dtype}."
        raise ValueError(msg)
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _read_label(samples: AnnData, key: str, test: str) -> tuple[np.ndarray, tuple[str, ...], str]:
    """Numbers (NaN where missing), class names, and the test that fits."""
    column = _checks.require_obs(samples, key)
    n_values = column.nunique()
    if n_values < 2:
        msg = f"samples.obs[{key!r}] has {n_values} distinct values in {column.notna().sum()} labelled samples: nothing to test."
        raise ValueError(msg)
    if test == "auto":
        fitting = "rank_sum" if n_values == 2 else "kruskal"
        test = fitting if _labels.guess_kind(column) == "class" else "spearman"
    if test in ("rank_sum", "t") and n_values != 2:
        msg = f"The {'rank-sum test' if test == 'rank_sum' else 't-test'} needs two classes, but samples.obs[{key!r}] has {n_values}. Use test='kruskal'."
        raise ValueError(msg)
    if test != "spearman":
        read = _labels.read_classes(column)
        return np.where(read.codes < 0, np.nan, read.codes), read.names, test
    if _labels.is_number(column):
        return _labels.read_numbers(column), (), test
    codes = _labels.read_classes(column, kind="ordinal").codes
    return np.where(codes < 0, np.nan, codes), (), test


def _test_label(
    samples: AnnData,
    key: str,
    values: np.ndarray,
    features: list[str],
    test: str,
    design: Design,
    *,
    n_permutations: int,
    seed: int,
) -> pd.DataFrame:
    y, classes, test = _read_label(samples, key, test)
    out = pd.DataFrame({"label_key": key, "feature": features, "test": test, "n": 0})
    out["statistic"], out["effect"], out["effect_name"] = np.nan, np.nan, _EFFECT[test]
    out["highest"], out["p_value"] = "", np.nan
    if n_permutations:
        out["p_permutation"] = np.nan
        order = read_groups(samples, None, np.arange(samples.n_obs))
        blocks = np.zeros(len(y)) if design.blocks_key is None else design_groups(samples, design.blocks_key)
        y = np.where(blocks < 0, np.nan, y)  # a sample of no known block trades with no other
        known = ~np.isnan(y)
        warn_of_few(y[known], order[known], blocks[known], n_permutations=n_permutations, label_key=key)
    is_known = ~np.isnan(values) & ~np.isnan(y)[:, None]  # (samples, features)
    # columns with the same samples present are tested together: the usual case is one block. Columns with ties are tested apart
    # from those without: where there are no ties scipy takes the exact distribution, and one answer for all columns
    patterns, block_of = np.unique(
        np.column_stack([is_known.T, _has_ties(np.where(is_known, values, np.nan))]), axis=0, return_inverse=True
    )
    for block, is_present in enumerate(patterns[:, :-1]):
        columns = np.flatnonzero(block_of.ravel() == block)
        out.loc[columns, "n"] = is_present.sum()
        x, labels = values[np.ix_(is_present, columns)], y[is_present]
        is_varied = np.ptp(x, axis=0) > 0 if len(x) else np.zeros(len(columns), bool)
        if test == "t":  # a variance of each class
            is_varied &= min(np.unique(labels, return_counts=True)[1], default=0) > 1
        if len(np.unique(labels)) < 2 or not is_varied.any() or (test == "spearman" and len(labels) < 3):
            continue
        statistic, effect, p_value, highest = _test_block(x[:, is_varied], labels, test)
        rows = columns[is_varied]
        out.loc[rows, "statistic"], out.loc[rows, "effect"], out.loc[rows, "p_value"] = statistic, effect, p_value
        if classes:
            out.loc[rows, "highest"] = np.asarray(classes)[highest]
        if n_permutations:
            who = {"order": order[is_present], "blocks": blocks[is_present]}
            out.loc[rows, "p_permutation"] = rank_p_values(
                x[:, is_varied], labels, is_class=test != "spearman", n_permutations=n_permutations, seed=seed, **who
            )
    return out


def _has_ties(values: np.ndarray) -> np.ndarray:
    """Whether a column (samples, features) has a value twice, missing ones aside, (features,)."""
    ordered = np.sort(values, axis=0)  # missing last, and never equal
    return (ordered[1:] == ordered[:-1]).any(axis=0)


def _test_block(x: np.ndarray, y: np.ndarray, test: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Statistic, effect, p-value and highest class of every column of x (samples, features), none constant or missing."""
    ranks = stats.rankdata(x, axis=0)
    if test == "spearman":
        result = stats.pearsonr(ranks, np.broadcast_to(stats.rankdata(y)[:, None], ranks.shape), axis=0)
        return result.statistic, result.statistic, result.pvalue, np.zeros(x.shape[1], int)
    codes = np.unique(y)
    if test == "t":
        return _welch(x[y == codes[0]], x[y == codes[1]])
    highest = codes[np.argmax([ranks[y == c].mean(axis=0) for c in codes], axis=0)].astype(int)
    groups = [x[y == c] for c in codes]
    if test == "rank_sum":
        result = stats.mannwhitneyu(groups[1], groups[0], axis=0)
        effect = 2 * result.statistic / (len(groups[0]) * len(groups[1])) - 1
    else:
        result = stats.kruskal(*groups, axis=0)
        effect = result.statistic / (len(x) - 1)
    return result.statistic, effect, result.pvalue, highest


def _welch(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Welch's t, Cohen's d, p-value and the class of the larger mean, of every column; NaN where neither class varies."""
    result = stats.ttest_ind(second, first, axis=0, equal_var=False)
    difference = second.mean(axis=0) - first.mean(axis=0)
    n = np.array([len(first) - 1, len(second) - 1])
    pooled = np.sqrt((n[0] * first.var(axis=0, ddof=1) + n[1] * second.var(axis=0, ddof=1)) / n.sum())
    d = np.divide(difference, pooled, out=np.full(len(pooled), np.nan), where=pooled > 0)
    return result.statistic, d, result.pvalue, (difference > 0).astype(int)

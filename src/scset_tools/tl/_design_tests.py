"""Tests of all columns against one label in a design: linear, mixed or paired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scset_tools import _checks
from scset_tools._correction import as_columns
from scset_tools.tl import _permuted_tests as permuted
from scset_tools.tl._designs import Design, covariate_matrix, design_groups
from scset_tools.tl._linear_tests import is_separable, linear_test
from scset_tools.tl._paired import pair_differences, wilcoxon_test
from scset_tools.tl._splits import read_groups

if TYPE_CHECKING:
    from anndata import AnnData

COLUMNS = ("statistic", "df", "effect", "ci_low", "ci_high", "standardized", "p_value")


def design_table(
    samples: AnnData,
    key: str,
    values: np.ndarray,
    *,
    features: list[str],
    design: Design,
    level: float,
    n_permutations: int,
    seed: int,
) -> pd.DataFrame:
    """One row per column of ``values`` (samples, features); see :func:`scset_tools.tl.association`."""
    column = _checks.require_obs(samples, key)
    if column.nunique() < 2:
        msg = f"samples.obs[{key!r}] has {column.nunique()} distinct values in {column.notna().sum()} labelled samples: nothing to test."
        raise ValueError(msg)
    label, classes = as_columns(column)
    test = "signed_rank" if design.paired_by else "mixed" if design.groups_key else "linear"
    effect = "median_difference" if design.paired_by else "partial_eta_squared" if label.shape[1] > 1 else "coefficient"
    out = pd.DataFrame({"label_key": key, "feature": features, "test": test, "n": 0, "n_groups": 0})
    out[list(COLUMNS)] = np.nan
    out["effect_name"], out["highest"] = effect, ""
    if n_permutations:
        out["p_permutation"] = np.nan
    options: dict[str, Any] = {"level": level, "n_permutations": n_permutations, "seed": seed}
    run = _fill_paired if design.paired_by else _fill_linear
    run(out, samples, values, label, classes, design, **options)
    head = [
        "label_key",
        "feature",
        "test",
        "n",
        "n_groups",
        "statistic",
        "df",
        "effect",
        "effect_name",
        "ci_low",
        "ci_high",
    ]
    return out[[*head, "standardized", "highest", "p_value", *(["p_permutation"] if n_permutations else [])]]


def _fill_linear(
    out: pd.DataFrame,
    samples: AnnData,
    values: np.ndarray,
    label: np.ndarray,
    classes: tuple[str, ...],
    design: Design,
    *,
    level: float,
    n_permutations: int,
    seed: int,
) -> None:
    key = str(out["label_key"].iloc[0])
    covariates = covariate_matrix(samples, design.covariates)
    order = read_groups(samples, None, np.arange(samples.n_obs))
    groups = order if design.groups_key is None else design_groups(samples, design.groups_key)
    blocks = np.zeros(samples.n_obs) if design.blocks_key is None else design_groups(samples, design.blocks_key)
    is_usable = ~np.isnan(label).any(axis=1) & ~np.isnan(covariates).any(axis=1) & (groups >= 0) & (blocks >= 0)
    _require_design(samples, key, label[is_usable], covariates[is_usable], groups[is_usable], design)
    if n_permutations:
        who = samples.obs_names[is_usable].to_numpy()
        if design.groups_key is not None and design.blocks_key is not None:
            permuted.require_nested(groups[is_usable], blocks[is_usable], who, blocks_key=design.blocks_key)
        codes = np.unique(label[is_usable], axis=0, return_inverse=True)[1].ravel()
        if design.groups_key is None:  # residuals trade places: as many ways as samples have orders
            codes = order[is_usable]
        permuted.warn_of_few(codes, groups[is_usable], blocks[is_usable], n_permutations=n_permutations, label_key=key)
    is_known = ~np.isnan(values) & is_usable[:, None]
    patterns, block_of = np.unique(is_known.T, axis=0, return_inverse=True)  # columns of the same samples go together
    for block, use in enumerate(patterns):
        columns = np.flatnonzero(block_of.ravel() == block)
        out.loc[columns, "n"], out.loc[columns, "n_groups"] = use.sum(), len(np.unique(groups[use]))
        y = values[np.ix_(use, columns)]
        # a constant label, or column, has no test
        is_varied = (
            np.ptp(y, axis=0) > 0 if use.any() and np.ptp(label[use], axis=0).all() else np.zeros(len(columns), bool)
        )
        if not is_varied.any():
            continue
        rows, part = columns[is_varied], y[:, is_varied]
        of_group = None if design.groups_key is None else groups[use]
        if of_group is not None and len(np.unique(of_group)) in (1, len(of_group)):
            continue  # no variance between donors to be told from that within
        spread = part.std(axis=0)  # in units of each column: no loss of digits where columns differ in scale
        found = linear_test(
            (part - part.mean(axis=0)) / spread, label[use], covariates[use], groups=of_group, level=level
        )
        if label.shape[1] == 1:
            for name in ("effect", "ci_low", "ci_high"):
                found[name] = found[name] * spread
        for name in COLUMNS:
            out.loc[rows, name] = found[name]
        if classes:
            names = np.where(np.isnan(found["p_value"]), "", np.asarray(classes, dtype=object)[found["highest"]])
            out.loc[rows, "highest"] = names
        if n_permutations:
            out.loc[rows, "p_permutation"] = permuted.linear_p_values(
                (part - part.mean(axis=0)) / spread,
                label[use],
                covariates[use],
                order=order[use],
                groups=of_group,
                blocks=blocks[use],
                n_permutations=n_permutations,
                seed=seed,
            )


def _require_design(
    samples: AnnData, key: str, label: np.ndarray, covariates: np.ndarray, groups: np.ndarray, design: Design
) -> None:
    """Raise ValueError if the label cannot be told from the covariates, or no donor has two samples."""
    if not len(label):
        used = [key, *design.covariates, *[k for k in (design.groups_key, design.blocks_key) if k is not None]]
        msg = f"None of {samples.n_obs} samples has a value of all of {_checks.first(used, 20)}: nothing to test."
        raise ValueError(msg)
    if not is_separable(label, covariates):
        msg = (
            f"{key!r} cannot be told from {_checks.first(design.covariates, 20) if design.covariates else 'a constant'} in the {len(label)} "
            "samples that have them: it is constant, or the covariates give it exactly. Leave a covariate out."
        )
        raise ValueError(msg)
    if design.groups_key is not None and len(np.unique(groups)) in (1, len(groups)):
        n = len(np.unique(groups))
        what = "one group holds all samples" if n == 1 else "each has one sample"
        msg = f"groups_key={design.groups_key!r} has {n} groups of {len(groups)} samples: {what}, so that samples need no random intercept. Leave it out."
        raise ValueError(msg)


def _fill_paired(
    out: pd.DataFrame,
    samples: AnnData,
    values: np.ndarray,
    label: np.ndarray,
    classes: tuple[str, ...],
    design: Design,
    *,
    level: float,
    n_permutations: int,
    seed: int,
) -> None:
    key, paired_by = str(out["label_key"].iloc[0]), str(design.paired_by)
    if len(classes) != 2:
        msg = (
            f"paired_by compares two classes, but samples.obs[{key!r}] has {len(classes) or 'numbers, not'} classes. For levels, numbers "
            f"and more classes pass groups_key={paired_by!r}, which fits a mixed model."
        )
        raise ValueError(msg)
    if design.blocks_key is not None:
        msg = "paired_by is a block of its own: the classes trade places within each pair. Leave blocks_key out."
        raise ValueError(msg)
    donors = design_groups(samples, paired_by)
    codes = np.where(np.isnan(label[:, 0]), -1, label[:, 0]).astype(int)
    differences = pair_differences(values, codes, donors)
    if len(differences) == 0:
        msg = (
            f"No value of samples.obs[{paired_by!r}] ({len(np.unique(donors[donors >= 0]))} values) has samples of both classes of "
            f"{key!r} {_checks.first(classes)}: there are no pairs."
        )
        raise ValueError(msg)
    if n_permutations:
        permuted.warn_of_few_pairs(len(differences), n_permutations)
    for row, d in enumerate(differences.T):
        d = d[~np.isnan(d)]
        found = wilcoxon_test(d, level=level)
        out.loc[row, ["n", "n_groups"]] = len(d)
        out.loc[row, list(found)] = list(found.values())
        if not np.isnan(found["p_value"]):
            out.loc[row, "highest"] = classes[int(found["standardized"] > 0)]
            if n_permutations:
                out.loc[row, "p_permutation"] = permuted.paired_p_values(
                    d[:, None], n_permutations=n_permutations, seed=seed
                )[0]

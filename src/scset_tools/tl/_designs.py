"""Which samples are compared how: covariates, repeated samples of a donor, pairs; from arguments or from a formula."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scset_tools import _checks, _samples
from scset_tools._correction import as_columns
from scset_tools.tl._targets import Target

if TYPE_CHECKING:
    from anndata import AnnData

_RANDOM = re.compile(r"\(\s*1\s*\|\s*([^()|]+?)\s*\)")


@dataclass(frozen=True)
class Design:
    """What stands beside the label.

    Attributes
    ----------
    covariates
        Columns of ``obs`` that are adjusted for.
    groups_key
        Column with the donor of each sample, for a random intercept.
    paired_by
        Column with the donor in whom the two classes are compared.
    blocks_key
        Column within whose values labels are permuted.
    """

    covariates: tuple[str, ...] = ()
    groups_key: str | None = None
    paired_by: str | None = None
    blocks_key: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether samples are independent and nothing is adjusted for."""
        return not self.covariates and self.groups_key is None and self.paired_by is None


def read_design(
    label_keys: Sequence[str],
    *,
    formula: str | None,
    covariates: Sequence[str] | str | None,
    groups_key: str | None,
    paired_by: str | None,
    blocks_key: str | None,
) -> Design:
    """The design from its arguments; ValueError where they contradict each other."""
    covariates = [covariates] if isinstance(covariates, str) else list(covariates or ())
    if formula is not None:
        if covariates or groups_key is not None:
            msg = "A formula names covariates and groups itself: pass formula, or covariates and groups_key, not both."
            raise ValueError(msg)
        terms, groups_key = read_formula(formula)
        absent = [key for key in label_keys if key not in terms]
        if absent:
            msg = f"formula={formula!r} does not have the labels {_checks.first(absent)}; its terms are {_checks.first(terms, 20)}."
            raise ValueError(msg)
        covariates = [term for term in terms if term not in label_keys]
    twice = [key for key in covariates if key in label_keys]
    if twice:
        msg = f"{_checks.first(twice)} cannot be label and covariate at once."
        raise ValueError(msg)
    if paired_by is not None and (covariates or groups_key is not None):
        msg = (
            f"paired_by={paired_by!r} compares the two classes within each value of it, which needs no other term. To adjust for "
            f"covariates as well, pass groups_key={paired_by!r} and covariates."
        )
        raise ValueError(msg)
    return Design(tuple(dict.fromkeys(covariates)), groups_key, paired_by, blocks_key)


def read_formula(formula: str) -> tuple[list[str], str | None]:
    """Columns and the group of ``"~ label + age + (1 | donor)"``; ValueError for what is no sum of columns."""
    left, tilde, right = formula.partition("~")
    if not tilde or left.strip():
        msg = (
            f"formula={formula!r} must begin with '~': every column is tested in turn, so that none stands on the left."
        )
        raise ValueError(msg)
    groups = _RANDOM.findall(right)
    rest = _RANDOM.sub("", right)
    terms = [term.strip() for term in rest.split("+")]
    terms = [term for term in terms if term not in ("", "1")]
    odd = [term for term in terms if not re.fullmatch(r"[^()|*:^~/-]+|`[^`]+`", term)]
    if odd or len(groups) > 1 or not terms:
        culprit = odd or groups or [formula]
        msg = (
            f"formula={formula!r} must be a sum of columns with at most one random intercept, such as '~ label + age + (1 | donor)', "
            f"but has {_checks.first(culprit)}. Put products and functions into columns of obs first; set names with such "
            "characters in backticks."
        )
        raise ValueError(msg)
    unquoted = [term.strip("`") for term in [*terms, *groups]]
    return list(dict.fromkeys(unquoted[: len(terms)])), unquoted[-1] if groups else None


def covariate_matrix(samples: AnnData, keys: Sequence[str]) -> np.ndarray:
    """Numbers, and indicators of all classes but the first, (samples, columns), NaN where missing."""
    parts = [np.zeros((samples.n_obs, 0))]
    for key in keys:
        column = _checks.require_obs(samples, key)
        if column.isna().all():
            msg = f"Covariate samples.obs[{key!r}] is missing for all {samples.n_obs} samples. Leave it out."
            raise ValueError(msg)
        parts.append(as_columns(column)[0])
    return np.concatenate(parts, axis=1)


def design_groups(samples: AnnData, key: str) -> np.ndarray:
    """Codes of the groups in the order of their names, -1 where missing, (samples,)."""
    return _samples.text_codes(_checks.require_obs(samples, key), key)[0]


def read_covariates(
    samples: AnnData,
    labels: Target,
    covariates: Sequence[str],
    *,
    label_key: str,
    event_key: str | None,
    obsp_key: str | None,
    n_permutations: int,
) -> np.ndarray:
    """Covariates of the labelled samples as columns of numbers, (n, columns); ValueError for what cannot be one."""
    if obsp_key is not None or n_permutations:
        why = (
            "distances are no columns to add them to"
            if obsp_key is not None
            else "use result.added(), whose p-value is of the difference"
        )
        msg = f"covariates={list(covariates)} go with use_rep, without obsp_key and n_permutations: {why}."
        raise ValueError(msg)
    own = [key for key in covariates if key in (label_key, event_key)]
    if own:
        msg = f"{_checks.first(own)} is what is predicted, and cannot be a covariate."
        raise ValueError(msg)
    out = covariate_matrix(samples, covariates)[labels.rows]
    is_bad = ~np.isfinite(out).all(axis=1)
    if is_bad.any():
        culprits = _checks.first(samples.obs_names[labels.rows[is_bad]])
        msg = (
            f"Covariates {_checks.first(covariates, 20)} are missing in {is_bad.sum()} of {len(out)} labelled samples (first: {culprits}). "
            "Leave these samples out, or fill the values in."
        )
        raise ValueError(msg)
    return out

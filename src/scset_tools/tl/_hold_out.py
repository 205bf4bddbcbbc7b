"""What a caller asks of the split: which groups are tested on, and what beside the label is even over the folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scset_tools import _checks, _labels
from scset_tools.tl._splits import Fold
from scset_tools.tl._targets import Target

if TYPE_CHECKING:
    from anndata import AnnData


def hold_out(
    samples: AnnData, labels: Target, groups_key: str | None, *, test_groups: Sequence[Any], n_permutations: int
) -> Fold:
    """The fold that tests on the groups asked for and trains on all others; ValueError if it cannot be.

    Parameters
    ----------
    samples
        Sample-level AnnData.
    labels
        Target, which names the labelled samples.
    groups_key
        Column with the groups.
    test_groups
        Their names.
    n_permutations
        Asked for by the caller: there are none of one split.
    """
    if groups_key is None or n_permutations or isinstance(test_groups, str):
        msg = (
            f"test_groups={test_groups!r} must be a list of values of groups_key (now {groups_key!r}), without n_permutations (now "
            f"{n_permutations}), which permute the labels over all folds."
        )
        raise ValueError(msg)
    column = _checks.require_obs(samples, groups_key).iloc[labels.rows]
    names = column.map(_labels.name_of, na_action="ignore").astype(object)
    wanted = {_labels.name_of(group) for group in test_groups}
    absent = wanted - set(names.dropna())
    if absent or not wanted:
        msg = f"{_checks.first(sorted(absent))} of test_groups are no values of {groups_key!r} among the labelled samples: {_checks.first(sorted(set(names.dropna())), 20)}."
        raise ValueError(msg)
    is_test = names.isin(wanted).to_numpy()
    fold = Fold(0, 0, np.flatnonzero(~is_test), np.flatnonzero(is_test))
    part = labels.take(fold.train) if len(fold.train) else None
    if part is None or len(np.unique(part.values)) < 2:
        msg = (
            f"Without {_checks.first(sorted(wanted))} there are {len(fold.train)} labelled samples to train on, with fewer than two values of "
            f"{labels.key!r}."
        )
        raise ValueError(msg)
    return fold


def strata_of(samples: AnnData, labels: Target, strata_keys: Sequence[str] | str | None, *, cv: int) -> np.ndarray:
    """Codes that every fold should have in equal shares: the label, with the columns asked for, (n,).

    Parameters
    ----------
    samples
        Sample-level AnnData.
    labels
        Target, which names the labelled samples.
    strata_keys
        Columns of ``samples.obs``; a missing value is one of them.
    cv
        Number of folds.
    """
    strata = labels.strata(cv)
    for key in [strata_keys] if isinstance(strata_keys, str) else list(strata_keys or ()):
        column = _checks.require_obs(samples, key).iloc[labels.rows].map(_labels.name_of, na_action="ignore")
        codes = np.unique(column.astype(object).fillna("").to_numpy(dtype=str), return_inverse=True)[1]
        strata = np.unique(np.stack([strata, codes]), axis=1, return_inverse=True)[1].ravel()
    return strata

"""Covariates that say which sample it is: a decoder that is told them needs no vector."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from scset_tools import _checks

if TYPE_CHECKING:
    from anndata import AnnData

MAX_ALONE = 0.5
"""Share of the samples that classes may tell from all others without a warning."""


def require_shared(adata: AnnData, kinds: Mapping[str, str], sample_key: str) -> None:
    """Refuse a covariate that tells every sample, and warn of classes that tell most of them together.

    Parameters
    ----------
    adata
        Cells to be registered.
    kinds
        Column to kind, as :func:`read_kinds` found them.
    sample_key
        Column of the sample of each cell.

    Raises
    ------
    ValueError
        If a covariate is the column of samples, or each of its classes is found in one sample alone.

    Warns
    -----
    UserWarning
        If more than half of the samples have a combination of classes of their own.
    """
    samples = _checks.require_obs(adata, sample_key).astype(str).to_numpy()
    columns = {name: _checks.require_obs(adata, name) for name in kinds}
    for name, kind in kinds.items():
        if name == sample_key:
            msg = (
                f"covariate_keys names adata.obs[{name!r}], the samples themselves: a decoder that is told which sample it is needs no "
                "vector, and the vectors learn nothing. Name what samples share, such as their batch or treatment."
            )
            raise ValueError(msg)
        n_samples = pd.Series(samples).groupby(columns[name].to_numpy(), observed=True).nunique()
        if kind != "continuous" and len(set(samples)) > 1 and (n_samples == 1).all():
            msg = (
                f"Each of the {len(n_samples)} values of the covariate adata.obs[{name!r}] is found in one sample alone (first: "
                f"{_checks.first(n_samples.index)}): a decoder that is told it knows the sample, and the vectors need carry nothing. "
                f"Leave it out of covariate_keys{_otherwise(kind)}."
            )
            raise ValueError(msg)
    told = [name for name, kind in kinds.items() if kind == "class"]
    if not told:
        return
    table = pd.DataFrame({name: columns[name].astype(str).to_numpy() for name in told}, index=samples)
    is_alone = ~table[~table.index.duplicated()].duplicated(keep=False)
    if is_alone.mean() > MAX_ALONE:
        warnings.warn(
            f"The covariates {_checks.first(told)} tell {is_alone.sum()} of {len(is_alone)} samples from all others (first: "
            f"{_checks.first(is_alone.index[is_alone])}): of these the decoder knows the sample without its vector, which may then carry "
            "little. Leave out the one with the most values, such as the donor.",
            UserWarning,
            stacklevel=4,
        )


def _otherwise(kind: str) -> str:
    return ", or, if it is a number such as an age, have it read as 'continuous'" if kind == "class" else ""

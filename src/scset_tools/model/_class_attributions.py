"""What tells the classes of a label apart, by feature, cell and group of cells; and the writing of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scset_tools import _keys
from scset_tools._samples import as_text
from scset_tools._short_repr import ShortRepr

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True, repr=False)
class Attributions(ShortRepr):
    """Contributions to the scores of classes, from the mean cell as the baseline.

    Attributes
    ----------
    target
        Label whose classes are scored.
    features
        Contribution of each feature to the score of each class, in samples of the class less that in the others (in those of
        the reference, if there is one): how much it helps to tell them apart, (features, classes). With two classes both
        columns are equal.
    cells
        Contribution of each cell, summed over features, (cells, classes); NaN for a cell that was not drawn. For
        ``method="attention"`` its weight.
    completeness_error
        Per sample and class: how far the sum of attributions is from the score less that of the baseline, relative to it.
        NaN for a method that is not complete.
    group_features
        The part of ``features`` that comes from the cells of each group, indexed by (group, feature), (groups x features,
        classes). Without ``groupby`` no rows.
    reference
        Class whose score is subtracted, if any.
    method
        How they were computed.
    """

    target: str
    features: pd.DataFrame
    cells: pd.DataFrame
    completeness_error: pd.DataFrame
    group_features: pd.DataFrame = field(repr=False)
    reference: str | None = None
    method: str = "integrated_gradients"

    @property
    def groups(self) -> pd.DataFrame:
        """Contribution of the cells of each group, summed over features, (groups, classes)."""
        return self.group_features.groupby(level=0, sort=False, observed=True).sum()


def write_attributions(adata: AnnData, attributions: Attributions, *, name: str) -> None:
    """Attributions to each class: cells to ``obs``, features to ``var``, features x groups to ``varm``.

    Where ``var`` has other features they go to ``uns``.
    """
    is_var = np.array_equal(as_text(attributions.features.index), as_text(adata.var_names))
    groups = attributions.group_features.index.unique(level=0).astype(str)
    target = attributions.target
    full = [_keys.attribution_name(name, target, label) for label in attributions.cells.columns]
    _keys.remember(adata.uns, [*full, *groups, _keys.attribution_name(name, target)])
    for label in attributions.cells.columns:
        key = _keys.attribution(name, target, label)
        adata.obs[key] = attributions.cells[label].to_numpy(dtype=np.float32)
        if is_var:
            adata.var[key] = attributions.features[label].to_numpy(dtype=np.float32)
        if is_var and len(groups):
            values = attributions.group_features[label].to_numpy(dtype=np.float32).reshape(len(groups), -1)
            adata.varm[key] = pd.DataFrame(values.T, index=adata.var_names, columns=[_keys.key(g) for g in groups])
    if not is_var:
        adata.uns[_keys.attribution(name, target)] = attributions.features.rename(columns=_keys.key)

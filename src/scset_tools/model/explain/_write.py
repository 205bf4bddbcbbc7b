"""Attributions into an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scset_tools import _keys
from scset_tools._samples import as_text
from scset_tools.model._outputs import aligned_cells

if TYPE_CHECKING:
    from anndata import AnnData

    from scset_tools.model.explain._result import Attributions


def write_attributions(adata: AnnData, found: Attributions, *, key_added: str | None = None) -> None:
    """Cells to ``obs``, contrasts of features to ``var``, of features x groups to ``varm``, the rest to ``uns``.

    Features are aligned by name, and get NaN where the model does not know them; where ``var`` has none of them (the model read
    ``obsm``) they go to ``uns``. ``X`` is not touched.

    Parameters
    ----------
    adata
        Cells that were attributed to.
    found
        Attributions.
    key_added
        Name of what is written, instead of the model's.
    """
    names = pd.Index(as_text(adata.var_names))
    features = pd.Index(as_text(found.feature_names))
    is_var = bool(names.isin(features).any())
    whole = key_added or _keys.attribution_name(found.model, found.label_key)
    cells = aligned_cells(adata, found.cells)
    contrast = found.contrast().set_axis(features)
    _keys.remember(adata.uns, [whole, *(found.key_of(c, key_added) for c in found.classes), *found.group_names])
    for name in found.classes:
        key = _keys.key(found.key_of(name, key_added))
        adata.obs[key] = cells[name].to_numpy(dtype=np.float32)
        if not is_var:
            continue
        adata.var[key] = contrast[name].reindex(names).to_numpy(dtype=np.float32)
        if found.group_names:
            table = found.by_group_and_feature(name).T.set_axis(features).reindex(names).astype(np.float32)
            adata.varm[key] = table.set_axis(adata.var_names).rename(columns=_keys.key)
    about = {
        "label_key": found.label_key,
        "reference": found.reference or "",
        "head": found.head,
        "method": found.method,
        "baseline": found.baseline,
        "scores": _storable(found.scores),
        "baseline_scores": _storable(found.baseline_scores),
        "completeness_error": _storable(found.completeness_error),
    }
    if found.group_names:
        about["groups"] = _storable(found.groups)
    if not is_var:
        about["features"] = _storable(contrast)
    adata.uns[_keys.key(whole)] = about


def _storable(table: pd.DataFrame) -> pd.DataFrame:
    """With columns, and a name of the index (the column of samples), that a file can hold as keys."""
    name = table.index.name
    return table.rename(columns=_keys.key).rename_axis(index=None if name is None else _keys.key(name))

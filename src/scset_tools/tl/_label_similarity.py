"""How alike the samples of two labels are: correlation of their mean vectors (PaSCient, App. H-I)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scset_tools import _checks
from scset_tools._numbers import checks_numbers
from scset_tools.tl._representation import get_representation

if TYPE_CHECKING:
    from anndata import AnnData


@checks_numbers
def label_similarity(
    samples: AnnData, label_keys: str | Sequence[str], *, use_rep: str | None = None, min_samples: int = 1
) -> pd.DataFrame:
    """Pearson correlation between the mean vectors of labels, or of pairs of labels such as disease and tissue.

    Reports only. ``seaborn.clustermap(table, cmap="RdBu_r", vmin=-1, vmax=1)`` draws it in the order of a clustering.

    Parameters
    ----------
    samples
        Sample-level AnnData.
    label_keys
        One or several columns of ``samples.obs``; with several, each combination that occurs is a label (``"a | b"``).
    use_rep
        Key of ``samples.obsm``. Default: ``samples.X``.
    min_samples
        Labels with fewer samples are left out.

    Returns
    -------
    DataFrame
        (labels, labels), symmetric with ones on the diagonal, sorted by name. A label whose mean vector is constant has no
        correlation: NaN.

    Raises
    ------
    KeyError
        If a column or key does not exist.
    ValueError
        If fewer than two labels are left.
    """
    _checks.require_anndata(samples, caller="tl.label_similarity")
    keys = [label_keys] if isinstance(label_keys, str) else list(label_keys)
    columns = [_checks.require_obs(samples, key) for key in keys]
    is_known = np.logical_and.reduce([c.notna().to_numpy() for c in columns])
    names = columns[0].astype(str)
    for column in columns[1:]:
        names = names + " | " + column.astype(str)
    x = np.asarray(get_representation(samples, use_rep), dtype=np.float64)
    frame = pd.DataFrame(x[is_known]).groupby(names[is_known].to_numpy())
    size = frame.size()
    means = frame.mean().loc[size.index[size >= min_samples]]
    if len(means) < 2:
        msg = (
            f"Similarity needs two labels with at least min_samples={min_samples} samples, but {keys} has {len(means)} "
            f"({_checks.first(size.index)})."
        )
        raise ValueError(msg)
    centred = means.to_numpy() - means.to_numpy().mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1)
    unit = centred / np.where(length > 0, length, np.nan)[:, None]
    similarity = np.clip(unit @ unit.T, -1, 1)
    np.fill_diagonal(similarity, np.where(length > 0, 1.0, np.nan))
    return pd.DataFrame(similarity, index=means.index, columns=means.index)

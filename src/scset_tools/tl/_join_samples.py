"""Vectors of the same samples from several models or modalities side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from scset_tools import _checks

if TYPE_CHECKING:
    from anndata import AnnData


def join_samples(
    parts: Mapping[str, AnnData],
    *,
    join: Literal["inner", "outer"] = "inner",
    use_rep: Mapping[str, str] | None = None,
) -> AnnData:
    """Join vectors of samples from modalities whose cells are not paired, each from a model of its own.

    Vectors are centred and divided by the root of their total variance over the samples that have them, so that every part
    weighs the same whatever its length and scale; within a part the geometry is kept.

    Parameters
    ----------
    parts
        Sample-level AnnData by name (``{"rna": ..., "adt": ...}``), two at least; samples are matched by name.
    join
        ``"inner"``: samples that every part has; ``"outer"``: all samples. A part that a sample lacks is zero, the mean of
        the others, and ``obs["has_<part>"]`` says so.
    use_rep
        Entry of ``obsm`` of a part to take instead of its ``X``.

    Returns
    -------
    Sample-level AnnData: ``X`` the parts side by side (float32), ``obsm["X_<part>"]`` each of them, ``var["part"]``; ``obs`` has the
    columns of all parts, where they agree under their own name, else as ``"<part>:<column>"``.

    Raises
    ------
    TypeError
        If a part is no AnnData.
    ValueError
        If there are fewer than two parts, names of samples are not unique, or no sample is in all parts (``join="inner"``).

    Examples
    --------
    >>> import scset_tools as sst
    >>> cells = sst.datasets.perturbation_cohort(n_samples=6, n_cells=40)
    >>> mean, share = (
    ...     sst.profiles.Mean(sample_key="sample"),
    ...     sst.profiles.Fractions(sample_key="sample", cell_type_key="cell_type"),
    ... )
    >>> joint = sst.tl.join_samples({"mean": mean.fit_transform(cells), "share": share.fit_transform(cells)})
    >>> sorted(joint.obsm)
    ['X_mean', 'X_share']
    """
    import anndata

    _checks.require_choice("join", join, ("inner", "outer"))
    if len(parts) < 2:
        msg = f"tl.join_samples needs two parts at least, but was given {_checks.first(parts)}."
        raise ValueError(msg)
    for name, part in parts.items():
        _checks.require_anndata(part, caller="tl.join_samples")
        if not part.obs_names.is_unique:
            twice = part.obs_names[part.obs_names.duplicated()].unique()
            msg = f"{len(twice)} samples of {name!r} are there twice, first: {_checks.first(twice)}."
            raise ValueError(msg)
    tables = list(parts.values())
    names = tables[0].obs_names
    for part in tables[1:]:
        names = names[names.isin(part.obs_names)] if join == "inner" else names.append(part.obs_names.difference(names))
    if not len(names):
        shown = "; ".join(f"{name!r} has {_checks.first(part.obs_names, 3)}" for name, part in parts.items())
        msg = f"No sample is in all {len(parts)} parts: {shown}. Samples are matched by name; rename them, or join='outer'."
        raise ValueError(msg)
    obsm, var = {}, []
    obs = pd.DataFrame(index=names)
    for name, part in parts.items():
        rep = (use_rep or {}).get(name)
        x = _checks.dense(part.X if rep is None else _checks.require_obsm(part, rep), f"The vectors of {name!r}")
        x = x.astype(np.float64)
        centred = x - x.mean(axis=0)
        size = np.sqrt(np.square(centred).sum() / max(1, len(x)))
        rows = part.obs_names.get_indexer(names)
        taken = centred[rows] / (size if size > 0 else 1.0)
        taken[rows < 0] = 0.0
        obsm[f"X_{name}"] = taken.astype(np.float32)
        if join == "outer":
            obs[f"has_{name}"] = rows >= 0
        var += [(f"{name}:{i}", name) for i in range(x.shape[1])]
    for name, part in parts.items():
        _add_columns(obs, part.obs.reindex(names), name, parts)
    features = pd.DataFrame(var, columns=["name", "part"]).set_index("name")
    features.index.name = None
    return anndata.AnnData(np.concatenate(list(obsm.values()), axis=1), obs=obs, var=features, obsm=obsm)


def _add_columns(obs: pd.DataFrame, own: pd.DataFrame, name: str, parts: Mapping[str, AnnData]) -> None:
    """Columns on which the parts agree, wherever they have a sample, under their own name; others under that of the part."""
    for column in own:
        others = [part.obs[column].reindex(obs.index) for part in parts.values() if column in part.obs]
        first = others[0].astype(object)
        for other in others[1:]:
            first = first.where(first.notna(), other.astype(object))
        agree = all((o.isna() | (o.astype(str) == first.astype(str))).all() for o in others)
        if not agree:
            obs[f"{name}:{column}"] = own[column]
        elif column not in obs:
            complete = next((o for o in others if o.notna().all()), None)
            obs[column] = first.infer_objects() if complete is None else complete

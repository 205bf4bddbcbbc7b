"""Select the latents of a representation that vary (ScSet, section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scset_tools import _checks, _keys
from scset_tools._numbers import checks_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


@checks_numbers
def highly_variable_latents(
    adata: AnnData,
    use_rep: str,
    *,
    min_sd: float = 0.4,
    n_latents: int | None = None,
    kept: Sequence[int | str] | None = None,
    like: AnnData | None = None,
    key_added: str | None = None,
) -> None:
    """Keep the latents of a representation whose standard deviation over all cells is large enough.

    A variational autoencoder with more latents than it needs leaves many of them at their prior, where the mean of a cell
    hardly moves; a diffusion model would spend its effort on them. scSet keeps 14 of 50 scVI latents, those above 0.4.

    Parameters
    ----------
    adata
        Annotated data matrix of cells.
    use_rep
        Key of ``adata.obsm`` with the latents, cells x latents.
    min_sd
        Latents with a standard deviation above this are kept.
    n_latents
        Keep so many latents, those with the largest standard deviation, whatever ``min_sd``.
    kept
        Keep these latents, by number or name, whatever their spread: those of another cohort, whose model is to read this one.
    like
        The same from an AnnData of which latents were kept before, under the same key.
    key_added
        Key of ``adata.obsm`` to write to. Default: ``"<use_rep>_hv"``.

    Returns
    -------
    None. Sets:

    ``adata.obsm[key_added]`` : DataFrame of the latents that are kept, in their order, float32. Its columns have the names of those of ``use_rep``,
    or ``scVI_0``, ``scVI_3`` and so on by their numbers, so that a model does not take others for them.
    ``adata.uns[key_added]`` : dict of ``kept`` (their numbers), ``sd`` (of all latents) and ``params``.

    Raises
    ------
    KeyError
        If ``use_rep`` is not there, ``like`` has nothing under the key, or a latent that is to be kept is not there.
    ValueError
        If both ``kept`` and ``like`` are given, no latent, or fewer than ``n_latents``, are there to keep, or a value is not finite.
    """
    _checks.require_anndata(adata, caller="pp.highly_variable_latents")
    values = _checks.require_obsm(adata, use_rep)
    x = _checks.dense(values, f"adata.obsm[{use_rep!r}]")
    if x.ndim != 2 or not np.isfinite(x).all():
        msg = f"adata.obsm[{use_rep!r}] must be cells x latents with finite values, found shape {x.shape}."
        raise ValueError(msg)
    sd = x.std(axis=0, dtype=np.float64)
    key = _keys.key(key_added or f"{use_rep}_hv")
    names = _names(values, use_rep, x.shape[1])
    params: dict[str, Any] = {"use_rep": use_rep}
    if kept is not None and like is not None:
        msg = "Give `kept` or `like`, not both."
        raise ValueError(msg)
    if like is not None:
        kept = _kept_by(like, key)
    if kept is not None:
        chosen = _numbers(kept, names, f"adata.obsm[{use_rep!r}]")
    elif n_latents is not None:
        if not 1 <= n_latents <= len(sd):
            msg = f"n_latents={n_latents} must be 1 to {len(sd)}, the number of latents of adata.obsm[{use_rep!r}]."
            raise ValueError(msg)
        chosen = np.sort(np.argsort(-sd, kind="stable")[:n_latents])
        params["n_latents"] = n_latents
    else:
        chosen = np.flatnonzero(sd > min_sd)
        params["min_sd"] = min_sd
    if not len(chosen):
        msg = (
            f"No latent of adata.obsm[{use_rep!r}] has a standard deviation above min_sd={min_sd}: the largest is "
            f"{sd.max(initial=0.0):.3g}. Lower min_sd, or ask for n_latents."
        )
        raise ValueError(msg)
    adata.obsm[key] = pd.DataFrame(
        x[:, chosen].astype(np.float32), index=adata.obs_names, columns=[names[i] for i in chosen]
    )
    adata.uns[key] = {"kept": chosen, "sd": sd, "params": params}


def _names(values: Any, use_rep: str, n: int) -> list[str]:
    """Names of the latents: those of the columns, or their numbers after the name of the representation."""
    if isinstance(values, pd.DataFrame):
        return [str(name) for name in values.columns]
    return [f"{use_rep.removeprefix('X_')}_{i}" for i in range(n)]


def _kept_by(like: AnnData, key: str) -> list[str]:
    """Names of the latents that were kept of another cohort."""
    _checks.require_anndata(like, caller="pp.highly_variable_latents(like=)")
    table = like.obsm.get(key)
    if not isinstance(table, pd.DataFrame):
        msg = (
            f"`like` has no latents with names in obsm[{key!r}] (keys: {_checks.first(like.obsm.keys(), 20)}): call highly_variable_latents on it "
            "first, with the same use_rep or key_added."
        )
        raise KeyError(msg)
    return [str(name) for name in table.columns]


def _numbers(kept: Sequence[int | str], names: list[str], where: str) -> np.ndarray:
    """Numbers of latents that are named or numbered, in the order given."""
    place = {name: i for i, name in enumerate(names)}
    found = [k if isinstance(k, int | np.integer) else place.get(str(k), -1) for k in kept]
    absent = [k for k, i in zip(kept, found, strict=True) if not 0 <= i < len(names)]
    if absent:
        msg = f"{where} has no latents {_checks.first(absent)}: it has {len(names)}, {_checks.first(names)}."
        raise KeyError(msg)
    if len(set(found)) < len(found):
        msg = f"kept={list(kept)} names a latent twice."
        raise ValueError(msg)
    return np.asarray(found, dtype=np.int64)

"""Select the latents of a representation that vary (ScSet, section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scset_tools import _checks, _keys

if TYPE_CHECKING:
    from anndata import AnnData


def highly_variable_latents(
    adata: AnnData,
    use_rep: str,
    *,
    min_sd: float = 0.4,
    n_latents: int | None = None,
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
    key_added
        Key of ``adata.obsm`` to write to. Default: ``"<use_rep>_hv"``.

    Returns
    -------
    None. Sets:

    ``adata.obsm[key_added]`` : the latents that are kept, in their order, float32.
    ``adata.uns[key_added]`` : dict of ``kept`` (their numbers), ``sd`` (of all latents) and ``params``.

    Raises
    ------
    KeyError
        If ``use_rep`` is not there.
    ValueError
        If no latent, or fewer than ``n_latents``, are there to keep, or a value is not finite.
    """
    _checks.require_anndata(adata, caller="pp.highly_variable_latents")
    values = _checks.require_obsm(adata, use_rep)
    x = _checks.dense(values, f"adata.obsm[{use_rep!r}]")
    if x.ndim != 2 or not np.isfinite(x).all():
        msg = f"adata.obsm[{use_rep!r}] must be cells x latents with finite values, found shape {x.shape}."
        raise ValueError(msg)
    sd = x.std(axis=0, dtype=np.float64)
    if n_latents is not None:
        if not 1 <= n_latents <= len(sd):
            msg = f"n_latents={n_latents} must be 1 to {len(sd)}, the number of latents of adata.obsm[{use_rep!r}]."
            raise ValueError(msg)
        kept = np.sort(np.argsort(-sd, kind="stable")[:n_latents])
    else:
        kept = np.flatnonzero(sd > min_sd)
    if not len(kept):
        msg = (
            f"No latent of adata.obsm[{use_rep!r}] has a standard deviation above min_sd={min_sd}: the largest is "
            f"{sd.max(initial=0.0):.3g}. Lower min_sd, or ask for n_latents."
        )
        raise ValueError(msg)
    key = _keys.key(key_added or f"{use_rep}_hv")
    params = (
        {"use_rep": use_rep, "min_sd": min_sd} if n_latents is None else {"use_rep": use_rep, "n_latents": n_latents}
    )
    adata.obsm[key] = x[:, kept].astype(np.float32)
    adata.uns[key] = {"kept": kept, "sd": sd, "params": params}

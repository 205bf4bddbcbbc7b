"""From generated latents back to genes: the inverse of principal components, or the decoder of a trained scVI model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scset_tools import _checks
from scset_tools.data._features import describe_source, feature_moments
from scset_tools.data._rows import RowReader
from scset_tools.model.scset._counterfactual import AsksForSamples

if TYPE_CHECKING:
    from collections.abc import Sequence

N_CHECKED = 200
"""Cells on which it is checked that components and data belong together."""

TOLERANCE = 0.02
"""Root mean square of the difference of latents computed anew, in standard deviations of the latents."""

LIBRARY = 1e4
"""Counts of a cell that scVI decodes."""


class DecodesGenes(AsksForSamples):
    """Generated latents as genes."""

    decoder_: dict[str, Any] | None = None
    """Genes, their means and the loadings of the latents on them; saved with the model."""

    _scvi_decoder: Any = None

    def register_decoder(
        self, decoder: AnnData | Any | None = None, *, layer: str | None = None, varm_key: str = "PCs"
    ) -> None:
        """Name what turns the latents that the model reads (``use_rep``) back into genes, for :meth:`to_genes`.

        Parameters
        ----------
        decoder
            AnnData with the loadings of scanpy's PCA in ``varm`` and the values that it was computed from; default: the registered one. Or
            a trained scVI model of scvi-tools whose latents ``use_rep`` holds, which is not saved along and has to be named again after loading.
        layer
            Layer that the PCA was computed from. Default: ``adata.X``.
        varm_key
            Key of ``adata.varm`` with the loadings.

        Raises
        ------
        KeyError
            If the loadings or the representation are not there.
        ValueError
            If the model reads genes itself, its latents have no numbers, or the values are not those that the representation was computed from.
        """
        use_rep = self.registry["setup_args"].get("use_rep")
        if use_rep is None:
            msg = "This ScSet reads the features of adata.X or a layer: what it generates needs no decoder."
            raise ValueError(msg)
        numbers = numbers_of_latents(self.get_var_names(), use_rep)
        if decoder is not None and not isinstance(decoder, AnnData):
            n_latent = int(getattr(decoder.module, "n_latent", max(numbers) + 1))
            if max(numbers) >= n_latent:
                msg = f"The scVI model has {n_latent} latents, but this ScSet reads the latent {max(numbers)} of adata.obsm[{use_rep!r}]."
                raise ValueError(msg)
            self._scvi_decoder, self.decoder_ = decoder, None
            return
        adata = self.adata if decoder is None else decoder
        if adata is None:
            msg = "The model has no AnnData: give the one that the PCA was computed on, register_decoder(adata)."
            raise ValueError(msg)
        if varm_key not in adata.varm:
            msg = f"{varm_key!r} is not in adata.varm. Keys: {_checks.first(adata.varm.keys(), 20)}. scanpy.pp.pca writes it."
            raise KeyError(msg)
        loadings = _checks.dense(adata.varm[varm_key], f"adata.varm[{varm_key!r}]")
        if max(numbers) >= loadings.shape[1]:
            msg = f"adata.varm[{varm_key!r}] has {loadings.shape[1]} components, but the model reads number {max(numbers)}."
            raise ValueError(msg)
        loadings = loadings[:, numbers]
        is_used = (loadings != 0).any(axis=1)
        reader = RowReader(adata.X if layer is None else _checks.require_layer(adata, layer))
        mean = feature_moments(reader)[0][0].astype(np.float64)
        mean = _checked_mean(adata, reader, loadings, mean, use_rep=use_rep, where=describe_source(layer=layer))
        self.decoder_ = {
            "genes": [str(g) for g in adata.var_names[is_used]],
            "mean": mean[is_used].astype(np.float32),
            "loadings": loadings[is_used].T.astype(np.float32),
        }
        self._scvi_decoder = None

    def to_genes(self, cells: AnnData) -> AnnData:
        """Generated cells with genes as features.

        Parameters
        ----------
        cells
            Cells as :meth:`sample_cells` or :meth:`counterfactual` gave them, with the latents in ``X``.

        Returns
        -------
        AnnData with the genes in ``X``, ``obs`` as before and the latents in ``obsm["X_latent"]``. By PCA: values on the scale that the PCA was
        computed from, as far as the components go, so that they vary less than true ones and can lie below zero. By scVI: expected
        counts of 10,000 in a cell of the first batch.

        Raises
        ------
        ValueError
            If no decoder is registered, or the features are not the latents that the model reads.
        """
        known = list(self.get_var_names())
        if list(cells.var_names) != known:
            msg = f"The cells have {cells.n_vars} features {_checks.first(cells.var_names)}, but the latents of this model are {_checks.first(known)}."
            raise ValueError(msg)
        x = _checks.dense(cells.X, "cells.X")
        if self.decoder_ is not None:
            values = x @ self.decoder_["loadings"] + self.decoder_["mean"]
            genes: Sequence[str] = self.decoder_["genes"]
        elif self._scvi_decoder is not None:
            values, genes = _by_scvi(self._scvi_decoder, x, numbers_of_latents(self.get_var_names(), "use_rep"))
        else:
            msg = "No decoder is registered: name one by register_decoder(), an AnnData with a PCA or a trained scVI model."
            raise ValueError(msg)
        out = AnnData(values.astype(np.float32), obs=cells.obs.copy(), var=pd.DataFrame(index=pd.Index(genes)))
        out.obsm["X_latent"] = x.astype(np.float32)
        return out


def numbers_of_latents(names: Sequence[str], use_rep: str) -> list[int]:
    """Which column of the representation each latent is, by the number at the end of its name."""
    found = [re.search(r"(?:^|_)(\d+)$", str(name)) for name in names]
    bare = [str(name) for name, match in zip(names, found, strict=True) if match is None]
    if bare:
        msg = (
            f"{len(bare)} of {len(names)} columns of adata.obsm[{use_rep!r}] have names without a number (first: {_checks.first(bare)}): it is "
            "not known which component they are. scset_tools.pp.highly_variable_latents names them."
        )
        raise ValueError(msg)
    return [int(match[1]) for match in found if match is not None]


def _checked_mean(
    adata: AnnData, reader: RowReader, loadings: np.ndarray, mean: np.ndarray, *, use_rep: str, where: str
) -> np.ndarray:
    """The mean that was subtracted before the PCA, which is that of the values or none; an error where neither gives the latents."""
    rows = np.unique(np.linspace(0, adata.n_obs - 1, min(N_CHECKED, adata.n_obs)).astype(np.int64))
    given = _checks.dense(_checks.require_obsm(adata, use_rep), f"adata.obsm[{use_rep!r}]")[rows]
    x = reader(rows).astype(np.float64)
    error = np.inf
    for subtracted in (mean, np.zeros_like(mean)):
        error = min(error, float(np.sqrt(np.mean(((x - subtracted) @ loadings - given) ** 2)) / given.std()))
        if error < TOLERANCE:
            return subtracted
    msg = (
        f"{where} is not what adata.obsm[{use_rep!r}] was computed from: its principal components, computed anew for {len(rows)} cells, differ by "
        f"{error:.2g} standard deviations. Give the layer that they came from (layer=), with the values of that time."
    )
    raise ValueError(msg)


def _by_scvi(model: Any, x: np.ndarray, numbers: list[int]) -> tuple[np.ndarray, list[str]]:
    """Expected counts from scVI's decoder; latents that were left out are at their mean."""
    n_latent = int(model.module.n_latent)
    z = np.zeros((len(x), n_latent))
    if len(numbers) < n_latent:
        z[:] = model.get_latent_representation().mean(axis=0)
    z[:, numbers] = x
    out = []
    with torch.inference_mode():
        for part in np.array_split(z, max(1, len(z) // 4096)):
            tensor = torch.from_numpy(part).to(next(model.module.parameters()))
            of_cell = torch.zeros(len(part), 1, dtype=torch.int64, device=tensor.device)
            library = torch.full((len(part), 1), float(np.log(LIBRARY)), device=tensor.device)
            expected = model.module.generative(z=tensor, library=library, batch_index=of_cell)
            px = expected["px"]
            scale = px.scale if getattr(px, "scale", None) is not None else px.mean / px.mean.sum(1, keepdim=True)
            out.append((LIBRARY * scale).float().cpu().numpy())
    return np.concatenate(out), [str(g) for g in model.adata.var_names]

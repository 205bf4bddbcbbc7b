"""Bulk profiles as samples: what users call."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd
import torch

from scset_tools import _checks
from scset_tools.data._features import describe_source
from scset_tools.data._rows import RowReader
from scset_tools.model.scset._bulk import BulkHead, read_profiles
from scset_tools.model.scset._genes import DecodesGenes

if TYPE_CHECKING:
    from anndata import AnnData

TILT = 2.0
"""How far compositions of mixtures lie from those of their samples; see ``tilt`` of the model."""


class ReadsBulk(DecodesGenes):
    """Vectors of bulk profiles."""

    bulk_: dict[str, Any] | None = None
    """What :class:`~scset_tools.model.scset._bulk.BulkHead` holds; saved with the model."""

    def fit_bulk(
        self,
        adata: AnnData | None = None,
        *,
        layer: str | None = None,
        values: Literal["counts", "mean"] = "counts",
        n_mixtures: int = 10,
        seed: int = 0,
    ) -> None:
        """Learn to read bulk profiles, from mixtures of the training cells; the encoder stays as it is.

        Each training sample gives itself and ``n_mixtures`` halves of its cells, of other compositions. Of each the encoder
        reads the vector and the cells are added up to a profile; a kernel regression learns the vector from the profile. How well, on samples
        left out, is ``bulk_["error"]`` (share of the variance that it does not predict).

        Parameters
        ----------
        adata
            Cells of the training samples with the genes that profiles have. Default: the registered AnnData.
        layer
            Layer with the genes. Default: ``adata.X``.
        values
            ``"counts"``: profiles are counts or intensities that add up over cells; they are scaled to 10,000 and their logarithms taken.
            ``"mean"``: profiles are means of features that are normalised or transformed already.
        n_mixtures
            Mixtures of each sample.
        seed
            Seed of the mixtures.

        Raises
        ------
        ValueError
            If the model is not trained, there are fewer than three training samples, or counts are negative.
        """
        self._require_generation()
        _checks.require_choice("values", values, ("counts", "mean"))
        module = self.module.eval()
        profiles, vectors, of = [], [], []
        with self._reading(adata) as cells, torch.inference_mode():
            dataset = self._dataset(cells, seed=seed)
            trained = set(getattr(self, "train_samples_", None) or [])
            chosen = [i for i, name in enumerate(dataset.index.names) if str(name) in trained]
            if len(chosen) < 3:
                msg = f"Only {len(chosen)} of the {len(trained)} training samples are in the AnnData: at least 3 are needed to learn from."
                raise ValueError(msg)
            reader = RowReader(cells.X if layer is None else _checks.require_layer(cells, layer))
            for sample in chosen:
                batch = dataset[0, [sample]].to(module.device)
                rows = batch.rows.cpu().numpy()
                genes = reader.csr(rows).astype(np.float64)
                if values == "counts" and len(genes.data) and genes.data.min() < 0:
                    where = describe_source(layer=layer)
                    msg = (
                        f"values='counts' adds {where} up, but sample {dataset.index.names[sample]!r} has negative values (smallest: "
                        f"{genes.data.min():.3g}). Give counts (layer=), or values='mean' for transformed features."
                    )
                    raise ValueError(msg)
                x = module.standardize(batch)
                for mixture in range(n_mixtures + 1):
                    kept, ptr = torch.arange(len(x), device=x.device), batch.ptr
                    if mixture:
                        kept, ptr = module.tilted(x, batch.ptr, batch.seed + mixture, tilt=TILT)
                    part = replace(
                        batch,
                        x=cast("torch.Tensor", batch.x)[kept],
                        ptr=ptr,
                        rows=batch.rows[kept],
                        covariates={k: v[kept] for k, v in batch.covariates.items()},
                    )
                    vectors.append(module.represent(part).float().cpu().numpy()[0])
                    total = np.asarray(genes[kept.cpu().numpy()].sum(axis=0)).ravel()
                    profiles.append(total if values == "counts" else total / len(kept))
                    of.append(sample)
            names = cells.var_names.astype(str)
        head = BulkHead.fit(
            np.stack(profiles), np.stack(vectors).astype(np.float64), np.array(of), genes=list(names), values=values
        )
        self.bulk_ = head.to_dict()

    def get_bulk_representation(self, bulk: pd.DataFrame | AnnData) -> pd.DataFrame:
        """Vectors of bulk profiles, such as the encoder would read from their cells.

        Parameters
        ----------
        bulk
            Profiles, samples x genes: counts or means, as :meth:`fit_bulk` was told. Genes are found by name, in any order; those that are not there
            count as average, and a warning tells how many they are.

        Returns
        -------
        DataFrame of shape (samples, n_latent), float32, indexed by the rows of ``bulk``.

        Raises
        ------
        ValueError
            If :meth:`fit_bulk` was not called, no gene is known, or a value is missing.
        TypeError
            If ``bulk`` is neither a DataFrame nor an AnnData.
        """
        if self.bulk_ is None:
            msg = "This ScSet does not read bulk profiles yet: call fit_bulk() first, with the cells of the training samples."
            raise ValueError(msg)
        head = BulkHead.from_dict(self.bulk_)
        profiles, where, names = read_profiles(bulk, head)
        return pd.DataFrame(head(profiles, where).astype(np.float32), index=names)

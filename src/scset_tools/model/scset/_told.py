"""What the decoder of ScSet is told of a sample, and where the vector of a sample lies that has other covariates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scset_tools.model._covariate_setup import TakesCovariates
from scset_tools.model._covariates import Asked, asked_values
from scset_tools.model.scset._prior import VectorPrior

if TYPE_CHECKING:
    from anndata import AnnData


class ToldSamples(TakesCovariates):
    """Vectors and covariates of samples that are decoded."""

    prior_: dict[str, np.ndarray] | None = None
    """What :class:`VectorPrior` holds, once it was fitted; saved with the model."""

    if TYPE_CHECKING:

        def get_bulk_representation(self, bulk: pd.DataFrame | AnnData) -> pd.DataFrame: ...

    def _asked_for(
        self,
        sample: Sequence[str] | str | None,
        adata: AnnData | None,
        representation: pd.DataFrame | None,
        covariates: Asked | None,
        guidance: float,
    ) -> tuple[pd.DataFrame, pd.DataFrame | None, pd.DataFrame | None]:
        """Vectors, moved to what is asked for; what the decoder is told; and the same without what guidance strengthens."""
        self._require_generation()
        registered = self._covariates
        is_given = representation is not None
        representation = self._vectors(sample, adata, representation)
        own = pd.DataFrame(np.nan, index=representation.index, columns=[c.name for c in registered])
        if not is_given:
            own = self._own_values(adata, list(representation.index))
        told, names = asked_values(covariates, registered, own, ranges=self._covariate_ranges)
        self._require_guidance(guidance, told)
        if not registered:
            return representation, None, None
        untold = told.copy()
        untold[names or list(told.columns)] = np.nan
        if not is_given and names:
            representation = representation + self._moved(own, told)
        return representation, told, untold

    def _moved(self, own: pd.DataFrame, told: pd.DataFrame, *, rng: np.random.Generator | None = None) -> np.ndarray:
        """How far vectors lie from each other on average that have the values asked for and the samples' own, (samples, n_latent).

        What is not known of a sample, or not asked, does not move it.
        """
        prior = self._prior()
        effects = None if rng is None else prior.drawn_effects(rng)
        own, told = own.where(told.notna()), told.where(own.notna())
        to, since = (prior.expected(values, self._covariates, effects=effects) for values in (told, own))
        return (to - since).astype(np.float32)

    def _prior(self) -> VectorPrior:
        """Distribution of the vectors of the training samples given their covariates, fitted when it is first needed."""
        if self.prior_ is None:
            trained = getattr(self, "train_samples_", None) or []
            names = [n for n in ([] if self.adata is None else self.sample_names) if n in set(trained)]
            if len(names) < 2:
                msg = (
                    f"The vectors of the training samples are needed, but only {len(names)} of {len(trained)} are attached: load the "
                    "model with the cells it was trained on, load(directory, adata=adata), or call sample_vectors() before saving."
                )
                raise ValueError(msg)
            vectors = self.get_sample_representation(samples=names).to_numpy()
            self.prior_ = VectorPrior.fit(vectors, self._own_values(None, names), self._covariates).to_dict()
        return VectorPrior.from_dict(self.prior_)

    def _require_guidance(self, guidance: float, told: pd.DataFrame) -> None:
        if not guidance:
            return
        conditions = self.module.conditions
        if conditions is None or not conditions.dropout_rate:
            why = (
                "was set up without covariates: name them in ScSet.setup_anndata(adata, ..., covariate_keys=[...])"
                if conditions is None
                else "was trained with covariate_dropout=0 and does not know cells of which nothing is told: train ScSet(adata, covariate_dropout=0.1)"
            )
            msg = f"guidance={guidance} compares what is told with what is not, but this model {why}."
            raise ValueError(msg)
        silent = told.index[told.isna().all(axis=1)]
        if len(silent):
            msg = (
                f"guidance={guidance} has nothing to strengthen for {len(silent)} of {len(told)} samples (first: {list(silent[:3])}), of which "
                "no covariate is known: ask for some, sample_cells(covariates={...})."
            )
            raise ValueError(msg)

    def _require_generation(self) -> None:
        if not self.is_trained_:
            msg = "This ScSet is not trained: call train() before cells are generated, which would be noise."
            raise ValueError(msg)

    def _vectors(
        self, sample: Sequence[str] | str | None, adata: AnnData | None, representation: pd.DataFrame | None
    ) -> pd.DataFrame:
        if representation is None:
            names = [sample] if isinstance(sample, str) else sample
            return self.get_sample_representation(adata, samples=names)
        if sample is not None or adata is not None:
            msg = "Give `representation`, or `sample` and `adata`, not both."
            raise ValueError(msg)
        return representation

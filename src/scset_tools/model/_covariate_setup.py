"""Covariates of samples in the set-up of a model that tells them to its decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from scset_tools import _checks
from scset_tools.model._arguments import require_setup_arguments
from scset_tools.model._base import SampleModelClass
from scset_tools.model._covariate_identity import require_shared
from scset_tools.model._covariates import (
    KINDS,
    CellCovariates,
    Covariate,
    covariates_of,
    fields_of_covariates,
    read_kinds,
    values_of_samples,
)
from scset_tools.model._init_params import with_arguments_of

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


class TakesCovariates(SampleModelClass):
    """A model with ``setup_anndata(covariate_keys=)``."""

    _own_keys = ("covariate_keys",)
    _covariate_kinds: tuple[str, ...] = KINDS

    covariate_ranges_: dict[str, list[float]] | None = None
    """Smallest and largest value of each covariate that is a number; saved with the model."""

    @classmethod
    @with_arguments_of(SampleModelClass.setup_anndata.__func__)
    def setup_anndata(
        cls, adata: AnnData, sample_key: str, *, covariate_keys: CellCovariates | None = None, **kwargs: Any
    ) -> None:
        """Register an AnnData for this model. ``obs`` and ``X`` are not touched; ``uns`` gets scvi-tools' own entries.

        Parameters
        ----------
        adata
            Annotated data matrix of cells x features. Rows are cells.
        sample_key
            Column of ``adata.obs`` with the sample of each cell: the set that is embedded as one vector. Must be complete.
        covariate_keys
            What the decoder is told of a sample beside its vector (treatment, batch, age, time): a column of ``adata.obs``, several, or
            columns with their kind, ``"class"``, ``"continuous"``, or, for ScSet, ``"cell"`` for a class of the single cell, such as its type.
            Without a kind, numbers of more than two values are continuous, and all else classes. Those of samples have one value per sample;
            what is missing, or absent from new data, is not told.
        %(others)s

        Raises
        ------
        KeyError
            If a key is not in ``adata``.
        ValueError
            As for the other models; and if a covariate varies within a sample that must not, has one value only, or tells every sample: a
            decoder that knows the sample needs no vector.
        TypeError
            If given anything but an AnnData.

        Warns
        -----
        UserWarning
            If more than half of the samples have a combination of classes of their own.
        """
        _checks.require_anndata(adata, caller=f"{cls.__name__}.setup_anndata")
        require_setup_arguments(cls, kwargs)
        is_new = "source_registry" not in kwargs
        kinds = read_kinds(adata, covariate_keys, sample_key, is_new=is_new, kinds=cls._covariate_kinds)
        if is_new and kinds:
            require_shared(adata, kinds, sample_key)
        super().setup_anndata(adata, sample_key, covariate_keys=kinds or None, **kwargs)

    @classmethod
    def _other_fields(cls, sample_key: str, *, covariate_keys: Mapping[str, str] | None = None) -> tuple[Any, ...]:
        return fields_of_covariates(covariate_keys or {}, sample_key)

    @property
    def _covariates(self) -> list[Covariate]:
        """What the decoder is told, as it was registered."""
        return covariates_of(self.registry)

    @property
    def _covariate_ranges(self) -> dict[str, tuple[float, float]]:
        return {k: (low, high) for k, (low, high) in (getattr(self, "covariate_ranges_", None) or {}).items()}

    def _moments_of_covariates(self) -> torch.Tensor | None:
        """Mean and standard deviation of each number over the registered samples, 0 and 1 for classes, (covariates, 2)."""
        covariates = self._covariates
        if not covariates:
            return None
        moments = torch.tensor([[0.0, 1.0]] * len(covariates))
        if self.adata is None:  # the values come with the saved weights
            return moments
        table = values_of_samples(self.adata_manager, covariates, self.sample_names)
        self.covariate_ranges_ = {}
        for i, c in enumerate(covariates):
            if c.kind == "continuous":
                values = table[c.name]
                moments[i] = torch.tensor([values.mean(), values.std(ddof=0)])
                self.covariate_ranges_[c.name] = [float(values.min()), float(values.max())]
        return moments

    def _own_values(self, adata: AnnData | None, names: list[str]) -> pd.DataFrame:
        """What samples have, as numbers, NaN where it is not known, (samples, covariates)."""
        with self._reading(adata) as cells:
            return values_of_samples(self._manager_of(cells), self._covariates, names)

"""A model in the place of a profile: fitted on training samples, applied to any."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator

from scset_tools._samples import as_text, sample_of_cells

if TYPE_CHECKING:
    from typing import Self

    from anndata import AnnData

    from scset_tools.model._base import SampleModelClass


class ModelProfile(BaseEstimator):
    """A model with the interface of :mod:`scset_tools.profiles`, for comparisons without leakage.

    ``fit`` sets the model up on the cells of the training samples and trains it; ``transform`` embeds any samples. With
    ``train=None`` the weights stay random: the control that a trained model has to beat.

    Parameters
    ----------
    model
        Class of the model, for instance ``scset_tools.MAESTRO``.
    sample_key
        Column of ``adata.obs`` with the sample of each cell.
    setup, build, train
        Further arguments of ``setup_anndata``, of the constructor and of ``train``. ``train=None``: do not train.

    Examples
    --------
    >>> import scset_tools as sst
    >>> adata = sst.datasets.perturbation_cohort(n_samples=6, n_cells=40)
    >>> sizes = {"n_hidden": 16, "n_latent": 4, "n_inducing": 4}
    >>> control = sst.model.ModelProfile(sst.MAESTRO, sample_key="sample", build={**sizes, "random_state": 0})
    >>> control.fit(adata).transform(adata).shape
    (6, 4)
    """

    def __init__(
        self,
        model: type[SampleModelClass],
        *,
        sample_key: str,
        setup: dict[str, Any] | None = None,
        build: dict[str, Any] | None = None,
        train: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.sample_key = model, sample_key
        self.setup, self.build, self.train = setup, build, train

    def fit(self, adata: AnnData, *, samples: Sequence[str] | None = None) -> Self:
        """Set the model up on the training samples, and train it.

        Parameters
        ----------
        adata
            Cells of the samples.
        samples
            Names of the training samples. Default: all.
        """
        cells = adata
        if samples is not None:
            cells = adata[np.isin(sample_of_cells(adata, self.sample_key), as_text(samples))].copy()
        self.model.setup_anndata(cells, self.sample_key, **(self.setup or {}))
        self.model_ = self.model(cells, **(self.build or {}))
        if self.train is not None:
            self.model_.train(**self.train)
        return self

    def transform(self, adata: AnnData) -> AnnData:
        """A sample-level AnnData of all samples of ``adata``.

        Parameters
        ----------
        adata
            Cells of the samples to embed.
        """
        with warnings.catch_warnings():
            if self.train is None:  # the warning that weights are random is what this control is about
                warnings.filterwarnings("ignore", message=".*is not trained")
            return self.model_.to_sample_adata(adata)

    def fit_transform(self, adata: AnnData, *, samples: Sequence[str] | None = None) -> AnnData:
        """``fit`` on the named samples, then ``transform`` of all samples of ``adata``.

        Parameters
        ----------
        adata
            Cells of the samples.
        samples
            Names of the training samples. Default: all.
        """
        return self.fit(adata, samples=samples).transform(adata)

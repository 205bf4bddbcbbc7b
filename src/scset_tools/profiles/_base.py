"""The contract of a profile: cells in, one vector per sample out."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from scset_tools import _checks, _keys
from scset_tools._numbers import check_numbers
from scset_tools._samples import as_text, sample_adata
from scset_tools.data._index import SampleIndex
from scset_tools.data._rows import Named
from scset_tools.profiles._cells import Cells

if TYPE_CHECKING:
    from typing import Self

    from anndata import AnnData


class Profile(BaseEstimator, ABC):
    """Base of all profiles: what `fit` may see, and what `transform` returns.

    A profile is a scikit-learn estimator: the constructor stores its parameters and does nothing else, so that
    :func:`sklearn.base.clone` gives an unfitted copy for every fold. `fit` learns from the cells of the training samples
    alone. `transform` maps each sample by itself: the vector of a sample depends on its own cells and on the training
    samples, never on the other samples that are transformed with it.

    To add a profile, write `_fit` and `_transform` (and `_feature_names`); both get the cells as
    :class:`~scset_tools.profiles._cells.Cells`, in blocks of bounded size.
    """

    name: ClassVar[str]
    """Short name: key in `obsm` (`X_<name>`) and `uns` of the result."""

    _reads_cells: ClassVar[bool] = True
    """Whether the profile looks at the matrix of cells x features at all."""

    sample_key: str

    def fit(self, adata: AnnData, *, samples: Sequence[str] | None = None) -> Self:
        """Learn from the cells of the training samples.

        Parameters
        ----------
        adata
            Annotated data matrix of cells x features, in memory, backed, or with zarr or dask arrays.
        samples
            Names of the training samples; their order does not matter. Default: all samples.

        Returns
        -------
        The profile itself.

        Raises
        ------
        KeyError
            If a key or a sample is not in `adata`.
        ValueError
            If the data do not suffice (the message says what is missing).
        """
        given = inspect.signature(type(self)).parameters
        check_numbers({name: p.annotation for name, p in given.items()}, self.get_params(deep=False))
        cells = self._cells(adata, samples)
        self.feature_names_in_ = np.asarray(cells.features)
        self.n_fit_samples_ = cells.n_samples
        self._fit(cells)
        return self

    def transform(self, adata: AnnData) -> AnnData:
        """One vector for each sample of `adata`.

        Parameters
        ----------
        adata
            Annotated data matrix with the features that `fit` saw; the samples may be others.

        Returns
        -------
        AnnData with one row per sample, sorted by name: `X` (samples x features, float32) and the same under
        `obsm['X_<name>']`; `obs` has the columns that are constant within samples and `n_cells`; `uns['<name>']` the
        parameters.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If `fit` was not called before.
        ValueError
            If the features differ from those of `fit`.
        """
        check_is_fitted(self, "n_fit_samples_")
        cells = self._cells(adata, None)
        self._check_features(cells.features)
        x = np.asarray(self._transform(cells), dtype=np.float32)
        return sample_adata(
            x,
            adata,
            sample_key=self.sample_key,
            name=self.name,
            features=self._feature_names(x.shape[1]),
            provenance={
                "profile": type(self).__name__,
                "params": self.get_params(deep=False),
                "n_fit_samples": self.n_fit_samples_,
            },
        )

    def fit_transform(self, adata: AnnData, *, samples: Sequence[str] | None = None) -> AnnData:
        """`fit` on the training samples, then `transform` of all samples of `adata`.

        Parameters
        ----------
        adata
            Annotated data matrix of cells x features.
        samples
            Names of the training samples. Default: all samples.

        Returns
        -------
        AnnData with one row per sample, training samples and others; see :meth:`transform`.
        """
        return self.fit(adata, samples=samples).transform(adata)

    @abstractmethod
    def _fit(self, cells: Cells) -> None:
        """Learn what is needed, in attributes that end with an underscore."""

    @abstractmethod
    def _transform(self, cells: Cells) -> np.ndarray:
        """Vectors of shape (samples, features), in the order of ``cells.names``."""

    def _feature_names(self, n: int) -> Sequence[str]:
        """Names of the columns of the result."""
        return _keys.features(self.name, n)

    def _cells(self, adata: AnnData, samples: Sequence[str] | None) -> Cells:
        _checks.require_anndata(adata, caller=f"profiles.{type(self).__name__}")
        _checks.require_obs(adata, self.sample_key)
        index = SampleIndex.from_obs(adata.obs, self.sample_key)
        chosen = np.unique(index.positions(samples))
        if len(chosen) == 0:
            msg = f"No samples to use: `samples` is empty, or adata has no cells (shape {adata.shape})."
            raise ValueError(msg)
        codes = np.full(adata.n_obs, -1, dtype=np.int64)
        codes[index.cells_of(chosen)] = np.repeat(np.arange(len(chosen)), index.sizes[chosen])
        names = index.names[chosen]
        source, where, features = self._source(adata) if self._reads_cells else (None, "adata.obs", np.zeros(0, object))
        if self._reads_cells and len(features) == 0:
            msg = f"{where} has no features."
            raise ValueError(msg)
        named = Named(where, adata.obs_names, features, lambda row: str(names[codes[row]]))
        return Cells(source, adata.obs, codes, names, pd.Index(features), named)

    def _source(self, adata: AnnData) -> tuple[Any, str, np.ndarray]:
        """The matrix to read, how messages name it, and the names of its columns."""
        use_rep, layer = getattr(self, "use_rep", None), getattr(self, "layer", None)
        if use_rep is not None and layer is not None:
            msg = f"Give use_rep or layer, not both (use_rep={use_rep!r}, layer={layer!r})."
            raise ValueError(msg)
        if use_rep is not None:
            rep: Any = _checks.require_obsm(adata, use_rep)
            if len(rep.shape) != 2:
                msg = f"adata.obsm[{use_rep!r}] must be cells x features, but has shape {tuple(rep.shape)}."
                raise ValueError(msg)
            columns = rep.columns if isinstance(rep, pd.DataFrame) else _keys.features(use_rep, rep.shape[1])
            return rep, f"adata.obsm[{use_rep!r}]", as_text(columns)
        source = adata.X if layer is None else _checks.require_layer(adata, layer)
        if source is None:
            msg = "adata.X is None: name the matrix to use with use_rep (a key of adata.obsm) or layer."
            raise ValueError(msg)
        return source, "adata.X" if layer is None else f"adata.layers[{layer!r}]", as_text(adata.var_names)

    def _check_features(self, features: pd.Index) -> None:
        fitted = self.feature_names_in_
        if len(fitted) != len(features):
            msg = (
                f"{type(self).__name__} was fitted on {len(fitted)} features {_checks.first(list(fitted))}, but adata has "
                f"{len(features)} {_checks.first(features)}. Subset adata to the features of the fit."
            )
            raise ValueError(msg)
        differs = np.flatnonzero(np.asarray(features) != fitted)
        if len(differs):
            msg = (
                f"{len(differs)} of {len(fitted)} features are not those of the fit, or in another order: fitted on "
                f"{_checks.first(list(fitted[differs]))}, given {_checks.first(features[differs])}. "
                "Reorder with adata[:, profile.feature_names_in_]."
            )
            raise ValueError(msg)

"""One modality of a MuData in the place of an AnnData.

The model's own AnnData is the modality, the very object that the MuData holds: what a model writes appears in
``mdata[modality]``. Columns that stand in ``mdata.obs`` alone are copied to it, aligned through ``mdata.obsmap``: cells
of a modality may be fewer than those of the MuData, and in another order.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from scset_tools import _checks
from scset_tools._docs import docs
from scset_tools._modalities import is_mudata, modality_of

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

UNS_KEY = "_scvi_modality"
"""Entry of ``mdata.uns``: the modality that each model class was set up on."""


class MuDataSetup:
    """Set a model up on one modality of a MuData; for the base of all models."""

    modality_: str | None = None
    """The modality that the model reads, if it was set up on a MuData; saved with the model."""

    def __init__(self, adata: AnnData | MuData | None = None, registry: dict | None = None) -> None:
        mdata = adata if is_mudata(adata) else None
        if mdata is not None:
            self.modality_ = registered_modality(mdata, type(self).__name__)
            adata = modality_of(mdata, self.modality_)
        super().__init__(adata, registry)  # type: ignore[call-arg]  # scvi-tools' base comes next
        if mdata is not None:
            keys = obs_keys(self.registry["setup_args"])  # type: ignore[attr-defined]
            self.adata_manager.beside = _Columns(mdata, str(self.modality_), list(keys))  # type: ignore[attr-defined]

    @classmethod
    @docs.dedent
    def setup_mudata(cls, mdata: MuData, sample_key: str, *, modality: str, **kwargs: Any) -> None:
        """Register one modality of a MuData for this model; then ``Model(mdata)``.

        The model takes the MuData wherever it takes an AnnData, and reads this modality of it; what it writes goes to
        ``mdata[modality]``. Columns named here that stand in ``mdata.obs`` alone are copied to ``mdata[modality].obs``.

        Parameters
        ----------
        mdata
            Annotated data of several modalities with cells along axis 0. Cells need not be paired.
        sample_key
            Column of ``mdata.obs`` or of ``mdata[modality].obs`` with the sample of each cell.
        modality
            Name of the modality to read: a key of ``mdata.mod``.
        **kwargs
            Further arguments of ``setup_anndata`` of the same model (``layer``, ``use_rep``, ``labels_key``, ...).

        Raises
        ------
        TypeError
            If given anything but a MuData.
        KeyError
            If there is no such modality, or a column is in neither ``obs``.
        ValueError
            If the MuData is a view or out of date, or if ``mdata.obs`` and ``mdata[modality].obs`` disagree on a column; and
            as in ``setup_anndata``.
        """
        cells = modality_of(mdata, modality, caller=f"{cls.__name__}.setup_mudata")
        for key in obs_keys({"sample_key": sample_key, **kwargs}):
            if not lift_column(mdata, modality, key):
                columns = [c for c in mdata.obs.columns if ":" not in str(c)]
                msg = (
                    f"{key!r} is a column of neither mdata.obs {_checks.first(columns, 20)} nor mdata[{modality!r}].obs "
                    f"{_checks.first(cells.obs.columns, 20)}."
                )
                raise KeyError(msg)
        cls.setup_anndata(cells, sample_key, **kwargs)  # type: ignore[attr-defined]  # of the model
        mdata.uns[UNS_KEY] = {**mdata.uns.get(UNS_KEY, {}), cls.__name__: modality}

    def _cells_of(self, data: AnnData | MuData | None) -> AnnData:
        """The AnnData that is meant: itself, the model's modality of a MuData, or, for None, the model's own."""
        if data is None:
            return self.adata  # type: ignore[attr-defined]  # of scvi-tools' base; None if there is none
        if not is_mudata(data):
            return cast("AnnData", data)
        if self.modality_ is None:
            msg = (
                f"This {type(self).__name__} was set up on an AnnData, but was given a MuData with modalities "
                f"{_checks.first(data.mod)}. Pass the modality that it reads, mdata['...'], as an AnnData."
            )
            raise TypeError(msg)
        cells = modality_of(data, self.modality_)
        for key in obs_keys(self.registry["setup_args"]):  # type: ignore[attr-defined]
            lift_column(data, self.modality_, key)  # labels may be absent from new data; fields say what may not
        return cells


class _Columns:
    """Whether columns of ``mdata.obs`` still say what the modality says, for as long as the MuData is there."""

    def __init__(self, mdata: MuData, modality: str, keys: list[str]) -> None:
        self.mdata, self.modality, self.keys = weakref.ref(mdata), modality, keys

    def __call__(self) -> None:
        mdata = self.mdata()
        for key in self.keys if mdata is not None and self.modality in mdata.mod else ():
            lift_column(mdata, self.modality, key)


def registered_modality(mdata: MuData, model: str) -> str:
    """The modality of a MuData that a model class was set up on."""
    modalities = mdata.uns.get(UNS_KEY, {})
    if model not in modalities:
        msg = (
            f"This MuData is not set up for {model}: call {model}.setup_mudata(mdata, sample_key, modality=...) first."
        )
        raise ValueError(msg)
    return str(modalities[model])


def obs_keys(arguments: Mapping[str, Any]) -> Iterator[str]:
    """The columns of ``obs`` that arguments name: those called ``*_key`` or ``*_keys``, each one name, several, or a dict."""
    for name, value in arguments.items():
        if name.endswith(("_key", "_keys")) and value is not None:
            names = value.values() if name == "event_key" and isinstance(value, Mapping) else value
            yield from [names] if isinstance(names, str) else names


def lift_column(mdata: MuData, modality: str, key: str) -> bool:
    """Copy a column of ``mdata.obs`` to a modality that lacks it; whether the modality has it now.

    Raises
    ------
    ValueError
        If both have the column and disagree, if the MuData is out of date, or for the prefixed name of a column that the
        modality has.
    """
    cells = mdata.mod[modality]
    bare = key.removeprefix(f"{modality}:")
    if bare != key and bare in cells.obs:
        msg = f"{key!r} is the copy in mdata.obs of a column of mdata[{modality!r}].obs: name it {bare!r}."
        raise ValueError(msg)
    if key not in mdata.obs:
        return key in cells.obs
    position = np.asarray(mdata.obsmap[modality]).astype(np.int64).ravel()  # 0: not in the modality; else row + 1
    if not np.array_equal(np.sort(position[position > 0]), np.arange(1, cells.n_obs + 1)):
        msg = (
            f"mdata.obs does not know all {cells.n_obs} cells of mdata[{modality!r}] (it knows {(position > 0).sum()}): "
            "bring it up to date with mdata.update()."
        )
        raise ValueError(msg)
    order = np.empty(cells.n_obs, dtype=np.int64)
    order[position[position > 0] - 1] = np.flatnonzero(position)
    column = mdata.obs[key].iloc[order].set_axis(cells.obs_names)
    if key not in cells.obs:
        cells.obs[key] = column
        return True
    differs = _as_text(column) != _as_text(cells.obs[key])
    if differs.any():
        names = cells.obs_names[differs]
        msg = (
            f"mdata.obs[{key!r}] and mdata[{modality!r}].obs[{key!r}] differ in {differs.sum()} of {cells.n_obs} cells "
            f"(first: {_checks.first(names)}). Rename or drop one of them."
        )
        raise ValueError(msg)
    return True


def _as_text(column: pd.Series) -> np.ndarray:
    """Values as text, so that the same names compare equal as text and as categories; missing is one value."""
    return np.where(column.isna(), "", column.astype(object).astype(str))

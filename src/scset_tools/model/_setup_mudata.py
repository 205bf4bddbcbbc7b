"""One modality of a MuData, or several joined, in the place of an AnnData.

The model's own AnnData is the modality, the very object that the MuData holds: what a model writes appears in
``mdata[modality]``. Columns that stand in ``mdata.obs`` alone are copied to it, aligned through ``mdata.obsmap``: cells
of a modality may be fewer than those of the MuData, and in another order.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from scset_tools import _checks
from scset_tools._docs import docs
from scset_tools._joined import JOINED, give_back
from scset_tools._modalities import is_mudata, modality_of
from scset_tools.model._arguments import require_setup_arguments
from scset_tools.model._joint import JoinedFrom, join, keep_join, kept_join, recipe_of, require_common

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

UNS_KEY = "_scvi_modality"
"""Entry of ``mdata.uns``: the modality that each model class was set up on."""


class MuDataSetup:
    """Set a model up on one modality of a MuData, or on several; for the base of all models."""

    modality_: str | None = None
    """The modality that the model reads, if it was set up on one of a MuData; saved with the model."""
    joined_: dict[str, Any] | None = None
    """How the modalities are joined that the model reads, if it was set up on several; saved with the model."""
    _one_scale: str | None = None
    """Why the model reads no joined modalities; None if it does."""

    def __init__(self, adata: AnnData | MuData | None = None, registry: dict | None = None) -> None:
        mdata = adata if is_mudata(adata) else None
        if mdata is not None:
            found = registered_modality(mdata, type(self).__name__)
            if isinstance(found, str):
                self.modality_, adata = found, modality_of(mdata, found)
            else:
                adata, self.joined_ = found
        super().__init__(adata, registry)  # type: ignore[call-arg]  # scvi-tools' base comes next
        if mdata is not None:
            self._remember(mdata)

    def _remember(self, mdata: MuData) -> None:
        """Keep the MuData in sight: what is said of cells there is to agree, or results are to go back to it."""
        manager = self.adata_manager  # type: ignore[attr-defined]
        keys = list(obs_keys(self.registry["setup_args"]))  # type: ignore[attr-defined]
        if self.joined_ is not None:
            manager.beside = JoinedFrom(mdata, self.joined_["modalities"], keys)
        else:
            manager.beside = _Columns(mdata, str(self.modality_), keys)

    @classmethod
    @docs.dedent
    def setup_mudata(
        cls,
        mdata: MuData,
        sample_key: str,
        *,
        modality: str | None = None,
        modalities: Sequence[str] | None = None,
        paired: bool | None = None,
        use_rep: str | Mapping[str, str] | None = None,
        layer: str | Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Register one modality of a MuData for this model, or several; then ``Model(mdata)``.

        The model takes the MuData wherever it takes an AnnData. One modality is read without a copy, and what the model writes goes to
        ``mdata[modality]``; columns named here that stand in ``mdata.obs`` alone are copied to ``mdata[modality].obs``. Several are joined to one
        AnnData of all cells (:func:`scset_tools.pp.join_modalities`, ``join="outer"``), a copy, and what the model writes goes back to the cells
        and features of each modality. *Paired* cells have the features of several modalities. *Unpaired* ones have those of one each, and a
        sample is as many sets of cells: each goes through the encoder, and the vector of the sample is the mean of theirs, whatever their
        numbers of cells. What a cell or a sample lacks is masked, neither zero nor imputed.

        Parameters
        ----------
        mdata
            Annotated data of several modalities with cells along axis 0.
        sample_key
            Column of ``mdata.obs`` or of ``mdata[modality].obs`` with the sample of each cell.
        modality
            Name of the modality to read: a key of ``mdata.mod``.
        modalities
            Names of several modalities to read. :class:`~scset_tools.model.MAESTRO` and :class:`~scset_tools.model.ScSet` take an open panel
            (``panel="open"``, the default then), :class:`~scset_tools.model.PaSCient` takes cells that have all of them.
        paired
            Whether cells of the same name in several modalities are one cell that has them all (True), or every cell has one modality (False).
            Default: paired, if any cell is in several.
        use_rep
            Entry of ``obsm`` to read instead of ``X``; with several modalities one for all, or by modality: ``{"rna": "X_pca"}``. Every feature
            is standardised, so that scales may differ, and a modality weighs by the number of its features.
        layer
            Layer to read instead, likewise: ``{"adt": "clr"}``.
        **kwargs
            Further arguments of ``setup_anndata`` of the same model (``labels_key``, ``batch_key``, ...).

        Raises
        ------
        TypeError
            If given anything but a MuData.
        KeyError
            If there is no such modality, entry or layer, or a column is in neither ``obs``.
        ValueError
            If the MuData is a view or out of date, if ``mdata.obs`` and the ``obs`` of a modality disagree on a column, if
            cells are not paired as ``paired`` says, or a sample has no cell of any of the modalities; and as in ``setup_anndata``.

        Warns
        -----
        UserWarning
            If one modality has ten times as many features as another.

        Examples
        --------
        >>> import logging, mudata, scset_tools as sst
        >>> logging.getLogger("scvi").setLevel(logging.WARNING)
        >>> cells = sst.datasets.perturbation_cohort(n_samples=6, n_cells=40)
        >>> mdata = mudata.MuData({"rna": cells[:, :8].copy(), "adt": cells[:, 8:].copy()})
        >>> sst.MAESTRO.setup_mudata(mdata, "sample", modalities=["rna", "adt"])
        >>> model = sst.MAESTRO(mdata, n_hidden=16, n_latent=4, n_inducing=4)
        >>> model.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
        >>> sorted(model.to_sample_adata().obsm)
        ['X_maestro', 'X_maestro_adt', 'X_maestro_rna']
        """
        caller = f"{cls.__name__}.setup_mudata"
        require_setup_arguments(cls, kwargs, method="setup_mudata")
        if (modality is None) == (modalities is None):
            modality_of(mdata, next(iter(getattr(mdata, "mod", {"": 0}))), caller=caller)
            msg = f"{caller} reads one `modality` or several `modalities` of {_checks.first(mdata.mod, 20)}: name them."
            raise ValueError(msg)
        if modalities is not None:
            how = {"use_rep": use_rep, "layer": layer, "paired": paired}
            cls._setup_joined(mdata, sample_key, modalities, how=how, **kwargs)
            return
        if paired is not None:
            msg = f"paired={paired} says how several modalities belong together, but {caller} was given one."
            raise ValueError(msg)
        reads = {name: value for name, value in (("use_rep", use_rep), ("layer", layer)) if value is not None}
        cells = modality_of(mdata, modality, caller=caller)
        for key in obs_keys({"sample_key": sample_key, **kwargs}):
            if not lift_column(mdata, modality, key):
                columns = [c for c in mdata.obs.columns if ":" not in str(c)]
                msg = (
                    f"{key!r} is a column of neither mdata.obs {_checks.first(columns, 20)} nor mdata[{modality!r}].obs "
                    f"{_checks.first(cells.obs.columns, 20)}."
                )
                raise KeyError(msg)
        cls.setup_anndata(cells, sample_key, **reads, **kwargs)  # type: ignore[attr-defined]  # of the model
        mdata.uns[UNS_KEY] = {**mdata.uns.get(UNS_KEY, {}), cls.__name__: modality}

    @classmethod
    def _setup_joined(
        cls, mdata: MuData, sample_key: str, modalities: Sequence[str], *, how: dict[str, Any], **kwargs: Any
    ) -> None:
        caller = f"{cls.__name__}.setup_mudata"
        if cls._one_scale is not None:
            msg = f"{caller} takes one `modality`: {cls._one_scale}."
            raise ValueError(msg)
        panel = kwargs.setdefault("panel", "open" if "open" in cls._panels else "fixed")  # type: ignore[attr-defined]
        recipe = recipe_of(modalities, caller=caller, **how)
        keys = list(obs_keys(kwargs))
        cells = join(mdata, sample_key, recipe, keys=keys, caller=caller, is_new=True, is_open=panel == "open")
        for key in keys:
            _checks.require_obs(cells, key)
        recipe["paired"] = bool(cells.uns[JOINED]["paired"])
        cls.setup_anndata(cells, sample_key, **kwargs)  # type: ignore[attr-defined]
        keep_join(mdata, cls.__name__, cells)
        mdata.uns[UNS_KEY] = {**mdata.uns.get(UNS_KEY, {}), cls.__name__: recipe}

    def _cells_of(self, data: AnnData | MuData | None) -> AnnData:
        """The AnnData that is meant: itself, what the model reads of a MuData, or, for None, the model's own."""
        if data is None:
            return self.adata  # type: ignore[attr-defined]  # of scvi-tools' base; None if there is none
        if not is_mudata(data):
            return cast("AnnData", data)
        arguments = self.registry["setup_args"]  # type: ignore[attr-defined]
        if self.joined_ is not None:
            known = self.get_var_names()  # type: ignore[attr-defined]
            is_open = arguments.get("panel", "fixed") == "open"
            keys = [key for key in obs_keys(arguments) if key != arguments["sample_key"]]
            how = {"keys": keys, "caller": f"{type(self).__name__}.setup_mudata", "is_new": False, "is_open": is_open}
            cells = join(data, arguments["sample_key"], self.joined_, **how)
            require_common(cells, known)
            return cells
        if self.modality_ is None:
            msg = (
                f"This {type(self).__name__} was set up on an AnnData, but was given a MuData with modalities "
                f"{_checks.first(data.mod)}. Pass the modality that it reads, mdata['...'], as an AnnData."
            )
            raise TypeError(msg)
        cells = modality_of(data, self.modality_)
        for key in obs_keys(arguments):
            lift_column(data, self.modality_, key)  # labels may be absent from new data; fields say what may not
        return cells

    def _give_back(self, cells: AnnData, data: AnnData | MuData | None) -> None:
        """What was written to joined cells, to the modalities of the MuData that they are of; nothing for other cells."""
        if self.joined_ is None:
            return
        if data is None and self.adata_manager is not None:  # type: ignore[attr-defined]
            beside = self.adata_manager.beside  # type: ignore[attr-defined]
            data = beside.mdata() if isinstance(beside, JoinedFrom) else None
        if is_mudata(data):
            give_back(cells, data, caller=type(self).__name__)


class _Columns:
    """Whether columns of ``mdata.obs`` still say what the modality says, for as long as the MuData is there."""

    def __init__(self, mdata: MuData, modality: str, keys: list[str]) -> None:
        self.mdata, self.modality, self.keys = weakref.ref(mdata), modality, keys

    def __call__(self) -> None:
        mdata = self.mdata()
        for key in self.keys if mdata is not None and self.modality in mdata.mod else ():
            lift_column(mdata, self.modality, key)


def registered_modality(mdata: MuData, model: str) -> str | tuple[AnnData, dict[str, Any]]:
    """The modality of a MuData that a model class was set up on, or the joined cells of several and how they were joined."""
    found = mdata.uns.get(UNS_KEY, {}).get(model)
    if found is None:
        msg = (
            f"This MuData is not set up for {model}: call {model}.setup_mudata(mdata, sample_key, modality=...) first."
        )
        raise ValueError(msg)
    if isinstance(found, str):
        return found
    cells = kept_join(mdata, model)
    if cells is None:
        msg = (
            f"This MuData is a copy, or was read from a file: its joined modalities are not at hand. Call {model}.setup_mudata(mdata, "
            "sample_key, modalities=...) again."
        )
        raise ValueError(msg)
    return cells, dict(found)


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

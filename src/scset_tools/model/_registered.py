"""What a model registered, of its own AnnData and of others that it is asked about."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from scvi import REGISTRY_KEYS, settings
from scvi.data._constants import _SCVI_UUID_KEY  # not exported
from scvi.data._utils import _assign_adata_uuid, _check_if_view  # not exported
from scvi.model.base import BaseModelClass

from scset_tools import _checks
from scset_tools._numbers import check_methods
from scset_tools._units import warn_of_several_samples_in_one
from scset_tools.data._dataset import SampleDataset
from scset_tools.data._feature_fields import CellLayerField
from scset_tools.data._manager import SampleManager
from scset_tools.data._panel import IS_PAIRED, MODALITY
from scset_tools.model._arguments import require_train_arguments
from scset_tools.model._setup_mudata import MuDataSetup, obs_keys

if TYPE_CHECKING:
    from anndata import AnnData


class RegisteredModel(MuDataSetup, BaseModelClass):
    """Base of :class:`~scset_tools.model.SampleModelClass`: from set-ups to managers.

    The manager of the model's own AnnData belongs to the model, and compares what it registered with the AnnData whenever
    the model is made, trained or asked. Another AnnData is registered for as long as a question about it takes.
    """

    _dataset_cls: type[SampleDataset] = SampleDataset
    _read: dict[str, Any] = {}  # noqa: RUF012  (a model replaces it, nobody changes it)
    """How its dataset reads cells."""
    _layer_field_cls: type[CellLayerField] = CellLayerField
    """How it registers features from ``X`` or a layer."""
    _panels: tuple[str, ...] = ("fixed",)
    """What ``panel`` of :meth:`setup_anndata` may be."""
    _why_fixed: str | None = None
    """Why it may not be open, as a clause."""
    stopped_after_: list[int] | None = None
    """Epochs done and asked for, of a training that was interrupted."""
    start_: str | None = None
    """What weights come from that were taken over and not trained since."""
    run_: dict[str, str] | None = None
    """Name and start of the last training, if it wrote checkpoints: these may be gone on with."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_methods(cls)

    def __init__(self, adata: AnnData | None = None, registry: dict | None = None) -> None:
        super().__init__(adata, registry)
        weakref.finalize(self, type(self)._per_instance_manager_store.pop, self.id, None)
        if self.adata_manager is not None:
            self.adata_manager.validate()

    @property
    def name(self) -> str:
        """Lower-case name: prefix of everything the model writes."""
        return type(self).__name__.lower()

    @property
    def sample_names(self) -> list[str]:
        """Names of the samples in the registered AnnData, sorted."""
        return [str(n) for n in self.registry["field_registries"]["sample"]["state_registry"]["categorical_mapping"]]

    def get_var_names(self, legacy_mudata_format: bool = False) -> np.ndarray:  # noqa: FBT001, FBT002  (scvi's signature)
        """Names of the features that the model reads, whether or not an AnnData is attached."""
        state = self.registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]
        return np.asarray(state["column_names"]).astype(str)

    @property
    def _sample_key(self) -> str:
        return str(self.registry["setup_args"]["sample_key"])

    @property
    def _is_open(self) -> bool:
        """Whether samples may lack features."""
        return bool(self.registry["setup_args"].get("panel", "fixed") == "open")

    @property
    def _n_input(self) -> int:
        return len(self.get_var_names())

    @property
    def _modality_arguments(self) -> dict[str, Any]:
        """What a module is told of the modalities of its features: nothing, unless there are several and samples may lack them."""
        state = self.registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]
        if MODALITY not in state:
            return {}
        _, codes = np.unique(np.asarray(state[MODALITY]).astype(str), return_inverse=True)
        return {"modality": torch.from_numpy(codes.astype(np.int64)), "is_paired": bool(state[IS_PAIRED])}

    def _check_if_trained(self, warn: bool = True, message: str = "") -> None:  # noqa: FBT001, FBT002  (scvi's signature)
        if not self.is_trained_ and self.stopped_after_ is not None:
            done, asked = self.stopped_after_
            message = f"This {type(self).__name__} is partly trained: its training was stopped after {done} of {asked} epochs."
        super()._check_if_trained(warn=warn, message=message)

    def _warn_if_untrained(self, consequence: str) -> None:
        """Say what random weights are about to be used for."""
        self._check_if_trained(message=f"This {type(self).__name__} is not trained: {consequence}.")

    @classmethod
    def setup_annbatch(cls, *args: Any, **kwargs: Any) -> None:
        """Not for models of samples: scvi-tools' loader hands out cells in random order.

        Parameters
        ----------
        *args, **kwargs
            Whatever scvi-tools takes.

        Raises
        ------
        NotImplementedError
            Always, with what to call instead.
        """
        raise _no_batches_of_cells(cls, "setup_annbatch")

    @classmethod
    def setup_datamodule(cls, *args: Any, **kwargs: Any) -> None:
        """Not for models of samples: the data modules of scvi-tools hand out cells in random order.

        Parameters
        ----------
        *args, **kwargs
            Whatever scvi-tools takes.

        Raises
        ------
        NotImplementedError
            Always, with what to call instead.
        """
        raise _no_batches_of_cells(cls, "setup_datamodule")

    def _require_trainable(self, given: dict[str, Any], **nested: Any) -> None:
        """Raise for a model without cells, for arguments that nobody takes, and for a data module; None, scvi-tools' default, means nothing."""
        if self.adata is None:
            msg = "The model has no AnnData to train on: load it with one, load(directory, adata=adata)."
            raise ValueError(msg)
        if given.pop("datamodule", None) is not None:
            raise _no_batches_of_cells(type(self), "train(datamodule=...)")
        require_train_arguments(type(self), {**given, **nested})

    @classmethod
    def _require_panel(cls, panel: str, use_rep: str | None) -> None:
        _checks.require_choice("panel", panel, ("fixed", "open"))
        if panel not in cls._panels:
            why = "" if cls._why_fixed is None else f": {cls._why_fixed}"
            msg = f"{cls.__name__} reads a fixed panel{why}; panel='open' is for MAESTRO and ScSet."
            raise ValueError(msg)
        if panel == "open" and use_rep is not None:
            msg = f"panel='open' reads markers by name, from X or a layer, not from obsm (use_rep={use_rep!r})."
            raise ValueError(msg)

    @classmethod
    def _register(cls, adata: AnnData, fields: list, setup_method_args: dict[str, Any], **kwargs: Any) -> None:
        """Register fields; the manager keeps what it found, and ``Model(adata)`` finds the manager."""
        known = cls._setup_adata_manager_store.get(adata.uns.get(_SCVI_UUID_KEY))
        if known is not None and known.adata is not adata:
            _assign_adata_uuid(adata, overwrite=True)  # a copy is another object: the set-up of the first one stays
        manager = SampleManager(fields=fields, setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
        if "source_registry" not in kwargs:
            warn_of_several_samples_in_one(adata.obs, setup_method_args["setup_args"]["sample_key"])
        manager.warn_if_unsorted()
        cls.register_manager(manager)
        weakref.finalize(adata, _forget, cls._setup_adata_manager_store, manager.adata_uuid)

    def _register_as_in_training(self, adata: AnnData) -> SampleManager:
        """Register an AnnData with the arguments and the categories of the training data, for this model alone."""
        store = type(self)._setup_adata_manager_store
        before = dict(store)
        try:
            type(self).setup_anndata(adata, source_registry=self.registry, **self.registry["setup_args"])
            manager = self._get_most_recent_anndata_manager(adata, required=True)
        finally:  # what the user set up stays as it was
            store.clear()
            store.update(before)
        self._register_manager_for_instance(manager)
        return manager

    def _validate_anndata(self, adata: AnnData | None = None, copy_if_view: bool = True) -> AnnData:  # noqa: FBT001, FBT002
        if adata is None and self.adata is None:
            msg = "The model was loaded without an AnnData: give one with the cells to embed."
            raise ValueError(msg)
        if adata is not None:
            adata = self._cells_of(adata)
            _checks.require_anndata(adata, caller=type(self).__name__)
            if adata.is_view and adata.isbacked:  # of a file cells were chosen: scvi's copy would want a file name
                adata = adata.to_memory()
        if self.adata is not None and (adata is None or adata is self.adata):
            self.adata_manager.validate()
            return self.adata
        if self.adata_manager is None and adata is not None:
            # scvi would make the first AnnData that is embedded the model's own
            _check_if_view(adata, copy_if_view=copy_if_view)
            self._register_as_in_training(adata)
            return adata
        # as scvi-tools does, without a word of a set-up that is missing: cells to embed need none
        _check_if_view(adata, copy_if_view=copy_if_view)
        manager = self.get_anndata_manager(adata)
        if manager is None:
            self._register_manager_for_instance(self.adata_manager.transfer_fields(adata))
        else:
            manager.validate()
        return cast("AnnData", adata)

    @contextmanager
    def _reading(self, adata: AnnData | None = None) -> Iterator[AnnData]:
        """The cells that are meant, checked and registered; others than the model's own are forgotten afterwards."""
        cells = self._validate_anndata(adata)
        try:
            yield cells
        finally:  # scvi-tools keeps each one for as long as the class lives
            if cells is not self.adata:
                self._per_instance_manager_store.get(self.id, {}).pop(cells.uns.get(_SCVI_UUID_KEY), None)

    def _require_free(self, key_added: str | None) -> None:
        """Raise ValueError if results were to replace a column that the model was set up with."""
        if key_added is not None and key_added in obs_keys(self.registry["setup_args"]):
            msg = (
                f"key_added={key_added!r} is a column of adata.obs that this {type(self).__name__} was set up with: what is written there would "
                "replace it. Choose another name."
            )
            raise ValueError(msg)

    def _manager_of(self, adata: AnnData) -> Any:
        return self.adata_manager if adata is self.adata else self.get_anndata_manager(adata, required=True)

    def _dataset(self, adata: AnnData, n_cells: int | None = None, *, seed: int | None = None) -> SampleDataset:
        """Samples of cells that :meth:`_reading` gave."""
        seed = (settings.seed or 0) if seed is None else seed
        return self._dataset_cls(self._manager_of(adata), n_cells=n_cells, seed=seed, **self._read)


def _no_batches_of_cells(model: type, what: str) -> NotImplementedError:
    name = model.__name__
    return NotImplementedError(
        f"{name}.{what}: data modules of scvi-tools make batches of cells, which cut samples, and {name} reads whole samples. "
        "Write the files to one store, sst.pp.write_store(paths, 'cohort.zarr', sample_key=...), and register it: "
        f"adata = sst.pp.read_store('cohort.zarr'); {name}.setup_anndata(adata, sample_key=...). Values stay on disk."
    )


def _forget(store: dict[str, Any], uuid: str) -> None:
    """Drop the manager of an AnnData that is gone: scvi-tools keeps each one for as long as the class lives."""
    if uuid in store and store[uuid].adata is None:
        del store[uuid]

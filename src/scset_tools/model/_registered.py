"""What a model registered, of its own AnnData and of others that it is asked about."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from scvi.data._constants import _SCVI_UUID_KEY  # not exported
from scvi.data._utils import _assign_adata_uuid, _check_if_view  # not exported
from scvi.model.base import BaseModelClass

from scset_tools import _checks
from scset_tools.data._manager import SampleManager
from scset_tools.model._setup_mudata import MuDataSetup

if TYPE_CHECKING:
    from anndata import AnnData


class RegisteredModel(MuDataSetup, BaseModelClass):
    """Base of :class:`~scset_tools.model.SampleModelClass`: from set-ups to managers.

    The manager of the model's own AnnData belongs to the model, and compares what it registered with the AnnData whenever
    the model is made, trained or asked. Another AnnData is registered for as long as a question about it takes.
    """

    def __init__(self, adata: AnnData | None = None, registry: dict | None = None) -> None:
        super().__init__(adata, registry)
        weakref.finalize(self, type(self)._per_instance_manager_store.pop, self.id, None)
        if self.adata_manager is not None:
            self.adata_manager.validate()

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

    def _refuse_datamodule(self, given: dict[str, Any]) -> None:
        """Raise for a data module given to ``train``; None, scvi-tools' default, means nothing."""
        if given.pop("datamodule", None) is not None:
            raise _no_batches_of_cells(type(self), "train(datamodule=...)")

    @classmethod
    def _register(cls, adata: AnnData, fields: list, setup_method_args: dict[str, Any], **kwargs: Any) -> None:
        """Register fields; the manager keeps what it found, and ``Model(adata)`` finds the manager."""
        known = cls._setup_adata_manager_store.get(adata.uns.get(_SCVI_UUID_KEY))
        if known is not None and known.adata is not adata:
            _assign_adata_uuid(adata, overwrite=True)  # a copy is another object: the set-up of the first one stays
        manager = SampleManager(fields=fields, setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
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
        if self.adata is not None and (adata is None or adata is self.adata):
            self.adata_manager.validate()
            return self.adata
        if self.adata_manager is None and adata is not None:
            # scvi would make the first AnnData that is embedded the model's own
            _check_if_view(adata, copy_if_view=copy_if_view)
            self._register_as_in_training(adata)
            return adata
        return super()._validate_anndata(adata, copy_if_view)

    def _release(self, adata: AnnData) -> None:
        """Forget an AnnData that was only embedded: scvi-tools keeps each one for as long as the class lives."""
        if adata is not self.adata:
            self._per_instance_manager_store.get(self.id, {}).pop(adata.uns.get(_SCVI_UUID_KEY), None)


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

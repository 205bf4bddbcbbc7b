"""What a model registered, kept by the model: nothing that another one does to the AnnData changes it unseen."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager

from scset_tools.data._fields import CODES, SEEN
from scset_tools.data._gene_field import COLUMNS
from scset_tools.data._panel import PANEL, Panel, PanelReader
from scset_tools.data._picked import PickedColumns
from scset_tools.data._rows import Named, RowReader
from scset_tools.data._sorted import warn_if_unsorted

if TYPE_CHECKING:
    from anndata import AnnData


class SampleManager(AnnDataManager):
    """A manager that keeps the codes of what it registered, and compares them with the AnnData before they are used.

    scvi-tools' own writes codes into ``adata.obs``, where the next set-up overwrites them, and registers anew what has changed
    since. Here nothing is written to ``obs``: set-ups of other models do not matter, and data that changed raise.
    """

    _weak: weakref.ref[Any] | None = None
    _strong: Any = None
    beside: Callable[[], None] | None = None
    """Raises if what is kept beside the AnnData (the ``obs`` of its MuData) no longer agrees with it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._codes: dict[str, np.ndarray] = {}
        self._seen: dict[str, Any] = {}
        self._panels: dict[str, Panel] = {}
        self._columns: dict[str, np.ndarray] = {}
        self._n_cells = 0

    @property
    def adata(self) -> AnnData | None:
        """The AnnData, for as long as a model or the user holds it: a manager does not keep cells alive."""
        return self._strong if self._weak is None else self._weak()

    @adata.setter
    def adata(self, adata: AnnData | None) -> None:
        self._strong, self._weak = None, None if adata is None else weakref.ref(adata)

    def __getstate__(self) -> dict[str, Any]:
        # in another process nobody else holds it
        return {**self.__dict__, "_weak": None, "_strong": self.adata, "beside": None}

    def register_fields(self, adata: AnnData, source_registry: dict | None = None, **transfer_kwargs: Any) -> None:
        if adata.is_view:
            is_file = adata.isbacked
            msg = (
                f"This AnnData is a view: {adata.n_obs:,} of the cells of another, by reference. Set up a copy of its own in memory, "
                f"adata = adata.{'to_memory()' if is_file else 'copy()'}; or set the whole AnnData up, which may stay in its file, and name the samples to learn "
                "from: train(external_indexing=[[...]]), or fit(samples=[...]) of a profile."
            )
            raise ValueError(msg)
        super().register_fields(adata, source_registry, **transfer_kwargs)
        self._n_cells = adata.n_obs

    def _add_field(
        self, field: Any, adata: AnnData, source_registry: dict | None = None, **transfer_kwargs: Any
    ) -> None:
        super()._add_field(field, adata, source_registry, **transfer_kwargs)
        # the registry is saved with the model; what there is one of for each cell stays here
        state = self._state(field.registry_key)
        for kept, entry in (
            (self._codes, CODES),
            (self._seen, SEEN),
            (self._panels, PANEL),
            (self._columns, COLUMNS),
        ):
            if entry in state:
                kept[field.registry_key] = state.pop(entry)

    def get_from_registry(self, registry_key: str) -> Any:
        """What was registered under a key: codes as they were then, features as they are now."""
        if registry_key in self._codes:
            return self._codes[registry_key]
        found = super().get_from_registry(registry_key)
        columns = self._columns.get(registry_key)
        return found if columns is None else PickedColumns(found, columns)

    def validate(self) -> None:
        """Raise if the AnnData is no longer what was registered.

        Raises
        ------
        ValueError
            If cells or features were added, dropped or moved, or samples, labels or batches changed.
        KeyError
            If a column or an array that was registered is gone.
        """
        self._assert_anndata_registered()
        adata: Any = self.adata
        way_out = (
            f"Set the data up again as they are now ({self._registry.get('model_name') or 'Model'}.setup_anndata) and build "
            "the model anew; a trained model takes changed data as a copy: adata.copy()."
        )
        if adata.n_obs != self._n_cells:
            msg = f"adata has {adata.n_obs} cells, but was set up with {self._n_cells}. {way_out}"
            raise ValueError(msg)
        for field in self.fields:
            key = field.registry_key
            kept = {"codes": self._codes.get(key), "seen": self._seen.get(key)}
            for name, of_key in (("panel", self._panels), ("columns", self._columns)):
                if key in of_key:
                    kept[name] = of_key[key]
            change = field.change(adata, self._state(key), **kept)
            if change is not None:
                error, what = change
                msg = f"adata is no longer what it was when it was set up: {what}. {way_out}"
                raise error(msg)
        if self.beside is not None:
            self.beside()

    def reader(self) -> RowReader:
        """Reader of the features, whose messages name cells, samples and features."""
        source, panel = self.get_from_registry(REGISTRY_KEYS.X_KEY), self._panels.get(REGISTRY_KEYS.X_KEY)
        return RowReader(source, self.named()) if panel is None else PanelReader(source, self.named(), panel=panel)

    def warn_if_unsorted(self) -> None:
        """Warn of a file in which the cells of a sample lie apart."""
        codes = self._codes.get(REGISTRY_KEYS.SAMPLE_KEY)
        if codes is not None:
            sample_key = self.get_state_registry(REGISTRY_KEYS.SAMPLE_KEY).original_key
            warn_if_unsorted(self.get_from_registry(REGISTRY_KEYS.X_KEY), codes, sample_key=sample_key)

    def named(self) -> Named:
        """How messages name what is read."""
        field = next(f for f in self.fields if f.registry_key == REGISTRY_KEYS.X_KEY)
        codes = self._codes.get(REGISTRY_KEYS.SAMPLE_KEY)
        sample_of = None
        if codes is not None:
            sample_of = SampleNames(codes, self._state(REGISTRY_KEYS.SAMPLE_KEY)["categorical_mapping"])
        features = self._state(REGISTRY_KEYS.X_KEY)["column_names"]
        return Named(field.where, cast("AnnData", self.adata).obs_names, features, sample_of)

    def samples_of(self, rows: np.ndarray) -> list[str]:
        """Names of the samples of some rows, each once."""
        names = self._state(REGISTRY_KEYS.SAMPLE_KEY)["categorical_mapping"]
        return [str(n) for n in names[np.unique(self._codes[REGISTRY_KEYS.SAMPLE_KEY][rows])]]

    def _state(self, registry_key: str) -> dict[str, Any]:
        return self._registry["field_registries"][registry_key]["state_registry"]


class SampleNames:
    """Name of the sample of a row; a class, so that it travels to other processes."""

    def __init__(self, codes: np.ndarray, names: np.ndarray) -> None:
        self.codes, self.names = codes, names

    def __call__(self, row: int) -> str:
        return str(self.names[self.codes[row]])

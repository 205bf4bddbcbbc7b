"""AnnData fields of the features of cells: checked when they are registered, compared by name before they are read again."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scvi.data.fields import LayerField, ObsmField

from scset_tools import _checks
from scset_tools._samples import as_text
from scset_tools.data._features import check_features, describe_source
from scset_tools.data._rows import Named

Change = tuple[type[Exception], str] | None
"""What is no longer as it was registered, and the error that says so."""


class CellLayerField(LayerField):
    """The features of each cell from ``X`` or a layer: checked when registered, never copied or converted."""

    def __init__(self, registry_key: str, layer: str | None, *, forbid_zero_cells: bool = False) -> None:
        super().__init__(registry_key, layer, is_count_data=False, correct_data_format=False)
        self._forbid_zero_cells = forbid_zero_cells
        self.where = describe_source(layer=layer)

    def register_field(self, adata: AnnData) -> dict:
        return self._register(adata, forbid_zero_cells=self._forbid_zero_cells)

    def _register(self, adata: AnnData, *, forbid_zero_cells: bool = False) -> dict:
        self._require_source(adata)
        if adata.n_vars == 0:
            msg = f"{self.where} has no features (shape {adata.shape})."
            raise ValueError(msg)
        named = Named(self.where, adata.obs_names, adata.var_names)
        check_features(self.get_field_data(adata), named, forbid_zero_cells=forbid_zero_cells)
        return {
            self.N_OBS_KEY: adata.n_obs,
            self.N_VARS_KEY: adata.n_vars,
            self.COLUMN_NAMES_KEY: as_text(adata.var_names),
        }

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: object) -> dict:
        difference = self._difference(state_registry, adata_target)
        if difference is not None:
            raise ValueError(difference)
        return self._register(adata_target)

    def change(self, adata: AnnData, state: dict, **kept: Any) -> Change:
        """What changed since the field was registered, if anything."""
        del kept  # of columns of obs
        try:
            self._require_source(adata)
        except (KeyError, ValueError) as error:
            return type(error), str(error.args[0]).rstrip(".")
        difference = self._difference(state, adata)
        return None if difference is None else (ValueError, difference.rstrip("."))

    def _require_source(self, adata: AnnData) -> None:
        if self.attr_key is not None:
            _checks.require_layer(adata, self.attr_key)
        elif adata.X is None:
            msg = (
                f"adata.X is empty. Give `layer` or `use_rep`. Keys of adata.obsm: {_checks.first(adata.obsm.keys())}."
            )
            raise ValueError(msg)

    def _difference(self, state: dict, adata: AnnData) -> str | None:
        if pd.Index(state[self.COLUMN_NAMES_KEY]).equals(adata.var_names):
            return None
        known, given = pd.Index(as_text(state[self.COLUMN_NAMES_KEY])), pd.Index(as_text(adata.var_names))
        if known.equals(given):  # whatever the type of their text
            return None
        missing, extra = known.difference(given, sort=False), given.difference(known, sort=False)
        if len(missing):
            way_out = f"{len(missing)} features of the model are missing: {_checks.first(missing)}."
        else:
            way_out = "Give them in the model's order: adata = adata[:, model.get_var_names()].copy()."
        return (
            f"adata.var_names ({len(given)}) differ from the {len(known)} features that the model was trained on "
            f"({len(missing)} missing, {len(extra)} unknown to it). {way_out}"
        )


class CellObsmField(ObsmField):
    """The features of each cell from ``obsm``: checked when registered, never copied or converted."""

    def __init__(self, registry_key: str, use_rep: str, *, forbid_zero_cells: bool = False) -> None:
        super().__init__(registry_key, use_rep, correct_data_format=False)
        self._forbid_zero_cells = forbid_zero_cells
        self.where = describe_source(use_rep=use_rep)

    def register_field(self, adata: AnnData) -> dict:
        return self._register(adata, forbid_zero_cells=self._forbid_zero_cells)

    def _register(self, adata: AnnData, *, forbid_zero_cells: bool = False) -> dict:
        array = _checks.require_obsm(adata, self.attr_key)
        names = _columns_of(array)
        named = Named(self.where, adata.obs_names, names)
        check_features(array, named, forbid_zero_cells=forbid_zero_cells)
        if len(names) == 0:
            msg = f"{self.where} has no columns (shape {array.shape})."
            raise ValueError(msg)
        return {self.COLUMN_NAMES_KEY: names}

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: object) -> dict:
        array = _checks.require_obsm(adata_target, self.attr_key)
        difference = self._difference(state_registry, array)
        if difference is not None:
            raise ValueError(difference)
        known = as_text(state_registry[self.COLUMN_NAMES_KEY])
        if not isinstance(array, pd.DataFrame) and list(known) != [str(i) for i in range(len(known))]:
            warnings.warn(
                f"The columns of {self.where} have no names; the model was trained on {_checks.first(known)}, and they are taken to be these. "
                "Give a DataFrame with these columns (for latents: scset_tools.pp.highly_variable_latents(adata, ..., like=)).",
                UserWarning,
                stacklevel=2,
            )
        return self._register(adata_target)

    def change(self, adata: AnnData, state: dict, **kept: Any) -> Change:
        """What changed since the field was registered, if anything."""
        del kept  # of columns of obs
        if self.attr_key not in adata.obsm:
            return KeyError, f"{self.where} is gone"
        difference = self._difference(state, _checks.in_memory(adata.obsm[self.attr_key]))
        return None if difference is None else (ValueError, difference.rstrip("."))

    def _difference(self, state: dict, array: Any) -> str | None:
        known, given = as_text(state[self.COLUMN_NAMES_KEY]), _columns_of(array)
        if len(given) != len(known):
            return (
                f"{self.where} has {len(given)} columns, but the model was trained on {len(known)}. "
                "Compute the representation in the same way as for the training data."
            )
        if isinstance(array, pd.DataFrame) and list(given) != list(known):
            return (
                f"The columns of {self.where} are {_checks.first(given)}, but the model was trained on "
                f"{_checks.first(known)}."
            )
        return None


def _columns_of(array: Any) -> np.ndarray:
    """Names of the columns of an array of ``obsm``: its own, or numbers."""
    columns = array.columns if isinstance(array, pd.DataFrame) else range(array.shape[1] if len(array.shape) > 1 else 1)
    return as_text(list(columns))

"""AnnData fields that know samples.

scvi-tools' own categorical field refuses categories that it did not see in training, and the only way round
(``extend_categories``) is handed to every field at once, so that new labels and batches would slip in along with new
samples. Here a sample is new in every AnnData, a label belongs to the sample rather than to the cell, and unseen labels
raise.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from scvi.data.fields import CategoricalObsField, LayerField, NumericalObsField, ObsmField

from scset_tools import _checks, _labels
from scset_tools.data._features import check_features, describe_source

MISSING = -1
"""Code of a missing label."""


class CellLayerField(LayerField):
    """The features of each cell from ``X`` or a layer: checked when registered, never copied or converted."""

    def __init__(self, registry_key: str, layer: str | None, *, forbid_zero_cells: bool = False) -> None:
        super().__init__(registry_key, layer, is_count_data=False, correct_data_format=False)
        self._forbid_zero_cells = forbid_zero_cells

    def register_field(self, adata: AnnData) -> dict:
        return self._register(adata, forbid_zero_cells=self._forbid_zero_cells)

    def _register(self, adata: AnnData, *, forbid_zero_cells: bool = False) -> dict:
        if self.attr_key is not None:
            _checks.require_layer(adata, self.attr_key)
        elif adata.X is None:
            msg = (
                f"adata.X is empty. Give `layer` or `use_rep`. Keys of adata.obsm: {_checks.first(adata.obsm.keys())}."
            )
            raise ValueError(msg)
        state = super().register_field(adata)
        check_features(
            self.get_field_data(adata),
            where=describe_source(layer=self.attr_key),
            names=adata.var_names,
            cells=adata.obs_names,
            forbid_zero_cells=forbid_zero_cells,
        )
        return state

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: object) -> dict:
        known, given = pd.Index(state_registry[self.COLUMN_NAMES_KEY]), adata_target.var_names
        if not known.equals(given):
            missing, extra = known.difference(given, sort=False), given.difference(known, sort=False)
            if len(missing):
                way_out = f"{len(missing)} features of the model are missing: {_checks.first(missing)}."
            else:
                way_out = "Give them in the model's order: adata = adata[:, model.get_var_names()].copy()."
            msg = (
                f"adata.var_names ({len(given)}) differ from the {len(known)} features that the model was trained on "
                f"({len(missing)} missing, {len(extra)} unknown to it). {way_out}"
            )
            raise ValueError(msg)
        return self._register(adata_target)


class CellObsmField(ObsmField):
    """The features of each cell from ``obsm``: checked when registered, never copied or converted."""

    def __init__(self, registry_key: str, use_rep: str, *, forbid_zero_cells: bool = False) -> None:
        super().__init__(registry_key, use_rep, correct_data_format=False)
        self._forbid_zero_cells = forbid_zero_cells

    def register_field(self, adata: AnnData) -> dict:
        return self._register(adata, forbid_zero_cells=self._forbid_zero_cells)

    def _register(self, adata: AnnData, *, forbid_zero_cells: bool = False) -> dict:
        _checks.require_obsm(adata, self.attr_key)
        state = super().register_field(adata)
        names = pd.Index(np.asarray(state[self.COLUMN_NAMES_KEY]).astype(str))
        check_features(
            self.get_field_data(adata),
            where=describe_source(use_rep=self.attr_key),
            names=names,
            cells=adata.obs_names,
            forbid_zero_cells=forbid_zero_cells,
        )
        return state

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: object) -> dict:
        known = np.asarray(state_registry[self.COLUMN_NAMES_KEY]).astype(str)
        array = _checks.require_obsm(adata_target, self.attr_key)
        if array.shape[1] != len(known):
            msg = (
                f"adata.obsm[{self.attr_key!r}] has {array.shape[1]} columns, but the model was trained on {len(known)}. "
                "Compute the representation in the same way as for the training data."
            )
            raise ValueError(msg)
        if isinstance(array, pd.DataFrame) and list(array.columns.astype(str)) != list(known):
            msg = (
                f"The columns of adata.obsm[{self.attr_key!r}] are {_checks.first(array.columns)}, but the model was "
                f"trained on {_checks.first(known)}."
            )
            raise ValueError(msg)
        return self._register(adata_target)


class SampleField(CategoricalObsField):
    """The sample of each cell. Every AnnData has samples of its own: nothing is carried over to a new one.

    Parameters
    ----------
    registry_key
        Key of the field in the registry.
    sample_key
        Column of ``adata.obs``.
    min_samples, min_cells
        Fewest samples, and fewest cells in each, that can be trained on. Not asked of data that are only embedded.
    """

    def __init__(self, registry_key: str, sample_key: str, *, min_samples: int = 2, min_cells: int = 1) -> None:
        super().__init__(registry_key, sample_key)
        self._min_samples, self._min_cells = min_samples, min_cells

    def register_field(self, adata: AnnData) -> dict:
        state, sizes = self._register(adata)
        key = self._original_attr_key
        if len(sizes) < self._min_samples:
            msg = (
                f"adata.obs[{key!r}] has {len(sizes)} sample ({_checks.first(sizes.index)}, {len(adata)} cells), but "
                f"training needs at least {self._min_samples}. Is {key!r} the column that tells samples apart?"
            )
            raise ValueError(msg)
        small = sizes[sizes < self._min_cells]
        if len(small):
            named = ", ".join(f"{s!r}: {n}" for s, n in small.iloc[: _checks.SHOW].items())
            msg = (
                f"{len(small)} of {len(sizes)} samples of adata.obs[{key!r}] have fewer than min_cells={self._min_cells} "
                f"cells ({named}{', ...' if len(small) > _checks.SHOW else ''}). Drop these samples or lower `min_cells`."
            )
            raise ValueError(msg)
        return state

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: object) -> dict:
        return self._register(adata_target)[0]

    def _register(self, adata: AnnData) -> tuple[dict, pd.Series]:
        key = self._original_attr_key
        column = _checks.require_obs(adata, key)
        _checks.require_no_missing(column, key)
        samples = column.astype("category").cat.remove_unused_categories()
        # sorted by name, whatever the order of the categories: the split is drawn in this order
        samples = samples.cat.set_categories(pd.factorize(samples.cat.categories, sort=True)[1], ordered=False)
        names = samples.cat.categories
        if (same := names[names.astype(str).duplicated(keep=False)]).size:
            msg = f"Samples of adata.obs[{key!r}] differ in type only, not as text: {[*same]}. Name them by text."
            raise ValueError(msg)
        adata.obs[self.attr_key] = samples.cat.codes.to_numpy(dtype=np.int64)
        state = {self.CATEGORICAL_MAPPING_KEY: names.to_numpy(copy=True), self.ORIGINAL_ATTR_KEY: key}
        return state, samples.value_counts(sort=False)


class SampleLabelField(CategoricalObsField):
    """A class per sample. Missing is code -1; the column may be absent from new data; an unseen class raises.

    Parameters
    ----------
    registry_key
        Key of the field in the registry.
    labels_key, sample_key
        Columns of ``adata.obs``.
    kind
        ``"class"``, or ``"ordinal"`` for classes that must have an order.
    """

    def __init__(self, registry_key: str, labels_key: str, sample_key: str, *, kind: str = "class") -> None:
        super().__init__(registry_key, labels_key)
        self._sample_key, self._kind = sample_key, kind

    def register_field(self, adata: AnnData) -> dict:
        column = _checks.require_constant_within_sample(adata, self._original_attr_key, self._sample_key)
        read = _labels.read_classes(column, kind=self._kind)
        if len(read.names) == 0:
            msg = (
                f"adata.obs[{self._original_attr_key!r}] is missing for all {adata.n_obs} cells. "
                "Leave out `labels_key`, or give a column with labels."
            )
            raise ValueError(msg)
        return self._write(adata, read.codes, read.values)

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: object) -> dict:
        classes = np.asarray(state_registry[self.CATEGORICAL_MAPPING_KEY])
        key = self._original_attr_key
        if key not in adata_target.obs:
            return self._write(adata_target, np.full(adata_target.n_obs, MISSING, dtype=np.int64), classes)
        column = _checks.require_constant_within_sample(adata_target, key, self._sample_key)
        way_out = "Set them to missing to embed these samples without a label."
        return self._write(adata_target, _labels.match_classes(column, classes, way_out=way_out), classes)

    def _write(self, adata: AnnData, codes: np.ndarray, classes: np.ndarray) -> dict:
        adata.obs[self.attr_key] = codes
        return {
            self.CATEGORICAL_MAPPING_KEY: np.array(classes, copy=True),
            self.ORIGINAL_ATTR_KEY: self._original_attr_key,
        }


class SampleNumericField(NumericalObsField):
    """A number per sample (a target to predict, a covariate). Missing is NaN; may be absent from new data."""

    def __init__(self, registry_key: str, key: str, sample_key: str) -> None:
        # a column of its own, like the other fields: absent from new data, the column of the user stays absent
        super().__init__(registry_key, f"_scvi_{registry_key}")
        self._original_attr_key, self._sample_key = key, sample_key

    def register_field(self, adata: AnnData) -> dict:
        key = self._original_attr_key
        column = _checks.require_constant_within_sample(adata, key, self._sample_key)
        numbers = _labels.read_numbers(column)
        adata.obs[self.attr_key] = numbers.astype(np.float32)
        return super().register_field(adata)

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: object) -> dict:
        if self._original_attr_key in adata_target.obs:
            return self.register_field(adata_target)
        adata_target.obs[self.attr_key] = np.full(adata_target.n_obs, np.nan, dtype=np.float32)
        return super().register_field(adata_target)


class CellBatchField(CategoricalObsField):
    """The technical batch of each cell. May vary within a sample; must be complete; an unseen batch raises."""

    def register_field(self, adata: AnnData) -> dict:
        read = _labels.read_classes(self._column(adata))
        return self._write(adata, read.codes, read.values)

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: object) -> dict:
        known = np.asarray(state_registry[self.CATEGORICAL_MAPPING_KEY])
        way_out = "A model knows only the batches it was trained with."
        return self._write(
            adata_target, _labels.match_classes(self._column(adata_target), known, way_out=way_out), known
        )

    def _column(self, adata: AnnData) -> pd.Series:
        column = _checks.require_obs(adata, self._original_attr_key)
        _checks.require_no_missing(column, self._original_attr_key)
        return column

    def _write(self, adata: AnnData, codes: np.ndarray, names: np.ndarray) -> dict:
        adata.obs[self.attr_key] = codes
        return {
            self.CATEGORICAL_MAPPING_KEY: np.array(names, copy=True),
            self.ORIGINAL_ATTR_KEY: self._original_attr_key,
        }


class CellTypeField(CellBatchField):
    """The type of each cell, for training. May be missing (code -1), new, or absent from new data."""

    def register_field(self, adata: AnnData) -> dict:
        read = _labels.read_classes(_checks.require_obs(adata, self._original_attr_key))
        return self._write(adata, read.codes, read.values)

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: object) -> dict:
        known = np.asarray(state_registry[self.CATEGORICAL_MAPPING_KEY])
        if self._original_attr_key not in adata_target.obs:
            return self._write(adata_target, np.full(adata_target.n_obs, MISSING, dtype=np.int64), known)
        column = adata_target.obs[self._original_attr_key]
        return self._write(adata_target, _labels.match_classes(column, known, allow_new=True), known)

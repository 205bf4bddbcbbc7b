"""AnnData fields that know samples.

scvi-tools' own categorical field refuses categories that it did not see in training, and the only way round
(``extend_categories``) is handed to every field at once, so that new labels and batches would slip in along with new
samples. Here a sample is new in every AnnData, a label belongs to the sample rather than to the cell, and unseen labels
raise.

Nothing is written to ``adata.obs``: what there is one of for each cell goes to the
:class:`~scset_tools.data._manager.SampleManager` along with the state of the field, under :data:`CODES` and :data:`SEEN`.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd
from anndata import AnnData
from scvi.data.fields import CategoricalObsField, NumericalObsField

from scset_tools import _checks, _events, _labels
from scset_tools._samples import as_name, sample_codes
from scset_tools.data._feature_fields import Change

MISSING = -1
"""Code of a missing label."""

CODES = "codes"
"""Entry of a state: number (or value) of each cell, (cells,)."""

SEEN = "seen"
"""Entry of a state: the column that the codes were made from, as it was."""


class _Column:
    """A column of ``obs`` that a manager keeps codes of."""

    def __init__(self, registry_key: str, key: str) -> None:
        super().__init__(registry_key, key)  # type: ignore[call-arg]  # a field of scvi-tools comes next
        self._original_attr_key = key  # scvi-tools takes a column without a name for none

    @property
    def attr_key(self) -> str:
        """The user's own column: there is no other."""
        return self._original_attr_key

    def change(self, adata: AnnData, state: dict, *, codes: np.ndarray, seen: Any) -> Change:
        """What changed since the column was registered, if anything."""
        key = self._original_attr_key
        try:
            column = _checks.require_obs(adata, key)
        except KeyError:
            return None if seen is None else (KeyError, f"adata.obs[{key!r}] is gone")
        if seen is not None and _is_same(column.values, seen):
            return None
        now, then = self._texts(column), self._texts_of(state, codes)
        differs = np.flatnonzero(now != then)
        if len(differs) == 0:
            return None
        shown = "; ".join(
            f"{str(adata.obs_names[i])!r}: {then[i] or 'missing'!r} then, {now[i] or 'missing'!r} now"
            for i in differs[:3]
        )
        return ValueError, f"adata.obs[{key!r}] differs in {len(differs)} of {len(now)} cells ({shown})"

    def get_summary_stats(self, state_registry: dict) -> dict:
        """Number of categories; scvi-tools' own count sorts them, which numbers beside text do not allow."""
        if CategoricalObsField.CATEGORICAL_MAPPING_KEY not in state_registry:
            return cast("dict", super().get_summary_stats(state_registry))  # type: ignore[misc]
        return {self.count_stat_key: len(state_registry[CategoricalObsField.CATEGORICAL_MAPPING_KEY])}  # type: ignore[attr-defined]

    def _state(self, codes: np.ndarray, names: np.ndarray, column: pd.Series | None) -> dict:
        return {
            CategoricalObsField.CATEGORICAL_MAPPING_KEY: np.array(names, copy=True),
            CategoricalObsField.ORIGINAL_ATTR_KEY: self._original_attr_key,
            CODES: codes,
            SEEN: None if column is None else column.values.copy(),
        }

    def _texts(self, column: pd.Series) -> np.ndarray:
        """What each cell says, as text; the empty text where it is missing."""
        raw, values = pd.factorize(column)
        return np.asarray([*(as_name(v) for v in values), ""], dtype=object)[raw]

    def _texts_of(self, state: dict, codes: np.ndarray) -> np.ndarray:
        return np.asarray([*map(as_name, state[CategoricalObsField.CATEGORICAL_MAPPING_KEY]), ""], dtype=object)[codes]


def _is_same(values: Any, seen: Any) -> bool:
    """Whether two arrays of pandas hold the same, at the cost of one comparison."""
    if values.dtype != seen.dtype or len(values) != len(seen):
        return False
    left, right = (pd.Index(v, dtype=v.dtype, tupleize_cols=False) for v in (values, seen))
    return left.equals(right)


class SampleField(_Column, CategoricalObsField):
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
        if adata.n_obs == 0:
            msg = f"adata has no cells (shape {adata.shape})."
            raise ValueError(msg)
        codes, names = sample_codes(column, key)
        return self._state(codes, names, column), pd.Series(np.bincount(codes, minlength=len(names)), index=names)


class SampleLabelField(_Column, CategoricalObsField):
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
        return self._state(read.codes, read.values, column)

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: object) -> dict:
        classes = np.asarray(state_registry[self.CATEGORICAL_MAPPING_KEY])
        key = self._original_attr_key
        if key not in adata_target.obs.columns:
            return self._state(np.full(adata_target.n_obs, MISSING, dtype=np.int64), classes, None)
        column = _checks.require_constant_within_sample(adata_target, key, self._sample_key)
        way_out = "Set them to missing to embed these samples without a label."
        return self._state(_labels.match_classes(column, classes, way_out=way_out), classes, column)


class SampleNumericField(_Column, NumericalObsField):
    """A number per sample (a target to predict, a covariate). Missing is NaN; may be absent from new data."""

    def __init__(self, registry_key: str, key: str, sample_key: str) -> None:
        super().__init__(registry_key, key)
        self._original_attr_key, self._sample_key = key, sample_key

    def register_field(self, adata: AnnData) -> dict:
        key = self._original_attr_key
        column = _checks.require_constant_within_sample(adata, key, self._sample_key)
        values = self._numbers(column)
        if np.isinf(values).any():
            samples = _checks.require_obs(adata, self._sample_key)[np.isinf(values)].unique()
            msg = (
                f"adata.obs[{key!r}] is beyond the range of float32 for {len(samples)} samples: {_checks.first(samples)}. "
                "Scale it, or set it to missing."
            )
            raise ValueError(msg)
        return {CODES: values, SEEN: column.values.copy()}

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: object) -> dict:
        if self._original_attr_key in adata_target.obs.columns:
            return self.register_field(adata_target)
        return {CODES: np.full(adata_target.n_obs, np.nan, dtype=np.float32), SEEN: None}

    def _texts(self, column: pd.Series) -> np.ndarray:
        return _number_texts(self._numbers(column))

    def _texts_of(self, state: dict, codes: np.ndarray) -> np.ndarray:
        return _number_texts(codes)

    def _numbers(self, column: pd.Series) -> np.ndarray:
        with np.errstate(over="ignore"):
            return _labels.read_numbers(column).astype(np.float32)


class SampleEventField(SampleNumericField):
    """Whether the event of a sample was seen: 1 or 0, NaN where missing; True and False, and their texts, are read."""

    def _numbers(self, column: pd.Series) -> np.ndarray:
        out = np.full(len(column), np.nan, dtype=np.float32)
        is_there = column.notna().to_numpy()
        out[is_there] = _events.read_events(column[is_there])
        return out


def _number_texts(values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), "", values.astype(str).astype(object))


class CellBatchField(_Column, CategoricalObsField):
    """The technical batch of each cell. May vary within a sample; must be complete; an unseen batch raises."""

    def register_field(self, adata: AnnData) -> dict:
        column = self._column(adata)
        read = _labels.read_classes(column)
        return self._state(read.codes, read.values, column)

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: object) -> dict:
        known = np.asarray(state_registry[self.CATEGORICAL_MAPPING_KEY])
        column, way_out = self._column(adata_target), "A model knows only the batches it was trained with."
        return self._state(_labels.match_classes(column, known, way_out=way_out), known, column)

    def _column(self, adata: AnnData) -> pd.Series:
        column = _checks.require_obs(adata, self._original_attr_key)
        _checks.require_no_missing(column, self._original_attr_key)
        return column


class CellTypeField(CellBatchField):
    """The type of each cell, for training. May be missing (code -1), new, or absent from new data."""

    def register_field(self, adata: AnnData) -> dict:
        column = _checks.require_obs(adata, self._original_attr_key)
        read = _labels.read_classes(column)
        return self._state(read.codes, read.values, column)

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: object) -> dict:
        known = np.asarray(state_registry[self.CATEGORICAL_MAPPING_KEY])
        if self._original_attr_key not in adata_target.obs.columns:
            return self._state(np.full(adata_target.n_obs, MISSING, dtype=np.int64), known, None)
        column = _checks.require_obs(adata_target, self._original_attr_key)
        return self._state(_labels.match_classes(column, known, allow_new=True), known, column)

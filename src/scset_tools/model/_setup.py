"""The fields of a registration: samples, their labels, batches and features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scvi import REGISTRY_KEYS

from scset_tools.data._feature_fields import CellLayerField, CellObsmField
from scset_tools.data._fields import CellBatchField, SampleField, SampleLabelField, SampleNumericField


def fields_of(
    sample_key: str,
    *,
    layer: str | None,
    use_rep: str | None,
    kinds: Mapping[str, str],
    batch_key: str | None,
    min_cells: int,
    forbid_zero_cells: bool = False,
    others: tuple[Any, ...] = (),
) -> list:
    """The fields of a registration.

    Parameters
    ----------
    sample_key, layer, use_rep, batch_key, min_cells
        As given to ``setup_anndata``.
    kinds
        Column of labels to kind: ``"class"``, ``"ordinal"`` or ``"continuous"``.
    forbid_zero_cells
        Whether a cell without any feature is an error.
    others
        Further fields of a model.
    """
    fields: list[Any] = [SampleField(REGISTRY_KEYS.SAMPLE_KEY, sample_key, min_cells=min_cells)]
    for name, key in registry_keys(kinds).items():
        if kinds[name] == "continuous":
            fields.append(SampleNumericField(key, name, sample_key))
        else:
            fields.append(SampleLabelField(key, name, sample_key, kind=kinds[name]))
    if batch_key is not None:
        fields.append(CellBatchField(REGISTRY_KEYS.BATCH_KEY, batch_key))
    features = (
        CellObsmField(REGISTRY_KEYS.X_KEY, use_rep, forbid_zero_cells=forbid_zero_cells)
        if use_rep is not None
        else CellLayerField(REGISTRY_KEYS.X_KEY, layer, forbid_zero_cells=forbid_zero_cells)
    )
    return [*fields, *others, features]


def registry_keys(kinds: Mapping[str, str]) -> dict[str, str]:
    """Column to registry key; the first with classes gets scvi-tools' own, which a stratified split reads."""
    out: dict[str, str] = {}
    for i, (name, kind) in enumerate(kinds.items()):
        is_first = kind != "continuous" and REGISTRY_KEYS.LABELS_KEY not in out.values()
        out[name] = REGISTRY_KEYS.LABELS_KEY if is_first else f"target_{i}"
    return out

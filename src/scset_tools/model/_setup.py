"""The fields of a registration: samples, their labels, batches and features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from scvi import REGISTRY_KEYS

from scset_tools._labels import name_of
from scset_tools.data._feature_fields import CellLayerField, CellObsmField
from scset_tools.data._fields import (
    CellBatchField,
    SampleEventField,
    SampleField,
    SampleLabelField,
    SampleNumericField,
)
from scset_tools.data._panel import PanelField
from scset_tools.model.supervise._targets import Keys, Target, read_kinds

EVENT = "_event"
"""End of the registry key of the event of a time to an event."""


def read_labels_key(
    obs: pd.DataFrame, labels_key: Keys | None, event_key: str | Mapping[str, str] | None
) -> tuple[dict[str, str] | None, dict[str, str] | None]:
    """Column to kind, and column of times to that of the event: the type of a column is no guide in new data, where it may be absent."""
    if labels_key is None:
        return None, None
    found = read_kinds(obs, labels_key, event_key, argument="labels_key")
    events = {name: event for name, (_, event) in found.items() if event is not None}
    return {name: kind for name, (kind, _) in found.items()}, events or None


def targets_of(registry: dict[str, Any]) -> list[Target]:
    """The labels of a registration."""
    kinds, events = (registry["setup_args"].get(name) or {} for name in ("labels_key", "event_key"))
    out = []
    for name, key in registry_keys(kinds).items():
        state = registry["field_registries"][key]["state_registry"]
        classes = tuple(name_of(c) for c in state.get("categorical_mapping", ()))
        out.append(Target(name, kinds[name], key, classes, events.get(name)))
    return out


def label_values(values: Mapping[str, torch.Tensor], target: Target) -> torch.Tensor:
    """Registered codes or numbers of a label, (n,), or its times and events, (n, 2).

    Parameters
    ----------
    values
        Registry key to values.
    target
        The label.
    """
    own = values[target.registry_key]
    return torch.stack([own, values[target.registry_key + EVENT]], 1) if target.kind == "time_to_event" else own


def fields_of(
    sample_key: str,
    *,
    layer: str | None,
    use_rep: str | None,
    kinds: Mapping[str, str],
    event_keys: Mapping[str, str],
    batch_key: str | None,
    min_cells: int,
    forbid_zero_cells: bool = False,
    others: tuple[Any, ...] = (),
    panel: str = "fixed",
    layer_field: type[CellLayerField] = CellLayerField,
) -> list:
    """The fields of a registration.

    Parameters
    ----------
    sample_key, layer, use_rep, batch_key, min_cells
        As given to ``setup_anndata``.
    kinds
        Column of labels to kind: ``"class"``, ``"ordinal"``, ``"continuous"`` or ``"time_to_event"``.
    event_keys
        Column of times to the column that says whether the event was seen.
    forbid_zero_cells
        Whether a cell without any feature is an error.
    others
        Further fields of a model.
    panel
        ``"fixed"``, or ``"open"``: samples may lack features.
    layer_field
        Field of features from ``X`` or a layer, if the panel is fixed.
    """
    fields: list[Any] = [SampleField(REGISTRY_KEYS.SAMPLE_KEY, sample_key, min_cells=min_cells)]
    for name, key in registry_keys(kinds).items():
        if kinds[name] in ("class", "ordinal"):
            fields.append(SampleLabelField(key, name, sample_key, kind=kinds[name]))
            continue
        fields.append(SampleNumericField(key, name, sample_key))
        if kinds[name] == "time_to_event":
            fields.append(SampleEventField(key + EVENT, event_keys[name], sample_key))
    if batch_key is not None:
        fields.append(CellBatchField(REGISTRY_KEYS.BATCH_KEY, batch_key))
    if panel == "open":
        open_panel = PanelField(REGISTRY_KEYS.X_KEY, layer, sample_key, forbid_zero_cells=forbid_zero_cells)
        return [*fields, *others, open_panel]
    features = (
        CellObsmField(REGISTRY_KEYS.X_KEY, use_rep, forbid_zero_cells=forbid_zero_cells)
        if use_rep is not None
        else layer_field(REGISTRY_KEYS.X_KEY, layer, forbid_zero_cells=forbid_zero_cells)
    )
    return [*fields, *others, features]


def registry_keys(kinds: Mapping[str, str]) -> dict[str, str]:
    """Column to registry key; the first with classes gets scvi-tools' own, which a stratified split reads."""
    out: dict[str, str] = {}
    for i, (name, kind) in enumerate(kinds.items()):
        is_first = kind in ("class", "ordinal") and REGISTRY_KEYS.LABELS_KEY not in out.values()
        out[name] = REGISTRY_KEYS.LABELS_KEY if is_first else f"target_{i}"
    return out

"""What a run is of, in plain types: compared before an interrupted run is taken up again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scvi import REGISTRY_KEYS

from scset_tools.data._index import SampleIndex

N_CELLS = 64
"""Cells whose features are compared; the check of all would read the whole file."""

FREE = ("pin_memory", "num_workers", "persistent_workers", "prefetch_factor", "multiprocessing_context", "seed")
"""Arguments of a splitter that change no result, and the seed, which is compared as the split that it gives."""


def fingerprint(
    model: Any, splitter: Any, *, splitter_kwargs: Mapping[str, Any], plan_kwargs: Mapping[str, Any]
) -> dict:
    """Model, arguments, set-up, features, samples with their sizes and labels, split, and some of the numbers.

    Parameters
    ----------
    model
        The model that is trained.
    splitter
        Its splitter: what the run trains and validates on.
    splitter_kwargs, plan_kwargs
        Arguments of the splitter and the plan.
    """
    from scset_tools import __version__

    manager = model.adata_manager
    names = np.asarray(manager.get_state_registry(REGISTRY_KEYS.SAMPLE_KEY).categorical_mapping).astype(str)
    codes = np.asarray(manager.get_from_registry(REGISTRY_KEYS.SAMPLE_KEY)).ravel().astype(np.int64)
    index = SampleIndex.from_codes(codes, names)
    train, validation, test = splitter.names()
    of_split = {
        **dict.fromkeys(train, "training"),
        **dict.fromkeys(validation, "validation"),
        **dict.fromkeys(test, "test"),
    }
    return {
        "model": type(model).__name__,
        "version": __version__,
        "arguments of the model": plain({**model.init_params_["non_kwargs"], **model.init_params_["kwargs"]}),
        "arguments of the set-up": plain(model.registry["setup_args"]),
        "arguments of the training": plain(
            {**{k: v for k, v in splitter_kwargs.items() if k not in FREE}, **dict(plan_kwargs)}
        ),
        "features": [str(name) for name in model.get_var_names()],
        "samples": [str(name) for name in names],
        "number of cells": {str(name): int(size) for name, size in zip(names, index.sizes, strict=True)},
        **_columns(manager, index),
        "split": of_split,
        "checksum of the values of some cells": _checksum(manager),
    }


def plain(value: Any) -> Any:
    """The value in types that a checkpoint may hold: mappings, lists, numbers and text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | pd.Index | pd.Series):
        value = value.tolist()
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    name = getattr(value, "__qualname__", None)  # a function or class; the text of an object may hold its address
    return f"{type(value).__module__}.{type(value).__qualname__}" if name is None else str(name)


def _columns(manager: Any, index: SampleIndex) -> dict[str, dict[str, str]]:
    """What each sample has in every other registered column: its value, or a checksum of those of its cells."""
    found = {}
    for key in manager.data_registry:
        if key in (REGISTRY_KEYS.X_KEY, REGISTRY_KEYS.SAMPLE_KEY):
            continue
        values = np.asarray(manager.get_from_registry(key))
        if values.ndim > 1 and values.shape[1] != 1:
            continue
        values = values.ravel()
        mapping = manager.get_state_registry(key).get("categorical_mapping")
        known = None if mapping is None else [str(m) for m in mapping]
        of_sample = {}
        for i, name in enumerate(index.names):
            own = values[index.cells(i)]
            distinct = pd.unique(own)
            if len(distinct) == 1:
                value = distinct[0]
                is_code = known is not None and 0 <= float(value) < len(known)
                of_sample[str(name)] = known[int(value)] if known is not None and is_code else str(value)
            else:
                own = np.sort(own.astype(str) if own.dtype == object else own)
                of_sample[str(name)] = hashlib.blake2b(own.tobytes(), digest_size=8).hexdigest()
        found[f"{key} of samples"] = of_sample
    return found


def _checksum(manager: Any) -> str:
    """Checksum of the features of some cells, which are picked by their names: in another order they are the same."""
    names = manager.adata.obs_names.to_numpy().astype(str)
    ranks = pd.util.hash_array(names.astype(object), categorize=False)
    rows = np.argsort(ranks, kind="stable")[:N_CELLS]
    x = manager.reader()(rows)
    return hashlib.blake2b(np.ascontiguousarray(x).tobytes(), digest_size=8).hexdigest()

"""What a run is of, in plain types: compared before an interrupted run is taken up again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scvi import REGISTRY_KEYS

from scset_tools.data._index import SampleIndex

N_CELLS, N_VALUES = 4096, 2**21
"""Most cells, and most values of theirs, that are compared; the check of all would read the whole file."""

START = "weights at the start"
FREE = (
    "pin_memory",
    "num_workers",
    "persistent_workers",
    "prefetch_factor",
    "multiprocessing_context",
    "seed",
    "vectors",
)
"""Arguments of a splitter that change no result, the seed, which is compared as the split that it gives, and vectors, as what they come from."""


def fingerprint(model: Any, splitter: Any, *, arguments: Mapping[str, Any], about: Mapping[str, Any]) -> dict:
    """Model, arguments, set-up, features, samples with their sizes and labels, split, and some of the numbers.

    Parameters
    ----------
    model
        The model that is trained.
    splitter
        Its splitter: what the run trains and validates on.
    arguments
        Those of the splitter and the plan, and of the trainer what changes its steps.
    about
        What else tells this run from others, by aspect.
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
        "arguments of the training": plain({k: v for k, v in arguments.items() if k not in FREE}),
        "features": [str(name) for name in model.get_var_names()],
        "samples": [str(name) for name in names],
        "number of cells": {str(name): int(size) for name, size in zip(names, index.sizes, strict=True)},
        **_columns(manager, index),
        "split": of_split,
        "checksum of the values of some cells": _checksum(manager, codes),
        "frozen parts": list(model.module.frozen),
        **{aspect: plain(value) for aspect, value in about.items()},
    }


def start_of(model: Any, run: str | None) -> tuple[str, str]:
    """What the weights of a run start from, as a checkpoint must agree in it, and the name of the run that starts there.

    Random weights without a seed are others in each process, and weights that a run left behind are no longer its first ones: the model
    remembers the run that it is of.

    Parameters
    ----------
    model
        The model that is about to be trained.
    run
        Name of the interrupted run, if there is one.
    """
    now = digest(*(weight.detach().double().cpu() for weight in model.module.parameters()))
    if model.run_ is not None and model.run_["name"] == run:
        return model.run_["start"], model.run_["name"]
    if model.start_ is not None:
        return model.start_, now
    is_random = not model.is_trained_ and model.stopped_after_ is None
    return ("random weights" if is_random else f"trained weights {now}"), now


def digest(*arrays: Any) -> str:
    """Checksum of arrays.

    Parameters
    ----------
    *arrays
        In their order.
    """
    found = hashlib.blake2b(digest_size=8)
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


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
                of_sample[str(name)] = digest(own)
        found[f"{key} of samples"] = of_sample
    return found


def _checksum(manager: Any, codes: np.ndarray) -> str:
    """Checksum of the features of some cells of each sample, picked by their names: in another order they are the same."""
    names = manager.adata.obs_names.to_numpy().astype(str)
    ranks = pd.util.hash_array(names.astype(object), categorize=False)
    of_sample = pd.Series(ranks).groupby(codes).rank(method="first").to_numpy()
    reader = manager.reader()
    n_cells = min(N_CELLS, max(1, N_VALUES // max(1, reader.n_features)))
    rows = np.lexsort((ranks, of_sample))[:n_cells]
    return digest(reader(rows))

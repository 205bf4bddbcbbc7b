"""The input checks that several rooms share, each with one wording.

A message names the object, the numbers, the first culprits and the way out, and comes before any work is done.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scset_tools import _keys

if TYPE_CHECKING:
    from anndata import AnnData

OTHER_NAMES = {
    "learning_rate": "lr",
    "epochs": "max_epochs",
    "n_epochs": "max_epochs",
    "num_epochs": "max_epochs",
    "use_gpu": "accelerator",
    "gpus": "devices",
    "device": "accelerator",
    "patience": "early_stopping_patience",
    "dropout": "dropout_rate",
    "reduce_lr_on_plateau": "lr_schedule",
    "random_state": "seed",
    "random_seed": "seed",
    "num_layers": "n_layers",
    "latent_dim": "n_latent",
    "hidden_dim": "n_hidden",
    "batch": "batch_key",
    "labels": "labels_key",
    "label_key": "labels_key",
    "covariates": "covariate_keys",
    "categorical_covariate_keys": "covariate_keys",
    "continuous_covariate_keys": "covariate_keys",
}
"""What scvi-tools, scanpy and others call an argument that has another name here."""
SHOW = 5
"""How many culprits a message lists."""


def first(items: Iterable, n: int = SHOW) -> str:
    """The first ``n`` items for a message, with an ellipsis if there are more."""
    items = list(items)
    shown = ", ".join(repr(str(i)) for i in items[:n])
    return f"[{shown}{', ...' if len(items) > n else ''}]"


def require_anndata(adata: object, *, caller: str) -> None:
    """Raise TypeError unless ``adata`` is an AnnData; a MuData is told which call takes it."""
    from anndata import AnnData

    if isinstance(adata, AnnData):
        return
    if type(adata).__name__ == "MuData":
        msg = (
            f"{caller} takes an AnnData, but was given a MuData with modalities {first(getattr(adata, 'mod', ()))}. "
            "Models take one modality of it, or several, through setup_mudata, and pp.join_modalities makes several one AnnData; elsewhere pass the "
            "modality itself (mdata['rna']), after copying the sample-level columns from mdata.obs into its obs."
        )
        raise TypeError(msg)
    msg = f"{caller} takes an AnnData, but was given {type(adata).__name__}."
    if isinstance(adata, str | PathLike):
        msg += " Open the file: anndata.read_h5ad(path), with backed='r' if its values shall stay on disk, or sst.pp.read_store(path)."
    elif isinstance(adata, list | tuple) and all(isinstance(a, AnnData | str | PathLike) for a in adata):
        msg += (
            " Several files become one cohort by sst.pp.write_store(paths, 'cohort.zarr', sample_key=...), once; then "
            "adata = sst.pp.read_store('cohort.zarr'). Those in memory also by anndata.concat."
        )
    raise TypeError(msg)


def obs_frame(adata: AnnData) -> pd.DataFrame:
    """``adata.obs`` as a DataFrame, read into memory if it was opened lazily."""
    return in_memory(adata.obs)


def in_memory(table: Any) -> Any:
    """A table that was opened lazily (``anndata.experimental.read_lazy``) as a DataFrame; anything else as it is."""
    return table.to_memory() if type(table).__name__ == "Dataset2D" else table


def require_obs(adata: AnnData, key: str) -> pd.Series:
    """The column ``adata.obs[key]``, or a KeyError that lists the columns there are."""
    return obs_column(adata.obs, key)


def obs_column(obs: Any, key: str) -> pd.Series:
    """The column of ``adata.obs``, which may have been opened lazily."""
    if key not in obs.columns and _keys.key(key) in obs.columns:  # samples hold it by the name that files can hold
        key = _keys.key(key)
    if key not in obs.columns:
        msg = f"{key!r} is not a column of adata.obs. Columns: {first(obs.columns, 20)}."
        raise KeyError(msg)
    if type(obs).__name__ == "Dataset2D":  # this column alone is read
        obs = in_memory(obs[[key]])
    column = obs[key]
    if isinstance(column, pd.DataFrame):
        msg = f"adata.obs has {column.shape[1]} columns named {key!r}. Rename or drop all but one of them."
        raise ValueError(msg)
    return column


def group_codes(adata: AnnData, key: str | None) -> tuple[np.ndarray, list[str]]:
    """Number of the group of each cell, -1 where it is missing, and the names of the groups; none without a key."""
    if key is None:
        return np.full(adata.n_obs, -1), []
    column = require_obs(adata, key).astype("category").cat.remove_unused_categories()
    return column.cat.codes.to_numpy(dtype=np.int64), [str(c) for c in column.cat.categories]


def require_obsm(adata: AnnData, key: str) -> Any:
    """The array ``adata.obsm[key]``, or a KeyError that lists the keys there are."""
    if key not in adata.obsm:
        msg = f"{key!r} is not in adata.obsm. Keys: {first(adata.obsm.keys(), 20)}."
        raise KeyError(msg)
    return in_memory(adata.obsm[key])


def numbers_of(frame: pd.DataFrame, where: str) -> np.ndarray:
    """Columns of a DataFrame as numbers, missing as NaN."""
    columns = []
    for position, name in enumerate(frame.columns):
        column = frame.iloc[:, position]
        try:
            if isinstance(column.dtype, pd.CategoricalDtype) or column.dtype.kind in "mMcSU":
                raise TypeError(column.dtype)
            columns.append(column.to_numpy(dtype=np.float64, na_value=np.nan))
        except (TypeError, ValueError) as error:
            values = first(column.dropna().unique(), 3)
            msg = f"Column {str(name)!r} of {where} holds {column.dtype} values {values}, but must hold numbers."
            raise TypeError(msg) from error
    return np.stack(columns, axis=1) if columns else np.zeros((len(frame), 0))


def filled(x: Any) -> Any:
    """A masked value is a missing one, whatever lies under the mask."""
    if not isinstance(x, np.ma.MaskedArray):
        return x
    return np.ma.filled(x.astype(np.float64), np.nan) if np.ma.is_masked(x) else np.asarray(x)


def dense(values: Any, name: str) -> np.ndarray:
    """A dense float64 copy of whatever AnnData stores; what is masked or missing is NaN.

    Raises
    ------
    ValueError
        If it does not hold real numbers.
    """
    if isinstance(values, pd.DataFrame):
        return numbers_of(values, name)
    if not hasattr(values, "toarray") and hasattr(values, "to_memory"):  # backed sparse or dask
        values = values.to_memory()
    values = filled(values.toarray() if hasattr(values, "toarray") else values)
    if getattr(getattr(values, "dtype", None), "kind", "f") in "cmM":
        msg = f"{name} is of dtype {values.dtype}, but must hold real numbers."
        raise ValueError(msg)
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = f"{name} must hold numbers, but converting it failed: {error}."
        raise ValueError(msg) from error


def require_layer(adata: AnnData, key: str) -> Any:
    """The array ``adata.layers[key]``, or a KeyError that lists the layers there are."""
    if key not in adata.layers:
        msg = f"{key!r} is not in adata.layers. Layers: {first(adata.layers.keys(), 20)}."
        raise KeyError(msg)
    return adata.layers[key]


def require_no_missing(values: pd.Series, key: str) -> None:
    """Raise ValueError if a column that must be complete has missing values."""
    missing = values.isna().to_numpy()
    if missing.any():
        msg = (
            f"adata.obs[{key!r}] is missing for {missing.sum()} of {len(values)} cells "
            f"(first: {first(values.index[missing])}). Assign these cells to a sample or drop them: "
            f"adata = adata[adata.obs[{key!r}].notna()].copy()."
        )
        raise ValueError(msg)


def is_constant_within_sample(values: pd.Series, sample_codes: np.ndarray) -> bool:
    """Whether ``values`` takes one value in every sample; missing counts as a value."""
    # as many distinct (sample, value) pairs as samples; codes are far quicker than groupby().nunique() on objects
    codes = pd.factorize(values)[0].astype(np.int64) + 1  # missing is 0, be it None or NaN
    pairs = sample_codes.astype(np.int64) * (codes.max(initial=0) + 1) + codes
    return len(pd.unique(pairs)) == len(pd.unique(sample_codes))


def require_constant_within_sample(adata: AnnData, key: str, sample_key: str) -> pd.Series:
    """The column ``adata.obs[key]``, or a ValueError naming the samples in which it varies."""
    values, samples = require_obs(adata, key), require_obs(adata, sample_key)
    try:
        if is_constant_within_sample(values, pd.factorize(samples)[0]):
            return values
    except TypeError as error:
        msg = f"adata.obs[{key!r}] or adata.obs[{sample_key!r}] holds values that cannot be compared: {error}."
        raise TypeError(msg) from error
    n_values = values.groupby(samples.to_numpy(), observed=True).nunique(dropna=False)
    bad = n_values.index[n_values.to_numpy() > 1]
    culprits = {str(s): [str(v) for v in pd.unique(values[samples == s])[:4]] for s in bad[:SHOW]}
    msg = (
        f"adata.obs[{key!r}] must have one value per sample, but varies within {len(bad)} of {len(n_values)} samples of "
        f"adata.obs[{sample_key!r}] (missing counts as a value). First ones: {culprits}. "
        f"Either {key!r} is not a sample-level column, or {sample_key!r} is too coarse."
    )
    raise ValueError(msg)


def require_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise ValueError unless an argument has one of the values it may have."""
    choices = list(choices)
    if value not in choices:
        msg = f"{name}={value!r} is not one of {first(choices)}."
        raise ValueError(msg)


def words_of(name: str) -> set[str]:
    """Words of the name of a column, in small letters: ``OS.time`` has two, ``daysToDeath`` three."""
    apart = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return set(re.split(r"[\W_]+", apart.lower())) - {""}


def arguments_of(*takers: Callable[..., Any] | type) -> list[str]:
    """Names of the keyword arguments of functions and of constructors, whose bases are asked as far as further arguments are handed on."""
    names: dict[str, None] = {}
    for taker in takers:
        chain = (
            [vars(c)["__init__"] for c in taker.__mro__ if "__init__" in vars(c)] if inspect.isclass(taker) else [taker]
        )
        for function in chain:
            parameters = inspect.signature(function).parameters.values()
            names |= dict.fromkeys(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return [name for name in names if name not in ("self", "cls", "adata", "mdata", "adata_manager", "module")]


def _nearest(name: str, names: Iterable[str], n: int = 3) -> list[str]:
    """Names that are spelled like this one, or are what other libraries call it by."""
    names = list(names)
    own = OTHER_NAMES.get(name)
    return [own] if own in names else difflib.get_close_matches(name, names, n=n)


def require_known_arguments(
    given: Iterable[str], known: Iterable[str], *, of: str, elsewhere: Mapping[str, Iterable[str]] | None = None
) -> None:
    """Raise TypeError for an argument that nobody takes, with the nearest names there are and where they belong.

    Parameters
    ----------
    given
        Names that were passed on.
    known
        Names that are taken.
    of
        What takes them.
    elsewhere
        Names that others take, by what takes them.
    """
    known, elsewhere = list(known), {place: list(names) for place, names in (elsewhere or {}).items()}
    unknown = [str(name) for name in given if name not in known]
    if not unknown:
        return
    hints = []
    for name in unknown:
        places = [place for place, names in elsewhere.items() if name in names]
        near = [repr(n) for n in _nearest(name, known)]
        near += [f"{n!r} of {p}" for p, names in elsewhere.items() for n in _nearest(name, names, n=1)]
        near = [text for text in near if text.startswith(repr(OTHER_NAMES.get(name)))] or near
        if places:
            hints.append(f"{name!r} is an argument of {' and of '.join(places)}.")
        elif near:
            hints.append(f"{name!r}: did you mean {' or '.join(dict.fromkeys(near[:3]))}?")
    if len(hints) < len(unknown):
        hints.append(f"There are {first(known, 40)}.")
    msg = f"{of} has no argument{'s' if len(unknown) > 1 else ''} {', '.join(map(repr, unknown))}. {' '.join(hints)}"
    raise TypeError(msg)


def require_registrable(
    adata: AnnData, sample_key: str, *, layer: str | None, use_rep: str | None, caller: str
) -> None:
    """Raise unless an AnnData has what every model is set up with: one source of features, and a sample for each cell."""
    require_anndata(adata, caller=caller)
    if layer is not None and use_rep is not None:
        msg = f"Give `layer` or `use_rep`, not both (layer={layer!r}, use_rep={use_rep!r})."
        raise ValueError(msg)
    require_no_missing(require_obs(adata, sample_key), sample_key)

"""Covariates that a decoder is told: what is registered of them, and what users ask for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from scvi import REGISTRY_KEYS

from scset_tools import _checks, _labels
from scset_tools.data._fields import CellTypeField, SampleLabelField, SampleNumericField

if TYPE_CHECKING:
    from anndata import AnnData

CellCovariates = Sequence[str] | str | Mapping[str, str]
"""Columns of ``obs``, or columns with their kind."""

Asked: TypeAlias = Mapping[str, Any] | pd.DataFrame
"""Values by covariate: one for all samples, one for each, or a table (samples, covariates)."""

KINDS = ("class", "continuous", "cell")
"""A class or a number of the sample; a class of the cell."""


@dataclass(frozen=True)
class Covariate:
    """A registered covariate."""

    name: str
    """Column of ``adata.obs``."""
    kind: str
    """``"class"``, ``"continuous"`` or ``"cell"``."""
    key: str
    """Where it is registered."""
    classes: tuple[Any, ...] = ()
    """Values of a class, as the column held them."""

    @property
    def in_batch(self) -> tuple[str, int, bool]:
        """What a module knows of it: its key in a batch, number of classes (0: a number), and whether it is one of cells."""
        return self.key, len(self.classes), self.kind == "cell"


def read_kinds(
    adata: AnnData,
    covariate_keys: CellCovariates | None,
    sample_key: str,
    *,
    is_new: bool,
    kinds: Sequence[str] = KINDS,
) -> dict[str, str]:
    """Column to kind, one of ``kinds``; a saved model knows the kinds, in new data a column may be absent.

    Raises
    ------
    KeyError
        If a column is not there.
    ValueError
        If a kind is unknown, a column varies within a sample that must not, or has one value or none.
    """
    if covariate_keys is None:
        return {}
    given: dict[str, str | None]
    if isinstance(covariate_keys, Mapping):
        given = {str(k): str(v) for k, v in covariate_keys.items()}
    else:
        given = dict.fromkeys([covariate_keys] if isinstance(covariate_keys, str) else [str(k) for k in covariate_keys])
    if not is_new:
        return {k: str(v) for k, v in given.items()}
    found = {}
    for name, asked in given.items():
        if asked == "cell" and asked not in kinds:
            msg = (
                f"covariate_keys={{{name!r}: 'cell'}} tells a decoder of each single cell, which ScSet's is given; this one decodes a "
                "sample as a whole and is told what is the same in all of its cells."
            )
            raise ValueError(msg)
        if asked is not None:
            _checks.require_choice(f"covariate_keys[{name!r}]", asked, tuple(kinds))
        column = _checks.require_obs(adata, name)
        if asked != "cell":
            column = _constant(adata, name, sample_key, takes_cells="cell" in kinds)
        guessed = "continuous" if _labels.guess_kind(column) == "continuous" else "class"
        found[name] = asked or guessed
        n_values = column.nunique()
        if n_values < 2:
            msg = (
                f"The covariate adata.obs[{name!r}] has {n_values} value ({_checks.first(column.dropna().unique())}): nothing "
                "can be learned of what it does. Leave it out of covariate_keys."
            )
            raise ValueError(msg)
    return found


def _constant(adata: AnnData, name: str, sample_key: str, *, takes_cells: bool) -> pd.Series:
    try:
        return _checks.require_constant_within_sample(adata, name, sample_key)
    except ValueError as error:
        if not takes_cells:
            raise
        msg = f"{error} A covariate of the cell, such as its type, is asked for as covariate_keys={{{name!r}: 'cell'}}."
        raise ValueError(msg) from error


def fields_of_covariates(kinds: Mapping[str, str], sample_key: str) -> tuple[Any, ...]:
    """Fields of a registration.

    Parameters
    ----------
    kinds
        Column to kind.
    sample_key
        Column of the sample of each cell.
    """
    fields: list[Any] = []
    for i, (name, kind) in enumerate(kinds.items()):
        key = f"covariate_{i}"
        if kind == "continuous":
            fields.append(SampleNumericField(key, name, sample_key))
        elif kind == "cell":
            fields.append(CellTypeField(key, name))
        else:
            fields.append(SampleLabelField(key, name, sample_key))
    return tuple(fields)


def covariates_of(registry: Mapping[str, Any]) -> list[Covariate]:
    """The covariates of a registration."""
    out = []
    for i, (name, kind) in enumerate((registry["setup_args"].get("covariate_keys") or {}).items()):
        key = f"covariate_{i}"
        classes: tuple[Any, ...] = ()
        if kind != "continuous":
            classes = tuple(registry["field_registries"][key]["state_registry"]["categorical_mapping"])
        out.append(Covariate(name, kind, key, classes))
    return out


def values_of_samples(manager: Any, covariates: Sequence[Covariate], names: Sequence[str]) -> pd.DataFrame:
    """What samples have, as numbers: the code of a class, NaN where missing or of the cell; (samples, covariates), float64.

    Parameters
    ----------
    manager
        Of the cells of the samples.
    covariates
        Registered covariates.
    names
        Names of the samples.
    """
    known = [str(n) for n in manager.get_state_registry(REGISTRY_KEYS.SAMPLE_KEY).categorical_mapping]
    codes = np.asarray(manager.get_from_registry(REGISTRY_KEYS.SAMPLE_KEY)).ravel()
    first = pd.Series(np.arange(len(codes))).groupby(codes).first().to_numpy()
    rows = first[pd.Index(known).get_indexer(list(names))]
    table = pd.DataFrame(index=pd.Index(names), columns=[c.name for c in covariates], dtype=np.float64)
    for c in covariates:
        if c.kind != "cell":
            values = np.asarray(manager.get_from_registry(c.key)).ravel()[rows].astype(np.float64)
            table[c.name] = values if c.kind == "continuous" else np.where(values < 0, np.nan, values)
    return table


def asked_values(
    asked: Asked | None,
    covariates: Sequence[Covariate],
    own: pd.DataFrame,
    *,
    ranges: Mapping[str, tuple[float, float]],
) -> tuple[pd.DataFrame, list[str]]:
    """What the decoder is told of each sample: its own values, and in their place what is asked for.

    Parameters
    ----------
    asked
        Values by covariate: one, one for each sample, or a table indexed by sample. None is "not told".
    covariates
        Registered covariates.
    own
        Values of the samples themselves, as from :func:`values_of_samples`.
    ranges
        Smallest and largest value of each number in training.

    Returns
    -------
    The values, (samples, covariates), and the names of those that were asked for.

    Raises
    ------
    KeyError
        If there is no such covariate, or a table lacks a sample.
    ValueError
        If a value is not one of training, or there are more or fewer values than samples.

    Warns
    -----
    UserWarning
        If a number lies beyond those of training.
    """
    if asked is None:
        return own, []
    by_name = {c.name: c for c in covariates}
    unknown = [str(name) for name in asked if name not in by_name]
    if unknown:
        registered = (
            f"the model was set up with {_checks.first(by_name, 20)}"
            if by_name
            else "the model was set up without covariates: setup_anndata(adata, ..., covariate_keys=[...])"
        )
        msg = f"{_checks.first(unknown)} is no covariate of this model; {registered}."
        raise KeyError(msg)
    if isinstance(asked, pd.DataFrame):
        absent = own.index.difference(asked.index, sort=False)
        if len(absent):
            msg = f"The table of covariates lacks {len(absent)} of {len(own)} samples (first: {_checks.first(absent)})."
            raise KeyError(msg)
        asked = {name: asked.loc[own.index, name].to_numpy() for name in asked}
    out = own.copy()
    for name, value in asked.items():
        is_one = value is None or isinstance(value, str) or np.ndim(value) == 0
        column = pd.Series([value] * len(own) if is_one else list(value), name=name, dtype=object)
        if len(column) != len(own):
            msg = f"covariates[{name!r}] has {len(column)} values for {len(own)} samples: give one, or one for each."
            raise ValueError(msg)
        out[name] = _as_numbers(column, by_name[name], ranges)
    return out, list(asked)


def _as_numbers(column: pd.Series, covariate: Covariate, ranges: Mapping[str, tuple[float, float]]) -> np.ndarray:
    column = column.where(column.notna(), None)
    if column.isna().all():
        return np.full(len(column), np.nan)
    if covariate.kind != "continuous":
        try:
            codes = _labels.match_classes(column, covariate.classes).astype(np.float64)
        except ValueError as error:
            unseen = [
                v for v in column.dropna().unique() if _labels.name_of(v) not in map(_labels.name_of, covariate.classes)
            ]
            msg = (
                f"covariates[{covariate.name!r}] asks for {_checks.first(unseen)}, which no sample of training has. Known: "
                f"{_checks.first(covariate.classes, 20)}; None leaves it unsaid."
            )
            raise ValueError(msg) from error
        return np.where(codes < 0, np.nan, codes)
    numbers = _labels.read_numbers(pd.to_numeric(column) if _labels.is_number(column) else column)
    low, high = ranges[covariate.name]
    is_beyond = (numbers < low) | (numbers > high)
    if is_beyond.any():
        warnings.warn(
            f"covariates[{covariate.name!r}] asks for {_checks.first(numbers[is_beyond])}, beyond the training samples ({low:g} to "
            f"{high:g}): what is generated is an extrapolation.",
            UserWarning,
            stacklevel=5,
        )
    return numbers


def weights_of(batch_weight: float | Mapping[str, float], covariates: Sequence[Covariate]) -> list[float]:
    """Weight of each covariate; one of cells has none.

    Parameters
    ----------
    batch_weight
        One weight for all covariates of samples, or weights by name.
    covariates
        Registered covariates.

    Raises
    ------
    ValueError
        If a weight is of what is no covariate of samples.
    """
    of_samples = [c.name for c in covariates if c.kind != "cell"]
    by_name = (
        {str(k): float(v) for k, v in batch_weight.items()}
        if isinstance(batch_weight, Mapping)
        else dict.fromkeys(of_samples, float(batch_weight))
        if batch_weight
        else {}
    )
    if batch_weight and not of_samples:
        msg = f"batch_weight={batch_weight} takes covariates of samples out of the vectors: name them in setup_anndata(covariate_keys=[...])."
        raise ValueError(msg)
    unknown = [name for name in by_name if name not in of_samples]
    if unknown:
        msg = f"batch_weight names {_checks.first(unknown)}, but the covariates of samples are {_checks.first(of_samples)}."
        raise ValueError(msg)
    return [by_name.get(c.name, 0.0) for c in covariates]

"""Predictions of fitted heads, and how good they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from scset_tools import _checks, _metrics
from scset_tools._samples import as_text
from scset_tools.model.supervise._finetune import vectors_of
from scset_tools.model.supervise._fitted import FittedHead
from scset_tools.model.supervise._heads import TimeToEventHead
from scset_tools.model.supervise._targets import Target, is_known

if TYPE_CHECKING:
    from scset_tools.data._dataset import SampleDataset


def chosen_heads(heads: dict[str, FittedHead], label_key: str | None, *, model: str, several: bool) -> list[FittedHead]:
    """The head of a label; without one the only head, or with ``several`` all that predict the same level.

    Raises
    ------
    ValueError
        If there are none, or more than can be meant.
    KeyError
        If there is none of this label.
    """
    if not heads:
        msg = f"This {model} predicts nothing yet: call finetune('<column of labels>') first."
        raise ValueError(msg)
    if label_key is not None:
        if label_key not in heads:
            msg = f"{label_key!r} is not predicted by this model: it predicts {_checks.first(heads)}. Call finetune({label_key!r})."
            raise KeyError(msg)
        return [heads[label_key]]
    levels = {fitted.level for fitted in heads.values()}
    if len(levels) > 1 or (len(heads) > 1 and not several):
        known = {name: fitted.level for name, fitted in heads.items()}
        msg = f"Name the label, label_key='...': this model predicts several ({known})."
        raise ValueError(msg)
    return list(heads.values())


def outputs(
    fitted: Iterable[FittedHead], dataset: SampleDataset, positions: np.ndarray, *, batch_size: int
) -> dict[str, np.ndarray]:
    """By label what its head says of the numbered samples, or of all cells: one pass for each encoder.

    Probabilities (n, classes), numbers (n, 1), or of times to an event the log hazard and then survival (n, 1 + times).
    """
    vectors: dict[int, Any] = {}
    out = {}
    for one in fitted:
        key = id(one.module)
        if key not in vectors:
            z = vectors_of(one.module, dataset, one.level, positions=positions, batch_size=batch_size)
            vectors[key] = torch.from_numpy(z if one.level == "cell" else z[positions])
        with torch.inference_mode():
            z = vectors[key].to(one.head.center)
            found = one.head.eval().predictions(z).double()
            if isinstance(one.head, TimeToEventHead):
                found = torch.cat([found, one.head.survival(z)], 1)
        out[one.target.name] = found.cpu().numpy()
    return out


def decided(p: np.ndarray, target: Target) -> np.ndarray:
    """What is predicted: the most probable class, of levels the median, the number, or the log hazard, (n,).

    The median loses least in levels away from the truth, and can be any level; the most probable one may never be a middle
    level.
    """
    if not target.classes:
        return p[:, 0]
    return np.asarray(target.classes, dtype=object)[decided_codes(p, target)]


def decided_codes(p: np.ndarray, target: Target) -> np.ndarray:
    """Number of the class or level that is predicted, (n,)."""
    if target.kind != "ordinal":
        return p.argmax(axis=1)
    is_reached = p.cumsum(axis=1) >= 0.5
    is_reached[:, -1] = True  # whatever rounding left of the sum
    return is_reached.argmax(axis=1)


def scored(values: np.ndarray, p: np.ndarray, target: Target) -> dict[str, float]:
    """Metrics of the kind of label for labels that are all there."""
    if target.kind == "class":
        return _metrics.class_metrics(values, decided_codes(p, target), p)
    if target.kind == "ordinal":
        levels = np.arange(len(target.classes), dtype=float)
        return _metrics.ordinal_metrics(values.astype(float), decided_codes(p, target).astype(float), levels)
    if target.kind == "continuous":
        return _metrics.number_metrics(values, p[:, 0])
    return _metrics.survival_metrics(values[:, 0], values[:, 1] > 0, p[:, 0])


def known_of(values: np.ndarray, target: Target, *, what: str) -> np.ndarray:
    """Which labels are there, (n,), or a ValueError if there is nothing to compare with."""
    known = is_known(values, target.kind)
    if not known.any():
        msg = f"None of the {len(values)} {what} has a value of {target.name!r}: there is nothing to compare with."
        raise ValueError(msg)
    return known


def proba_frame(found: np.ndarray, one: FittedHead, index: pd.Index) -> pd.DataFrame:
    """Probabilities with the names of the classes, or survival with the times of events, as columns."""
    if one.target.classes:
        return pd.DataFrame(found, index=index, columns=list(one.target.classes))
    if isinstance(one.head, TimeToEventHead):
        times = pd.Index(one.head.times.cpu().numpy(), name=one.target.name)
        return pd.DataFrame(found[:, 1:], index=index, columns=times)
    msg = f"{one.target.name!r} is a number, which has no probabilities: use predict."
    raise ValueError(msg)


def names_of(dataset: SampleDataset, positions: np.ndarray, sample_key: str) -> pd.Index:
    """Names of the numbered samples."""
    return pd.Index(as_text(dataset.index.names[positions]), name=sample_key)

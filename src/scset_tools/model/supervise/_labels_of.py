"""Labels of the samples, or cells, of an AnnData, and their split into training, validation and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scset_tools import _checks
from scset_tools.data._dataset import SampleDataset
from scset_tools.data._split import split_samples
from scset_tools.model.supervise._targets import Target, is_known, read_target


@dataclass(frozen=True)
class Labels:
    """Labels of all samples, or of all cells, of an AnnData."""

    target: Target
    values: np.ndarray
    """Codes, numbers, or times and events, by number of the sample or row of the cell."""

    @property
    def is_known(self) -> np.ndarray:
        """Which are not missing, (n,)."""
        return is_known(self.values, self.target.kind)

    def known(self, items: np.ndarray) -> np.ndarray:
        """Those of some samples, or cells, that are not missing."""
        return self.values[items][self.is_known[items]]

    def tensor(self) -> torch.Tensor:
        """The values as a module reads them."""
        return torch.from_numpy(np.asarray(self.values, np.int64 if self.target.classes else np.float64))

    def has_loss(self, items: np.ndarray) -> bool:
        """Whether any of these has a loss: a label, or of times to an event an event."""
        known = self.known(items)
        return bool(len(known)) and (known.ndim == 1 or bool((known[:, 1] > 0).any()))

    def require_classes(self, train: np.ndarray, names: Sequence[Any]) -> None:
        """Raise ValueError unless each class that occurs has a label in training, and there are two at least."""
        target, known = self.target, self.known(train)
        if not len(known):
            msg = f"No training sample has a value of {target.name!r}. Name the parts with external_indexing."
            raise ValueError(msg)
        if not target.classes:
            return
        if len(target.classes) < 2:
            msg = f"adata.obs[{target.name!r}] has one class, {_checks.first(target.classes)}, in these samples: two are needed."
            raise ValueError(msg)
        absent = np.setdiff1d(np.arange(len(target.classes)), known).astype(int)
        if len(absent):
            rest = {target.classes[c]: _checks.first(np.asarray(names)[self.values == c], 3) for c in absent}
            msg = (
                f"{len(absent)} of {len(target.classes)} classes of {target.name!r} have no training sample after the "
                f"split: {rest}. Try another seed, a larger train_size or stratify=True, name the parts with "
                "external_indexing, or set these labels to missing."
            )
            raise ValueError(msg)


def read_labels(
    adata: Any,
    dataset: SampleDataset,
    kinds: Mapping[str, tuple[str, str | None]],
    *,
    is_cell: bool,
    sample_key: str,
    samples: Sequence[str] | None,
) -> list[Labels]:
    """Labels of all samples, or cells; classes are those of the named samples, of which each needs a label."""
    index, n_rows = dataset.index, dataset.reader.n_rows
    positions = index.positions(samples)
    numbers = np.sort(index.cells_of(positions)) if is_cell else positions
    rows = numbers if is_cell else index.first(np.arange(n_rows))[positions]
    out = []
    for key, (kind, event_key) in kinds.items():
        if is_cell and kind == "time_to_event":
            msg = f"{key!r} is a time to an event, which a sample has, not a cell: level='sample'."
            raise ValueError(msg)
        target, values = read_target(
            adata, key, kind, event_key=event_key, sample_key=None if is_cell else sample_key, rows=rows
        )
        n = n_rows if is_cell else len(index)
        of_all = np.full((n, *values.shape[1:]), -1 if target.classes else np.nan, dtype=values.dtype)
        of_all[numbers] = values
        out.append(Labels(target, of_all))
    if samples is not None and not is_cell:
        bare = positions[~np.any([one.is_known[positions] for one in out], axis=0)]
        if len(bare):
            msg = (
                f"{_checks.first(kinds)} of adata.obs is missing for {len(bare)} of {len(positions)} named samples (first: "
                f"{_checks.first(index.names[bare])}): there is nothing to learn from them. Name labelled ones, "
                "finetune(..., samples=[...]), or none: samples without a label are then left out."
            )
            raise ValueError(msg)
    return out


def read_groups(adata: Any, groups_key: str | None, *, sample_key: str, index: Any) -> np.ndarray | None:
    """Group of each sample, (samples,)."""
    if groups_key is None:
        return None
    column = _checks.require_constant_within_sample(adata, groups_key, sample_key)
    _checks.require_no_missing(column, groups_key)
    return index.first(column.astype(str).to_numpy())


def split_labelled(
    index: Any,
    positions: np.ndarray,
    *,
    train_size: float | None,
    validation_size: float | None,
    external_indexing: Sequence[Sequence[str]] | None,
    groups: np.ndarray | None,
    strata: np.ndarray | None,
    seed: int,
) -> list[np.ndarray]:
    """Numbers of the training, validation and test samples among those with a label."""
    if external_indexing is not None:
        named = [() if part is None else part for part in [*external_indexing, (), ()][:3]]
        parts = [index.positions(part) if len(part) else np.zeros(0, np.int64) for part in named]
        parts = [part[np.isin(part, positions)] for part in parts]
        if not len(parts[0]):
            msg = "None of the training samples that external_indexing names (or that train() was given) has a label to learn from."
            raise ValueError(msg)
        return parts
    if train_size is None and validation_size is None:
        return [positions, positions[:0], positions[:0]]
    found = split_samples(
        len(positions),
        1 - (validation_size or 0.0) if train_size is None else train_size,
        validation_size,
        groups=None if groups is None else groups[positions],
        strata=None if strata is None else strata[positions],
        rng=seed,
    )
    return [positions[part] for part in found]

"""Attributions of groups of cells: of each sample, or, where these are too many to hold, summed over samples as they are found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

MAX_BYTES = 2**31
"""Most bytes of contributions by sample, group, class and feature (2 GiB): of more, the sums over samples alone are kept."""
MAX_BYTES_AT_ONCE = 2**28
"""Most bytes of sums by group that are made of a batch at a time (256 MiB), unless one group of one sample takes more."""


@dataclass(frozen=True)
class Weighing:
    """What sums over samples are asked for of a result.

    Attributes
    ----------
    weights
        Name of a sum to the weight of each sample in the sum of each class, (samples, classes).
    which
        Number of the computed score of each class, (classes,).
    sign
        What it is multiplied with, (classes,).
    """

    weights: dict[str, np.ndarray]
    which: np.ndarray
    sign: np.ndarray


class GroupSums:
    """Contributions of features in groups of cells, summed over samples with weights, (groups, classes, features), float64.

    Parameters
    ----------
    weighing
        Weights of the samples, in the order of their places.
    n_groups, n_features
        Sizes.
    """

    def __init__(self, weighing: Weighing, n_groups: int, n_features: int) -> None:
        self._weighing = weighing
        self._shape = (n_groups, len(weighing.which), n_features)
        self.sums = self._zeros()

    def _zeros(self) -> dict[str, np.ndarray]:
        return {name: np.zeros(self._shape) for name in self._weighing.weights}

    def add(self, place: int, group: int, found: np.ndarray) -> None:
        """Take what the cells of a group contribute in a sample that does not come again.

        Parameters
        ----------
        place
            Place of the sample.
        group
            Number of the group.
        found
            (computed scores, features).
        """
        turned = found[self._weighing.which] * self._weighing.sign[:, None]
        for name, weights in self._weighing.weights.items():
            self.sums[name][group] += weights[place][:, None] * turned

    def give(self) -> dict[str, np.ndarray]:
        """The sums, for another process; here they begin anew, so that none counts twice."""
        sums, self.sums = self.sums, self._zeros()
        return sums

    def take(self, sums: dict[str, np.ndarray]) -> None:
        """Take what another process has summed.

        Parameters
        ----------
        sums
            From :meth:`give`.
        """
        for name, value in sums.items():
            self.sums[name] += value


def sums_by_place(
    found: Any, place: Tensor, n_places: int, *, n_features: int, kept: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
    """Sums over the cells in each place, some places at a time: (first place, (k, places, features)), float64.

    Parameters
    ----------
    found
        Attributions of a batch.
    place
        Number of the place of each cell, (cells,).
    n_places
        Number of places.
    n_features
        Number of features of the attributions.
    kept
        Numbers of the features that are wanted.
    """
    at_once = max(1, MAX_BYTES_AT_ONCE // (8 * len(found.cells) * n_features) - 1)
    for start in range(0, n_places, at_once):
        n = min(at_once, n_places - start)
        is_here = (place >= start) & (place < start + n)
        # cells of other places share one that is left out
        here = torch.where(is_here, place - start, n)
        yield start, found.sums(here, n + 1)[:, :n].cpu().numpy()[..., kept]

"""From attributions of batches to those of samples, groups and cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse

from scset_tools.data._dataset import SampleDataset
from scset_tools.model.explain._group_sums import MAX_BYTES, GroupSums, Weighing, sums_by_place
from scset_tools.nn import sample_of_cell

_OF_SAMPLES = ("values", "group_cells", "group_sizes", "f_input", "f_baseline", "error")
"""Attributes of :class:`SampleSums` with one entry for each sample, beside ``group_values``, which may not be there."""


class SampleSums:
    """Attributions summed over the cells of each sample, by group and feature.

    A sample that comes again replaces what was there: its second coming had more steps. Contributions by group are kept for each sample, or,
    where that would take more than ``MAX_BYTES``, summed over samples.

    Parameters
    ----------
    dataset
        Cells that are attributed to.
    positions
        Numbers of the samples, distinct, (n,).
    group
        Group of each cell of the AnnData, (cells,); -1 for none.
    n_groups, n_scores
        Numbers of groups and of scores.
    kept
        Numbers of the features that are kept, (features,).
    weighing
        The sums over samples that are asked for.
    """

    def __init__(
        self,
        dataset: SampleDataset,
        positions: np.ndarray,
        group: np.ndarray,
        *,
        n_groups: int,
        n_scores: int,
        kept: np.ndarray,
        weighing: Weighing,
    ) -> None:
        self.place = {int(p): i for i, p in enumerate(positions)}
        self.group, self.n_groups, self.kept = group, n_groups, kept
        n = len(positions)
        self.cells = np.full((dataset.reader.n_rows, n_scores), np.nan, dtype=np.float32)
        self.values = np.zeros((n, n_scores, len(kept)), dtype=np.float32)
        self.n_features = dataset.reader.n_features
        self.group_values: np.ndarray | None = None
        self.group_sums: GroupSums | None = None
        if 4 * n * n_groups * max(n_scores, len(weighing.which)) * len(kept) > MAX_BYTES:
            self.group_sums = GroupSums(weighing, n_groups, len(kept))
        else:
            self.group_values = np.zeros((n, n_groups, n_scores, len(kept)), dtype=np.float32)
        self.group_cells = np.zeros((n, n_groups, n_scores))
        self.group_sizes = np.zeros((n, n_groups), dtype=np.int64)
        self.f_input, self.f_baseline, self.error = (np.full((n, n_scores), np.nan) for _ in range(3))

    def add(self, space: Any, found: Any, errors: torch.Tensor, *, is_final: Sequence[bool]) -> None:
        """Take the attributions of a batch, found in its space.

        Parameters
        ----------
        space, found
            The batch and what was found of it.
        errors
            Completeness errors, (samples, scores).
        is_final
            Whether a sample does not come again.
        """
        rows, numbers = space.batch.rows.cpu().numpy(), space.batch.sample.tolist()
        at = [self.place[s] for s in numbers]
        self.cells[rows] = found.cells.T.cpu().numpy()
        for out, value in (
            (self.f_input, found.f_input),
            (self.f_baseline, found.f_baseline),
            (self.error, errors),
        ):
            out[at] = value.double().cpu().numpy()
        sample, n = sample_of_cell(space.ptr, n_cells=len(rows)), len(numbers)
        if not self.n_groups:
            self.values[at] = found.sums(sample, n).cpu().numpy()[..., self.kept].swapaxes(0, 1)
            return
        # cells of no group form one more, so that nothing is lost from the sums over all cells
        n_places = self.n_groups + 1
        group = torch.from_numpy(self.group[rows]).to(sample.device)
        place = sample * n_places + torch.where(group < 0, self.n_groups, group)
        total = np.zeros((n, len(found.cells), len(self.kept)))
        present, number = place.unique(return_inverse=True)  # most samples lack most groups
        places = present.tolist()
        for start, sums in sums_by_place(found, number, len(places), n_features=self.n_features, kept=self.kept):
            for i in range(sums.shape[1]):
                which, of_group = divmod(places[start + i], n_places)
                total[which] += sums[:, i]
                if of_group == self.n_groups:
                    continue
                if self.group_values is not None:
                    self.group_values[at[which], of_group] = sums[:, i]
                elif self.group_sums is not None and is_final[which]:
                    self.group_sums.add(at[which], of_group, sums[:, i])
        self.values[at] = total
        of_cells = found.cells.new_zeros(len(found.cells), n * n_places).index_add_(1, place, found.cells)
        self.group_cells[at] = of_cells.view(-1, n, n_places)[..., :-1].permute(1, 2, 0).cpu().numpy()
        self.group_sizes[at] = torch.bincount(place, minlength=n * n_places).view(n, -1)[:, :-1].cpu().numpy()

    def part(self, numbers: np.ndarray, dataset: SampleDataset) -> dict[str, Any]:
        """What is known of some samples, for another process.

        Parameters
        ----------
        numbers
            Their numbers.
        dataset
            Cells that are attributed to.
        """
        at = [self.place[int(s)] for s in numbers]
        rows = dataset.index.cells_of(numbers)
        groups = {"group_values": self.group_values[at]} if self.group_values is not None else {}
        sums = {"group_sums": self.group_sums.give()} if self.group_sums is not None else {}
        own = {name: getattr(self, name)[at] for name in _OF_SAMPLES}
        return {"at": at, "rows": rows, "cells": self.cells[rows], **own, **groups, **sums}

    def take(self, part: dict[str, Any]) -> None:
        """Take what another process knows.

        Parameters
        ----------
        part
            From :meth:`part`.
        """
        self.cells[part["rows"]] = part["cells"]
        for name in _OF_SAMPLES:
            getattr(self, name)[part["at"]] = part[name]
        if self.group_values is not None:
            self.group_values[part["at"]] = part["group_values"]
        if self.group_sums is not None:
            self.group_sums.take(part["group_sums"])


class CellMatrix:
    """Attributions of every feature in every cell to one score, sample by sample.

    Parameters
    ----------
    which, sign
        Number of the score, and what it is multiplied with.
    """

    def __init__(self, which: int, sign: float) -> None:
        self.which, self.sign = which, sign
        self.blocks: dict[int, tuple[np.ndarray, Any]] = {}

    def add(self, space: Any, found: Any, errors: torch.Tensor, *, is_final: Sequence[bool]) -> None:
        """Take the attributions of a batch."""
        del errors, is_final
        rows, ptr, matrix = space.batch.rows.cpu().numpy(), space.ptr.tolist(), found.matrix(self.which) * self.sign
        for i, sample in enumerate(space.batch.sample.tolist()):
            own = slice(ptr[i], ptr[i + 1])
            self.blocks[sample] = rows[own], matrix[own]

    def part(self, numbers: np.ndarray, dataset: SampleDataset) -> dict[str, Any]:
        """What is known of some samples, for another process.

        Parameters
        ----------
        numbers
            Their numbers.
        dataset
            Not used.
        """
        del dataset
        return {"blocks": {int(s): self.blocks[int(s)] for s in numbers}}

    def take(self, part: dict[str, Any]) -> None:
        """Take what another process knows.

        Parameters
        ----------
        part
            From :meth:`part`.
        """
        self.blocks |= part["blocks"]

    def result(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray | sparse.csr_matrix]:
        """Rows of the AnnData, (cells,), and attributions, (cells, features), sample after sample."""
        rows, blocks = zip(*(self.blocks[int(p)] for p in positions), strict=True)
        is_sparse = sparse.issparse(blocks[0])
        return np.concatenate(rows), sparse.vstack(blocks, format="csr") if is_sparse else np.concatenate(blocks)

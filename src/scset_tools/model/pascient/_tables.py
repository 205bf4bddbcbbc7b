"""From attributions of batches to the tables of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from scset_tools.model._sample_attributions import SampleAttributions
from scset_tools.nn import LinearAttributions, sample_of_cell

if TYPE_CHECKING:
    from scset_tools.data._batch import SampleBatch
    from scset_tools.data._dataset import SampleDataset


class AttributionTables:
    """Adds up attributions of batches by cell, and by sample, group and gene.

    Parameters
    ----------
    dataset
        Cells that are attributed to.
    positions
        Numbers of the samples, (n,).
    group
        Group of each cell of the AnnData, (cells,); -1 for none.
    n_groups, n_genes
        Numbers of groups and of genes.
    """

    def __init__(
        self, dataset: SampleDataset, positions: np.ndarray, group: np.ndarray, *, n_groups: int, n_genes: int
    ) -> None:
        self.names = dataset.index.names[positions].astype(str)
        self.place = {int(p): i for i, p in enumerate(positions)}
        self.group, self.n_groups, self.n_genes = group, n_groups, n_genes
        n = len(positions)
        self.cells = np.full(dataset.reader.n_rows, np.nan, dtype=np.float64)
        self.genes, self.n_cells = np.zeros((n, n_genes)), np.zeros(n)
        self.by_group = np.full((n, n_groups, n_genes), np.nan, dtype=np.float32)
        self.group_sizes, self.group_sums = np.zeros((n, n_groups)), np.zeros((n, n_groups))
        self.scores = np.full((n, 3), np.nan)

    def add(self, batch: SampleBatch, found: LinearAttributions) -> None:
        """Take the attributions of a batch.

        Parameters
        ----------
        batch
            Whose cells they are.
        found
            Its attributions.
        """
        rows = batch.rows.cpu().numpy()
        self.cells[rows] = found.cells.cpu().numpy()
        sample = sample_of_cell(batch.ptr, n_cells=len(rows))
        at = [self.place[int(s)] for s in batch.sample.tolist()]
        self.n_cells[at] = batch.sizes.cpu().numpy()
        measures = (found.f_input, found.f_baseline, found.completeness_error)
        self.scores[at] = torch.stack([m.double() for m in measures], 1).cpu().numpy()
        if not self.n_groups:
            self.genes[at] = found.sums(sample, batch.n_samples).cpu().numpy()
            return
        # cells of no group form one more, so that nothing is lost from the sums over all cells
        n = self.n_groups + 1
        group = torch.from_numpy(self.group[rows]).to(sample.device)
        place = sample * n + torch.where(group < 0, self.n_groups, group)
        sums = found.sums(place, batch.n_samples * n).view(batch.n_samples, n, -1).cpu().numpy()
        counts = torch.bincount(place, minlength=batch.n_samples * n).view(-1, n)[:, :-1].cpu().numpy()
        zeros = torch.zeros(batch.n_samples * n, dtype=torch.float64, device=place.device)
        of_cells = zeros.index_add_(0, place, found.cells).view(-1, n)[:, :-1].cpu().numpy()
        self.genes[at] = sums.sum(1)
        self.by_group[at] = np.where(counts[..., None] > 0, sums[:, :-1], np.nan)
        self.group_sizes[at], self.group_sums[at] = counts, of_cells

    def result(
        self,
        *,
        mean: bool,
        cells: pd.Index,
        genes: pd.Index,
        groups: list[str],
        sample_key: str,
        **about: Any,
    ) -> SampleAttributions:
        """What was added up.

        Parameters
        ----------
        mean
            Whether cells and genes are averaged rather than summed.
        cells, genes, groups
            Names.
        sample_key
            Name of the index of samples.
        **about
            Further fields of the result.
        """
        per_cell, per_sample, per_group = 1.0, np.ones(len(self.names)), np.ones_like(self.group_sizes)
        if mean:
            # attention sums over cells already, and its weights are not a sum over genes
            per_cell = 1.0 if about["method"] == "attention" else 1.0 / self.n_genes
            per_sample, per_group = np.maximum(self.n_cells, 1), np.maximum(self.group_sizes, 1)
        index = pd.Index(self.names, name=sample_key)
        sums = np.where(self.group_sizes > 0, self.group_sums, np.nan) * per_cell / per_group
        return SampleAttributions(
            cells=pd.Series((self.cells * per_cell).astype(np.float32), index=cells),
            genes=pd.DataFrame(self.genes / per_sample[:, None], index=index, columns=genes),
            groups=pd.DataFrame(sums, index=index, columns=pd.Index(groups, dtype=object)),
            group_genes=(self.by_group / per_group[..., None]).astype(np.float32),
            scores=pd.DataFrame(self.scores, index=index, columns=["score", "baseline_score", "completeness_error"]),
            **about,
        )

"""What moved the score of samples, by cell, gene and group of cells; and the writing of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scset_tools import _checks, _keys
from scset_tools._samples import as_text
from scset_tools._short_repr import ShortRepr

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True, repr=False)
class SampleAttributions(ShortRepr):
    """Attributions to a score of samples; positive values speak for the target.

    Attributes
    ----------
    target
        Class (or column, for ordered or continuous targets) that is explained.
    reference
        Class that the target's score is taken relative to, if any.
    label_key
        Column of the target.
    method, baseline, reduce
        How they were computed: ``"integrated_gradients"``, ``"gradient_x_input"`` or ``"attention"``; from ``"zeros"`` or the mean
        cell of the ``"reference"``; and whether cells and genes are averaged (``"mean"``) or summed (``"sum"``).
    cells
        Score of each cell, over genes, indexed by ``obs_names``; NaN for a cell that was not drawn.
    genes
        Score of each gene in each sample, over its cells, (samples, genes).
    groups
        Score of each group of cells in each sample, over its cells and genes, (samples, groups); NaN where a sample has no such
        cell. Without ``groupby`` no columns.
    group_genes
        Score of each gene in each group of each sample, (samples, groups, genes), NaN likewise.
    scores
        Per sample ``score`` and ``baseline_score``, in the units of the logit, and ``completeness_error``: how far the sum of
        attributions is from their difference, relative to it (NaN for attention, which is not complete).
    """

    target: str
    reference: str | None
    label_key: str
    method: str
    baseline: str
    reduce: str
    cells: pd.Series
    genes: pd.DataFrame
    groups: pd.DataFrame
    group_genes: np.ndarray = field(repr=False)
    scores: pd.DataFrame = field(repr=False)

    @property
    def completeness_error(self) -> pd.Series:
        """Largest relative error of the sum of attributions, per sample."""
        return self.scores["completeness_error"]

    def rank_genes(self, group: str | None = None) -> pd.Series:
        """Mean over samples of the score of each gene, largest first.

        Parameters
        ----------
        group
            Only in the cells of this group (Fig. 4b-c of PaSCient). Default: in all cells.
        """
        table = self.genes if group is None else self.genes_of(group)
        return table.mean(axis=0).sort_values(ascending=False, kind="stable")

    def rank_groups(self) -> pd.Series:
        """Mean over samples of the score of each group, largest first (Fig. 4a of PaSCient)."""
        return self.groups.mean(axis=0).sort_values(ascending=False, kind="stable")

    def genes_of(self, group: str) -> pd.DataFrame:
        """Score of each gene in one group of cells, (samples that have such cells, genes).

        Parameters
        ----------
        group
            Name of the group.
        """
        if group not in self.groups.columns:
            msg = f"{group!r} is not a group of these attributions: {_checks.first(self.groups.columns, 20)}."
            raise KeyError(msg)
        values = self.group_genes[:, self.groups.columns.get_loc(group)]
        has_any = ~np.isnan(values).all(axis=1) if values.shape[1] else np.zeros(len(values), bool)
        return pd.DataFrame(values[has_any], index=self.genes.index[has_any], columns=self.genes.columns)

    def by_group_and_gene(self) -> pd.DataFrame:
        """Mean over samples of each gene in each group, (groups, genes)."""
        count = np.maximum((~np.isnan(self.group_genes)).sum(axis=0), 1)
        return pd.DataFrame(
            np.nansum(self.group_genes, axis=0) / count, index=self.groups.columns, columns=self.genes.columns
        )

    def summary(self) -> pd.DataFrame:
        """Scores of each sample, with the completeness error."""
        return self.scores


def write_sample_attributions(adata: AnnData, found: SampleAttributions, key: str) -> None:
    """Cells to ``obs``, genes to ``var`` (mean over samples), groups x genes to ``varm``, samples x groups to ``uns``.

    Genes are aligned by name, those that the model does not know get NaN; where ``var`` has none of them (the model read
    ``obsm``) they go to ``uns``. ``X`` is not touched.
    """
    adata.obs[key] = found.cells.to_numpy(dtype=np.float32)
    genes = found.genes.mean(axis=0)
    names = pd.Index(as_text(adata.var_names))
    is_var = bool(names.isin(genes.index).any())
    if is_var:
        adata.var[key] = genes.reindex(names).to_numpy(dtype=np.float32)
    else:
        adata.uns[_keys.attribution_genes(key)] = genes.to_frame("attribution")
    if len(found.groups.columns):
        table = found.by_group_and_gene().T
        if is_var:
            aligned = table.reindex(names).astype(np.float32)
            adata.varm[key] = aligned.set_axis(adata.var_names).rename(columns=_keys.key)
        adata.uns[key] = found.groups.rename(columns=_keys.key).astype(np.float32)
        _keys.remember(adata.uns, found.groups.columns)
    adata.uns[_keys.attribution_scores(key)] = found.scores

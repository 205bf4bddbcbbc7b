"""Genes found by their names: in any order, among others, and zero where there are none."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scset_tools import _checks
from scset_tools._samples import as_text
from scset_tools.data._feature_fields import CellLayerField, Change
from scset_tools.data._features import check_features
from scset_tools.data._picked import PickedColumns
from scset_tools.data._rows import Named

COLUMNS = "columns"
"""Entry of a state: the column of each gene of the model, which the manager keeps; absent where genes are those of the model."""


class GeneField(CellLayerField):
    """Genes of each cell from ``X`` or a layer. Those of new cells are found by name; one that they lack counts as zero."""

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: object) -> dict:
        self._require_source(adata_target)
        genes, given = as_text(state_registry[self.COLUMN_NAMES_KEY]), as_text(adata_target.var_names)
        if np.array_equal(genes, given):
            return self._register(adata_target)
        columns = columns_of(genes, given)
        is_missing = columns < 0
        if is_missing.any():
            warnings.warn(
                f"{is_missing.sum()} of the model's {len(genes)} genes are not in adata.var_names and count as zero (first: "
                f"{_checks.first(genes[is_missing])}). Coverage: {1 - is_missing.mean():.1%}.",
                UserWarning,
                stacklevel=2,
            )
        picked = PickedColumns(self.get_field_data(adata_target), columns)
        check_features(picked, Named(self.where, adata_target.obs_names, genes))
        return {
            self.N_OBS_KEY: adata_target.n_obs,
            self.N_VARS_KEY: len(genes),
            self.COLUMN_NAMES_KEY: genes,
            COLUMNS: columns,
        }

    def change(self, adata: AnnData, state: dict, **kept: Any) -> Change:
        """What changed since the field was registered, if anything."""
        columns = kept.get("columns")
        if columns is None:
            return super().change(adata, state, **kept)
        try:
            self._require_source(adata)
        except (KeyError, ValueError) as error:
            return type(error), str(error.args[0]).rstrip(".")
        given = pd.Index(as_text(adata.var_names))
        if given.is_unique and np.array_equal(given.get_indexer(as_text(state[self.COLUMN_NAMES_KEY])), columns):
            return None
        return ValueError, "adata.var_names are no longer those that were registered, or in another order"


def columns_of(genes: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Column of each gene, -1 where there is none, (genes,), int64.

    Parameters
    ----------
    genes
        Names of the model's genes.
    given
        Names of columns.

    Raises
    ------
    ValueError
        If no gene is there, or a name stands twice.
    """
    names = pd.Index(given)
    require_unique_genes(names)
    columns = names.get_indexer(genes).astype(np.int64)
    if (columns < 0).all():
        msg = (
            f"None of the model's {len(genes)} genes are in adata.var_names (model: {_checks.first(genes)}; given: "
            f"{_checks.first(given)}). Are both symbols, or both Ensembl identifiers?"
        )
        raise ValueError(msg)
    return columns


def require_unique_genes(names: pd.Index, where: str = "adata.var_names") -> None:
    """Raise ValueError if a gene stands twice: rows of a model could not be told apart by name.

    Parameters
    ----------
    names
        Names of genes.
    where
        What they are, for the message.
    """
    twice = names[names.duplicated()].unique()
    if len(twice):
        msg = (
            f"{where} has {len(twice)} names more than once (first: {_checks.first(twice)}): genes are found by "
            "name. Make them unique (adata.var_names_make_unique()), or sum the columns that are the same gene."
        )
        raise ValueError(msg)

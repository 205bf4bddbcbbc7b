"""Which cells a model looks at: the methods of models whose pooling weighs cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scset_tools import _checks, _keys
from scset_tools._samples import sample_codes
from scset_tools.model._inference import score_cells
from scset_tools.model._mixin import ModelMixin
from scset_tools.model._outputs import write_cell_scores

if TYPE_CHECKING:
    from anndata import AnnData


class AttentionMixin(ModelMixin):
    """For a model whose module has ``attention(batch)`` and ``attention_in_pieces(pieces)``."""

    def get_attention(self, adata: AnnData | None = None) -> pd.DataFrame:
        """Weight of each cell in the pooling of its sample.

        Parameters
        ----------
        adata
            Cells to score. Default: the registered AnnData.

        Returns
        -------
        DataFrame of shape (cells, n_heads), indexed by ``adata.obs_names``; the weights of a sample sum to 1 in each head.
        """
        self._check_if_trained(
            message=f"This {type(self).__name__} is not trained: its attention comes from random weights."
        )
        adata = self._validate_anndata(adata)
        try:
            weights = score_cells(
                self.module,
                self._dataset(adata),
                score=self.module.attention,
                score_in_pieces=self.module.attention_in_pieces,
            )
        finally:
            self._release(adata)
        return pd.DataFrame(weights, index=adata.obs_names, columns=[f"head_{i}" for i in range(weights.shape[1])])

    def annotate_attention(self, adata: AnnData | None = None, *, key_added: str | None = None) -> None:
        """Write the attention on each cell, times the number of cells of its sample: 1 is as much as the average cell.

        Parameters
        ----------
        adata
            Cells to annotate. Default: the registered AnnData.
        key_added
            Default: the model's name in lower case, and ``"_attention"``.

        Writes
        ------
        ``obs[key_added]``, the mean over heads, and ``obsm[key_added]``, one column per head (float32).
        """
        cells = self._cells_of(adata)
        weights = self.get_attention(cells)
        codes, _ = sample_codes(_checks.require_obs(cells, self._sample_key), self._sample_key)
        n_cells = np.bincount(codes)[codes]
        write_cell_scores(cells, weights.mul(n_cells, axis=0), _keys.key(key_added or _keys.attention(self.name)))

"""What PaSCient reads of an AnnData: fields, genes by name, and whether the features are what the model takes them for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from scset_tools import _checks
from scset_tools._samples import as_text
from scset_tools.data._features import describe_source
from scset_tools.data._known import known_of
from scset_tools.data._rows import RowReader, row_major

N_LOOKED_AT = 2_000
"""Cells that are looked at to tell counts from normalised values."""

SIZES = (0.02, 50.0)
"""Root mean square of the largest feature, at the least and at the most, that weights and learning rate suit."""

RAW_MAX = 20.0
"""Whole numbers above this are counts: log1p of 10,000 counts per cell stays below 9.3."""


def require_unique_genes(names: pd.Index, where: str = "adata.var_names") -> None:
    """Raise ValueError if a gene stands twice: rows of a model could not be told apart by name."""
    twice = names[names.duplicated()].unique()
    if len(twice):
        msg = (
            f"{where} has {len(twice)} names more than once (first: {_checks.first(twice)}): genes are found by "
            "name. Make them unique (adata.var_names_make_unique()), or sum the columns that are the same gene."
        )
        raise ValueError(msg)


def aligned(adata: AnnData, genes: np.ndarray, layer: str | None) -> AnnData:
    """The cells with the model's genes in the model's order; genes that are missing are zero, and named in a warning.

    Parameters
    ----------
    adata
        Cells; not changed.
    genes
        Names of the model's features.
    layer
        Layer that the model reads.
    """
    given = pd.Index(as_text(adata.var_names))
    if given.equals(pd.Index(genes)):
        return adata
    require_unique_genes(given)
    where = given.get_indexer(genes)
    is_missing = where < 0
    if is_missing.all():
        msg = (
            f"None of the model's {len(genes)} genes are in adata.var_names (model: {_checks.first(genes)}; given: "
            f"{_checks.first(given)}). Are both symbols, or both Ensembl identifiers?"
        )
        raise ValueError(msg)
    if is_missing.any():
        warnings.warn(
            f"{is_missing.sum()} of the model's {len(genes)} genes are not in adata.var_names and count as zero (first: "
            f"{_checks.first(genes[is_missing])}). Coverage: {1 - is_missing.mean():.1%}.",
            UserWarning,
            stacklevel=2,
        )
    cells = adata.to_memory() if adata.isbacked else adata
    x = cells.X if layer is None else _checks.require_layer(cells, layer)
    x = row_major(x.compute() if hasattr(x, "compute") else x, describe_source(layer=layer))
    kept = np.flatnonzero(~is_missing)
    if sparse.issparse(x):  # a product with a matrix of zeros and ones picks, orders and fills in one go
        pick = sparse.csr_array(
            (np.ones(len(kept), dtype=np.float32), (where[kept], kept)), shape=(len(given), len(genes))
        )
        x = sparse.csr_matrix(sparse.csr_array(x) @ pick)
    else:
        given_x, x = x, np.zeros((cells.n_obs, len(genes)), dtype=np.float64 if x.dtype.kind == "f" else x.dtype)
        x[:, kept] = given_x[:, where[kept]]
    out = AnnData(x, obs=_checks.obs_frame(cells).copy(), var=pd.DataFrame(index=pd.Index(genes)))
    if layer is not None:
        out.layers[layer] = out.X
    return out


def check_scale(source: Any, *, log_normalize: bool, setup_args: Mapping[str, Any]) -> None:
    """Raise for negative counts; warn of counts that nobody normalises, and of features on a scale that is not learned from.

    Parameters
    ----------
    source
        Features that the model reads.
    log_normalize
        Whether the model takes them for counts.
    setup_args
        Of the registration.
    """
    where = describe_source(layer=setup_args.get("layer"), use_rep=setup_args.get("use_rep"))
    reader = RowReader(source)
    if log_normalize:
        if known_of(source).get("has_negative_values", True) is False:
            return
        for start in range(0, reader.n_rows, RowReader.rows_per_chunk(reader.n_features)):
            rows = np.arange(start, min(start + RowReader.rows_per_chunk(reader.n_features), reader.n_rows))
            block = reader.csr(rows)
            if len(block.data) and block.data.min() < 0:
                row = np.searchsorted(block.indptr, np.flatnonzero(block.data < 0)[0], side="right") - 1
                msg = (
                    f"log_normalize=True takes {where} for counts, but it has negative values (first: {block.data.min():.3g} "
                    f"at or near cell {rows[row]}). Give raw counts (layer='counts'?), or log_normalize=False if they are "
                    "normalised or transformed already."
                )
                raise ValueError(msg)
        return
    looked_at = np.unique(np.linspace(0, reader.n_rows - 1, min(N_LOOKED_AT, reader.n_rows)).astype(np.int64))
    block = reader.csr(looked_at)
    values = block.data
    if len(values) and values.max() > RAW_MAX and (values >= 0).all() and (values == np.round(values)).all():
        warnings.warn(
            f"{where} looks like raw counts (whole numbers up to {values.max():.0f}). Let the model normalise them, "
            "PaSCient(adata, log_normalize=True), or do so before: scanpy.pp.normalize_total(adata, target_sum=1e4); "
            "scanpy.pp.log1p(adata).",
            UserWarning,
            stacklevel=3,
        )
        return
    size = float(np.sqrt(np.asarray(block.astype(np.float64).power(2).mean(axis=0)).max(initial=0.0)))
    if size > 0 and not SIZES[0] <= size <= SIZES[1]:
        warnings.warn(
            f"{where} has features of a size from which little is learned (root mean square of the largest: {size:.3g}; "
            f"between {SIZES[0]:g} and {SIZES[1]:g} is fine). Bring them to a scale of about 1, for example by "
            "scanpy.pp.scale(adata).",
            UserWarning,
            stacklevel=3,
        )

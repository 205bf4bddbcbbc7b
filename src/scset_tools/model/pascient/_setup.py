"""Whether the features are what PaSCient takes them for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from scset_tools.data._features import describe_source
from scset_tools.data._known import known_of
from scset_tools.data._rows import RowReader

N_LOOKED_AT = 2_000
"""Cells that are looked at to tell counts from normalised values."""

SIZES = (0.02, 50.0)
"""Root mean square of the largest feature, at the least and at the most, that weights and learning rate suit."""

RAW_MAX = 20.0
"""Whole numbers above this are counts: log1p of 10,000 counts per cell stays below 9.3."""


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

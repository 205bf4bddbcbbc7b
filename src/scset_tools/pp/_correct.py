"""Batch correction of vectors of samples."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from scset_tools import _checks, _keys
from scset_tools._correction import LinearCorrection, as_columns, require_batches
from scset_tools._numbers import checks_numbers

if TYPE_CHECKING:
    from anndata import AnnData

METHODS = ("linear", "harmony")


@checks_numbers
def correct_samples(
    samples: AnnData,
    batch_key: str,
    *,
    covariates: Sequence[str] | str | None = None,
    method: Literal["linear", "harmony"] = "linear",
    use_rep: str | None = None,
    key_added: str | None = None,
    random_state: int = 0,
) -> None:
    """Remove batch effects from the vectors of samples, all of them together.

    For a figure or a table. To judge what the correction does to a label, let :func:`scset_tools.tl.benchmark` fit it on the training samples of
    each fold (``batch_key=``): with the label as covariate, random vectors predict it afterwards wherever batches differ in it.

    Parameters
    ----------
    samples
        Sample-level AnnData.
    batch_key
        Column of ``samples.obs``.
    covariates
        Columns whose effects are kept; samples that miss one take no part in the fit. For ``"linear"`` only.
    method
        ``"linear"``: subtract the batch term of a linear model of each feature, with the covariates in it. ``"harmony"``: Harmony (Korsunsky et al.
        2019), which needs the package harmonypy and has no form for new samples.
    use_rep
        Key of ``samples.obsm``. Default: ``samples.X``.
    key_added
        Key of ``samples.obsm`` to write to. Default: ``"<use_rep>_corrected"``.
    random_state
        Seed of Harmony.

    Returns
    -------
    None. Sets:

    ``samples.obsm[key_added]`` : corrected vectors, (samples, features), float32.
    ``samples.uns[key_added]`` : dict of ``batch_key``, ``covariates``, ``method`` and ``use_rep``.

    Raises
    ------
    KeyError
        If a key is missing.
    ValueError
        If a batch is missing, there is one batch, values are not finite, or batches and covariates cannot be told apart.
    ImportError
        If harmonypy is asked for and not installed.

    Examples
    --------
    >>> import scset_tools as sst
    >>> samples = sst.profiles.mean(sst.datasets.composition_cohort(n_samples=12, n_cells=40), sample_key="sample")
    >>> samples.obs["batch"] = ["a", "b"] * 6
    >>> sst.pp.correct_samples(samples, "batch", use_rep="X_mean")
    >>> samples.obsm["X_mean_corrected"].shape == samples.obsm["X_mean"].shape
    True
    """
    _checks.require_anndata(samples, caller="pp.correct_samples")
    _checks.require_choice("method", method, METHODS)
    batch = _checks.require_obs(samples, batch_key)
    keys = [covariates] if isinstance(covariates, str) else list(covariates or ())
    values = samples.X if use_rep is None else _checks.require_obsm(samples, use_rep)
    x = np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64)
    if x.ndim != 2 or not np.isfinite(x).all():
        bad = samples.obs_names[~np.isfinite(x).all(axis=1)] if x.ndim == 2 else []
        msg = f"{use_rep or 'X'!r} must be samples x features with finite values, found shape {x.shape}, not finite in {_checks.first(bad)}."
        raise ValueError(msg)
    if method == "harmony":
        if keys:
            msg = f"method='harmony' takes no covariates, but was given {_checks.first(keys)}. Use method='linear' to keep their effects."
            raise ValueError(msg)
        out = _harmony(x, batch, random_state)
    else:
        columns = [as_columns(_checks.require_obs(samples, key))[0] for key in keys]
        known = np.concatenate(columns, axis=1) if columns else None
        out = LinearCorrection().fit(x, batch, known).transform(x, batch)
    key = _keys.key(key_added or f"{use_rep or 'X'}_corrected")
    samples.obsm[key] = out.astype(np.float32)
    samples.uns[key] = {
        "batch_key": batch_key,
        "covariates": np.array(keys, dtype=str),
        "method": method,
        "use_rep": use_rep or "X",
    }


def _harmony(x: np.ndarray, batch: pd.Series, random_state: int) -> np.ndarray:
    """Vectors corrected by Harmony."""
    read = require_batches(batch)
    try:
        harmonypy = import_module("harmonypy")
    except ImportError as error:
        msg = "method='harmony' needs the package harmonypy: pip install harmonypy. Or use method='linear', which needs nothing."
        raise ImportError(msg) from error
    meta = pd.DataFrame({"batch": np.array(read.names, dtype=object)[read.codes]})
    found = np.asarray(harmonypy.run_harmony(x, meta, ["batch"], random_state=random_state, verbose=False).Z_corr)
    return found if found.shape == x.shape else found.T  # releases differ in the orientation

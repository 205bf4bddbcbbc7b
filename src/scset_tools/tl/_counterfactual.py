"""What changes between two arms of generated samples: composition, and features within each cell type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from scset_tools import _checks
from scset_tools._numbers import checks_numbers
from scset_tools._short_repr import ShortRepr
from scset_tools.tl._representation import get_representation

if TYPE_CHECKING:
    from anndata import AnnData

ARMS = ("own", "asked")


@dataclass(frozen=True, repr=False)
class CounterfactualShifts(ShortRepr):
    """What is different in samples under another covariate, as means over samples with intervals over draws.

    Attributes
    ----------
    composition
        Cell types x (``own``, ``asked``, ``shift``, ``ci_low``, ``ci_high``): mean proportion in both arms and the difference.
    expression
        One row for each cell type and feature: ``cell_type``, ``feature``, ``own``, ``asked``, ``shift``, ``ci_low``, ``ci_high``. The mean of
        the feature in the cells of the type.
    n_samples
        Samples behind each cell type of ``expression``: those with enough cells of it in both arms of every draw.
    n_draws
        Number of draws. An interval over them holds what noise and the uncertain effect leave open, not whether the model is right.
    """

    composition: pd.DataFrame
    expression: pd.DataFrame
    n_samples: pd.Series
    n_draws: int

    def table(self, column: str = "shift") -> pd.DataFrame:
        """A column of ``expression`` as cell types x features.

        Parameters
        ----------
        column
            Name of the column.
        """
        _checks.require_choice("column", column, ("own", "asked", "shift", "ci_low", "ci_high"))
        table = self.expression.pivot(index="cell_type", columns="feature", values=column)
        return table.loc[pd.unique(self.expression["cell_type"]), pd.unique(self.expression["feature"])]


@checks_numbers
def counterfactual_shifts(
    adata: AnnData,
    cell_type_key: str,
    *,
    use_rep: str | None = None,
    min_cells: int = 5,
    level: float = 0.95,
) -> CounterfactualShifts:
    """Shifts of composition and of features within cell types, from own to asked cells.

    Parameters
    ----------
    adata
        Generated cells of both arms, from :meth:`scset_tools.model.ScSet.counterfactual`.
    cell_type_key
        Column of ``adata.obs`` with the type of each generated cell, as :func:`transfer_labels` writes it, or asked for when they
        were generated.
    use_rep
        Key of ``adata.obsm`` with the features. Default: ``adata.X``.
    min_cells
        Fewest cells of a type that a sample must have in both arms of every draw for its features to count.
    level
        Level of the intervals: quantiles over draws.

    Returns
    -------
    :class:`CounterfactualShifts`; :func:`scset_tools.pl.counterfactual` draws it.

    Raises
    ------
    KeyError
        If a column is not there.
    ValueError
        If there are not two arms, or no type has enough cells.
    """
    _checks.require_anndata(adata, caller="tl.counterfactual_shifts")
    arm = _checks.require_obs(adata, "arm").astype(str).to_numpy()
    if set(arm) != set(ARMS):
        msg = f"adata.obs['arm'] holds {_checks.first(sorted(set(arm)))}, but must hold 'own' and 'asked': see ScSet.counterfactual."
        raise ValueError(msg)
    labels = _checks.require_obs(adata, cell_type_key)
    _checks.require_no_missing(labels, cell_type_key)
    parts = [
        pd.factorize(_checks.require_obs(adata, "draw")),
        pd.factorize(pd.Series(arm).map({name: i for i, name in enumerate(ARMS)}), sort=True),
        pd.factorize(_checks.require_obs(adata, "sample").astype(str)),
        pd.factorize(labels.astype(str), sort=True),
    ]
    types, shape = parts[3][1], tuple(len(names) for _, names in parts)
    group = np.ravel_multi_index([codes for codes, _ in parts], shape)
    counts = np.bincount(group, minlength=int(np.prod(shape))).reshape(shape)  # (draws, arms, samples, types)
    shares = (counts / counts.sum(axis=-1, keepdims=True)).mean(axis=2)
    composition = pd.DataFrame(
        {
            "own": shares[:, 0].mean(axis=0),
            "asked": shares[:, 1].mean(axis=0),
            **_summary(shares[:, 1] - shares[:, 0], level),
        },
        index=pd.Index(types, name=cell_type_key),
    )
    x = get_representation(adata, use_rep)
    features = adata.var_names.to_numpy(dtype=str) if use_rep is None else np.arange(x.shape[1]).astype(str)
    indicator = sparse.csr_array((np.ones(len(group)), (group, np.arange(len(group)))), shape=(counts.size, len(group)))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (indicator @ x).reshape(*shape, -1) / counts[..., None]
    is_enough = np.all(counts >= min_cells, axis=(0, 1))  # (samples, types)
    if not is_enough.any():
        msg = f"No sample has min_cells={min_cells} cells of any type in both arms of every draw: generate more (n_cells=) or lower min_cells."
        raise ValueError(msg)
    tables = []
    for t in np.flatnonzero(is_enough.any(axis=0)):
        own, asked = (mean[:, a, is_enough[:, t], t].mean(axis=1) for a in (0, 1))  # (draws, features)
        tables.append(
            pd.DataFrame(
                {
                    "cell_type": types[t],
                    "feature": features,
                    "own": own.mean(axis=0),
                    "asked": asked.mean(axis=0),
                    **_summary(asked - own, level),
                }
            )
        )
    n_samples = pd.Series(is_enough.sum(axis=0), index=composition.index, name="n_samples")
    return CounterfactualShifts(composition, pd.concat(tables, ignore_index=True), n_samples, shape[0])


def _summary(shifts: np.ndarray, level: float) -> dict[str, np.ndarray]:
    """Mean over draws and quantiles, of (draws, columns); no interval of one draw."""
    if len(shifts) == 1:
        nothing = np.full(shifts.shape[1], np.nan)
        return {"shift": shifts[0], "ci_low": nothing, "ci_high": nothing}
    low, high = np.quantile(shifts, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {"shift": shifts.mean(axis=0), "ci_low": low, "ci_high": high}

"""How far attributions can be trusted: do other seeds agree, and would labels without meaning give the same features?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from scset_tools import _checks
from scset_tools._labels import name_of
from scset_tools._samples import sample_of_cells
from scset_tools.model.explain._null import against_null, labelings

if TYPE_CHECKING:
    from scset_tools.model.explain._result import Attributions


@dataclass(frozen=True, eq=False, repr=False)
class TrustResult:
    """Attributions of several seeds beside those of permuted labels.

    Attributes
    ----------
    features
        One row per feature, smallest p-value first: ``score`` (first seed), ``mean`` and ``sd`` over seeds, ``z`` (score less the mean
        of the null, over the feature's own spread under the null), two-sided ``p_value`` and ``p_adjusted``
        (Benjamini-Hochberg).
    stability
        Spearman correlation of the features' scores between seeds, (seeds, seeds).
    n_found_in_null
        For each permutation, in the place of the real labels against all others: how many features pass ``alpha``. Where the null
        is what it should be, this is 0 nearly always.
    alpha
        Share of false discoveries that is allowed.
    attributions
        The full result of each seed.
    null
        Score of each feature under each permutation, (features, permutations).
    """

    features: pd.DataFrame
    stability: pd.DataFrame
    n_found_in_null: pd.Series
    alpha: float
    attributions: list[Attributions]
    null: pd.DataFrame

    def __repr__(self) -> str:
        row = self.summary().iloc[0]
        return (
            f"Trust in the attributions to {len(self.features)} features: {row['n_seeds']:.0f} seeds agree to "
            f"{row['spearman_min']:.2f} or more (Spearman), {row['n_found']:.0f} features found at a false discovery rate of "
            f"{self.alpha:g}, and some in {row['n_permutations_with_findings']:.0f} of {row['n_permutations']:.0f} permuted labelings."
        )

    def summary(self) -> pd.DataFrame:
        """One row: seeds and their least agreement, features found, findings under permuted labels, completeness."""
        rho = self.stability.to_numpy()[np.triu_indices(len(self.stability), 1)]
        return pd.DataFrame(
            [
                {
                    "n_seeds": len(self.stability),
                    "spearman_min": rho.min(),
                    "spearman_mean": rho.mean(),
                    "n_found": int((self.features["p_adjusted"] <= self.alpha).sum()),
                    "n_permutations": len(self.n_found_in_null),
                    "n_permutations_with_findings": int((self.n_found_in_null > 0).sum()),
                    "completeness_error_max": max(np.max(a.completeness_error.to_numpy()) for a in self.attributions),
                }
            ]
        )


def trust_attributions(
    model: type[Any],
    adata: AnnData,
    label_key: str,
    *,
    sample_key: str,
    target: str | None = None,
    groups_key: str | None = None,
    by: Literal["contrast", "mean"] = "contrast",
    setup: dict[str, Any] | None = None,
    build: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    finetune: dict[str, Any] | None = None,
    attribute: dict[str, Any] | None = None,
    n_seeds: int = 5,
    n_permutations: int = 20,
    alpha: float = 0.05,
    rng: np.random.Generator | int | None = 0,
) -> TrustResult:
    """Attribute with several seeds, and with permuted labels, and compare.

    A feature's score is compared with its scores under permuted labels, in units of their spread (plus the median spread over
    features, so that a feature that hardly varies cannot win), and the p-value is the share of all features and permutations that
    lie as far out.

    A model that learns from labels is trained anew for each labeling, ``n_seeds + n_permutations`` times. One that does not has
    seen none that could be permuted: it is trained ``n_seeds`` times, and its probe, or with ``finetune`` its head and whatever
    of the encoder learns with it, is fitted to each labeling.

    Parameters
    ----------
    model
        Class of the model, for instance ``scset_tools.PaSCient``.
    adata
        Cells of the samples; not changed.
    label_key
        Column of ``adata.obs`` with the class of each sample.
    sample_key
        Column of ``adata.obs`` with the sample of each cell.
    target
        Class that is explained. May be left out where there are two.
    groups_key
        Column of ``adata.obs`` with the donor of each sample: donors exchange their labels whole, and shuffle them within, as a
        paired design asks. Default: among all samples.
    by
        How features are scored: see :meth:`scset_tools.model.Attributions.rank_features`.
    setup
        Further arguments of ``setup_anndata``.
    build
        Further arguments of the constructor.
    train
        Further arguments of ``train``.
    attribute
        Further arguments of ``get_attributions``.
    finetune
        Further arguments of ``finetune`` (``{"mode": "end_to_end"}``): then its head is explained. Default: a linear probe, or the
        head of a model that ``train`` teaches labels.
    n_seeds
        Number of trainings on the real labels.
    n_permutations
        Number of permuted labelings; those that are the real one, or the real one with two classes swapped, are left out, and
        none is used twice where there are few.
    alpha
        Share of false discoveries to allow.
    rng
        Seed or generator of the permutations.

    Returns
    -------
    TrustResult

    Raises
    ------
    ValueError
        If there are fewer than two seeds or three permuted labelings to be had, or a class must be named.
    """
    _checks.require_anndata(adata, caller="trust_attributions")
    labels = _checks.require_constant_within_sample(adata, label_key, sample_key)
    sample = sample_of_cells(adata, sample_key)
    per_sample = labels.groupby(sample, observed=True).first().dropna().map(name_of).astype(object)
    classes = sorted(set(per_sample))
    if target is None and len(classes) != 2:
        msg = f"{label_key!r} has {len(classes)} classes, {_checks.first(classes, 20)}: name the one to explain, target=..."
        raise ValueError(msg)
    target = classes[1] if target is None else name_of(target)
    groups = None
    if groups_key is not None:
        column = _checks.require_constant_within_sample(adata, groups_key, sample_key)
        groups = column.groupby(sample, observed=True).first()[per_sample.index].to_numpy()
    drawn = labelings(per_sample.to_numpy(), groups, n=n_permutations, rng=np.random.default_rng(rng))
    if n_seeds < 2 or len(drawn) < 3:
        msg = (
            f"Trust needs at least two seeds and three permuted labelings, but n_seeds={n_seeds} and there are "
            f"{len(drawn)} labelings of {len(per_sample)} samples other than the real one."
        )
        raise ValueError(msg)

    if len(drawn) < n_permutations:
        warnings.warn(
            f"The labels {label_key!r} of {len(per_sample)} samples can be arranged in {len(drawn)} other ways only, of {n_permutations} that "
            "were asked for: what every labeling shares with the real one cannot be told from it.",
            UserWarning,
            stacklevel=2,
        )

    def labelled(values: np.ndarray) -> AnnData:
        """The cells with these labels of the samples."""
        cells = AnnData(adata.X, obs=adata.obs.copy(), var=adata.var, obsm=dict(adata.obsm), layers=dict(adata.layers))
        given = pd.Series(values, index=per_sample.index)
        cells.obs[label_key] = pd.Series(sample).map(given).astype("category").to_numpy()
        return cells

    def fit(values: np.ndarray, seed: int) -> Any:
        cells = labelled(values)
        learned = {"labels_key": label_key} if model._learns_from_labels else {}
        model.setup_anndata(cells, sample_key, **{**learned, **(setup or {})})
        fitted = model(cells, **{**(build or {}), "random_state": seed})
        fitted.train(**{"enable_progress_bar": False, **(train or {}), "seed": seed})
        return fitted

    def explain(fitted: Any, cells: AnnData | None = None, *, seed: int = 0) -> Attributions:
        if finetune is not None:
            how = {"enable_progress_bar": False, **finetune, "adata": cells, "seed": seed}
            fitted.finetune({label_key: "class"}, **how)
        return fitted.get_attributions(label_key, **{"target": target, **(attribute or {}), "adata": cells})

    def score(found: Attributions) -> pd.Series:
        return found.rank_features(target, by=by)[found.feature_names]

    models = [fit(per_sample.to_numpy(), seed) for seed in range(n_seeds)]
    found = [explain(fitted, seed=seed) for seed, fitted in enumerate(models)]
    under = [explain(fit(v, 0)) if model._learns_from_labels else explain(models[0], labelled(v)) for v in drawn]
    scores = pd.DataFrame({f"seed_{i}": score(a) for i, a in enumerate(found)})
    null = pd.DataFrame({f"permutation_{i}": score(a) for i, a in enumerate(under)})
    table = against_null(scores["seed_0"], null)
    table.insert(1, "mean", scores.mean(axis=1))
    table.insert(2, "sd", scores.std(axis=1))
    passing = {
        name: int((against_null(null[name], null.drop(columns=name))["p_adjusted"] <= alpha).sum()) for name in null
    }
    return TrustResult(
        features=table.sort_values("p_value", kind="stable"),
        stability=scores.corr("spearman"),
        n_found_in_null=pd.Series(passing),
        alpha=alpha,
        attributions=found,
        null=null,
    )

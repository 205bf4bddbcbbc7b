"""How far attributions can be trusted: do other seeds agree, and would labels without meaning give the same genes?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import stats

from scset_tools import _checks
from scset_tools._labels import name_of, permute_labels
from scset_tools._samples import sample_of_cells
from scset_tools._short_repr import ShortRepr

if TYPE_CHECKING:
    from scset_tools.model._sample_attributions import SampleAttributions

MAX_LISTED = 5_000
"""Up to this many labelings are listed and drawn without replacement."""


@dataclass(frozen=True, repr=False)
class TrustResult(ShortRepr):
    """Attributions of several seeds beside those of permuted labels.

    Attributes
    ----------
    genes
        One row per gene, smallest p-value first: ``score`` (first seed, mean over samples), ``mean`` and ``sd`` over seeds,
        ``z`` (score less the mean of the null, over the gene's own spread under the null), two-sided ``p_value`` and
        ``p_adjusted`` (Benjamini-Hochberg).
    stability
        Spearman correlation of the genes' scores between seeds, (seeds, seeds).
    n_found_in_null
        For each permutation, in the place of the real labels against all others: how many genes pass ``alpha``. Where the null
        is what it should be, this is 0 nearly always.
    alpha
        Share of false discoveries that is allowed.
    attributions
        The full result of each seed.
    null
        Score of each gene under each permutation, (genes, permutations).
    """

    genes: pd.DataFrame
    stability: pd.DataFrame
    n_found_in_null: pd.Series
    alpha: float
    attributions: list[SampleAttributions]
    null: pd.DataFrame

    def summary(self) -> pd.DataFrame:
        """One row: seeds and their least agreement, genes found, genes found under permuted labels, completeness."""
        rho = self.stability.to_numpy()[np.triu_indices(len(self.stability), 1)]
        return pd.DataFrame(
            [
                {
                    "n_seeds": len(self.stability),
                    "spearman_min": rho.min() if len(rho) else np.nan,
                    "spearman_mean": rho.mean() if len(rho) else np.nan,
                    "n_found": int((self.genes["p_adjusted"] <= self.alpha).sum()),
                    "n_permutations": len(self.n_found_in_null),
                    "n_permutations_with_findings": int((self.n_found_in_null > 0).sum()),
                    "completeness_error_max": max(a.completeness_error.max() for a in self.attributions),
                }
            ]
        )


def trust_attributions(
    model: type[Any],
    adata: AnnData,
    target: str,
    *,
    sample_key: str,
    label_key: str,
    groups_key: str | None = None,
    setup: dict[str, Any] | None = None,
    build: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    attribute: dict[str, Any] | None = None,
    n_seeds: int = 5,
    n_permutations: int = 20,
    alpha: float = 0.05,
    rng: np.random.Generator | int | None = 0,
) -> TrustResult:
    """Train with several seeds, and with permuted labels, and compare the attributions to genes.

    A gene's score is compared with its scores under permuted labels, in units of their spread (plus the median spread over
    genes, so that a gene that hardly varies cannot win), and the p-value is the share of all genes and permutations that lie
    as far out. Costs ``n_seeds + n_permutations`` trainings.

    Parameters
    ----------
    model
        Class of the model, for instance ``scset_tools.PaSCient``.
    adata
        Cells of the samples; not changed.
    target
        Class that is explained.
    sample_key, label_key
        Columns of ``adata.obs`` with the sample of each cell and the label of each sample.
    groups_key
        Column of ``adata.obs`` with the donor of each sample: donors exchange their labels whole, and shuffle them within, as a
        paired design asks. Default: among all samples.
    setup, build, train, attribute
        Further arguments of ``setup_anndata``, of the constructor, of ``train`` and of ``get_attributions``.
    n_seeds
        Number of trainings on the real labels.
    n_permutations
        Number of trainings on permuted labels; labelings that are the real one, or the real one with two classes swapped, are
        left out, and none is used twice where there are few.
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
        If there are fewer than two seeds or two permutations to be had.
    """
    labels = _checks.require_constant_within_sample(adata, label_key, sample_key)
    sample = sample_of_cells(adata, sample_key)
    per_sample = labels.groupby(sample, observed=True).first().dropna().map(name_of)
    groups = None
    if groups_key is not None:
        column = _checks.require_constant_within_sample(adata, groups_key, sample_key)
        groups = column.groupby(sample, observed=True).first()[per_sample.index].to_numpy()
    labelings = _labelings(per_sample.to_numpy(), groups, n_permutations, np.random.default_rng(rng))
    if n_seeds < 2 or len(labelings) < 2:
        msg = (
            f"Trust needs at least two seeds and two permuted labelings, but n_seeds={n_seeds} and there are "
            f"{len(labelings)} labelings of {len(per_sample)} samples other than the real one."
        )
        raise ValueError(msg)

    def run(values: np.ndarray, seed: int) -> SampleAttributions:
        cells = AnnData(adata.X, obs=adata.obs.copy(), var=adata.var, obsm=dict(adata.obsm), layers=dict(adata.layers))
        given = pd.Series(values, index=per_sample.index)
        cells.obs[label_key] = pd.Series(sample).map(given).astype("category").to_numpy()
        model.setup_anndata(cells, sample_key, labels_key={label_key: "class"}, **(setup or {}))
        fitted = model(cells, **{**(build or {}), "random_state": seed})
        fitted.train(**{"enable_progress_bar": False, **(train or {}), "seed": seed})
        return fitted.get_attributions(target, **(attribute or {}))

    found = [run(per_sample.to_numpy(), seed) for seed in range(n_seeds)]
    scores = pd.DataFrame({f"seed_{i}": a.genes.mean(axis=0) for i, a in enumerate(found)})
    null = pd.DataFrame({f"permutation_{i}": run(v, 0).genes.mean(axis=0) for i, v in enumerate(labelings)})
    table = against_null(scores["seed_0"], null)
    table.insert(1, "mean", scores.mean(axis=1))
    table.insert(2, "sd", scores.std(axis=1))
    passing = {
        name: int((against_null(null[name], null.drop(columns=name))["p_adjusted"] <= alpha).sum()) for name in null
    }
    return TrustResult(
        genes=table.sort_values("p_value", kind="stable"),
        stability=scores.corr("spearman"),
        n_found_in_null=pd.Series(passing),
        alpha=alpha,
        attributions=found,
        null=null,
    )


def against_null(score: pd.Series, null: pd.DataFrame) -> pd.DataFrame:
    """Compare scores of genes with their scores under permuted labels.

    Parameters
    ----------
    score
        One number per gene.
    null
        (genes, permutations), two or more permutations.

    Returns
    -------
    DataFrame indexed as ``score``, with ``score``, ``z``, ``p_value`` and ``p_adjusted``; see :class:`TrustResult`.
    """
    v = null.loc[score.index].to_numpy(dtype=np.float64)
    n = v.shape[1]
    fudge = np.median(v.std(axis=1, ddof=1)) or np.finfo(float).tiny
    z = (score.to_numpy() - v.mean(axis=1)) / (v.std(axis=1, ddof=1) + fudge)
    # each permutation against the others, as the real labels stand against all of them
    mean = (v.sum(axis=1, keepdims=True) - v) / (n - 1)
    left = np.stack([np.delete(v, b, axis=1).std(axis=1, ddof=1 if n > 2 else 0) for b in range(n)], axis=1)
    z_null = np.sort(np.abs((v - mean) / (left + fudge)).ravel())
    n_beyond = len(z_null) - np.searchsorted(z_null, np.abs(z), side="left")
    p = (1 + n_beyond) / (1 + len(z_null))
    return pd.DataFrame(
        {"score": score, "z": z, "p_value": p, "p_adjusted": stats.false_discovery_control(p)}, index=score.index
    )


def _labelings(labels: np.ndarray, groups: np.ndarray | None, n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Up to ``n`` distinct permutations of the labels that say something else than the labels."""
    classes = np.unique(labels)
    real = {tuple(labels)}
    if len(classes) == 2:
        real.add(tuple(np.where(labels == classes[0], classes[1], classes[0])))
    if groups is None and len(classes) == 2 and comb(len(labels), int((labels == classes[0]).sum())) <= MAX_LISTED:
        listed = [v for v in _two_class_labelings(labels, classes) if tuple(v) not in real]
        return [listed[i] for i in rng.permutation(len(listed))[:n]]
    out: dict[tuple, np.ndarray] = {}
    codes, of_group = np.unique(labels, return_inverse=True)[1], np.arange(len(labels)) if groups is None else groups
    for _ in range(100 * n):  # where few labelings exist, drawing on would never end
        drawn = labels[permute_labels(codes, of_group, rng)]
        if tuple(drawn) not in real:
            out.setdefault(tuple(drawn), drawn)
        if len(out) == n:
            break
    return list(out.values())


def _two_class_labelings(labels: np.ndarray, classes: Sequence[str]) -> Iterator[np.ndarray]:
    for chosen in combinations(range(len(labels)), int((labels == classes[0]).sum())):
        out = np.full(len(labels), classes[1], dtype=labels.dtype)
        out[list(chosen)] = classes[0]
        yield out

"""Attributions: what moved the scores of samples, by feature, cell and group of cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scset_tools import _checks, _keys
from scset_tools.model.explain._contrast import By, class_weights, sample_weights
from scset_tools.model.explain._write import write_attributions

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True, eq=False, repr=False)
class Attributions:
    """Contributions of features, cells and groups of cells to the scores of samples.

    Contributions are sums over the cells of a sample, in the units of the score: log-odds of a class, the units of a number, a
    level's latent score, a log hazard. Those of a sample add up to its score less that of the baseline.

    Attributes
    ----------
    values
        Contribution of each feature, (samples, classes, features), float32.
    samples
        Names of its first side.
    classes
        Names of its second side. A head without classes has one score, under the name of its column.
    feature_names
        Names of its third side.
    cells
        Contribution of each cell, summed over features, (cells, classes); NaN for a cell that was not drawn. For
        ``method="attention"`` its weight.
    scores
        Scores of the samples, (samples, classes).
    baseline_scores
        Scores of the baseline, (samples, classes).
    completeness_error
        How far the contributions of a sample are from adding up, relative to the difference of its scores, or to a tenth of a
        unit where that is more, (samples, classes). NaN for ``method="attention"``, which does not add up.
    labels
        Label of each sample: name of its class, or number; missing where there is none.
    label_key, kind, reference, head, method, baseline
        As for ``get_attributions``: what was explained and how.
    group_names
        Groups of cells; none without ``groupby``.
    group_values
        Contribution of each feature in each group of each sample, (samples, groups, classes, features).
    group_cells
        Contribution of the cells of each group of each sample, (samples, groups, classes).
    group_sizes
        Number of these cells, (samples, groups).
    group_sums
        Where ``group_values`` would take more than 2 GiB it is None, and this holds what is made of it: ``"contrast"`` and ``"mean"``, each
        (groups, classes, features), float64, summed sample by sample as they were found. Otherwise None.
    model
        Name of the model in lower case: prefix of what is written.
    """

    label_key: str
    kind: str
    reference: str | None
    head: str
    method: str
    baseline: str
    model: str
    classes: list[str]
    samples: pd.Index
    feature_names: pd.Index
    values: np.ndarray
    cells: pd.DataFrame
    scores: pd.DataFrame
    baseline_scores: pd.DataFrame
    completeness_error: pd.DataFrame
    labels: pd.Series
    group_names: list[str]
    group_values: np.ndarray | None
    group_cells: np.ndarray
    group_sizes: np.ndarray
    group_sums: dict[str, np.ndarray] | None = None

    def __repr__(self) -> str:
        of = (
            f"log-odds of {_checks.first(self.classes)}" if self.kind == "class" else f"the score of {self.label_key!r}"
        )
        against = "" if self.reference is None else f" against {self.reference!r}"
        groups = f", {len(self.group_names)} groups of cells" if self.group_names else ""
        error = self.completeness_error.to_numpy()
        error = "" if np.isnan(error).all() else f"; completeness error at most {np.nanmax(error):.1%}"
        return (
            f"Attributions to {of}{against} ({self.label_key!r}, head: {self.head}; {self.method}, from {self.baseline}): "
            f"{len(self.samples)} samples, {int(self.cells.notna().any(axis=1).sum())} cells, {len(self.feature_names)} features{groups}"
            f"{error}."
        )

    # ---- by sample

    def by_sample(self, target: str | None = None, *, group: str | None = None) -> pd.DataFrame:
        """Contribution of each feature to the score of each sample.

        Parameters
        ----------
        target
            Class. Default: the one that was explained, if it is one.
        group
            Of the cells of this group alone: then only samples that have such cells. Default: of all cells.

        Returns
        -------
        DataFrame of shape (samples, features).

        Raises
        ------
        ValueError
            If those of the groups of single samples were too many to be kept.
        """
        which = self._class(target)
        if group is None:
            return pd.DataFrame(self.values[:, which], index=self.samples, columns=self.feature_names)
        g = self._group(group)
        if self.group_values is None:
            raise self._too_many()
        has_any = self.group_sizes[:, g] > 0
        return pd.DataFrame(
            self.group_values[has_any, g, which], index=self.samples[has_any], columns=self.feature_names
        )

    def by_group(self, target: str | None = None, *, per_cell: bool = False) -> pd.DataFrame:
        """Contribution of the cells of each group to the score of each sample, summed over features.

        Parameters
        ----------
        target
            Class. Default: the one that was explained, if it is one.
        per_cell
            Whether to divide by the number of these cells.

        Returns
        -------
        DataFrame of shape (samples, groups); NaN where a sample has no such cell.
        """
        values = self.group_cells[:, :, self._class(target)]
        size = np.where(self.group_sizes > 0, self.group_sizes, np.nan)
        values = values / (size if per_cell else np.where(np.isnan(size), np.nan, 1.0))
        return pd.DataFrame(values, index=self.samples, columns=pd.Index(self.group_names, dtype=object))

    # ---- over samples

    def contrast(self, *, group: str | None = None) -> pd.DataFrame:
        """How much each feature helps to tell the samples of a class from the others.

        Mean contribution in the samples of the class less that in all other labelled samples, or in those of the reference; of two classes
        both columns are equal. Where one side has no sample it is left out. For numbers and levels the covariance with the
        standardised label: the difference that one standard deviation makes.

        Parameters
        ----------
        group
            The part of it that comes from the cells of this group; the parts of all groups add up. Default: of all cells.

        Returns
        -------
        DataFrame of shape (features, classes).
        """
        if group is not None:
            found = self._of_group(self._group(group), "contrast").T
            return pd.DataFrame(found, index=self.feature_names, columns=self.classes)
        found = np.einsum("sk,skf->fk", self._weights("contrast"), self.values)
        return pd.DataFrame(found, index=self.feature_names, columns=self.classes)

    @property
    def features(self) -> pd.DataFrame:
        """:meth:`contrast` over all cells, (features, classes)."""
        return self.contrast()

    @property
    def genes(self) -> pd.DataFrame:
        """:attr:`features` of a model that reads genes."""
        return self.features

    @property
    def groups(self) -> pd.DataFrame:
        """Contrast of the cells of each group, summed over features, (groups, classes)."""
        found = np.einsum("sk,sgk->gk", self._weights("contrast"), self.group_cells)
        return pd.DataFrame(found, index=pd.Index(self.group_names, dtype=object), columns=self.classes)

    def by_group_and_feature(self, target: str | None = None, *, by: By = "contrast") -> pd.DataFrame:
        """Contrast, or mean over the samples of the class, of each feature in each group.

        Parameters
        ----------
        target, by
            As for :meth:`rank_features`.

        Returns
        -------
        DataFrame of shape (groups, features).
        """
        which = self._class(target)
        if self.group_sums is not None:
            found = self.group_sums[by][:, which]
        else:
            found = np.einsum("s,sgf->gf", self._weights(by)[:, which], self._kept()[:, :, which])
        return pd.DataFrame(found, index=pd.Index(self.group_names, dtype=object), columns=self.feature_names)

    def rank_features(self, target: str | None = None, *, group: str | None = None, by: By = "contrast") -> pd.Series:
        """Features by their contribution, largest first.

        Parameters
        ----------
        target
            Class. Default: the one that was explained, if it is one, or either of two.
        group
            In the cells of this group alone. Default: in all cells.
        by
            ``"contrast"`` (:meth:`contrast`), or ``"mean"`` over the samples of the class alone (all samples, if the label says of none
            that it is of the class): what moves their score away from the baseline, be it common to all samples or not.
        """
        _checks.require_choice("by", by, ("contrast", "mean"))
        which = self._class(target, either=by == "contrast")
        if group is None:
            found = np.einsum("s,sf->f", self._weights(by)[:, which], self.values[:, which])
        else:
            found = self._of_group(self._group(group), by)[which]
        ranked = pd.Series(found, index=self.feature_names, name=self.classes[which])
        return ranked.sort_values(ascending=False, kind="stable")

    def rank_genes(self, target: str | None = None, *, group: str | None = None, by: By = "contrast") -> pd.Series:
        """:meth:`rank_features` of a model that reads genes.

        Parameters
        ----------
        target, group, by
            As there.
        """
        return self.rank_features(target, group=group, by=by)

    def summary(self) -> pd.DataFrame:
        """Of each class: samples that have it, mean score in them and of the baseline, largest completeness error."""
        weights = class_weights(self.labels, self.classes)
        return pd.DataFrame(
            {
                "n_samples": [int((self.labels == c).sum()) for c in self.classes],
                "score": (self.scores.to_numpy() * weights).sum(axis=0),
                "baseline_score": (self.baseline_scores.to_numpy() * weights).sum(axis=0),
                "completeness_error": self.completeness_error.max(axis=0).to_numpy(),
            },
            index=pd.Index(self.classes, name=self.label_key),
        )

    # ---- to AnnData

    def write(self, adata: AnnData, *, key_added: str | None = None) -> None:
        """Write cells to ``obs`` and contrasts of features to ``var`` and ``varm``; see ``annotate_attributions`` of a model.

        Parameters
        ----------
        adata
            Cells that were attributed to.
        key_added
            Default: ``"<model>_attribution_<label_key>_<class>"`` for each class.
        """
        write_attributions(adata, self, key_added=key_added)

    def key_of(self, target: str, key_added: str | None = None) -> str:
        """Name of what is written for a class, before it is made fit for files.

        Parameters
        ----------
        target
            Class.
        key_added
            As for :meth:`write`.
        """
        if key_added is None:
            return _keys.attribution_name(self.model, self.label_key, target)
        return key_added if len(self.classes) == 1 else f"{key_added}_{target}"

    # ---- parts

    def _class(self, target: str | None, *, either: bool = False) -> int:
        if target is None and (
            len(self.classes) == 1 or (either and len(self.classes) == 2 and self.reference is None)
        ):
            return 0
        if target not in self.classes:
            what = "Name a class" if target is None else f"{target!r} is not a class"
            msg = f"{what} of these attributions: {_checks.first(self.classes, 20)}."
            raise KeyError(msg)
        return self.classes.index(target)

    def _group(self, group: str) -> int:
        if group not in self.group_names:
            msg = f"{group!r} is not a group of these attributions: {_checks.first(self.group_names, 20)}."
            raise KeyError(msg)
        return self.group_names.index(group)

    def _weights(self, by: By) -> np.ndarray:
        return sample_weights(by, self.labels, self.classes, kind=self.kind, reference=self.reference)

    def _of_group(self, group: int, by: By) -> np.ndarray:
        """Weighted sum over samples of what a group contributes, (classes, features)."""
        if self.group_sums is not None:
            return self.group_sums[by][group]
        return np.einsum("sk,skf->kf", self._weights(by), self._kept()[:, group])

    def _kept(self) -> np.ndarray:
        if self.group_values is None:
            raise self._too_many()
        return self.group_values

    def _too_many(self) -> ValueError:
        shape = (len(self.samples), len(self.group_names), len(self.classes), len(self.feature_names))
        size = " x ".join(f"{n:,}" for n in shape)
        return ValueError(
            f"Contributions by sample and group were not kept: {size} (samples, groups, classes, features) take "
            f"{4 * np.prod(shape, dtype=np.float64) / 2**30:,.1f} GiB, so they were summed over samples. Ask for fewer: get_attributions(target=, "
            "features=, samples=)."
        )

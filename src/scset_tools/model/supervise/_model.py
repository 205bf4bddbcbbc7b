"""Predict labels, with the same calls on every model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scset_tools import _checks, _keys
from scset_tools._docs import docs
from scset_tools._samples import sample_of_cells
from scset_tools.model.supervise import _predict
from scset_tools.model.supervise._fitted import FittedHead
from scset_tools.model.supervise._learn import LearnsLabels
from scset_tools.model.supervise._targets import match_target

if TYPE_CHECKING:
    from anndata import AnnData


class SupervisedModel(LearnsLabels):
    """The half of every model that has to do with labels."""

    @docs.dedent
    def predict(
        self,
        adata: AnnData | None = None,
        *,
        label_key: str | None = None,
        samples: Sequence[str] | None = None,
        n_cells: int | None = None,
        seed: int | None = None,
        batch_size: int = 16,
    ) -> pd.DataFrame:
        """The most probable class of each sample, the median level, the number, or the log hazard, for each label.

        Parameters
        ----------
        adata
            Cells of the samples; they need no labels. Default: the registered AnnData.
        label_key
            A label that was learned. Default: all.
        %(param_inference)s

        Returns
        -------
        DataFrame of shape (samples, labels), indexed by sample name, or by ``obs_names`` where labels are of cells: names of classes,
        numbers in the units of the column, or log hazards (higher: an earlier event).
        """
        fitted = _predict.chosen_heads(self.heads, label_key, model=type(self).__name__, several=True)
        found, index = self._outputs(adata, fitted, samples=samples, n_cells=n_cells, seed=seed, batch_size=batch_size)
        columns = {one.target.name: _predict.decided(found[one.target.name], one.target) for one in fitted}
        return pd.DataFrame(columns, index=index)

    @docs.dedent
    def predict_proba(
        self,
        adata: AnnData | None = None,
        *,
        label_key: str | None = None,
        samples: Sequence[str] | None = None,
        n_cells: int | None = None,
        seed: int | None = None,
        batch_size: int = 16,
    ) -> pd.DataFrame:
        """Probability of each class of a label; of a time to an event the probability to be without it for so long.

        Parameters
        ----------
        adata
            Cells of the samples; they need no labels. Default: the registered AnnData.
        label_key
            A label that was learned. Default: the only one.
        %(param_inference)s

        Returns
        -------
        DataFrame of shape (samples, classes), indexed by sample name, or by ``obs_names`` where the label is of cells; rows sum to 1.
        Of a time to an event (samples, times of training events).

        Raises
        ------
        ValueError
            If the label is a number, which has no probabilities, or several labels are known and none is named.
        """
        fitted = _predict.chosen_heads(self.heads, label_key, model=type(self).__name__, several=False)
        found, index = self._outputs(adata, fitted, samples=samples, n_cells=n_cells, seed=seed, batch_size=batch_size)
        return _predict.proba_frame(found[fitted[0].target.name], fitted[0], index)

    @docs.dedent
    def evaluate(
        self,
        adata: AnnData | None = None,
        *,
        label_key: str | None = None,
        samples: Sequence[str] | None = None,
        n_cells: int | None = None,
        n_draws: int = 10,
        batch_size: int = 16,
    ) -> pd.DataFrame:
        """How well a label of samples or cells is predicted, over several draws of the cells of each sample if asked.

        Parameters
        ----------
        adata
            Cells of the samples with their labels. Default: the registered AnnData.
        label_key
            A label that was learned. Default: the only one.
        %(param_samples)s Give held-out ones (``model.test_samples_``).
        %(param_n_cells)s
        n_draws
            Number of draws, with ``n_cells``.
        %(param_batch_size)s

        Returns
        -------
        DataFrame indexed by metric, those of :func:`scset_tools.tl.probe` for this kind of label, with columns ``mean``, ``sd`` over
        draws and ``n_samples`` (of labels of cells: the number of cells).

        Warns
        -----
        UserWarning
            If samples were trained on: of these it measures memory.
        """
        one = _predict.chosen_heads(self.heads, label_key, model=type(self).__name__, several=False)[0]
        tables: list[pd.DataFrame] = []
        n_known = 0
        for seed in range(1 if n_cells is None else n_draws):
            found, index = self._outputs(
                adata, [one], samples=samples, n_cells=n_cells, seed=seed, batch_size=batch_size
            )
            if not tables:
                values = self._truth(adata, one, index)
                known = _predict.known_of(values, one.target, what=f"{one.level}s")
                n_known = int(known.sum())
                seen = sorted(set(one.samples) & set(index[known])) if one.level == "sample" else []
                if seen:
                    warnings.warn(
                        f"{len(seen)} of {n_known} samples were trained on (first: {_checks.first(seen)}): of these the "
                        "evaluation measures memory. Name held-out ones, samples=[...].",
                        UserWarning,
                        stacklevel=2,
                    )
            tables.append(_predict.scored(values[known], found[one.target.name][known], one.target))
        table = pd.DataFrame(tables)
        return pd.DataFrame(
            {"mean": table.mean(), "sd": table.std(ddof=1) if len(table) > 1 else 0.0, "n_samples": n_known}
        ).rename_axis("metric")

    @docs.dedent
    def annotate_predictions(
        self, adata: AnnData | None = None, *, label_key: str | None = None, key_added: str | None = None
    ) -> None:
        """Write what is predicted of each cell, or of the sample of each cell; see :meth:`predict`.

        Parameters
        ----------
        adata
            Cells to annotate. Default: the registered AnnData.
        label_key
            A label that was learned. Default: the only one.
        key_added
            Default: the model's name in lower case, and the column of the label: ``"scset_disease"``.

        Writes
        ------
        ``obs[key_added]``: categorical, or float64 for numbers and log hazards.

        Raises
        ------
        ValueError
            If the model was set up with a column ``key_added``.
        """
        one = _predict.chosen_heads(self.heads, label_key, model=type(self).__name__, several=False)[0]
        self._require_free(key_added)
        cells = self._cells_of(adata)
        found = self.predict(cells, label_key=one.target.name).iloc[:, 0]
        if one.level == "sample":
            found = found.loc[sample_of_cells(cells, self._sample_key)]
        values: Any = found.to_numpy()
        if one.target.classes:
            values = pd.Categorical(values, categories=list(one.target.classes), ordered=one.kind == "ordinal")
        cells.obs[_keys.key(key_added or _keys.of_model(self.name, one.target.name))] = values
        self._give_back(cells, adata)

    def _outputs(
        self,
        adata: AnnData | None,
        fitted: list[FittedHead],
        *,
        samples: Sequence[str] | None,
        n_cells: int | None,
        seed: int | None,
        batch_size: int,
    ) -> tuple[dict[str, np.ndarray], pd.Index]:
        if fitted[0].mode == "trained":
            self._warn_if_untrained("it predicts from random weights")
        with self._reading(adata) as cells:
            dataset = self._dataset(cells, n_cells, seed=seed)
            positions = dataset.index.positions(samples)
            found = _predict.outputs(fitted, dataset, positions, batch_size=batch_size)
        if fitted[0].level == "sample":
            return found, _predict.names_of(dataset, positions, self._sample_key)
        if samples is None:
            return found, cells.obs_names
        rows = np.sort(dataset.index.cells_of(positions))
        return {name: values[rows] for name, values in found.items()}, cells.obs_names[rows]

    def _truth(self, adata: AnnData | None, one: FittedHead, index: pd.Index) -> np.ndarray:
        """Labels of samples, or of cells, in the order of an index."""
        cells = self._cells_of(adata)
        if one.level == "cell":
            rows = cells.obs_names.get_indexer(index)
            return match_target(cells, one.target, sample_key=None, rows=rows)
        names = sample_of_cells(cells, self._sample_key)
        first = pd.Series(np.arange(len(names)), index=names).groupby(level=0).first()
        return match_target(cells, one.target, sample_key=self._sample_key, rows=first.loc[index].to_numpy())

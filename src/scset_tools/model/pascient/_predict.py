"""Predictions of PaSCient for samples, trained on or new."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import accuracy_score, f1_score, r2_score, roc_auc_score

from scset_tools import _checks, _labels
from scset_tools._docs import docs
from scset_tools._samples import sample_obs
from scset_tools.model._inference import represent_samples
from scset_tools.model._mixin import ModelMixin
from scset_tools.model.pascient._targets import Target

if TYPE_CHECKING:
    from anndata import AnnData


class PredictMixin(ModelMixin):
    """``predict``, ``predict_proba`` and ``evaluate`` of a model whose module has targets and heads."""

    @docs.dedent
    def predict(
        self,
        adata: AnnData | None = None,
        *,
        samples: Sequence[str] | None = None,
        n_cells: int | None = None,
        batch_size: int = 16,
    ) -> pd.DataFrame:
        """The most probable class of each sample, the median level, or the number, for every target.

        Parameters
        ----------
        adata
            Cells of the samples; genes are aligned by name. Default: the registered AnnData.
        %(param_samples)s
        %(param_n_cells)s
        %(param_batch_size)s

        Returns
        -------
        DataFrame of shape (samples, targets): names of classes, or numbers in the units of the column.
        """
        targets = self._require_targets()
        z = self._vectors(adata, samples=samples, n_cells=n_cells, batch_size=batch_size)
        out = {}
        for target in targets:
            p = self._probabilities(z, target)
            out[target.name] = p[target.name] if target.kind == "continuous" else decided(p, target)
        return pd.DataFrame(out, index=z.index)

    @docs.dedent
    def predict_proba(
        self,
        adata: AnnData | None = None,
        *,
        target: str | None = None,
        samples: Sequence[str] | None = None,
        n_cells: int | None = None,
        batch_size: int = 16,
    ) -> pd.DataFrame:
        """Probabilities of the classes of one target (PaSCient eq. 3).

        Parameters
        ----------
        adata
            Cells of the samples; genes are aligned by name. Default: the registered AnnData.
        target
            Which of the columns of ``labels_key``. Default: the first.
        %(param_samples)s
        %(param_n_cells)s
        %(param_batch_size)s

        Returns
        -------
        DataFrame of shape (samples, classes), rows sum to 1. For a continuous target one column, the prediction.
        """
        chosen = self._target(target)
        return self._probabilities(
            self._vectors(adata, samples=samples, n_cells=n_cells, batch_size=batch_size), chosen
        )

    @docs.dedent
    def evaluate(
        self,
        adata: AnnData | None = None,
        *,
        target: str | None = None,
        samples: Sequence[str] | None = None,
        n_cells: int | None = 1_500,
        n_draws: int = 10,
        batch_size: int = 16,
    ) -> pd.DataFrame:
        """How well labelled samples are predicted, over several draws of their cells.

        Give the names of held-out samples (``samples=model.test_samples_``): on samples of training this measures memory.

        Parameters
        ----------
        adata
            Cells of the samples with their labels. Default: the registered AnnData.
        target
            Which of the columns of ``labels_key``. Default: the first.
        %(param_samples)s
        n_cells
            Number of cells drawn from each sample. None takes all: then there is one draw.
        n_draws
            Number of draws.
        %(param_batch_size)s

        Returns
        -------
        DataFrame indexed by metric (``f1_weighted``, ``accuracy``, ``auroc``; ``r2``, ``mean_absolute_error`` for numbers) with
        columns ``mean``, ``sd`` over draws and ``n_samples``. AUROC is the mean over classes against the rest; NaN where a
        class has no sample.
        """
        chosen = self._target(target)
        cells = self.adata if adata is None else self._cells_of(adata)
        obs = sample_obs(cells, self._sample_key)
        if chosen.name not in obs:
            _checks.require_constant_within_sample(cells, chosen.name, self._sample_key)
        draws = []
        for seed in range(1 if n_cells is None else n_draws):
            z = self._vectors(adata, samples=samples, n_cells=n_cells, batch_size=batch_size, seed=seed)
            truth = obs.loc[z.index, chosen.name]
            is_known = truth.notna().to_numpy()
            if not is_known.any():
                msg = f"None of the {len(z)} samples has a value of {chosen.name!r}: there is nothing to compare with."
                raise ValueError(msg)
            draws.append(
                _metrics(_true_values(truth[is_known], chosen), self._probabilities(z, chosen)[is_known], chosen)
            )
        table = pd.DataFrame(draws)
        return pd.DataFrame(
            {"mean": table.mean(), "sd": table.std(ddof=1) if len(table) > 1 else 0.0, "n_samples": int(is_known.sum())}
        ).rename_axis("metric")

    def _vectors(
        self,
        adata: AnnData | None,
        *,
        samples: Sequence[str] | None,
        n_cells: int | None,
        batch_size: int,
        seed: int | None = None,
    ) -> pd.DataFrame:
        self._check_if_trained(message=f"This {type(self).__name__} is not trained: it predicts from random weights.")
        adata = self._validate_anndata(adata)
        try:
            dataset = self._dataset(adata, n_cells, seed=seed)
            positions = dataset.index.positions(samples)
            vectors = represent_samples(self.module, dataset, positions, batch_size=batch_size)
        finally:
            self._release(adata)
        return pd.DataFrame(vectors, index=pd.Index(dataset.index.names[positions].astype(str), name=self._sample_key))

    def _probabilities(self, z: pd.DataFrame, target: Target) -> pd.DataFrame:
        head = self.module.heads[self.module.targets.index(target)]
        weight: Any = next(head.parameters())
        with torch.inference_mode():
            p = head.eval().probabilities(torch.from_numpy(z.to_numpy()).to(weight)).float().cpu().numpy()
        return pd.DataFrame(p, index=z.index, columns=list(target.classes) or [target.name])

    def _head_of(self, label_key: str) -> tuple[Any, Any] | None:
        for target, head in zip(self.module.targets, self.module.heads, strict=True):
            if target.name == label_key:
                one = head.linear if target.kind == "class" else partial(_one_score, head)
                return self.module, SimpleNamespace(kind=target.kind, classes=target.classes, scores=one)
        return None

    def _head_with_class(self, name: str) -> str | None:
        return next((t.name for t in self.module.targets if name in t.classes), None)

    def _require_targets(self) -> Sequence[Target]:
        if not self.module.targets:
            msg = f"This {type(self).__name__} predicts nothing: it was set up without `labels_key`."
            raise ValueError(msg)
        return self.module.targets

    def _target(self, name: str | None) -> Target:
        targets = self._require_targets()
        if name is None:
            return targets[0]
        for target in targets:
            if target.name == name:
                return target
        msg = f"{name!r} is not a target of this model: it predicts {_checks.first([t.name for t in targets])}."
        raise ValueError(msg)


def _one_score(head: Any, z: torch.Tensor) -> torch.Tensor:
    return head.score(z, None, None)[:, None]


def decided(p: pd.DataFrame, target: Target) -> pd.Series:
    """The class that is predicted from probabilities (samples, classes): the most probable one; of levels the median.

    The median loses least in levels away from the truth, and can be any level; the most probable one may never be a middle
    level.
    """
    if target.kind != "ordinal":
        return p.idxmax(axis=1)
    is_reached = p.to_numpy(dtype=np.float64).cumsum(axis=1) >= 0.5
    is_reached[:, -1] = True  # whatever rounding left of the sum
    return pd.Series(p.columns.to_numpy()[is_reached.argmax(axis=1)], index=p.index)


def _true_values(truth: pd.Series, target: Target) -> np.ndarray:
    """Numbers, or names of classes, of labels that are all there."""
    if target.kind == "continuous":
        return _labels.read_numbers(truth)
    return np.asarray(target.classes, dtype=object)[_labels.match_classes(truth, target.classes)]


def _metrics(truth: np.ndarray, p: pd.DataFrame, target: Target) -> dict[str, float]:
    if target.kind == "continuous":
        y, predicted = truth, p[target.name].to_numpy()
        return {
            "r2": float(r2_score(y, predicted)) if len(y) > 1 else np.nan,
            "mean_absolute_error": float(np.abs(y - predicted).mean()),
        }
    y = truth.astype(str)
    predicted = decided(p, target).to_numpy()
    per_class = [
        roc_auc_score(y == c, p[c]) if 0 < (y == c).sum() < len(y) else np.nan for c in p.columns if (y == c).any()
    ]
    return {
        "f1_weighted": float(f1_score(y, predicted, average="weighted", zero_division=0)),
        "accuracy": float(accuracy_score(y, predicted)),
        "auroc": float(np.mean(per_class)) if per_class else np.nan,
    }

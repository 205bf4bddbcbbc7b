"""A model that learns labels itself, in the folds of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scset_tools._labels import name_of
from scset_tools.tl._estimators import Prediction
from scset_tools.tl._splits import Fold
from scset_tools.tl._targets import Target

if TYPE_CHECKING:
    from anndata import AnnData


class Learner:
    """Fine-tunes to a label on the training samples of a fold and predicts the others.

    Parameters
    ----------
    samples
        Sample-level AnnData with the label.
    label
        As it was read.
    event_key
        Column of the event, of a time to an event.
    """

    def __init__(self, samples: AnnData, label: Target, event_key: str | None) -> None:
        self.key, self.kind, self.classes, self.event_key = label.key, label.kind, label.classes, event_key
        column = samples.obs[label.key].iloc[label.rows]
        # the number that an ordinal level counts as
        self.level_of = dict(zip(map(name_of, column), label.values, strict=True)) if label.kind == "ordinal" else {}

    def run(
        self, profile: Any, *, cells: AnnData, names: np.ndarray, fold: Fold, ways: Sequence[str], seed: int
    ) -> list[Prediction]:
        """Predictions of the test samples of a fold, in each way.

        Parameters
        ----------
        profile
            With ``learn_label`` and ``predict_label``, fitted.
        cells
            Cells of all samples.
        names
            Names of the labelled samples.
        fold
            Its training and test samples.
        ways
            Names of the ways.
        seed
            Seed.
        """
        out = []
        fold_seed = int(np.random.default_rng((seed, fold.repeat, fold.fold)).integers(2**31))
        for way in ways:
            profile.learn_label(
                cells,
                self.key,
                way=way,
                samples=list(names[fold.train]),
                kind=self.kind,
                event_key=self.event_key,
                seed=fold_seed,
            )
            predicted, scores = profile.predict_label(cells, self.key, samples=list(names[fold.test]))
            out.append(self._prediction(predicted, scores))
        return out

    def _prediction(self, predicted: Any, scores: Any) -> Prediction:
        nothing = np.zeros((len(predicted), 0))
        if self.kind == "class":
            # a class that the training part does not have: last in every ranking
            p = scores.reindex(columns=list(self.classes), fill_value=0.0).to_numpy(dtype=float)
            codes = np.array([self.classes.index(str(name)) for name in predicted], dtype=np.int64)
            return Prediction(codes, p, {}, is_tuned=False)
        values = [self.level_of[str(name)] for name in predicted] if self.kind == "ordinal" else predicted
        return Prediction(np.asarray(values, dtype=float), nothing, {}, is_tuned=False)

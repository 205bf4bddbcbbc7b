"""Answers of a model to what moves its scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from scset_tools import _checks
from scset_tools._checks import require_choice
from scset_tools._samples import as_text
from scset_tools.model.explain._collect import CellMatrix, SampleSums
from scset_tools.model.explain._contrast import By, sample_weights
from scset_tools.model.explain._group_sums import Weighing
from scset_tools.model.explain._question import Precision, Question
from scset_tools.model.explain._result import Attributions

METHODS = ("integrated_gradients", "gradient_x_input", "attention")
BASELINES = ("mean", "zeros", "reference")
HEADS = ("probe", "finetuned")
BYS: tuple[By, ...] = ("contrast", "mean")


def attribute(
    question: Question, *, groupby: str | None, features: Sequence[str] | None, precision: Precision
) -> Attributions:
    """Attributions of every sample; see :meth:`~scset_tools.model.SampleModelClass.get_attributions`.

    Parameters
    ----------
    question
        What is asked of which model.
    groupby
        Column of ``adata.obs`` with the group of each cell.
    features
        Names of the features to keep. Default: all.
    precision
        Of integrated gradients.
    """
    adata, dataset, scorer = question.adata, question.dataset, question.scorer
    group, group_names = _checks.group_codes(adata, groupby)
    names = pd.Index(question.model.get_var_names())
    kept = np.arange(len(names)) if features is None else names.get_indexer(list(features))
    if (kept < 0).any():
        unknown = [f for f, i in zip(features or (), kept, strict=True) if i < 0]
        msg = f"{len(unknown)} of {len(kept)} features are not read by the model: {_checks.first(unknown)}."
        raise KeyError(msg)
    distinct, order = np.unique(question.positions, return_inverse=True)
    which, sign = [c[0] for c in scorer.columns], np.asarray([c[1] for c in scorer.columns], dtype=np.float32)
    # of two classes one is the other with its sign turned; the weight of a cell is the same for both
    turn = np.ones_like(sign) if question.method == "attention" else sign
    samples = pd.Index(as_text(dataset.index.names[question.positions]), name=question.model._sample_key)
    labels = question.labels.iloc[question.positions].set_axis(samples)
    weights = {}
    for by in BYS:
        of_rows = sample_weights(by, labels, scorer.names, kind=scorer.kind, reference=question.reference)
        weights[by] = np.zeros((len(distinct), of_rows.shape[1]))
        np.add.at(weights[by], order, of_rows)  # a sample may be asked for twice
    sums = SampleSums(
        dataset,
        distinct,
        group,
        n_groups=len(group_names),
        n_scores=scorer.n_computed,
        kept=kept,
        weighing=Weighing(weights, np.asarray(which), turn),
    )
    question.run(sums, precision)

    def table(values: np.ndarray, signs: Any = 1) -> pd.DataFrame:
        return pd.DataFrame(values[order][:, which] * signs, index=samples, columns=scorer.names)

    values = sums.values[order]
    group_values = None if sums.group_values is None else sums.group_values[order]
    if which != list(range(scorer.n_computed)):
        values = values[:, which] * turn[:, None]
        group_values = None if group_values is None else group_values[:, :, which] * turn[:, None]
    return Attributions(
        label_key=question.label_key,
        kind=scorer.kind,
        reference=question.reference,
        head=question.head_name,
        method=question.method,
        baseline=question.baseline,
        model=question.model.name,
        classes=scorer.names,
        samples=samples,
        feature_names=names[kept],
        values=values,
        cells=pd.DataFrame(sums.cells[:, which] * turn, index=adata.obs_names, columns=scorer.names),
        scores=table(sums.f_input, sign),
        baseline_scores=table(sums.f_baseline, sign),
        completeness_error=table(sums.error),
        labels=labels,
        group_names=group_names,
        group_values=group_values,
        group_cells=sums.group_cells[order][:, :, which] * turn,
        group_sizes=sums.group_sizes[order],
        group_sums=None if sums.group_sums is None else sums.group_sums.sums,
    )


def attribution_matrix(question: Question, precision: Precision) -> tuple[np.ndarray, Any]:
    """Rows of cells and the attributions of each feature in them, sample after sample.

    Parameters
    ----------
    question
        With one class to explain.
    precision
        Of integrated gradients.
    """
    if len(question.scorer.names) > 1:
        msg = f"Name one class to explain: target=..., one of {_checks.first(question.scorer.names, 20)}."
        raise ValueError(msg)
    which, sign = question.scorer.columns[0]
    collect = CellMatrix(which, sign)
    question.run(collect, precision)
    return collect.result(question.positions)


def require_options(method: str, head: str | None, baseline: str | None) -> None:
    """Raise ValueError for an unknown option.

    Parameters
    ----------
    method, head, baseline
        As for :meth:`~scset_tools.model.SampleModelClass.get_attributions`.
    """
    require_choice("method", method, METHODS)
    for name, value, choices in (("head", head, HEADS), ("baseline", baseline, BASELINES)):
        if value is not None:
            require_choice(name, value, choices)

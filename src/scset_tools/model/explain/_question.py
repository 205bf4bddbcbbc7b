"""What is asked of a model: which scores, of which samples, from which baseline; and the run over batches that answers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from scset_tools import _checks, _labels
from scset_tools._samples import as_text
from scset_tools.data._splitter import sample_loader
from scset_tools.model._inference import represent_samples
from scset_tools.model._processes import is_shared, shared
from scset_tools.model.explain._scorer import Probe, Scorer
from scset_tools.nn import sample_of_cell

if TYPE_CHECKING:
    from anndata import AnnData

    from scset_tools.model.explain._methods import ExplainedModel

MAX_DOUBLINGS = 4
"""How often the number of steps is doubled at most."""
SMALL = 0.1
"""Share of a unit of the score below which a difference of scores is no yardstick for the error of its parts."""


@dataclass(frozen=True)
class Precision:
    """How well paths are integrated."""

    n_steps: int
    tolerance: float


class Question:
    """Cells, scores and path of one question to a model.

    Parameters
    ----------
    model
        Whose scores are explained.
    adata
        Cells, validated by the model.
    label_key, target, reference, head, baseline, method, samples, n_cells, batch_size
        As for :meth:`~scset_tools.model.SampleModelClass.get_attributions`.
    """

    def __init__(
        self,
        model: ExplainedModel,
        adata: AnnData,
        label_key: str,
        *,
        target: str | Sequence[str] | None,
        reference: str | None,
        head: str | None,
        baseline: str | None,
        method: str,
        samples: Sequence[str] | None,
        n_cells: int | None,
        batch_size: int = 8,
    ) -> None:
        if label_key not in adata.obs and target is None and (known := model._head_with_class(label_key)) is not None:
            label_key, target = known, label_key  # a class of the label that was learned, and no column: one meaning
        self.model, self.adata, self.label_key, self.batch_size = model, adata, label_key, batch_size
        self.method, self.baseline = method, baseline or model._default_baseline
        self.reference = None if reference is None else _labels.name_of(reference)
        self.dataset = model._dataset(adata, n_cells)
        own = None if head == "probe" else model._head_of(label_key)
        if own is None and head == "finetuned":
            msg = (
                f"This {type(model).__name__} has no head for {label_key!r}: call finetune({label_key!r}), or explain a linear "
                "probe with head='probe'."
            )
            raise ValueError(msg)
        self.head_name = "probe" if own is None else "finetuned"
        module: torch.nn.Module
        self.head: Any
        module, self.head = (model.module, self._probe()) if own is None else own
        self.module = module.eval()
        self.labels = self._labels_of_samples()
        names = [target] if isinstance(target, (str, int, float, bool, np.generic)) else target
        names = None if names is None else [_labels.name_of(t) for t in names]
        self.scorer = Scorer(self.head, label_key, target=names, reference=self.reference)
        self.positions = self.dataset.index.positions(samples)
        self._mean_cell = self._start()

    # ---- labels and head

    def _column(self) -> pd.Series:
        """Label of each sample, as the column holds it."""
        column = _checks.require_constant_within_sample(self.adata, self.label_key, self.model._sample_key)
        return column.iloc[self.dataset.index.first(np.arange(self.adata.n_obs))]

    def _probe(self) -> Probe:
        """A linear probe, fitted to all labelled samples with all their cells."""
        column = self._column()
        kind = "continuous" if _labels.guess_kind(column) == "continuous" else "class"
        if kind == "class":
            read = _labels.read_classes(column)
            labels, is_known = np.asarray(read.names, dtype=object)[read.codes], read.codes >= 0
            n_values, what = len(read.names), "classes"
        else:
            labels = _labels.read_numbers(column)
            is_known, what = ~np.isnan(labels), "values"
            n_values = len(np.unique(labels[is_known]))
        if n_values < 2:
            msg = f"adata.obs[{self.label_key!r}] has {n_values} {what} with samples: nothing to tell apart."
            raise ValueError(msg)
        dataset = self.model._dataset(self.adata)
        vectors = represent_samples(
            self.model.module, dataset, np.flatnonzero(is_known), batch_size=max(16, self.batch_size)
        )
        return Probe(vectors, labels[is_known], kind=kind)

    def _labels_of_samples(self) -> pd.Series:
        """Name of the class of each sample, or its number; missing where there is none, and where the head cannot read them."""
        names = as_text(self.dataset.index.names)
        nothing = pd.Series(np.full(len(names), None, dtype=object), index=names)
        if self.label_key not in self.adata.obs.columns or self.head.kind == "time_to_event":
            return nothing
        column = self._column()
        if self.head.kind == "continuous":
            return pd.Series(_labels.read_numbers(column), index=names)
        classes = [str(c) for c in self.head.classes]
        codes = _labels.match_classes(column, classes, allow_new=True)
        if self.head.kind == "ordinal":
            return pd.Series(np.where(codes < 0, np.nan, codes.astype(np.float64)), index=names)
        return pd.Series(np.asarray([*classes, None], dtype=object)[codes], index=names)

    # ---- path

    def _start(self) -> torch.Tensor | None:
        """Mean over samples of their mean cell, where the path needs one that the module does not have."""
        positions = np.arange(len(self.dataset))
        if self.baseline == "reference":
            if self.reference is None:
                msg = "baseline='reference' needs a reference class: name one, or use baseline='mean'."
                raise ValueError(msg)
            positions = np.flatnonzero((self.labels == self.reference).to_numpy())
            if not len(positions):
                msg = f"baseline='reference' needs samples of {self.reference!r}, but adata has none. Use baseline='zeros'."
                raise ValueError(msg)
        elif self.baseline == "zeros" or self._own_baseline(positions[:1]) is not None:
            return None
        total: Any = 0.0
        with torch.no_grad():
            for space in self._spaces(positions, n_scores=1):
                sizes = space.ptr.diff()
                share = (1 / sizes.clamp_min(1).double())[sample_of_cell(space.ptr)]
                total = total + space.weighted_sum(share)
        return (total / len(positions)).float()

    def _own_baseline(self, positions: np.ndarray) -> torch.Tensor | None:
        return self.module.baseline(next(iter(self._spaces(positions, n_scores=1))).batch)

    def _spaces(self, positions: np.ndarray, *, n_scores: int) -> Any:
        """Batches of samples in the space in which the path is straight."""
        space = self.model._space_cls
        most = space.most_cells(self.dataset.reader.n_features, n_scores)
        for batch in sample_loader(self.dataset, positions, batch_size=self.batch_size, max_cells=most):
            yield space(self.module, batch.to(self.module.device))

    # ---- attributions

    def run(self, collect: Any, precision: Precision) -> None:
        """Attribute, and repeat the samples that do not add up with twice the steps.

        The steps of a sample do not depend on its batch mates.

        Parameters
        ----------
        collect
            Takes what is found, batch by batch.
        precision
            First number of steps, and the error that is allowed.
        """

        def attribute(share: np.ndarray) -> dict[str, Any]:
            if len(share):
                self._run(share, collect, precision)
            return collect.part(share, self.dataset) if is_shared() else {}

        for part in shared(np.unique(self.positions), self.dataset.sizes, attribute):
            if part:
                collect.take(part)

    def _run(self, pending: np.ndarray, collect: Any, precision: Precision) -> None:
        for k in range(MAX_DOUBLINGS + 1):
            again = []
            is_last = self.method != "integrated_gradients" or k == MAX_DOUBLINGS
            for space in self._spaces(pending, n_scores=self.scorer.n_computed):
                found = self._attribute(space, precision.n_steps * 2**k)
                errors = self._error(found)
                worst = errors.amax(1).tolist()
                is_final = [is_last or not error > precision.tolerance for error in worst]
                collect.add(space, found, errors, is_final=is_final)
                numbers = space.batch.sample.tolist()
                again += [s for s, is_done in zip(numbers, is_final, strict=True) if not is_done]
            if not again:
                return
            pending = np.asarray(sorted(again))

    def _attribute(self, space: Any, n_steps: int) -> Any:
        start: torch.Tensor | None = self._mean_cell
        if self.baseline == "mean" and start is None:
            start = self.module.baseline(space.batch)
        start = None if start is None else start.to(space.ptr.device)
        if self.method == "attention":
            with torch.no_grad():
                weight = self.module.attention(space.batch).float().mean(1)
                return space.attend(self.scorer, start, weight)
        return space.attribute(self.scorer, start, n_steps=n_steps, is_integrated=self.method == "integrated_gradients")

    def _error(self, found: Any) -> torch.Tensor:
        """Completeness error relative to a tenth of a unit at least: a sample like the baseline has nothing to divide by."""
        difference = (found.f_input.double() - found.f_baseline.double()).abs()
        scale = 1e-6 * torch.maximum(found.f_input.abs(), found.f_baseline.abs()).double()
        own = torch.maximum(difference, scale).clamp_min(torch.finfo(torch.float64).tiny)
        return found.completeness_error * (own / own.clamp_min(SMALL * self._unit()))

    def _unit(self) -> float:
        """One unit of the score: of log-odds 1, of numbers their standard deviation."""
        if self.head.kind != "continuous":
            return 1.0
        return float(np.nanstd(self.labels.to_numpy(dtype=np.float64))) if self.labels.notna().any() else 0.0

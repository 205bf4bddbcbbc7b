"""Which features, cells and groups of cells move the scores that are read off a sample's vector."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch

from scset_tools import _checks, _labels
from scset_tools._checks import require_choice
from scset_tools.model._class_attributions import Attributions, write_attributions
from scset_tools.model._inference import represent_samples
from scset_tools.model._mixin import ModelMixin
from scset_tools.model._scorers import LinearProbe, Scorer
from scset_tools.nn import gradient, integrated_gradients

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

    from scset_tools.data._batch import SampleBatch
    from scset_tools.data._dataset import SampleDataset

METHODS = ("integrated_gradients", "gradient_x_input", "attention")
"""Ways to attribute, of all models."""


def attribute(
    scorer: Scorer,
    dataset: SampleDataset,
    *,
    classes: list[int],
    against: int | None,
    weights: np.ndarray,
    group: np.ndarray,
    n_groups: int,
    method: str,
    n_steps: int,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Contributions to the score of each class.

    Parameters
    ----------
    scorer
        What gives the scores.
    dataset
        Cells to attribute to.
    classes
        Numbers of the classes that are explained.
    against
        Number of the class whose score is subtracted, if any.
    weights
        Weight of each sample in the contrast of each class, (samples, classes).
    group
        Group of each cell of the AnnData, ``n_groups`` for none, (cells,).
    n_groups
        Number of groups.
    method
        One of ``METHODS``.
    n_steps
        Points on the path of integration.
    batch_size
        Samples at a time.

    Returns
    -------
    Contrasts (n_groups + 1, features, classes), cell sums (cells, classes) and completeness errors (samples, classes).
    """
    contrast = np.zeros((n_groups + 1, dataset.reader.n_features, len(classes)))
    cells = np.full((dataset.reader.n_rows, len(classes)), np.nan, dtype=np.float32)
    error = np.full((len(dataset), len(classes)), np.nan)

    def score(x: torch.Tensor, _: torch.Tensor, *, batch: SampleBatch, c: int) -> torch.Tensor:
        scores = scorer(x, batch)
        return scores[:, c] if against is None else scores[:, c] - scores[:, against]

    for samples, batch in _batches(dataset, batch_size, scorer.module.device):
        rows, baseline = batch.rows.cpu().numpy(), scorer.module.baseline(batch)
        of_cell = np.repeat(samples, batch.sizes.cpu().numpy())
        if method == "attention":  # the same for every class
            with torch.inference_mode():
                weight = scorer.module.attention(batch).mean(1, keepdim=True)
        for k, c in enumerate(classes):
            f = partial(score, batch=batch, c=c)
            if method == "integrated_gradients":
                result = integrated_gradients(f, batch.x, batch.ptr, baseline=baseline, n_steps=n_steps)
                values = result.attributions
                error[samples, k] = result.completeness_error.cpu().numpy()
            elif method == "gradient_x_input":
                values = gradient(f, batch.x, batch.ptr) * (batch.x - baseline)
            else:
                values = weight * (batch.x - baseline)
            found = values.cpu().numpy()
            cells[rows, k] = weight.squeeze(1).cpu().numpy() if method == "attention" else found.sum(1)
            np.add.at(contrast[:, :, k], group[rows], found * weights[of_cell, k][:, None])
    return contrast, cells, error


def _batches(dataset: SampleDataset, batch_size: int, device: torch.device) -> Iterator[tuple[np.ndarray, SampleBatch]]:
    for start in range(0, len(dataset), batch_size):
        samples = np.arange(start, min(start + batch_size, len(dataset)))
        yield samples, dataset[0, samples.tolist()].to(device)


def contrast_weights(labels: np.ndarray, classes: list[str], reference: str | None) -> np.ndarray:
    """Weights of samples whose sum is the mean over a class less that over the others, (samples, classes).

    Parameters
    ----------
    labels
        Class of each sample, empty where there is none, (samples,).
    classes
        Classes to contrast.
    reference
        Class that stands for the others. Default: all others that have a label.
    """
    columns = []
    for name in classes:
        is_own = labels == name
        is_other = (labels != name) & (labels != "") if reference is None else labels == reference
        columns.append(is_own / max(is_own.sum(), 1) - is_other / max(is_other.sum(), 1))
    return np.stack(columns, axis=1)


class AttributionMixin(ModelMixin):
    """For a model whose module has ``represent_features(x, batch)``, ``baseline(batch)`` and ``attention(batch)``."""

    def get_attributions(
        self,
        target: str,
        *,
        reference: str | None = None,
        groupby: str | None = None,
        method: Literal["integrated_gradients", "gradient_x_input", "attention"] = "integrated_gradients",
        head: Literal["probe", "finetuned"] = "probe",
        adata: AnnData | None = None,
        n_cells: int = 500,
        n_steps: int = 20,
        batch_size: int = 8,
    ) -> Attributions:
        """Which features, cells and groups of cells tell the classes of a label apart.

        What is explained is a score of each class: of a logistic regression that is fitted to the frozen vectors of all samples
        with a label, or of the head that was fine-tuned. Integrated gradients carry it back to the features of the cells,
        starting from the mean cell. This explains the score, it does not validate it: for how well a label is
        predicted see :func:`scset_tools.tl.probe`.

        Parameters
        ----------
        target
            Column of ``adata.obs`` with a class per sample.
        reference
            Class whose score is subtracted from that of each other class, for instance ``"healthy"``; its samples are then
            what the others are compared with.
        groupby
            Column of ``adata.obs`` with the type of each cell.
        method
            ``"integrated_gradients"``, ``"gradient_x_input"`` (first order: the gradient times the distance from the mean cell), or
            ``"attention"``: the weight of each cell, and for features the weighted distance from the mean cell.
        head
            ``"probe"``, or ``"finetuned"`` for the classifier of ``finetune``, where the model has one; it must have been
            fitted to ``target``.
        adata
            Cells to attribute to. Default: the registered AnnData.
        n_cells
            Most cells of a sample that are attributed to, drawn from a seed.
        n_steps
            Points on the path of integration; raise it where ``completeness_error`` is above some percent.
        batch_size
            Number of samples at a time.

        Returns
        -------
        :class:`~scset_tools.model.Attributions` of features, cells and groups to each class.

        Raises
        ------
        KeyError
            If a column is not there.
        ValueError
            If there are fewer than two classes, the reference is none of them, or there is no such head.
        """
        require_choice("method", method, METHODS)
        require_choice("head", head, ("probe", "finetuned"))
        adata = self._validate_anndata(adata)
        labels = _checks.require_constant_within_sample(adata, target, self._sample_key)
        try:
            dataset = self._dataset(adata, n_cells)
            read = _labels.read_classes(labels)
            codes = dataset.index.first(read.codes)
            is_labelled, text = codes >= 0, np.array([*read.names, ""], dtype=object)[codes]
            if len(read.names) < 2:
                msg = f"adata.obs[{target!r}] has {len(read.names)} classes with samples: nothing to tell apart."
                raise ValueError(msg)
            reference = None if reference is None else _labels.name_of(reference)
            group, group_names = _checks.group_codes(adata, groupby)
            if head == "finetuned":
                scorer = self._finetuned_scorer(target)
            else:
                vectors = represent_samples(self.module, dataset, np.arange(len(dataset)), batch_size=batch_size)
                probe = LinearProbe(vectors[is_labelled], text[is_labelled])
                scorer = Scorer(self.module, probe, probe.classes)
            if reference is not None and reference not in scorer.classes:
                msg = f"reference={reference!r} is not a class of {target!r}: {_checks.first(scorer.classes, 20)}."
                raise ValueError(msg)
            classes = [c for c in scorer.classes if c != reference]
            found, cells, error = attribute(
                scorer,
                dataset,
                classes=[scorer.classes.index(c) for c in classes],
                against=None if reference is None else scorer.classes.index(reference),
                weights=contrast_weights(text, classes, reference),
                group=np.where(group < 0, len(group_names), group),
                n_groups=len(group_names),
                method=method,
                n_steps=n_steps,
                batch_size=batch_size,
            )
        finally:
            self._release(adata)
        names = pd.Index(self.get_var_names())
        of_groups = pd.MultiIndex.from_product([group_names, names], names=[groupby or "group", "feature"])
        return Attributions(
            target=target,
            features=pd.DataFrame(found.sum(0), index=names, columns=classes),
            cells=pd.DataFrame(cells, index=adata.obs_names, columns=classes),
            completeness_error=pd.DataFrame(error, index=dataset.index.names.astype(str), columns=classes),
            group_features=pd.DataFrame(found[:-1].reshape(-1, len(classes)), index=of_groups, columns=classes),
            reference=reference,
            method=method,
        )

    def _finetuned_scorer(self, target: str) -> Scorer:
        msg = f"{type(self).__name__} has no fine-tuned head to explain {target!r} by: use head='probe'."
        raise ValueError(msg)

    def annotate_attributions(self, target: str, *, adata: AnnData | None = None, **kwargs: Any) -> None:
        """Write the attributions to a label; see :meth:`get_attributions`.

        Parameters
        ----------
        target
            Column of ``adata.obs`` with a class per sample.
        adata
            Cells to annotate. Default: the registered AnnData.
        **kwargs
            Arguments of :meth:`get_attributions`.

        Writes
        ------
        For each class ``obs["<model>_attribution_<target>_<class>"]`` (cells) and, where the model reads ``X`` or a layer,
        ``var["<model>_attribution_<target>_<class>"]`` (features) and with ``groupby`` ``varm`` of the same name (features x groups);
        otherwise the features go to ``uns["<model>_attribution_<target>"]``. ``<model>`` is the model's name in lower case; what
        no file can hold in a key (``/``) is written as in a web address (``%2F``).
        """
        cells = self._cells_of(adata)
        write_attributions(cells, self.get_attributions(target, adata=cells, **kwargs), name=self.name)

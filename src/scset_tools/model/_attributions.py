"""Which features and which cells move the score that a linear probe reads off a sample's vector."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scset_tools import _checks
from scset_tools.model._inference import represent_samples
from scset_tools.model._mixin import ModelMixin
from scset_tools.model._outputs import write_attributions
from scset_tools.nn import integrated_gradients

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

    from scset_tools.data._batch import SampleBatch
    from scset_tools.data._dataset import SampleDataset


@dataclass(frozen=True)
class Attributions:
    """Integrated gradients of the scores of a linear probe on frozen vectors.

    Attributes
    ----------
    target
        Label that the probe was fitted to.
    features
        Contribution of each feature to the score of each class, in samples of the class less that in the others: how much it
        helps to tell the class from the others, (features, classes). With two classes both columns are equal.
    cells
        Contribution of each cell, summed over features, (cells, classes); NaN for a cell that was not drawn.
    completeness_error
        Per sample and class: how far the sum of attributions is from the score less that of the baseline, relative to it.
    """

    target: str
    features: pd.DataFrame
    cells: pd.DataFrame
    completeness_error: pd.DataFrame


class LinearProbe:
    """Scores ``z @ weight + bias`` of each class, from a logistic regression on standardised vectors."""

    def __init__(self, vectors: np.ndarray, labels: np.ndarray) -> None:
        fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(vectors, labels)
        scaler, regression = fitted[0], fitted[1]
        coef, intercept = (
            regression.coef_ / scaler.scale_,
            regression.intercept_ - regression.coef_ @ (scaler.mean_ / scaler.scale_),
        )
        if len(coef) == 1:  # two classes share one row, the log-odds of the second
            coef, intercept = np.concatenate([-coef, coef]), np.concatenate([-intercept, intercept])
        self.classes = [str(c) for c in regression.classes_]
        self.weight = torch.from_numpy(coef.T.astype(np.float32))  # (n_latent, classes)
        self.bias = torch.from_numpy(intercept.astype(np.float32))

    def score(self, z: torch.Tensor, which: int) -> torch.Tensor:
        """Score of one class, (samples,)."""
        return z @ self.weight[:, which].to(z) + self.bias[which].to(z)


def attribute(
    module: torch.nn.Module,
    dataset: SampleDataset,
    probe: LinearProbe,
    *,
    labels: np.ndarray,
    n_steps: int,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integrated gradients from the mean cell to each cell, for each class of the probe.

    Parameters
    ----------
    module
        With ``represent_features(x, batch, ptr)`` and ``baseline(batch)``.
    dataset
        Cells to attribute to.
    probe
        What gives the scores.
    labels
        Class of each sample as text, (samples,).
    n_steps
        Points on the path of integration.
    batch_size
        Samples at a time.

    Returns
    -------
    Feature contrasts (features, classes), cell sums (cells, classes) and completeness errors (samples, classes).
    """
    n_classes = len(probe.classes)
    per_sample = np.zeros((len(dataset), dataset.reader.n_features, n_classes))
    cells = np.full((dataset.reader.n_rows, n_classes), np.nan, dtype=np.float32)
    error = np.zeros((len(dataset), n_classes))
    module.eval()

    def score(x: torch.Tensor, _: torch.Tensor, *, batch: SampleBatch, c: int) -> torch.Tensor:
        return probe.score(module.represent_features(x, batch), c)

    for samples, batch in _batches(dataset, batch_size, module.device):
        for c in range(n_classes):
            result = integrated_gradients(
                partial(score, batch=batch, c=c),
                batch.x,
                batch.ptr,
                baseline=module.baseline(batch),
                n_steps=n_steps,
            )
            values = result.attributions.cpu().numpy()
            cells[batch.rows.cpu().numpy(), c] = values.sum(1)
            per_sample[samples, :, c] = np.add.reduceat(values, batch.ptr[:-1].cpu().numpy(), axis=0)
            error[samples, c] = result.completeness_error.cpu().numpy()
    contrast = np.stack(
        [
            per_sample[labels == k, :, c].mean(0) - per_sample[labels != k, :, c].mean(0)
            for c, k in enumerate(probe.classes)
        ],
        axis=1,
    )
    return contrast, cells, error


def _batches(dataset: SampleDataset, batch_size: int, device: torch.device) -> Iterator[tuple[np.ndarray, SampleBatch]]:
    for start in range(0, len(dataset), batch_size):
        samples = np.arange(start, min(start + batch_size, len(dataset)))
        yield samples, dataset[0, samples.tolist()].to(device)


class AttributionMixin(ModelMixin):
    """For a model whose module has ``represent_features(x, batch)`` and ``baseline(batch)``."""

    def get_attributions(
        self, target: str, *, adata: AnnData | None = None, n_cells: int = 500, n_steps: int = 20, batch_size: int = 8
    ) -> Attributions:
        """Which features and which cells tell the classes of a label apart.

        A logistic regression is fitted to the frozen vectors of all samples with a label; integrated gradients carry its
        scores back to the features of the cells, starting from the mean cell. This explains the probe, it does not
        validate it: for how well a label is predicted see :func:`scset_tools.tl.probe`.

        Parameters
        ----------
        target
            Column of ``adata.obs`` with a class per sample.
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
        :class:`~scset_tools.model.Attributions` of features and cells to each class.
        """
        adata = self._validate_anndata(adata)
        labels = _checks.require_constant_within_sample(adata, target, self._sample_key)
        try:
            dataset = self._dataset(adata, n_cells)
            of_sample = dataset.index.first(labels.astype(object).to_numpy())
            is_labelled = pd.notna(of_sample)
            text = np.where(is_labelled, of_sample.astype(str), "")
            if len(set(text[is_labelled])) < 2:
                msg = f"adata.obs[{target!r}] has {len(set(text[is_labelled]))} classes with samples: nothing to tell apart."
                raise ValueError(msg)
            vectors = represent_samples(self.module, dataset, np.arange(len(dataset)), batch_size=batch_size)
            probe = LinearProbe(vectors[is_labelled], text[is_labelled])
            features, cells, error = attribute(
                self.module, dataset, probe, labels=text, n_steps=n_steps, batch_size=batch_size
            )
        finally:
            self._release(adata)
        return Attributions(
            target=target,
            features=pd.DataFrame(features, index=pd.Index(self.get_var_names()), columns=probe.classes),
            cells=pd.DataFrame(cells, index=adata.obs_names, columns=probe.classes),
            completeness_error=pd.DataFrame(error, index=dataset.index.names.astype(str), columns=probe.classes),
        )

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
        For each class ``obs["<model>_attribution_<class>"]`` (cells) and, where the model reads ``X`` or a layer,
        ``var["<model>_attribution_<class>"]`` (features); otherwise the features go to
        ``uns["<model>_attribution_<target>"]``. ``<model>`` is the model's name in lower case.
        """
        cells = self._cells_of(adata)
        write_attributions(cells, self.get_attributions(target, adata=cells, **kwargs), name=self.name)

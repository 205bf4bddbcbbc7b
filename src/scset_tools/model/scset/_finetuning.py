"""Fit a classifier to samples and predict: the methods that users call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd

from scset_tools import _checks, _labels
from scset_tools._checks import require_choice
from scset_tools._docs import docs
from scset_tools.model._mixin import ModelMixin
from scset_tools.model.scset._classifier import HEADS, MODES, Classifier, fit_classifier

if TYPE_CHECKING:
    from anndata import AnnData


class FinetuningMixin(ModelMixin):
    """Classify samples by their vectors."""

    classifier_: dict[str, Any] | None

    @docs.dedent
    def finetune(
        self,
        labels_key: str | None = None,
        *,
        mode: Literal["frozen", "end_to_end"] = "frozen",
        head: Literal["linear", "mlp"] = "linear",
        samples: Sequence[str] | None = None,
        adata: AnnData | None = None,
        penalty: float | None = None,
        max_epochs: int = 50,
        lr: float | None = None,
        weight_decay: float = 1e-2,
        n_hidden: int = 64,
        dropout_rate: float = 0.1,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        """Fit a classifier of samples, on frozen vectors or together with the encoder (ScSet section 4.2.3).

        The model's own encoder is left as it is, so that representations and generated cells do not change: an encoder that is
        fine-tuned is a copy, which belongs to the classifier and is saved with it. All classes count the same, whatever
        their number of samples.

        Parameters
        ----------
        labels_key
            Column of ``adata.obs`` with a class per sample. Default: that of :meth:`setup_anndata`.
        mode
            ``"frozen"``: the head alone is fitted. ``"end_to_end"``: encoder and head; a linear head starts from the frozen one.
        head
            ``"linear"`` (logistic regression) or ``"mlp"`` (two hidden layers with GELU).
        samples
            Names of the samples to fit to, all of which need a label. Default: all.
        adata
            Cells of these samples. Default: the registered AnnData.
        penalty
            Inverse strength of the L2 penalty of the logistic regression. Default: chosen from 0.01 to 1e6 by cross-validation
            within the samples.
        max_epochs, lr, weight_decay, batch_size
            Of AdamW, where a gradient is needed. Learning rate by default: 1e-3, and 1e-4 end to end.
        n_hidden, dropout_rate
            Of the MLP.
        seed
            Seed of all draws.

        Raises
        ------
        ValueError
            If a sample has no label, there are fewer than two classes, or the column holds numbers.
        KeyError
            If the column or a sample is not there.
        """
        require_choice("mode", mode, MODES)
        require_choice("head", head, HEADS)
        labels_key = labels_key or self.registry["setup_args"].get("labels_key")
        if labels_key is None:
            msg = "Name the column with the classes: finetune('disease'). None was registered as labels_key."
            raise ValueError(msg)
        self._check_if_trained(message="This ScSet is not trained: the classifier starts from random weights.")
        adata = self._validate_anndata(adata)
        try:
            labels = _checks.require_constant_within_sample(adata, labels_key, self._sample_key)
            dataset = self._dataset(adata, self.module.n_cells if mode == "end_to_end" else None)
            positions = dataset.index.positions(samples)
            first_cells = dataset.index.first(np.arange(adata.n_obs))[positions]
            of_sample = _read_classes(labels.iloc[first_cells], dataset.index.names[positions], labels_key)
            fitted = fit_classifier(
                self.module,
                dataset,
                positions,
                labels=of_sample,
                labels_key=labels_key,
                mode=mode,
                head=head,
                penalty=penalty,
                max_epochs=max_epochs,
                lr=lr or (1e-4 if mode == "end_to_end" else 1e-3),
                weight_decay=weight_decay,
                n_hidden=n_hidden,
                dropout_rate=dropout_rate,
                batch_size=batch_size,
                seed=seed,
            )
        finally:
            self._release(adata)
        self.classifier_ = fitted.to_dict()

    @docs.dedent
    def predict_proba(
        self, adata: AnnData | None = None, *, samples: Sequence[str] | None = None, batch_size: int = 16
    ) -> pd.DataFrame:
        """Probability of each class for each sample, by the classifier of :meth:`finetune`.

        Parameters
        ----------
        adata
            Cells of the samples; they need no labels. Default: the registered AnnData.
        %(param_samples)s
        %(param_batch_size)s

        Returns
        -------
        DataFrame of shape (samples, classes), indexed by sample name; rows sum to 1.
        """
        if self.classifier_ is None:
            msg = "There is no classifier yet: call finetune('<column of classes>') before predicting."
            raise ValueError(msg)
        classifier = Classifier.from_dict(self.classifier_)
        adata = self._validate_anndata(adata)
        try:
            dataset = self._dataset(adata)
            positions = dataset.index.positions(samples)
            proba = classifier.proba(self.module, dataset, positions, batch_size=batch_size)
        finally:
            self._release(adata)
        names = pd.Index(dataset.index.names[positions].astype(str), name=self._sample_key)
        return pd.DataFrame(proba, index=names, columns=classifier.classes)

    @docs.dedent
    def predict(
        self, adata: AnnData | None = None, *, samples: Sequence[str] | None = None, batch_size: int = 16
    ) -> pd.Series:
        """Most probable class of each sample, by the classifier of :meth:`finetune`.

        Parameters
        ----------
        adata
            Cells of the samples; they need no labels. Default: the registered AnnData.
        %(param_samples)s
        %(param_batch_size)s

        Returns
        -------
        Series of class names, indexed by sample name.
        """
        proba = self.predict_proba(adata, samples=samples, batch_size=batch_size)
        classifier = cast("dict[str, Any]", self.classifier_)  # without one, the line above has refused
        return proba.idxmax(axis=1).rename(classifier["labels_key"])

    def _head_of(self, label_key: str) -> tuple[Any, Any] | None:
        if self.classifier_ is None or self.classifier_["labels_key"] != label_key:
            return None
        classifier = Classifier.from_dict(self.classifier_)
        module, head = classifier.modules(self.module)
        head.kind, head.classes, head.scores = "class", classifier.classes, head.eval()
        return module, head


def _read_classes(column: pd.Series, names: np.ndarray, labels_key: str) -> np.ndarray:
    """Names of the classes of samples, all of which need one."""
    is_missing = column.isna().to_numpy()
    if is_missing.any():
        msg = (
            f"adata.obs[{labels_key!r}] is missing for {is_missing.sum()} of {len(column)} samples "
            f"(first: {_checks.first(names[is_missing])}). A classifier needs labels: name the labelled samples, "
            "finetune(..., samples=[...]). Samples without a label serve in train()."
        )
        raise ValueError(msg)
    if _labels.guess_kind(column) == "continuous":
        msg = (
            f"adata.obs[{labels_key!r}] holds numbers, {column.nunique()} different ones in {len(column)} samples: a classifier "
            f"would take each for a class. If they are classes, make them so: adata.obs[{labels_key!r}] = "
            f"adata.obs[{labels_key!r}].astype('category'); otherwise predict the number with tl.probe(probe='ridge') or PaSCient."
        )
        raise ValueError(msg)
    read = _labels.read_classes(column)
    if len(read.names) < 2:
        msg = f"adata.obs[{labels_key!r}] has one class, {_checks.first(read.names)}, in these samples: two are needed."
        raise ValueError(msg)
    return np.asarray(read.names, dtype=object)[read.codes]

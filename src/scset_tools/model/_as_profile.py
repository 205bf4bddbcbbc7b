"""A model in the place of a profile: fitted on training samples, applied to any."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from scset_tools._checks import require_choice
from scset_tools._labels import guess_kind
from scset_tools._samples import as_text, sample_obs, sample_of_cells
from scset_tools.model._arguments import require_profile_arguments

if TYPE_CHECKING:
    from typing import Self

    from anndata import AnnData

    from scset_tools.model._base import SampleModelClass


class ModelProfile(BaseEstimator):
    """A model with the interface of :mod:`scset_tools.profiles`, for comparisons without leakage.

    ``fit`` sets the model up on the cells of the training samples and trains it; ``transform`` embeds any samples. With
    ``train=None`` the weights stay random: the control that a trained model has to beat.

    Parameters
    ----------
    model
        Class of the model, for instance ``scset_tools.MAESTRO``.
    sample_key
        Column of ``adata.obs`` with the sample of each cell.
    setup
        Further arguments of ``setup_anndata``.
    build
        Further arguments of the constructor.
    train
        Further arguments of ``train``. None: do not train.
    finetune
        Ways to learn a label, by name, each the arguments of ``finetune`` (``mode``, ``head``, ...) and, if fewer labels than there
        are shall be used, their number ``n_labels``. :func:`scset_tools.tl.benchmark` then fine-tunes on the training samples
        of each fold and scores what is predicted of the others; pretraining is shared by all ways.
    pretrain_on
        Whether ``train`` sees the samples given to ``fit``, which in a comparison are the ``"training"`` samples of a fold, or
        the cells of ``"all"`` samples, without labels.

    Examples
    --------
    >>> import scset_tools as sst
    >>> adata = sst.datasets.perturbation_cohort(n_samples=6, n_cells=40)
    >>> sizes = {"n_hidden": 16, "n_latent": 4, "n_inducing": 4}
    >>> control = sst.model.ModelProfile(sst.MAESTRO, sample_key="sample", build={**sizes, "random_state": 0})
    >>> control.fit(adata).transform(adata).shape
    (6, 4)
    """

    def __init__(
        self,
        model: type[SampleModelClass],
        *,
        sample_key: str,
        setup: dict[str, Any] | None = None,
        build: dict[str, Any] | None = None,
        train: dict[str, Any] | None = None,
        finetune: Mapping[str, dict[str, Any]] | None = None,
        pretrain_on: Literal["training", "all"] = "training",
    ) -> None:
        self.model, self.sample_key = model, sample_key
        self.setup, self.build, self.train = setup, build, train
        self.finetune, self.pretrain_on = finetune, pretrain_on
        # now, and not in the first fold of a comparison whose other methods have been fitted by then
        require_profile_arguments(model, setup=setup, build=build, train=train, finetune=finetune)

    def fit(self, adata: AnnData, *, samples: Sequence[str] | None = None) -> Self:
        """Set the model up on the training samples, and train it.

        Parameters
        ----------
        adata
            Cells of the samples.
        samples
            Names of the training samples. Default: all.
        """
        cells = adata
        require_choice("pretrain_on", self.pretrain_on, ("training", "all"))
        if samples is not None and self.pretrain_on == "training":
            cells = adata[np.isin(sample_of_cells(adata, self.sample_key), as_text(samples))]
            cells = cells.to_memory() if cells.isbacked else cells.copy()  # a fold is read into memory, wherever it was
        self.model.setup_anndata(cells, self.sample_key, **(self.setup or {}))
        self.model_ = self.model(cells, **(self.build or {}))
        if self.train is not None:
            self.model_.train(**self.train)
        return self

    def transform(self, adata: AnnData) -> AnnData:
        """A sample-level AnnData of all samples of ``adata``.

        Parameters
        ----------
        adata
            Cells of the samples to embed.
        """
        with warnings.catch_warnings():
            if self.train is None:  # the warning that weights are random is what this control is about
                warnings.filterwarnings("ignore", message=".*is not trained")
            return self.model_.to_sample_adata(adata)

    def fit_transform(self, adata: AnnData, *, samples: Sequence[str] | None = None) -> AnnData:
        """``fit`` on the named samples, then ``transform`` of all samples of ``adata``.

        Parameters
        ----------
        adata
            Cells of the samples.
        samples
            Names of the training samples. Default: all.
        """
        return self.fit(adata, samples=samples).transform(adata)

    def learn_label(
        self,
        adata: AnnData,
        label_key: str,
        *,
        way: str,
        samples: Sequence[str],
        kind: str | None = None,
        event_key: str | None = None,
        seed: int = 0,
    ) -> None:
        """Fine-tune the fitted model to a label of some samples.

        Parameters
        ----------
        adata
            Cells of the samples.
        label_key
            Column of ``adata.obs``.
        way
            One of the names in ``finetune``.
        samples
            Names of the samples to learn from; with ``n_labels`` so many of them are drawn, of each class in turn.
        kind, event_key
            Of the label, as for ``finetune``.
        seed
            Of the draw and of ``finetune``.
        """
        arguments = {"seed": seed, **dict((self.finetune or {})[way])}
        n_labels = arguments.pop("n_labels", None)
        is_learner = np.isin(sample_of_cells(adata, self.sample_key), as_text(samples))
        cells = adata[is_learner].copy()
        if n_labels is not None:
            labels = sample_obs(cells, self.sample_key)[label_key]
            samples = drawn_of_each_class(labels, n_labels, seed=seed)
            cells = cells[np.isin(sample_of_cells(cells, self.sample_key), as_text(samples))].copy()
        key = label_key if kind is None else {label_key: kind}
        with warnings.catch_warnings():
            if self.train is None:
                warnings.filterwarnings("ignore", message=".*is not trained")
            self.model_.finetune(key, adata=cells, event_key=event_key, **arguments)

    def predict_label(
        self, adata: AnnData, label_key: str, *, samples: Sequence[str]
    ) -> tuple[pd.Series, pd.DataFrame]:
        """What is predicted of samples, and the probabilities of the classes (no columns for numbers and hazards).

        Parameters
        ----------
        adata
            Cells of the samples.
        label_key
            A label that was learned.
        samples
            Names of the samples.
        """
        names = list(samples)
        cells = adata[np.isin(sample_of_cells(adata, self.sample_key), as_text(names))].copy()
        predicted = self.model_.predict(cells, label_key=label_key, samples=names)[label_key]
        if self.model_.heads[label_key].kind != "class":
            return predicted, pd.DataFrame(index=predicted.index)
        return predicted, self.model_.predict_proba(cells, label_key=label_key, samples=names)


def drawn_of_each_class(labels: pd.Series, n: int, *, seed: int) -> list[str]:
    """Names of ``n`` samples, one of each class in turn for as long as it has some; numbers count as one class.

    Parameters
    ----------
    labels
        Label of each sample, indexed by name.
    n
        How many to draw.
    seed
        Seed.
    """
    rng = np.random.default_rng(seed)
    known = labels[labels.notna()].sort_index()
    known = known.iloc[rng.permutation(len(known))]
    is_number = guess_kind(known) == "continuous"
    turn = (
        pd.Series(np.arange(len(known)), known.index) if is_number else known.groupby(known, observed=True).cumcount()
    )
    return [str(name) for name in turn.sort_values(kind="stable").index[:n]]

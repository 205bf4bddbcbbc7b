"""Explaining a model: the methods that users call, the same on every model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from scset_tools import _checks, _keys
from scset_tools._samples import sample_codes
from scset_tools.model._inference import score_cells
from scset_tools.model._outputs import write_cell_scores
from scset_tools.model.explain._attribute import attribute, attribution_matrix, require_options
from scset_tools.model.explain._question import Precision, Question
from scset_tools.model.explain._spaces import FeatureSpace
from scset_tools.model.supervise._model import SupervisedModel

if TYPE_CHECKING:
    from scset_tools.model.explain._result import Attributions


class ExplainedModel(SupervisedModel):
    """Attributions and attention of every model."""

    _space_cls: type[Any] = FeatureSpace
    """Where the path from baseline to cells is straight."""
    _default_baseline = "mean"
    _learns_from_labels = False
    """Whether ``train`` reads ``labels_key``: then permuted labels ask for another training."""

    def get_attributions(
        self,
        label_key: str,
        *,
        target: str | Sequence[str] | None = None,
        reference: str | None = None,
        head: Literal["probe", "finetuned"] | None = None,
        baseline: Literal["mean", "zeros", "reference"] | None = None,
        groupby: str | None = None,
        method: Literal["integrated_gradients", "gradient_x_input", "attention"] = "integrated_gradients",
        features: Sequence[str] | None = None,
        samples: Sequence[str] | None = None,
        adata: AnnData | None = None,
        n_cells: int | None = 1_000,
        n_steps: int = 20,
        tolerance: float = 0.01,
        batch_size: int = 8,
    ) -> Attributions:
        """What moves the score of samples: by feature, cell and group of cells.

        Integrated gradients carry a score back to the features of the cells, along the straight path from a baseline. They
        explain the score and do not validate it: for how well a label is predicted see :func:`scset_tools.tl.probe`, for
        whether other seeds and labels without meaning give the same features :func:`scset_tools.model.trust_attributions`.

        Parameters
        ----------
        label_key
            Column of ``adata.obs`` with the label of each sample, or of what the model was fine-tuned to. A class of a label that
            the model learned, if no column has its name, stands for that label with this ``target``.
        target
            Class, or classes, whose log-odds against all other classes are explained. Default: all. They share the forward
            passes of the network. A label of levels or numbers has one score and no target.
        reference
            Class to compare with, for instance ``"healthy"``: log-odds are against this class alone.
        head
            ``"finetuned"`` explains the head that predicts ``label_key``, as ``predict`` does; ``"probe"`` a linear model that
            is fitted to the frozen vectors of all labelled samples. Default: the head if there is one.
        baseline
            Where the path begins: ``"mean"``, the mean cell (of all registered cells, within the batch of each cell, where the model keeps it;
            otherwise the mean over samples of their mean cell), ``"zeros"``, or ``"reference"``, the mean cell of the samples
            of the reference. Default: zeros for models of counts, otherwise the mean.
        groupby
            Column of ``adata.obs`` with the group of each cell, for instance its type. Where contributions by sample, group, class and feature
            would take more than 2 GiB, they are summed over samples as they are found; only ``by_sample(group=)`` needs them singly.
        method
            ``"integrated_gradients"``, ``"gradient_x_input"`` (first order: the gradient times the distance from the baseline), or
            ``"attention"``: the weight of each cell, and for features the weighted distance from the baseline.
        features
            Names of the features to keep in the result. Default: all.
        samples
            Names of the samples to attribute to. Default: all.
        adata
            Cells to attribute to. Default: the registered AnnData.
        n_cells
            Most cells of a sample, drawn from a seed. None: all.
        n_steps
            Gradients to average.
        tolerance
            While the completeness error of a sample is above this, its steps are doubled, up to 16 times ``n_steps``: scores have
            kinks that more steps resolve. What is left is reported.
        batch_size
            Number of samples at a time.

        Returns
        -------
        :class:`~scset_tools.model.Attributions`.

        Raises
        ------
        KeyError
            If a column, feature or sample is not there.
        ValueError
            If there are fewer than two classes, a class is not one of the label, or there is no such head.

        Warns
        -----
        UserWarning
            If the model is not trained: then random weights are explained.
        """
        with self._question(
            adata,
            label_key,
            target=target,
            reference=reference,
            head=head,
            baseline=baseline,
            method=method,
            samples=samples,
            n_cells=n_cells,
            batch_size=batch_size,
        ) as question:
            return attribute(question, groupby=groupby, features=features, precision=Precision(n_steps, tolerance))

    def annotate_attributions(
        self, label_key: str, *, adata: AnnData | None = None, key_added: str | None = None, **kwargs: Any
    ) -> None:
        """Write the attributions to a label; see :meth:`get_attributions`.

        Parameters
        ----------
        label_key
            Column of ``adata.obs`` with the label of each sample.
        adata
            Cells to annotate. Default: the registered AnnData.
        key_added
            Name of what is written; with several classes ``"<key_added>_<class>"`` for each. Default:
            ``"<model>_attribution_<label_key>_<class>"``, for a label without classes ``"<model>_attribution_<label_key>"``.
        **kwargs
            Arguments of :meth:`get_attributions`.

        Writes
        ------
        For each class ``obs[key]`` (cells), ``var[key]`` (contrast of features, aligned by name) and with ``groupby`` ``varm[key]``
        (features x groups), float32; ``uns["<model>_attribution_<label_key>"]``, or ``uns[key_added]``: how, scores and completeness
        of each sample, and the features where the model reads ``obsm``. What no file can hold in a key (``/``) is written as in
        a web address (``%2F``).

        Raises
        ------
        ValueError
            If the model was set up with a column ``key_added``; and as for :meth:`get_attributions`.
        """
        self._require_free(key_added)
        cells = self._cells_of(self.adata if adata is None else adata)
        self.get_attributions(label_key, adata=cells, **kwargs).write(cells, key_added=key_added)
        self._give_back(cells, adata)

    def get_attribution_matrix(
        self,
        label_key: str,
        *,
        samples: Sequence[str] | str,
        target: str | None = None,
        reference: str | None = None,
        head: Literal["probe", "finetuned"] | None = None,
        baseline: Literal["mean", "zeros", "reference"] | None = None,
        adata: AnnData | None = None,
        n_cells: int | None = 1_000,
        n_steps: int = 20,
        tolerance: float = 0.01,
    ) -> AnnData:
        """Integrated gradients of every feature in every cell of some samples.

        Parameters
        ----------
        label_key, target, reference, head, baseline, adata, n_cells, n_steps, tolerance
            As for :meth:`get_attributions`, with one class to explain.
        samples
            Names of samples.

        Returns
        -------
        AnnData of the drawn cells x features with ``obs`` of these cells; ``X`` is sparse where the model reads sparse counts from a
        baseline of zeros: it is zero where they are.
        """
        names = [samples] if isinstance(samples, str) else samples
        how = {"target": target, "reference": reference, "head": head, "baseline": baseline, "n_cells": n_cells}
        with self._question(adata, label_key, samples=names, **how) as question:
            rows, x = attribution_matrix(question, Precision(n_steps, tolerance))
            obs = question.adata.obs.iloc[rows].copy()
        return AnnData(x, obs=obs, var=pd.DataFrame(index=pd.Index(self.get_var_names())))

    @contextmanager
    def _question(
        self, adata: AnnData | None, label_key: str, *, method: str = "integrated_gradients", **how: Any
    ) -> Iterator[Question]:
        """A question about cells, which are forgotten when it is answered."""
        require_options(method, how["head"], how["baseline"])
        if method == "attention":
            self._require_attention()
        self._warn_if_untrained("it explains random weights")
        with self._reading(adata) as cells:
            yield Question(self, cells, label_key, method=method, **how)

    def get_attention(self, adata: AnnData | None = None) -> pd.DataFrame:
        """Weight of each cell in the pooling of its sample.

        Parameters
        ----------
        adata
            Cells to score. Default: the registered AnnData.

        Returns
        -------
        DataFrame of shape (cells, n_heads), indexed by ``adata.obs_names``; the weights of a sample sum to 1 in each head.

        Raises
        ------
        ValueError
            If the model does not weigh cells.
        """
        self._require_attention()
        self._warn_if_untrained("its attention comes from random weights")
        with self._reading(adata) as cells:
            weights = score_cells(
                self.module,
                self._dataset(cells),
                score=self.module.attention,
                score_in_pieces=self.module.attention_in_pieces,
            )
        return pd.DataFrame(weights, index=cells.obs_names, columns=[f"head_{i}" for i in range(weights.shape[1])])

    def annotate_attention(self, adata: AnnData | None = None, *, key_added: str | None = None) -> None:
        """Write the attention on each cell, times the number of cells of its sample: 1 is as much as the average cell.

        Parameters
        ----------
        adata
            Cells to annotate. Default: the registered AnnData.
        key_added
            Default: the model's name in lower case, and ``"_attention"``.

        Writes
        ------
        ``obs[key_added]``, the mean over heads, and ``obsm[key_added]``, one column per head (float32).

        Raises
        ------
        ValueError
            If the model does not weigh cells, or was set up with a column ``key_added``.
        """
        self._require_free(key_added)
        cells = self._cells_of(adata)
        weights = self.get_attention(cells)
        codes, _ = sample_codes(_checks.require_obs(cells, self._sample_key), self._sample_key)
        n_cells = np.bincount(codes)[codes]
        write_cell_scores(cells, weights.mul(n_cells, axis=0), _keys.key(key_added or _keys.attention(self.name)))
        self._give_back(cells, adata)

    def _require_attention(self) -> None:
        reason = self.module.no_attention
        if reason is not None:
            msg = f"This {type(self).__name__} has no attention: {reason}."
            raise ValueError(msg)

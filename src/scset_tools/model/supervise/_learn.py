"""Learn labels, with the same call on every model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from scvi import settings

from scset_tools._checks import require_choice
from scset_tools._docs import docs
from scset_tools.data._splitter import SampleDataSplitter
from scset_tools.model._arguments import require_train_arguments
from scset_tools.model._saving import SavedModel
from scset_tools.model.supervise._finetune import HEADS, LEVELS, MODES, FineTuning
from scset_tools.model.supervise._fitted import FittedHead, fitted_heads
from scset_tools.model.supervise._targets import Keys, read_kinds
from scset_tools.train import TwoRatePlan

if TYPE_CHECKING:
    from anndata import AnnData

_DEFAULTS: dict[str, Any] = {
    "head": "linear",
    "n_hidden": 64,
    "n_layers": 2,
    "activation": "gelu",
    "dropout_rate": 0.1,
    "class_weight": "balanced",
    "weight_decay": 1e-2,
    "batch_size": 16,
    "n_cells": 1000,
    "lr_backbone": None,
    "lr_schedule": "cosine",
    "patience": 10,
}
"""Of fine-tuning to labels of samples."""


class LearnsLabels(SavedModel):
    """``finetune`` of every model."""

    fits_: list[dict[str, Any]] | None = None
    """What was fitted by ``finetune``, in the form that is saved."""
    finetune_history_: dict[str, pd.DataFrame] | None = None
    """Loss and metrics of the last ``finetune``, by epoch, in the form of ``history``."""

    @property
    def heads(self) -> dict[str, FittedHead]:
        """What predicts each label, with the encoder it belongs to: by ``finetune``, or by ``train`` of a model that learns labels."""
        fits = self.fits_ or []
        known = getattr(self, "_heads_of_fits", None)
        where = str(self.module.device)
        if known is None or known[0] is not fits or known[1] != (len(fits), where, id(self.module)):
            known = fits, (len(fits), where, id(self.module)), fitted_heads(fits, self.module)
            self._heads_of_fits = known
        return {**self._own_heads(), **known[2]}

    @docs.dedent
    def finetune(
        self,
        label_key: str | Sequence[str] | Mapping[str, str] | None = None,
        *,
        mode: Literal["frozen", "partial", "end_to_end"] = "frozen",
        head: Literal["linear", "mlp"] | None = None,
        level: Literal["sample", "cell"] = "sample",
        event_key: str | Mapping[str, str] | None = None,
        adata: AnnData | None = None,
        samples: Sequence[str] | None = None,
        penalty: float | None = None,
        class_weight: Literal["auto", "balanced"] | None = "auto",
        max_epochs: int | None = None,
        lr: float | None = None,
        lr_backbone: float | None = None,
        weight_decay: float | None = None,
        n_hidden: int | None = None,
        dropout_rate: float | None = None,
        batch_size: int | None = None,
        n_cells: int | None = None,
        train_size: float | None = None,
        validation_size: float | None = None,
        groups_key: str | None = None,
        stratify: bool = False,
        external_indexing: Sequence[Sequence[str]] | None = None,
        early_stopping: bool | None = None,
        checkpoint_dir: str | os.PathLike | None = None,
        seed: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        datasplitter_kwargs: dict[str, Any] | None = None,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Learn to predict labels of samples, or of cells, on frozen vectors or together with the encoder.

        The model's own weights are left as they are, so that its vectors do not change: an encoder that is fine-tuned is a copy,
        which belongs to the labels and is saved with them. It may start from trained or from random weights. Samples without a
        label are not used. Another :meth:`finetune` adds labels, or replaces those of the same name; :meth:`train` forgets them.

        Parameters
        ----------
        label_key
            Column of ``adata.obs``, several, or columns with their kind: ``"class"``, ``"ordinal"``, ``"continuous"`` or
            ``"time_to_event"``. Without a kind, ordered categories are ordinal, numbers of more than two values continuous, and all
            else classes. Default: the ``labels_key`` of the set-up.
        mode
            ``"frozen"``: the head alone is fitted. ``"partial"``: the last part of the encoder learns as well. ``"end_to_end"``:
            all of it. A linear head starts from the frozen one.
        head
            ``"linear"`` or ``"mlp"``. Default: linear for samples, an MLP for cells.
        level
            Whether labels are of samples, one value in each, or of cells.
        event_key
            Makes a column of times the time to an event: column of ``adata.obs`` that is True or 1 where the event was seen and
            False or 0 where follow-up ended before; for all columns, or by column.
        adata
            Cells with the labels. Default: the registered AnnData.
        samples
            Names of the samples to fit to, all of which need a label. Default: those that :meth:`train` did not hold out, whose
            validation samples then validate here; all labelled samples if it held out none, or if ``adata`` is given.
        penalty
            Inverse strength of the L2 penalty of a linear head on frozen vectors, which is solved to its optimum. Default: chosen
            from 0.01 to 1e6 by cross-validation within the training samples.
        class_weight
            ``"balanced"`` makes all classes count the same, whatever their numbers in the training samples. ``"auto"``: for
            samples, not for cells.
        max_epochs
            Most passes over the training samples. Default: 50, or what makes 400 steps of an encoder with random weights; of
            cells 100 for the head alone and otherwise 20.
        lr, lr_backbone
            Learning rate, and that of the encoder if it is another. Default: 1e-3 for a head alone or an untrained model, otherwise 1e-4.
        weight_decay, n_hidden, dropout_rate
            Of AdamW, and of the MLP.
        batch_size
            Number of samples, or cells, in a batch. The hazards of a time to an event are compared within the batch.
        n_cells
            Most cells of a sample in a step, drawn anew each epoch, if the encoder learns.
        train_size, validation_size, groups_key, stratify, external_indexing
            Split of the labelled samples, as for :meth:`train`; ``stratify`` by the first label with classes. ``groups_key`` also keeps
            groups whole in the choice of the penalty.
        early_stopping
            Whether to stop when ``early_stopping_monitor`` (``loss_validation``) has not improved for ``early_stopping_patience``
            epochs. Default: if there are validation samples. With validation samples the weights of the best epoch are kept.
        checkpoint_dir
            Directory for the state of training, as for :meth:`train`.
        seed
            Seed of the split, of the head and of every draw. Default: ``scvi.settings.seed``, or 0.
        accelerator, devices, datasplitter_kwargs, plan_kwargs, **trainer_kwargs
            As for :meth:`train`.

        Raises
        ------
        ValueError
            If there is nothing to learn from, a named sample has no label, or the model has no vectors of cells or no part to train.
        KeyError
            If a column or a sample is not there.
        """
        require_choice("mode", mode, MODES)
        require_choice("level", level, LEVELS)
        require_train_arguments(
            type(self),
            {**trainer_kwargs, "plan_kwargs": plan_kwargs, "datasplitter_kwargs": datasplitter_kwargs},
            method="finetune",
            plan=TwoRatePlan,
            splitter=SampleDataSplitter if mode == "frozen" else self._supervised_splitter(level)[0],
        )
        if level == "cell" and not hasattr(self.module, "embed_cells"):
            msg = f"{type(self).__name__} has vectors of samples, not of cells: level='cell' is for SelfGuidedMAE."
            raise ValueError(msg)
        given = {
            "head": head,
            "n_hidden": n_hidden,
            "dropout_rate": dropout_rate,
            "weight_decay": weight_decay,
            "batch_size": batch_size,
            "n_cells": n_cells,
            "lr": lr,
            "lr_backbone": lr_backbone,
        }
        use = {**_DEFAULTS, **self._finetune_defaults(mode, level), **{k: v for k, v in given.items() if v is not None}}
        require_choice("head", use["head"], HEADS)
        if class_weight not in ("auto", "balanced", None):
            msg = f"class_weight={class_weight!r} is not one of ['auto', 'balanced', None]."
            raise ValueError(msg)
        if class_weight != "auto":
            use["class_weight"] = class_weight
        if label_key is None:
            event_key = event_key or self.registry["setup_args"].get("event_key")
        keys = self._label_keys(label_key)
        if mode == "frozen":
            self._warn_if_untrained("the head is fitted to random vectors")
        if adata is None and self.adata is None:
            msg = "The model has no AnnData to learn from: load it with one, load(directory, adata=adata), or give adata=."
            raise ValueError(msg)
        split = {
            "train_size": train_size,
            "validation_size": validation_size,
            "external_indexing": external_indexing,
        }
        with self._reading(adata) as cells:
            task = FineTuning(
                self,
                cells,
                read_kinds(cells.obs, keys, event_key),
                mode=mode,
                level=level,
                samples=samples,
                split=self._finetune_split(samples, is_own=adata is None, level=level, given=split),
                groups_key=groups_key,
                stratify=stratify,
                use=use,
                seed=(settings.seed or 0) if seed is None else seed,
            )
            task.fit(
                penalty,
                max_epochs=max_epochs,
                early_stopping=early_stopping,
                checkpoint_dir=None if checkpoint_dir is None else Path(checkpoint_dir),
                splitter_kwargs=dict(datasplitter_kwargs or {}),
                plan_kwargs=dict(plan_kwargs or {}),
                trainer_kwargs={"accelerator": accelerator, "devices": devices, **trainer_kwargs},
            )
        fit = task.packed()
        new = {packed["name"] for packed in fit["heads"]}
        kept = [{**f, "heads": [h for h in f["heads"] if h["name"] not in new]} for f in self.fits_ or []]
        self.fits_ = [*(f for f in kept if f["heads"]), fit]
        self.finetune_history_ = task.history

    # ---- what a model may say of itself

    def _own_heads(self) -> dict[str, FittedHead]:
        """Heads that ``train`` itself fits."""
        return {}

    def _finetune_defaults(self, mode: str, level: str) -> dict[str, Any]:
        """Arguments of ``finetune`` that differ in this model."""
        return {"lr": 1e-3 if mode == "frozen" or not self.is_trained_ else 1e-4}

    def _supervised_splitter(self, level: str) -> tuple[type, dict[str, Any]]:
        """Splitter that loads samples, or cells, to learn labels from, and its further arguments."""
        return SampleDataSplitter, {}

    # ---- shared

    def _head_of(self, label_key: str) -> tuple[Any, Any] | None:
        """Module and head that predict a label of samples, for explanations; None if there are none."""
        fitted = self.heads.get(label_key)
        return None if fitted is None or fitted.level != "sample" else (fitted.module, fitted.head.eval())

    def _head_with_class(self, name: str) -> str | None:
        """The label of a head that has this class, if one has."""
        return next((label for label, fitted in self.heads.items() if name in fitted.classes), None)

    def _label_keys(self, label_key: Keys | None) -> Keys:
        keys = self.registry["setup_args"].get("labels_key") if label_key is None else label_key
        if keys is None:
            msg = "Name the column of labels: finetune('disease'). None was registered as labels_key."
            raise ValueError(msg)
        return keys

    def _finetune_split(
        self, samples: Sequence[str] | None, *, is_own: bool, level: str, given: dict[str, Any]
    ) -> dict[str, Any]:
        """How to split: as given, as ``train`` did, or not at all."""
        if any(v is not None for v in given.values()) or samples is not None:
            return given
        held_out = [getattr(self, f"{part}_samples_", None) for part in ("validation", "test")]
        if is_own and any(held_out):
            return {**given, "external_indexing": [self.train_samples_, *held_out]}
        return {**given, "train_size": 0.9} if level == "cell" else given

"""Cell types: fine-tuning and prediction, the supervised half of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi import settings

from scset_tools import _checks, _keys
from scset_tools.model._inference import score_cells
from scset_tools.model._mixin import ModelMixin
from scset_tools.model._training import run_training
from scset_tools.model.selfguided._finetune import MODES, cell_type_codes, fit_head, require_labelled
from scset_tools.model.selfguided._head import CellTypeHead

if TYPE_CHECKING:
    from scset_tools.data._cells import GeneDataset

LR: tuple[float, float | None] = (1e-3, None)
LR_OF_CHECKPOINT: tuple[float, float | None] = (1e-4, 1e-5)
"""Learning rates of what is new and of the backbone (paper, section 4 and appendix C)."""
N_STANDARDIZE = 1024
"""Cells whose vectors give the head its location and scale before partial fine-tuning."""


class CellTypeMixin(ModelMixin):
    """What :class:`~scset_tools.model.SelfGuidedMAE` does with types of cells."""

    cell_types_: list[str] | None = None
    cell_type_key_: str | None = None
    finetune_history_: pd.DataFrame | None = None
    checkpoint_: dict[str, Any] | None

    def finetune(
        self,
        cell_type_key: str,
        mode: Literal["partial", "linear_probe"] = "partial",
        *,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        lr_backbone: float | None = None,
        weight_decay: float = 5e-4,
        patience: int = 5,
        external_indexing: Sequence[Sequence[str]] | None = None,
        train_size: float | None = None,
        validation_size: float | None = None,
        groups_key: str | None = None,
        seed: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        **trainer_kwargs: Any,
    ) -> None:
        """Learn to classify cells, after (or without) pretraining.

        Latents, adapter and decoder stay as they are in both modes (paper, section 4).

        Parameters
        ----------
        cell_type_key
            Column of ``adata.obs`` with the type of each cell. Cells where it is missing teach nothing.
        mode
            ``"partial"`` also trains the embeddings of values and genes and the last block of the encoder;
            ``"linear_probe"`` the head alone, on vectors that are computed once.
        max_epochs
            Most passes over the training cells. Default: 20 for ``"partial"``, 100 for ``"linear_probe"``.
        batch_size
            Number of cells in a batch. Default: 64 for ``"partial"``, 256 for ``"linear_probe"``.
        lr
            Learning rate. Default: the paper's 1e-4 for a model from a checkpoint of scFoundation, and 1e-3 for a model of your own,
            which has fewer cells and steps to learn from.
        lr_backbone
            Of ``"partial"``: learning rate of the embeddings and the last block. Default: 1e-5 if they come from a checkpoint, and
            otherwise ``lr``.
        weight_decay
            Decoupled weight decay.
        patience
            Epochs without a lower validation loss after which training stops. The weights of the best epoch are kept by
            ``"linear_probe"``, those of the last one by ``"partial"``. Without validation samples nothing stops it.
        external_indexing, train_size, validation_size, groups_key
            Split of the samples, as for :meth:`train`. Default: the one of :meth:`train`, so that no cell of a test sample was
            pretrained on; where it held nothing out, 0.9 and the rest.
        seed
            Seed of the head, of the split and of the order of cells. Default: ``scvi.settings.seed``, or 0.
        accelerator, devices, **trainer_kwargs
            Of the trainer, for ``"partial"``.
        """
        if mode not in MODES:
            msg = f"mode={mode!r} is not one of {_checks.first(MODES)}."
            raise ValueError(msg)
        if self.adata is None:
            msg = "The model has no AnnData to train on: load it with one, load(directory, adata=adata)."
            raise ValueError(msg)
        rates = LR if self.checkpoint_ is None else LR_OF_CHECKPOINT
        lr = rates[0] if lr is None else lr
        lr_backbone = rates[1] if lr_backbone is None else lr_backbone
        codes, classes = cell_type_codes(self.adata, cell_type_key)
        seed = (settings.seed or 0) if seed is None else seed
        if external_indexing is None and train_size is None and validation_size is None:
            held_out = [getattr(self, f"{part}_samples_", None) for part in ("validation", "test")]
            if any(held_out):
                external_indexing = [self.train_samples_, *held_out]
            else:
                train_size = 0.9
        splitter_kwargs = {
            "external_indexing": external_indexing,
            "train_size": train_size,
            "validation_size": validation_size,
            "groups_key": groups_key,
            "seed": seed,
            "batch_size": batch_size or 64,
            "cell_labels": codes,
            **self._read,
        }
        splitter = self._data_splitter_cls(self.adata_manager, **splitter_kwargs)
        require_labelled(codes, splitter.train_idx, classes=classes, key=cell_type_key)
        self.module.head = None  # of an earlier fine-tuning, perhaps to other classes
        if mode == "linear_probe":
            head, history = fit_head(
                torch.from_numpy(self._cell_scores(self.adata, "embed_cells")),
                codes,
                train=splitter.train_idx,
                validation=splitter.val_idx,
                n_classes=len(classes),
                lr=lr,
                weight_decay=weight_decay,
                batch_size=batch_size or 256,
                max_epochs=100 if max_epochs is None else max_epochs,
                patience=patience,
                seed=seed,
            )
        else:
            with self._seeded(seed):
                head = CellTypeHead(self.module.n_output, len(classes))
            head.standardize(self._some_vectors(splitter.train_idx, seed))
        self.module.head = head.to(device=self.module.device, dtype=self.module.encoder.dtype)
        self.cell_types_, self.cell_type_key_ = [str(c) for c in classes], cell_type_key
        if mode == "partial":
            history = self._train_partially(
                splitter_kwargs,
                max_epochs=20 if max_epochs is None else max_epochs,
                plan_kwargs={"lr": lr, "lr_backbone": lr_backbone, "weight_decay": weight_decay},
                trainer_kwargs={
                    "accelerator": accelerator,
                    "devices": devices,
                    "gradient_clip_val": 1.0,
                    "early_stopping_patience": patience,
                    **trainer_kwargs,
                },
                early_stopping=bool((codes[splitter.val_idx] >= 0).any()),
            )
        self.finetune_history_ = history

    @torch.inference_mode()
    def _some_vectors(self, rows: np.ndarray, seed: int) -> torch.Tensor:
        """Vectors of some of the cells in these rows: enough for a location and a scale."""
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:N_STANDARDIZE])
        self.module.eval()
        dataset = cast("GeneDataset", self._dataset(self.adata))
        return self.module.embed_cells(dataset.cells(rows).to(self.module.device)).cpu()

    def _train_partially(self, splitter_kwargs: dict[str, Any], **kwargs: Any) -> pd.DataFrame:
        """Train by scvi's trainer; what describes the pretraining stays as it was."""
        kept = {
            name: getattr(self, name, None)
            for name in ("history_", "is_trained_", "train_samples_", "validation_samples_", "test_samples_")
        }
        self.history_, self.is_trained_ = None, False
        self.module.learn_to_classify()
        try:
            run_training(self, checkpoint_dir=None, splitter_kwargs=splitter_kwargs, **kwargs)
            history: Any = self.history_  # written by the training
            return pd.concat([frame.iloc[:, 0] for frame in history.values()], axis=1)
        finally:
            self.module.learn_to_reconstruct()
            if kept["train_samples_"] is not None:
                for name, value in kept.items():
                    setattr(self, name, value)
            self.is_trained_ = True

    def predict_cell_types(self, adata: AnnData | None = None) -> pd.Series:
        """The most probable type of each cell.

        Parameters
        ----------
        adata
            Cells to classify; they need not be those of training. Default: the registered AnnData.

        Returns
        -------
        Series of names of cell types, indexed by ``adata.obs_names``.
        """
        probabilities = self.predict_cell_type_proba(adata)
        names = probabilities.columns.to_numpy()[probabilities.to_numpy().argmax(1)]
        return pd.Series(names, index=probabilities.index, name=self.cell_type_key_)

    def predict_cell_type_proba(self, adata: AnnData | None = None) -> pd.DataFrame:
        """Probability of each cell type.

        Parameters
        ----------
        adata
            Cells to classify. Default: the registered AnnData.

        Returns
        -------
        DataFrame of shape (cells, classes), float32, indexed by ``adata.obs_names``; rows sum to 1.
        """
        if self.module.head is None:
            msg = "This SelfGuidedMAE knows no cell types: call finetune(cell_type_key) first."
            raise ValueError(msg)
        adata = self._validate_anndata(adata)
        try:
            scores = self._cell_scores(adata, "classify_cells")
        finally:
            self._release(adata)
        return pd.DataFrame(scores, index=adata.obs_names, columns=self.cell_types_)

    def annotate_cell_types(self, adata: AnnData | None = None, *, key_added: str | None = None) -> None:
        """Write the most probable type of each cell; see :meth:`predict_cell_types`.

        Parameters
        ----------
        adata
            Cells to annotate. Default: the registered AnnData.
        key_added
            Default: ``"selfguidedmae_cell_type"``.

        Writes
        ------
        ``obs[key_added]``, categorical.
        """
        cells = self._cells_of(adata)
        names = self.predict_cell_types(cells).to_numpy()
        cells.obs[_keys.key(key_added or _keys.of_model(self.name, "cell_type"))] = pd.Categorical(
            names, categories=self.cell_types_
        )

    def _cell_scores(self, adata: AnnData, score: str) -> np.ndarray:
        return score_cells(
            self.module,
            self._dataset(adata),
            score=getattr(self.module, score),
            score_in_pieces=getattr(self.module, f"{score}_in_pieces"),
        )

"""A call of ``finetune``: labels are read and split, heads are made, and solved or trained."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from scset_tools.model._base_module import Batch, SampleModule
from scset_tools.model._fingerprint import digest
from scset_tools.model._inference import represent_samples, score_cells
from scset_tools.model._init_params import seeded
from scset_tools.model._training import MONITOR, default_max_epochs, run_training
from scset_tools.model.supervise._fitted import changed, pack_head, state_of
from scset_tools.model.supervise._heads import Head, TimeToEventHead, make_head
from scset_tools.model.supervise._labels_of import read_groups, read_labels, split_labelled
from scset_tools.model.supervise._linear import fit_linear
from scset_tools.model.supervise._module import SupervisedModule, encoder_parameters
from scset_tools.model.supervise._vectors import VectorBatch, VectorSplitter
from scset_tools.train import KeepBest, TwoRatePlan

MODES = ("frozen", "partial", "end_to_end")
HEADS = ("linear", "mlp")
LEVELS = ("sample", "cell")
N_STANDARDIZE = 1024
"""Cells whose vectors give a head on cells its location and scale before an encoder is fine-tuned."""


def vectors_of(
    module: Any, dataset: Any, level: str, *, positions: np.ndarray | None = None, batch_size: int = 16
) -> np.ndarray:
    """Vectors of samples, zero for those that are not asked for, or of all cells; float32."""
    if level == "cell":
        return score_cells(module, dataset, score=module.embed_cells, score_in_pieces=module.embed_cells_in_pieces)
    positions = np.arange(len(dataset)) if positions is None else positions
    found = represent_samples(module, dataset, positions, batch_size=batch_size)
    out = np.zeros((len(dataset), found.shape[1]), dtype=np.float32)
    out[positions] = found
    return out


class Trained:
    """A model in the place of which its encoder and heads are trained; everything else of it is the model's.

    Parameters
    ----------
    model
        The model.
    module
        What is trained.
    manager
        Of the AnnData with the labels.
    splitter
        Class of the splitter.
    """

    def __init__(self, model: Any, module: SupervisedModule, *, manager: Any, splitter: type) -> None:
        self._of, self.module, self.adata_manager = model, module, manager
        self._data_splitter_cls, self._training_plan_cls = splitter, TwoRatePlan
        self.history_: Any = None
        self.is_trained_, self.stopped_after_, self.start_, self.run_ = False, None, None, None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)

    def _before_training(self, module: SupervisedModule, splitter: Any) -> None:
        """What the encoder that learns takes from the samples; the model's own stays as it is."""
        if module.encoder is not None:
            self._of._before_training(module.encoder, splitter)

    def _after_training(self, splitter: Any) -> None:
        """Nothing: heads were learned on vectors as they are."""

    def to_device(self, device: Any) -> None:
        """Move what is trained."""
        self.module.to(device)


class FineTuning:
    """Heads of some labels, on frozen vectors or together with a part or all of a copy of the encoder.

    Parameters
    ----------
    model
        The model.
    adata
        Cells with the labels, which the model has checked.
    kinds
        Column to kind and column of the event.
    mode, level, samples, groups_key, stratify, seed
        As for ``finetune``.
    split
        Its arguments that name parts or their sizes.
    use
        Its arguments that have defaults by model, mode and level.
    """

    def __init__(
        self,
        model: Any,
        adata: Any,
        kinds: Mapping[str, tuple[str, str | None]],
        *,
        mode: str,
        level: str,
        samples: Sequence[str] | None,
        split: dict[str, Any],
        groups_key: str | None,
        stratify: bool,
        use: dict[str, Any],
        seed: int,
    ) -> None:
        self.model, self.mode, self.level, self.use, self.seed = model, mode, level, use, seed
        self.is_cell, self.is_frozen = level == "cell", mode == "frozen"
        self.manager, self.dataset = model._manager_of(adata), model._dataset(adata)
        index = self.dataset.index
        self.labels = read_labels(
            adata, self.dataset, kinds, is_cell=self.is_cell, sample_key=model._sample_key, samples=samples
        )
        has_label = np.any([one.is_known for one in self.labels], axis=0)
        if self.is_cell:
            has_label = np.array([has_label[index.cells(i)].any() for i in range(len(index))])
        self.groups = read_groups(adata, groups_key, sample_key=model._sample_key, index=index)
        classed = [one for one in self.labels if one.target.classes]
        self.parts = split_labelled(
            index,
            np.intersect1d(index.positions(samples), np.flatnonzero(has_label)),
            **split,
            groups=self.groups,
            strata=np.asarray(classed[0].values) if stratify and classed and not self.is_cell else None,
            seed=seed,
        )
        # by name, so that what is drawn of cells does not depend on the order of rows
        self.items = [self.dataset.by_name.cells_of(part) if self.is_cell else part for part in self.parts]
        for one in self.labels:
            one.require_classes(self.items[0], adata.obs_names if self.is_cell else index.names)
        self.arguments = {"n_layers": 0}
        if use["head"] == "mlp":
            self.arguments = {k: use[k] for k in ("n_layers", "n_hidden", "activation", "dropout_rate")}
        self.heads: list[Head] = []
        self.penalties: list[float] = []
        self.encoder: SampleModule | None = None
        self.history: dict[str, pd.DataFrame] = {}

    def fit(self, penalty: float | None, **training: Any) -> None:
        """Make heads, and solve or train them.

        Parameters
        ----------
        penalty
            As for ``finetune``.
        **training
            Of :meth:`_train`.
        """
        vectors, seen = self._first_vectors()
        self._make_heads(vectors, seen)
        # a linear head starts from its optimum on frozen vectors; too many cells to embed before they change
        if self.use["head"] == "linear" and (self.is_frozen or not self.is_cell):
            self.penalties = self._solve(vectors, penalty)
        for head in self.heads:
            head.to(next(self.model.module.parameters()).dtype)
        if self.penalties and self.is_frozen:
            self.history = self._history(vectors)
        else:
            self._train(vectors if self.is_frozen else None, **training)
        if any(isinstance(head, TimeToEventHead) for head in self.heads):
            if self.encoder is not None:
                vectors = vectors_of(self.encoder, self.dataset, self.level, positions=self.parts[0])
            self._set_baselines(vectors)

    def packed(self) -> dict[str, Any]:
        """The fit in plain types, to be saved with the model."""
        return {
            "heads": [
                pack_head(one.target, head, self.arguments) for one, head in zip(self.labels, self.heads, strict=True)
            ],
            "encoder": None if self.encoder is None else changed(self.encoder, self.model.module),
            "mode": self.mode,
            "level": self.level,
            "samples": [str(name) for name in self.dataset.index.names[self.parts[0]]],
            "penalties": [float(p) for p in self.penalties],
        }

    # ---- heads

    def _first_vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """Vectors of the encoder as it is, and the numbers of those that standardise the heads."""
        if self.is_frozen or not self.is_cell:
            known = np.concatenate(self.parts[:2])
            return vectors_of(self.model.module, self.dataset, self.level, positions=known), self.items[0]
        seen = np.sort(np.random.default_rng(self.seed).permutation(self.items[0])[:N_STANDARDIZE])
        module = self.model.module.eval()
        with torch.inference_mode():
            found = module.embed_cells(self.dataset.cells(seen).to(module.device)).float().cpu().numpy()
        vectors = np.zeros((self.dataset.reader.n_rows, found.shape[1]), np.float32)
        vectors[seen] = found
        return vectors, seen

    def _make_heads(self, vectors: np.ndarray, seen: np.ndarray) -> None:
        """A head for each label, standardised by the vectors ``seen`` and with the labels of training seen."""
        with seeded(self.seed):
            for one in self.labels:
                head = make_head(one.target.kind, vectors.shape[1], classes=one.target.classes, **self.arguments)
                head.standardize(torch.from_numpy(vectors[seen]))
                head.prepare(one.known(self.items[0]), balance=self.use["class_weight"] == "balanced")
                self.heads.append(head)

    def _solve(self, vectors: np.ndarray, penalty: float | None) -> list[float]:
        """Linear heads at the optimum of their penalised likelihood on frozen vectors; the penalties."""
        groups = self.dataset.sample_of_row if self.is_cell else self.groups
        found = []
        for one, head in zip(self.labels, self.heads, strict=True):
            rows = self.items[0][one.is_known[self.items[0]]]
            y = one.tensor()[torch.from_numpy(rows)].numpy()
            of_group = None if groups is None else groups[rows]
            found.append(fit_linear(head, vectors[rows], y, penalty=penalty, groups=of_group, seed=self.seed))
        return found

    @torch.no_grad()
    def _set_baselines(self, vectors: np.ndarray) -> None:
        """Baseline hazards of the heads of times to an event, from the vectors of training."""
        for one, head in zip(self.labels, self.heads, strict=True):
            if isinstance(head, TimeToEventHead):
                rows = torch.from_numpy(self.items[0][one.is_known[self.items[0]]])
                head.eval().cpu().set_baseline(torch.from_numpy(vectors)[rows].to(head.center), one.tensor()[rows])

    # ---- training

    def _module(self, encoder: Any, **how: Any) -> SupervisedModule:
        names, labels = [one.target.name for one in self.labels], [one.tensor() for one in self.labels]
        return SupervisedModule(encoder, self.heads, names, labels=labels, **how)

    @torch.no_grad()
    def _history(self, vectors: np.ndarray) -> dict[str, pd.DataFrame]:
        """Loss and metrics of heads that were solved, in the form of a training of one epoch."""
        module = self._module(None, embed=None, number=attrgetter("number"))
        out = {}
        for part, numbers in zip(("train", "validation"), self.items, strict=False):
            if not len(numbers):
                continue
            number = torch.from_numpy(numbers)
            loss = module.loss(VectorBatch(torch.from_numpy(vectors)[number], number))
            for name, value in {"loss": loss.loss, **loss.extra_metrics}.items():
                column = f"{name}_{part}"
                out[column] = pd.DataFrame({column: [float(value)]}, index=pd.RangeIndex(1, name="epoch"))
        return out

    def _train(
        self,
        vectors: np.ndarray | None,
        *,
        max_epochs: int | None,
        early_stopping: bool | None,
        checkpoint_dir: Path | None,
        splitter_kwargs: dict[str, Any],
        plan_kwargs: dict[str, Any],
        trainer_kwargs: dict[str, Any],
    ) -> None:
        """Train the heads on vectors, or with a copy of the encoder, by the trainer."""
        use, is_cell = self.use, self.is_cell
        if vectors is not None:
            module = self._module(self.model.module, embed=None, number=attrgetter("number"))
            splitter: type = VectorSplitter
            read: dict[str, Any] = {"vectors": vectors, "level": self.level}
        else:
            self.encoder = copy.deepcopy(self.model.module)
            embed = _embed_cells if is_cell else _represent
            set_trainable(self.encoder, self.mode, embed=embed, batch=self._some())
            module = self._module(self.encoder, embed=embed, number=attrgetter("rows" if is_cell else "sample"))
            splitter, read = self.model._supervised_splitter(self.level)
        trained = Trained(self.model, module, manager=self.manager, splitter=splitter)
        trainer_kwargs = {"gradient_clip_val": 1.0, "early_stopping_patience": use["patience"], **trainer_kwargs}
        if len(self.parts[1]):
            monitor = trainer_kwargs.get("early_stopping_monitor", MONITOR)
            best = KeepBest(monitor, mode=trainer_kwargs.get("early_stopping_mode", "min"))
            trainer_kwargs = {**trainer_kwargs, "callbacks": [*(trainer_kwargs.get("callbacks") or []), best]}
        if early_stopping is None:
            early_stopping = any(one.has_loss(self.items[1]) for one in self.labels)
        run_training(
            trained,
            max_epochs=max_epochs or self._default_epochs(),
            early_stopping=early_stopping,
            checkpoint_dir=checkpoint_dir,
            splitter_kwargs={
                "batch_size": use["batch_size"],
                "n_cells": None if self.is_frozen or is_cell else use["n_cells"],
                "seed": self.seed,
                **read,
                **splitter_kwargs,
                "external_indexing": [[str(n) for n in self.dataset.index.names[part]] for part in self.parts],
            },
            plan_kwargs={k: use[k] for k in ("lr", "lr_backbone", "weight_decay", "lr_schedule")} | plan_kwargs,
            trainer_kwargs=trainer_kwargs,
            about=self._about(),
        )
        part: Any
        for part in (*self.heads, *([] if self.encoder is None else [self.encoder])):
            part.eval()
        self.history = trained.history_

    def _about(self) -> dict[str, Any]:
        """What tells this fit from others of the same model and cells: labels, heads, and the weights that it starts from."""
        own, names = self.model.module, self.dataset.index.names
        of_label = {
            one.target.name: [one.target.kind, digest(one.values)]
            if self.is_cell
            else {str(name): str(value) for name, value in zip(names, one.values, strict=True)}
            for one in self.labels
        }
        about = {
            "model": type(self.model).__name__,
            "labels": of_label,
            "arguments of finetune": {
                "mode": self.mode,
                "level": self.level,
                "class_weight": self.use["class_weight"],
                **self.arguments,
            },
            "frozen parts": own.frozen,
        }
        if self.is_frozen or self.model.is_trained_:  # random weights without a seed are others in each process
            about["checksum of the encoder"] = digest(*(v.double() for v in state_of(own).values()))
        return about

    def _some(self) -> Batch:
        """A few samples, or cells, of training."""
        return self.dataset.cells(self.items[0][:4]) if self.is_cell else self.dataset[0, self.parts[0][:2].tolist()]

    def _default_epochs(self) -> int:
        """50 epochs; as many as make 400 steps of an encoder from random weights; of cells 100 for a head alone, otherwise 20."""
        if self.is_cell:
            return 100 if self.is_frozen else 20
        n_batches = -(-len(self.items[0]) // self.use["batch_size"])
        is_new = not self.model.is_trained_ and not self.is_frozen
        return max(50, default_max_epochs(400, n_batches)) if is_new else 50


def _represent(module: Any, batch: Batch) -> torch.Tensor:
    return module.represent(batch)


def _embed_cells(module: Any, batch: Batch) -> torch.Tensor:
    return module.embed_cells(batch)


def set_trainable(module: Any, mode: str, *, embed: Any, batch: Batch) -> None:
    """Let the parameters that the vectors depend on learn: all of them, or with ``"partial"`` those the module names."""
    module.requires_grad_(requires_grad=True)
    modes = {part: part.training for part in module.modules()}
    used = encoder_parameters(module.eval(), embed(module, batch.to(module.device)))
    for part, is_training in modes.items():
        part.training = is_training
    if mode == "partial":
        of_parts = {id(p) for part in module.partial_modules() for p in part.parameters()}
        if not of_parts:
            msg = (
                f"{type(module).__name__} names no part of its encoder to train with mode='partial': use 'end_to_end'."
            )
            raise ValueError(msg)
        used = [p for p in used if id(p) in of_parts]
    frozen = {id(p) for name in module.frozen for p in module.named_parts()[name].parameters()}
    if frozen and all(id(p) in frozen for p in used):
        msg = f"freeze={list(module.frozen)} leaves nothing to train with mode={mode!r}: free a part (freeze), or use mode='frozen'."
        raise ValueError(msg)
    used = [p for p in used if id(p) not in frozen]
    module.requires_grad_(False)  # noqa: FBT003
    for p in used:
        p.requires_grad_(True)  # noqa: FBT003

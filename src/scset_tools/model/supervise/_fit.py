"""Fit heads to labels: on frozen vectors, or together with a part or all of the encoder."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from scset_tools import _checks
from scset_tools.data._dataset import SampleDataset
from scset_tools.data._split import split_samples
from scset_tools.model._base_module import Batch, SampleModule
from scset_tools.model._inference import represent_samples, score_cells
from scset_tools.model._init_params import seeded
from scset_tools.model._training import MONITOR, default_max_epochs, run_training
from scset_tools.model.supervise._fitted import changed, pack_head
from scset_tools.model.supervise._heads import Head, TimeToEventHead, make_head
from scset_tools.model.supervise._linear import fit_linear
from scset_tools.model.supervise._module import SupervisedModule, encoder_parameters
from scset_tools.model.supervise._targets import Target, is_known
from scset_tools.model.supervise._vectors import VectorSplitter
from scset_tools.train import KeepBest, TwoRatePlan

MODES = ("frozen", "partial", "end_to_end")
HEADS = ("linear", "mlp")
LEVELS = ("sample", "cell")
N_STANDARDIZE = 1024
"""Cells whose vectors give a head on cells its location and scale before an encoder is fine-tuned."""


@dataclass(frozen=True)
class Labels:
    """Labels of all samples, or of all cells, of an AnnData."""

    target: Target
    values: np.ndarray
    """Codes, numbers, or times and events, by number of the sample or row of the cell."""

    @property
    def is_known(self) -> np.ndarray:
        """Which are not missing, (n,)."""
        return is_known(self.values, self.target.kind)

    def tensor(self) -> torch.Tensor:
        """The values as a module reads them."""
        return torch.from_numpy(np.asarray(self.values, np.int64 if self.target.classes else np.float64))


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
        self.is_trained_, self.stopped_after_ = False, None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)

    def _before_training(self, module: SupervisedModule, splitter: Any) -> None:
        """What the encoder that learns takes from the samples; the model's own stays as it is."""
        if module.encoder is not None:
            self._of._before_training(module.encoder, splitter)

    def to_device(self, device: Any) -> None:
        """Move what is trained."""
        self.module.to(device)


def represent(module: Any, batch: Batch) -> torch.Tensor:
    """Vectors of samples."""
    return module.represent(batch)


def embed_cells(module: Any, batch: Batch) -> torch.Tensor:
    """Vectors of cells."""
    return module.embed_cells(batch)


def vectors_of(
    module: SampleModule,
    dataset: SampleDataset,
    level: str,
    *,
    positions: np.ndarray | None = None,
    batch_size: int = 16,
) -> np.ndarray:
    """Vectors of samples, zero for those that are not asked for, or of all cells; float32."""
    if level == "cell":
        cells: Any = module
        return score_cells(module, dataset, score=cells.embed_cells, score_in_pieces=cells.embed_cells_in_pieces)
    positions = np.arange(len(dataset)) if positions is None else positions
    found = represent_samples(module, dataset, positions, batch_size=batch_size)
    out = np.zeros((len(dataset), found.shape[1]), dtype=np.float32)
    out[positions] = found
    return out


def split_labelled(
    index: Any,
    positions: np.ndarray,
    *,
    train_size: float | None,
    validation_size: float | None,
    external_indexing: Sequence[Sequence[str]] | None,
    groups: np.ndarray | None,
    strata: np.ndarray | None,
    seed: int,
) -> list[np.ndarray]:
    """Numbers of the training, validation and test samples among those with a label."""
    if external_indexing is not None:
        parts = [
            index.positions(part) if part is not None and len(part) else np.zeros(0, np.int64)
            for part in external_indexing
        ]
        parts = [part[np.isin(part, positions)] for part in (parts + [np.zeros(0, np.int64)] * 3)[:3]]
        if not len(parts[0]):
            msg = "None of the training samples that external_indexing names (or that train() was given) has a label to learn from."
            raise ValueError(msg)
        return parts
    if train_size is None and validation_size is None:
        return [positions, positions[:0], positions[:0]]
    found = split_samples(
        len(positions),
        1 - (validation_size or 0.0) if train_size is None else train_size,
        validation_size,
        groups=None if groups is None else groups[positions],
        strata=None if strata is None else strata[positions],
        rng=seed,
    )
    return [positions[part] for part in found]


def require_classes(labels: Labels, train: np.ndarray, names: Sequence[Any]) -> None:
    """Raise ValueError unless each class that occurs has a label in training, and there are two at least."""
    target, values = labels.target, labels.values
    known = values[train][labels.is_known[train]]
    if not len(known):
        msg = f"No training sample has a value of {target.name!r}. Name the parts with external_indexing."
        raise ValueError(msg)
    if not target.classes:
        return
    if len(target.classes) < 2:
        msg = f"adata.obs[{target.name!r}] has one class, {_checks.first(target.classes)}, in these samples: two are needed."
        raise ValueError(msg)
    absent = np.setdiff1d(np.arange(len(target.classes)), known).astype(int)
    if len(absent):
        rest = {target.classes[c]: _checks.first(np.asarray(names)[np.flatnonzero(values == c)], 3) for c in absent}
        msg = (
            f"{len(absent)} of {len(target.classes)} classes of {target.name!r} have no training sample after the "
            f"split: {rest}. Try another seed, a larger train_size or stratify=True, name the parts with "
            "external_indexing, or set these labels to missing."
        )
        raise ValueError(msg)


def make_heads(
    labels: Sequence[Labels],
    vectors: np.ndarray,
    train: np.ndarray,
    *,
    seen: np.ndarray,
    arguments: dict[str, Any],
    balance: bool,
    seed: int,
) -> list[Head]:
    """A head for each label, standardised by the vectors ``seen`` and with the labels of training seen."""
    heads = []
    with seeded(seed):
        for one in labels:
            head = make_head(one.target.kind, vectors.shape[1], classes=one.target.classes, **arguments)
            head.standardize(torch.from_numpy(vectors[seen]))
            head.prepare(one.values[train][one.is_known[train]], balance=balance)
            heads.append(head)
    return heads


def solve_heads(
    labels: Sequence[Labels],
    heads: Sequence[Head],
    vectors: np.ndarray,
    *,
    train: np.ndarray,
    penalty: float | None,
    groups: np.ndarray | None,
    seed: int,
) -> list[float]:
    """Linear heads at the optimum of their penalised likelihood on frozen vectors; the penalties."""
    found = []
    for one, head in zip(labels, heads, strict=True):
        rows = train[one.is_known[train]]
        of_group = None if groups is None else groups[rows]
        y = one.tensor()[torch.from_numpy(rows)].numpy()
        found.append(fit_linear(head, vectors[rows], y, penalty=penalty, groups=of_group, seed=seed))
    return found


@torch.no_grad()
def history_of(
    labels: Sequence[Labels], heads: Sequence[Head], vectors: np.ndarray, *, parts: Sequence[np.ndarray]
) -> dict[str, pd.DataFrame]:
    """Loss and metrics of heads that were solved, in the form of a training of one epoch."""
    module = SupervisedModule(
        None,  # type: ignore[arg-type]
        heads,
        [one.target.name for one in labels],
        labels=[one.tensor() for one in labels],
        embed=None,
        number=attrgetter("number"),
    )
    out = {}
    for part, numbers in zip(("train", "validation"), parts, strict=False):
        if not len(numbers):
            continue
        number = torch.from_numpy(numbers)
        loss = module.loss(_Vectors(torch.from_numpy(vectors)[number], number))
        for name, value in {"loss": loss.loss, **loss.extra_metrics}.items():
            column = f"{name}_{part}"
            out[column] = pd.DataFrame({column: [float(value)]}, index=pd.RangeIndex(1, name="epoch"))
    return out


@dataclass
class _Vectors:
    z: torch.Tensor
    number: torch.Tensor


def tune(
    model: Any,
    labels: Sequence[Labels],
    heads: Sequence[Head],
    *,
    mode: str,
    level: str,
    manager: Any,
    parts: Sequence[np.ndarray],
    index: Any,
    vectors: np.ndarray | None,
    first: Batch,
    max_epochs: int | None,
    splitter_kwargs: dict[str, Any],
    plan_kwargs: dict[str, Any],
    trainer_kwargs: dict[str, Any],
    early_stopping: bool,
    checkpoint_dir: Path | None,
) -> tuple[SampleModule | None, dict[str, pd.DataFrame]]:
    """Train heads, and with ``mode`` a copy of the encoder, by the trainer; the encoder if it was trained, and the history."""
    encoder: Any = model.module
    if vectors is None:
        encoder = copy.deepcopy(model.module)
        set_trainable(encoder, mode, embed=embed_cells if level == "cell" else represent, batch=first)
    embed = None if vectors is not None else (embed_cells if level == "cell" else represent)
    number = attrgetter("number" if vectors is not None else "rows" if level == "cell" else "sample")
    module = SupervisedModule(
        encoder,
        heads,
        [one.target.name for one in labels],
        labels=[one.tensor() for one in labels],
        embed=embed,
        number=number,
    )
    if vectors is not None:
        splitter: type = VectorSplitter
        splitter_kwargs = {**splitter_kwargs, "vectors": vectors, "level": level}
    else:
        splitter, read = model._supervised_splitter(level)
        splitter_kwargs = {**read, **splitter_kwargs}
    trained = Trained(model, module, manager=manager, splitter=splitter)
    if len(parts[1]):
        monitor = trainer_kwargs.get("early_stopping_monitor", MONITOR)
        best = KeepBest(monitor, mode=trainer_kwargs.get("early_stopping_mode", "min"))
        trainer_kwargs = {**trainer_kwargs, "callbacks": [*(trainer_kwargs.get("callbacks") or []), best]}
    names = [[str(n) for n in index.names[part]] for part in parts]
    run_training(
        trained,
        max_epochs=max_epochs,
        early_stopping=early_stopping,
        checkpoint_dir=checkpoint_dir,
        splitter_kwargs={**splitter_kwargs, "external_indexing": names},
        plan_kwargs={"lr_schedule": "cosine", **plan_kwargs},
        trainer_kwargs=trainer_kwargs,
    )
    for head in heads:
        head.eval()
    return (None if vectors is not None else encoder.eval()), trained.history_


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
    module.requires_grad_(requires_grad=False)
    for p in used:
        p.requires_grad_(requires_grad=True)


def packed_fit(
    model: Any,
    labels: Sequence[Labels],
    heads: Sequence[Head],
    *,
    arguments: dict[str, Any],
    encoder: SampleModule | None,
    mode: str,
    level: str,
    samples: Sequence[str],
    penalties: Sequence[float],
) -> dict[str, Any]:
    """A fit in plain types, to be saved with the model."""
    return {
        "heads": [pack_head(one.target, head, arguments) for one, head in zip(labels, heads, strict=True)],
        "encoder": None if encoder is None else changed(encoder, model.module),
        "mode": mode,
        "level": level,
        "samples": [str(name) for name in samples],
        "penalties": [float(p) for p in penalties],
    }


def set_baselines(labels: Sequence[Labels], heads: Sequence[Head], vectors: np.ndarray, *, train: np.ndarray) -> None:
    """Baseline hazards of the heads of times to an event, from the vectors of training."""
    for one, head in zip(labels, heads, strict=True):
        if isinstance(head, TimeToEventHead):
            rows = torch.from_numpy(train[one.is_known[train]])
            head.eval().cpu().set_baseline(torch.from_numpy(vectors)[rows].to(head.center), one.tensor()[rows])


def default_epochs(n_items: int, batch_size: int, *, is_new: bool, level: str, mode: str) -> int:
    """50 epochs; as many as make 400 steps of an encoder from random weights; of cells 100 for a head alone, otherwise 20."""
    if level == "cell":
        return 100 if mode == "frozen" else 20
    return max(50, default_max_epochs(400, -(-n_items // batch_size))) if is_new else 50

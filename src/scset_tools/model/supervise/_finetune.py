"""A call of ``finetune``, step by step: read labels, split, make heads, solve or train them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from scset_tools import _checks
from scset_tools.data._dataset import SampleDataset
from scset_tools.model.supervise._fit import (
    N_STANDARDIZE,
    Labels,
    default_epochs,
    history_of,
    make_heads,
    packed_fit,
    require_classes,
    set_baselines,
    solve_heads,
    split_labelled,
    tune,
    vectors_of,
)
from scset_tools.model.supervise._targets import read_target


def run(
    model: Any,
    adata: Any,
    dataset: SampleDataset,
    *,
    kinds: Mapping[str, tuple[str, str | None]],
    mode: str,
    level: str,
    samples: Sequence[str] | None,
    split: dict[str, Any],
    groups_key: str | None,
    stratify: bool,
    penalty: float | None,
    use: dict[str, Any],
    max_epochs: int | None,
    early_stopping: bool | None,
    checkpoint_dir: Path | None,
    seed: int,
    splitter_kwargs: dict[str, Any],
    plan_kwargs: dict[str, Any],
    trainer_kwargs: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """What :meth:`SupervisedModel.finetune` does, after its arguments are read: the fit in the form that is saved, and its history."""
    index, is_cell = dataset.index, level == "cell"
    labels = read_labels(adata, dataset, kinds, level=level, sample_key=model._sample_key, samples=samples)
    has_label = np.any([one.is_known for one in labels], axis=0)
    if is_cell:
        has_label = np.array([has_label[index.cells(i)].any() for i in range(len(index))])
    positions = np.intersect1d(index.positions(samples), np.flatnonzero(has_label))
    groups = _groups(adata, groups_key, model._sample_key, index)
    classed = [one for one in labels if one.target.classes]
    parts = split_labelled(
        index,
        positions,
        **split,
        groups=groups,
        strata=np.asarray(classed[0].values) if stratify and classed and not is_cell else None,
        seed=seed,
    )
    # by name, so that what is drawn of cells does not depend on the order of rows
    items = [dataset.by_name.cells_of(part) if is_cell else part for part in parts]
    names = adata.obs_names if is_cell else index.names
    for one in labels:
        require_classes(one, items[0], names)
    frozen = mode == "frozen"
    arguments = {"n_layers": 0}
    if use["head"] == "mlp":
        arguments = {k: use[k] for k in ("n_layers", "n_hidden", "activation", "dropout_rate")}
    known = np.concatenate([*parts[:2]])
    if is_cell and not frozen:
        shown = np.sort(np.random.default_rng(seed).permutation(items[0])[:N_STANDARDIZE])
        of_shown = embed_rows(model.module, dataset, shown)
        vectors = np.zeros((len(has_label) if not is_cell else dataset.reader.n_rows, of_shown.shape[1]), np.float32)
        vectors[shown], seen = of_shown, shown
    else:
        vectors = vectors_of(model.module, dataset, level, positions=known)
        seen = items[0]
    heads = make_heads(
        labels, vectors, items[0], seen=seen, arguments=arguments, balance=use["class_weight"] == "balanced", seed=seed
    )
    penalties: list[float] = []
    if use["head"] == "linear" and not (is_cell and not frozen):
        of_item = groups if not is_cell else dataset.sample_of_row
        penalties = solve_heads(labels, heads, vectors, train=items[0], penalty=penalty, groups=of_item, seed=seed)
    dtype = next(model.module.parameters()).dtype
    for head in heads:
        head.to(dtype)
    encoder, history = None, {}
    if penalties and frozen:
        history = history_of(labels, heads, vectors, parts=items)
    else:
        watched = any(_has_loss(one, items[1]) for one in labels)
        encoder, history = tune(
            model,
            labels,
            heads,
            mode=mode,
            level=level,
            manager=model._manager_of(adata),
            parts=parts,
            index=index,
            vectors=vectors if frozen else None,
            first=dataset.cells(items[0][:4]) if is_cell and not frozen else dataset[0, parts[0][:2].tolist()],
            max_epochs=max_epochs
            or default_epochs(
                len(items[0]), use["batch_size"], is_new=not model.is_trained_ and not frozen, level=level, mode=mode
            ),
            early_stopping=watched if early_stopping is None else early_stopping,
            checkpoint_dir=checkpoint_dir,
            splitter_kwargs={
                "batch_size": use["batch_size"],
                "n_cells": None if frozen or is_cell else use["n_cells"],
                "seed": seed,
                **splitter_kwargs,
            },
            plan_kwargs={
                **{k: use[k] for k in ("lr", "lr_backbone", "weight_decay", "lr_schedule")},
                **plan_kwargs,
            },
            trainer_kwargs={"gradient_clip_val": 1.0, "early_stopping_patience": use["patience"], **trainer_kwargs},
        )
    if any(one.target.kind == "time_to_event" for one in labels):
        final = vectors if encoder is None else vectors_of(encoder, dataset, level, positions=parts[0])
        set_baselines(labels, heads, final, train=items[0])
    fit = packed_fit(
        model,
        labels,
        heads,
        arguments=arguments,
        encoder=encoder,
        mode=mode,
        level=level,
        samples=index.names[parts[0]],
        penalties=penalties,
    )
    return fit, history


def read_labels(
    adata: Any,
    dataset: SampleDataset,
    kinds: Mapping[str, tuple[str, str | None]],
    *,
    level: str,
    sample_key: str,
    samples: Sequence[str] | None,
) -> list[Labels]:
    """Labels of all samples, or cells; classes are those of the named samples, of which each needs a label."""
    index, is_cell = dataset.index, level == "cell"
    positions = index.positions(samples)
    numbers = np.sort(index.cells_of(positions)) if is_cell else positions
    rows = numbers if is_cell else index.first(np.arange(dataset.reader.n_rows))[positions]
    n = dataset.reader.n_rows if is_cell else len(index)
    out = []
    for key, (kind, event_key) in kinds.items():
        if is_cell and kind == "time_to_event":
            msg = f"{key!r} is a time to an event, which a sample has, not a cell: level='sample'."
            raise ValueError(msg)
        target, values = read_target(
            adata, key, kind, event_key=event_key, sample_key=None if is_cell else sample_key, rows=rows
        )
        of_all = np.full((n, *values.shape[1:]), -1 if target.classes else np.nan, dtype=values.dtype)
        of_all[numbers] = values
        out.append(Labels(target, of_all))
    if samples is not None and not is_cell:
        bare = positions[~np.any([one.is_known[positions] for one in out], axis=0)]
        if len(bare):
            msg = (
                f"{_checks.first(kinds)} of adata.obs is missing for {len(bare)} of {len(positions)} named samples (first: "
                f"{_checks.first(index.names[bare])}): there is nothing to learn from them. Name labelled ones, "
                "finetune(..., samples=[...]), or none: samples without a label are then left out."
            )
            raise ValueError(msg)
    return out


@torch.inference_mode()
def embed_rows(module: Any, dataset: Any, rows: np.ndarray) -> np.ndarray:
    """Vectors of the cells in these rows, (len(rows), n_latent), float32."""
    module.eval()
    return module.embed_cells(dataset.cells(rows).to(module.device)).float().cpu().numpy()


def _groups(adata: Any, groups_key: str | None, sample_key: str, index: Any) -> np.ndarray | None:
    """Group of each sample, (samples,)."""
    if groups_key is None:
        return None
    column = _checks.require_constant_within_sample(adata, groups_key, sample_key)
    _checks.require_no_missing(column, groups_key)
    return index.first(column.astype(str).to_numpy())


def _has_loss(one: Labels, items: np.ndarray) -> bool:
    """Whether any of these has a loss: a label, or of times to an event an event."""
    known = one.values[items][one.is_known[items]]
    return bool(len(known)) and (known.ndim == 1 or bool((known[:, 1] > 0).any()))

"""Teach the encoder, or a head on it alone, the types of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from scset_tools import _checks, _labels
from scset_tools.model.selfguided._head import CellTypeHead

if TYPE_CHECKING:
    from anndata import AnnData

MODES = ("partial", "linear_probe")


def cell_type_codes(adata: AnnData, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Class of each cell (-1 where missing), and the names of the classes, sorted."""
    read = _labels.read_classes(_checks.require_obs(adata, key))
    if len(read.names) < 2:
        msg = (
            f"adata.obs[{key!r}] has {len(read.names)} cell types ({_checks.first(read.names)}): nothing to tell apart."
        )
        raise ValueError(msg)
    return read.codes, np.asarray(read.names, dtype=object)


def require_labelled(codes: np.ndarray, rows: np.ndarray, *, classes: np.ndarray, key: str) -> None:
    """Raise ValueError unless two classes have training cells."""
    present = np.unique(codes[rows][codes[rows] >= 0])
    if len(present) < 2:
        msg = (
            f"Of the {len(classes)} cell types of adata.obs[{key!r}], {len(present)} have cells in the training samples: "
            "nothing to tell apart. Train on more samples."
        )
        raise ValueError(msg)


def fit_head(
    vectors: torch.Tensor,
    codes: np.ndarray,
    *,
    train: np.ndarray,
    validation: np.ndarray,
    n_classes: int,
    lr: float,
    weight_decay: float,
    batch_size: int,
    max_epochs: int,
    patience: int,
    seed: int,
) -> tuple[CellTypeHead, pd.DataFrame]:
    """Fit a head to fixed vectors of cells (cells, n_output): with them read once, an epoch costs milliseconds.

    Returns the head of the epoch with the lowest validation loss (of the last one, without validation cells), and the history.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = CellTypeHead(vectors.shape[1], n_classes)
    head = head.to(vectors.dtype)
    head.standardize(vectors[train])
    target = torch.from_numpy(codes)
    fitted, held_out = (torch.from_numpy(part[codes[part] >= 0]) for part in (train, validation))
    optimizer = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=weight_decay)
    best, best_loss, since, history = None, np.inf, 0, []
    for epoch in range(max_epochs):
        total = 0.0
        for rows in fitted[torch.randperm(len(fitted), generator=generator)].split(batch_size):
            optimizer.zero_grad()
            loss = F.cross_entropy(head(vectors[rows]), target[rows])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            total += float(loss.detach()) * len(rows)
        row = {"loss_train": total / len(fitted)}
        if len(held_out):
            with torch.no_grad():
                row["loss_validation"] = float(F.cross_entropy(head(vectors[held_out]), target[held_out]))
        history.append(pd.Series(row, name=epoch))
        since += 1
        if not len(held_out) or row["loss_validation"] < best_loss:
            best_loss, since = row.get("loss_validation", np.inf), 0
            best = {k: v.detach().clone() for k, v in head.state_dict().items()}
        if since >= patience:
            break
    head.load_state_dict(best)
    return head.eval(), pd.DataFrame(history).rename_axis("epoch")

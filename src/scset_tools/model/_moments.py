"""Location and scale of the features that a model reads, within each batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scvi import REGISTRY_KEYS

from scset_tools.data._features import feature_moments
from scset_tools.data._panel import PanelReader, panel_moments

if TYPE_CHECKING:
    from scset_tools.model._base import SampleModelClass


def batch_codes(model: SampleModelClass) -> np.ndarray:
    """Number of the batch of each registered cell, (cells,); zeros without ``batch_key``."""
    manager = model.adata_manager
    if REGISTRY_KEYS.BATCH_KEY not in manager.data_registry:
        return np.zeros(manager.get_from_registry(REGISTRY_KEYS.X_KEY).shape[0], dtype=np.int64)
    return manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel().astype(np.int64)


def batch_moments(model: SampleModelClass, *, standardize: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each feature in each batch, (batches, features); 0 and 1 if nothing is standardised."""
    n_batches, n_input = model.summary_stats.get("n_batch", 1), model._n_input
    if model.adata is None or not standardize:  # without data the values come with the saved weights
        return torch.zeros(n_batches, n_input), torch.ones(n_batches, n_input)
    reader = model.adata_manager.reader()
    of = panel_moments if isinstance(reader, PanelReader) else feature_moments
    mean, scale = of(reader, batch_codes(model), n_batches)
    return torch.from_numpy(mean), torch.from_numpy(scale)

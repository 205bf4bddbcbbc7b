"""A model whose vector is linear in the cells, so that every attribution has a closed form."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scvi.module.base import LossOutput

from scset_tools.model import SampleModelClass, SampleModule
from scset_tools.nn import segment_mean

WEIGHT = np.random.default_rng(3).normal(size=(4, 3))
"""From features to vectors."""


class MeanModule(SampleModule):
    """The mean cell times a matrix."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight)
        self.n_passes = 0

    def represent(self, batch):
        """Vectors of samples."""
        self.n_passes += 1
        return segment_mean(batch.x.to(self.weight.dtype), batch.ptr) @ self.weight

    def represent_in_pieces(self, pieces):
        """Not needed at this size."""
        raise NotImplementedError

    def loss(self, batch):
        """Keeps the weights where they are."""
        loss = 0 * self.represent(batch).sum()
        return LossOutput(loss=loss, n_obs_minibatch=batch.n_samples, extra_metrics={})


class MeanModel(SampleModelClass):
    """A model by nothing but the frame."""

    _module_cls = MeanModule

    def __init__(self, adata=None, registry=None, *, random_state=None):
        super().__init__(adata, registry)
        self.module = MeanModule(torch.from_numpy(WEIGHT))  # double, so that rounding is not what is tested


def linear_cohort(n_samples: int = 12, n_classes: int = 2) -> ad.AnnData:
    """Samples of 5 to 20 cells of two types with a class, a level and a number each."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(5, 21, n_samples)
    sample = np.repeat(np.arange(n_samples), sizes)
    label = np.arange(n_samples) % n_classes
    x = rng.normal(size=(len(sample), 4)) + 0.7 * label[sample][:, None] * np.array([1.0, 0, -1, 0])
    obs = pd.DataFrame(
        {
            "sample": [f"s{i:02d}" for i in sample],
            "label": np.asarray(["a", "b", "c", "d"])[label[sample]],
            "dose": (label + rng.normal(size=n_samples))[sample],
            "cell_type": np.where(rng.random(len(sample)) < 0.4, "T", "B"),
        },
        index=[f"cell{i}" for i in range(len(sample))],
    )
    var = pd.DataFrame(index=[f"f{j}" for j in range(4)])
    return ad.AnnData(x.astype(np.float32), obs=obs, var=var)


def fitted(adata: ad.AnnData) -> MeanModel:
    """The model, trained for a step that changes nothing."""
    MeanModel.setup_anndata(adata, "sample")
    model = MeanModel(adata)
    model.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu", watch_health=False, seed=0)
    model.module.n_passes = 0
    return model

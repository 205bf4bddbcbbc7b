"""Location and scale of the features that the first layer reads, from the training cells, before the first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from scset_tools.data._dataset import SampleDataset
from scset_tools.data._sparse import SparseRows

if TYPE_CHECKING:
    from scset_tools.data._splitter import SampleDataSplitter
    from scset_tools.model.pascient._module import PaSCientModule

MAX_CELLS = 20_000
"""Most cells of all samples that location and scale are taken from."""
MAX_SAMPLES = 1_024
"""Most samples that these are drawn from."""
N_SAMPLES_AT_ONCE = 32


@torch.no_grad()
def fit_scale(module: PaSCientModule, splitter: SampleDataSplitter) -> None:
    """Let the first layer take the mean of each feature over the training cells, and divide by one number for all features.

    Features that lie far from zero make all cells alike: the first steps then move the vectors of all samples along one
    direction. One scale for all features keeps what is large among them large, and what is rare is not blown up. Every
    sample has the same say as long as it has cells enough. The result depends on the names of samples and cells, not on their order.

    Parameters
    ----------
    module
        What is fitted; one that was fitted before keeps what it has.
    splitter
        Says which samples are trained on.
    """
    first = module.first
    if bool(first.location.any()) or bool((first.scale != 1).any()):
        return
    names = sorted(splitter.names()[0])
    if len(names) > MAX_SAMPLES:
        drawn = np.random.default_rng(splitter.seed).permutation(len(names))[:MAX_SAMPLES]
        names = [names[i] for i in np.sort(drawn)]
    n_each = max(1, MAX_CELLS // len(names))
    dataset = SampleDataset(splitter.adata_manager, n_cells=n_each, seed=splitter.seed, sparse=True)
    positions = dataset.index.positions(names)
    n, device = 0, first.location.device
    total = torch.zeros(2, len(first.location), dtype=torch.float64, device=device)
    for start in range(0, len(positions), N_SAMPLES_AT_ONCE):
        batch = dataset[0, positions[start : start + N_SAMPLES_AT_ONCE].tolist()].to(device)
        x = module.features(batch.x)
        if not n:  # about the mean of the first cells no digits are lost, however far from zero all lie
            origin = _sums(x, torch.zeros_like(total[0]))[0] / len(x)
        total += _sums(x, origin)
        n += len(x)
    apart, square = total / n
    variance = (square - apart.square()).clamp_min(0).mean()
    first.standardize(origin + apart, float(variance.sqrt()) or 1.0)


def _sums(x: Tensor | SparseRows, origin: Tensor) -> Tensor:
    """Sums over cells of the features less ``origin``, and of their squares, (2, features), float64."""
    if isinstance(x, Tensor):
        apart = x.double() - origin
        return torch.stack([apart.sum(0), apart.square().sum(0)])
    # sparse: what is not stored is zero, and so at -origin
    value, column = x.values.double(), x.indices.long()
    stored = torch.stack([value, value.square()])
    total = torch.zeros(2, x.n_features, dtype=torch.float64, device=value.device).index_add_(1, column, stored)
    return torch.stack([total[0] - len(x) * origin, total[1] - 2 * origin * total[0] + len(x) * origin.square()])

"""Fit the kinds of cells of MAESTRO's tokenizer to the training samples, before the first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scset_tools.data._batch import SampleBatch
    from scset_tools.data._dataset import SampleDataset
    from scset_tools.model.maestro._module import MAESTROModule

MAX_CELLS = 20_000
"""Most cells of all samples that the mixture is fitted to."""
MAX_SAMPLES = 1_024
"""Most samples that the map from features to vectors is found from."""
N_SAMPLES_AT_ONCE = 32


@torch.no_grad()
def fit_tokens(module: MAESTROModule, dataset: SampleDataset, samples: np.ndarray) -> None:
    """Find the kinds of cells, and what share and shift of them vary over samples.

    Every sample has the same say in the mixture, however many cells it has. The result depends on the names of samples and
    cells, not on their order.

    Parameters
    ----------
    module
        Its ``tokens`` are set.
    dataset
        Gives the cells drawn from each sample.
    samples
        Numbers of the training samples.
    """
    names = np.asarray(dataset.index.names)[samples].astype(str)
    samples = np.asarray(samples)[np.argsort(names, kind="stable")]
    if len(samples) > MAX_SAMPLES:
        samples = samples[np.sort(np.random.default_rng(dataset.seed).permutation(len(samples))[:MAX_SAMPLES])]
    # cells come in the order of a hash of their names, so the first ones are as good as drawn
    n_each = max(1, MAX_CELLS // len(samples))
    device = module.tokens.prototypes.device
    pieces = []
    for batch in _batches(dataset, samples):
        x = module.standardize(batch.to(device))
        pieces += [cells[:n_each].float().cpu() for cells in x.split(batch.ptr.diff().tolist())]
    module.tokens.fit(torch.cat(pieces))
    sums, sizes = [], []
    for batch in _batches(dataset, samples):
        batch = batch.to(device)
        sums.append(module.tokens.sums(module.standardize(batch).float(), batch.ptr))
        sizes.append(batch.ptr.diff())
    module.tokens.calibrate(torch.cat(sums), torch.cat(sizes))


def _batches(dataset: SampleDataset, samples: np.ndarray) -> Iterator[SampleBatch]:
    for start in range(0, len(samples), N_SAMPLES_AT_ONCE):
        yield dataset[0, samples[start : start + N_SAMPLES_AT_ONCE].tolist()]

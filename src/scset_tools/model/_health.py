"""Two draws of some cells of some training samples, for watching their vectors while a model learns."""

from __future__ import annotations

from typing import Any

import numpy as np

from scset_tools.model._inference import represent_samples

MAX_SAMPLES = 64
MIN_SAMPLES = 3


class TwoDraws:
    """Vectors of the same training samples from two draws of as many cells: ``first, second = draws()``.

    Parameters
    ----------
    model
        Model in training.
    splitter
        Knows its training samples.
    """

    def __init__(self, model: Any, splitter: Any) -> None:
        self._model, self._splitter = model, splitter
        self._datasets: list[Any] = []

    def __call__(self) -> tuple[np.ndarray, np.ndarray]:
        """Vectors of each draw, (samples, n_latent) each."""
        module = self._model.module
        modes = {part: part.training for part in module.modules()}
        positions = self._positions()
        try:
            first, second = (
                represent_samples(module, dataset, positions, batch_size=16).astype(np.float64)
                for dataset in self._draws(positions)
            )
        finally:
            for part, mode in modes.items():
                part.training = mode
        return first, second

    def _positions(self) -> np.ndarray:
        train = self._splitter.train_samples  # read late: several processes take those of the first one
        return train[np.linspace(0, len(train) - 1, min(len(train), MAX_SAMPLES)).round().astype(int)]

    def _draws(self, positions: np.ndarray) -> list[Any]:
        if not self._datasets:
            sizes = self._splitter.index.sizes[positions]
            # a draw of more than half of the cells of a sample would be much the same as the other
            n_cells = int(min(self._model._health_cells, max(1, np.quantile(sizes, 0.1) // 2)))
            self._datasets = [self._model._dataset(self._model.adata, n_cells, seed=seed) for seed in (0, 1)]
        return self._datasets

"""Batches of vectors that are computed once, for heads on a frozen encoder: an epoch costs milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from scset_tools.data._batch import with_host
from scset_tools.data._dataset import SampleDataset
from scset_tools.data._splitter import SampleDataSplitter


@dataclass  # not frozen: Lightning sets the fields of a copy when it changes the precision of its input
class VectorBatch:
    """Vectors of samples, or of cells.

    Attributes
    ----------
    z
        (n, n_latent).
    number
        Number of each sample in the index, or row of each cell, (n,), int64.
    """

    z: torch.Tensor
    number: torch.Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> VectorBatch:
        """The same batch on another device."""
        number = self.number.to(device, non_blocking=non_blocking)
        return VectorBatch(self.z.to(device, non_blocking=non_blocking), with_host(number, like=self.number))

    def pin_memory(self) -> VectorBatch:
        """The same batch in page-locked memory."""
        return VectorBatch(self.z.pin_memory(), self.number.pin_memory())


class VectorDataset(Dataset):
    """``dataset[epoch, [3, 0]]`` are the vectors of samples, or cells, 3 and 0.

    Parameters
    ----------
    vectors
        (n, n_latent).
    seed
        Seed of the order in training.
    """

    is_out_of_core = False
    """Vectors are in memory."""

    def __init__(self, vectors: np.ndarray, seed: int) -> None:
        self.vectors, self.seed = torch.from_numpy(vectors), seed
        self.sizes = np.ones(len(vectors), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.vectors)

    def prepare(self) -> None:
        """Nothing needs to be made before workers are."""

    def __getitem__(self, key: tuple[int, Sequence[int]]) -> VectorBatch:
        number = torch.as_tensor(np.asarray(key[1], dtype=np.int64))
        return VectorBatch(self.vectors[number], number)


class VectorSplitter(SampleDataSplitter):
    """Splits samples like :class:`~scset_tools.data._splitter.SampleDataSplitter`, and loads vectors of theirs or of their cells.

    Parameters
    ----------
    adata_manager
        Manager of a registered AnnData.
    vectors
        Of all samples (samples, n_latent) or of all cells (cells, n_latent).
    level
        ``"sample"`` or ``"cell"``.
    **kwargs
        As for :class:`~scset_tools.data._splitter.SampleDataSplitter`; ``batch_size`` counts vectors.
    """

    def __init__(self, adata_manager: Any, *, vectors: np.ndarray, level: str, **kwargs: Any) -> None:
        self._vectors, self._level = vectors, level
        super().__init__(adata_manager, **kwargs)

    def names_of(self, batch: Any) -> list[str]:
        number = batch.number.cpu().numpy()
        return self.adata_manager.samples_of(number) if self._level == "cell" else [*self.index.names[number]]

    def _dataset(self) -> Any:
        return VectorDataset(self._vectors, self.seed)

    def _loader(self, samples: np.ndarray, **how: Any) -> DataLoader:
        is_cell = self._level == "cell"
        if is_cell:
            self._require_unbalanced("heads that learn labels of cells")
        return super()._loader(
            SampleDataset(self.adata_manager).by_name.cells_of(samples) if is_cell else samples, **how
        )

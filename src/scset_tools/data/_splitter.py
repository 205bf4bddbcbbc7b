"""Loaders over training, validation and test samples for Lightning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from scvi import REGISTRY_KEYS, settings
from torch.utils.data import DataLoader

from scset_tools import _checks
from scset_tools.data._ahead import AheadLoader
from scset_tools.data._dataset import RepeatedDraws, SampleDataset
from scset_tools.data._manager import SampleManager
from scset_tools.data._sampler import SampleBatchSampler
from scset_tools.data._split import split_samples


def sample_loader(
    dataset: SampleDataset,
    samples: np.ndarray,
    *,
    batch_size: int,
    max_cells: int | None = None,
    shuffle: bool = False,
    groups: np.ndarray | None = None,
    num_replicas: int = 1,
    rank: int = 0,
    **loader_kwargs: Any,
) -> DataLoader:
    """A loader of :class:`~scset_tools.data._batch.SampleBatch` over the numbered samples."""
    sampler = SampleBatchSampler(
        samples,
        dataset.sizes,
        batch_size=batch_size,
        max_cells=max_cells,
        shuffle=shuffle,
        seed=dataset.seed,
        groups=groups,
        num_replicas=num_replicas,
        rank=rank,
    )
    return make_loader(dataset, sampler, seed=dataset.seed, **loader_kwargs)


def make_loader(
    dataset: Any, sampler: Any, *, seed: int, read_ahead: bool | None = None, **loader_kwargs: Any
) -> DataLoader:
    """A loader of whole batches, by the defaults of scvi-tools for workers.

    Parameters
    ----------
    dataset
        Indexed by what the sampler gives.
    sampler
        Gives one index for each batch.
    seed
        Of the loader itself.
    read_ahead
        Whether a thread reads the next batch while the last one is in use. Default: where values are in a file and there are no workers,
        which read ahead themselves.
    **loader_kwargs
        Of :class:`torch.utils.data.DataLoader`.
    """
    loader_kwargs.setdefault("num_workers", settings.dl_num_workers)
    loader_kwargs.setdefault("persistent_workers", settings.dl_persistent_workers and loader_kwargs["num_workers"] > 0)
    n_workers = loader_kwargs["num_workers"]
    if read_ahead is None:
        read_ahead = not n_workers and dataset.is_out_of_core
    elif read_ahead and n_workers:
        msg = f"read_ahead=True has no effect beside num_workers={n_workers}, who read ahead themselves: leave one of them out."
        raise ValueError(msg)
    if n_workers or read_ahead:
        dataset.prepare()
    made = AheadLoader if read_ahead else DataLoader
    # a loader without a generator of its own draws from the global one whenever it is iterated, which shifts dropout
    generator = torch.Generator().manual_seed(seed)
    return made(dataset, sampler=sampler, batch_size=None, generator=generator, **loader_kwargs)


class SampleDataSplitter(pl.LightningDataModule):
    """Splits samples into training, validation and test parts and loads them as ragged batches.

    Where several processes train, they share the training samples. Validation samples are seen by every process: they are few,
    sharing them out would count some twice, and with all of them everywhere no process stops early alone.

    Parameters
    ----------
    adata_manager
        Manager of a registered AnnData.
    train_size, validation_size
        Shares of the samples, or of the groups when ``groups_key`` is given. Default: all samples are trained on, or all
        that validation leaves.
    groups_key
        Column of ``adata.obs`` with the donor or study of each sample; a group is never cut.
    stratify
        Whether each part gets the classes of ``labels_key`` in like proportions.
    external_indexing
        Names of the training, validation and test samples (the latter two may be left out), instead of shares.
    batch_size
        Number of samples in a batch.
    n_cells
        Number of cells drawn from each sample, anew in each epoch. Default: all.
    max_cells_per_batch
        Most cells in a batch; fewer samples than ``batch_size`` are taken to stay below.
    balance_key
        Column of ``adata.obs`` with the cohort of each sample: every cohort then has the same share of an epoch of training, in which
        samples of a small one come several times, with other cells each time. Default: as many as it has samples.
    shuffle_set_split
        Whether the parts are drawn at random.
    seed
        Seed of the split, of the order of samples and of the draws of cells. Default: ``scvi.settings.seed``, or random.
    sparse
        Whether a sparse array reaches the module in compressed rows.
    pin_memory, loader_kwargs
        Passed to :class:`torch.utils.data.DataLoader`; but ``read_ahead`` says whether a thread reads the next batch while the step computes.
        Default: where values are in a file and there are no workers (``num_workers``).
    """

    def __init__(
        self,
        adata_manager: SampleManager,
        *,
        train_size: float | None = None,
        validation_size: float | None = None,
        groups_key: str | None = None,
        stratify: bool = False,
        external_indexing: Sequence[Sequence[str]] | None = None,
        batch_size: int = 16,
        n_cells: int | None = None,
        max_cells_per_batch: int | None = None,
        balance_key: str | None = None,
        shuffle_set_split: bool = True,
        seed: int | None = None,
        sparse: bool = False,
        pin_memory: bool = False,
        **loader_kwargs: Any,
    ) -> None:
        super().__init__()
        seed = settings.seed if seed is None else seed
        self.adata_manager = adata_manager
        self.seed = int(np.random.default_rng().integers(2**31)) if seed is None else int(seed)
        self.batch_size, self.n_cells, self.max_cells_per_batch = batch_size, n_cells, max_cells_per_batch
        self.sparse = sparse
        self._balance: np.ndarray | None = None
        self.loader_kwargs = {"pin_memory": pin_memory, **loader_kwargs}
        dataset = SampleDataset(adata_manager)
        self.index, self.label_values = dataset.index, dataset.labels
        if balance_key is not None:
            self._balance = np.unique(self._groups(balance_key), return_inverse=True)[1]
        # these two are read without a guard by scvi.utils.mlflow_logger
        self.train_size = 1 - (validation_size or 0.0) if train_size is None else train_size
        self.data_loader_kwargs = {"batch_size": batch_size, **loader_kwargs}
        if external_indexing is not None:
            self._parts = self._named_parts(external_indexing)
        else:
            self._parts = split_samples(
                len(self.index),
                self.train_size,
                validation_size,
                groups=None if groups_key is None else self._groups(groups_key),
                strata=self._strata() if stratify else None,
                shuffle=shuffle_set_split,
                rng=self.seed,
            )
        self._publish()

    def setup(self, stage: str | None = None) -> None:
        """Give every process the split and the seed of the first one, whatever they would have drawn."""
        if self.trainer is not None and self.trainer.world_size > 1:
            self._parts, self.seed = self.trainer.strategy.broadcast((self._parts, self.seed), src=0)
            self._publish()

    def train_dataloader(self) -> DataLoader:
        """Loader of the training samples, in an order and with cells drawn anew in each epoch."""
        # the trainer's own numbers: what the user asked for may not name a strategy (devices=2 alone)
        world, rank = (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)
        loader = self._loader(self.train_samples, shuffle=True, num_replicas=world, rank=rank)
        if self.trainer is not None:
            # on resuming, Lightning sets the epoch only after it has made the iterator, whose workers read ahead
            sampler: Any = loader.sampler
            sampler.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]
        return loader

    def val_dataloader(self) -> DataLoader | None:
        """Loader of the validation samples, always with the same cells."""
        return self._loader(self.validation_samples) if len(self.validation_samples) else None

    def test_dataloader(self) -> DataLoader | None:
        """Loader of the test samples, always with the same cells."""
        return self._loader(self.test_samples) if len(self.test_samples) else None

    def n_batches(self) -> int:
        """Number of batches of an epoch, of all processes together."""
        return len(self._loader(self.train_samples, shuffle=True))

    def names(self) -> tuple[list[str], list[str], list[str]]:
        """Names of the training, validation and test samples."""
        train, validation, test = ([str(n) for n in self.index.names[part]] for part in self._parts)
        return train, validation, test

    def names_of(self, batch: Any) -> list[str]:
        """Names of the samples of which a batch has cells.

        Parameters
        ----------
        batch
            Of one of the loaders.
        """
        return self.adata_manager.samples_of(batch.rows.cpu().numpy())

    def _loader(self, samples: np.ndarray, **how: Any) -> DataLoader:
        """Loader of some samples; ``how``: ``shuffle``, ``num_replicas`` and ``rank`` of its sampler."""
        if self._balance is not None and how.get("shuffle"):
            how["groups"] = self._balance[samples]
        return sample_loader(
            self._dataset(),
            samples,
            batch_size=self.batch_size,
            max_cells=self.max_cells_per_batch,
            **how,
            **self.loader_kwargs,
        )

    def _require_unbalanced(self, what: str) -> None:
        """Raise where ``balance_key`` would be passed over."""
        if self._balance is not None:
            msg = f"balance_key has no effect on {what}: leave it out."
            raise ValueError(msg)

    def _dataset(self) -> SampleDataset:
        made = SampleDataset if self._balance is None else RepeatedDraws
        return made(self.adata_manager, n_cells=self.n_cells, seed=self.seed, sparse=self.sparse)

    def _publish(self) -> None:
        self.train_samples, self.validation_samples, self.test_samples = self._parts
        # rows of cells under the names that scvi's TrainRunner copies to model.train_indices and so on
        self.train_idx, self.val_idx, self.test_idx = (self.index.cells_of(part) for part in self._parts)
        self.n_train, self.n_val = len(self.train_samples), len(self.validation_samples)
        self.n_watched = self.n_val  # validation samples that have a loss: fewer, where it is one of labels

    def _groups(self, groups_key: str) -> np.ndarray:
        sample_key = self.adata_manager.get_state_registry(REGISTRY_KEYS.SAMPLE_KEY).original_key
        values = _checks.require_constant_within_sample(self.adata_manager.adata, groups_key, sample_key)
        _checks.require_no_missing(values, groups_key)
        return self.index.first(values.astype(str).to_numpy())

    def _strata(self) -> np.ndarray:
        if REGISTRY_KEYS.LABELS_KEY not in self.adata_manager.data_registry:
            msg = "stratify=True needs labels: give `labels_key` to setup_anndata."
            raise ValueError(msg)
        return self.index.first(np.asarray(self.adata_manager.get_from_registry(REGISTRY_KEYS.LABELS_KEY)).ravel())

    def _named_parts(self, named: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if len(named) > 3:
            msg = f"external_indexing takes training, validation and test samples, but was given {len(named)} lists."
            raise ValueError(msg)
        given = [() if part is None else part for part in [*named, (), ()][:3]]
        train, validation, test = (self.index.positions(part) if len(part) else np.zeros(0, np.int64) for part in given)
        everything = np.concatenate([train, validation, test])
        twice = pd.Index(everything)[pd.Index(everything).duplicated()]
        if len(twice):
            msg = f"external_indexing names {len(twice)} samples twice: {_checks.first(self.index.names[twice])}."
            raise ValueError(msg)
        if len(train) == 0:
            msg = "external_indexing leaves nothing to train on: its first list is empty."
            raise ValueError(msg)
        return train, validation, test

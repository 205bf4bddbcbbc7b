"""Resampling of training samples: as many of each label, of each tissue, of both, or of each pair of both (PaSCient, Methods)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from scset_tools import _checks
from scset_tools.data._dataset import RepeatedDraws
from scset_tools.data._sampler import SampleBatchSampler
from scset_tools.data._splitter import SampleDataSplitter, make_loader
from scset_tools.model._setup import label_values
from scset_tools.model.pascient._raking import rake, raked_sizes, warn_of_uneven
from scset_tools.model.supervise._targets import Target

RESAMPLINGS = (
    "none",
    "downsample_label",
    "oversample_label",
    "oversample_tissue",
    "oversample_label_and_tissue",
    "rake_label_and_tissue",
)


def resampled_order(
    samples: np.ndarray,
    strata: np.ndarray,
    *,
    is_downsampling: bool,
    rng: np.random.Generator,
    sizes: Mapping[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """As many samples of each stratum, in random order, and how often each was taken before.

    Oversampling takes every sample of a stratum in turn until there are as many as in the largest stratum, so that no two
    samples of a stratum differ in their number by more than one; downsampling takes as many as in the smallest.

    Parameters
    ----------
    samples
        Numbers of the samples, (n,).
    strata
        Stratum of each, (n,); a negative one is left alone.
    is_downsampling
        Whether to draw the smallest stratum's number instead of the largest.
    rng
        Generator.
    sizes
        How many to take of each stratum, instead of as many of all.
    """
    codes, found = np.unique(strata[strata >= 0], return_counts=True)
    even = 0 if not len(codes) else int(found.min() if is_downsampling else found.max())
    taken, repeats = [samples[strata < 0]], [np.zeros((strata < 0).sum(), dtype=np.int64)]
    for code in codes:
        members = samples[strata == code]
        n_each = even if sizes is None else sizes[int(code)]
        turn = np.arange(n_each)
        # a new order for each round of the members
        rounds = [rng.permutation(members) for _ in range(-(-n_each // len(members)))]
        taken.append(np.concatenate(rounds)[:n_each])
        repeats.append(turn // len(members))
    order = rng.permutation(sum(map(len, taken)))
    return np.concatenate(taken)[order], np.concatenate(repeats)[order]


class ResampledBatchSampler(SampleBatchSampler):
    """Batches in which every stratum of the training samples has the same share.

    Parameters
    ----------
    samples, sizes
        As for :class:`~scset_tools.data._sampler.SampleBatchSampler`.
    strata
        Stratum of each of ``samples``, (n,).
    is_downsampling
        See :func:`resampled_order`.
    n_of_stratum
        How many an epoch takes of each stratum, instead of as many of all.
    **kwargs
        Of :class:`~scset_tools.data._sampler.SampleBatchSampler`.
    """

    def __init__(
        self,
        samples: np.ndarray,
        sizes: np.ndarray,
        *,
        strata: np.ndarray,
        is_downsampling: bool,
        n_of_stratum: Mapping[int, int] | None = None,
        **kwargs: Any,
    ) -> None:
        self.strata, self.is_downsampling, self.n_of_stratum = np.asarray(strata), is_downsampling, n_of_stratum
        super().__init__(samples, sizes, **kwargs)

    def _most_times(self) -> int:
        if self.is_downsampling and self.n_of_stratum is None:
            return 1
        counts = np.bincount(self.strata[self.strata >= 0]) if (self.strata >= 0).any() else np.ones(1, int)
        if self.n_of_stratum is not None:
            return int(max((-(-n // counts[code]) for code, n in self.n_of_stratum.items()), default=1))
        return int(-(-counts.max() // counts[counts > 0].min()))

    def _order(self, epoch: int) -> list[int]:
        rng = np.random.default_rng((self.seed, epoch))
        order, repeat = resampled_order(
            self.samples, self.strata, is_downsampling=self.is_downsampling, rng=rng, sizes=self.n_of_stratum
        )
        return (order + repeat * self._n_samples).tolist()


class PaSCientSplitter(SampleDataSplitter):
    """Resamples the training samples, and tells the model what the split is.

    Parameters
    ----------
    adata_manager
        Manager of a registered AnnData.
    resampling
        One of ``RESAMPLINGS``; of the training samples alone.
    tissue_key
        Column of ``adata.obs`` with the tissue of each sample.
    label_registry_key
        Registry key of the label that is resampled by.
    on_split
        Called with the splitter when the parts are known.
    **kwargs
        Of :class:`~scset_tools.data._splitter.SampleDataSplitter`.
    """

    def __init__(
        self,
        adata_manager: Any,
        *,
        resampling: str = "none",
        tissue_key: str | None = None,
        label_registry_key: str | None = None,
        on_split: Callable[[PaSCientSplitter], None] | None = None,
        **kwargs: Any,
    ) -> None:
        _checks.require_choice("resampling", resampling, RESAMPLINGS)
        self.resampling, self.tissue_key, self.label_registry_key = resampling, tissue_key, label_registry_key
        self._on_split = on_split
        super().__init__(adata_manager, sparse=True, **kwargs)

    def labels(self, target: Target) -> np.ndarray:
        """Codes or numbers of all samples, (samples,), or times and events, (samples, 2).

        Parameters
        ----------
        target
            A registered label.
        """
        return label_values(self.label_values, target).numpy()

    def strata(self, samples: np.ndarray) -> np.ndarray:
        """Stratum of samples under the resampling, (n,); -1 for samples without a label.

        Parameters
        ----------
        samples
            Numbers of the samples.
        """
        code = np.zeros(len(samples), dtype=np.int64)
        self.n_tissues = 1
        if "label" in self.resampling:
            if self.label_registry_key is None:
                msg = f"resampling={self.resampling!r} needs a target with classes: give `labels_key` to setup_anndata."
                raise ValueError(msg)
            code = self.label_values[self.label_registry_key].numpy()[samples].astype(np.int64)
        if "tissue" in self.resampling:
            if self.tissue_key is None:
                msg = f"resampling={self.resampling!r} needs `tissue_key`, a column of adata.obs with the tissue of each sample."
                raise ValueError(msg)
            self.tissue_names, tissue = np.unique(self._groups(self.tissue_key), return_inverse=True)
            self.n_tissues = int(tissue.max()) + 1
            code = np.where(code < 0, -1, code * self.n_tissues + tissue[samples])
        return code

    def raked(self, strata: np.ndarray, *, is_warning: bool = False) -> dict[int, int] | None:
        """How many of each stratum an epoch takes so that labels and tissues both count the same; None for other resamplings.

        Parameters
        ----------
        strata
            From :meth:`strata`, of the training samples.
        is_warning
            Whether to warn if no weights do both.
        """
        if self.resampling != "rake_label_and_tissue":
            return None
        codes = strata[strata >= 0]
        n_labels = int(codes.max(initial=-1)) // self.n_tissues + 1
        counts = np.bincount(codes, minlength=n_labels * self.n_tissues).reshape(n_labels, self.n_tissues)
        if not counts.sum():
            return {}
        share = rake(counts)
        if is_warning:
            warn_of_uneven(share, [str(name) for name in self.tissue_names])
        sizes = raked_sizes(counts, share).ravel()
        return {int(code): int(sizes[code]) for code in np.unique(codes)}

    def n_plain_batches(self) -> int:
        """Number of batches of an epoch if nothing were resampled."""
        return len(super()._loader(self.train_samples, shuffle=True))

    def _publish(self) -> None:
        super()._publish()
        if self.resampling != "none":
            strata = self.strata(self.train_samples)  # what cannot be resampled raises before training
            self.raked(strata, is_warning=True)
        if self._on_split is not None:
            self._on_split(self)

    def _loader(self, samples: np.ndarray, **how: Any) -> DataLoader:
        if not how.get("shuffle") or self.resampling == "none":  # validation and test samples are as they are
            return super()._loader(samples, **how)
        self._require_unbalanced(f"resampling={self.resampling!r}")
        strata = self.strata(samples)
        dataset = RepeatedDraws(self.adata_manager, n_cells=self.n_cells, seed=self.seed, sparse=self.sparse)
        sampler = ResampledBatchSampler(
            samples,
            dataset.sizes,
            strata=strata,
            n_of_stratum=self.raked(strata),
            is_downsampling=self.resampling == "downsample_label",
            batch_size=self.batch_size,
            max_cells=self.max_cells_per_batch,
            seed=self.seed,
            **how,
        )
        return make_loader(dataset, sampler, seed=self.seed, **self.loader_kwargs)

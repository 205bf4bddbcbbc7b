"""Fit the kinds of cells of a model's :class:`~scset_tools.nn.TokenPool` to the training samples, before the first step."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from scset_tools.data._dataset import SampleDataset
from scset_tools.model._tokens_open import REGULARIZATION, marginal_mixture_of
from scset_tools.nn import MarginalTokenPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scset_tools.data._batch import SampleBatch
    from scset_tools.data._splitter import SampleDataSplitter
    from scset_tools.nn import ModalityParts, TokenPool

MAX_CELLS = 20_000
"""Most cells of all samples that the mixture is fitted to."""
MAX_SAMPLES = 1_024
"""Most samples that the map from features to vectors is found from."""
N_SAMPLES_AT_ONCE = 32
CELLS_OF_TOKENS = 1_000
"""Cells of a sample from which its share and shift of each kind are found before training."""
KEPT_BYTES = 2**28
"""Most bytes of cells that are kept from the fit of the mixture for the shares of samples: above, they are read again."""
MIN_CELLS_PER_KIND = 4
"""With fewer cells for each kind there is no mixture to fit."""


def mixture_of(x: torch.Tensor, n_components: int, n_kinds: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A Gaussian mixture of cells with one covariance, from the centres of k-means (both scikit-learn's).

    With fewer than four cells for each kind, the kinds are around single cells.

    Parameters
    ----------
    x
        Cells of all samples, (cells, features), at about unit variance; at least one.
    n_components
        Most principal components in which kinds are told apart: a covariance of thousands of features is not to be had.
    n_kinds
        Number of components of the mixture.

    Returns
    -------
    What :meth:`scset_tools.nn.TokenPool.set_kinds` takes.
    """
    cells = x.detach().double().cpu().numpy()
    n, n_features = cells.shape
    axes = np.eye(n_features, n_components)
    if n < MIN_CELLS_PER_KIND * n_kinds:
        means, whitener, share = cells[np.arange(n_kinds) % n], axes, np.full(n_kinds, 1 / n_kinds)
    else:
        if n_features > n_components:
            axes[:, : min(n, n_components)] = PCA(min(n, n_components), random_state=0).fit(cells).components_.T
        reduced = cells @ axes
        with warnings.catch_warnings():
            # equal cells make fewer kinds than asked for, and the last digits of a mixture do not matter
            warnings.simplefilter("ignore", ConvergenceWarning)
            start = KMeans(n_kinds, n_init=3, random_state=0).fit(reduced).cluster_centers_
            options = {"covariance_type": "tied", "reg_covar": REGULARIZATION, "max_iter": 50, "random_state": 0}
            mixture = GaussianMixture(n_kinds, means_init=start, **options).fit(reduced)
        weight = mixture.predict_proba(reduced)
        total = weight.sum(axis=0)[:, None]
        # a kind without cells lies at the mean of all, where its share keeps it from mattering
        means = np.where(total > 0, weight.T @ cells / np.maximum(total, 1e-300), cells.mean(axis=0))
        whitener, share = axes @ mixture.precisions_cholesky_, np.maximum(mixture.weights_, 1e-12)
    return torch.from_numpy(means), torch.from_numpy(whitener), torch.from_numpy(np.log(share))


def fit_tokens_once(
    tokens: TokenPool | None,
    splitter: SampleDataSplitter,
    read: Callable[[SampleBatch], torch.Tensor],
    *,
    parts: ModalityParts | None = None,
) -> None:
    """Fit the kinds to the training samples of a split; a model that is trained further keeps those it has.

    Parameters
    ----------
    tokens
        Of the model, if it has any.
    splitter
        Says which samples are trained on.
    read
        Cells of a batch as the tokens see them, (cells, features).
    parts
        What cuts samples of several modalities into the sets that tokens see.
    """
    if tokens is None or bool(tokens.is_fitted):
        return
    dataset = SampleDataset(splitter.adata_manager, n_cells=CELLS_OF_TOKENS, seed=splitter.seed)
    fit_tokens(tokens, dataset, dataset.index.positions(splitter.names()[0]), read=read, parts=parts)


@torch.no_grad()
def fit_tokens(
    tokens: TokenPool,
    dataset: SampleDataset,
    samples: np.ndarray,
    *,
    read: Callable[[SampleBatch], torch.Tensor],
    parts: ModalityParts | None = None,
) -> None:
    """Find the kinds of cells, and what share and shift of them vary over samples.

    Every sample has the same say in the mixture, however many cells it has. The result depends on the names of samples and
    cells, not on their order.

    Parameters
    ----------
    tokens
        What is fitted.
    dataset
        Gives the cells drawn from each sample.
    samples
        Numbers of the training samples.
    read
        Cells of a batch as the tokens see them, (cells, features).
    parts
        As in :func:`fit_tokens_once`.
    """
    names = np.asarray(dataset.index.names)[samples].astype(str)
    samples = np.asarray(samples)[np.argsort(names, kind="stable")]
    if len(samples) > MAX_SAMPLES:
        samples = samples[np.sort(np.random.default_rng(dataset.seed).permutation(len(samples))[:MAX_SAMPLES])]
    # cells come in the order of a hash of their names, so the first ones are as good as drawn
    n_each = max(1, MAX_CELLS // len(samples))
    device = tokens.prototypes.device
    pieces: list[torch.Tensor] = []
    sets: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]] | None = []
    n_bytes = 0
    for found in _read_sets(dataset, samples, read, parts, device):
        x, ptr, _ = found
        pieces += [cells[:n_each].cpu() for cells in x.split(ptr.diff().tolist())]
        n_bytes += x.nbytes
        if n_bytes > KEPT_BYTES:  # draws of all samples would fill memory where features are many
            sets = None
        elif sets is not None:
            sets.append(found)
    n_kinds = len(tokens.prototypes)
    if isinstance(tokens, MarginalTokenPool):
        tokens.set_kinds(*marginal_mixture_of(torch.cat(pieces), n_kinds))
    else:
        tokens.set_kinds(*mixture_of(torch.cat(pieces), tokens.whitener.shape[1], n_kinds))
    sums, sizes, groups = [], [], []
    for x, ptr, group in _read_sets(dataset, samples, read, parts, device) if sets is None else sets:
        sums.append(tokens.sums(x, ptr))
        sizes.append(ptr.diff())
        groups += [] if group is None else [group]
    tokens.calibrate(torch.cat(sums), torch.cat(sizes), *([torch.cat(groups)] if groups else []))


def _sets(
    x: torch.Tensor, ptr: torch.Tensor, parts: ModalityParts | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Cells, boundaries of the sets that they make, and the group of each set."""
    if parts is None:
        return x, ptr, None
    own = parts(x, ptr)
    return x[own.order], own.ptr, own.kind


def _read_sets(
    dataset: SampleDataset,
    samples: np.ndarray,
    read: Callable[[SampleBatch], torch.Tensor],
    parts: ModalityParts | None,
    device: torch.device,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
    """What :func:`_sets` makes of some samples at a time, float32."""
    for start in range(0, len(samples), N_SAMPLES_AT_ONCE):
        batch = dataset[0, samples[start : start + N_SAMPLES_AT_ONCE].tolist()].to(device)
        yield _sets(read(batch).float(), batch.ptr, parts)

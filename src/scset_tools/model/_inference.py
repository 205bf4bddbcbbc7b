"""Run a trained module over samples, in bounded memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch

from scset_tools import _checks
from scset_tools.data._batch import SampleBatch
from scset_tools.data._dataset import SampleDataset
from scset_tools.data._splitter import sample_loader
from scset_tools.model._base_module import Pieces, SampleModule
from scset_tools.model._processes import shared

MAX_CELLS = 32_768
"""Most cells that are read and encoded at once; a larger sample is encoded in pieces."""


def represent_samples(
    module: SampleModule, dataset: SampleDataset, positions: np.ndarray, *, batch_size: int
) -> np.ndarray:
    """Vectors of the numbered samples, in that order, (len(positions), n_latent), float32."""

    def embed(share: np.ndarray) -> dict[int, np.ndarray]:
        runs = _run(dataset, share, batch_size, module, module.represent, module.represent_in_pieces)
        return {number: vector for samples, _, out in runs for number, vector in zip(samples, out, strict=True)}

    vectors: dict[int, np.ndarray] = {}
    for part in shared(np.unique(positions), dataset.sizes, embed):
        vectors |= part
    out = np.stack([vectors[int(p)] for p in positions])
    _require_finite(out, [str(dataset.index.names[p]) for p in positions], what="vectors")
    return out


def score_cells(
    module: SampleModule,
    dataset: SampleDataset,
    *,
    score: Callable[[SampleBatch], torch.Tensor],
    score_in_pieces: Callable[[Pieces], torch.Tensor],
) -> np.ndarray:
    """Scores of all cells, (cells, n_scores), in the order of the AnnData; NaN for a cell that was not drawn."""
    n_cells = dataset.reader.n_rows
    scores: np.ndarray | None = None

    def scored(share: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        found = []
        for samples, rows, out in _run(dataset, share, 16, module, score, score_in_pieces):
            _require_finite(out, [str(n) for n in dataset.index.names[samples]], what="scores of the cells")
            found.append((rows, out))
        return found

    for rows, out in itertools.chain.from_iterable(shared(np.arange(len(dataset)), dataset.sizes, scored)):
        if scores is None:
            scores = np.full((n_cells, out.shape[1]), np.nan, dtype=np.float32)
        scores[rows] = out
    return np.zeros((0, 1), np.float32) if scores is None else scores


def _require_finite(values: np.ndarray, samples: list[str], *, what: str) -> None:
    """Raise ValueError for a result that is NaN or infinite, though the features that were read are finite."""
    if np.isfinite(values).all():
        return
    if len(values) == len(samples):
        samples = [name for name, is_good in zip(samples, np.isfinite(values).all(axis=1), strict=True) if not is_good]
    msg = (
        f"The {what} of samples {_checks.first(samples)} are not finite: the weights of the model are not, or the features of "
        "these samples are far beyond those of training. Look at the loss (model.history), and train anew at a lower rate."
    )
    raise ValueError(msg)


@torch.inference_mode()
def _run(
    dataset: SampleDataset,
    positions: np.ndarray,
    batch_size: int,
    module: SampleModule,
    on_batch: Callable[[SampleBatch], torch.Tensor],
    on_pieces: Callable[[Pieces], torch.Tensor],
) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Numbers of samples, rows of their cells, and what comes out for them."""
    module.eval()
    dataset = dataset.in_row_order()  # a vector does not depend on the order of cells
    distinct = np.unique(positions)
    is_large = dataset.sizes[distinct] > MAX_CELLS
    small = distinct[~is_large]
    loader = sample_loader(dataset, small, batch_size=batch_size, max_cells=MAX_CELLS) if len(small) else ()
    for batch in loader:
        out = on_batch(batch.to(module.device))
        yield batch.sample.tolist(), batch.rows.numpy(), out.float().cpu().numpy()
    for sample in distinct[is_large].tolist():

        def pieces(sample: int = sample) -> Iterator[SampleBatch]:
            for piece in dataset.chunks(sample, MAX_CELLS):
                yield piece.to(module.device)

        yield [sample], dataset.rows_of(sample), on_pieces(pieces).float().cpu().numpy()

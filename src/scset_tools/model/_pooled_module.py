"""What the modules of MAESTRO and ScSet have in common: attention and tokens pool the cells of a sample, whole or in pieces."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from scvi import REGISTRY_KEYS

from scset_tools.data._batch import SampleBatch
from scset_tools.model._base_module import Pieces, SampleModule
from scset_tools.model._whitening import PartialWhitening
from scset_tools.nn import sample_of_cell

Rows = Callable[[], Iterator[torch.Tensor]]
"""The cells of one sample in pieces, (cells of the piece, features) each; each call starts over."""


class PooledModule(SampleModule):
    """A module whose vectors are pooled from the cells of a sample, or from the parts of it that have the same modalities."""

    tokens: Any
    """What pools cells by kind, if anything does."""
    token_weight: float
    modality_parts: Any
    """What cuts samples of several modalities into parts, if there are several."""
    whitening: PartialWhitening | None
    """The map between the vectors that the decoder is given and those that represent samples, if they are not the same."""

    @abstractmethod
    def read(self, batch: SampleBatch) -> torch.Tensor:
        """What the encoder reads of cells, (cells, features).

        Parameters
        ----------
        batch
            Samples.
        """

    @abstractmethod
    def _pool_pieces(self, rows: Rows, kind: torch.Tensor | None) -> torch.Tensor:
        """What attention pools of a sample, or a part of it, in pieces, (1, n_latent)."""

    @abstractmethod
    def _attention(self, x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
        """Weight of each cell in what attention pools, (cells, n_heads)."""

    @abstractmethod
    def _attention_in_pieces(self, rows: Rows) -> torch.Tensor:
        """The same of one sample in pieces."""

    def baseline(self, batch: SampleBatch) -> torch.Tensor:
        """The mean cell of the training data (of the batch of each cell), where attributions start: (cells, features)."""
        return self._location(batch)[0].expand_as(batch.x).to(batch.x.dtype)

    def represent_in_pieces(self, pieces: Pieces) -> torch.Tensor:
        """The vector of one sample of any size, in bounded memory, (1, n_latent)."""
        seen: list[torch.Tensor] = []
        whole = partial(self._read_pieces, pieces, seen)
        if self.modality_parts is None:
            z = self._embed_pieces(whole)
        else:
            parts = [w * self._embed_pieces(rows, kind) for kind, w, rows in self.modality_parts.in_pieces(whole)]
            z = torch.stack(parts).sum(0)
        return self._whitened(z, self._shares(torch.stack(seen).sum(0)) if seen else None)

    def attention(self, batch: SampleBatch) -> torch.Tensor:
        """Weight of each cell in what represents its sample, (cells, n_heads); the weights of a sample sum to 1."""
        x = self.read(batch)
        if self.modality_parts is None:
            return self._attention(x, batch.ptr)
        parts = self.modality_parts(x, batch.ptr)
        return parts.spread(self._attention(x[parts.order], parts.ptr))

    def attention_in_pieces(self, pieces: Pieces) -> torch.Tensor:
        """The same for one sample of any size."""
        whole = partial(self._read_pieces, pieces)
        if self.modality_parts is None:
            return self._attention_in_pieces(whole)
        return self.modality_parts.attention_in_pieces(whole, self._attention_in_pieces)

    def _whitened(self, z: torch.Tensor, batches: torch.Tensor | None) -> torch.Tensor:
        """What represents samples, of vectors as training sees them, (samples, n_latent)."""
        return z if self.whitening is None else self.whitening(z, batches)

    def _batches(self, batch: SampleBatch) -> torch.Tensor | None:
        """Share of each batch in the cells of each sample, (samples, batches), where vectors depend on it."""
        counts = self._counts(batch)
        return None if counts is None else self._shares(counts)

    def _counts(self, batch: SampleBatch) -> torch.Tensor | None:
        """Cells of each batch in each sample, (samples, batches), where there are several."""
        codes = batch.covariates.get(REGISTRY_KEYS.BATCH_KEY)
        if self.whitening is None or codes is None:
            return None
        n_batches = len(self.whitening.shift)
        place = sample_of_cell(batch.ptr) * n_batches + codes
        counts = torch.zeros(batch.n_samples * n_batches, device=place.device, dtype=torch.float64)
        return counts.index_add(0, place, torch.ones_like(place, dtype=counts.dtype)).unflatten(0, (-1, n_batches))

    @staticmethod
    def _shares(counts: torch.Tensor) -> torch.Tensor:
        return counts / counts.sum(1, keepdim=True).clamp_min(1)

    def for_decoder(self, z: torch.Tensor) -> torch.Tensor:
        """What the decoder reads, of what represents samples, (samples, n_latent).

        Parameters
        ----------
        z
            Vectors, (samples, n_latent).
        """
        return z if self.whitening is None else self.whitening.undo(z)

    def _join(
        self, pooled: torch.Tensor, x: torch.Tensor, ptr: torch.Tensor, kind: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What attention pools of samples, or of parts of a kind, plus what the tokens pool, (samples, n_latent)."""
        if self.tokens is None:
            return pooled
        return pooled + self.token_weight * (self.tokens(x, ptr) if kind is None else self.tokens(x, ptr, kind))

    def _embed_pieces(self, rows: Rows, kind: torch.Tensor | None = None) -> torch.Tensor:
        pooled = self._pool_pieces(rows, kind)
        if self.tokens is None:
            return pooled
        return pooled + self.token_weight * self.tokens.embed_pieces(rows(), *(() if kind is None else (kind,)))

    def _read_pieces(self, pieces: Pieces, seen: list[torch.Tensor] | None = None) -> Iterator[torch.Tensor]:
        """What the encoder reads of each piece; the cells of each batch in it are added to ``seen``, anew in each pass."""
        if seen is not None:
            seen.clear()
        for piece in pieces():
            if seen is not None and (counts := self._counts(piece)) is not None:
                seen.append(counts)
            yield self.read(piece)

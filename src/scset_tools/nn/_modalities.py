"""Samples of several modalities: their parts, whose cells have the same modalities, and what a part weighs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scset_tools.nn._ragged import ptr_from_sizes, sample_of_cell
from scset_tools.nn._random import cell_uniform

__all__ = ["ModalityParts", "Parts"]

Chunks = Callable[[], Iterator[Tensor]]
"""The cells of one sample in pieces; each call starts over."""


@dataclass(frozen=True)
class Parts:
    """Parts of the samples of a batch: cells of one sample that have the same modalities.

    Attributes
    ----------
    order
        Row of each cell in an order in which those of a part lie together, samples in theirs, (cells,), int64.
    ptr
        Where each part begins and ends in that order, (parts + 1,), int64.
    sample
        Sample of each part, (parts,), int64.
    code
        Which modalities the cells of a part have: the sum of ``2 ** m``, (parts,), int64; 0 where they have none.
    kind
        What parts are compared with: the first modality where cells have one each, otherwise 0 for all, (parts,), int64.
    weight
        Weight of each part in the vector of its sample, (parts,): 0 for one without any modality; the weights of a sample sum to 1.
    n_samples
        Number of samples.
    """

    order: Tensor
    ptr: Tensor
    sample: Tensor
    code: Tensor
    kind: Tensor
    weight: Tensor
    n_samples: int

    def seeds(self, seed: Tensor) -> Tensor:
        """A seed for each part, (parts,).

        Parameters
        ----------
        seed
            Seed of each sample, (samples,).
        """
        return seed[self.sample] ^ (self.code << 40)

    def pool(self, z: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean vector of the parts of each sample, (..., samples, d).

        Parameters
        ----------
        z
            Vectors of the parts, (..., parts, d).
        weight
            Weights in the place of those of the parts, (parts,).
        """
        weight = (self.weight if weight is None else weight).to(z.dtype)[:, None]
        out = z.new_zeros((*z.shape[:-2], self.n_samples, z.shape[-1]))
        return out.index_add(z.ndim - 2, self.sample, z * weight)

    def spread(self, weights: Tensor) -> Tensor:
        """Weights of cells within the sample, in the order of the batch, (cells, heads).

        Parameters
        ----------
        weights
            Weights of cells within their part, in the order of the parts, (cells, heads).
        """
        part = sample_of_cell(self.ptr, n_cells=len(weights))
        return torch.empty_like(weights).index_copy(
            0, self.order, weights * self.weight.to(weights.dtype)[part][:, None]
        )


class ModalityParts(nn.Module):
    r"""Cut samples into parts whose cells have the same modalities, and weigh these.

    The vector of a sample is the weighted mean of those of its parts,

    .. math:: z_s = \sum_{p} \frac{w_p}{\sum_{p'} w_{p'}} z_p .

    Paired cells are one set: a part weighs as many as it has cells (:math:`w_p = n_p`), so that cells which lack a modality count as the others
    do. Unpaired modalities are sets of their own: each weighs the same (:math:`w_p = 1`), however many cells were measured by it. A modality
    that a sample lacks has no part: it is neither zero nor imputed.

    Parameters
    ----------
    modality
        Number of the modality of each feature, (features,), int64.
    is_paired
        Whether cells have several modalities.
    """

    of_feature: Tensor

    def __init__(self, modality: Tensor, *, is_paired: bool) -> None:
        super().__init__()
        self.n_modalities, self.is_paired = int(modality.max()) + 1, is_paired
        self.register_buffer("of_feature", nn.functional.one_hot(modality, self.n_modalities).to(torch.float32))

    @property
    def n_kinds(self) -> int:
        """Number of kinds of parts."""
        return 1 if self.is_paired else self.n_modalities

    def codes(self, x: Tensor) -> Tensor:
        """Which modalities each cell has, (cells,), int64.

        Parameters
        ----------
        x
            Cells, NaN where a feature is not measured, (cells, features).
        """
        has = ((~x.isnan()).to(self.of_feature.dtype) @ self.of_feature) > 0
        return (has.long() << torch.arange(self.n_modalities, device=x.device)).sum(1)

    def forward(self, x: Tensor, ptr: Tensor) -> Parts:
        """The parts of the samples of a batch.

        Parameters
        ----------
        x
            Cells, NaN where a feature is not measured, (cells, features).
        ptr
            Boundaries of the samples, (samples + 1,).
        """
        sample = sample_of_cell(ptr, n_cells=len(x))
        key = (sample << self.n_modalities) + self.codes(x)
        order = torch.argsort(key, stable=True)
        found, sizes = torch.unique_consecutive(key[order], return_counts=True)
        of_part, code = found >> self.n_modalities, found & ((1 << self.n_modalities) - 1)
        weight = self.weights(code, of_part, n_cells=sizes, n_samples=len(ptr) - 1)
        return Parts(order, ptr_from_sizes(sizes), of_part, code, self.kind_of(code), weight, len(ptr) - 1)

    def kind_of(self, code: Tensor) -> Tensor:
        """Kind of a part by its modalities, int64 (parts,).

        Parameters
        ----------
        code
            Modalities of each part, as from :meth:`codes`, (parts,).
        """
        if self.is_paired:
            return torch.zeros_like(code)
        bits = (code[:, None] >> torch.arange(self.n_modalities, device=code.device)) & 1
        return bits.argmax(1)

    def weights(self, code: Tensor, sample: Tensor, *, n_cells: Tensor, n_samples: int) -> Tensor:
        """Weight of each part within its sample, (parts,).

        Parameters
        ----------
        code, sample, n_cells
            Modalities, sample and number of cells of each part, (parts,).
        n_samples
            Number of samples.
        """
        weight = n_cells.to(torch.float32) if self.is_paired else torch.ones(len(code), device=code.device)
        weight = weight * (code > 0)
        total = weight.new_zeros(n_samples).index_add(0, sample, weight)
        return weight / total.clamp_min(1e-12)[sample]

    def drop(self, x: Tensor, ptr: Tensor, seed: Tensor, *, rate: float, stream: int) -> Tensor:
        """Hide modalities of whole samples, as if they had not been measured.

        Parameters
        ----------
        x
            Cells, NaN where a feature is not measured, (cells, features).
        ptr
            Boundaries of the samples, (samples + 1,).
        seed
            Seed of each sample, (samples,): what is drawn for it depends on nothing else.
        rate
            Probability that a sample loses a modality; one that it has always stays.
        stream
            Which of the independent sequences of the seed to read.

        Returns
        -------
        The cells with NaN for what is hidden, (cells, features).
        """
        n_samples, k = len(seed), self.n_modalities
        sample = sample_of_cell(ptr, n_cells=len(x))
        bits = (self.codes(x)[:, None] >> torch.arange(k, device=x.device)) & 1
        has = torch.zeros(n_samples, k, dtype=bits.dtype, device=x.device).index_add(0, sample, bits) > 0
        u = cell_uniform(seed, torch.arange(n_samples + 1, device=ptr.device) * k, stream=stream).view(n_samples, k)
        u = torch.where(has, u, -1.0)  # what a sample lacks cannot be what stays
        is_dropped = (u < rate) & (u < u.amax(dim=1, keepdim=True))  # (samples, modalities)
        of_sample = is_dropped.to(self.of_feature.dtype) @ self.of_feature.T > 0  # (samples, features)
        return x.masked_fill(of_sample[sample], torch.nan)

    def in_pieces(self, chunks: Chunks) -> list[tuple[Tensor, float, Chunks]]:
        """The parts of one sample of any size, which comes in pieces.

        Parameters
        ----------
        chunks
            Gives its cells, (n_i, features); each call starts over.

        Returns
        -------
        For each part its kind, (1,), its weight, and what gives its cells in pieces.
        """
        codes = torch.cat([self.codes(x) for x in chunks()])
        found, n_cells = torch.unique(codes, return_counts=True)
        weight = self.weights(found, torch.zeros_like(found), n_cells=n_cells, n_samples=1)

        def rows_of(code: Tensor) -> Chunks:
            def rows() -> Iterator[Tensor]:
                for x in chunks():
                    own = x[self.codes(x) == code]
                    if len(own):
                        yield own

            return rows

        kinds = self.kind_of(found).split(1)
        return [(kind, float(w), rows_of(code)) for kind, w, code in zip(kinds, weight, found, strict=True)]

    def attention_in_pieces(self, chunks: Chunks, attention: Callable[[Chunks], Tensor]) -> Tensor:
        """Weight of each cell of one sample of any size, (cells, heads), in the order of the pieces.

        Parameters
        ----------
        chunks
            As for :meth:`in_pieces`.
        attention
            Weights of the cells of a set that comes in pieces, which sum to 1.
        """
        codes = torch.cat([self.codes(x) for x in chunks()])
        found = torch.unique(codes)
        own = [w * attention(rows) for _, w, rows in self.in_pieces(chunks)]
        out = own[0].new_zeros(len(codes), own[0].shape[1])
        for code, weights in zip(found, own, strict=True):
            out[codes == code] = weights
        return out

    def extra_repr(self) -> str:
        """Sizes, as torch prints them."""
        return f"n_modalities={self.n_modalities}, is_paired={self.is_paired}"

"""Network and losses of SelfGuidedMAE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from scvi.module.base import LossOutput
from torch import nn
from torch.utils.checkpoint import checkpoint

from scset_tools.data._cells import CellBatch
from scset_tools.model._base_module import Pieces, SampleModule
from scset_tools.model.selfguided._decoder import GeneDecoder
from scset_tools.model.selfguided._encoder import GeneEncoder, pool_tokens
from scset_tools.model.selfguided._frequency import MaskingCounts
from scset_tools.model.selfguided._latents import LatentCrossAttention, Zeros, overlap, relative_perplexity
from scset_tools.model.selfguided._masking import HiddenGenes, absent_genes, hide_genes, used_latents
from scset_tools.model.selfguided._pooling import SAMPLE_POOLINGS, attention_weights
from scset_tools.model.selfguided._tokens import Tokens, front, pad
from scset_tools.nn import host_sizes, ptr_from_sizes, sample_of_cell, to_device
from scset_tools.nn._memory import rows_at_once
from scset_tools.nn._ragged import bounds

MAX_TOKENS = 2**15
"""Most padded tokens that are encoded at once at inference on a CPU. On a GPU its memory decides."""


class SelfGuidedMAEModule(SampleModule):
    """Masked autoencoder over genes with a mask that its own attention guides.

    Parameters
    ----------
    gene_ids
        Number of each feature in the vocabulary, -1 where it has none, (features,), int64.
        The other parameters are those of :class:`~scset_tools.model.SelfGuidedMAE`.
    """

    def __init__(
        self,
        gene_ids: torch.Tensor,
        *,
        n_genes: int,
        n_hidden: int,
        n_layers: int,
        n_heads: int,
        n_ff: int,
        n_bins: int,
        bin_alpha: float,
        n_latents: int,
        n_latent_hidden: int,
        n_latent_heads: int,
        importance_spread: float,
        n_decoder_hidden: int,
        n_decoder_layers: int,
        n_decoder_heads: int,
        dim_decoder_head: int | None,
        n_decoder_features: int | None,
        n_decoder_norms: int,
        masking: str,
        mask_candidates: str,
        mask_rate: float,
        zero_mask_rate: float,
        attention_weight: float,
        pool: str,
        sample_pooling: str,
        target_sum: float | None,
        read_depth_tokens: bool,
        target_depth: float | None,
        dropout_rate: float,
    ) -> None:
        super().__init__()
        self.n_genes, self.masking, self.mask_rate, self.zero_mask_rate = n_genes, masking, mask_rate, zero_mask_rate
        self.mask_candidates = mask_candidates
        self.attention_weight, self.pool, self.sample_pooling = attention_weight, pool, sample_pooling
        self.target_sum, self.target_depth = target_sum, target_depth
        self.n_depth = 2 if read_depth_tokens else 0
        self.register_buffer("gene_ids", gene_ids)
        is_measured = torch.zeros(n_genes, dtype=torch.bool)
        is_measured[gene_ids[gene_ids >= 0]] = True
        self.register_buffer("is_measured", is_measured)
        self.n_measured = int(is_measured.sum())
        latents = None
        if n_latents:
            latents = LatentCrossAttention(
                n_hidden,
                n_latents=n_latents,
                n_latent_hidden=n_latent_hidden,
                n_heads=n_latent_heads,
                importance_spread=importance_spread,
            )
        self.encoder = GeneEncoder(
            n_genes + self.n_depth,
            n_hidden=n_hidden,
            n_layers=n_layers,
            n_heads=n_heads,
            n_ff=n_ff,
            n_bins=n_bins,
            bin_alpha=bin_alpha,
            latents=latents,
            dropout_rate=dropout_rate,
        )
        self.decoder = GeneDecoder(
            n_hidden,
            n_decoder_hidden,
            n_layers=n_decoder_layers,
            n_heads=n_decoder_heads,
            dim_head=dim_decoder_head,
            n_features=n_decoder_features,
            n_norms=n_decoder_norms,
        )
        self.counts = MaskingCounts(n_genes)
        self.n_output = n_hidden * (1 if pool != "all" else 2 + self.n_depth)

        self.metrics = (
            "reconstruction",
            "unexplained",
            *(["overlap"] if latents is not None else []),
            *(["perplexity"] if masking == "self_guided" else []),
        )

    # ---- what learns

    def new_parameters(self) -> list[nn.Parameter]:
        """Parameters that a checkpoint of scFoundation has no values for: of latents and adapter."""
        return [] if self.encoder.latents is None else list(self.encoder.latents.parameters())

    def partial_modules(self) -> Sequence[nn.Module]:
        """Embeddings and the last block of the encoder; latents, adapter and decoder stay as they are (paper, section 4)."""
        return self.encoder.value_embedding, self.encoder.gene_embedding, self.encoder.layers[-1]

    # ---- loss

    def loss(self, batch: CellBatch) -> LossOutput:
        """Mean squared error of hidden values, mean over the batch."""
        tokens = self.tokens(batch)
        embedded = self.encoder.embed(tokens)
        importance = self.importance(tokens, embedded, batch.seed)
        hidden = self._hide(tokens, batch.seed, importance)
        predicted, attention = self.predict_hidden(tokens, embedded, hidden, depth=self.depth_tokens(batch))
        weight = hidden.is_real.to(predicted.dtype)
        weight = weight / weight.sum().clamp_min(1)
        truth = hidden.value.to(predicted.dtype)
        error = ((predicted - truth).square() * weight).sum()
        variance = ((truth - (truth * weight).sum()).square() * weight).sum()
        # hidden values that are all alike have no variance to explain: no number, which the mean of an epoch leaves out
        metrics = {"reconstruction": error, "unexplained": error / torch.where(variance > 0, variance, torch.nan)}
        total = error
        if attention is not None:
            metrics["overlap"] = overlap(attention).mean()
            total = total + self.attention_weight * metrics["overlap"].to(total.dtype)
        if importance is not None:
            metrics["perplexity"] = self._perplexity(tokens, importance).mean()
        if self.training and torch.is_grad_enabled():
            self.counts.add(tokens, hidden, n_cells=batch.n_cells)
        return LossOutput(loss=total, n_obs_minibatch=batch.n_cells, extra_metrics=metrics)

    # ---- parts of the reconstruction

    def values(self, batch: CellBatch) -> torch.Tensor:
        """Values of the expressed genes as the encoder reads them, (tokens,): ``log1p(x / sum(x) * target_sum)`` of counts."""
        if self.target_sum is None:
            return batch.value
        total = self._totals(batch)[sample_of_cell(batch.ptr, n_cells=len(batch.value))]
        return torch.log1p(batch.value / total.to(batch.value.dtype) * self.target_sum)

    def tokens(
        self, batch: CellBatch, cells: torch.Tensor | slice = slice(None), *, value: torch.Tensor | None = None
    ) -> Tokens:
        """Expressed genes of (some) cells, numbered on the host, with their :meth:`values`, or others in their place, (tokens,)."""
        value = self.values(batch) if value is None else value
        gene, ptr = batch.gene, batch.ptr
        if not isinstance(cells, slice):
            at, sizes = _positions(ptr, cells)
            at = to_device(at, ptr.device)
            gene, value, ptr = gene[at], value[at], ptr_from_sizes(sizes.tolist(), device=ptr.device)
        return pad(gene, value, ptr, padding=self.encoder.padding)

    def depth_tokens(self, batch: CellBatch) -> torch.Tensor | None:
        """Target and own depth of each cell, log10 of counts, (cells, 2); None if the model has no such tokens."""
        if not self.n_depth:
            return None
        own = self._totals(batch).log10()
        target = own if self.target_depth is None else torch.full_like(own, self.target_depth)
        return torch.stack([target, own], 1)

    def importance(
        self, tokens: Tokens, embedded: torch.Tensor, seed: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """How much a random half of the latents attends to each token and to each other gene; None with random masks."""
        if self.masking != "self_guided":
            return None
        latents = cast("LatentCrossAttention", self.encoder.latents)
        is_used = used_latents(seed, len(latents.latents))
        return latents.importance(embedded, tokens.is_real, is_used, zeros=self._zeros(tokens))

    def hide(self, tokens: Tokens, embedded: torch.Tensor, seed: torch.Tensor) -> HiddenGenes:
        """Draw what is hidden of each cell, guided by the attention of a random half of the latents or not."""
        return self._hide(tokens, seed, self.importance(tokens, embedded, seed))

    def _hide(
        self, tokens: Tokens, seed: torch.Tensor, importance: tuple[torch.Tensor, torch.Tensor] | None
    ) -> HiddenGenes:
        return hide_genes(
            tokens,
            seed,
            importance=importance,
            candidates=self.mask_candidates,
            rate=self.mask_rate,
            zero_rate=self.zero_mask_rate,
            is_measured=self.is_measured,
            n_measured=self.n_measured,
        )

    def _perplexity(self, tokens: Tokens, importance: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Perplexity of the importance of each cell's candidates, relative to even, (cells,)."""
        if self.mask_candidates == "expressed":
            return relative_perplexity(importance[0], tokens.is_real)
        is_candidate = torch.cat([tokens.is_real, absent_genes(tokens, self.is_measured)], 1)
        return relative_perplexity(torch.cat(importance, 1), is_candidate)

    def _zeros(self, tokens: Tokens, hidden: HiddenGenes | None = None) -> Zeros | None:
        """The genes that a cell does not express and that are not hidden, where the latents attend to them as well."""
        if self.mask_candidates != "all" or self.encoder.latents is None:
            return None
        is_there = absent_genes(tokens, self.is_measured)
        if hidden is not None:
            is_there = absent_genes(
                Tokens(hidden.gene.masked_fill(~hidden.is_real, self.n_genes), hidden.value, hidden.is_real), is_there
            )
        zero = self.encoder.value_embedding(torch.zeros(1, device=is_there.device, dtype=self.encoder.dtype))
        return Zeros(zero + self.encoder.gene_embedding.weight[: self.n_genes], self.is_measured, is_there)

    def predict_hidden(
        self, tokens: Tokens, embedded: torch.Tensor, hidden: HiddenGenes, *, depth: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Predicted hidden values, and each latent's attention on the tokens in sight."""
        index, is_real = front(hidden.is_visible, hidden.n_visible)
        visible = tokens.take(index, is_real, padding=self.encoder.padding)
        x = embedded.gather(1, index.unsqueeze(-1).expand(-1, -1, embedded.shape[-1]))
        if depth is not None:
            visible, x = self._append_depth(visible, x, depth)
        x, attention = self.encoder(x, visible.is_real, self._zeros(tokens, hidden))
        gene_embedding = self.encoder.gene_embedding
        value_embedding = self.encoder.value_embedding
        positions = torch.arange(gene_embedding.num_embeddings - 1, device=x.device)
        zero = value_embedding(torch.zeros(1, device=x.device, dtype=self.encoder.dtype))
        predicted = self.decoder(
            zero + gene_embedding(positions),
            (x + gene_embedding(visible.gene), visible.gene, visible.is_real),
            (value_embedding.hidden + gene_embedding(hidden.gene), hidden.gene, hidden.is_real),
        )
        return predicted, attention

    # ---- inference

    def represent(self, batch: CellBatch) -> torch.Tensor:
        """One vector per sample, pooled over its cells, (samples, n_output)."""
        return self._pool_cells(self.embed_cells(batch), batch)

    def represent_values(self, value: torch.Tensor, batch: CellBatch) -> torch.Tensor:
        """The vectors if the expressed genes had other :meth:`values`, (tokens,): with a gradient, in the memory of some cells."""
        return self._pool_cells(self.embed_cells(batch, value=value), batch)

    def _pool_cells(self, cells: torch.Tensor, batch: CellBatch) -> torch.Tensor:
        parts = cells.split(host_sizes(batch.sample_ptr))
        pool = SAMPLE_POOLINGS[self.sample_pooling]
        return torch.cat([pool(partial(iter, [part])) for part in parts])

    def represent_in_pieces(self, pieces: Pieces) -> torch.Tensor:
        """The vector of one sample of any size, in bounded memory, (1, n_output)."""

        def cells() -> Iterator[torch.Tensor]:
            for piece in pieces():
                yield self.embed_cells(piece)

        return SAMPLE_POOLINGS[self.sample_pooling](cells)

    @property
    def no_attention(self) -> str | None:
        """Why there is no attention; None if there is."""
        if self.sample_pooling == "attention":
            return None
        return "its samples are the plain mean of their cells; build it with sample_pooling='attention' to weigh them"

    def attention(self, batch: CellBatch) -> torch.Tensor:
        """Weight of each cell in the pooling of its sample, (cells, 1)."""
        parts = self.embed_cells(batch).split(host_sizes(batch.sample_ptr))
        return torch.cat([attention_weights(partial(iter, [part])) for part in parts])

    def attention_in_pieces(self, pieces: Pieces) -> torch.Tensor:
        """The same for one sample of any size."""
        cells = self.embed_cells_in_pieces(pieces)  # vectors of cells are short
        return attention_weights(partial(iter, [cells]))

    def embed_cells(self, batch: CellBatch, *, value: torch.Tensor | None = None) -> torch.Tensor:
        """One vector per cell from all its expressed genes, (cells, n_output); of other :meth:`values`, if given."""
        sizes, device = torch.tensor(host_sizes(batch.ptr)), batch.ptr.device
        encode: Any = self._encode
        if value is not None and torch.is_grad_enabled():
            # what the transformer keeps for a gradient is far more than its tokens: computed again, some cells at a time
            encode = partial(checkpoint, self._encode, use_reentrant=False, preserve_rng_state=False)
        order = torch.argsort(sizes, stable=True)
        out = torch.empty(batch.n_cells, self.n_output, device=device, dtype=self.encoder.dtype)
        most = rows_at_once(device, 4 * 16 * self.encoder.norm.weight.shape[0], on_cpu=MAX_TOKENS)
        start, ascending = 0, sizes[order].tolist()
        while start < len(ascending):
            stop = start + 1
            while stop < len(ascending) and (stop + 1 - start) * ascending[stop] <= most:
                stop += 1
            cells = order[start:stop]
            out[to_device(cells, device)] = encode(batch, cells, value).to(out.dtype)
            start = stop
        return out

    def embed_cells_in_pieces(self, pieces: Pieces) -> torch.Tensor:
        """The same for one sample of any size."""
        return torch.cat([self.embed_cells(piece) for piece in pieces()])

    def _encode(self, batch: CellBatch, cells: torch.Tensor | slice, value: torch.Tensor | None = None) -> torch.Tensor:
        tokens = self.tokens(batch, cells, value=value)
        x = self.encoder.embed(tokens)
        zeros = self._zeros(tokens)
        depth = self.depth_tokens(batch)
        if depth is not None:
            own = depth[cells if isinstance(cells, slice) else to_device(cells, depth.device)]
            tokens, x = self._append_depth(tokens, x, own)
        x, _ = self.encoder(x, tokens.is_real, zeros)
        return pool_tokens(x, tokens.is_real, self.pool, n_depth=self.n_depth)

    def _append_depth(self, tokens: Tokens, x: torch.Tensor, depth: torch.Tensor) -> tuple[Tokens, torch.Tensor]:
        """Tokens and their embeddings with the depth tokens last, padding moved behind them."""
        gene = self.n_genes + torch.arange(self.n_depth, device=x.device)
        longer = tokens.append(gene, depth)
        index, is_real = front(longer.is_real, None if longer.sizes is None else max(longer.sizes, default=0))
        x = torch.cat([x, self.encoder.embed(Tokens(gene.expand(len(x), -1), depth, depth > -torch.inf))], 1)
        x = x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        return longer.take(index, is_real, padding=self.encoder.padding), x

    @staticmethod
    def _totals(batch: CellBatch) -> torch.Tensor:
        """Sum of the values of each cell, (cells,), float32 or better."""
        value = batch.value.to(torch.promote_types(batch.value.dtype, torch.float32))
        cell = sample_of_cell(batch.ptr, n_cells=len(value))
        # sums of counts below 2^24 are exact in any order
        return value.new_zeros(batch.n_cells).index_add_(0, cell, value)


def _positions(ptr: torch.Tensor, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of the tokens of these cells, one cell after the other, and how many each has; on the host, which knows both."""
    known = torch.tensor(bounds(ptr))
    sizes = known.diff()[cells]
    first = (known[:-1][cells] - (sizes.cumsum(0) - sizes)).repeat_interleave(sizes)
    return first + torch.arange(len(first)), sizes

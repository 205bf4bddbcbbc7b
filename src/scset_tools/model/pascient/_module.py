"""Network and loss of PaSCient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from scset_tools.data._batch import SampleBatch
from scset_tools.data._sparse import SparseRows
from scset_tools.model._base_module import Pieces, SampleLoss, SampleModule
from scset_tools.model._setup import label_values
from scset_tools.model.pascient._aggregators import PoolAggregator, make_aggregator
from scset_tools.model.supervise._heads import Head, make_head
from scset_tools.model.supervise._module import label_loss, metric_names
from scset_tools.model.supervise._targets import Target
from scset_tools.nn import SparseLinear, cell_uniform, hide_genes, host_sizes, log_normalize, on_host, thin_counts
from scset_tools.nn.loss import ContrastiveLoss

CELL_TYPE_KEY = "cell_type"
"""Registry key of the type of each cell."""

_CONTRAST_STREAM = 14


class PaSCientModule(SampleModule):
    """Cell encoder, aggregator, sample encoder and one head per target (PaSCient eq. 1-3).

    Parameters
    ----------
    n_input
        Number of features of a cell.
    targets
        What is predicted.
    n_slots
        Fill samples up to this number of cells with cells without counts, as the published code does; None does not.
    location, scale
        What is taken from each feature and what it is divided by, before the first layer, (n_input,) each; None for 0 and 1.
        The other parameters are those of :class:`~scset_tools.model.PaSCient`.
    """

    def __init__(
        self,
        n_input: int,
        targets: Sequence[Target],
        *,
        n_hidden: int,
        n_latent: int,
        n_encoder_layers: int,
        aggregator: str,
        n_heads: int,
        n_layers: int,
        n_inducing: int,
        dropout_rate: float,
        init_scale: float,
        log_normalize: bool,
        depth: tuple[float, float] | None,
        gene_mask_rate: float,
        contrastive_weight: float,
        contrastive_temperature: float,
        n_contrastive_cells: int,
        n_slots: int | None = None,
        location: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.targets = tuple(targets)
        self.log_normalize, self.depth, self.gene_mask_rate = log_normalize, depth, gene_mask_rate
        self.contrastive_weight, self.n_contrastive_cells = contrastive_weight, n_contrastive_cells
        self.first = SparseLinear(n_input, n_hidden, init_scale=init_scale, location=location, scale=scale)
        self.rest = nn.Sequential(
            *(part for _ in range(n_encoder_layers) for part in (nn.PReLU(), nn.Linear(n_hidden, n_hidden)))
        )
        self.aggregator = make_aggregator(
            aggregator,
            n_hidden,
            n_heads=n_heads,
            n_layers=n_layers,
            n_inducing=n_inducing,
            dropout_rate=dropout_rate,
            n_slots=n_slots,
        )
        self.sample_encoder = nn.Sequential(
            nn.Linear(n_hidden, n_latent),
            nn.PReLU(),
            nn.Dropout(dropout_rate),
            nn.Linear(n_latent, n_latent),
            nn.PReLU(),
        )
        self.heads = nn.ModuleList(make_head(t.kind, n_latent, classes=t.classes) for t in self.targets)
        self.contrast = ContrastiveLoss(contrastive_temperature) if contrastive_weight else None
        names = [target.name for target in self.targets]
        self._metric_names = metric_names(names, [cast("Head", head) for head in self.heads])
        self.metrics = (
            *(name for names in self._metric_names for name in names),
            *(["contrastive"] if self.contrast is not None else []),
        )

    # ---- loss

    def loss(self, batch: SampleBatch) -> SampleLoss:
        """Sum over targets of the mean loss of the samples labelled for it, and the contrastive term.

        What is logged is a mean over the samples that it was computed of.
        """
        h = self.encode_cells(self.augmented(batch))
        z = self.encode_pooled(h, batch.ptr)
        heads = [cast("Head", head) for head in self.heads]
        given = {key: on_host(values) for key, values in batch.labels.items()}
        labels = [label_values(given, target) for target in self.targets]
        total, metrics, n_labelled, n_any = label_loss(z, heads, labels, names=self._metric_names)
        if self.contrast is not None:
            metrics["contrastive"] = self._contrastive_loss(h, batch)
            total = total + self.contrastive_weight * metrics["contrastive"]
        n_labelled["loss"] = batch.n_samples if self.contrast is not None else n_any
        return SampleLoss(loss=total, n_obs_minibatch=batch.n_samples, extra_metrics=metrics, weights=n_labelled)

    def _contrastive_loss(self, h: Tensor, batch: SampleBatch) -> Tensor:
        """Over some cells of each sample, as many of each: the loss costs the square of their number."""
        n_each = max(1, self.n_contrastive_cells // max(batch.n_samples, 1))
        order = cell_uniform(batch.seed, batch.ptr, stream=_CONTRAST_STREAM)
        rows = [
            start + own.argsort()[:n_each]
            for start, own in zip(batch.ptr[:-1], order.split(host_sizes(batch.ptr)), strict=True)
        ]
        chosen = torch.cat(rows)
        contrast = cast("ContrastiveLoss", self.contrast)  # called only where there is one
        return contrast(h[chosen], batch.covariates[CELL_TYPE_KEY][chosen])

    def augmented(self, batch: SampleBatch) -> Tensor | SparseRows:
        """What enters the first layer; in training with thinned counts and hidden genes, if asked."""
        if not self.training or (self.depth is None and not self.gene_mask_rate):
            return self.features(batch.x)
        x = batch.x if isinstance(batch.x, SparseRows) else SparseRows.from_dense(batch.x)
        if self.depth is not None:
            x = x.with_values(thin_counts(x, batch.ptr, batch.seed, depth=self.depth))
        x = cast("SparseRows", self.features(x))  # sparse stays sparse
        if self.gene_mask_rate:
            x = x.with_values(hide_genes(x, batch.ptr, batch.seed, rate=self.gene_mask_rate))
        return x

    def partial_modules(self) -> Sequence[nn.Module]:
        """Aggregator and sample encoder: all but the embedding of cells."""
        return self.aggregator, self.sample_encoder

    # ---- inference

    def features(self, x: Tensor | SparseRows) -> Tensor | SparseRows:
        """Features as the network reads them: normalised if the input is counts; sparse stays sparse."""
        if not self.log_normalize:
            return x
        if isinstance(x, SparseRows):
            return x.with_values(log_normalize(x))
        counts = x.float()  # half precision stops adding ones at 256
        total = counts.sum(1, keepdim=True).clamp_min(torch.finfo(counts.dtype).tiny)
        return torch.log1p(counts * (1e4 / total)).to(x.dtype)

    def encode_cells(self, x: Tensor | SparseRows) -> Tensor:
        """Hidden states of cells, (cells, n_hidden)."""
        return self.rest(self.first(x))

    def encode_pooled(self, h: Tensor, ptr: Tensor) -> Tensor:
        """Vectors of samples from the hidden states of their cells, (samples, n_latent)."""
        return self.sample_encoder(self.aggregator(h, ptr, self._empty()))

    def from_first_layer(self, first: Tensor, ptr: Tensor) -> Tensor:
        """Vectors of samples from the output of the first layer, in whose space attributions are integrated."""
        return self.encode_pooled(self.rest(first), ptr)

    def second_layer(self) -> tuple[Tensor, Tensor | None] | None:
        """A linear layer on the output of the first one, if the aggregator begins with one: see ``from_two_layers``."""
        if len(self.rest) or not isinstance(self.aggregator, PoolAggregator) or self.aggregator.n_slots is not None:
            return None
        return self.aggregator.pool.score_layer()

    def from_two_layers(self, both: Tensor, ptr: Tensor) -> Tensor:
        """Vectors of samples from the outputs of the first and the second layer side by side."""
        width = self.first.weight.shape[1]
        return self.sample_encoder(self.aggregator.pool.pool_scored(both[:, :width], both[:, width:], ptr))

    def represent(self, batch: SampleBatch) -> Tensor:
        """One vector per sample, (samples, n_latent)."""
        return self.encode_pooled(self.encode_cells(self.features(batch.x)), batch.ptr)

    def represent_in_pieces(self, pieces: Pieces) -> Tensor:
        """The vector of one sample of any size, (1, n_latent)."""
        return self.sample_encoder(self.aggregator.in_pieces(lambda: self._hidden(pieces), self._empty()))

    def attention(self, batch: SampleBatch) -> Tensor:
        """Weight of each cell in the aggregation, (cells, n_heads)."""
        return self.aggregator.weights(self.encode_cells(self.features(batch.x)), batch.ptr)

    def attention_in_pieces(self, pieces: Pieces) -> Tensor:
        """The same for one sample of any size."""
        return self.aggregator.weights_in_pieces(lambda: self._hidden(pieces))

    def _hidden(self, pieces: Pieces) -> Iterator[Tensor]:
        for piece in pieces():
            yield self.encode_cells(self.features(piece.x))

    def _empty(self) -> Tensor | None:
        """Hidden state of a cell without counts, where samples are filled up with such cells."""
        return self.rest(self.first.folded()[1]) if getattr(self.aggregator, "n_slots", None) is not None else None

"""Network and loss of MAESTRO."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from scvi.module.base import LossOutput
from torch import nn

from scset_tools.data._batch import SampleBatch
from scset_tools.model._conditions import InBatch, conditions_of, dependences, values_in, without_effects
from scset_tools.model._pooled_module import PooledModule, Rows
from scset_tools.model._whitening import PartialWhitening
from scset_tools.model.maestro._decoder import SetDecoder
from scset_tools.model.maestro._latent import move_towards
from scset_tools.model.maestro._teacher import Student, encode_all
from scset_tools.model.maestro._views import StudentViews, hide, student_views
from scset_tools.nn import (
    MarginalTokenPool,
    MarkerEmbedding,
    ModalityParts,
    Parts,
    ProjectionHead,
    SetEncoder,
    TokenPool,
    drop_markers,
    ema_decay_at,
    ema_update,
    stream_attention,
    stream_embed,
)
from scset_tools.nn.loss import DistillationLoss, RelationalLoss, SinkhornLoss

STREAM_MARKERS, STREAM_MODALITIES = 90, 91
"""Sequences of a sample's seed: which markers, and which modalities, it loses."""


class MAESTROModule(PooledModule):
    """Masked set transformer with self-distillation (MAESTRO, Algorithm 3).

    Parameters
    ----------
    mean, scale
        Location and scale of each feature in each batch, (batches, features): cells enter as ``(x - mean) / scale``.
    modality
        Number of the modality of each feature, (features,), if there are several.
    is_paired
        Whether cells have several modalities.
    covariates
        Key in a batch, number of classes (0: a number) and whether it is one of cells, of each covariate that the decoder is told.
    moments
        Mean and standard deviation of each covariate that is a number, (covariates, 2).
    batch_weights
        Weight of the term that takes each covariate out of the vectors.
        The other parameters are those of :class:`~scset_tools.model.MAESTRO`.
    """

    def __init__(
        self,
        mean: torch.Tensor,
        scale: torch.Tensor,
        *,
        n_hidden: int,
        n_latent: int,
        n_inducing: int,
        n_heads: int,
        n_layers: int,
        n_cells: int,
        mask_rates: Sequence[float],
        masking: str,
        views: Sequence[str],
        decoder: str,
        reconstruct: str,
        reconstruction_weight: float,
        distillation_weight: float,
        distillation: str,
        n_tokens: int,
        token_weight: float,
        whitening: float = 0.0,
        standardize_latent: bool,
        one_rate: bool,
        unmasked_view: bool,
        n_prototypes: int,
        student_temperature: float,
        teacher_temperature: float,
        center_momentum: float,
        ema_decay: float,
        dropout_rate: float,
        represent_with: str,
        is_open: bool = False,
        marker_dropout_rate: float = 0.0,
        modality: torch.Tensor | None = None,
        is_paired: bool = True,
        modality_dropout_rate: float = 0.0,
        covariates: InBatch = (),
        moments: torch.Tensor | None = None,
        covariate_dropout: float = 0.1,
        batch_weights: Sequence[float] = (),
    ) -> None:
        super().__init__()
        n_input = mean.shape[1]
        self.modality_dropout_rate = modality_dropout_rate
        self.modality_parts = None if modality is None else ModalityParts(modality, is_paired=is_paired)
        self.n_kinds = n_kinds = (
            1 if modality is None else self.modality_parts.n_kinds
        )  # of sets, each centred by itself
        own = (n_kinds,) if n_kinds > 1 else ()
        self.is_open, self.marker_dropout_rate = is_open, marker_dropout_rate
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.n_cells, self.mask_rates, self.masking, self.views = n_cells, tuple(mask_rates), masking, tuple(views)
        self.reconstruct, self.represent_with, self.ema_decay = reconstruct, represent_with, ema_decay
        self.reconstruction_weight, self.distillation_weight = reconstruction_weight, distillation_weight
        self.one_rate, self.unmasked_view = one_rate, unmasked_view
        self.standardize_latent, self.token_weight = standardize_latent, token_weight
        self.register_buffer("latent_location", torch.zeros(*own, n_latent))
        self.register_buffer("latent_scale", torch.ones(own))
        self.register_buffer("n_steps", torch.zeros(own, dtype=torch.int64))
        self.tokens = None
        if n_tokens and is_open:
            self.tokens = MarginalTokenPool(n_input, n_tokens * n_kinds, n_latent, n_groups=n_kinds)
        elif n_tokens:
            self.tokens = TokenPool(n_input, n_tokens, n_latent)
        self.whitening = PartialWhitening(n_latent, whitening, len(mean)) if whitening else None
        attention: Any = {"n_heads": n_heads, "n_inducing": n_inducing, "dropout_rate": dropout_rate}
        encoder = SetEncoder(
            n_input,
            n_hidden,
            n_latent,
            n_layers=n_layers,
            **attention,
            lift=MarkerEmbedding(n_input, n_hidden) if is_open else None,
        )
        # parts without a share in the loss are not made: several processes would wait for their gradients
        uses_head = distillation_weight and distillation == "prototypes"
        head = ProjectionHead(n_latent, n_prototypes, n_hidden=n_hidden) if uses_head else None
        self.student: Any = Student(encoder, head)
        self.hidden_token = nn.Parameter(torch.zeros(n_input))
        # None where the loss that they serve has no weight
        self.decoder: Any = None
        if reconstruction_weight:
            self.decoder = SetDecoder(n_latent, n_hidden, n_input, n_cells=n_cells, kind=decoder, **attention)
            self.transport = SinkhornLoss()
        self.teacher: Any = None
        if distillation_weight:
            self.teacher = copy.deepcopy(self.student).requires_grad_(requires_grad=False).eval()
            self.distillation: Any = RelationalLoss()
            if head is not None:
                temperatures = {"student_temperature": student_temperature, "teacher_temperature": teacher_temperature}
                self.distillation = DistillationLoss(n_prototypes, center_momentum=center_momentum, **temperatures)
        self.covariates, self.batch_weights = tuple(covariates), tuple(batch_weights)
        self._weighed: Any = {"covariates": self.covariates, "weights": self.batch_weights}
        self.conditions: Any = None
        if self.decoder is not None:  # after the rest, so that a model without covariates has the same first weights
            self.conditions = conditions_of(covariates, n_latent, moments=moments, dropout_rate=covariate_dropout)
        parts = {"reconstruction": self.decoder, "distillation": self.teacher, "dependence": any(self.batch_weights)}
        self.metrics = tuple(name for name, part in parts.items() if part)

    def train(self, mode: bool = True) -> MAESTROModule:  # noqa: FBT001, FBT002  (torch's signature)
        """Set the mode of training; the teacher has no dropout in either."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    # ---- loss

    def loss(self, batch: SampleBatch) -> LossOutput:
        r"""``reconstruction_weight * L_rec + distillation_weight * L_SD`` (Algorithm 3, steps 2-9), mean over views."""
        x, given, ptr, seed, parts = self.standardize(batch), self.as_given(batch), batch.ptr, batch.seed, None
        if self.modality_parts is not None:
            parts = self.modality_parts(x, ptr)
            x, given, ptr, seed = x[parts.order], given[parts.order], parts.ptr, parts.seeds(seed)
        how = {"masking": self.masking, "views": self.views, "one_rate": self.one_rate, "unmasked": self.unmasked_view}
        views = student_views(given, ptr, seed, n_cells=self.n_cells, mask_rates=self.mask_rates, **how)
        shown = x  # the student may see fewer modalities and markers than the teacher, and than it is to reconstruct
        if parts is not None and self.training and self.modality_dropout_rate:
            rate = self.modality_dropout_rate
            shown = self.modality_parts.drop(shown, batch.ptr, batch.seed, rate=rate, stream=STREAM_MODALITIES)
        if self.is_open and self.training and self.marker_dropout_rate:
            shown = drop_markers(shown, ptr, seed, rate=self.marker_dropout_rate, stream=STREAM_MARKERS)
        z = self.encode_views(shown, views, parts)
        values = values_in(batch, self.covariates) if self.covariates else None
        total = z.new_zeros((), dtype=torch.float32)
        metrics = {}
        if self.decoder is not None:
            said = values if values is None or self.conditions is None else self.conditions.drop(values, batch.seed)
            if said is not None and parts is not None:
                said = said[parts.sample]
            metrics["reconstruction"] = self._reconstruction_loss(x, views, self.told(z, views, said))
            total = total + self.reconstruction_weight * metrics["reconstruction"]
        if self.teacher is not None:
            weight = None if parts is None else self._weights(shown, parts)
            more: Any = {"parts": parts, "weight": weight, "values": values}
            metrics["distillation"] = self._distillation_loss(x, ptr, views, z, **more)
            total = total + self.distillation_weight * metrics["distillation"]
        if values is not None and any(self.batch_weights):
            first = z[: views.n_samples]  # the first view of each sample, which hides nothing if one does
            if parts is not None:
                first = parts.pool(first, self._weights(shown, parts))
            metrics["dependence"], weighted = dependences(first, values, **self._weighed)
            total = total + weighted
        return LossOutput(loss=total, n_obs_minibatch=batch.n_samples, extra_metrics=metrics)

    def _reconstruction_loss(self, x: torch.Tensor, views: StudentViews, z: torch.Tensor) -> torch.Tensor:
        """Transport cost between cells and their reconstruction (eq. 10), summed over features as in the paper."""
        decoded, rows, ptr = self.decode(views, z)
        target = x[views.index[rows]]
        if self.is_open:  # between what is measured of both
            is_missing = target.isnan()
            target, decoded = target.masked_fill(is_missing, 0), decoded.masked_fill(is_missing, 0)
        cost = self.transport(target, decoded, x_ptr=ptr, y_ptr=ptr)
        return cost.sum() / (ptr.diff() > 0).sum().clamp_min(1)  # over the views that hide something

    def _weights(self, shown: torch.Tensor, parts: Parts) -> torch.Tensor:
        """Weight of each part in the vector of its sample, of what is shown of it, (parts,)."""
        code = self.modality_parts.codes(shown[parts.ptr[:-1]])
        return self.modality_parts.weights(code, parts.sample, n_cells=parts.ptr.diff(), n_samples=parts.n_samples)

    def _distillation_loss(
        self,
        x: torch.Tensor,
        ptr: torch.Tensor,
        views: StudentViews,
        z: torch.Tensor,
        *,
        parts: Parts | None = None,
        weight: torch.Tensor | None = None,
        values: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Disagreement of the student's views with the teacher, who sees all cells: of geometry, or of prototypes (eq. 11-14)."""
        with torch.no_grad():
            kind = None if parts is None else parts.kind
            target = self._join(encode_all(self.teacher.encoder, x, ptr), x, ptr, kind)
        sample_of_view = views.sample_of_view
        if parts is not None:  # of views of parts views of samples
            target = parts.pool(target)
            z = parts.pool(z.unflatten(0, (-1, views.n_samples)), weight).flatten(0, 1)
            sample_of_view = torch.arange(len(target), device=z.device).repeat(len(z) // len(target))
        if self._is_relational:
            by_view = z.unflatten(0, (-1, len(target)))  # (views of a sample, samples, n_latent)
            if self.unmasked_view:  # a view with hidden cells is not to look like the whole sample
                by_view = by_view[:: len(by_view) // len(self.views)]
            if values is not None and any(self.batch_weights):
                # the teacher sees what is to leave the vectors; a student held to its whole geometry would keep it
                by_view, target = (without_effects(v, values, **self._weighed) for v in (by_view, target))
            return self.distillation(by_view, target)
        with torch.no_grad():
            target = self.teacher.head(target)  # (samples, n_prototypes)
        value = self.distillation(self.student.head(z), target, sample_of_view)
        if self.training and torch.is_grad_enabled():
            self.distillation.update_center(target)
        return value

    @property
    def _is_relational(self) -> bool:
        return self.student.head is None

    def told(self, z: torch.Tensor, views: StudentViews, values: torch.Tensor | None) -> torch.Tensor:
        """What the decoder is given of each view: its vector and the covariates of its sample, (views, n_latent).

        ``values`` are those of the samples, or parts of samples, of which there are views, (samples, covariates), NaN where unsaid.
        """
        if self.conditions is None or values is None:
            return z
        return z + self.conditions(values)[views.sample_of_view].to(z.dtype)

    def decode(self, views: StudentViews, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Decoded cells (n, features), which cells of the views they answer to (n,), and their boundaries (views + 1,)."""
        if self.reconstruct == "all":
            rows, ptr = torch.arange(len(views.index), device=z.device), views.ptr
        else:
            rows, ptr = views.hidden, views.ptr_hidden
        n_hidden = views.n_hidden
        decoded = self.decoder(z, views.slot[rows], ptr, n_visible=views.ptr.diff() - n_hidden, n_hidden=n_hidden)
        return decoded, rows, ptr

    def encode_views(self, x: torch.Tensor, views: StudentViews, parts: Parts | None = None) -> torch.Tensor:
        """Vectors of views with hidden cells, of samples or of their parts, (views, n_latent)."""
        kind = None if parts is None else parts.kind
        token: torch.Tensor = self.hidden_token
        if self.is_open:  # a hidden cell lacks the markers that its sample lacks
            token = torch.where(x[views.index[views.ptr[:-1]]].isnan(), torch.nan, token)
        rows, ptr, log_weight = hide(x, views, token)
        encoded = self.student.encoder(rows, ptr, log_weight=log_weight)
        if self.training and torch.is_grad_enabled():
            first = encoded.detach()[: views.n_samples]  # the first view of each sample
            for k in range(self.n_kinds):
                own = ... if parts is None else (parts.kind == k) & (self._weights(x, parts) > 0)
                self._update_latent(first[own], ... if self.n_kinds == 1 else k)
        kinds = None if kind is None else kind[views.sample_of_view]
        return self._join(encoded, x[views.index[views.visible]], views.ptr_visible, kinds)

    def _join(
        self, encoded: torch.Tensor, x: torch.Tensor, ptr: torch.Tensor, kind: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What attention pools, at zero mean and unit variance over samples, plus what the tokens pool, (samples, n_latent)."""
        return super()._join(self._scaled(encoded, kind), x, ptr, kind)

    def _scaled(self, encoded: torch.Tensor, kind: torch.Tensor | None = None) -> torch.Tensor:
        if not self.standardize_latent:
            return encoded
        if self.n_kinds == 1:
            return (encoded - self.latent_location) / self.latent_scale
        return (encoded - self.latent_location[kind]) / self.latent_scale[kind][:, None]

    def _update_latent(self, encoded: torch.Tensor, which: Any = ...) -> None:
        """Move location and scale towards those of a batch, of one kind of sets or of all."""
        if len(encoded) > 1 and self.standardize_latent:
            move_towards(encoded, self.latent_location, self.latent_scale, n_steps=self.n_steps, which=which)

    def after_step(self, step: int) -> None:
        """Move the teacher towards the student (eq. 13); with prototypes faster in the first steps."""
        if self.teacher is not None:
            # a slow teacher: the geometry of the first weights is what a relational student is held to
            decay = self.ema_decay if self._is_relational else ema_decay_at(step, self.ema_decay)
            ema_update(self.teacher, self.student, decay)

    def partial_modules(self) -> Sequence[nn.Module]:
        """The last block of the encoder with what comes after it, and what embeds the tokens."""
        encoder = self.encoder
        return encoder.layers[-1], encoder.pool, encoder.project, *([self.tokens] if self.tokens is not None else [])

    def named_parts(self) -> dict[str, nn.Module]:
        """What embeds markers, the blocks of the encoder, its pooling and the map to vectors, and the decoder."""
        if self.represent_with == "teacher":  # it follows the student, and fine-tuning would start from the teacher
            return {}
        encoder = self.student.encoder
        blocks = {f"block_{i}": block for i, block in enumerate(encoder.layers, start=1)}
        rest = {} if self.decoder is None else {"decoder": self.decoder}
        return {"markers": encoder.lift, **blocks, "pooling": encoder.pool, "projection": encoder.project, **rest}

    # ---- inference

    @property
    def encoder(self) -> SetEncoder:
        """The encoder that represents samples."""
        return (self.student if self.represent_with == "student" else self.teacher).encoder

    def represent(self, batch: SampleBatch) -> torch.Tensor:
        """One vector per sample, from all its cells, (samples, n_latent)."""
        x = self.standardize(batch)
        if self.modality_parts is None:
            return self._whitened(self._join(self.encoder(x, batch.ptr), x, batch.ptr), self._batches(batch))
        parts = self.modality_parts(x, batch.ptr)
        x = x[parts.order]
        z = parts.pool(self._join(self.encoder(x, parts.ptr), x, parts.ptr, parts.kind))
        return self._whitened(z, self._batches(batch))

    def _pool_pieces(self, rows: Rows, kind: torch.Tensor | None) -> torch.Tensor:
        return self._scaled(stream_embed(self.encoder, rows), kind)

    def _attention(self, x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
        return self.encoder.get_attention(x, ptr)

    def _attention_in_pieces(self, rows: Rows) -> torch.Tensor:
        return stream_attention(self.encoder, rows)

    def read(self, batch: SampleBatch) -> torch.Tensor:
        """What the encoder reads of cells, (cells, features)."""
        return self.standardize(batch)

    def standardize(self, batch: SampleBatch) -> torch.Tensor:
        """Cells as ``(x - mean) / scale`` of their batch, in the type of the weights, (cells, features)."""
        mean, scale = self._location(batch)
        return ((batch.x.to(mean.dtype) - mean) / scale).to(self.hidden_token.dtype)

    def as_given(self, batch: SampleBatch) -> torch.Tensor:
        """Features by whose cosine similarity cells are hidden together: as registered, without those that are missing."""
        x = cast("torch.Tensor", batch.x)
        return x.nan_to_num(0.0) if self.is_open else x

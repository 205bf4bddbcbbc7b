"""Network and loss of ScSet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from scvi.module.base import LossOutput

from scset_tools.data._batch import SampleBatch
from scset_tools.model._conditions import conditions_of, dependences, values_in
from scset_tools.model._pooled_module import PooledModule, Rows
from scset_tools.model._whitening import PartialWhitening
from scset_tools.model.scset._draws import anchors_and_targets, tilted_half
from scset_tools.model.scset._encoders import ENCODERS, last_modules
from scset_tools.model.scset._groups import Groups, group_cells, stream_groups
from scset_tools.nn import (
    Denoiser,
    MarginalTokenPool,
    MarkerEmbedding,
    ModalityParts,
    NoiseSchedule,
    Parts,
    TokenPool,
    _ragged,
    cell_normal,
    cell_uniform,
    drop_markers,
    flow_path,
    host_sizes,
    ptr_from_sizes,
    sample_of_cell,
    scaled_ptr,
    segment_mean,
    to_device,
)

STREAM_TIME, STREAM_NOISE, STREAM_START, STREAM_MARKERS, STREAM_MODALITIES, STREAM_STEP = 21, 22, 23, 25, 26, 100
"""Sequences of a sample's seed: what is drawn for its cells in training, and in generation (one more for each step)."""

DECODERS = ("diffusion", "flow")
FLOW_STEPS = 1000
"""The time of a flow, from 0 to 1, is embedded as the number of so many steps: the scale of the diffusion's time."""


class ScSetModule(PooledModule):
    """Encoder of sets and a denoiser that is conditioned on the sample (ScSet, Algorithm 1).

    Parameters
    ----------
    mean, scale
        Location and scale of each feature in each batch, (batches, features): cells enter as ``(x - mean) / scale``.
    low, high
        Smallest and largest value of each feature of the training cells after that, (features,).
    max_value
        What the encoder reads is cut off at plus and minus this value, if it is not None.
    covariates
        Key in a batch, number of classes (0: a number) and whether it is one of cells, of each covariate that the denoiser is told.
    moments
        Mean and standard deviation of each covariate that is a number, (covariates, 2).
    batch_weights
        Weight of the term that takes each covariate out of the vectors.
    modality
        Number of the modality of each feature, (features,), if there are several.
    is_paired
        Whether cells have several modalities.
        The other parameters are those of :class:`~scset_tools.model.ScSet`.
    """

    def __init__(
        self,
        mean: torch.Tensor,
        scale: torch.Tensor,
        low: torch.Tensor,
        *,
        high: torch.Tensor,
        n_latent: int,
        n_layers: int,
        n_heads: int,
        n_cells: int,
        n_targets: int,
        n_times: int,
        tilt: float,
        max_value: float | None,
        encoder: str,
        decoder: str,
        n_hidden: int,
        n_blocks: int,
        schedule: str,
        n_steps: int,
        dropout_rate: float,
        n_tokens: int,
        token_weight: float,
        whitening: float = 0.0,
        covariates: Sequence[tuple[str, int, bool]] = (),
        moments: torch.Tensor | None = None,
        covariate_dropout: float = 0.1,
        batch_weights: Sequence[float] = (),
        is_open: bool = False,
        marker_dropout_rate: float = 0.0,
        shared_times: bool = False,
        modality: torch.Tensor | None = None,
        is_paired: bool = True,
        modality_dropout_rate: float = 0.0,
    ) -> None:
        super().__init__()
        n_input = mean.shape[1]
        self.modality_dropout_rate = modality_dropout_rate
        self.modality_parts = None if modality is None else ModalityParts(modality, is_paired=is_paired)
        self.is_open, self.marker_dropout_rate = is_open, marker_dropout_rate
        for name, value in (("mean", mean), ("scale", scale), ("low", low), ("high", high)):
            self.register_buffer(name, value)
        self.n_cells, self.n_targets, self.n_times, self.tilt = n_cells, n_targets, n_times, tilt
        self.max_value, self.shared_times = max_value, shared_times
        self.encoder = ENCODERS[encoder](
            n_input,
            n_latent,
            n_layers=n_layers,
            n_heads=n_heads,
            dropout_rate=dropout_rate,
            **({"is_open": True} if is_open else {}),
        )
        lift = MarkerEmbedding(n_input, n_hidden) if is_open else None
        self.denoiser = Denoiser(n_input, n_latent, n_hidden=n_hidden, n_blocks=n_blocks, lift=lift)
        # after the rest, so that a model without tokens has the same first weights
        n_kinds = 1 if modality is None else self.modality_parts.n_kinds
        self.tokens = TokenPool(n_input, n_tokens, n_latent) if n_tokens and not is_open else None
        if n_tokens and is_open:
            self.tokens = MarginalTokenPool(n_input, n_tokens * n_kinds, n_latent, n_groups=n_kinds)
        self.token_weight = token_weight
        self.whitening = PartialWhitening(n_latent, whitening, len(mean)) if whitening else None
        self.schedule = NoiseSchedule(schedule, n_steps) if decoder == "diffusion" else None
        self.covariates, self.batch_weights = tuple(covariates), tuple(batch_weights)
        self.conditions = conditions_of(covariates, n_latent, moments=moments, dropout_rate=covariate_dropout)
        if any(batch_weights):
            self.metrics = ("reconstruction", "dependence")

    # ---- loss

    def loss(self, batch: SampleBatch) -> LossOutput:
        """Mean squared error of the predicted noise (eq. 9), or velocity, of target cells; a mean over samples."""
        x = self.standardize(batch)  # targets keep their tails: they are to be generated
        kept = None
        if self.tilt and self.training:
            kept, ptr = self.tilted(x, batch.ptr, batch.seed)
            x = x[kept]
        else:
            ptr = batch.ptr
        anchors, anchor_ptr, targets, target_ptr = self.split(ptr, batch.seed)
        seen = x[anchors]
        if self.modality_parts is not None and self.training and self.modality_dropout_rate:
            rate = self.modality_dropout_rate
            seen = self.modality_parts.drop(seen, anchor_ptr, batch.seed, rate=rate, stream=STREAM_MODALITIES)
        if self.is_open and self.training and self.marker_dropout_rate:
            # the encoder may see fewer markers than are to be denoised
            seen = drop_markers(seen, anchor_ptr, batch.seed, rate=self.marker_dropout_rate, stream=STREAM_MARKERS)
        x_anchors = self._cut_off(seen)
        parts = None if self.modality_parts is None else self.modality_parts(x_anchors, anchor_ptr)
        if parts is not None:
            x_anchors, anchor_ptr = x_anchors[parts.order], parts.ptr
        kind = None if parts is None else parts.kind
        z = self._join(self.encoder(x_anchors, anchor_ptr), x_anchors, anchor_ptr, kind)
        z = z if parts is None else parts.pool(z)
        ptr = scaled_ptr(target_ptr, self.n_times)
        clean = x[targets].repeat_interleave(self.n_times, 0)
        noise = cell_normal(batch.seed, ptr, x.shape[1], stream=STREAM_NOISE).to(x.dtype)
        u = self.times(batch.seed, target_ptr, ptr)
        if self.schedule is not None:
            t = (u * self.schedule.n_steps).long() + 1
            state, wanted = self.schedule.add_noise(clean, t, noise), noise
        else:
            t = u * FLOW_STEPS
            state, wanted = flow_path(noise, clean, u)
        told, which = self._told(batch, targets if kept is None else kept[targets], z, target_ptr)
        predicted = self._predict(state, t, told, ptr, which)
        # in float32: half precision has too few digits for a mean over thousands of squares
        error = (predicted.float() - wanted.float()).square()
        if self.is_open:  # of what is measured
            measured = ~clean.isnan()
            error = error.where(measured, 0).sum(1) / measured.sum(1).clamp_min(1)
        else:
            error = error.mean(1)
        loss, metrics = segment_mean(error, ptr).mean(), {}
        if any(self.batch_weights):
            metrics["reconstruction"] = loss
            metrics["dependence"], weighted = dependences(
                z, values_in(batch, self.covariates), covariates=self.covariates, weights=self.batch_weights
            )
            loss = loss + weighted
        return LossOutput(loss=loss, n_obs_minibatch=batch.n_samples, extra_metrics=metrics)

    def times(self, seed: torch.Tensor, target_ptr: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
        """Times of each target as numbers in [0, 1), target by target, (targets x n_times,): own ones, or those of the sample.

        ``ptr`` are the boundaries of the samples in these times, ``target_ptr`` in the targets.
        """
        n_samples = len(target_ptr) - 1
        if not self.shared_times:
            return cell_uniform(seed, ptr, stream=STREAM_TIME)
        own = ptr_from_sizes([self.n_times] * n_samples, device=target_ptr.device)
        of_sample = cell_uniform(seed, own, stream=STREAM_TIME).reshape(n_samples, self.n_times)
        return of_sample[sample_of_cell(target_ptr)].flatten()

    def _told(
        self, batch: SampleBatch, targets: torch.Tensor, z: torch.Tensor, target_ptr: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the denoiser is told, (rows, n_latent), and the row of each noisy cell; None where there is a row for each sample."""
        if self.conditions is None:
            return z, None
        values = self.conditions.drop(values_in(batch, self.covariates), batch.seed)
        of_cell = [(i, key) for i, (key, _, is_cell) in enumerate(self.covariates) if is_cell]
        if not of_cell:
            return z + self.conditions(values), None
        sample = sample_of_cell(target_ptr)
        values = values[sample]
        is_bare = self.conditions.drop(torch.zeros_like(values[: batch.n_samples]), batch.seed).isnan()[sample]
        for i, key in of_cell:
            codes = batch.covariates[key][targets]
            values[:, i] = codes.to(values.dtype).masked_fill((codes < 0) | is_bare[:, i], torch.nan)
        if z.device.type != "cpu" or _ragged._AS_ON_GPU:  # which kinds there are, a GPU would have to be asked for
            which = torch.arange(len(values), device=z.device).repeat_interleave(self.n_times)
            return z[sample] + self.conditions(values), which
        # a row for each kind of cell in each sample, however many cells share it
        rows, which = torch.cat([sample[:, None].to(values.dtype), values.nan_to_num(nan=-1.0)], 1).unique(
            dim=0, return_inverse=True
        )
        first = torch.empty(len(rows), dtype=torch.int64, device=z.device)
        first[which] = torch.arange(len(which), device=z.device)
        return z[sample[first]] + self.conditions(values[first]), which.repeat_interleave(self.n_times)

    def tilted(
        self, x: torch.Tensor, ptr: torch.Tensor, seed: torch.Tensor, *, tilt: float | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Half of the cells of each sample; see :func:`~scset_tools.model.scset._draws.tilted_half`. By default with the tilt of the model."""
        return tilted_half(x, ptr, seed, tilt=self.tilt if tilt is None else tilt)

    def split(
        self, ptr: torch.Tensor, seed: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Anchors and targets of each sample; see :func:`~scset_tools.model.scset._draws.anchors_and_targets`."""
        return anchors_and_targets(ptr, seed, n_cells=self.n_cells, n_targets=self.n_targets)

    def _predict(
        self,
        state: torch.Tensor,
        t: torch.Tensor,
        told: torch.Tensor,
        ptr: torch.Tensor,
        which: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Predicted noise or velocity of cells (rows, features) at their own times.

        ``told`` has a row for each sample, with boundaries ``ptr``, or the rows of which ``which`` names one for each cell.
        """
        if self.schedule is not None and len(t) > self.schedule.n_steps:
            # more rows than steps: embed every step once
            of_time = self.denoiser.of_time(torch.arange(self.schedule.n_steps + 1, device=t.device))
        else:
            of_time, t = self.denoiser.of_time(t), torch.arange(len(t), device=t.device)
        of_sample = self.denoiser.of_sample(told)
        if which is not None:
            return self.denoiser(state, of_time, of_sample, which_time=t, which_sample=which)
        return self.denoiser(state, of_time, of_sample, which_time=t, n_rows=host_sizes(ptr))

    def partial_modules(self) -> Sequence[torch.nn.Module]:
        """The last block of the encoder, or what pools the cells."""
        return last_modules(self.encoder)

    # ---- inference

    def represent(self, batch: SampleBatch) -> torch.Tensor:
        """One vector per sample, from all its cells, (samples, n_latent)."""
        return self._represent(self.read(batch), batch)

    def represent_features(self, x: torch.Tensor, batch: SampleBatch) -> torch.Tensor:
        """The vectors if the cells of the batch had the features ``x``, (samples, n_latent)."""
        return self._represent(self.read(replace(batch, x=self._with_missing(x, batch))), batch)

    def _represent(self, x: torch.Tensor, batch: SampleBatch) -> torch.Tensor:
        """The vectors of cells ``x``, in the groups of those of the batch."""
        given = self.read(batch)
        if self.modality_parts is None:
            z = self._encode(x, batch.ptr, group_cells(given, batch.ptr, self.n_cells))
            return self._whitened(z, self._batches(batch))
        parts = self.modality_parts(given, batch.ptr)
        groups = group_cells(given[parts.order], parts.ptr, self.n_cells)
        return self._whitened(parts.pool(self._encode(x[parts.order], parts.ptr, groups, parts)), self._batches(batch))

    def _pool_pieces(self, rows: Rows, kind: torch.Tensor | None) -> torch.Tensor:
        del kind
        total: Any = 0
        n_groups = 0
        for x, ptr, _ in stream_groups(rows, self.n_cells):
            z = self.encoder(x, ptr)
            total, n_groups = total + z.sum(0, keepdim=True), n_groups + len(z)
        return total / n_groups

    def _attention(self, x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
        groups = group_cells(x, ptr, self.n_cells)
        weights = self.encoder.get_attention(x if groups.order is None else x[groups.order], groups.ptr)
        if groups.order is None:
            return weights
        n_groups = to_device(torch.tensor(groups.n_groups), x.device)[sample_of_cell(ptr)]
        return torch.empty_like(weights).index_copy(0, groups.order, weights) / n_groups[:, None]

    def _attention_in_pieces(self, rows: Rows) -> torch.Tensor:
        parts, positions, n_groups = [], [], 0
        for x, ptr, position in stream_groups(rows, self.n_cells):
            parts.append(self.encoder.get_attention(x, ptr))
            positions.append(position)
            n_groups += len(ptr) - 1
        weights = torch.cat(parts)
        return torch.empty_like(weights).index_copy(0, torch.cat(positions), weights) / n_groups

    def _encode(self, x: torch.Tensor, ptr: torch.Tensor, groups: Groups, parts: Parts | None = None) -> torch.Tensor:
        z = self.encoder(x if groups.order is None else x[groups.order], groups.ptr)
        z = z if groups.order is None else segment_mean(z, ptr_from_sizes(groups.n_groups, device=z.device))
        return self._join(z, x, ptr, None if parts is None else parts.kind)

    # ---- features

    def standardize(self, batch: SampleBatch) -> torch.Tensor:
        """Cells as ``(x - mean) / scale`` of their batch, in the type of the weights, (cells, features)."""
        mean, scale = self._location(batch)
        return ((batch.x.to(mean.dtype) - mean) / scale).to(self.denoiser.input.weight.dtype)

    def read(self, batch: SampleBatch) -> torch.Tensor:
        """What the encoder reads of cells: the same, cut off at ``max_value``, (cells, features)."""
        return self._cut_off(self.standardize(batch))

    def _cut_off(self, x: torch.Tensor) -> torch.Tensor:
        # one cell further out than any of training can turn the vector of a sample of hundreds
        return x if self.max_value is None else x.clamp(-self.max_value, self.max_value)

    def original_units(self, x: torch.Tensor) -> torch.Tensor:
        """Generated cells (cells, features) in the units of the data; of the average batch if there are several."""
        return x * self.scale.mean(0) + self.mean.mean(0)

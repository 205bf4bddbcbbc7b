"""ScSet, as users call it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from anndata import AnnData
from scvi import REGISTRY_KEYS

from scset_tools._checks import require_choice
from scset_tools.data._index import SampleIndex
from scset_tools.data._splitter import SampleDataSplitter
from scset_tools.model._base import SampleModelClass
from scset_tools.model._covariates import weights_of
from scset_tools.model._init_params import with_arguments_of
from scset_tools.model._moments import batch_codes, batch_moments
from scset_tools.model._tokens import fit_tokens_once
from scset_tools.model._whitening import fit_whitening
from scset_tools.model.scset._bulk_model import ReadsBulk
from scset_tools.model.scset._encoders import ENCODERS, OPEN_ENCODERS
from scset_tools.model.scset._module import DECODERS, ScSetModule
from scset_tools.model.scset._presets import PRESETS
from scset_tools.nn import NoiseSchedule

MIN_CELLS = 2
"""Fewest cells of a training sample: one anchor, one target."""


class ScSet(ReadsBulk):
    """Diffusion autoencoder of samples: one vector per sample, learned without labels, from which cells can be generated.

    A transformer reads some cells of a sample (anchors) and writes one vector; a denoiser that is given this vector learns to
    predict the noise that was added to other cells of the sample (targets). Made for cells in a low-dimensional
    representation (scVI, PCA; see :func:`scset_tools.pp.highly_variable_latents`): ``use_rep="X_scVI"``.

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`.
    registry
        Registry of a saved model; used by :meth:`load`.
    n_latent
        Length of a sample's vector, and width of the encoder.
    n_layers
        Number of transformer blocks of the encoder.
    n_heads
        Number of attention heads.
    n_cells
        Most cells that the encoder reads at once: the anchors of a training step. A larger sample is embedded in equal groups
        of at most as many cells, and its vector is the mean of theirs.
    n_targets
        Target cells of a sample in a training step. A sample with fewer than ``4 * n_targets`` cells gives a quarter of them.
    n_times
        Noise levels of each target cell.
    shared_times
        Whether the targets of a sample share their noise levels, as Algorithm 1 of the paper has it. Its code, and the default, draws those of
        each target anew: more of them in a step.
    tilt
        Strength of an augmentation that is not in the paper, for cohorts of some dozen samples: in each step a sample gives
        only half of its cells, drawn with odds that lean to a random side of the features. The decoder then learns more
        compositions than there are samples. 0: none; about 1 is a strong one.
    max_value
        The encoder reads features cut off at plus and minus so many standard deviations, like
        :func:`scanpy.pp.scale` with its ``max_value``: a single cell further out than the cells of training can
        otherwise turn the vector of a whole sample. The decoder learns from the cells as they are. None, or ``standardize=False``: not cut off.
    encoder
        ``"transformer"`` (the paper), or for comparison ``"set_transformer"``, ``"abmil"`` (gated attention) or ``"mean"``.
    decoder
        ``"diffusion"`` (the paper) or ``"flow"`` (flow matching, an ablation of the paper).
    n_hidden
        Width of the residual blocks of the denoiser.
    n_blocks
        Number of these blocks.
    schedule
        Noise schedule: ``"cosine"``, ``"linear"`` or ``"quadratic"``.
    n_steps
        Number of steps :math:`T` of the diffusion.
    dropout_rate
        Dropout inside the encoder.
    n_tokens
        Number of kinds of cells whose shares and shifts enter the vector beside what attention pools
        (:class:`~scset_tools.nn.TokenPool`), found in the training samples before the first step. Not in the paper. 0: none.
    token_weight
        Weight of what the tokens say, in standard deviations between samples.
    whitening
        Degree to which vectors are whitened after training, over the training samples (Ledoit and Wolf's covariance): 0 leaves them as they
        are, 1 gives each direction the same variance. The decoder reads vectors as they were.
    covariate_dropout
        With ``covariate_keys``: share of the samples of a step of which the decoder is told no covariate, and share of the others in which
        each one is left unsaid, so that cells can be asked for without it, and with guidance
        (:meth:`sample_cells`). 0 tells always, and leaves guidance out.
    batch_weight
        With ``covariate_keys``: weight of a term that takes covariates out of the vectors, for all of them or by name
        (``{"batch": 1.0}``): how much the vectors of a step depend on it (normalised HSIC, 0 to 1; ``history["dependence_train"]``). 1 is a
        strong one; 0: none.
    standardize
        Whether features are centred and scaled by their mean and standard deviation over the registered cells; within each
        batch if ``batch_key`` was given. Diffusion expects features of unit size; without it cells enter as they are.
    marker_dropout_rate
        With ``panel="open"``: largest share of its markers that a sample loses before the encoder reads it; all are to be denoised.
    modality_dropout_rate
        With several modalities and ``panel="open"``: probability that a sample loses a modality in what the encoder reads in a step; one that it has stays.
    random_state
        Seed of the initial weights. Default: ``scvi.settings.seed``, or random.

    Notes
    -----
    Follows the scSet paper; the user guide lists where paper and published code disagree and which is followed.

    Examples
    --------
    >>> import scset_tools as sst
    >>> adata = sst.datasets.perturbation_cohort(n_samples=6, n_cells=40)
    >>> sst.ScSet.setup_anndata(adata, sample_key="sample")
    >>> model = sst.ScSet(adata, n_latent=8, n_hidden=16)
    >>> model.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    >>> model.to_sample_adata().shape
    (6, 8)
    >>> model.sample_cells(10, sample="sample_0", n_steps=5).shape
    (10, 14)
    """

    _module_cls = ScSetModule
    _presets = PRESETS
    _panels = ("fixed", "open")
    _by_marker = {  # noqa: RUF012
        "mean": 1,
        "scale": 1,
        "low": 0,
        "high": 0,
        "encoder.lift.names": 0,
        "denoiser.input.names": 0,
        "denoiser.output.weight": 0,
        "denoiser.output.bias": 0,
    }
    _plan_defaults = {"lr": 2e-3, "lr_min": 1e-5, "lr_schedule": "cosine", "weight_decay": 1e-2}  # noqa: RUF012

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict | None = None,
        *,
        n_latent: int = 32,
        n_layers: int = 2,
        n_heads: int = 4,
        n_cells: int = 128,
        n_targets: int = 16,
        n_times: int = 4,
        shared_times: bool = False,
        tilt: float = 0.0,
        max_value: float | None = 4.0,
        encoder: Literal["transformer", "set_transformer", "abmil", "mean"] = "transformer",
        decoder: Literal["diffusion", "flow"] = "diffusion",
        n_hidden: int = 64,
        n_blocks: int = 5,
        schedule: Literal["cosine", "linear", "quadratic"] = "cosine",
        n_steps: int = 1000,
        dropout_rate: float = 0.0,
        n_tokens: int = 8,
        token_weight: float = 1.0,
        whitening: float = 0.5,
        covariate_dropout: float = 0.1,
        batch_weight: float | Mapping[str, float] = 0.0,
        standardize: bool = True,
        marker_dropout_rate: float = 0.5,
        modality_dropout_rate: float = 0.2,
        random_state: int | None = None,
    ) -> None:
        super().__init__(adata, registry)
        require_choice("encoder", encoder, tuple(ENCODERS))
        require_choice("decoder", decoder, DECODERS)
        require_choice("schedule", schedule, NoiseSchedule.kinds)
        covariates = self._covariates
        weights = weights_of(batch_weight, covariates)
        if self._is_open:
            require_choice("encoder (with panel='open')", encoder, OPEN_ENCODERS)
        mean, scale, low, high = self._moments(standardize=standardize)
        with self._seeded(random_state):
            self.module = self._module_cls(
                mean,
                scale,
                low,
                high=high,
                n_latent=n_latent,
                n_layers=n_layers,
                n_heads=n_heads,
                n_cells=n_cells,
                n_targets=n_targets,
                n_times=n_times,
                shared_times=shared_times,
                tilt=tilt,
                max_value=max_value if standardize else None,
                encoder=encoder,
                decoder=decoder,
                n_hidden=n_hidden,
                n_blocks=n_blocks,
                schedule=schedule,
                n_steps=n_steps,
                dropout_rate=dropout_rate,
                n_tokens=n_tokens,
                token_weight=token_weight,
                whitening=whitening,
                covariates=[c.in_batch for c in covariates],
                moments=self._moments_of_covariates(),
                covariate_dropout=covariate_dropout,
                batch_weights=weights,
                is_open=self._is_open,
                marker_dropout_rate=marker_dropout_rate,
                modality_dropout_rate=modality_dropout_rate,
                **self._modality_arguments,
            )
        told = f" Told: {', '.join(c.name for c in covariates)}." if covariates else ""
        self._model_summary_string = (
            f"ScSet with n_latent: {n_latent}, encoder: {encoder} ({n_layers} layers, {n_cells} cells at once), decoder: "
            f"{decoder} ({n_blocks} blocks of {n_hidden}); {self.summary_stats['n_sample']} samples, {self._n_input} features.{told}"
        )

    @with_arguments_of(SampleModelClass.train)
    def train(
        self,
        max_epochs: int | None = None,
        *,
        n_cells: int | None = None,
        min_cells: int = MIN_CELLS,
        gradient_clip_val: float | None = 0.1,
        **kwargs: Any,
    ) -> None:
        """Train encoder and decoder, without labels. What an earlier :meth:`finetune` learned is forgotten.

        Parameters
        ----------
        max_epochs
            Most passes over the training samples. Default: what makes about 400 steps, more for cohorts of more than 320 samples.
        n_cells
            Most cells of a sample in a step, drawn anew each epoch. Default: as many as a step uses.
        min_cells
            Fewest cells that a sample must have, 2 or more (128 in the paper).
        %(others)s

        Raises
        ------
        ValueError
            If a sample has fewer cells than ``min_cells``.
        """
        if self.adata is not None:
            self._require_cells(max(min_cells, MIN_CELLS))
        # as many cells as a step uses: the draw of the cells of an epoch is that of the data
        n_cells = n_cells or (2 if self.module.tilt else 1) * (self.module.n_cells + self.module.n_targets)
        self.prior_ = self.bulk_ = None  # of vectors that are about to change
        super().train(max_epochs, n_cells=n_cells, gradient_clip_val=gradient_clip_val, **kwargs)

    def _before_training(self, module: ScSetModule, splitter: SampleDataSplitter) -> None:
        """Fit the kinds of cells to the training samples, once: a model that is trained further keeps them."""
        fit_tokens_once(module.tokens, splitter, module.read, parts=module.modality_parts)

    def _after_training(self, splitter: SampleDataSplitter) -> None:
        """Whiten the vectors in part, as the training samples now lie."""
        fit_whitening(self, splitter.names()[0], seed=splitter.seed)

    def _finetune_defaults(self, mode: str, level: str) -> dict[str, Any]:
        # as many as the encoder reads at once: more would be the mean of several groups
        return {**super()._finetune_defaults(mode, level), "n_cells": self.module.n_cells}

    def _require_cells(self, min_cells: int) -> None:
        codes = np.asarray(self.adata_manager.get_from_registry(REGISTRY_KEYS.SAMPLE_KEY)).ravel().astype(np.int64)
        sizes = SampleIndex.from_codes(codes, np.asarray(self.sample_names)).sizes
        if (sizes >= min_cells).all():
            return
        few = {self.sample_names[i]: int(sizes[i]) for i in np.flatnonzero(sizes < min_cells)}
        raise ValueError(
            f"{len(few)} of {len(sizes)} samples have fewer than the {min_cells} cells that training needs (one anchor and one "
            f"target at least), first: {dict(list(few.items())[:5])}. Leave them out of the AnnData that is trained on; the "
            "trained model embeds samples of any size."
        )

    def _own_moments(self, *, standardize: bool) -> dict[str, torch.Tensor]:
        return dict(zip(("mean", "scale", "low", "high"), self._moments(standardize=standardize), strict=True))

    def _moments(self, *, standardize: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Location and scale of each feature in each batch, and the range of each feature after that."""
        mean, scale = batch_moments(self, standardize=standardize)
        if self.adata is None:  # the values come with the saved weights
            return mean, scale, mean[0].clone(), scale[0].clone()
        codes = batch_codes(self)
        low, high = torch.full((self._n_input,), torch.inf), torch.full((self._n_input,), -torch.inf)
        for start, block in self.adata_manager.reader().chunks():
            which = torch.from_numpy(codes[start : start + len(block)])
            x = (torch.from_numpy(block) - mean[which]) / scale[which]
            missing = x.isnan()  # of samples that lack a marker
            low = torch.minimum(low, x.masked_fill(missing, torch.inf).amin(0))
            high = torch.maximum(high, x.masked_fill(missing, -torch.inf).amax(0))
        return mean, scale, low, high

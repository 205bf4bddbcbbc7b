"""Generate cells of samples: the methods that users call."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from scset_tools._checks import require_choice
from scset_tools._docs import docs
from scset_tools.model.scset._generation import SAMPLERS, generate_cells
from scset_tools.model.scset._told import ToldSamples

if TYPE_CHECKING:
    from anndata import AnnData

    from scset_tools.model._covariates import Asked


class GeneratesCells(ToldSamples):
    """Decode vectors of samples into cells."""

    @docs.dedent
    def sample_cells(
        self,
        n_cells: int = 500,
        *,
        sample: Sequence[str] | str | None = None,
        adata: AnnData | None = None,
        representation: pd.DataFrame | None = None,
        bulk: pd.DataFrame | AnnData | None = None,
        covariates: Asked | None = None,
        guidance: float = 0.0,
        sampler: Literal["ddim", "ddpm"] | None = None,
        n_steps: int | None = None,
        seed: int = 0,
    ) -> AnnData:
        """Generate cells of samples from their vectors.

        Parameters
        ----------
        n_cells
            Number of cells to generate for each sample.
        sample
            Name or names of the samples whose vectors are decoded. Default: all, sorted by name.
        adata
            Cells of these samples; they need not be those of training. Default: the registered AnnData.
        representation
            Vectors to decode instead, (samples, n_latent), indexed by name: of :meth:`get_sample_representation`, or made from
            such, for instance their mean; or of :meth:`sample_vectors`.
        bulk
            Bulk profiles to decode instead, samples x genes, as :meth:`get_bulk_representation` takes them.
        covariates
            What the decoder is told in the place of what the samples have (``setup_anndata(covariate_keys=)``): values by covariate, one for
            all samples or one for each, or a table indexed by sample. None, for a covariate, leaves it unsaid. Where a sample has another
            value, its vector moves along, by the difference of the mean vectors of training samples with either value
            (see :meth:`counterfactual`). With ``representation`` vectors stay as they are, and what is not named here is not told.
        guidance
            Strength :math:`w` of classifier-free guidance [1]_: the noise is taken to be :math:`(1 + w)` times that predicted with the
            covariates asked for (all, if none is) less :math:`w` times that without. 0: none. Cells adhere more to the covariates; sizes of effects go beyond the truth.
        sampler
            ``"ddim"`` (deterministic given the starting noise, about 50 steps) or ``"ddpm"`` (ancestral, all steps).
            Default: DDIM; a model with a flow decoder is integrated instead.
        n_steps
            Steps of DDIM, or of the integration. Default: 50, and 25 for a flow (each of which calls the network twice).
        seed
            Seed of the noise. What a sample gets depends on the seed and its name alone.

        Returns
        -------
        AnnData of generated cells in the units of the data (of the average batch, if there are several):
        ``obs["sample"]``, and the features that the model reads as ``var_names``.

        Raises
        ------
        ValueError
            If the model is not trained, has no such sampler, or was not trained for guidance; or if a covariate has a value that no training
            sample has.
        KeyError
            If there is no such sample or covariate.

        References
        ----------
        .. [1] Ho, Salimans (2022). Classifier-free diffusion guidance. arXiv:2207.12598.
        """
        if bulk is not None:
            if sample is not None or adata is not None or representation is not None:
                msg = "Give `bulk`, `representation`, or `sample` and `adata`, not several."
                raise ValueError(msg)
            representation = self.get_bulk_representation(bulk)
        if covariates is not None or guidance or self._covariates:
            representation, told, untold = self._asked_for(sample, adata, representation, covariates, guidance)
            sample = adata = None
        else:
            told = untold = None
        return self._generate(
            n_cells,
            sample,
            adata,
            representation=representation,
            at=None,
            sampler=sampler,
            n_steps=n_steps,
            seed=seed,
            told=told,
            untold=untold,
            guidance=guidance,
        )

    @docs.dedent
    def denoising_trajectory(
        self,
        n_cells: int = 500,
        *,
        steps: Sequence[float] = (1000, 750, 500, 250, 100, 0),
        sample: Sequence[str] | str | None = None,
        adata: AnnData | None = None,
        representation: pd.DataFrame | None = None,
        sampler: Literal["ddim", "ddpm"] | None = None,
        n_steps: int | None = None,
        seed: int = 0,
    ) -> AnnData:
        """Cells on their way from noise to the finished cells of :meth:`sample_cells` (the paper's Figure 2).

        Parameters
        ----------
        n_cells, sample, adata, representation, sampler, n_steps, seed
            As for :meth:`sample_cells`.
        steps
            Steps to keep, from noise (the number of steps of the model) to 0; the nearest ones that the sampler visits.

        Returns
        -------
        AnnData with ``n_cells`` cells per sample and step: ``obs["sample"]`` and ``obs["step"]`` (float). Cells come in the
        same order at each step of a block of samples, so that one can be followed.
        """
        told = None
        if self._covariates:
            representation, told, _ = self._asked_for(sample, adata, representation, None, 0.0)
            sample = adata = None
        return self._generate(
            n_cells,
            sample,
            adata,
            representation=representation,
            at=steps,
            sampler=sampler,
            n_steps=n_steps,
            seed=seed,
            told=told,
        )

    def _generate(
        self,
        n_cells: int,
        sample: Sequence[str] | str | None,
        adata: AnnData | None,
        *,
        representation: pd.DataFrame | None,
        at: Sequence[float] | None,
        sampler: str | None,
        n_steps: int | None,
        seed: int,
        told: pd.DataFrame | None = None,
        untold: pd.DataFrame | None = None,
        guidance: float = 0.0,
    ) -> AnnData:
        self._require_generation()
        if sampler is not None:
            require_choice("sampler", sampler, SAMPLERS)
            if self.module.schedule is None:
                msg = f"sampler={sampler!r} is for decoder='diffusion'; this model has a flow, which is integrated. Leave it out."
                raise ValueError(msg)
            if sampler == "ddpm" and n_steps is not None:
                msg = f"n_steps={n_steps} is for sampler='ddim': 'ddpm' goes through all {self.module.schedule.n_steps} steps."
                raise ValueError(msg)
        representation = self._vectors(sample, adata, representation)
        # as for the draws of training: a function of (seed, sample name)
        seeds = [
            np.random.SeedSequence((seed, zlib.crc32(str(name).encode()))).generate_state(1, np.uint64)[0]
            for name in representation.index
        ]
        return generate_cells(
            self.module,
            representation,
            (np.array(seeds, dtype=np.uint64) >> np.uint64(1)).astype(np.int64),
            n_cells=n_cells,
            at=at,
            sampler=sampler,
            n_steps=n_steps,
            var_names=self.get_var_names(),
            told=told,
            untold=untold,
            guidance=guidance,
        )

"""Samples that nobody has measured: new donors, and known ones under other covariates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from scset_tools import _checks
from scset_tools.model._covariates import asked_values
from scset_tools.model.scset._sampling import GeneratesCells

if TYPE_CHECKING:
    from anndata import AnnData

    from scset_tools.model._covariates import Asked

ARMS = ("own", "asked")
"""Cells of the sample as it is, and as it would be."""


class AsksForSamples(GeneratesCells):
    """Vectors and cells under covariates that were not observed."""

    def sample_vectors(self, n: int = 1, *, covariates: Asked | None = None, seed: int = 0) -> pd.DataFrame:
        """Vectors of new samples, drawn as those of training are distributed.

        Vectors given covariates are taken to be Gaussian: a mean on which every covariate has a linear effect (ridge, of the strength of
        one sample), and the covariance of what is left (Ledoit and Wolf). Without covariates it is one Gaussian.

        Parameters
        ----------
        n
            Number of samples.
        covariates
            Values by covariate, one or ``n`` of each. What is not named is at its mean.
        seed
            Seed of the draw.

        Returns
        -------
        DataFrame of shape (n, n_latent), float32, indexed ``new_0``, ``new_1``, ...: decode it with ``sample_cells(representation=,
        covariates=)``, naming the same covariates.

        Raises
        ------
        ValueError
            If the model is not trained, is without its training samples, or a covariate has a value that no training sample has.
        KeyError
            If there is no such covariate.
        """
        self._require_generation()
        names = pd.Index([f"new_{i}" for i in range(n)])
        bare = pd.DataFrame(np.nan, index=names, columns=[c.name for c in self._covariates])
        values, _ = asked_values(covariates, self._covariates, bare, ranges=self._covariate_ranges)
        drawn = self._prior().draw(values, self._covariates, np.random.default_rng(seed))
        return pd.DataFrame(drawn.astype(np.float32), index=names)

    def counterfactual(
        self,
        samples: Sequence[str] | str,
        key: str,
        to: Any,
        *,
        adata: AnnData | None = None,
        n_cells: int = 300,
        n_draws: int = 10,
        guidance: float = 0.0,
        n_steps: int | None = None,
        seed: int = 0,
    ) -> AnnData:
        """Cells of samples as they are, and as they would be with another value of one covariate.

        The vector of a sample keeps what is its own and moves by the difference of the mean vectors under both values; the decoder is told
        the new value. Each draw begins at other noise, the same for both arms, and moves by other effects, as uncertain as a regression
        on the training samples leaves them. Read it with :func:`scset_tools.tl.counterfactual_shifts`.

        Parameters
        ----------
        samples
            Name or names of the samples.
        key
            Covariate that is changed, one of ``setup_anndata(covariate_keys=)``.
        to
            Its new value.
        adata
            Cells of these samples; they need not be those of training. Default: the registered AnnData.
        n_cells
            Cells of each sample, arm and draw.
        n_draws
            Number of draws.
        guidance
            As for :meth:`sample_cells`.
        n_steps
            Steps of DDIM, or of the integration.
        seed
            Seed of noise and effects.

        Returns
        -------
        AnnData of generated cells with ``obs["sample"]``, ``obs["arm"]`` ("own" or "asked"), ``obs[key]`` (the value) and ``obs["draw"]``.

        Raises
        ------
        ValueError
            If the model is not trained, the value is not one of training, or samples have it already or have none.
        KeyError
            If there is no such sample or covariate.

        Notes
        -----
        It says what the model expects, not what would happen: covariates that go along with ``key`` in the training samples are taken for it.
        """
        self._require_generation()
        names = [samples] if isinstance(samples, str) else list(samples)
        vectors = self.get_sample_representation(adata, samples=names)
        own = self._own_values(adata, names)
        told, _ = asked_values({key: to}, self._covariates, own, ranges=self._covariate_ranges)
        covariate = next(c for c in self._covariates if c.name == key)
        self._require_change(own[key], told[key], key, to, is_of_cell=covariate.kind == "cell")
        arms = {ARMS[0]: own, ARMS[1]: told}
        out: list[AnnData] = []
        for draw in range(n_draws):
            moved = self._moved(own, told, rng=np.random.default_rng((seed, draw)))
            for arm, values in arms.items():
                untold = values.copy()
                untold[key] = np.nan
                cells = self._generate(
                    n_cells,
                    None,
                    None,
                    representation=vectors + moved if arm == ARMS[1] else vectors,
                    at=None,
                    sampler=None,
                    n_steps=n_steps,
                    seed=seed * 1_000_003 + draw,
                    told=values,
                    untold=untold,
                    guidance=guidance,
                )
                cells.obs["arm"] = pd.Categorical([arm] * cells.n_obs, categories=ARMS)
                value = [covariate.classes[int(v)] if covariate.classes else v for v in values[key]]
                cells.obs[key] = np.repeat(np.asarray(value), n_cells)
                cells.obs["draw"] = draw
                cells.obs_names = [f"generated_{len(out)}_{i}" for i in range(cells.n_obs)]
                out.append(cells)
        joined = ad.concat(out)
        joined.obs_names = [f"generated_{i}" for i in range(joined.n_obs)]
        for column in ("sample", key):
            if joined.obs[column].dtype.kind not in "iuf":
                joined.obs[column] = joined.obs[column].astype("category")
        return joined

    def _require_change(self, own: pd.Series, told: pd.Series, key: str, to: Any, *, is_of_cell: bool) -> None:
        if is_of_cell:
            msg = f"{key!r} is a covariate of cells: ask for such cells, sample_cells(covariates={{{key!r}: {to!r}}})."
            raise ValueError(msg)
        unknown = list(own.index[own.isna()])
        if unknown:
            msg = f"{key!r} is missing for {len(unknown)} of {len(own)} samples (first: {_checks.first(unknown)}): it is not known from what they change."
            raise ValueError(msg)
        same = list(own.index[own == told])
        if same:
            msg = f"{len(same)} of {len(own)} samples have {key}={to!r} already (first: {_checks.first(same)}). Leave them out."
            raise ValueError(msg)

"""Cells from the vectors of samples (ScSet section 3.1)."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scset_tools import _keys
from scset_tools.model.scset._module import FLOW_STEPS, STREAM_START, STREAM_STEP, ScSetModule
from scset_tools.nn import cell_normal, ddim_steps, ddpm_steps, flow_steps

MAX_ROWS = 65_536
"""Most cells that are generated at once."""

SAMPLERS = ("ddim", "ddpm")


@torch.inference_mode()
def generate(
    module: ScSetModule,
    z: torch.Tensor,
    seed: torch.Tensor,
    *,
    n_cells: int,
    sampler: str | None,
    n_steps: int | None,
    told: torch.Tensor | None = None,
    untold: torch.Tensor | None = None,
    guidance: float = 0.0,
) -> Iterator[tuple[float, torch.Tensor]]:
    """Steps from noise to cells, and the cells there in the units of the data, (samples * n_cells, features).

    Parameters
    ----------
    module
        Trained module.
    z
        Vectors of the samples, as :meth:`ScSetModule.represent` gives them, (samples, n_latent).
    seed
        Seed of each sample, int64 (samples,): a sample's cells do not depend on the others in the batch.
    n_cells
        Cells of each sample.
    sampler
        ``"ddim"``, ``"ddpm"``, or None for what suits the decoder.
    n_steps
        Steps of DDIM or of the flow.
    told, untold
        Covariates of each sample, (samples, covariates), NaN where unsaid; and the same without those that guidance is to strengthen.
    guidance
        Strength :math:`w` of classifier-free guidance: the network's answer is ``(1 + w) f(x, told) - w f(x, untold)`` (Ho and Salimans
        2022, eq. 6, there of a predicted noise; of a velocity it is the same).
    """
    ptr = torch.arange(len(z) + 1, device=z.device) * n_cells
    n_features, denoiser = module.mean.shape[1], module.denoiser
    z = module.for_decoder(z)
    conditions: Any = module.conditions  # told values come from a module that has them
    of_sample = denoiser.of_sample(z if told is None else z + conditions(told))
    bare = denoiser.of_sample(z + conditions(untold)) if guidance and untold is not None else None

    def draw(stream: int) -> torch.Tensor:
        return cell_normal(seed, ptr, n_features, stream=stream).to(z.dtype)

    def predict(x: torch.Tensor, t: float) -> torch.Tensor:
        of_time = denoiser.of_time(torch.tensor([t], device=x.device, dtype=torch.float32))
        out = denoiser(x, of_time, of_sample)
        return out if bare is None else (1 + guidance) * out - guidance * denoiser(x, of_time, bare)

    start = draw(STREAM_START)
    if module.schedule is None:
        steps = flow_steps(lambda x, t: predict(x, t * FLOW_STEPS), start, n_steps=n_steps or 25)
        steps = (((1 - t) * FLOW_STEPS, x) for t, x in steps)
    elif sampler == "ddpm":
        steps = ddpm_steps(
            module.schedule,
            predict,
            start,
            noise=lambda t: draw(STREAM_STEP + t),
            bounds=(module.low, module.high),
        )
    else:
        steps = ddim_steps(module.schedule, predict, start, n_steps=n_steps or 50, bounds=(module.low, module.high))
    for t, x in steps:
        yield t, module.original_units(x)


def generate_cells(
    module: ScSetModule,
    vectors: pd.DataFrame,
    seed: np.ndarray,
    *,
    n_cells: int,
    at: Sequence[float] | None,
    sampler: str | None,
    n_steps: int | None,
    var_names: np.ndarray,
    told: pd.DataFrame | None = None,
    untold: pd.DataFrame | None = None,
    guidance: float = 0.0,
) -> AnnData:
    """Generated cells of all samples, at the end or at the steps nearest to ``at``; see :meth:`ScSet.sample_cells`."""
    module.eval()
    tables = {"told": told, "untold": untold}
    per_block = max(1, MAX_ROWS // n_cells)
    blocks, obs = [], []
    for start in range(0, len(vectors), per_block):
        part = vectors.iloc[start : start + per_block]
        z = torch.tensor(part.to_numpy(dtype=np.float32)).to(module.denoiser.input.weight)
        seeds = torch.from_numpy(seed[start : start + per_block]).to(z.device)
        values = {
            name: None if table is None else torch.tensor(table.iloc[start : start + per_block].to_numpy()).to(z.device)
            for name, table in tables.items()
        }
        steps = generate(
            module, z, seeds, n_cells=n_cells, sampler=sampler, n_steps=n_steps, guidance=guidance, **values
        )
        for t, x in _wanted(steps, at):
            blocks.append(x.float().cpu().numpy())
            obs.append(
                pd.DataFrame({"sample": np.repeat(part.index.astype(str), n_cells), _keys.step(): round(float(t), 6)})
            )
    table = pd.concat(obs, ignore_index=True)
    table["sample"] = pd.Categorical(table["sample"], categories=list(vectors.index.astype(str)))
    table.index = pd.Index([f"generated_{i}" for i in range(len(table))])
    out = AnnData(np.concatenate(blocks), obs=table, var=pd.DataFrame(index=var_names))
    return out if at is not None else _without_step(out)


def _wanted(steps: Iterator[tuple[float, Any]], at: Sequence[float] | None) -> Iterator[tuple[float, Any]]:
    """The last step, or for each number in ``at`` the step nearest to it, from noise to cells."""
    if at is None:
        yield collections.deque(steps, maxlen=1).pop()
        return
    left = sorted({float(t) for t in at}, reverse=True)
    for (t, x), following in itertools.pairwise(itertools.chain(steps, [(-np.inf, None)])):
        is_nearest = [abs(t - w) <= abs(following[0] - w) for w in left]
        if any(is_nearest):
            yield t, x
        left = [w for w, is_done in zip(left, is_nearest, strict=True) if not is_done]


def _without_step(adata: AnnData) -> AnnData:
    del adata.obs[_keys.step()]
    return adata

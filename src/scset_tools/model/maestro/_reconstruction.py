"""Input, hidden and predicted cells side by side (MAESTRO Figure 2)."""

from __future__ import annotations

from typing import cast

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scset_tools import _keys
from scset_tools.data._dataset import SampleDataset
from scset_tools.model.maestro._module import MAESTROModule
from scset_tools.model.maestro._views import student_views


@torch.inference_mode()
def reconstruct_samples(
    module: MAESTROModule,
    dataset: SampleDataset,
    positions: np.ndarray,
    *,
    told: np.ndarray,
    mask_rate: float,
    masking: str,
    seed: int,
    var_names: np.ndarray,
) -> AnnData:
    """Hide cells of each numbered sample and predict them; see :meth:`MAESTRO.reconstruct`.

    ``told`` are the covariates of these samples, (samples, covariates), NaN where unsaid.
    """
    module.eval()
    blocks, roles, samples = [], [], []
    for position, values in zip(positions.tolist(), told, strict=True):
        batch = dataset[0, [position]].to(module.device)
        views = student_views(
            module.as_given(batch),
            batch.ptr,
            batch.seed ^ seed,
            n_cells=module.n_cells,
            mask_rates=(mask_rate,),
            masking=masking,
        )
        x = module.standardize(batch)
        said = torch.from_numpy(values[None]).to(x.device)
        decoded, rows, _ = module.decode(views, module.told(module.encode_views(x, views), views, said))
        mean, scale = module._location(batch)
        if mean.ndim == 2:  # location and scale of the batch of the cell that is predicted
            mean, scale = mean[views.index[rows]], scale[views.index[rows]]
        predicted = decoded.float() * scale + mean
        cells = cast("torch.Tensor", batch.x)[views.index]
        if module.reconstruct == "all":
            predicted = predicted[views.is_hidden]
        for role, block in (
            ("input", cells[~views.is_hidden]),
            ("hidden", cells[views.is_hidden]),
            ("predicted", predicted),
        ):
            blocks.append(block.float().cpu().numpy())
            roles += [role] * len(block)
            samples += [str(dataset.index.names[position])] * len(block)
    obs = pd.DataFrame(
        {
            _keys.role(): pd.Categorical(roles, categories=["input", "hidden", "predicted"]),
            "sample": pd.Categorical(samples, categories=list(dict.fromkeys(samples))),
        },
        index=[f"cell_{i}" for i in range(len(roles))],
    )
    return AnnData(np.concatenate(blocks), obs=obs, var=pd.DataFrame(index=var_names))

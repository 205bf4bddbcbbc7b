"""A trained model as a folder in the format of scvi-hub, to be shared with its card, its metadata and its data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scvi.hub import HubModel

    from scset_tools.model._base import SampleModelClass

_CARD = """\
---
{header}
---

# {cls} for samples of {n_features} features

{description}

One vector per sample, from its cells: trained on {n_samples} samples of `{sample_key}` with {cls} of
[scset-tools](https://pypi.org/project/scset-tools) {version}.

```python
import scvi

hub = scvi.hub.HubModel("path/to/this/folder")
hub.load_model(adata=False)
samples = hub.model.to_sample_adata(adata)  # cells with the same features and a column {sample_key!r}
```

## Data

Arguments of `setup_anndata`:

```json
{setup_args}
```

## Model

```json
{init_params}
```

Loss of the training samples after the last epoch: {loss}. Samples of training: {train_samples}.
"""


def to_hub(
    model: SampleModelClass,
    directory: str | Path,
    *,
    license_info: str,
    description: str = "",
    save_anndata: bool = True,
    overwrite: bool = False,
) -> HubModel:
    """Save a model in the local format of scvi-hub, with metadata and a card; needs ``huggingface_hub``.

    :class:`scvi.hub.HubModel` reads the folder back, and pushes it to Hugging Face or S3.
    (``scvi.hub.HubModelCardHelper`` writes cards for five models of scvi-tools alone; this writes ours.)

    Parameters
    ----------
    model
        A trained model of this package.
    directory
        Folder to make.
    license_info
        Licence of the model, as Hugging Face spells it (``"cc-by-4.0"``).
    description
        What the model was trained on and for, in Markdown.
    save_anndata
        Whether the training cells go along; without them the model is loaded with ``load_model(adata=False)``.
    overwrite
        Whether to replace the files of a folder that is there.

    Returns
    -------
    The model as :class:`scvi.hub.HubModel`.

    Raises
    ------
    ValueError
        If the model is not trained, or the folder is there and ``overwrite`` is False.
    """
    from importlib.metadata import version

    from huggingface_hub import ModelCard, ModelCardData
    from scvi.hub import HubMetadata, HubModel

    name = type(model).__name__
    if not model.is_trained:
        msg = f"This {name} is not trained: there is nothing to share. Call train() first."
        raise ValueError(msg)
    if Path(directory).exists() and not overwrite:
        msg = f"{directory} is there already. Take another name, or pass overwrite=True."
        raise ValueError(msg)
    model.save(str(directory), overwrite=overwrite, save_anndata=save_anndata)
    anndata_version, scvi_version = version("anndata"), str(model.registry["scvi_version"])
    metadata = HubMetadata(
        scvi_version=scvi_version,
        anndata_version=anndata_version,
        model_cls_name=name,
        model_parent_module="scset_tools.model",
    )
    header = ModelCardData(
        license=license_info,
        library_name="scvi-tools",
        tags=[
            "biology",
            "single-cell",
            "scset-tools",
            f"model_cls_name:{name}",
            f"scvi_version:{scvi_version}",
            f"anndata_version:{anndata_version}",
        ],
    )
    hub = HubModel(str(directory), metadata=metadata, model_card=ModelCard(_card(model, header, description)))
    hub.save(overwrite=overwrite)
    return hub


def _card(model: SampleModelClass, header: Any, description: str) -> str:
    from scset_tools import __version__

    losses = model.history.get("loss_train") if model.history else None
    samples = list(getattr(model, "train_samples_", None) or [])
    shown = ", ".join(samples[:20]) + (f" and {len(samples) - 20} more" if len(samples) > 20 else "")
    return _CARD.format(
        header=header.to_yaml(),
        cls=type(model).__name__,
        n_features=len(model.get_var_names()),
        n_samples=len(samples),
        description=description,
        sample_key=model.registry["setup_args"]["sample_key"],
        version=__version__,
        setup_args=json.dumps(model.registry["setup_args"], indent=2, default=str),
        init_params=json.dumps(model.init_params_["non_kwargs"], indent=2, default=str),
        loss="unknown" if losses is None or not len(losses) else f"{float(losses.iloc[-1, 0]):.4g}",
        train_samples=shown,
    )

"""A trained model as a folder in the format of scvi-hub, to be shared with its card, its metadata and its data."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scset_tools import _whole
from scset_tools.model._saved_file import own_files

if TYPE_CHECKING:
    from scvi.hub import HubModel

    from scset_tools.model._base import SampleModelClass

_HUB_FILES = ("_scvi_required_metadata.json", "README.md")

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

Loss of the training samples after the last epoch: {loss}.{named}
"""


def to_hub(
    model: SampleModelClass,
    directory: str | Path,
    *,
    license_info: str,
    description: str = "",
    save_anndata: bool = False,
    sample_names: bool = False,
    overwrite: bool = False,
) -> HubModel:
    """Save a model in the local format of scvi-hub, with metadata and a card; needs ``huggingface_hub``.

    Neither cells nor names of samples, which are often those of donors, leave with the model unless you say so.

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
        Whether the training cells go along, with all their annotations and the names of their samples; without them the
        model is loaded with ``load_model(adata=False)``.
    sample_names
        Whether the names of the samples go along, in the card and in the model. Otherwise the model calls them ``sample_0``,
        ``sample_1``, ...; it embeds new samples all the same.
    overwrite
        Whether to replace the model of a folder that is there; it stays whole until the new one is.

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
    card = ModelCard(_card(model, header, description, sample_names=sample_names))
    with _whole.folder(Path(directory), own=(*own_files(None), *_HUB_FILES)) as place:
        with nullcontext() if save_anndata or sample_names else _without_names(model):
            model.save(str(place), overwrite=True, save_anndata=save_anndata)
        HubModel(str(place), metadata=metadata, model_card=card).save(overwrite=True)
    return HubModel(str(directory), metadata=metadata, model_card=card)


@contextmanager
def _without_names(model: SampleModelClass) -> Iterator[None]:
    """Let a model call its samples by numbers for as long as it is saved."""
    names = list(model.sample_names)
    number = {name: f"sample_{i}" for i, name in enumerate(names)}
    registry, parts = model.registry_, ("train_samples_", "validation_samples_", "test_samples_")
    kept = {part: getattr(model, part, None) for part in parts}
    shared = copy.deepcopy(registry)
    state = shared["field_registries"]["sample"]["state_registry"]
    state["categorical_mapping"] = np.asarray([number[str(n)] for n in state["categorical_mapping"]], dtype=object)
    try:
        model.registry_ = shared
        for part in parts:
            setattr(model, part, [number.get(str(n), "sample") for n in kept[part] or []])
        yield
    finally:
        model.registry_ = registry
        for part in parts:
            setattr(model, part, kept[part])


def _card(model: SampleModelClass, header: Any, description: str, *, sample_names: bool) -> str:
    from scset_tools import __version__

    losses = model.history.get("loss_train") if model.history else None
    samples = list(getattr(model, "train_samples_", None) or [])
    shown = ", ".join(samples[:20]) + (f" and {len(samples) - 20} more" if len(samples) > 20 else "")
    named = f" Samples of training: {shown}." if sample_names else ""
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
        named=named,
    )

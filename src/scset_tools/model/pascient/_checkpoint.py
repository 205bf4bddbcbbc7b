"""Weights of the published PaSCient, a Lightning checkpoint, into this package's module."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scset_tools import _checks
from scset_tools.data._gene_field import require_unique_genes
from scset_tools.model._base import SampleModelClass

PUBLISHED_TARGET = "disease"
"""Name of what the published weights predict."""

CLASSES = (
    "Alzheimer's",
    "B-ALL",
    "COVID-19",
    "Crohn's",
    "healthy",
    "lung adenocarcinoma",
    "melanoma",
    "multiple myeloma",
    "multiple sclerosis",
)
"""Classes of the published model for several diseases, in the order of its outputs."""

NAMES = {
    "gene2cell_encoder.layers.0.weight": "first.weight",
    "gene2cell_encoder.layers.0.bias": "first.bias",
    "cell2patient_aggregation.attention_model.layers.0.weight": "aggregator.pool.score.0.weight",
    "cell2patient_aggregation.attention_model.layers.0.bias": "aggregator.pool.score.0.bias",
    "cell2patient_aggregation.attention_model.layers.2.weight": "aggregator.pool.score.3.weight",
    "cell2patient_aggregation.attention_model.layers.2.bias": "aggregator.pool.score.3.bias",
    "patient_encoder.layers.0.weight": "sample_encoder.0.weight",
    "patient_encoder.layers.0.bias": "sample_encoder.0.bias",
    "patient_encoder.layers.1.weight": "sample_encoder.1.weight",
    "patient_encoder.layers.2.weight": "sample_encoder.3.weight",
    "patient_encoder.layers.2.bias": "sample_encoder.3.bias",
    "patient_encoder.layers.3.weight": "sample_encoder.4.weight",
    "patient_predictor.layers.0.weight": "heads.0.layers.0.weight",
    "patient_predictor.layers.0.bias": "heads.0.layers.0.bias",
    "sample_prediction_loss_func.weight": "heads.0.class_weight",
}
"""Name in the checkpoint to name here."""

OPTIONAL = ("sample_prediction_loss_func.weight",)
ATTENTION = tuple(name for name in NAMES if name.startswith("cell2patient_aggregation"))


@dataclass(frozen=True)
class PublishedWeights:
    """A published checkpoint, read and renamed.

    Attributes
    ----------
    state
        Tensors by their name in :class:`~scset_tools.model.pascient.PaSCientModule`.
    n_genes, n_hidden, n_latent, n_classes
        Sizes, read from the tensors.
    aggregator
        ``"attention"``, or ``"feature_softmax"`` where the checkpoint has no attention network (the model for one disease).
    """

    state: dict[str, torch.Tensor]
    n_genes: int
    n_hidden: int
    n_latent: int
    n_classes: int
    aggregator: str


def read_checkpoint(path: str | os.PathLike) -> PublishedWeights:
    """Read a published checkpoint safely: tensors and plain values only, no code of the file is run.

    Parameters
    ----------
    path
        Lightning checkpoint (``.ckpt``), or a file of its ``state_dict`` alone.

    Raises
    ------
    ValueError
        If the file holds other objects, or tensors are missing or unknown.
    """
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        msg = (
            f"{os.fspath(path)!r} holds more than tensors and plain values (the published files pickle the classes of an old "
            "package, `cellm`), and running code from a file is not safe. In an environment in which you trust the file and "
            "have that package, save the tensors alone: torch.save(torch.load(path)['state_dict'], 'weights.pt')."
        )
        raise ValueError(msg) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        msg = f"{os.fspath(path)!r} has no `state_dict` of tensors."
        raise ValueError(msg)
    has_attention = any(name in state for name in ATTENTION)
    wanted = [n for n in NAMES if (has_attention or n not in ATTENTION) and n not in OPTIONAL]
    missing = [n for n in wanted if n not in state]
    unknown = [n for n in state if n not in NAMES]
    if missing or unknown:
        msg = (
            f"{os.fspath(path)!r} is not laid out as the published PaSCient: {len(missing)} tensors are missing "
            f"({_checks.first(missing)}), {len(unknown)} are unknown ({_checks.first(unknown)})."
        )
        raise ValueError(msg)
    renamed = {NAMES[n]: v.float() for n, v in state.items()}
    renamed["first.weight"] = renamed["first.weight"].T.contiguous()  # here (genes, width)
    return PublishedWeights(
        state=renamed,
        n_genes=renamed["first.weight"].shape[0],
        n_hidden=renamed["first.weight"].shape[1],
        n_latent=renamed["sample_encoder.0.weight"].shape[0],
        n_classes=renamed["heads.0.layers.0.weight"].shape[0],
        aggregator="attention" if has_attention else "feature_softmax",
    )


def class_names(given: Sequence[str] | None, n_classes: int) -> tuple[str, ...]:
    """Names of the outputs: as given, or those of the published model if there are as many.

    Parameters
    ----------
    given
        Names, in the order of the outputs.
    n_classes
        Number of outputs.
    """
    names = CLASSES if given is None and n_classes == len(CLASSES) else given
    if names is None or len(names) != n_classes or len(set(names)) != n_classes:
        n_given = 0 if names is None else len(names)
        msg = (
            f"The checkpoint has {n_classes} outputs, but {n_given} class names were given: pass `classes`, one name for each, "
            "in the order of training."
        )
        raise ValueError(msg)
    return tuple(str(n) for n in names)


def gene_coverage(genes: Sequence[str], given: pd.Index) -> pd.DataFrame:
    """How many of the model's genes the data have.

    Parameters
    ----------
    genes
        Genes of the model, in order.
    given
        ``adata.var_names``.

    Returns
    -------
    DataFrame with one row: ``n_genes``, ``n_found``, ``coverage`` and ``first_missing`` (up to 20, joined by ``;``).
    """
    is_found = pd.Index(genes).isin(given.astype(str))
    missing = [g for g, found in zip(genes, is_found, strict=True) if not found]
    return pd.DataFrame(
        [
            {
                "n_genes": len(genes),
                "n_found": int(is_found.sum()),
                "coverage": float(is_found.mean()),
                "first_missing": ";".join(missing[:20]),
            }
        ]
    )


class PublishedModel(SampleModelClass):
    """``from_checkpoint`` of a model whose constructor takes sizes, ``published_classes`` and ``n_slots``."""

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike,
        genes: Sequence[str],
        adata: AnnData,
        *,
        sample_key: str,
        classes: Sequence[str] | None = None,
        layer: str | None = None,
        log_normalize: bool = True,
        mask_padding: bool = True,
        n_slots: int = 1_500,
    ) -> Self:
        """A model with the weights of the published PaSCient; cells are read from ``adata`` by gene name.

        The file is read without running code from it. Sizes come from its tensors. The activation of its attention network is
        not on file: ``tanh``, as in the authors' configuration. ``gene_coverage_`` of the model reports how many of its genes
        ``adata`` has; the others count as zero.

        Parameters
        ----------
        path
            Published Lightning checkpoint, or a file with its ``state_dict``.
        genes
            Genes of the checkpoint in its order (``gene_order.tsv``: 28,231 symbols).
        adata
            Cells; not changed. What lies in a file, or is sparse, stays so: genes are picked as batches are read.
        sample_key
            Column of ``adata.obs`` with the sample of each cell.
        classes
            Names of the outputs. Default: the nine of the published model, if there are nine.
        layer
            Layer with the counts, instead of ``X``.
        log_normalize
            Whether they are raw counts. Totals are those of the model's genes.
        mask_padding
            False gives empty slots their share of the attention, as the published code does: for equal numbers only.
        n_slots
            Slots of the published code.

        Raises
        ------
        ValueError
            If the file is laid out otherwise, or genes or classes do not fit its tensors.
        """
        weights = read_checkpoint(path)
        symbols = np.asarray(genes).astype(str)
        if len(symbols) != weights.n_genes:
            msg = f"The checkpoint reads {weights.n_genes} genes, but {len(symbols)} names were given."
            raise ValueError(msg)
        require_unique_genes(pd.Index(symbols), where="genes")
        names = class_names(classes, weights.n_classes)
        _checks.require_anndata(adata, caller=f"{cls.__name__}.from_checkpoint")
        _checks.require_obs(adata, sample_key)
        cells = _same_values(adata, layer)
        cls.setup_anndata(cells, sample_key, layer=layer, source_registry=cls._registry_of(symbols, sample_key, layer))
        build_model: Any = cls  # the constructor is that of the model that this is mixed into
        model = build_model(
            cells,
            n_hidden=weights.n_hidden,
            n_latent=weights.n_latent,
            aggregator=weights.aggregator,
            log_normalize=log_normalize,
            published_classes=names,
            n_slots=None if mask_padding else n_slots,
        )
        absent = set(model.module.load_state_dict(weights.state, strict=False).missing_keys) - {
            f"heads.0.{name}" for name in ("class_weight", "center", "spread")
        }
        if absent:
            msg = f"The checkpoint lacks {_checks.first(sorted(absent))}."
            raise ValueError(msg)
        model.gene_coverage_ = gene_coverage(list(symbols), adata.var_names)
        model.is_trained_ = True
        return model

    @classmethod
    def _registry_of(cls, genes: np.ndarray, sample_key: str, layer: str | None) -> dict[str, Any]:
        """What cells with the model's own genes would have registered."""
        x = np.zeros((2, len(genes)), dtype=np.float32)
        cells = AnnData(
            x, obs=pd.DataFrame({sample_key: ["a", "b"]}, index=["a", "b"]), var=pd.DataFrame(index=pd.Index(genes))
        )
        if layer is not None:
            cells.layers[layer] = x
        cls.setup_anndata(cells, sample_key, layer=layer)
        return cls._get_most_recent_anndata_manager(cells, required=True).registry


def _same_values(adata: AnnData, layer: str | None) -> AnnData:
    """An AnnData of its own with the values of another, wherever they lie: what is registered is written to this one."""
    x = adata.X if layer is None else _checks.require_layer(adata, layer)
    obs, var = _checks.obs_frame(adata).copy(), pd.DataFrame(index=adata.var_names)
    return AnnData(x, obs=obs, var=var) if layer is None else AnnData(obs=obs, var=var, layers={layer: x})

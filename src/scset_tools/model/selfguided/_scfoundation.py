"""Read a checkpoint of scFoundation: check it, translate names, read sizes off the tensors."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from scset_tools import _checks

VERSIONS = {"cell": "cell", "ce": "cell", "rde": "rde", "gene": "gene"}
"""Versions, and the names that scFoundation's scripts give them, by key of the published file."""

LICENCE = (
    "The weights of scFoundation are for research only, under terms of their own (biomap-research/scFoundation on GitHub, "
    "model licence); this library ships none. Read them, and pass accept_license=True."
)

IGNORED = ("decoder.performer.calls_since_last_redraw",)
"""Counts calls until random features are drawn anew, which is never done here: the weights belong to the features."""

RENAMED = (
    (r"token_emb\.mlp\.", "encoder.value_embedding.lift."),
    (r"token_emb\.mlp2\.", "encoder.value_embedding.mix."),
    (r"token_emb\.emb\.weight", "encoder.value_embedding.bins"),
    (r"token_emb\.emb_mask\.weight", "encoder.value_embedding.hidden"),
    (r"token_emb\.emb_pad\.weight", "encoder.value_embedding.padding"),
    (r"pos_emb\.", "encoder.gene_embedding."),
    (r"encoder\.transformer_encoder\.", "encoder.layers."),
    (r"encoder\.norm\.", "encoder.norm."),
    (r"decoder_embed\.", "decoder.embed."),
    (r"decoder\.performer\.net\.layers\.(\d+)\.0\.norm\.", r"decoder.layers.\1.norm_attention."),
    (
        r"decoder\.performer\.net\.layers\.(\d+)\.0\.fn\.fast_attention\.projection_matrix",
        r"decoder.layers.\1.attention.projection",
    ),
    (r"decoder\.performer\.net\.layers\.(\d+)\.0\.fn\.", r"decoder.layers.\1.attention."),
    (r"decoder\.performer\.net\.layers\.(\d+)\.1\.norm\.", r"decoder.layers.\1.norm_feed_forward."),
    (r"decoder\.performer\.net\.layers\.(\d+)\.1\.fn\.fn\.w1\.", r"decoder.layers.\1.feed_forward.0."),
    (r"decoder\.performer\.net\.layers\.(\d+)\.1\.fn\.fn\.w2\.", r"decoder.layers.\1.feed_forward.2."),
    (r"decoder\.norm\.", "decoder.norm.0."),
    (r"norm\.", "decoder.norm.1."),
    (r"to_final\.", "decoder.to_value."),
)
"""Published names (after the prefix) and ours; the first pattern that matches the beginning counts."""


def read_checkpoint(path: str | os.PathLike, version: str) -> dict[str, Any]:
    """The version's ``config`` and ``state_dict``; nothing but tensors and plain values is unpickled.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds other objects, or is no such checkpoint.
    KeyError
        If it does not hold the version.
    """
    path = Path(path)
    if version not in VERSIONS:
        msg = f"version={version!r} is not one of {_checks.first(VERSIONS)}."
        raise ValueError(msg)
    if not path.is_file():
        msg = f"There is no file {path}. {LICENCE}"
        raise FileNotFoundError(msg)
    try:
        with torch.serialization.safe_globals(_plain_types()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        msg = (
            f"{path} holds more than tensors and plain values, and was not unpickled, because that runs whatever code it "
            f"contains: {str(error).splitlines()[0]} If you trust it, load it yourself and save its tensors alone."
        )
        raise ValueError(msg) from error
    key = VERSIONS[version]
    if not isinstance(content, dict) or key not in content:
        there = _checks.first(content) if isinstance(content, dict) else type(content).__name__
        msg = f"{path} has no version {version!r}: it holds {there}, where scFoundation's models.ckpt holds cell, rde and gene."
        raise KeyError(msg)
    part = content[key]
    if not isinstance(part, dict) or not {"config", "state_dict"} <= set(part):
        msg = f"Version {version!r} of {path} has no 'config' and 'state_dict': it is no checkpoint of scFoundation."
        raise ValueError(msg)
    return part


def translate(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under the names of our module, the prefix ``model.`` stripped.

    Raises
    ------
    ValueError
        If a name is not one of scFoundation's.
    """
    out, unknown = {}, []
    for name, tensor in state_dict.items():
        plain = name.removeprefix("model.")
        if plain in IGNORED:
            continue
        for pattern, ours in RENAMED:
            match = re.match(pattern, plain)
            if match:
                renamed = match.expand(ours) + plain[match.end() :]
                is_row = renamed in ("encoder.value_embedding.hidden", "encoder.value_embedding.padding")
                out[renamed] = tensor.squeeze(0) if is_row else tensor
                break
        else:
            unknown.append(name)
    if unknown:
        msg = f"{len(unknown)} tensors are none of scFoundation's: {_checks.first(unknown)}."
        raise ValueError(msg)
    return out


def sizes(weights: dict[str, torch.Tensor], config: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the constructor: what the shapes tell is read off them, the rest (heads, alpha) from the config.

    Raises
    ------
    ValueError
        If tensors that are needed to tell are missing, or the config does not say.
    """
    settings = {**config.get("model_config", {}).get(config.get("model", "mae_autobin"), {})}
    first = "decoder.layers.0.attention."
    needed = (
        "encoder.value_embedding.bins",
        "encoder.gene_embedding.weight",
        "encoder.layers.0.linear1.weight",
        "decoder.embed.weight",
        f"{first}projection",
        f"{first}to_q.weight",
    )
    if missing := [name for name in needed if name not in weights]:
        msg = f"The checkpoint lacks {len(missing)} tensors that tell its sizes: {_checks.first(missing)} (our names)."
        raise ValueError(msg)
    n_heads = settings.get("encoder", {}).get("heads")
    if n_heads is None:
        msg = "The config of the checkpoint has no model_config.mae_autobin.encoder.heads: the shapes do not tell it."
        raise ValueError(msg)
    n_bins, n_hidden = weights["encoder.value_embedding.bins"].shape
    n_features, dim_head = weights[f"{first}projection"].shape
    return {
        "n_hidden": n_hidden,
        "n_layers": _n_layers(weights, "encoder"),
        "n_heads": int(n_heads),
        "n_ff": len(weights["encoder.layers.0.linear1.weight"]),
        "n_bins": n_bins,
        "bin_alpha": float(settings.get("bin_alpha", 1.0)),
        "n_decoder_hidden": len(weights["decoder.embed.weight"]),
        "n_decoder_layers": _n_layers(weights, "decoder"),
        "n_decoder_heads": len(weights[f"{first}to_q.weight"]) // dim_head,
        "dim_decoder_head": dim_head,
        "n_decoder_features": n_features,
        "n_decoder_norms": 2,
    }


def gene_names(genes: str | os.PathLike | Sequence[str], n_positions: int) -> list[str]:
    """Names in the order of the checkpoint: as given, or the column ``gene_name`` of scFoundation's gene index (TSV).

    ``n_positions`` counts the genes, the two read-depth tokens and the padding.
    """
    if isinstance(genes, str | os.PathLike):
        table = pd.read_csv(genes, sep="\t")
        if "gene_name" not in table:
            msg = f"{genes} has no column 'gene_name', but {_checks.first(table.columns)}."
            raise ValueError(msg)
        genes = table["gene_name"].astype(str).tolist()
    names = [str(g) for g in genes]
    if len(names) != n_positions - 3:
        msg = (
            f"genes has {len(names)} names, but the checkpoint has embeddings of {n_positions - 3} genes (and of two read-depth "
            "tokens and padding). Give the file OS_scRNA_gene_index.19264.tsv that comes with scFoundation."
        )
        raise ValueError(msg)
    return names


def load_weights(module: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Put the weights into the module; what is new in it (latents, adapter, counts) stays as it is.

    Raises
    ------
    ValueError
        If a tensor is missing, or has another shape.
    """
    own = module.state_dict()
    ours = [n for n in own if n.startswith(("encoder.", "decoder.")) and not n.startswith("encoder.latents.")]
    if missing := [n for n in ours if n not in weights]:
        msg = f"The checkpoint lacks {len(missing)} of {len(ours)} tensors: {_checks.first(missing)} (our names)."
        raise ValueError(msg)
    if wrong := [n for n in weights if n not in own or own[n].shape != weights[n].shape]:
        shapes = [
            f"{n} {tuple(weights[n].shape)}, expected {tuple(own[n].shape) if n in own else 'none'}" for n in wrong
        ]
        msg = f"{len(wrong)} tensors of the checkpoint do not fit its sizes: {_checks.first(shapes)}."
        raise ValueError(msg)
    module.load_state_dict(weights, strict=False)


def coverage(features: np.ndarray, genes: Sequence[str]) -> dict[str, Any]:
    """How far the features of the data and the genes of the checkpoint agree."""
    is_known = np.isin(features, genes)
    is_measured = np.isin(genes, features)
    return {
        "n_features": len(features),
        "n_matched": int(is_known.sum()),
        "n_genes": len(genes),
        "share_of_features": float(is_known.mean()),
        "share_of_genes": float(is_measured.mean()),
        "unmatched_features": [str(f) for f in features[~is_known]],
    }


def _n_layers(weights: dict[str, torch.Tensor], part: str) -> int:
    return 1 + max(int(name.split(".")[2]) for name in weights if name.startswith(f"{part}.layers."))


def _plain_types() -> list[Any]:
    """Types besides torch's own that a config of plain values may hold: numbers of NumPy."""
    kinds = [np.float32, np.float64, np.int32, np.int64, np.bool_]
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]  # NumPy's types leave it out
    return [np.dtype, scalar, *kinds, *{type(np.dtype(k)) for k in kinds}]

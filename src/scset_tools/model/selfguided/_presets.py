"""Sizes and schedules by name."""

from __future__ import annotations

from typing import Any

from scset_tools.model._preset import Preset

EVEN = 0.99
"""Perplexity of the importance, relative to an even one, above which a warning says that the mask does not guide: the
importance then has a relative standard deviation below 0.14."""
WATCHED = "unexplained_train"
"""What stops training by default."""
TWO_RATES = {"lr": 1e-4, "lr_backbone": 1e-5, "lr_schedule": "constant"}
"""Of what is new, and of what a checkpoint brought (paper, section 4)."""


def scfoundation() -> Preset:
    """Sizes of scFoundation and of the paper's latents (appendix C), for a data-centre GPU: 19,264 genes, 119 million weights.

    :meth:`~scset_tools.model.SelfGuidedMAE.from_scfoundation` reads the sizes from a checkpoint instead.
    """
    return Preset(
        model={
            "n_hidden": 768,
            "n_layers": 12,
            "n_heads": 12,
            "n_ff": 3072,
            "n_bins": 100,
            "n_latents": 128,
            "n_latent_hidden": 256,
            "n_latent_heads": 8,
            "mask_candidates": "all",
            "attention_weight": 1e-5,
            "n_decoder_hidden": 512,
            "n_decoder_layers": 6,
            "n_decoder_heads": 8,
            "dim_decoder_head": 64,
            "n_decoder_features": 266,
            "n_decoder_norms": 2,
            "pool": "all",
            "read_depth_tokens": True,
            "target_depth": 4.0,
            "dropout_rate": 0.1,
        },
        train={
            "batch_size": 1,
            "accumulate_grad_batches": 5,
            "early_stopping": True,
            "early_stopping_patience": 5,
            "plan_kwargs": {"lr": 1e-4, "lr_backbone": 1e-5, "lr_schedule": "constant"},
            "precision": "bf16-mixed",
        },
    )


def head_on_cells(mode: str, *, is_published: bool) -> dict[str, Any]:
    """Arguments of ``finetune`` for labels of cells: two linear layers with a ReLU between them (paper, appendix C: hidden width 256).

    The rates are the paper's where the weights come from a checkpoint; a model of one's own has fewer cells and steps to learn from.
    """
    return {
        "lr": 1e-4 if is_published else 1e-3,
        "lr_backbone": 1e-5 if is_published else None,
        "head": "mlp",
        "n_hidden": 256,
        "n_layers": 1,
        "activation": "relu",
        "dropout_rate": 0.0,
        "class_weight": None,
        "weight_decay": 5e-4,
        "batch_size": 256 if mode == "frozen" else 64,
        "lr_schedule": "constant",
        "patience": 5,
    }


PRESETS = {"scfoundation": scfoundation}

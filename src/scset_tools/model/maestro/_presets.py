"""Sizes and schedules by name."""

from __future__ import annotations

from scset_tools.model._preset import Preset

RECIPE = {
    "reconstruction_weight": 1.0,
    "distillation_weight": 1.0,
    "distillation": "prototypes",
    "n_tokens": 0,
    "whitening": 0.0,
    "standardize_latent": False,
    "one_rate": False,
    "unmasked_view": False,
}
"""What the paper does otherwise than the defaults, whatever the size of the model."""


def paper() -> Preset:
    """The sizes and the schedule of the paper (F.2), for one data-centre GPU: one sample per batch, the teacher sees all."""
    return Preset(
        model={
            "n_hidden": 2048,
            "n_latent": 1024,
            "n_inducing": 2500,
            "n_heads": 4,
            "n_cells": 10_000,
            "n_prototypes": 1024,
            **RECIPE,
        },
        train={
            "max_epochs": 324,
            "batch_size": 1,
            "n_cells": None,
            "stop_at_plateau": False,
            "plan_kwargs": {"lr": 1e-4, "lr_min": 1e-8},
            "precision": "bf16-mixed",
        },
    )


PRESETS = {"paper": paper}

"""Sizes and schedules by name."""

from __future__ import annotations

from scset_tools.model._preset import Preset


def paper() -> Preset:
    """The sizes and the schedule of the paper (section 3 and appendix D), for one data-centre GPU and thousands of samples."""
    return Preset(
        model={
            "n_latent": 256,
            "n_cells": 1024,
            "n_times": 16,
            "n_tokens": 0,
            "whitening": 0.0,
            "n_hidden": 256,
            "standardize": False,
        },
        train={
            "max_epochs": 200,
            "batch_size": 32,
            "min_cells": 128,
            "plan_kwargs": {"lr": 1e-3, "lr_schedule": "constant", "clip_apart": ("encoder", "denoiser")},
            "gradient_clip_val": 0.1,
            "stop_at_plateau": False,
        },
    )


PRESETS = {"paper": paper}

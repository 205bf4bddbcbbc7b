"""Sizes and schedules by name."""

from __future__ import annotations

from scset_tools.model._preset import Preset


def paper() -> Preset:
    """The configuration of the paper for several diseases, for one data-centre GPU."""
    return Preset(
        model={
            "n_hidden": 1024,
            "n_latent": 512,
            "aggregator": "attention",
            "log_normalize": True,
            "standardize": False,
        },
        train={
            "batch_size": 32,
            "n_cells": 1_500,
            "train_size": 0.6,
            "validation_size": 0.2,
            "resampling": "rake_label_and_tissue",
            "max_epochs": 4,
            "keep_best": True,
            "stop_at_plateau": False,
            "plan_kwargs": {"lr": 1e-4, "weight_decay": 1e-4},
        },
    )


def paper_binary() -> Preset:
    """The configuration of the paper for one disease against health: what the published code calls linear attention."""
    multi = paper()
    return Preset(
        model={**multi.model, "aggregator": "feature_softmax"},
        train={**multi.train, "resampling": "oversample_label", "max_epochs": 40},
    )


PRESETS = {"paper": paper, "paper_binary": paper_binary}

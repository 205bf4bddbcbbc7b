"""One thread, and nothing printed but results."""

from __future__ import annotations

import logging
import warnings

import scvi
import torch


def one_quiet_thread() -> None:
    """Compute with one thread, and keep Lightning, scvi-tools and warnings silent."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    scvi.settings.verbosity = logging.ERROR
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)

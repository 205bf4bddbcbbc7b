"""What Lightning says in every fit that is not about the fit."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero")
ADVERTS = ("💡 Tip", "TPU available", "HPU available")
"""How its messages about products and devices that are not in use begin."""


class _NoAdverts(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(ADVERTS)


@contextmanager
def without_adverts() -> Iterator[None]:
    """Keep back Lightning's advertisements and a deprecation in its own code; everything else passes."""
    loggers, no_adverts = [logging.getLogger(name) for name in LOGGERS], _NoAdverts()
    for logger in loggers:
        logger.addFilter(no_adverts)
    try:
        with warnings.catch_warnings():
            # Lightning asks torch for a leaf in the way that torch 2.13 gives up
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(no_adverts)

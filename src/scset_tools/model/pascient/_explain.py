"""Attributions of PaSCient: which cells, genes and cell types move the score of a class."""

from __future__ import annotations


class ExplainMixin:
    """Filled in below."""

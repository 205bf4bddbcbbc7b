"""Evaluation of sample representations: any sample-level AnnData, whoever wrote it."""

from scset_tools.tl._representation import get_distances, get_representation

__all__ = [
    "get_distances",
    "get_representation",
]

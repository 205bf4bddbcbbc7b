"""Weights that come with the package: what there is, what its card says, and models that start from it."""

from scset_tools.pretrained._shipped import card, list, load

__all__ = ["card", "list", "load"]

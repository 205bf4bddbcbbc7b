"""Preparation of cells before a model reads them."""

from scset_tools.pp._latents import highly_variable_latents

__all__ = ["highly_variable_latents"]

"""Preparation of cells before a model reads them."""

from scset_tools.pp._correct import correct_samples
from scset_tools.pp._latents import highly_variable_latents
from scset_tools.pp._read_store import read_store
from scset_tools.pp._write_store import write_store

__all__ = ["correct_samples", "highly_variable_latents", "read_store", "write_store"]

"""Preparation of cells before a model reads them."""

from scset_tools.pp._concat_panels import concat_panels
from scset_tools.pp._correct import correct_samples
from scset_tools.pp._filter_samples import filter_samples
from scset_tools.pp._join_modalities import join_modalities, to_modalities
from scset_tools.pp._latents import highly_variable_latents
from scset_tools.pp._marker_names import marker_names
from scset_tools.pp._niches import niches
from scset_tools.pp._read_fcs import fcs_panels, read_fcs
from scset_tools.pp._read_store import read_store
from scset_tools.pp._standardize_markers import standardize_markers
from scset_tools.pp._write_store import write_store

__all__ = [
    "concat_panels",
    "correct_samples",
    "fcs_panels",
    "filter_samples",
    "highly_variable_latents",
    "join_modalities",
    "marker_names",
    "niches",
    "read_fcs",
    "read_store",
    "standardize_markers",
    "to_modalities",
    "write_store",
]

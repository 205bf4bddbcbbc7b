"""Descriptions of parameters that many functions share, written once.

Used as ``@docs.dedent`` with ``%(param_sample_key)s`` in a docstring; a test fails on any placeholder left in place.
"""

from __future__ import annotations

from typing import Any

from docrep import DocstringProcessor

_PARAMS = {
    "adata": """\
adata
    Annotated data matrix of cells x features. Rows are cells.""",
    "sample_key": """\
sample_key
    Column of `adata.obs` with the sample of each cell: the set that is embedded as one vector. Must be complete.""",
    "layer": """\
layer
    Key of `adata.layers` to use instead of `adata.X`.""",
    "use_rep": """\
use_rep
    Key of `adata.obsm` to use instead of `adata.X` or a layer.""",
    "labels_key": """\
labels_key
    Column of `adata.obs` with a label of the sample. One value per sample; missing means unlabelled.""",
    "batch_key": """\
batch_key
    Column of `adata.obs` with the technical batch of each cell. May vary within a sample.""",
    "samples": """\
samples
    Names of the samples to use, in this order. Default: all, sorted by name.""",
    "groups_key": """\
groups_key
    Column with the donor or study of each sample. A group is never cut by a split.""",
    "batch_size": """\
batch_size
    Number of samples (not cells) in a batch.""",
    "inference": """\
samples
    Names of the samples to use, in this order. Default: all, sorted by name.
n_cells
    Number of cells drawn from each sample, without replacement and from a seed. Default: all cells.
seed
    Seed of the draw of cells. Default: ``scvi.settings.seed``, or 0.
batch_size
    Number of samples (not cells) in a batch.""",
    "n_cells": """\
n_cells
    Number of cells drawn from each sample, without replacement and from a seed. Default: all cells.""",
}

docs: Any = DocstringProcessor(**{f"param_{k}": v for k, v in _PARAMS.items()})

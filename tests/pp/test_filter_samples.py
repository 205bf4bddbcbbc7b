"""Samples left out by their size."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scset_tools import pp


def cells() -> ad.AnnData:
    obs = pd.DataFrame({"sample": list("abacaab")}, index=[f"c{i}" for i in range(7)])
    return ad.AnnData(np.arange(14.0).reshape(7, 2), obs=obs)


def test_sizes_within_bounds_stay_and_the_rest_is_said(capsys, tmp_path):
    adata = cells()
    kept = pp.filter_samples(adata, "sample", min_cells=2, max_cells=3)
    assert kept.obs_names.tolist() == ["c1", "c6"]
    said = "Samples kept: 1 of 3; cells kept: 2 of 7; 1 below 2 cells: ['c (1)']; 1 above 3 cells: ['a (4)']\n"
    assert capsys.readouterr().out == said
    assert not kept.is_view
    assert pp.filter_samples(adata, "sample", min_cells=4).n_obs == 4
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert pp.filter_samples(ad.read_h5ad(tmp_path / "a.h5ad", backed="r"), "sample", max_cells=1).n_obs == 1


def test_bad_input():
    adata = cells()
    with pytest.raises(ValueError, match="neither min_cells nor max_cells"):
        pp.filter_samples(adata, "sample")
    with pytest.raises(ValueError, match="min_cells=5 and max_cells=4 leave no size"):
        pp.filter_samples(adata, "sample", min_cells=5, max_cells=4)
    with pytest.raises(ValueError, match=r"No sample of 3 stays with min_cells=128.*3 below 128 cells: \['a \(4\)'"):
        pp.filter_samples(adata, "sample", min_cells=128)
    with pytest.raises(KeyError, match="'donor' is not a column"):
        pp.filter_samples(adata, "donor", min_cells=1)
    with pytest.raises(TypeError, match=r"pp.filter_samples takes an AnnData"):
        pp.filter_samples(adata.X, "sample", min_cells=1)

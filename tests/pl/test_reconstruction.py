from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex

from scset_tools import pl
from scset_tools.pl._reconstruction import ROLES


def cells(n_samples: int = 2, n: int = 12) -> AnnData:
    """In each sample ``n`` input cells, half as many hidden, half as many predicted."""
    rng = np.random.default_rng(0)
    roles = np.tile(np.repeat(["input", "hidden", "predicted"], [n, n // 2, n // 2]), n_samples)
    obs = pd.DataFrame({"role": roles, "sample": np.repeat([f"s{i}" for i in range(n_samples)], 2 * n)})
    obs.index = obs.index.astype(str)
    order = rng.permutation(len(obs))
    return AnnData(rng.normal(size=(len(obs), 4)).astype(np.float32), obs=obs.iloc[order])


def test_rows_are_roles_and_columns_samples():
    axes = pl.reconstruction(cells(), basis="pca")
    assert axes.shape == (4, 2)
    assert [ax.get_title() for ax in axes[0]] == ["s0", "s1"]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["all", "input", "hidden", "predicted"]
    assert len(axes[0, 0].collections[0].get_offsets()) == 24
    for row, n in zip(axes[1:, 1], (12, 6, 6), strict=True):
        grey, coloured = row.collections
        assert (len(grey.get_offsets()), len(coloured.get_offsets())) == (24 - n, n)
    colors = [to_hex(ax.collections[1].get_facecolor()[0]).upper() for ax in axes[1:, 0]]
    assert colors == list(ROLES.values())


def test_all_panels_share_one_map_with_every_cell_in_it():
    adata = cells()
    axes = pl.reconstruction(adata, basis="pca")
    limits = {(ax.get_xlim(), ax.get_ylim()) for ax in axes.ravel()}
    assert len(limits) == 1
    (x, y), points = limits.pop(), axes[0, 0].collections[0].get_offsets()
    assert (points[:, 0] > x[0]).all()
    assert (points[:, 1] < y[1]).all()


def test_samples_asked_for_in_that_order():
    axes = pl.reconstruction(cells(3), basis="pca", sample=["s2", "s0"])
    assert [ax.get_title() for ax in axes[0]] == ["s2", "s0"]
    assert pl.reconstruction(cells(3), basis="pca", sample="s1").shape == (4, 1)


def test_many_cells_are_thinned_per_role():
    axes = pl.reconstruction(cells(), basis="pca", n_cells=5)
    assert [len(ax.collections[1].get_offsets()) for ax in axes[1:, 0]] == [5, 5, 5]


def test_one_sample_without_a_column_a_role_without_cells_and_own_axes():
    adata = cells(1)
    adata = adata[adata.obs["role"] != "hidden"].copy()
    del adata.obs["sample"]
    _, mine = plt.subplots(4, 1)
    axes = pl.reconstruction(adata, basis="pca", axes=mine)
    assert axes.shape == (4, 1)
    assert axes[0, 0] is mine[0]
    assert len(axes[2, 0].collections[1].get_offsets()) == 0


def test_errors():
    adata = cells()
    with pytest.raises(KeyError, match=r"'part' is not a column of adata.obs"):
        pl.reconstruction(adata, role_key="part")
    with pytest.raises(ValueError, match=r"has the values \['s0', 's1'\], but must be one of"):
        pl.reconstruction(adata, role_key="sample")
    with pytest.raises(KeyError, match=r"\['s9'\] is not in adata.obs\['sample'\]"):
        pl.reconstruction(adata, sample="s9")
    with pytest.raises(ValueError, match=r"axes has the shape \(2, 2\), but must be \(4, 2\)"):
        pl.reconstruction(adata, basis="pca", axes=plt.subplots(2, 2)[1])

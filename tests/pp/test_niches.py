"""Niches of planted tissues, against distances that are computed one by one."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.spatial import Delaunay
from scipy.spatial.distance import cdist
from sklearn.neighbors import kneighbors_graph

import scset_tools as sst
from scset_tools import pp, tl


def tissue(n=(60, 80, 70), *, seed: int = 0, n_dims: int = 2) -> ad.AnnData:
    """Tissues over the same range of coordinates: cells of a half (x below 50) express the first gene, the others the second."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 100, (sum(n), n_dims))
    is_left = xy[:, 0] < 50
    x = np.stack([is_left, ~is_left, rng.random(len(xy))], axis=1).astype(np.float32)
    obs = pd.DataFrame(
        {"sample": np.repeat([f"t{i}" for i in range(len(n))], n), "age": np.repeat([40, 50, 60][: len(n)], n)}
    )
    obs.index = [f"c{i}" for i in range(len(obs))]
    adata = ad.AnnData(x, obs=obs, var=pd.DataFrame(index=["left", "right", "noise"]))
    adata.obsm["spatial"] = xy
    return adata


def members(niches: ad.AnnData) -> dict[str, set[str]]:
    return {name: set(cells) for name, cells in niches.obs.groupby("niche", observed=True)["cell"]}


@pytest.mark.parametrize("rule", ["n_neighbors", "radius", "graph_key"])
@pytest.mark.parametrize("n_dims", [2, 3])
def test_members_are_those_of_the_distances(rule, n_dims):
    adata = tissue(n_dims=n_dims)
    xy, sample = adata.obsm["spatial"], adata.obs["sample"].to_numpy()
    within = np.where(sample[:, None] == sample, cdist(xy, xy), np.inf)
    value = {"n_neighbors": 6, "radius": 25.0, "graph_key": "near"}[rule]
    limit = np.sort(within, axis=1)[:, 6] if rule != "radius" else np.full(len(xy), 25.0)
    adata.obsp["near"] = sparse.block_diag(
        [kneighbors_graph(xy[sample == s], 6) for s in ("t0", "t1", "t2")], format="csr"
    )
    found = pp.niches(adata, "sample", n_niches=None, min_cells=1, **{rule: value})
    expected = {
        f"{s}: {c}": set(adata.obs_names[within[i] <= limit[i]])
        for i, (s, c) in enumerate(zip(sample, adata.obs_names, strict=True))
    }
    assert members(found) == expected
    rows = adata.obs_names.get_indexer(found.obs["cell"])
    np.testing.assert_array_equal(found.X, adata.X[rows])
    centre = [name.split(": ")[1] for name in found.obs["niche"]]
    np.testing.assert_array_equal(found.obs["is_centre"], found.obs["cell"] == centre)
    at = adata.obs_names.get_indexer(centre)
    np.testing.assert_array_equal(found.obs["niche_x"], xy[at, 0])
    np.testing.assert_allclose(found.obs["niche_distance"], within[at, rows])
    assert ("niche_z" in found.obs) is (n_dims == 3)
    assert found.obs_names.is_unique


def test_the_draw_is_of_the_tissue_and_the_seed(tmp_path):
    adata = tissue()
    drawn = pp.niches(adata, "sample", n_neighbors=5, n_niches=10)
    assert drawn.n_obs == 3 * 10 * 6
    assert drawn.obs.groupby("sample", observed=True)["niche"].nunique().tolist() == [10, 10, 10]
    mixed = adata[np.random.default_rng(1).permutation(adata.n_obs)].copy()
    assert members(pp.niches(mixed, "sample", n_neighbors=5, n_niches=10)) == members(drawn)
    alone = pp.niches(adata[adata.obs["sample"] == "t1"].copy(), "sample", n_neighbors=5, n_niches=10)
    assert members(alone).items() <= members(drawn).items()
    assert members(pp.niches(adata, "sample", n_neighbors=5, n_niches=10, seed=1)) != members(drawn)
    adata.X = sparse.csr_matrix(adata.X)
    adata.layers["twice"] = adata.X * 2
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = pp.niches(ad.read_h5ad(tmp_path / "a.h5ad", backed="r"), "sample", n_neighbors=5, n_niches=10)
    np.testing.assert_array_equal(backed.X.toarray(), drawn.X)
    np.testing.assert_array_equal(backed.layers["twice"].toarray(), 2 * drawn.X)
    backed.write_h5ad(tmp_path / "b.h5ad")
    assert ad.read_h5ad(tmp_path / "b.h5ad").uns["niche"]["n_neighbors"] == 5


def test_vectors_of_niches_and_of_tissues():
    adata = tissue()
    niches = pp.niches(adata, "sample", n_neighbors=5, n_niches=20)
    vectors = sst.profiles.mean(niches, sample_key="niche")
    assert {"sample", "age", "niche_x", "niche_y"} <= set(vectors.obs)
    far = np.abs(vectors.obs["niche_x"] - 50) > 30
    np.testing.assert_array_equal(vectors.X[far, 0], vectors.obs["niche_x"][far] < 50)
    out = tl.aggregate_niches(vectors, "sample", method="mean_sd")
    by = pd.DataFrame(vectors.X, index=vectors.obs["sample"]).groupby(level=0)
    np.testing.assert_allclose(out.X, np.c_[by.mean(), by.std(ddof=0)], rtol=1e-5, atol=1e-6)
    assert out.obs["n_niches"].tolist() == [20, 20, 20]
    assert out.obs["age"].tolist() == [40, 50, 60]
    assert list(out.var_names) == ["left", "right", "noise", "left sd", "right sd", "noise sd"]
    fractions = tl.aggregate_niches(vectors, "sample", method="fractions", use_rep="X_mean", n_clusters=2)
    np.testing.assert_allclose(fractions.X.sum(1), 1, rtol=1e-6)
    left = (vectors.obs["niche_x"] < 50).groupby(vectors.obs["sample"]).mean()
    assert np.abs(np.sort(fractions.X, axis=1)[:, 0] - np.minimum(left, 1 - left)).max() < 0.2


def test_cells_without_neighbours_and_with_too_many():
    adata = tissue((40, 40))
    adata.obsm["spatial"][:3] += 1000 * np.arange(1, 4)[:, None]
    with pytest.warns(
        UserWarning, match=r"3 of 80 cells have fewer than min_cells=2 cells.*radius=40.*\['t0 \(3 of 40\)'\]"
    ):
        niches = pp.niches(adata, "sample", radius=40, min_cells=2, n_niches=None)
    assert niches.obs["niche"].nunique() == 77
    with pytest.raises(
        ValueError, match=r"No cell has min_cells=5 cells in its niche by radius=0.01 in 2 of 2 tissues: \['t0', 't1'\]"
    ):
        pp.niches(adata, "sample", radius=0.01)
    with pytest.warns(UserWarning, match="have more than max_cells=4 cells"):
        niches = pp.niches(tissue(), "sample", radius=60, max_cells=4, n_niches=5)
    by_number = pp.niches(tissue(), "sample", n_neighbors=3, n_niches=5)
    assert members(niches) == members(by_number)


def test_cells_at_one_place_are_told_apart():
    adata = tissue((20,))
    adata.obsm["spatial"][:] = 1.0
    niches = pp.niches(adata, "sample", n_neighbors=3, n_niches=None)
    assert all(len(cells) == 4 and name.split(": ")[1] in cells for name, cells in members(niches).items())


def test_bad_input():
    adata = tissue()
    with pytest.raises(KeyError, match=r"'spatial' is not in adata.obsm"):
        pp.niches(ad.AnnData(adata.X, obs=adata.obs), "sample", n_neighbors=3)
    with pytest.raises(
        ValueError,
        match=r"n_neighbors=65 needs more cells than that.*1 of 3 have fewer: \['t0 \(60\)'\].*filter_samples",
    ):
        pp.niches(adata, "sample", n_neighbors=65)
    with pytest.raises(ValueError, match="exactly one of n_neighbors, radius and graph_key, but was given none"):
        pp.niches(adata, "sample")
    with pytest.raises(ValueError, match="exactly one"):
        pp.niches(adata, "sample", n_neighbors=3, radius=1.0)
    with pytest.raises(ValueError, match="radius=0 must be a finite number above 0"):
        pp.niches(adata, "sample", radius=0)
    with pytest.raises(ValueError, match="n_niches=0 must be a whole number of 1 or more"):
        pp.niches(adata, "sample", n_neighbors=3, n_niches=0)
    with pytest.raises(KeyError, match=r"'x' is not in adata.obsp"):
        pp.niches(adata, "sample", graph_key="x")
    adata.obsp["all"] = sparse.csr_matrix(np.ones((adata.n_obs, adata.n_obs)))
    with pytest.raises(ValueError, match=r"joins cells of different tissues by \d+ of \d+ edges \(first: \['t0 - t1'"):
        pp.niches(adata, "sample", graph_key="all")
    named = adata.copy()
    named.obs["cell"] = "a"
    with pytest.raises(ValueError, match=r"columns \['cell'\] already"):
        pp.niches(named, "sample", n_neighbors=3)
    adata.obsm["spatial"][5, 0] = np.nan
    with pytest.raises(ValueError, match=r"not finite for 1 of 210 cells \(first: \['c5'\]\)"):
        pp.niches(adata, "sample", n_neighbors=3)
    adata.obsm["spatial"] = np.zeros((adata.n_obs, 4))
    with pytest.raises(ValueError, match="2 or 3 coordinates"):
        pp.niches(adata, "sample", n_neighbors=3)
    with pytest.raises(ValueError, match="method='max' is not one of"):
        tl.aggregate_niches(adata, "sample", method="max")


def test_niches_of_tumours_differ_by_where_they_lie(shared_data):
    """In compartmentalized tumours niches are of one kind of cells more often than in mixed ones, in tissues of any composition."""
    file = shared_data / "tnbc_mibi_keren_scfeatures.h5ad"
    if not file.is_file():
        pytest.skip(f"no real cohort: {file} is not there")
    adata = ad.read_h5ad(file)
    niches = pp.niches(adata, "sample", n_neighbors=10, n_niches=60)
    is_tumour = (niches.obs["celltype_group"].astype(str) == "Tumour").astype(float).to_numpy()
    share = ad.AnnData(is_tumour[:, None], obs=niches.obs)
    tissues = tl.aggregate_niches(sst.profiles.mean(share, sample_key="niche"), "sample", method="mean_sd")
    p, sd = np.asarray(tissues.X).T
    relative = pd.Series(sd / np.sqrt(p * (1 - p)), index=tissues.obs["tissue_architecture"].astype(str))
    mean = relative.groupby(level=0).mean()  # measured: 0.53, 0.40 and, of hardly any other cells, 0.31
    assert mean["compartmentalized"] > 1.15 * mean["mixed"] > 1.15 * mean["cold"]


@pytest.mark.filterwarnings("ignore")  # of its own imports
@pytest.mark.parametrize("how", [{"n_neighs": 6}, {"radius": 25.0}, {"delaunay": True}], ids=str)
def test_squidpys_graph_is_read(how):
    """Its neighbours are those of the same rule here, in each tissue; Delaunay triangles are scipy's."""
    squidpy = pytest.importorskip("squidpy", reason="the optional package squidpy is not installed")
    adata = tissue()
    adata.obs["sample"] = adata.obs["sample"].astype("category")
    squidpy.gr.spatial_neighbors(adata, coord_type="generic", library_key="sample", **how)
    found = pp.niches(adata, "sample", graph_key="spatial_connectivities", n_niches=None, min_cells=1)
    if "delaunay" in how:
        expected = {}
        for s in adata.obs["sample"].unique():
            names = adata.obs_names[adata.obs["sample"] == s]
            pairs = Delaunay(adata[names].obsm["spatial"]).vertex_neighbor_vertices
            for i, name in enumerate(names):
                expected[f"{s}: {name}"] = {name, *names[pairs[1][pairs[0][i] : pairs[0][i + 1]]]}
        assert members(found) == expected
        return
    rule = {"n_neighbors": 6} if "n_neighs" in how else {"radius": 25.0}
    assert members(found) == members(pp.niches(adata, "sample", n_niches=None, min_cells=1, **rule))

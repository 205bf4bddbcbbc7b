from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from scipy import sparse
from sklearn.base import clone

from scset_tools import pp, profiles


def test_mean_equals_scanpy_aggregate(adata: ad.AnnData) -> None:
    ours = profiles.mean(adata, sample_key="sample")
    theirs = sc.get.aggregate(adata, "sample", "mean")
    np.testing.assert_allclose(ours.X, theirs[ours.obs_names].layers["mean"], rtol=1e-5, atol=1e-6)
    assert list(ours.var_names) == list(adata.var_names)


@pytest.mark.parametrize(("args", "key"), [({"layer": "double"}, "layer"), ({"use_rep": "X_rep"}, "rep")])
def test_mean_of_a_layer_and_of_a_representation(adata: ad.AnnData, args: dict, key: str) -> None:
    values = adata.layers["double"] if key == "layer" else adata.obsm["X_rep"]
    expected = [values[(adata.obs["sample"] == s).to_numpy()].mean(0) for s in sorted(adata.obs["sample"].unique())]
    np.testing.assert_allclose(profiles.mean(adata, sample_key="sample", **args).X, expected, rtol=1e-5, atol=1e-6)


def test_mean_sums_in_double_precision() -> None:
    # float32 sums of many equal large numbers drift; the mean of equal numbers must be that number
    x = np.full((200_000, 1), 16_777_217.0 / 3, dtype=np.float32)
    samples = profiles.mean(ad.AnnData(x, obs={"s": ["a"] * len(x)}), sample_key="s")
    assert samples.X[0, 0] == x[0, 0]


def test_mean_per_type_equals_loop_and_fills_absent_types(adata: ad.AnnData) -> None:
    train = ["s0", "s1", "s2", "s4"]
    out = (
        profiles.MeanPerType(sample_key="sample", cell_type_key="cell_type").fit(adata, samples=train).transform(adata)
    )
    types = ["B", "NK", "T", "rare"]
    cell = {
        (s, t): adata.X[((adata.obs["sample"] == s) & (adata.obs["cell_type"] == t)).to_numpy()]
        for s in out.obs_names
        for t in types
    }
    expected = np.empty((6, 4, 5))
    for j, t in enumerate(types):
        fill = np.mean([cell[s, t].mean(0) for s in train if len(cell[s, t])], axis=0)
        for i, s in enumerate(out.obs_names):
            expected[i, j] = cell[s, t].mean(0) if len(cell[s, t]) else fill
    np.testing.assert_allclose(out.X, expected.reshape(6, -1), rtol=1e-4, atol=1e-5)
    assert out.var_names[5] == "NK:g0"


def test_mean_per_type_of_a_type_that_no_training_sample_has(adata: ad.AnnData) -> None:
    profile = profiles.MeanPerType(sample_key="sample", cell_type_key="cell_type", cell_types=["rare", "B", "T", "NK"])
    out = profile.fit(adata, samples=["s1", "s3"]).transform(adata)
    overall = np.mean([adata.X[(adata.obs["sample"] == s).to_numpy()].mean(0) for s in ("s1", "s3")], axis=0)
    np.testing.assert_allclose(out["s1", :5].X[0], overall, rtol=1e-5, atol=1e-6)
    assert not np.allclose(out["s0", :5].X[0], overall)


@pytest.mark.parametrize("form", ["dask", "dask_sparse", "store", "backed_csr"])
@pytest.mark.parametrize("part", [False, True])
def test_cells_on_disk_are_read_once_in_small_pieces(adata, form, part, tmp_path, monkeypatch) -> None:
    """Each chunk is computed once, sparse cells are never made dense, and no piece is longer than asked for."""
    import dask.array

    from scset_tools.data import RowReader
    from scset_tools.profiles import _cells

    monkeypatch.setattr(_cells, "ROWS_OF_FILE", 64)
    monkeypatch.setattr(_cells, "BLOCK_VALUES", 64 * adata.n_vars)
    computed, lengths, x = [], [], np.asarray(adata.X)
    if form.startswith("dask"):

        def chunk(block):
            computed.append(block.tobytes())
            return sparse.csr_matrix(block) if form == "dask_sparse" else block

        empty = sparse.csr_matrix((0, 0), dtype=x.dtype) if form == "dask_sparse" else np.zeros((0, 0), x.dtype)
        lazy = dask.array.from_array(x, chunks=(25, -1)).map_blocks(chunk, dtype=x.dtype, meta=empty)
        cells = ad.AnnData(lazy, obs=adata.obs, var=adata.var)
    else:
        plain = ad.AnnData(sparse.csr_matrix(x), obs=adata.obs, var=adata.var)
        if form == "store":
            cells = pp.read_store(pp.write_store(plain, tmp_path / "c.zarr", sample_key="sample", progress=False))
        else:
            plain.write_h5ad(tmp_path / "c.h5ad")
            cells = ad.read_h5ad(tmp_path / "c.h5ad", backed="r")
    per_type = profiles.MeanPerType(sample_key="sample", cell_type_key="cell_type")
    train = ["s0", "s2", "s4"]
    mean, fill = profiles.mean(adata, sample_key="sample"), clone(per_type).fit(adata, samples=train).fill_
    if form != "dask":
        monkeypatch.setattr(RowReader, "__call__", lambda *args: pytest.fail("cells were made dense"))
    csr = RowReader.csr
    monkeypatch.setattr(RowReader, "csr", lambda self, rows: lengths.append(len(rows)) or csr(self, rows))
    computed.clear()
    if part:
        np.testing.assert_allclose(per_type.fit(cells, samples=train).fill_, fill, rtol=1e-5, atol=1e-6)
    else:
        got = profiles.mean(cells, sample_key="sample")
        np.testing.assert_allclose(got[mean.obs_names].X, mean.X, rtol=1e-5, atol=1e-6)
    assert len(computed) == len(set(computed))
    assert max(lengths, default=0) <= 64 + 25
    assert form == "dask" or len(lengths) > 1

"""A small cohort whose numbers can be checked by hand: six samples of 1 to 40 cells, one type absent from most."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

SIZES = {"s0": 40, "s1": 30, "s2": 1, "s3": 25, "s4": 12, "s5": 33}


@pytest.fixture
def adata() -> ad.AnnData:
    """141 cells x 5 features in shuffled order; `s2` has one cell; type `rare` occurs in `s0` and `s4` only."""
    rng = np.random.default_rng(3)
    samples = rng.permutation(np.repeat(list(SIZES), list(SIZES.values())))
    types = rng.choice(["B", "T", "NK"], len(samples)).astype(object)
    for name in ("s0", "s4"):
        types[np.flatnonzero(samples == name)[:3]] = "rare"
    shift = {"B": 0.0, "T": 4.0, "NK": 8.0, "rare": 16.0}
    x = rng.normal(size=(len(samples), 5)) + np.array([shift[t] for t in types])[:, None] * [1, 1, 0, 0, -1]
    x[x < 0.3] = 0.0
    obs = pd.DataFrame(
        {"sample": pd.Categorical(samples), "cell_type": types, "group": np.where(samples < "s3", "a", "b")},
        index=[f"c{i}" for i in range(len(samples))],
    )
    obs["quality"] = rng.normal(size=len(samples))
    out = ad.AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(5)]))
    out.obsm["X_rep"] = rng.normal(size=(len(samples), 3))
    out.layers["double"] = out.X * 2
    return out


def _stored(adata: ad.AnnData, kind: str, path: Path) -> ad.AnnData:
    import dask.array
    import zarr

    x = np.asarray(adata.X)
    convert: dict[str, Callable[[], Any]] = {
        "csr": lambda: sparse.csr_matrix(x),
        "csc": lambda: sparse.csc_matrix(x),
        "dask": lambda: dask.array.from_array(x, chunks=(50, 5)),
        "zarr": lambda: zarr.array(x, chunks=(50, 5)),
    }
    if kind in convert:
        return ad.AnnData(convert[kind](), obs=adata.obs, var=adata.var)
    to_write = ad.AnnData(sparse.csr_matrix(x) if kind == "backed_csr" else x, obs=adata.obs, var=adata.var)
    to_write.write_h5ad(path / "cells.h5ad")
    return ad.read_h5ad(path / "cells.h5ad", backed="r")


@pytest.fixture(params=["csr", "csc", "dask", "zarr", "backed", "backed_csr"])
def stored(request: pytest.FixtureRequest, adata: ad.AnnData, tmp_path: Path) -> ad.AnnData:
    """The same cells in another storage."""
    return _stored(adata, request.param, tmp_path)

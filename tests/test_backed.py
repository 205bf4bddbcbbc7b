"""A backed AnnData is opened anew in another process, as it is in this one."""

from __future__ import annotations

import pickle

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scset_tools as sst
from scset_tools._backed import Backed


@pytest.fixture
def backed(tmp_path):
    rng = np.random.default_rng(0)
    n = 120
    obs = pd.DataFrame({"sample": [f"s{i % 12:02d}" for i in range(n)]}, index=[f"c{i}" for i in range(n)])
    ad.AnnData(rng.normal(size=(n, 3)).astype(np.float32) + 1, obs=obs).write_h5ad(tmp_path / "cells.h5ad")
    adata = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    adata.obs["label"] = np.where(adata.obs["sample"].str[1:].astype(int) % 2, "a", "b")  # not in the file
    adata.obsm["more"] = rng.normal(size=(n, 2))
    return adata


def test_what_is_in_memory_goes_along(backed):
    there = pickle.loads(pickle.dumps(Backed.of(backed))).open()
    assert there.isbacked
    pd.testing.assert_frame_equal(there.obs, backed.obs)
    np.testing.assert_array_equal(there.obsm["more"], backed.obsm["more"])
    np.testing.assert_array_equal(there.X[:], backed.X[:])


def test_a_benchmark_of_a_backed_file_does_not_depend_on_the_number_of_processes(backed):
    profiles = {"mean": sst.profiles.Mean(sample_key="sample")}
    how = {"sample_key": "sample", "cv": 2, "n_repeats": 1, "tune": False, "progress": False}
    one, two = (sst.tl.benchmark(backed, profiles, "label", n_jobs=n, **how).results for n in (1, 2))
    pd.testing.assert_frame_equal(one, two)

"""Every profile reads a modality of a MuData, or several joined; its class says how."""

from __future__ import annotations

import inspect

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest

import scset_tools as sst

FUNCTIONS = [name for name in sst.profiles.__all__ if not isinstance(getattr(sst.profiles, name), type)]
CLASSES = [name for name in sst.profiles.__all__ if name not in FUNCTIONS and name != "Profile"]


@pytest.fixture(scope="module")
def cells():
    """Six samples of 40 cells with counts of genes and proteins; columns stand in the obs of the MuData."""
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(240)]
    parts = {}
    for name, n in (("rna", 5), ("adt", 3)):
        x = rng.poisson(3, (240, n)).astype(np.float32)
        var = pd.DataFrame(index=[f"{name}{i}" for i in range(n)])
        parts[name] = ad.AnnData(x, obs=pd.DataFrame(index=names), var=var, obsm={"rep": x[:, :2]})
    mdata = md.MuData(parts)
    mdata.obs["sample"] = np.repeat([f"s{i}" for i in range(6)], 40)
    mdata.obs["cell_type"] = rng.choice(["B", "T"], 240)
    return mdata


def arguments(made):
    given = inspect.signature(made).parameters
    return {
        k: v for k, v in {"sample_key": "sample", "cell_type_key": "cell_type", "n_clusters": 5}.items() if k in given
    }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_read_one_and_several(cells, name):
    made = getattr(sst.profiles, name)
    how = arguments(made)
    one = cells["adt"].copy()
    one.obs = cells.obs[["sample", "cell_type"]].copy()
    reads = [({}, {})]
    if "use_rep" in inspect.signature(made).parameters:
        reads += [({"use_rep": {"rna": "rep"}}, {"use_rep": {"rna": "rep"}})]
        reads += [({"use_rep": "rep"}, {"use_rep": dict.fromkeys(cells.mod, "rep")})]
    for given, same in reads:
        joined = sst.pp.join_modalities(cells, "sample", **same)
        found = made(cells, modalities=["rna", "adt"], **how, **given)
        np.testing.assert_array_equal(found.X, made(joined, **how).X)
    np.testing.assert_array_equal(made(cells, modalities="adt", **how).X, made(one, **how).X)
    with pytest.raises(ValueError, match=rf"profiles.{name} was given a MuData of .* and no modalities"):
        made(cells, **how)


@pytest.mark.parametrize("name", CLASSES)
def test_classes_say_how(cells, name):
    made = getattr(sst.profiles, name)
    with pytest.raises(
        TypeError, match=rf"profiles.{name} takes an AnnData, but was given a MuData .*pp.join_modalities"
    ):
        made(**arguments(made)).fit(cells)

"""What the models write can be written to files and read again, whatever labels, classes and groups are called."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from _cohort import FIT, make_cohort

import scset_tools as sst
from scset_tools import _keys

SMALL = {"n_hidden": 8, "n_latent": 4, "n_inducing": 2, "n_layers": 1, "n_cells": 20, "n_heads": 2, "random_state": 0}
ODD = ["HIV+/ART", "..", "a\\b\tc", "x" * 400, "=1+1", "%2F"]


def odd_cohort():
    adata = make_cohort()
    of_sample = dict(zip(adata.obs["sample"].cat.categories, [ODD[0], ODD[1]] * 4, strict=True))
    adata.obs["disease/state"] = adata.obs["sample"].map(of_sample).astype(str).astype("category")
    adata.obs["cell/type"] = pd.Categorical(np.take(ODD, np.arange(adata.n_obs) % len(ODD)))
    adata.obs["sample/id"] = adata.obs["sample"]
    return adata


def through_files(adata, folder):
    adata = adata.copy()
    del (
        adata.obs["disease/state"],
        adata.obs["cell/type"],
        adata.obs["sample/id"],
    )  # the user's own columns, which zarr cannot hold
    adata.write_h5ad(folder / "a.h5ad")
    yield ad.read_h5ad(folder / "a.h5ad")
    adata.write_zarr(folder / "a.zarr")
    yield ad.read_zarr(folder / "a.zarr")


@pytest.mark.parametrize("name", ["MAESTRO", "PaSCient"])
def test_attributions_to_odd_names_come_back(name, tmp_path):
    adata = odd_cohort()
    cls = getattr(sst, name)
    cls.setup_anndata(adata, "sample/id", labels_key="disease/state")
    model = cls(adata, **(SMALL if name == "MAESTRO" else {"n_hidden": 8, "n_latent": 4, "random_state": 0}))
    model.train(**FIT)
    model.annotate_attributions("disease/state", groupby="cell/type", n_cells=5, n_steps=2)
    key = f"{name.lower()}_attribution_disease%2Fstate_HIV+%2FART"
    assert key in adata.var
    for back in through_files(adata, tmp_path):
        assert set(back.varm.keys()) == set(adata.varm.keys()) >= {key}
        pd.testing.assert_frame_equal(back.varm[key], adata.varm[key])
        np.testing.assert_allclose(back.obs[key], adata.obs[key])
        assert sorted(_keys.name_of(column, back.uns) for column in back.varm[key]) == sorted(ODD)
        assert set(back.uns) == set(adata.uns)
        about = f"{name.lower()}_attribution_disease%2Fstate"
        pd.testing.assert_frame_equal(back.uns[about]["scores"], adata.uns[about]["scores"], check_column_type=False)
        assert _keys.name_of(back.uns[about]["scores"].index.name) == "sample/id"


@pytest.mark.parametrize("name", ["MAESTRO", "PaSCient"])
def test_a_column_without_a_name_is_the_one_that_is_read(name):
    adata = make_cohort()
    adata.obs[""] = adata.obs["condition"].to_numpy()
    adata.obs["labels"] = adata.obs["study"].to_numpy()  # scvi-tools' own name for what has none
    cls = getattr(sst, name)
    cls.setup_anndata(adata, "sample", labels_key="")
    model = cls(adata, **(SMALL if name == "MAESTRO" else {"n_hidden": 8, "n_latent": 4, "random_state": 0}))
    if name == "MAESTRO":
        model.train(**FIT)
        model.finetune("")
    assert sorted(model.heads[""].classes) == ["case", "control"]


def test_classes_of_two_labels_do_not_replace_each_other():
    adata = make_cohort()
    number = adata.obs["sample"].cat.codes
    adata.obs["smoker"] = pd.Categorical(np.where(number % 2, "yes", "no"))
    adata.obs["diabetes"] = pd.Categorical(np.where(number < 4, "yes", "no"))
    sst.MAESTRO.setup_anndata(adata, "sample")
    model = sst.MAESTRO(adata, **SMALL)
    model.train(**FIT)
    model.annotate_attributions("smoker", n_cells=5, n_steps=2)
    first = adata.var.copy()
    assert list(first) == ["maestro_attribution_smoker_no", "maestro_attribution_smoker_yes"]
    model.annotate_attributions("diabetes", n_cells=5, n_steps=2)
    pd.testing.assert_frame_equal(adata.var[list(first)], first)
    assert len(adata.var.columns) == 4

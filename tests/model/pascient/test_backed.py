"""Genes of cells in a file are found by name without loading the cells."""

from __future__ import annotations

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from _cohort import FIT
from test_aggregators import GENES, Published, published_cells
from test_pascient import SMALL, counts_cohort

import scset_tools as sst
from scset_tools.data._rows import RowReader


@pytest.fixture
def largest_read(monkeypatch):
    """Refuses to load cells whole, and records the largest share of the values that one read asks for."""
    shares = [0.0]

    def note(self, n):
        if self.name.rsplit("/", 1)[-1] in ("X", "data", "counts"):
            shares.append(n / max(1, self.size))

    def whole(*args, **kwargs):
        raise AssertionError("the cells were loaded whole")

    get, direct = h5py.Dataset.__getitem__, h5py.Dataset.read_direct

    def spied_get(self, key, *args, **kwargs):
        out = get(self, key, *args, **kwargs)
        note(self, np.size(out))
        return out

    def spied_direct(self, dest, *args, **kwargs):
        note(self, dest.size)
        return direct(self, dest, *args, **kwargs)

    def start():
        monkeypatch.setattr(h5py.Dataset, "__getitem__", spied_get)
        monkeypatch.setattr(h5py.Dataset, "read_direct", spied_direct)
        monkeypatch.setattr(ad.AnnData, "to_memory", whole)
        monkeypatch.setattr(RowReader, "rows_per_chunk", staticmethod(lambda n_features, n_bytes=0: 20))
        return shares

    return start


def in_file(adata, path, *, form):
    adata = adata.copy()
    adata = adata[np.argsort(adata.obs["sample"].to_numpy(), kind="stable")].copy()
    adata.X = sp.csr_matrix(adata.X) if form == "sparse" else adata.X.toarray()
    adata.write_h5ad(path)
    return ad.read_h5ad(path, backed="r")


@pytest.mark.parametrize("form", ["sparse", "dense"])
@pytest.mark.parametrize("order", ["another", "the model's"])
def test_published_weights_read_a_file(form, order, tmp_path, largest_read):
    torch.save(Published().state(), tmp_path / "a.pt")
    adata = published_cells()
    if order == "the model's":
        adata = adata[:, GENES].copy()
    want = sst.PaSCient.from_checkpoint(tmp_path / "a.pt", GENES, adata, sample_key="sample").predict_proba()
    backed = in_file(adata, tmp_path / "cells.h5ad", form=form)
    shares = largest_read()
    model = sst.PaSCient.from_checkpoint(tmp_path / "a.pt", GENES, backed, sample_key="sample")
    np.testing.assert_allclose(model.predict_proba(batch_size=1), want, rtol=1e-5, atol=1e-7)
    assert 0 < max(shares) < 0.6
    assert not [key for key in backed.uns if key.startswith("_scvi")]
    assert backed.isbacked
    np.testing.assert_array_equal(model.get_var_names(), GENES)
    assert model.gene_coverage_["coverage"].item() == 1.0


@pytest.mark.parametrize("form", ["sparse", "dense"])
def test_new_cells_with_other_genes_stay_in_their_file(form, tmp_path, largest_read):
    """Reordered, with others among them, and one missing."""
    adata = counts_cohort()
    sst.PaSCient.setup_anndata(adata, "sample", labels_key="condition")
    model = sst.PaSCient(adata, **SMALL, log_normalize=True)
    model.train(**FIT)
    new = counts_cohort(seed=7, prefix="new")
    zero = new.copy()
    zero.X = sp.csr_matrix(zero.X.toarray() * (np.arange(8) != 3))
    want = model.predict_proba(zero)
    other = ad.AnnData(
        sp.csr_matrix(np.hstack([new.X.toarray(), np.ones((new.n_obs, 1))])[:, [8, 7, 6, 5, 4, 2, 1, 0]]),
        obs=new.obs,
        var=pd.DataFrame(index=["other", *np.asarray(new.var_names)[[7, 6, 5, 4, 2, 1, 0]]]),
    )
    backed = in_file(other, tmp_path / "new.h5ad", form=form)
    shares = largest_read()
    with pytest.warns(UserWarning, match=r"1 of the model's 8 genes are not in adata.var_names .* Coverage: 87.5%"):
        got = model.predict_proba(backed, batch_size=1)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)
    assert 0 < max(shares) < 0.6


def test_a_saved_model_finds_its_genes_in_another_order(tmp_path):
    """`load` attaches cells as they are, and sees when their columns are changed afterwards."""
    adata = counts_cohort()
    sst.PaSCient.setup_anndata(adata, "sample", labels_key="condition")
    model = sst.PaSCient(adata, **SMALL, log_normalize=True)
    model.train(**FIT)
    want = model.predict_proba()
    model.save(tmp_path / "model", save_anndata=False)
    turned = adata[:, ::-1].copy()
    again = sst.PaSCient.load(tmp_path / "model", adata=turned)
    np.testing.assert_allclose(again.predict_proba(), want, rtol=1e-5)
    turned.var_names = list(turned.var_names[::-1])
    with pytest.raises(ValueError, match=r"adata.var_names are no longer those that were registered"):
        again.predict_proba()


def test_a_layer_of_counts_is_read_by_name(tmp_path):
    torch.save(Published().state(), tmp_path / "a.pt")
    adata = published_cells()
    want = sst.PaSCient.from_checkpoint(tmp_path / "a.pt", GENES, adata, sample_key="sample").predict_proba()
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.zeros(adata.shape, np.float32)
    model = sst.PaSCient.from_checkpoint(tmp_path / "a.pt", GENES, adata, sample_key="sample", layer="counts")
    np.testing.assert_allclose(model.predict_proba(), want, rtol=1e-5)
    with pytest.raises(KeyError, match=r"'nope' is not a column of adata.obs"):
        sst.PaSCient.from_checkpoint(tmp_path / "a.pt", GENES, adata, sample_key="nope")

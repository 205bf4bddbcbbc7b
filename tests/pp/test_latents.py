"""Selection of latents by their spread."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scset_tools as sst
from scset_tools import pp


def cells(sd=(1.0, 0.1, 0.5, 0.39, 2.0)) -> ad.AnnData:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, len(sd)))
    x = (x - x.mean(0)) / x.std(0) * sd + 3.0
    return ad.AnnData(obs=pd.DataFrame(index=[f"c{i}" for i in range(500)]), obsm={"X_scVI": x})


def test_latents_above_the_threshold_are_kept_in_order(tmp_path):
    adata = cells()
    assert pp.highly_variable_latents(adata, "X_scVI") is None
    np.testing.assert_allclose(adata.obsm["X_scVI_hv"], adata.obsm["X_scVI"][:, [0, 2, 4]], rtol=1e-6)
    assert (adata.obsm["X_scVI_hv"].dtypes == np.float32).all()
    assert list(adata.obsm["X_scVI_hv"].columns) == ["scVI_0", "scVI_2", "scVI_4"]
    np.testing.assert_array_equal(adata.uns["X_scVI_hv"]["kept"], [0, 2, 4])
    np.testing.assert_allclose(adata.uns["X_scVI_hv"]["sd"], [1, 0.1, 0.5, 0.39, 2])
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert ad.read_h5ad(tmp_path / "a.h5ad").uns["X_scVI_hv"]["params"]["min_sd"] == 0.4


def test_a_number_of_latents_and_a_key():
    adata = cells()
    pp.highly_variable_latents(adata, "X_scVI", n_latents=4, key_added="X_kept")
    np.testing.assert_array_equal(adata.uns["X_kept"]["kept"], [0, 2, 3, 4])
    adata.obsm["X_frame"] = pd.DataFrame(adata.obsm["X_scVI"], index=adata.obs_names).rename(columns=str)
    pp.highly_variable_latents(adata, "X_frame", min_sd=0.8)
    assert adata.obsm["X_frame_hv"].shape == (500, 2)


def test_latents_of_another_cohort_by_number_name_or_example():
    first, second = cells(), cells(sd=(0.1, 1.0, 0.5, 1.0, 0.1))
    pp.highly_variable_latents(first, "X_scVI")
    for arguments in ({"kept": [0, 2, 4]}, {"kept": ["scVI_0", "scVI_2", "scVI_4"]}, {"like": first}):
        pp.highly_variable_latents(second, "X_scVI", **arguments)
        assert list(second.obsm["X_scVI_hv"].columns) == ["scVI_0", "scVI_2", "scVI_4"]
        np.testing.assert_allclose(second.obsm["X_scVI_hv"], second.obsm["X_scVI"][:, [0, 2, 4]], rtol=1e-6)
    with pytest.raises(ValueError, match="Give `kept` or `like`, not both"):
        pp.highly_variable_latents(second, "X_scVI", kept=[0], like=first)
    with pytest.raises(KeyError, match=r"has no latents \['7'\]: it has 5, \['scVI_0'"):
        pp.highly_variable_latents(second, "X_scVI", kept=[0, 7])
    with pytest.raises(ValueError, match=r"kept=\[1, 1\] names a latent twice"):
        pp.highly_variable_latents(second, "X_scVI", kept=[1, 1])
    with pytest.raises(KeyError, match=r"`like` has no latents with names in obsm\['X_scVI_hv'\]"):
        pp.highly_variable_latents(second, "X_scVI", like=cells())


def test_cohorts_with_other_latents_are_told_apart():
    """As many latents, and not the same ones: both used to be called 0, 1, 2."""
    both = []
    for sd in ((1.0, 0.1, 0.5, 0.39, 2.0), (0.1, 1.0, 0.5, 1.0, 0.1)):
        adata = cells(sd)
        adata.obs["sample"] = [f"s{i % 4}" for i in range(500)]
        pp.highly_variable_latents(adata, "X_scVI")
        both.append(adata)
    first, second = both
    sst.ScSet.setup_anndata(first, "sample", use_rep="X_scVI_hv")
    model = sst.ScSet(first, n_latent=4, n_hidden=8, n_heads=2, random_state=0)
    assert list(model.get_var_names()) == ["scVI_0", "scVI_2", "scVI_4"]
    model.is_trained_ = True
    with pytest.raises(
        ValueError,
        match=r"columns of adata.obsm\['X_scVI_hv'\] are \['scVI_1', 'scVI_2', 'scVI_3'\], but the model was trained on",
    ):
        model.get_sample_representation(second)
    pp.highly_variable_latents(second, "X_scVI", like=first)
    assert model.get_sample_representation(second).shape == (4, 4)
    second.obsm["X_scVI_hv"] = second.obsm["X_scVI_hv"].to_numpy()
    with pytest.warns(UserWarning, match=r"have no names; the model was trained on \['scVI_0', 'scVI_2', 'scVI_4'\]"):
        model.get_sample_representation(second)


def test_bad_input():
    adata = cells()
    with pytest.raises(KeyError, match=r"'X_pca' is not in adata.obsm. Keys: \['X_scVI'\]"):
        pp.highly_variable_latents(adata, "X_pca")
    with pytest.raises(ValueError, match=r"standard deviation above min_sd=5: the largest is 2"):
        pp.highly_variable_latents(adata, "X_scVI", min_sd=5)
    with pytest.raises(ValueError, match="n_latents=6 must be 1 to 5"):
        pp.highly_variable_latents(adata, "X_scVI", n_latents=6)
    adata.obsm["X_scVI"][0, 0] = np.nan
    with pytest.raises(ValueError, match="with finite values"):
        pp.highly_variable_latents(adata, "X_scVI")

"""What every profile promises, held against all of them."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from scset_tools import profiles

TYPES = {"cell_type_key": "cell_type", "cell_types": ["B", "NK", "T", "rare"]}
SMALL: dict[str, dict] = {
    "Mean": {},
    "MeanPerType": TYPES,
    "Fractions": TYPES,
    "FractionsAndMeans": TYPES,
    "KMeansFractions": {"n_clusters": 4},
    "KMeansMeans": {"n_clusters": 4},
    "KernelMean": {"n_components": 20},
    "MixtureFractions": {"n_components": 3},
    "OTKE": {"n_points": 3, "n_anchors": 8},
    "NumberOfCells": {},
    "SequencingDepth": {},
    "RandomVector": {"n_components": 6},
}
ALL = [name for name in profiles.__all__ if inspect.isclass(getattr(profiles, name)) and name != "Profile"]
WITHOUT_CELLS = {"Fractions", "NumberOfCells", "RandomVector"}
DRAWS = [name for name in ALL if "rng" in inspect.signature(getattr(profiles, name)).parameters]
READS_CELLS = [name for name in ALL if name not in WITHOUT_CELLS]


def make(name: str) -> profiles.Profile:
    """A small one of each."""
    return getattr(profiles, name)(sample_key="sample", **SMALL[name])


@pytest.fixture(params=ALL)
def profile(request: pytest.FixtureRequest) -> profiles.Profile:
    return make(request.param)


def test_result_is_a_sample_level_anndata(adata: ad.AnnData, profile: profiles.Profile, tmp_path: Path) -> None:
    before = adata.copy()
    out = profile.fit_transform(adata)
    assert list(out.obs_names) == sorted(adata.obs["sample"].unique())
    assert out.obs["n_cells"].tolist() == adata.obs["sample"].astype(str).value_counts().sort_index().tolist()
    assert "group" in out.obs
    assert "quality" not in out.obs
    assert out.X.dtype == np.float32
    assert np.isfinite(out.X).all()
    assert out.var_names.is_unique
    np.testing.assert_array_equal(out.X, out.obsm[f"X_{profile.name}"])
    out.write_h5ad(tmp_path / "samples.h5ad")
    back = ad.read_h5ad(tmp_path / "samples.h5ad")
    assert back.uns[profile.name]["profile"] == type(profile).__name__
    assert back.uns["scset_tools"]["sample_key"] == "sample"
    assert set(adata.uns) | set(adata.obsm) == set(before.uns) | set(before.obsm)
    pd.testing.assert_frame_equal(adata.obs, before.obs)


def test_storage_does_not_matter(adata: ad.AnnData, stored: ad.AnnData, profile: profiles.Profile) -> None:
    train = ["s0", "s2", "s3", "s4"]
    expected = clone(profile).fit(adata, samples=train).transform(adata)
    result = profile.fit(stored, samples=train).transform(stored)
    np.testing.assert_allclose(result.X, expected.X, rtol=1e-5, atol=1e-6)
    assert list(result.var_names) == list(expected.var_names)


def test_small_blocks_do_not_matter(
    adata: ad.AnnData, profile: profiles.Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = clone(profile).fit_transform(adata).X
    monkeypatch.setattr("scset_tools.profiles._cells.BLOCK_ROWS", 7)
    np.testing.assert_allclose(profile.fit_transform(adata).X, expected, rtol=1e-5, atol=1e-6)


def test_fit_does_not_see_other_samples(adata: ad.AnnData, profile: profiles.Profile) -> None:
    train = ["s4", "s1", "s0"]  # in an order of its own
    expected = clone(profile).fit(adata[adata.obs["sample"].isin(train)].copy()).transform(adata).X
    changed = adata.copy()
    changed.X[~adata.obs["sample"].isin(train).to_numpy()] += 100
    changed.obs.loc[~adata.obs["sample"].isin(train), "cell_type"] = "B"
    result = profile.fit(changed, samples=train).transform(adata).X
    np.testing.assert_array_equal(result, expected)


def test_a_sample_does_not_depend_on_those_beside_it(adata: ad.AnnData, profile: profiles.Profile) -> None:
    profile.fit(adata, samples=["s0", "s1", "s4"])
    together = profile.transform(adata)
    for name in ("s2", "s3"):
        alone = profile.transform(adata[adata.obs["sample"] == name].copy())
        np.testing.assert_allclose(alone.X, together[name].X, rtol=1e-5, atol=1e-6)


def test_order_of_cells_within_a_sample_does_not_matter_to_transform(
    adata: ad.AnnData, profile: profiles.Profile
) -> None:
    profile.fit(adata)
    shuffled = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    np.testing.assert_allclose(profile.transform(shuffled).X, profile.transform(adata).X, rtol=1e-5, atol=1e-5)


def test_same_seed_same_result(adata: ad.AnnData, profile: profiles.Profile) -> None:
    np.testing.assert_array_equal(clone(profile).fit_transform(adata).X, clone(profile).fit_transform(adata).X)


@pytest.mark.parametrize("name", DRAWS)
def test_generator_is_a_seed_too(adata: ad.AnnData, name: str, tmp_path: Path) -> None:
    results = []
    for seed in (1, 1, 2):
        out = make(name).set_params(rng=np.random.default_rng(seed)).fit_transform(adata)
        results.append(out.X)
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])
    out.write_h5ad(tmp_path / "samples.h5ad")


def test_one_sample(adata: ad.AnnData, profile: profiles.Profile) -> None:
    one = profile.fit_transform(adata[adata.obs["sample"] == "s0"].copy())
    assert one.n_obs == 1
    assert np.isfinite(one.X).all()


def test_function_equals_class(adata: ad.AnnData, profile: profiles.Profile) -> None:
    function = getattr(profiles, profile.name)
    args = {"sample_key": "sample", **SMALL[type(profile).__name__]}
    np.testing.assert_array_equal(function(adata, **args).X, profile.fit_transform(adata).X)


def test_functions_and_classes_describe_the_same_parameters(profile: profiles.Profile) -> None:
    function = getattr(profiles, profile.name)
    params = list(profile.get_params())
    assert sorted(inspect.signature(function).parameters) == sorted(["adata", "modalities", *params])
    for doc in (function.__doc__, type(profile).__doc__):
        assert not re.search(r"%\(\w+\)s", doc)
        for name in params:
            assert re.search(rf"^{name}$", doc, re.MULTILINE), name
    kinds = [p.kind for p in inspect.signature(function).parameters.values()]
    assert kinds[1:] == [inspect.Parameter.KEYWORD_ONLY] * (1 + len(params))


def test_sample_names_that_are_numbers(adata: ad.AnnData, profile: profiles.Profile) -> None:
    adata.obs["sample"] = adata.obs["sample"].cat.codes.astype(int)
    out = profile.fit(adata, samples=["0", "1", "4"]).transform(adata)
    assert list(out.obs_names) == ["0", "1", "2", "3", "4", "5"]


def test_transform_needs_fit(adata: ad.AnnData, profile: profiles.Profile) -> None:
    with pytest.raises(NotFittedError, match="not fitted yet"):
        profile.transform(adata)


def test_unknown_keys_and_samples(adata: ad.AnnData, profile: profiles.Profile) -> None:
    with pytest.raises(KeyError, match=r"1 of 2 samples are not in the data: \['s9'\]"):
        profile.fit(adata, samples=["s0", "s9"])
    with pytest.raises(ValueError, match="`samples` is empty"):
        profile.fit(adata, samples=[])
    with pytest.raises(KeyError, match=r"'donor' is not a column of adata.obs"):
        clone(profile).set_params(sample_key="donor").fit(adata)
    with pytest.raises(TypeError, match=r"takes an AnnData, but was given DataFrame"):
        profile.fit(adata.to_df())


@pytest.mark.parametrize("name", READS_CELLS)
def test_features_must_be_those_of_the_fit(adata: ad.AnnData, name: str) -> None:
    profile = make(name).fit(adata)
    with pytest.raises(ValueError, match=r"was fitted on 5 features .* adata has 4"):
        profile.transform(adata[:, :4].copy())
    with pytest.raises(ValueError, match=r"2 of 5 features are not those of the fit, or in another order"):
        profile.transform(adata[:, ["g1", "g0", "g2", "g3", "g4"]].copy())


@pytest.mark.parametrize("name", READS_CELLS)
def test_matrix_must_be_there_and_finite(adata: ad.AnnData, name: str) -> None:
    profile = make(name)
    for args, error, message in [
        ({"use_rep": "X_no"}, KeyError, "'X_no' is not in adata.obsm"),
        ({"layer": "no"}, KeyError, "'no' is not in adata.layers"),
        ({"use_rep": "X_rep", "layer": "double"}, ValueError, "Give use_rep or layer, not both"),
    ]:
        with pytest.raises(error, match=message):
            clone(profile).set_params(**args).fit_transform(adata)
    adata.X[11, 2] = np.nan
    sample = adata.obs["sample"].iloc[11]
    with pytest.raises(
        ValueError, match=rf"1 values that are not finite \(first: cell 'c11' of sample '{sample}', feature 'g2'\)"
    ):
        clone(profile).fit_transform(adata)
    in_csr = adata.copy()
    in_csr.X = sparse.csr_matrix(adata.X)
    with pytest.raises(
        ValueError, match=rf"1 values that are not finite \(first: cell 'c11' of sample '{sample}', feature 'g2'\)"
    ):
        clone(profile).fit_transform(in_csr)
    empty = ad.AnnData(obs=adata.obs)
    with pytest.raises(ValueError, match=r"adata.X is None"):
        clone(profile).fit_transform(empty)


def test_base_class_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        profiles.Profile()

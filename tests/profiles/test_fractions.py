from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scset_tools import profiles

KEYS = {"sample_key": "sample", "cell_type_key": "cell_type"}


def test_fractions_equal_crosstab(adata: ad.AnnData) -> None:
    out = profiles.fractions(adata, **KEYS)
    expected = pd.crosstab(adata.obs["sample"].astype(str), adata.obs["cell_type"], normalize="index")
    np.testing.assert_allclose(out.to_df(), expected, rtol=1e-6)
    assert list(out.var_names) == list(expected.columns)
    assert out["s1", "rare"].X[0, 0] == 0


def test_centred_log_ratio_equals_formula(adata: ad.AnnData) -> None:
    out = profiles.fractions(adata, **KEYS, scale="clr")
    counts = pd.crosstab(adata.obs["sample"].astype(str), adata.obs["cell_type"]).to_numpy() + 0.5
    geometric_mean = np.prod(counts, axis=1) ** (1 / counts.shape[1])
    np.testing.assert_allclose(out.X, np.log(counts / geometric_mean[:, None]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(out.X.sum(1), 0, atol=1e-5)


def test_fractions_and_means_are_both_side_by_side(adata: ad.AnnData) -> None:
    both = profiles.fractions_and_means(adata, **KEYS)
    parts = [profiles.fractions(adata, **KEYS), profiles.mean_per_type(adata, **KEYS)]
    np.testing.assert_array_equal(both.X, np.hstack([p.X for p in parts]))
    assert list(both.var_names) == [*parts[0].var_names, *parts[1].var_names]


@pytest.mark.parametrize("cls", [profiles.Fractions, profiles.MeanPerType, profiles.FractionsAndMeans])
def test_unseen_type_is_named(adata: ad.AnnData, cls: type[profiles.Profile]) -> None:
    profile = cls(**KEYS).fit(adata, samples=["s1", "s3"])
    with pytest.raises(
        ValueError, match=r"6 of 141 cells are of 1 cell types .* \['rare'\], in samples \['s0', 's4'\]"
    ):
        profile.transform(adata)


def test_types_named_in_advance_may_be_absent_from_training(adata: ad.AnnData) -> None:
    profile = profiles.Fractions(**KEYS, cell_types=["rare", "T", "NK", "B"]).fit(adata, samples=["s1", "s3"])
    out = profile.transform(adata)
    assert list(out.var_names) == ["rare", "T", "NK", "B"]
    assert out["s0", "rare"].X[0, 0] == pytest.approx(3 / 40)


def test_types_may_be_categories_or_numbers(adata: ad.AnnData) -> None:
    expected = profiles.fractions(adata, **KEYS).X
    adata.obs["cell_type"] = adata.obs["cell_type"].astype("category").cat.add_categories("nowhere")
    np.testing.assert_array_equal(profiles.fractions(adata, **KEYS).X, expected)
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.remove_unused_categories().cat.codes
    np.testing.assert_array_equal(profiles.fractions(adata, **KEYS).X, expected)


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        pytest.param({"cell_types": ["B", "B"]}, ValueError, r"repeats \['B'\]", id="twice"),
        pytest.param({"cell_types": []}, ValueError, "has 0 names", id="none"),
        pytest.param({"cell_types": ["B", "T"]}, ValueError, r"does not know: \['NK', 'rare'\]", id="too_few"),
        pytest.param({"cell_type_key": "nope"}, KeyError, "'nope' is not a column", id="no_column"),
        pytest.param({"scale": "log"}, ValueError, "scale must be 'raw' or 'clr', but is 'log'", id="scale"),
    ],
)
def test_errors(adata: ad.AnnData, args: dict, error: type[Exception], message: str) -> None:
    adata.obs["cell_type"] = pd.Categorical(adata.obs["cell_type"])
    with pytest.raises(error, match=message):
        profiles.fractions(adata, **(KEYS | args))


def test_missing_types_are_counted(adata: ad.AnnData) -> None:
    adata.obs.loc["c7", "cell_type"] = None
    with pytest.raises(ValueError, match=r"missing for 1 of 141 cells \(first: \['c7'\]\)"):
        profiles.fractions(adata, **KEYS)

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from scipy.stats import norm

from scset_tools import profiles


def test_fractions_equal_bayes_rule_written_out(adata: ad.AnnData) -> None:
    profile = profiles.MixtureFractions(sample_key="sample", n_components=3).fit(adata, samples=["s0", "s1", "s5"])
    out = profile.transform(adata)
    train = adata.X[adata.obs["sample"].isin(["s0", "s1", "s5"]).to_numpy()].astype(float)
    x = (adata.X - train.mean(0)) / train.std(0)
    mixture = profile.mixture_
    joint = np.stack(
        [
            w * np.prod(norm.pdf(x, m, np.sqrt(v)), axis=1)
            for w, m, v in zip(mixture.weights_, mixture.means_, mixture.covariances_, strict=True)
        ],
        axis=1,
    )
    posterior = joint / joint.sum(1, keepdims=True)
    for i, s in enumerate(out.obs_names):
        np.testing.assert_allclose(out.X[i], posterior[(adata.obs["sample"] == s).to_numpy()].mean(0), atol=1e-5)


def test_known_mixture_is_found() -> None:
    rng = np.random.default_rng(0)
    fractions = {"a": 0.2, "b": 0.5, "c": 0.9}
    kind = np.concatenate([rng.random(1000) < f for f in fractions.values()])
    x = np.where(kind[:, None], rng.normal(6, 2, (3000, 2)), rng.normal(0, 0.5, (3000, 2))).astype(np.float32)
    adata = ad.AnnData(x, obs={"s": np.repeat(list(fractions), 1000)})
    out = profiles.mixture_fractions(adata, sample_key="s", n_components=2).X
    truth = kind.reshape(3, 1000).mean(1)
    closest = min(np.abs(out[:, j] - truth).max() for j in range(2))
    assert closest < 0.02


def test_units_of_features_do_not_matter(adata: ad.AnnData) -> None:
    other = adata.copy()
    other.X = other.X * np.array([1e-3, 1, 10, 1e3, 1], dtype=np.float32) + 5
    a, b = (profiles.mixture_fractions(x, sample_key="sample", n_components=3).X for x in (adata, other))
    np.testing.assert_allclose(a, b, atol=1e-3)


def test_constant_feature_is_harmless(adata: ad.AnnData) -> None:
    adata.X[:, 1] = 7
    assert np.isfinite(profiles.mixture_fractions(adata, sample_key="sample", n_components=3).X).all()


def test_more_components_than_cells(adata: ad.AnnData) -> None:
    with pytest.raises(ValueError, match="is 20 for 1 cells"):
        profiles.MixtureFractions(sample_key="sample").fit(adata, samples=["s2"])

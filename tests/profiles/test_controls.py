from __future__ import annotations

import anndata as ad
import numpy as np

from scset_tools import profiles


def test_number_of_cells(adata: ad.AnnData) -> None:
    out = profiles.number_of_cells(adata, sample_key="sample")
    np.testing.assert_allclose(np.exp(out.X[:, 0]), [40, 30, 1, 25, 12, 33], rtol=1e-6)


def test_sequencing_depth(adata: ad.AnnData) -> None:
    out = profiles.sequencing_depth(adata, sample_key="sample", layer="double")
    expected = [2 * adata.X[(adata.obs["sample"] == s).to_numpy()].sum(1).mean() for s in out.obs_names]
    np.testing.assert_allclose(out.X[:, 0], expected, rtol=1e-5)


def test_random_vectors_are_standard_normal_and_differ_between_samples_and_seeds() -> None:
    adata = ad.AnnData(obs={"s": [f"s{i}" for i in range(200)]})
    x = profiles.random_vector(adata, sample_key="s", n_components=50).X
    assert abs(x.mean()) < 0.05
    assert abs(x.std() - 1) < 0.05
    assert np.abs(np.corrcoef(x) - np.eye(200)).max() < 0.8
    assert not np.allclose(x, profiles.random_vector(adata, sample_key="s", n_components=50, rng=1).X)


def test_random_vector_depends_on_the_name_and_not_on_the_process() -> None:
    # the builtin hash of a string would differ between processes; a checksum of the bytes does not
    x = profiles.random_vector(ad.AnnData(obs={"s": ["a", "b"]}), sample_key="s", n_components=3, rng=4).X
    seed = np.random.default_rng(4).integers(2**31)
    for row, checksum in zip(x, [0xE8B7BE43, 0x71BEEFF9], strict=True):  # CRC-32 of "a" and "b"
        np.testing.assert_allclose(row, np.random.default_rng((seed, checksum)).standard_normal(3), rtol=1e-6)

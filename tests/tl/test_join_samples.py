"""Vectors of samples from several parts side by side."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import scset_tools as sst


def part(names: list[str], x: np.ndarray, **obs: list) -> AnnData:
    return AnnData(np.asarray(x, dtype=np.float32), obs=pd.DataFrame(obs, index=names))


@pytest.fixture
def parts() -> dict[str, AnnData]:
    rng = np.random.default_rng(0)
    a = part(["s1", "s2", "s3", "s4"], rng.normal(size=(4, 3)), label=list("xyxy"), n_cells=[1, 2, 3, 4])
    b = part(["s5", "s4", "s2", "s1"], 100 * rng.normal(size=(4, 2)), label=list("zyyx"), n_cells=[5, 6, 7, 8])
    return {"rna": a, "adt": b}


def test_samples_are_matched_by_name_and_parts_weigh_the_same(parts):
    joint = sst.tl.join_samples(parts)
    assert list(joint.obs_names) == ["s1", "s2", "s4"]
    for name, own in parts.items():
        x = own.X.astype(float)
        want = (x - x.mean(0)) / np.sqrt(np.square(x - x.mean(0)).sum(1).mean())
        rows = own.obs_names.get_indexer(joint.obs_names)
        np.testing.assert_allclose(joint.obsm[f"X_{name}"], want[rows], atol=1e-5)
        np.testing.assert_array_equal(joint.X[:, (joint.var["part"] == name).to_numpy()], joint.obsm[f"X_{name}"])
    assert joint.obs["label"].tolist() == ["x", "y", "y"]
    assert joint.obs[["rna:n_cells", "adt:n_cells"]].to_numpy().tolist() == [[1, 8], [2, 7], [4, 6]]


def test_outer_keeps_every_sample_and_says_what_it_lacks(parts):
    joint = sst.tl.join_samples(parts, join="outer")
    assert list(joint.obs_names) == ["s1", "s2", "s3", "s4", "s5"]
    assert joint.obs["has_rna"].tolist() == [True, True, True, True, False]
    assert (joint.obsm["X_rna"][4] == 0).all()
    assert joint.obs["label"].tolist() == ["x", "y", "x", "y", "z"]


def test_bad_parts_are_named(parts):
    with pytest.raises(ValueError, match="two parts at least"):
        sst.tl.join_samples({"rna": parts["rna"]})
    other = parts["adt"].copy()
    other.obs_names = list("abcd")
    with pytest.raises(ValueError, match=r"No sample is in all 2 parts: 'rna' has \['s1'.*'adt' has \['a'"):
        sst.tl.join_samples({"rna": parts["rna"], "adt": other})
    other.obs_names = list("aacd")
    with pytest.raises(ValueError, match=r"1 samples of 'adt' are there twice, first: \['a'\]"):
        sst.tl.join_samples({"rna": parts["rna"], "adt": other})
    with pytest.raises(TypeError, match="takes an AnnData"):
        sst.tl.join_samples({"rna": parts["rna"], "adt": 3})

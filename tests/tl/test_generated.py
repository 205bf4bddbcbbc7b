"""Composition and distances of generated cells against direct computations."""

from __future__ import annotations

import anndata as ad
import numpy as np
import ot
import pandas as pd
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import pearsonr

from scset_tools import tl

CENTRES = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])


def cells(counts, seed=0, prefix="s") -> ad.AnnData:
    """Samples with the given numbers of cells of three types that lie far apart."""
    rng = np.random.default_rng(seed)
    kind = np.concatenate([np.repeat(np.arange(3), row) for row in counts])
    sample = np.repeat([f"{prefix}{i}" for i in range(len(counts))], np.sum(counts, axis=1))
    order = rng.permutation(len(kind))
    obs = pd.DataFrame({"sample": sample[order], "type": pd.Categorical(np.array(["A", "B", "C"])[kind[order]])})
    obs.index = [f"c{i}" for i in range(len(obs))]
    x = CENTRES[kind[order]] + 0.5 * rng.standard_normal((len(kind), 2))
    return ad.AnnData(x.astype(np.float32), obs=obs)


def unlabelled(counts, seed=1) -> ad.AnnData:
    adata = cells(counts, seed)
    del adata.obs["type"]
    return adata


def test_labels_of_neighbours_are_taken_over():
    reference, new = cells([[50, 30, 20]]), unlabelled([[5, 6, 7]])
    assert tl.transfer_labels(new, reference, "type") is None
    assert new.obs["type"].value_counts().to_dict() == {"A": 5, "B": 6, "C": 7}
    assert list(new.obs["type"].cat.categories) == ["A", "B", "C"]
    reference.obsm["X_rep"] = reference.X[:, ::-1].copy()
    tl.transfer_labels(new, reference, "type", use_rep="X_rep", key_added="other")
    assert new.obs["other"].value_counts().to_dict() == {"A": 5, "C": 6, "B": 7}


def test_composition_by_hand():
    true, made = cells([[60, 30, 10], [10, 30, 60], [20, 60, 20]]), unlabelled([[12, 6, 2], [2, 4, 14], [14, 4, 2]])
    tl.transfer_labels(made, true, "type")
    found = tl.generated_composition(true, made, "type")
    np.testing.assert_allclose(found.true.loc["s0"], [0.6, 0.3, 0.1])
    np.testing.assert_allclose(found.generated.loc["s2"], [0.7, 0.2, 0.1])
    for a in found.true.index:
        for b in found.generated.index:
            want = pearsonr(found.true.loc[a], found.generated.loc[b]).statistic
            assert found.correlation.loc[a, b] == pytest.approx(want)
    table = found.per_sample()
    assert table["is_closest"].tolist() == [True, True, False]  # the third was generated as the first
    assert table.loc["s2", "closest"] == "s0"
    summary = found.summary()
    assert summary["share_closest"] == pytest.approx(2 / 3)
    assert summary["chance"] == pytest.approx(1 / 3)
    want = pearsonr([90, 120, 90], [28, 14, 18]).statistic
    assert summary["pearson_overall"] == pytest.approx(want)


def test_samples_that_were_not_generated_are_left_out():
    true, made = cells([[6, 3, 1]] * 3), cells([[6, 3, 1]] * 2, seed=2)
    found = tl.generated_composition(true, made, "type")
    assert list(found.true.index) == ["s0", "s1"]
    assert found.overall["true"].sum() == pytest.approx(1)


def test_types_on_one_side_only_and_constant_compositions():
    true, made = cells([[10, 0, 0], [5, 5, 0]]), cells([[0, 0, 10], [3, 3, 3]], seed=2)
    found = tl.generated_composition(true, made, "type")
    assert list(found.true.columns) == ["A", "B", "C"]
    assert np.isnan(found.correlation.loc["s0", "s1"])  # equal parts do not vary
    assert not found.per_sample().loc["s1", "is_closest"]


def test_distances_are_those_of_halves_when_nothing_differs():
    rng = np.random.default_rng(0)
    true = cells([[60, 40, 20], [20, 40, 60]])
    same = true[rng.permutation(true.n_obs)].copy()
    same.X = same.X + rng.normal(scale=0.01, size=same.shape).astype(np.float32)
    other = unlabelled([[20, 40, 60], [60, 40, 20]])
    near, far = tl.generated_distances(true, same), tl.generated_distances(true, other)
    assert list(near.index) == list(dict.fromkeys(same.obs["sample"]))
    assert (near["n_cells"] == 60).all()
    assert (near["mmd"] < 0.02).all()
    assert (far["mmd"] > 3 * near["mmd"].abs().max()).all()
    assert (far["sinkhorn"] > near["sinkhorn"].max()).all()
    np.testing.assert_allclose(near.sort_index()[["mmd_floor"]], far.sort_index()[["mmd_floor"]], atol=0.05)


def test_mmd_and_sinkhorn_divergence_against_direct_computations():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 2)), rng.normal(size=(12, 2)) + 1
    from scset_tools.tl._generated import _mmd, _sinkhorn

    def kernel(a, b):
        return np.exp(-((a - b) ** 2).sum() / (2 * 1.5**2))

    n = len(x)
    within = sum(kernel(s[i], s[j]) for s in (x, y) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    between = sum(kernel(a, b) for a in x for b in y) / n**2
    assert _mmd(x, y, 1.5) == pytest.approx(within - 2 * between)

    def value(a, b):
        return float(ot.solve(cdist(a, b, "sqeuclidean"), reg=0.5, reg_type="KL", max_iter=20_000, tol=1e-10).value)

    assert _sinkhorn(x, y, 0.5) == pytest.approx(value(x, y) - (value(x, x) + value(y, y)) / 2, rel=1e-3)
    assert _sinkhorn(x, x, 0.5) == pytest.approx(0, abs=1e-9)


def test_bad_input():
    true, made = cells([[10, 5, 5]] * 2), unlabelled([[5, 5, 5]] * 3)
    with pytest.raises(KeyError, match=r"'type' is not a column"):
        tl.generated_composition(true, made, "type")
    tl.transfer_labels(made, true, "type")
    with pytest.raises(KeyError, match=r"1 generated samples are not in adata.obs\['sample'\] \(first: \['s2'\]\)"):
        tl.generated_composition(true, made, "type")
    with pytest.raises(KeyError, match="The generated sample 's2' is not in"):
        tl.generated_distances(true, made)
    with pytest.raises(ValueError, match="The reference has 1 features and the cells to label have 2"):
        tl.transfer_labels(made, true[:, :1].copy(), "type")
    with pytest.raises(ValueError, match="True cells have 1 features and generated ones 2"):
        tl.generated_distances(true[:, :1].copy(), made)
    few = cells([[1, 1, 1]])
    with pytest.raises(ValueError, match="Sample 's0' has 3 true and 3 generated cells: at least 4 and 2"):
        tl.generated_distances(few, few)
    true.obs.loc["c3", "type"] = np.nan
    with pytest.raises(ValueError, match=r"adata.obs\['type'\] is missing for 1"):
        tl.transfer_labels(made, true, "type")


def test_labels_are_written_under_a_key_that_files_hold(tmp_path):
    reference, new = cells([[50, 30, 20]]), unlabelled([[5, 6, 7]])
    tl.transfer_labels(new, reference, "type", key_added="type/fine")
    new.write_h5ad(tmp_path / "new.h5ad")
    assert ad.read_h5ad(tmp_path / "new.h5ad").obs["type%2Ffine"].value_counts().to_dict() == {"A": 5, "B": 6, "C": 7}

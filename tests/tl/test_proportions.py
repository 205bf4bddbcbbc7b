"""Retrieval of cell-type proportions: errors by hand, baselines, groups, bad input."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scset_tools.tl import retrieve_proportions

TYPES = ["B", "T", "NK", "mono"]


def make_samples(n: int = 40, *, informative: bool = True, seed: int = 0) -> tuple[AnnData, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    names = [f"s{i}" for i in range(n)]
    p = pd.DataFrame(rng.dirichlet(np.ones(4), size=n), index=names, columns=TYPES)
    x = np.log(p.to_numpy()) @ rng.normal(size=(4, 6)) if informative else rng.normal(size=(n, 6))
    return AnnData(x, obs=pd.DataFrame({"donor": np.arange(n) // 2}, index=names)), p


@pytest.mark.parametrize("probe", ["linear", "ridge", "mlp"])
def test_proportions_are_retrieved_where_they_are(probe: str) -> None:
    samples, p = make_samples()
    result = retrieve_proportions(samples, p, probe=probe, cv=3)
    assert (result.per_type["mae"] < 0.7 * result.per_type["mae_of_mean"]).all()
    assert result.per_type["pearson"].min() > 0.6
    np.testing.assert_allclose(result.predicted.sum(axis=1), 1)
    assert (result.predicted >= 0).all(axis=None)


def test_one_layer_is_exact_where_proportions_are_a_softmax_of_the_vector() -> None:
    samples, p = make_samples(80)
    assert retrieve_proportions(samples, p).per_type["mae"].max() < 0.01


def test_noise_is_no_better_than_the_mean() -> None:
    results = [retrieve_proportions(*make_samples(30, informative=False, seed=s), cv=3) for s in range(3)]
    ratio = np.mean([r.summary()["mae"] / r.summary()["mae_of_mean"] for r in results])
    assert 0.97 < ratio < 1.15


def test_errors_are_those_of_the_predictions() -> None:
    samples, p = make_samples()
    result = retrieve_proportions(samples, p, groups_key="donor", tune=False)
    for t in TYPES:
        errors = [abs(result.predicted.loc[s, t] - p.loc[s, t]) for s in p.index]
        assert result.per_type.loc[t, "mae"] == pytest.approx(np.mean(errors))
        assert result.per_type.loc[t, "pearson"] == pytest.approx(result.predicted[t].corr(p[t]))
    weighted = np.average(result.folds["mae"], weights=result.folds["n_test"])
    assert weighted == pytest.approx(result.summary()["mae"])
    assert result.folds["n_test"].tolist() == [8] * 5


def test_percentages_obsm_and_missing_rows() -> None:
    samples, p = make_samples(20)
    reference = retrieve_proportions(samples, p.drop(index="s3"), tune=False)
    assert reference.n_missing == 1
    percent = 100 * p.sample(frac=1, random_state=0)
    percent.loc["s3", "B"] = np.nan
    pd.testing.assert_frame_equal(retrieve_proportions(samples, percent, tune=False).predicted, reference.predicted)
    samples.obsm["p"] = p
    samples.obsm["array"] = p.to_numpy()
    from_frame = retrieve_proportions(samples, "p", tune=False)
    from_array = retrieve_proportions(samples, "array", tune=False)
    assert from_frame.per_type.index.tolist() == TYPES
    assert from_array.per_type.index.tolist() == ["0", "1", "2", "3"]
    np.testing.assert_allclose(from_frame.predicted, from_array.predicted)


def test_workers_do_not_matter() -> None:
    samples, p = make_samples(12)
    one, two = (retrieve_proportions(samples, p, cv=2, tune=False, n_jobs=n) for n in (1, 2))
    pd.testing.assert_frame_equal(one.predicted, two.predicted)


def test_bad_input() -> None:
    samples, p = make_samples(10)
    with pytest.raises(ValueError, match="probe must be one of"):
        retrieve_proportions(samples, p, probe="knn")
    with pytest.raises(KeyError, match=r"'q' is not in adata\.obsm"):
        retrieve_proportions(samples, "q")
    with pytest.raises(TypeError, match="not ndarray"):
        retrieve_proportions(samples, p.to_numpy())
    with pytest.raises(ValueError, match=r"No sample has proportions: the names in proportions \['0'"):
        retrieve_proportions(samples, p.reset_index(drop=True))
    with pytest.raises(ValueError, match=r"all zero in 1 samples: \['s1'\]"):
        retrieve_proportions(samples, p.mul(p.index != "s1", axis=0))
    with pytest.raises(ValueError, match="negative, infinite or all zero in 10 samples"):
        retrieve_proportions(samples, p - 5)
    with pytest.raises(ValueError, match="has 1 cell type"):
        retrieve_proportions(samples, p[["B"]])
    with pytest.warns(UserWarning, match="cv is lowered from 6 to 5, because there are 5 groups"):
        retrieve_proportions(samples, p, groups_key="donor", cv=6)
    with pytest.raises(ValueError, match="has 10 samples twice"):
        retrieve_proportions(samples, pd.concat([p, p]))
    samples.X[2] = np.nan
    with pytest.raises(ValueError, match=r"missing or infinite values in 1 of 10 samples"):
        retrieve_proportions(samples, p)

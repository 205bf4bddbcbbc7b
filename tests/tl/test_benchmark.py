"""Many representations on the same folds: equal to single probes, leak-free with profiles, same for any workers."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.base import BaseEstimator

from scset_tools.tl import BenchmarkResult, benchmark, probe

QUIET = {"progress": False, "tune": False}


def make_samples(n: int = 36, seed: int = 0) -> AnnData:
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(n) % 2)
    x = rng.normal(size=(n, 4))
    obs = pd.DataFrame(
        {"label": np.array(["a", "b"])[label], "age": rng.normal(50, 10, n) + 10 * label, "donor": np.arange(n) // 2},
        index=[f"s{i}" for i in range(n)],
    )
    samples = AnnData(x, obs=obs)
    samples.obsm["X_good"] = x + 2 * label[:, None]
    samples.obsm["X_fair"] = x + 0.7 * label[:, None]
    samples.obsp["far"] = cdist(samples.obsm["X_good"], samples.obsm["X_good"])
    return samples


def make_cells(n_samples: int = 24, n_features: int = 60, seed: int = 0) -> AnnData:
    """Cells of samples whose label is random; sample names are numbers, in an order that is not that of their text."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 8, size=n_samples)
    of = rng.permutation(np.repeat(np.arange(n_samples), sizes))
    label = rng.permutation(np.arange(n_samples) % 2)
    x = rng.normal(size=(n_samples, n_features))[of] + 0.1 * rng.normal(size=(len(of), n_features))
    obs = pd.DataFrame({"sample": of, "label": np.array(["a", "b"])[label][of], "cell_type": np.arange(len(of)) % 3})
    obs.index = [f"c{i}" for i in range(len(of))]
    return AnnData(x.astype(np.float32), obs=obs)


class SelectedMean(BaseEstimator):
    """Means of the five features that differ most between the labels: supervised, so honest only on training samples."""

    def __init__(self, *, peeks: bool = False) -> None:
        self.peeks = peeks

    def fit(self, adata: AnnData, *, samples: list[str] | None = None) -> SelectedMean:
        table, label = self._means(adata)
        used = table.index if self.peeks else pd.Index(samples)
        gap = (table.loc[used][label[used] == "b"].mean() - table.loc[used][label[used] == "a"].mean()).abs()
        self.columns_ = gap.nlargest(5).index
        self.fitted_on_ = set(samples)
        return self

    def transform(self, adata: AnnData) -> AnnData:
        return AnnData(self._means(adata)[0][self.columns_])

    @staticmethod
    def _means(adata: AnnData) -> tuple[pd.DataFrame, pd.Series]:
        of = adata.obs["sample"].astype(str)
        return adata.to_df().groupby(of).mean(), adata.obs.groupby(of)["label"].first()


def test_benchmark_is_a_probe_per_representation_on_the_same_folds() -> None:
    samples = make_samples()
    result = benchmark(
        samples,
        {"none": "X", "good": "X_good", "distances": "far"},
        ["label", "age"],
        probes=["knn", "ridge"],
        groups_key="donor",
        n_repeats=2,
        rng=4,
        **QUIET,
    )
    assert isinstance(result, BenchmarkResult)
    assert result.targets == {"label": "class", "age": "continuous"}
    by = result.results.set_index(["label", "probe", "representation"]).sort_index()
    for label in ("label", "age"):
        for name, rep in {"none": {}, "good": {"use_rep": "X_good"}, "distances": {"obsp_key": "far"}}.items():
            for kind in ("knn", "ridge") if name != "distances" else ("knn",):
                alone = probe(
                    samples, label, probe=kind, groups_key="donor", n_repeats=2, rng=4, tune=False, **rep
                ).folds
                together = by.loc[(label, kind, name)].reset_index(drop=True)
                pd.testing.assert_frame_equal(together[alone.columns], alone, check_dtype=False)
    assert result.skipped[["label", "probe", "representation"]].to_numpy().tolist() == [
        ["label", "ridge", "distances"],
        ["age", "ridge", "distances"],
    ]


def test_folds_are_identical_for_all_representations() -> None:
    result = benchmark(make_samples(), ["X", "X_good", "X_fair"], "label", groups_key="donor", **QUIET)
    sizes = result.results.pivot(index=["repeat", "fold"], columns="representation", values="n_test")
    assert (sizes.nunique(axis=1) == 1).all()
    assert len(sizes) == 25


def test_results_do_not_depend_on_the_number_of_workers() -> None:
    one, two = (
        benchmark(
            make_cells(), {"mean": SelectedMean()}, "label", sample_key="sample", cv=3, n_repeats=1, n_jobs=n, **QUIET
        )
        for n in (1, 2)
    )
    pd.testing.assert_frame_equal(one.results, two.results)


def test_profiles_are_fitted_on_training_samples_of_each_fold_only() -> None:
    seen = []

    class Spy(SelectedMean):
        def fit(self, adata: AnnData, *, samples: list[str] | None = None) -> Spy:
            seen.append(set(samples))
            return super().fit(adata, samples=samples)

    template = Spy()
    cells = make_cells()
    result = benchmark(
        cells, {"spy": template}, "label", sample_key="sample", probes=["logistic", "knn"], cv=4, n_repeats=2, **QUIET
    )
    assert not hasattr(template, "columns_")
    assert len(seen) == 8  # once per fold, not per probe
    everyone = set(cells.obs["sample"].astype(str))
    for r in range(2):
        left_out = [everyone - s for s in seen[4 * r : 4 * r + 4]]
        assert set.union(*left_out) == everyone
        assert sum(map(len, left_out)) == len(everyone)
    n_train = result.results.query("probe == 'knn'")["n_train"]
    assert n_train.tolist() == [len(s) for s in seen]


def test_random_labels_give_chance_and_a_peeking_profile_does_not() -> None:
    """The planted leak: features selected with the labels of the test samples too. Data and labels are random."""
    scores = {"honest": [], "peeks": []}
    n_sets, n = 8, 24
    for s in range(n_sets):
        result = benchmark(
            make_cells(n, seed=s),
            {"honest": SelectedMean(), "peeks": SelectedMean(peeks=True)},
            "label",
            sample_key="sample",
            cv=4,
            n_repeats=1,
            rng=s,
            **QUIET,
        )
        for name in scores:
            rows = result.results[result.results["representation"] == name]
            scores[name].append(np.average(rows["accuracy"], weights=rows["n_test"]))
    limit = 4 * np.sqrt(0.25 / (n_sets * n))
    assert abs(np.mean(scores["honest"]) - 0.5) < limit
    assert np.mean(scores["peeks"]) - 0.5 > limit


def test_summary_ranks_and_differences_are_paired_tests() -> None:
    result = benchmark(
        make_samples(), ["X", "X_good", "X_fair"], "label", baseline="X", metric="auroc", n_repeats=2, **QUIET
    )
    summary = result.summary()
    assert summary["representation"].tolist() == ["X_good", "X_fair", "X"]
    assert summary["rank"].tolist() == [1, 2, 3]
    wide = result.results.pivot(index=["repeat", "fold"], columns="representation", values="auroc")
    np.testing.assert_allclose(summary["mean"], wide[summary["representation"]].mean())
    plain = result.differences(interval="t").set_index("representation")
    for name in ("X_good", "X_fair"):
        test = stats.ttest_rel(wide[name], wide["X"])
        assert plain.loc[name, "p_value"] == pytest.approx(test.pvalue)
        assert plain.loc[name, "difference"] == pytest.approx((wide[name] - wide["X"]).mean())
    np.testing.assert_allclose(plain["p_adjusted"], stats.false_discovery_control(plain["p_value"]))
    corrected = result.differences().set_index("representation")
    assert (corrected["p_value"] > plain["p_value"]).all()
    assert corrected["is_better"].all()
    pd.testing.assert_frame_equal(result.summary(label="label"), summary)
    with pytest.raises(KeyError, match="label='age' is not among the labels"):
        result.summary(label="age")
    other = result.differences(baseline="X_good", metric="accuracy").set_index("representation")
    assert other.loc["X", "difference"] < 0
    assert set(other["metric"]) == {"accuracy"}


def test_lower_errors_rank_first() -> None:
    result = benchmark(make_samples(), ["X", "X_good"], "age", probes="ridge", baseline="X", n_repeats=1, **QUIET)
    summary = result.summary()
    assert summary["metric"].tolist() == ["mae", "mae"]
    assert summary.loc[0, "mean"] <= summary.loc[1, "mean"]
    row = result.differences().iloc[0]
    assert row["is_better"] == (row["difference"] < 0)


def test_plot_draws_a_bar_per_representation() -> None:
    pytest.importorskip("scset_tools.pl")
    import matplotlib as mpl

    mpl.use("Agg")
    ax = benchmark(make_samples(), ["X", "X_good"], "label", n_repeats=1, **QUIET).plot(metric="auroc")
    assert len(ax.patches) == 2


def test_the_default_probe_follows_each_label_and_representation() -> None:
    samples = make_samples()
    samples.obs["time"], samples.obs["event"] = np.arange(1.0, 37), np.arange(36) % 3 > 0
    run = {"event_key": {"time": "event"}, "cv": 3, "n_repeats": 1, **QUIET}
    labels, names = ["label", "age", "time"], ["X_good", "far"]
    found = benchmark(samples, names, labels, **run)
    assert found.results[["label", "probe", "representation"]].drop_duplicates().to_numpy().tolist() == [
        ["label", "logistic", "X_good"],
        ["label", "knn", "far"],
        ["age", "ridge", "X_good"],
        ["age", "knn", "far"],
        ["time", "cox", "X_good"],
    ]
    assert found.skipped[["label", "representation"]].to_numpy().tolist() == [["time", "far"]]
    named = benchmark(samples, names, labels, probes=["logistic", "ridge", "cox", "knn", "auto"], **run).results
    is_same = named["probe"].ne("knn") | named["representation"].eq("far")
    same = pd.merge(found.results, named[is_same & ~(named["target"].eq("class") & named["probe"].eq("ridge"))])
    assert len(same) == len(found.results)


@pytest.mark.parametrize(
    ("representations", "kwargs", "error", "message"),
    [
        ([], {}, ValueError, "no representations"),
        (["X_bad"], {}, KeyError, "'X_bad' is neither in obsm nor in obsp"),
        ({"a": SelectedMean()}, {}, TypeError, "Profiles need cells"),
        (
            ["far"],
            {"probes": "logistic"},
            ValueError,
            r"None of the probes \('logistic',\) fits .* for distances one of \('knn', 'svc'\)",
        ),
        (["X"], {"probes": "forest"}, ValueError, "probe must be one of"),
        (["X"], {"baseline": "X_good"}, ValueError, "baseline='X_good' is not among"),
        (["X"], {"metric": "r2"}, ValueError, "not defined for a 'class' target"),
        (["X"], {"cv": 1}, ValueError, "cv=1 must be a whole number of 2 or more"),
    ],
)
def test_bad_calls(representations: object, kwargs: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        benchmark(make_samples(), representations, "label", **QUIET, **kwargs)


def test_bad_calls_with_cells() -> None:
    cells = make_cells()
    with pytest.raises(TypeError, match=r"must be a profile with fit and transform, but \['a'\]"):
        benchmark(cells, {"a": "X_pca"}, "label", sample_key="sample", **QUIET)
    with pytest.raises(ValueError, match="varies within"):
        benchmark(cells, {"a": SelectedMean()}, "cell_type", sample_key="sample", **QUIET)

    class Broken(SelectedMean):
        def transform(self, adata: AnnData) -> AnnData:
            out = super().transform(adata)
            out.X = np.where(np.arange(out.n_obs)[:, None] == 0, np.nan, out.X)
            return out

    with pytest.raises(ValueError, match=r"Representation 'a': samples.X has missing .* \['0'\]"):
        benchmark(cells, {"a": Broken()}, "label", sample_key="sample", cv=2, n_repeats=1, **QUIET)


def test_ambiguous_key() -> None:
    samples = make_samples()
    samples.obsp["X_good"] = samples.obsp["far"]
    with pytest.raises(ValueError, match=r"in both samples\.obsm and samples\.obsp"):
        benchmark(samples, ["X_good"], "label", **QUIET)


def test_differences_need_a_known_baseline() -> None:
    result = benchmark(make_samples(), ["X", "X_good"], "label", n_repeats=1, cv=2, **QUIET)
    with pytest.raises(ValueError, match="baseline=None is not among"):
        result.differences()
    with pytest.raises(ValueError, match="interval must be 'corrected' or 't'"):
        result.differences(baseline="X", interval="bootstrap")


def test_distance_matrices_of_real_tools_are_ranked_in_one_call(shared_data: Path) -> None:
    samples = ad.read_h5ad(shared_data / "combat_covid_samplelevel_patpy.h5ad")
    assert len(samples.obsp) == 18
    result = benchmark(
        samples, list(samples.obsp), "WHO_ordinal_at_sample", probes="knn", n_repeats=1, baseline="random_vec", **QUIET
    )
    assert result.n_missing == {"WHO_ordinal_at_sample": 36}
    summary = result.summary().set_index("representation")
    assert len(summary) == 18
    spearman = result.summary("spearman").set_index("representation")["mean"]
    assert abs(spearman["random_vec"]) < 0.3
    assert spearman[["gloscope_combat_KL_KNN_25", "pseudobulk", "pilot"]].min() > 0.4
    assert summary.loc["gloscope_combat_KL_KNN_25", "mean"] < summary.loc["random_vec", "ci_low"]

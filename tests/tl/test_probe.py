"""Nested cross-validation of one representation: leaks, groups, p-values, tables, bad input."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scset_tools._metrics import METRICS
from scset_tools.tl import ProbeResult, probe
from scset_tools.tl._estimators import inner_folds
from scset_tools.tl._intervals import bounded_interval
from scset_tools.tl._result import independent_units
from scset_tools.tl._splits import make_folds, read_groups, seed_of
from scset_tools.tl._targets import read_target


def make_samples(n: int = 40, n_features: int = 4, *, signal: float = 0.0, seed: int = 0) -> AnnData:
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(n) % 2)
    x = rng.normal(size=(n, n_features)) + signal * label[:, None]
    obs = pd.DataFrame(
        {
            "label": np.array(["a", "b"])[label],
            "three": np.array(["a", "b", "c"])[rng.permutation(np.arange(n) % 3)],
            "level": pd.Categorical(rng.permutation(np.arange(n) % 4), ordered=True),
            "age": 50 + 10 * (signal * label + rng.normal(size=n)),
            "time": rng.exponential(100 - 60 * (signal > 0) * label) + 1,
            "is_dead": rng.random(n) < 0.8,
            "donor": np.arange(n) // 2,
        },
        index=[f"s{i}" for i in range(n)],
    )
    samples = AnnData(x.astype(np.float32), obs=obs)
    samples.obsp["d"] = cdist(x, x)
    return samples


QUICK = {"n_repeats": 1, "tune": False}


@pytest.mark.parametrize("kind", ["logistic", "ridge", "mlp", "knn", "svc"])
def test_random_labels_give_chance(kind: str) -> None:
    """The share correct over independent data sets stays within four binomial standard errors of one half."""
    n_sets, n = (5 if kind == "mlp" else 12), 40
    scores = [
        probe(make_samples(n, seed=s), "label", probe=kind, rng=s, **QUICK).predictions.pipe(
            lambda p: (p["y_true"] == p["y_pred"]).mean()
        )
        for s in range(n_sets)
    ]
    assert abs(np.mean(scores) - 0.5) < 4 * np.sqrt(0.25 / (n_sets * n))


def test_random_labels_give_chance_when_tuned_and_grouped() -> None:
    """Two samples of a donor are copies with one label: only whole groups keep this at chance."""
    scores, cut = [], []
    for s in range(4):
        samples = make_samples(20, seed=s)
        obs = samples.obs.loc[np.repeat(samples.obs_names, 2)].reset_index(drop=True)
        obs["donor"] = np.repeat(np.arange(20), 2)
        twice = AnnData(np.repeat(samples.X, 2, axis=0), obs=obs.set_index("s" + obs.index.astype(str)))
        for groups_key, out in [("donor", scores), (None, cut)]:
            result = probe(twice, "label", probe="knn", groups_key=groups_key, cv=3, n_repeats=1, rng=s)
            out.append((result.predictions["y_true"] == result.predictions["y_pred"]).mean())
    assert abs(np.mean(scores) - 0.5) < 4 * np.sqrt(0.25 / (4 * 20))
    assert np.mean(cut) > 0.75  # the same data without groups leak, so the test above can fail


def test_random_times_give_chance_concordance() -> None:
    scores = [
        probe(make_samples(40, seed=s), "time", probe="cox", event_key="is_dead", rng=s, **QUICK).repeats()[
            "concordance"
        ][0]
        for s in range(15)
    ]
    assert abs(np.mean(scores) - 0.5) < 4 * 0.07 / np.sqrt(15)  # 0.07: sd of a concordance of 40 samples, 0.8 seen


def test_selection_on_all_samples_is_a_leak_that_shows() -> None:
    """Features chosen with the test labels: random data, random labels, far above chance."""
    leaky, honest = [], []
    for s in range(5):
        samples = make_samples(40, 500, seed=s)
        y = samples.obs["label"] == "b"
        gap = np.abs(samples.X[y].mean(0) - samples.X[~y].mean(0))
        samples.obsm["X_leaky"] = samples.X[:, np.argsort(-gap)[:10]]
        for key, out in [("X_leaky", leaky), (None, honest)]:
            out.append(probe(samples, "label", use_rep=key, rng=s, **QUICK).summary().loc["accuracy", "mean"])
    assert np.mean(leaky) > 0.75
    assert abs(np.mean(honest) - 0.5) < 4 * np.sqrt(0.25 / 200)


@pytest.mark.parametrize(
    ("label", "kwargs", "metric", "minimum"),
    [
        ("label", {"probe": "logistic"}, "auroc", 0.9),
        ("age", {"probe": "ridge"}, "r2", 0.1),
        ("time", {"probe": "cox", "event_key": "is_dead"}, "concordance", 0.55),
        ("label", {"probe": "knn", "obsp_key": "d"}, "accuracy", 0.8),
        ("label", {"probe": "svc", "obsp_key": "d"}, "accuracy", 0.8),
    ],
)
def test_signal_is_found_in_every_kind_of_target(label: str, kwargs: dict, metric: str, minimum: float) -> None:
    result = probe(make_samples(60, signal=1.2), label, n_repeats=2, **kwargs)
    assert result.summary().loc[metric, "mean"] > minimum
    assert tuple(result.summary().index) == METRICS[result.target]
    assert result.folds["is_tuned"].all()


@pytest.mark.parametrize(
    ("label", "kwargs", "taken"),
    [
        ("label", {}, "logistic"),
        ("level", {}, "logistic"),
        ("age", {}, "ridge"),
        ("time", {"event_key": "is_dead"}, "cox"),
        ("label", {"obsp_key": "d"}, "knn"),
        ("age", {"obsp_key": "d"}, "knn"),
        ("label", {"target": "ordinal"}, None),
    ],
)
def test_the_default_follows_the_label_and_is_the_one_named(label: str, kwargs: dict, taken: str | None) -> None:
    samples = make_samples(60, signal=1.2)
    if taken is None:  # texts have no order, whoever asks
        with pytest.raises(ValueError, match="has no order"):
            probe(samples, label, **QUICK, **kwargs)
        return
    found, named = (probe(samples, label, **QUICK, **kwargs, **more) for more in ({}, {"probe": taken}))
    assert found.probe == taken
    assert repr(taken) in repr(found)
    pd.testing.assert_frame_equal(found.folds, named.folds)
    pd.testing.assert_frame_equal(found.predictions, named.predictions)


def test_folds_predictions_and_summary_agree() -> None:
    samples = make_samples(43, signal=0.7)
    samples.obs.loc[["s3", "s8", "s9"], "label"] = None
    result = probe(samples, "label", groups_key="donor", n_repeats=3, cv=4)
    assert isinstance(result, ProbeResult)
    assert (result.n_samples, result.n_missing, result.cv, result.n_repeats) == (40, 3, 4, 3)
    assert len(result.folds) == 12
    assert len(result.predictions) == 120
    assert not set(result.predictions["sample"]) & {"s3", "s8", "s9"}
    for (_, _), rows in result.predictions.groupby(["repeat", "group"]):
        assert rows["fold"].nunique() == 1
    p = result.predictions
    truth = samples.obs.loc[p["sample"], "label"].to_numpy()
    np.testing.assert_array_equal(p["y_true"], truth)
    for row in result.folds.itertuples():
        part = p[(p["repeat"] == row.repeat) & (p["fold"] == row.fold)]
        assert row.accuracy == pytest.approx(accuracy_score(part["y_true"], part["y_pred"]))
        assert row.auroc == pytest.approx(roc_auc_score(part["y_true"] == "b", part["score_b"]))
        assert (row.n_test, row.n_train) == (len(part), 40 - len(part))
    pooled = result.repeats()
    assert pooled.loc[1, "auroc"] == pytest.approx(
        roc_auc_score(p.loc[p["repeat"] == 1, "y_true"] == "b", p.loc[p["repeat"] == 1, "score_b"])
    )
    values, summary = result.folds["auroc"].to_numpy(), result.summary(interval="t").loc["auroc"]
    n_units = independent_units(result._labels, p.loc[p["repeat"] == 0, "group"].to_numpy())["auroc"]
    assert (summary["ci_low"], summary["ci_high"]) == bounded_interval(values, (0, 1), n_units=n_units, is_ranking=True)
    assert (summary["sd"], summary["n"]) == (pytest.approx(values.std(ddof=1)), 12)
    corrected = result.summary().loc["auroc"]
    ratio = (result.folds["n_test"] / result.folds["n_train"]).mean()
    expected = bounded_interval(values, (0, 1), n_units=n_units, is_ranking=True, test_train_ratio=ratio)
    assert (corrected["ci_low"], corrected["ci_high"]) == expected


@pytest.mark.parametrize("interval", ["corrected", "t", "bootstrap"])
def test_intervals_stay_in_range_and_have_a_width(interval: str) -> None:
    for signal in (0.0, 20.0):  # folds at chance, and perfect
        result = probe(make_samples(12, signal=signal), "label", n_repeats=2, tune=False, cv=3)
        out = result.summary(interval=interval, n_resamples=40)
        assert (out["ci_low"] >= 0).all()
        assert (out["ci_high"] <= 1).all()
        assert (out["ci_low"] < out["ci_high"]).all()
    assert out.loc["auroc", ["mean", "ci_high"]].tolist() == [1, 1]


@pytest.mark.filterwarnings("ignore:cv is lowered")
def test_messages_of_survival_speak_of_events() -> None:
    rng = np.random.default_rng(0)
    samples = make_samples(24)
    samples.obs["t"] = rng.exponential(size=24)
    samples.obs["donor"] = np.arange(24) // 4
    run = {"probe": "cox", "event_key": "e", "groups_key": "donor", "cv": 3, "n_repeats": 1, "tune": False}
    for seen, message in (
        (np.arange(24) < 3, r"All of the 3 seen events of samples.obs\['t'\] are in one group"),
        (np.zeros(24, bool), "None of 24 samples has a seen event .the others are censored"),
        (np.arange(24) == 3, "Only 1 of 24 samples has a seen event"),
    ):
        samples.obs["e"] = seen
        with pytest.raises(ValueError, match=message):
            probe(samples, "t", **run)
    samples.obs["e"] = np.isin(np.arange(24), [1, 9])  # in two groups: each is learned from the other
    assert probe(samples, "t", **run).folds["concordance"].between(0, 1).any()
    samples.obs["e"], samples.obs["t"] = True, 3.0
    with pytest.raises(ValueError, match=r"All 24 events of obs.'t'. are at the same time 3"):
        probe(samples, "t", **run)
    samples.obs["t"] = pd.to_timedelta(np.arange(1, 25), unit="D")
    with pytest.raises(ValueError, match=r"obs\['t'\] holds durations .* pd.Timedelta"):
        probe(samples, "t", **run)


def test_bootstrap_brackets_the_pooled_score() -> None:
    result = probe(make_samples(40, signal=1.0), "label", n_repeats=2, tune=False)
    out = result.summary(interval="bootstrap", n_resamples=60)
    assert (out["ci_low"] <= out["mean"]).all()
    assert (out["mean"] <= out["ci_high"]).all()
    assert out.loc["accuracy", "mean"] == pytest.approx(result.repeats()["accuracy"].mean())
    again = result.summary(interval="bootstrap", n_resamples=60)
    pd.testing.assert_frame_equal(out, again)
    with pytest.raises(ValueError, match="interval must be one of"):
        result.summary(interval="normal")
    with pytest.raises(ValueError, match="level=95 must be a number between 0 and 1"):
        result.summary(level=95)


def test_undefined_metrics_are_counted() -> None:
    result = probe(make_samples(12, signal=2.0), "label", cv=12, n_repeats=3, tune=False)
    assert result.n_repeats == 1
    summary = result.summary()
    assert (summary.loc["auroc", "n"], summary.loc["auroc", "n_undefined"]) == (0, 12)
    assert (summary.loc["accuracy", "n"], summary.loc["accuracy", "n_undefined"]) == (12, 0)
    assert np.isnan(summary.loc["auroc", "mean"])
    assert not np.isnan(result.repeats()["auroc"][0])


def test_same_seed_same_result_for_any_number_of_jobs() -> None:
    samples = make_samples(30, signal=0.5)
    one = probe(samples, "three", probe="mlp", n_repeats=1, cv=2, n_permutations=2, tune=False, n_jobs=1)
    two = probe(samples, "three", probe="mlp", n_repeats=1, cv=2, n_permutations=2, tune=False, n_jobs=2)
    pd.testing.assert_frame_equal(one.folds, two.folds)
    pd.testing.assert_frame_equal(one.predictions, two.predictions)
    np.testing.assert_array_equal(one.null, two.null)
    other = probe(samples, "three", probe="mlp", n_repeats=1, cv=2, tune=False, rng=1)
    assert not one.predictions["fold"].equals(other.predictions["fold"])


def test_permutation_p_value() -> None:
    strong = probe(make_samples(30, signal=2.0), "label", n_permutations=19, **QUICK)
    assert strong.p_value == pytest.approx(1 / 20)
    assert len(strong.null) == 19
    weak = probe(make_samples(30, seed=3), "age", probe="ridge", n_permutations=9, **QUICK)
    assert weak.metric == "mae"
    observed = weak.folds["mae"].mean()
    assert weak.p_value == pytest.approx((1 + sum(v <= observed for v in weak.null)) / 10)
    assert probe(make_samples(30), "label", **QUICK).p_value is None


def test_p_value_respects_groups() -> None:
    """Six donors, each eight copies of one vector: ungrouped permutations would call any such label significant."""
    rng = np.random.default_rng(0)
    donor = np.repeat(np.arange(6), 8)
    obs = pd.DataFrame({"label": np.array(list("ababab"))[donor], "donor": donor}, index=[f"s{i}" for i in range(48)])
    samples = AnnData(rng.normal(size=(6, 3))[donor] + 0.01 * rng.normal(size=(48, 3)), obs=obs)
    with pytest.warns(
        UserWarning, match=r"6 groups of 48 samples can be arranged in 20 ways only: no p-value below 0.1"
    ):
        result = probe(samples, "label", groups_key="donor", cv=3, probe="knn", n_permutations=15, **QUICK)
    assert result.p_value > 0.06


def test_unlabelled_samples_may_be_broken() -> None:
    samples = make_samples(20, signal=1.0)
    samples.obs.loc["s4", "label"] = None
    samples.X[4] = np.nan
    assert probe(samples, "label", **QUICK).n_missing == 1
    samples.X[5] = np.nan
    with pytest.raises(ValueError, match=r"1 of 19 samples \(first: \['s5'\]\)"):
        probe(samples, "label", **QUICK)


def test_survival_of_a_real_cohort(shared_data: Path) -> None:
    cells = ad.read_h5ad(shared_data / "tnbc_mibi_keren_scfeatures.h5ad")
    of = cells.obs["sample"].astype(str)
    obs = cells.obs.groupby(of)[["survival_days", "censored"]].first()
    # 'censored' flags samples alive at the end of follow-up, so the event is its opposite
    obs["is_death"] = obs["censored"].map({"0.0": True, "1.0": False}).astype(object)
    assert obs.groupby("is_death")["survival_days"].median().loc[True] < 1500
    samples = AnnData(cells.to_df().groupby(of).mean(), obs=obs)
    samples.obs["donor"] = samples.obs_names  # one sample per donor
    kwargs = {"probe": "cox", "event_key": "is_death", "groups_key": "donor", "n_repeats": 4, "tune": False}
    result = probe(samples, "survival_days", **kwargs)
    assert (result.n_samples, result.n_missing, int(result.predictions["is_event"].sum())) == (37, 2, 4 * 15)
    row = result.summary().loc["concordance"]
    assert row["ci_low"] < row["mean"] < row["ci_high"]
    assert 0.45 < row["mean"] < 0.8
    assert row["n"] + row["n_undefined"] == 20


@pytest.mark.parametrize(
    ("label", "kwargs", "message"),
    [
        ("label", {"cv": 1}, "cv=1 must be a whole number of 2 or more"),
        ("label", {"obsp_key": "d", "probe": "logistic"}, "needs vectors"),
        ("time", {"obsp_key": "d", "event_key": "is_dead"}, "pass use_rep instead of obsp_key"),
        ("label", {"obsp_key": "d", "use_rep": "X_a", "probe": "knn"}, "not both"),
        ("age", {"probe": "logistic"}, "'age' is read as 'continuous'. Pass probe='auto' or one of"),
        ("label", {"metric": "r2"}, "metric='r2' is not defined for a 'class' target"),
        ("label", {"n_repeats": 0}, "n_repeats=0 must be a whole number of 1 or more"),
    ],
)
def test_bad_calls(label: str, kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        probe(make_samples(), label, **kwargs)


def test_class_of_one_sample_is_reported_and_counts_as_an_error() -> None:
    samples = make_samples(20, signal=3.0)
    samples.obs.loc["s0", "label"] = "rare"
    with pytest.warns(UserWarning, match=r"occur in one group only: \['rare'\]"):
        result = probe(samples, "label", **QUICK)
    rows = result.predictions.set_index("sample")
    assert rows.loc["s0", "y_pred"] != "rare"
    assert result.n_samples == 20


def test_the_inner_search_is_scikit_learns() -> None:
    samples = make_samples(60, signal=0.5)
    grid = list(10.0 ** np.arange(-2, 7))
    result = probe(samples, "label", cv=4, n_repeats=1, inner_cv=5, grid={"C": grid[::-1]})
    labels = read_target(samples, "label")
    groups = read_groups(samples, None, labels.rows)
    for fold, row in zip(
        make_folds(labels.strata(4), groups, cv=4, n_repeats=1, seed=seed_of(0)), result.folds.itertuples(), strict=True
    ):
        seed = int(np.random.default_rng((seed_of(0), fold.repeat, fold.fold)).integers(2**31))
        inner = inner_folds(labels.take(fold.train), groups[fold.train], seed, n_folds=5)
        assert len(inner) == 5
        y = labels.values[fold.train]
        means = []
        for c in grid:
            scores = []
            for fit, held in inner:
                model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000, tol=1e-8))
                model.fit(samples.X[fold.train][fit], y[fit])
                scores.append(balanced_accuracy_score(y[held], model.predict(samples.X[fold.train][held])))
            means.append(np.mean(scores))
        assert row.params == f"C={grid[int(np.argmax(means))]:g}"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"inner_cv": 1}, "inner_cv=1 must be a whole number of 2 or more"),
        ({"grid": {"alpha": [1.0]}}, r"probe='logistic' chooses values of \['C'\]"),
        ({"grid": {"C": []}}, "at least one of each"),
        ({"grid": {"C": [1.0]}, "tune": False}, "is what tuning chooses from, but tune=False"),
    ],
)
def test_bad_grids(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        probe(make_samples(), "label", **kwargs)


def test_some_studies_are_trained_on_and_others_tested_on() -> None:
    samples = make_samples(40, signal=2.0)
    samples.obs["study"] = np.repeat(["s1", "s2", "s3", "s4"], 10)
    result = probe(samples, "label", groups_key="study", test_groups=["s2", "s4"], tune=False)
    assert len(result.folds) == 1
    assert sorted(result.predictions["sample"]) == sorted(samples.obs_names[samples.obs["study"].isin(["s2", "s4"])])
    is_test = samples.obs["study"].isin(["s2", "s4"]).to_numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, tol=1e-6))
    y = samples.obs["label"].to_numpy()
    predicted = model.fit(samples.X[~is_test], y[~is_test]).predict(samples.X[is_test])
    np.testing.assert_array_equal(result.predictions["y_pred"], predicted)
    low, high = result.summary(interval="bootstrap").loc["balanced_accuracy", ["ci_low", "ci_high"]]
    assert 0 < low < high
    with pytest.raises(ValueError, match=r"\['s9'\] of test_groups are no values of 'study'"):
        probe(samples, "label", groups_key="study", test_groups=["s9"])
    with pytest.raises(ValueError, match="must be a list of values of groups_key"):
        probe(samples, "label", groups_key="study", test_groups="s1")
    with pytest.raises(ValueError, match="must be a list of values of groups_key"):
        probe(samples, "label", test_groups=["s1"])
    with pytest.raises(ValueError, match="there are 0 labelled samples to train on"):
        probe(samples, "label", groups_key="study", test_groups=["s1", "s2", "s3", "s4"])


@pytest.mark.parametrize("groups_key", [None, "donor"])
def test_folds_have_each_time_of_each_type_in_equal_shares(groups_key: str | None) -> None:
    rng = np.random.default_rng(0)
    donor = np.repeat(np.arange(40), 6)
    obs = pd.DataFrame(
        {"type": rng.choice(["a", "b"], 240), "time": np.array(["t0", "t1"])[donor % 4 // 3], "donor": donor}
    )
    obs.index = [f"c{i}" for i in range(240)]
    cells = AnnData(rng.normal(size=(240, 2)), obs=obs)

    def spread(**kwargs: object) -> float:
        found = probe(cells, "type", cv=4, n_repeats=3, tune=False, groups_key=groups_key, **kwargs).predictions
        both = found.merge(obs, left_on="sample", right_index=True)
        return float(both.groupby(["repeat", "fold", "time", "type"]).size().unstack([2, 3], fill_value=0).std().mean())

    even = spread(strata_keys=["time"])
    assert even < (0.8 if groups_key is None else 0.9 * spread())
    assert spread(strata_keys="time") == even
    with pytest.raises(ValueError, match="leave n_permutations and test_groups out"):
        probe(cells, "type", strata_keys="time", n_permutations=3)
    with pytest.raises(KeyError, match="'day' is not a column"):
        probe(cells, "type", strata_keys="day")

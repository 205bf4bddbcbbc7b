"""The fit of one fold against scikit-learn and scikit-survival by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from scset_tools.tl import _estimators
from scset_tools.tl._estimators import PROBES, choose_probe, fit_predict
from scset_tools.tl._targets import Target

N, TRAIN, TEST = 40, np.arange(30), np.arange(30, 40)


def make_target(kind: str, n: int = N, seed: int = 0) -> Target:
    rng = np.random.default_rng(seed)
    values = {
        "class": rng.permutation(np.arange(n) % 3),
        "ordinal": rng.permutation(np.arange(n) % 4).astype(float),
        "continuous": rng.normal(50, 10, size=n),
        "time_to_event": rng.exponential(100, size=n) + 1,
    }[kind]
    event = rng.random(n) < 0.7 if kind == "time_to_event" else None
    return Target("y", kind, np.arange(n), values, event, ("a", "b", "c") if kind == "class" else (), 0)


def make_x(target: Target, n_features: int = 5) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.normal(size=(len(target), n_features)) * 3 + 2 + 3 * (target.values / target.values.std())[:, None]


def fit(x: np.ndarray, target: Target, probe: str, **kwargs: object):
    settings = {"train": TRAIN, "test": TEST, "tune": False, "is_distance": False, "seed": 0} | kwargs
    return fit_predict(x, target, np.arange(len(target)), probe=probe, **settings)


def test_untuned_logistic_and_ridge_are_scikit_learns() -> None:
    target = make_target("class")
    x = make_x(target)
    reference = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, tol=1e-6)).fit(
        x[TRAIN], target.values[TRAIN]
    )
    out = fit(x, target, "logistic")
    np.testing.assert_array_equal(out.values, reference.predict(x[TEST]))
    np.testing.assert_allclose(out.scores, reference.predict_proba(x[TEST]), rtol=1e-6)
    numbers = make_target("continuous")
    x = make_x(numbers)
    reference = make_pipeline(StandardScaler(), Ridge(alpha=10.0)).fit(x[TRAIN], numbers.values[TRAIN])
    np.testing.assert_allclose(fit(x, numbers, "ridge").values, reference.predict(x[TEST]), rtol=1e-8)


@pytest.mark.parametrize(("probe", "kind"), [("logistic", "class"), ("ridge", "continuous"), ("cox", "time_to_event")])
def test_rotation_of_wide_data_changes_no_prediction(probe: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = make_target(kind)
    x = make_x(target, 60)
    rotated = fit(x, target, probe)
    assert any(isinstance(s, PCA) for _, s in _estimators._preprocessing(probe, (30, 60), is_distance=False))
    monkeypatch.setattr(_estimators, "_ROTATED", ())
    plain = fit(x, target, probe)
    np.testing.assert_allclose(rotated.values, plain.values, rtol=1e-3, atol=1e-3)


def test_cox_is_scikit_survivals() -> None:
    target = make_target("time_to_event")
    x = make_x(target)
    y = Surv.from_arrays(target.is_event, target.values)
    reference = make_pipeline(StandardScaler(), CoxPHSurvivalAnalysis(alpha=10.0)).fit(x[TRAIN], y[TRAIN])
    np.testing.assert_allclose(fit(x, target, "cox").values, reference.predict(x[TEST]), rtol=1e-8)


def test_knn_and_svc_on_distances_use_the_training_columns() -> None:
    target = make_target("class")
    x = make_x(target)
    d = cdist(x, x)
    knn = KNeighborsClassifier(5).fit(x[TRAIN], target.values[TRAIN])
    np.testing.assert_allclose(fit(d, target, "knn", is_distance=True).scores, knn.predict_proba(x[TEST]))
    width = np.median([d[i, j] for i in TRAIN for j in TRAIN if i != j])
    svc = SVC(gamma=1 / width**2).fit(x[TRAIN], target.values[TRAIN])
    out = fit(d, target, "svc", is_distance=True)
    np.testing.assert_allclose(out.scores, svc.decision_function(x[TEST]), atol=1e-3)
    np.testing.assert_array_equal(out.values, svc.predict(x[TEST]))


def test_tuning_is_a_grid_search_over_grouped_inner_folds() -> None:
    target = make_target("class")
    x = make_x(target)
    groups = np.arange(N) // 2
    out = fit_predict(x, target, groups, train=TRAIN, test=TEST, probe="logistic", tune=True, is_distance=False, seed=3)
    inner = _estimators.inner_folds(target.take(TRAIN), groups[TRAIN], 3)
    assert len(inner) == 3
    for train, test in inner:
        assert not set(groups[TRAIN][train]) & set(groups[TRAIN][test])
    grid = {"logisticregression__C": PROBES["logistic"][0]("class", 0)[1]["C"]}
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, tol=1e-6)),
        grid,
        scoring="balanced_accuracy",
        cv=inner,
    ).fit(x[TRAIN], target.values[TRAIN])
    assert out.is_tuned
    assert out.params == {"C": search.best_params_["logisticregression__C"]}
    np.testing.assert_allclose(out.scores, search.predict_proba(x[TEST]), rtol=1e-6)


@pytest.mark.parametrize("probe", list(PROBES))
def test_labels_of_the_test_part_are_never_seen(probe: str) -> None:
    kind = PROBES[probe][1][-1]
    target = make_target(kind)
    x = make_x(target)
    other = target.values.copy()
    other[TEST] = other[TEST][::-1] * 2 + 1
    changed = Target("y", kind, target.rows, other, target.is_event, target.classes, 0)
    one, two = fit(x, target, probe, tune=True), fit(x, changed, probe, tune=True)
    np.testing.assert_array_equal(one.values, two.values)


@pytest.mark.parametrize("probe", ["ridge", "mlp", "knn", "svc"])
def test_numbers_are_predicted_in_their_own_units(probe: str) -> None:
    target = make_target("continuous")
    x = make_x(target)
    scaled = Target("y", "continuous", target.rows, target.values * 1000 + 7, None, (), 0)
    one, thousand = fit(x, target, probe), fit(x, scaled, probe)
    np.testing.assert_allclose(thousand.values, one.values * 1000 + 7, rtol=0.02)  # the optimisers' own tolerance
    assert np.corrcoef(one.values, target.values[TEST])[0, 1] > 0.3


def test_ordinal_logistic_predicts_the_expected_level() -> None:
    target = make_target("ordinal")
    stretched = Target(
        "y", "ordinal", target.rows, np.array([0.0, 1.0, 2.0, 10.0])[target.values.astype(int)], None, (), 0
    )
    x = make_x(target)
    reference = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, tol=1e-6)).fit(
        x[TRAIN], target.values[TRAIN]
    )
    expected = reference.predict_proba(x[TEST]) @ [0.0, 1.0, 2.0, 10.0]
    np.testing.assert_allclose(fit(x, stretched, "logistic").values, expected, rtol=1e-5)


def test_class_missing_from_training_ranks_last() -> None:
    target = make_target("class")
    train = np.flatnonzero(target.values != 2)
    test = np.flatnonzero(target.values == 2)
    for probe in ("logistic", "ridge"):
        out = fit(make_x(target), target, probe, train=train, test=test)
        assert out.scores.shape == (len(test), 3)
        assert (out.scores[:, 2] <= out.scores[:, :2].min()).all()
        assert not (out.values == 2).any()


def test_no_inner_split_means_no_tuning() -> None:
    target = make_target("class")
    groups = np.zeros(N, dtype=int)
    out = fit_predict(
        make_x(target), target, groups, train=TRAIN, test=TEST, probe="knn", tune=True, is_distance=False, seed=0
    )
    assert (out.is_tuned, out.params) == (False, {"n_neighbors": 5})


def test_probes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"probe must be one of .* not 'forest'"):
        choose_probe("forest", kind="class", label_key="y", is_distance=False)
    with pytest.raises(ValueError, match=r"'y' is read as 'continuous'.*'ridge', 'mlp', 'knn', 'svc'"):
        choose_probe("logistic", kind="continuous", label_key="y", is_distance=False)
    with pytest.raises(ValueError, match=r"needs vectors; on a distance matrix .* \('knn', 'svc'\)"):
        choose_probe("ridge", kind="class", label_key="y", is_distance=True)

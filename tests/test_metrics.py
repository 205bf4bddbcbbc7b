"""Every metric against scikit-learn, scikit-survival or a slow loop."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk
from sksurv.metrics import concordance_index_censored

from scset_tools import _metrics


@pytest.mark.parametrize("has_ties", [False, True])
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_class_metrics_are_scikit_learns(n_classes: int, seed: int, *, has_ties: bool) -> None:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(40) % n_classes)
    scores = rng.dirichlet(np.ones(n_classes), size=40)
    if has_ties:  # sums are still 1, which scikit-learn asks for
        scores = np.eye(n_classes)[scores.argmax(axis=1)] / 2 + 0.5 / n_classes
    y_pred = scores.argmax(axis=1)
    out = _metrics.class_metrics(y, y_pred, scores)
    assert tuple(out) == _metrics.METRICS["class"]
    assert out["accuracy"] == pytest.approx(sk.accuracy_score(y, y_pred))
    assert out["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, y_pred))
    assert out["f1_weighted"] == pytest.approx(sk.f1_score(y, y_pred, average="weighted"))
    assert out["f1_macro"] == pytest.approx(sk.f1_score(y, y_pred, average="macro"))
    if n_classes == 2:
        assert out["auroc"] == pytest.approx(sk.roc_auc_score(y, scores[:, 1]))
        assert out["auprc"] == pytest.approx(sk.average_precision_score(y, scores[:, 1]))
    else:
        assert out["auroc"] == pytest.approx(sk.roc_auc_score(y, scores, multi_class="ovr", average="macro"))
        one_hot = np.eye(n_classes)[y]
        assert out["auprc"] == pytest.approx(sk.average_precision_score(one_hot, scores, average="macro"))


def test_class_metrics_by_hand() -> None:
    """Class 2 is predicted but not in the test part; class 3 is neither."""
    y, y_pred = np.array([0, 0, 0, 1]), np.array([0, 0, 2, 1])
    out = _metrics.class_metrics(y, y_pred, np.eye(4)[y_pred])
    assert out["accuracy"] == 3 / 4
    assert out["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert out["f1_macro"] == pytest.approx((0.8 + 1 + 0) / 3)
    assert out["f1_weighted"] == pytest.approx(0.75 * 0.8 + 0.25 * 1)
    pairs = [(a, b) for a in (1.0, 1.0, 0.0) for b in (0.0,)]
    auroc_0 = np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs])
    assert out["auroc"] == pytest.approx((auroc_0 + 1) / 2)


def test_one_class_in_the_test_part_leaves_ranking_undefined() -> None:
    out = _metrics.class_metrics(np.zeros(3, int), np.array([0, 1, 0]), np.eye(2)[[0, 1, 0]])
    assert np.isnan([out["auroc"], out["auprc"]]).all()
    assert out["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("seed", range(3))
def test_number_metrics_are_scikit_learns_and_scipys(seed: int) -> None:
    y, y_pred = np.random.default_rng(seed).normal(size=(2, 15))
    out = _metrics.number_metrics(y, y_pred)
    assert out["r2"] == pytest.approx(sk.r2_score(y, y_pred))
    assert out["mae"] == pytest.approx(np.mean([abs(a - b) for a, b in zip(y, y_pred, strict=True)]))
    assert out["r2"] == pytest.approx(1 - sum((y - y_pred) ** 2) / sum((y - y.mean()) ** 2))
    assert out["spearman"] == pytest.approx(stats.pearsonr(stats.rankdata(y), stats.rankdata(y_pred)).statistic)


def test_number_metrics_that_are_undefined() -> None:
    constant = _metrics.number_metrics(np.array([1.0, 1.0]), np.array([0.0, 2.0]))
    assert (constant["mae"], np.isnan(constant["r2"]), np.isnan(constant["spearman"])) == (1.0, True, True)
    flat = _metrics.number_metrics(np.array([1.0, 3.0]), np.array([2.0, 2.0]))
    assert (flat["r2"], np.isnan(flat["spearman"])) == (0.0, True)
    assert np.isnan(_metrics.number_metrics(np.array([1.0]), np.array([1.0]))["r2"])


def test_ordinal_predictions_are_also_scored_as_the_nearest_level() -> None:
    levels = np.array([0.0, 1.0, 5.0])
    y, y_pred = np.array([0.0, 1.0, 5.0, 5.0]), np.array([0.4, 2.9, 3.1, 99.0])
    out = _metrics.ordinal_metrics(y, y_pred, levels)
    assert set(out) == set(_metrics.METRICS["ordinal"])
    assert out["accuracy"] == 1.0
    assert out["mae"] == pytest.approx((0.4 + 1.9 + 1.9 + 94) / 4)
    assert _metrics.ordinal_metrics(y, np.array([0.4, 3.1, 3.1, 99.0]), levels)["balanced_accuracy"] == pytest.approx(
        2 / 3
    )


@pytest.mark.parametrize("seed", range(3))
def test_concordance_is_that_of_a_loop_over_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times, event, risk = rng.permutation(20) + 1.0, rng.random(20) < 0.5, rng.normal(size=20)
    good, pairs = 0.0, 0
    for i in range(20):
        for j in range(20):
            if event[i] and times[i] < times[j]:
                pairs += 1
                good += (risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j])
    out = _metrics.survival_metrics(times, event, risk)["concordance"]
    assert out == pytest.approx(good / pairs)
    assert out == pytest.approx(concordance_index_censored(event, times, risk)[0])


@pytest.mark.parametrize("n_inputs", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_concordance_with_ties_is_that_of_a_loop_over_pairs(n_inputs: int) -> None:
    """Few distinct times and risks. Of two samples of one time the one whose event was seen came first; a tied risk counts half."""
    n_defined = 0
    for seed in range(n_inputs):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(2, 15))
        times, event, risk = rng.integers(1, 6, n).astype(float), rng.random(n) < 0.5, rng.integers(0, 4, n) / 2
        good, pairs = 0.0, 0
        for i in range(n):
            for j in range(n):
                if event[i] and (times[i] < times[j] or (times[i] == times[j] and not event[j])):
                    pairs += 1
                    good += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
        out = _metrics.survival_metrics(times, event, risk)["concordance"]
        assert out == pytest.approx(good / pairs if pairs else np.nan, nan_ok=True)
        n_defined += pairs > 0
    assert n_defined > 0.6 * n_inputs


@pytest.mark.parametrize(
    ("times", "event"),
    [([1.0, 2.0], [False, False]), ([1.0], [True]), ([1.0, 1.0], [True, True]), ([1.0, 2.0], [False, True])],
    ids=["all-censored", "one-sample", "tied-events", "event-last"],
)
def test_concordance_without_a_comparable_pair_is_missing(times: list, event: list) -> None:
    out = _metrics.survival_metrics(np.array(times), np.array(event), np.arange(len(times), dtype=float))
    assert np.isnan(out["concordance"])


def test_chance_corrected_f1() -> None:
    assert _metrics.chance_corrected_f1(1.0, 4) == 1.0
    assert _metrics.chance_corrected_f1(0.25, 4) == 0.0
    assert _metrics.chance_corrected_f1(0.1, 4) == 0.0
    assert _metrics.chance_corrected_f1(0.75, 2) == pytest.approx(0.5)

"""What may be written follows from intervals, design and checks."""

from __future__ import annotations

import pandas as pd
import pytest

from scset_tools.reporting._sentences import is_trusted, sentences

PASSED = {"n_seeds": 3, "spearman_min": 0.9, "n_found": 2, "n_permutations": 10, "n_permutations_with_findings": 0}


def parts(low=0.6, p_value=0.005, difference=0.02, adjusted=0.6, trust=None, **asked):
    """Parts of a report in which maestro scores 0.8 and the mean 0.78."""
    names = ["mean", "maestro", "maestro, untrained"]
    summary = pd.DataFrame(
        {"representation": names, "mean": [0.82, 0.8, 0.7], "ci_low": [0.6, low, 0.4], "ci_high": 0.95}
    )
    differences = pd.DataFrame(
        {"representation": ["maestro"], "difference": [difference], "ci_low": [-0.1], "ci_high": [0.2], "p_adjusted": [adjusted], "is_better": [difference > 0]}
    )  # fmt: skip
    scores = {"summary": summary, "differences": differences, "metric": "balanced_accuracy", "chance": 0.5, "baseline": "mean", "n_samples": 30, "n_folds": 5, "n_repeats": 1}  # fmt: skip
    found = {
        "asked": {"label_key": "disease", "groups_key": "donor", "batch_key": None, "models": ["maestro"], "called": {"maestro": "MAESTRO"}, "primary": "maestro", **asked},
        "cohort": {"design": {"groups": {"n": 28}}},
        "scores": scores,
        "chance": {"p_value": p_value},
    }  # fmt: skip
    if trust is not None:
        features = pd.DataFrame({"feature": ["CD38", "CD27", "CD3"], "p_adjusted": [0.01, 0.02, 0.6]})
        found["trust maestro"] = {"summary": pd.DataFrame([trust]), "features": features, "alpha": 0.05, "target": "case"}  # fmt: skip
    return found


def test_an_interval_above_chance_may_be_published_with_all_its_numbers():
    said = sentences(parts())
    assert said["may"][0].startswith("A linear model of the MAESTRO vectors")
    for number in ("0.80", "0.60 to 0.95", "chance 0.50", "5 folds", "30 samples, those of each of the 28 values of 'donor' kept in one fold", "p = 0.005"):  # fmt: skip
        assert number in said["may"][0]
    assert any("No difference between the MAESTRO vectors and the mean of the cells" in s for s in said["may"])
    assert any("as if it had been the only one" in s for s in said["not"])  # the mean was best, and not named before


def test_an_interval_over_chance_says_that_nothing_was_found():
    said = sentences(parts(low=0.4, p_value=0.3))
    assert "was not found to predict 'disease' better than chance" in said["may"][0]
    assert any("not found does not mean absent" in s for s in said["not"])


def test_a_small_p_value_over_a_wide_interval_is_an_association():
    said = sentences(parts(low=0.4, p_value=0.005))
    assert "'disease' is associated with the MAESTRO vectors in these samples (permutation p = 0.005)" in said["may"][0]
    assert "is open" in said["may"][0]


@pytest.mark.parametrize(("difference", "word"), [(0.2, "better"), (-0.2, "worse")])
def test_differences_that_are_told_from_zero(difference, word):
    assert any(
        f"MAESTRO vectors predict it {word} than" in s
        for s in sentences(parts(difference=difference, adjusted=0.01))["may"]
    )


def test_design_that_cannot_tell_label_from_batch_leaves_no_score():
    found = parts()
    found["confounding"] = {"is_separable": False, "verdict": "cannot be told apart"}
    assert sentences(found)["may"] == ["cannot be told apart"]


def test_features_are_quoted_only_if_their_checks_are_passed():
    assert any("rests on CD38, CD27 (" in s for s in sentences(parts(trust=PASSED))["may"])
    for failed in ({"n_found": 0}, {"spearman_min": 0.5}, {"n_permutations_with_findings": 2}):
        said = sentences(parts(trust=PASSED | failed))
        assert not any("CD38" in s for s in said["may"])
        assert any("do not pass their checks" in s for s in said["not"])
        assert not is_trusted(PASSED | failed)


def test_few_donors_carry_no_score():
    found = parts()
    found["cohort"]["design"]["groups"]["n"] = 6
    assert any("6 independent samples" in s for s in sentences(found)["not"])


def test_an_interval_above_chance_that_permuted_labels_reach_as_well_is_no_prediction():
    said = sentences(parts(p_value=0.3))
    assert "was not found to predict 'disease' better than chance" in said["may"][0]
    assert said["may"][0].endswith("Permutation p = 0.30.")


@pytest.mark.parametrize(
    ("low", "words"),
    [(0.6, "A Cox model of the MAESTRO vectors,"), (0.4, "was not found to order samples by 'disease'")],
)
def test_times_are_ordered_not_predicted(low, words):
    found = parts(low=low, p_value=0.005 if low > 0.5 else 0.3)
    found["scores"]["metric"] = "concordance"
    found["cohort"]["label"] = {"n_events": 6}
    said = sentences(found)
    assert words in said["may"][0]
    assert "orders samples by 'disease'" in said["may"][0] or low < 0.5
    assert any("6 events leave every score open" in s for s in said["not"])  # of 28 donors


def test_more_features_than_are_named_are_counted():
    said = sentences(parts(trust=PASSED | {"n_found": 12}))
    assert any("CD38, CD27 and 10 more (" in s for s in said["may"])

"""Labels without meaning: which are drawn, and the p-values that they give."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from _linear import MeanModel, linear_cohort

import scset_tools as sst
from scset_tools.model.explain._null import against_null, labelings


def test_p_values_against_the_null_are_those_of_a_count():
    rng = np.random.default_rng(0)
    genes = [f"g{i}" for i in range(30)]
    null = pd.DataFrame(rng.normal(size=(30, 10)), index=genes)
    score = pd.Series(rng.normal(size=30), index=genes)
    score["g4"] = 30.0
    table = against_null(score, null)
    v = null.to_numpy()
    fudge = np.median(v.std(axis=1, ddof=1))
    far = []
    for g in range(30):
        for b in range(10):
            rest = np.delete(v[g], b)
            far.append(abs(v[g, b] - rest.mean()) / (rest.std(ddof=1) + fudge))
    for g in (4, 7, 20):
        z = (score.iloc[g] - v[g].mean()) / (v[g].std(ddof=1) + fudge)
        assert table["z"].iloc[g] == pytest.approx(z)
        assert table["p_value"].iloc[g] == pytest.approx((1 + sum(f >= abs(z) for f in far)) / 301)
    assert table["p_adjusted"]["g4"] <= 0.11
    assert table["z"].abs().idxmax() == "g4"
    assert table["p_value"]["g4"] == table["p_value"].min()


def test_under_the_null_p_values_are_uniform():
    rng = np.random.default_rng(1)
    p = [
        against_null(pd.Series(rng.normal(size=200)), pd.DataFrame(rng.normal(size=(200, 15))))["p_value"].to_numpy()
        for _ in range(5)
    ]
    assert np.mean(np.concatenate(p) < 0.05) == pytest.approx(0.05, abs=0.025)


def testlabelings_are_distinct_and_say_something_else():
    rng = np.random.default_rng(0)
    labels = np.array(["a", "a", "a", "b", "b", "b"])
    drawn = labelings(labels, None, n=100, rng=rng)
    assert len({tuple(v) for v in drawn}) == len(drawn) == 18  # 20 labelings, without the real one and its mirror
    assert all(sorted(v) == sorted(labels) for v in drawn)
    paired = labelings(np.array(["a", "b"] * 3), np.array([0, 0, 1, 1, 2, 2]), n=100, rng=rng)
    assert len(paired) == 6
    assert all(set(v[i : i + 2]) == {"a", "b"} for v in paired for i in (0, 2, 4))
    by_donor = labelings(np.array(["a", "a", "b", "b", "c", "c"]), np.array([0, 0, 1, 1, 2, 2]), n=3, rng=rng)
    assert all(v[0] == v[1] and v[2] == v[3] for v in by_donor)


TRAIN = {"max_epochs": 1, "accelerator": "cpu", "watch_health": False}


def test_a_model_without_labels_is_trained_once_for_all_labelings(monkeypatch):
    n_trainings = 0
    train = MeanModel.train

    def counted(self, *args, **kwargs):
        nonlocal n_trainings
        n_trainings += 1
        train(self, *args, **kwargs)

    monkeypatch.setattr(MeanModel, "train", counted)
    found = sst.model.trust_attributions(
        MeanModel,
        linear_cohort(),
        "label",
        sample_key="sample",
        train=TRAIN,
        attribute={"n_steps": 2},
        n_seeds=2,
        n_permutations=30,
    )
    assert n_trainings == 2
    assert found.null.shape == (4, 30)
    assert set(found.features.index[:2]) == {"f0", "f2"}  # the planted ones
    assert found.stability.to_numpy().min() == 1  # nothing in this model depends on the seed
    # a labeling is what a user would get who gave it
    assert found.summary()["n_permutations"].item() == 30


def test_a_fine_tuned_head_is_fitted_to_each_labeling():
    """Under a labeling the head that is explained is the one which that labeling taught."""
    how = {"sample_key": "sample", "train": TRAIN, "attribute": {"n_steps": 2}, "n_seeds": 2, "n_permutations": 12}
    found = sst.model.trust_attributions(
        MeanModel, linear_cohort(), "label", finetune={"penalty": 1.0, "accelerator": "cpu"}, **how
    )
    assert [a.head for a in found.attributions] == ["finetuned"] * 2
    assert set(found.features.index[:2]) == {"f0", "f2"}  # the planted ones
    assert found.null.std(axis=1)[["f0", "f2"]].min() > 0
    probed = sst.model.trust_attributions(MeanModel, linear_cohort(), "label", **how)
    assert found.null.corrwith(probed.null).min() > 0.9  # the same linear model, but for weights of classes


def test_trust_needs_seeds_labelings_and_a_target():
    with pytest.raises(ValueError, match="needs at least two seeds and three permuted labelings"):
        sst.model.trust_attributions(MeanModel, linear_cohort(2), "label", sample_key="sample", train=TRAIN)
    with pytest.raises(ValueError, match=r"'label' has 3 classes, .* name the one to explain"):
        sst.model.trust_attributions(MeanModel, linear_cohort(n_classes=3), "label", sample_key="sample")

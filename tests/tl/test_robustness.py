"""Robustness of replicates, retention of labels and removal of batches, against slow loops and scikit-learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy.spatial.distance import cdist
from sklearn.metrics import f1_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from scset_tools import tl
from scset_tools._metrics import label_metrics


def make_samples(x, **obs):
    return AnnData(np.asarray(x, dtype=float), obs=pd.DataFrame(obs, index=[f"s{i}" for i in range(len(x))]))


def slow_robustness(x, replicate):
    """1 - U / (N - 1), from the issue's words: count, for each replicate, the other samples that are nearer."""
    d, n, scores = cdist(x, x), len(x), []
    for i in range(n):
        others = [j for j in range(n) if replicate[j] != replicate[i]]
        own = [j for j in range(n) if replicate[j] == replicate[i] and j != i]
        if own:
            u = np.mean([sum((d[i, o] < d[i, r]) + 0.5 * (d[i, o] == d[i, r]) for o in others) for r in own])
            scores.append(1 - u / (n - 1))
    return np.mean(scores)


@pytest.mark.parametrize("is_rounded", [False, True])
def test_robustness_is_the_slow_loop(is_rounded):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(25, 2))
    x = x.round() if is_rounded else x
    replicate = np.array([*np.repeat(np.arange(6), 2), *[6] * 3, *range(7, 17)])
    result = tl.replicate_robustness(make_samples(x, replicate=replicate), "replicate", n_permutations=9)
    assert result.robustness == pytest.approx(slow_robustness(x, replicate))
    assert len(result.samples) == 15
    assert result.samples["n_replicates"].tolist() == [1] * 12 + [2] * 3


def test_replicates_that_find_each_other_give_one():
    x = np.repeat(np.arange(10.0), 2)[:, None]
    x[1::2] += 0.1
    result = tl.replicate_robustness(
        make_samples(x, replicate=np.repeat(np.arange(10), 2)), "replicate", n_permutations=99
    )
    assert result.robustness == 1.0
    assert result.p_value == pytest.approx(0.01)
    assert (result.samples["position"] == 0).all()
    assert result.summary().loc[0, "n_samples"] == 20


def test_robustness_without_information_is_chance():
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(60):
        samples = make_samples(rng.normal(size=(20, 3)), replicate=np.repeat(np.arange(10), 2))
        result = tl.replicate_robustness(samples, "replicate", n_permutations=0)
        scores.append(result.robustness)
    assert np.mean(scores) == pytest.approx(result.chance, abs=0.02)
    assert result.chance == pytest.approx(1 - 18 / 2 / 19)
    assert np.isnan(result.p_value)


def test_constant_representation_is_chance_and_order_of_rows_does_not_matter():
    rng = np.random.default_rng(0)
    samples = make_samples(np.ones((12, 2)), replicate=np.repeat(np.arange(6), 2))
    result = tl.replicate_robustness(samples, "replicate")
    assert result.robustness == pytest.approx(result.chance)
    assert result.p_value == 1.0
    samples.X = rng.normal(size=(12, 2))
    one = tl.replicate_robustness(samples, "replicate", n_permutations=0).robustness
    other = tl.replicate_robustness(samples[rng.permutation(12)].copy(), "replicate", n_permutations=0).robustness
    assert one == pytest.approx(other)


def test_samples_without_replicate_compete_but_have_no_row():
    x = np.array([[0.0], [1.0], [0.5], [9.0]])
    samples = make_samples(x, replicate=["a", "a", None, "b"])
    result = tl.replicate_robustness(samples, "replicate", n_permutations=0)
    assert list(result.samples.index) == ["s0", "s1"]
    assert result.robustness == pytest.approx(1 - 1 / 3)  # s2 is nearer to both


def test_robustness_errors():
    samples = make_samples(np.eye(4), alone=list("abcd"), all="x")
    with pytest.raises(ValueError, match="No sample has a replicate"):
        tl.replicate_robustness(samples, "alone")
    with pytest.raises(ValueError, match="one value for all 4 samples"):
        tl.replicate_robustness(samples, "all")


@pytest.mark.parametrize("n_classes", [2, 4])
def test_macro_f1_is_scikit_learns(n_classes):
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(n_classes, size=(2, 30))
    assert label_metrics(truth, predicted, n_classes)["f1_macro"] == pytest.approx(
        f1_score(truth, predicted, average="macro")
    )


@pytest.mark.parametrize("k", [1, 3])
def test_retention_is_leave_one_out_scikit_learn(k):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 25)
    x = rng.normal(size=(50, 4)) + y[:, None]
    predicted = cross_val_predict(KNeighborsClassifier(k), x, y, cv=LeaveOneOut())
    f1 = f1_score(y, predicted, average="macro")
    out = tl.information_retention(make_samples(x, label=y), "label", n_neighbors=k, n_permutations=19)
    assert out.loc[0, "f1_macro"] == pytest.approx(f1)
    assert out.loc[0, "retention"] == pytest.approx(2 / 1 * (f1 - 1 / 2))
    assert out.loc[0, "p_value"] == pytest.approx(0.05)


def test_retention_is_clipped_at_zero_and_one_where_perfect():
    y = np.repeat([0, 1], 10)
    # alternating neighbours: every nearest sample has the other label
    wrong = np.ravel([[4.0 * i, 4.0 * i + 1] for i in range(10)])[:, None]
    samples = make_samples(wrong, label=np.tile([0, 1], 10))
    samples.obsm["good"] = np.repeat([[0.0], [5.0]], 10, axis=0) + np.arange(20)[:, None] / 100
    out = tl.information_retention(samples, "label", n_neighbors=1, n_permutations=0)
    assert out.loc[0, "f1_macro"] == 0.0
    assert out.loc[0, "retention"] == 0.0
    samples.obs["label"] = y
    out = tl.information_retention(samples, "label", use_rep="good", n_permutations=0)
    assert out.loc[0, "retention"] == 1.0
    assert tl.batch_removal(samples, "label", use_rep="good", n_permutations=0).loc[0, "removal"] == 0.0


def test_several_representations_and_labels_are_ranked():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 12)
    samples = make_samples(rng.normal(size=(36, 2)), label=y, batch=np.tile(list("ab"), 18))
    samples.obsm["good"] = y[:, None] * 9 + rng.normal(size=(36, 1))
    samples.obsp["d"] = cdist(samples.obsm["good"], samples.obsm["good"])
    out = tl.information_retention(samples, ["batch", "label"], use_rep=["X", "good"], obsp_key="d", n_permutations=49)
    assert out["label_key"].tolist() == ["batch"] * 3 + ["label"] * 3
    label = out[out["label_key"] == "label"].set_index("representation")
    assert set(label.index[:2]) == {"good", "d"}
    assert label.loc["good", "retention"] == label.loc["d", "retention"] > 0.9
    assert label.loc["good", "p_value"] == 0.02 < label.loc["X", "p_value"]
    removal = tl.batch_removal(samples, "batch", use_rep=["X", "good"], obsp_key="d", n_permutations=49)
    merged = removal.merge(out[out["label_key"] == "batch"], on="representation")
    np.testing.assert_allclose(merged["removal"], 1 - merged["retention"])
    np.testing.assert_allclose(merged["chance_x"], 1 - merged["chance_y"])


def test_random_labels_give_uniform_p_values():
    rng = np.random.default_rng(3)
    p = [
        tl.information_retention(
            make_samples(rng.normal(size=(24, 2)), label=rng.permutation(np.repeat([0, 1], 12))),
            "label",
            n_permutations=19,
        ).loc[0, "p_value"]
        for _ in range(60)
    ]
    assert 0.35 < np.mean(p) < 0.7
    assert np.mean(np.array(p) <= 0.1) < 0.25


def test_groups_are_permuted_whole():
    # ten donors of four near-identical samples: without groups the donor identity passes for label information
    rng = np.random.default_rng(1)
    donor = np.repeat(np.arange(10), 4)
    x = rng.normal(size=(10, 3))[donor] + 0.01 * rng.normal(size=(40, 3))
    samples = make_samples(x, label=rng.permutation(np.tile([0, 1], 5))[donor], donor=donor)
    leaky = tl.information_retention(samples, "label", n_neighbors=3, n_permutations=49)
    honest = tl.information_retention(samples, "label", n_neighbors=3, groups_key="donor", n_permutations=49)
    assert leaky.loc[0, "retention"] == 1.0
    assert honest.loc[0, "retention"] < 0.6
    assert honest.loc[0, "p_value"] > 0.05


def test_batch_identical_to_label_cannot_be_told_apart():
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b"], 10)
    samples = make_samples(rng.normal(size=(20, 2)) + (y == "a")[:, None] * 3, label=y, batch=y)
    kept = tl.information_retention(samples, "label", n_permutations=0).loc[0, "retention"]
    removed = tl.batch_removal(samples, "batch", n_permutations=0).loc[0, "removal"]
    assert kept + removed == pytest.approx(1)


def test_lone_classes_and_missing_labels_are_left_out():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(22, 2))
    samples = make_samples(x, label=[*"a" * 10, *"b" * 10, "c", None])
    with pytest.warns(UserWarning, match=r"1 of 3 classes of samples.obs\['label'\] have a single sample .*'c'"):
        out = tl.information_retention(samples, "label", n_permutations=0)
    rest = tl.information_retention(samples[:20].copy(), "label", n_permutations=0)
    assert out.loc[0, "n_samples"] == 20
    assert out.loc[0, "retention"] == pytest.approx(rest.loc[0, "retention"])


def test_retention_errors():
    samples = make_samples(np.eye(4), number=[0.1, 0.2, 0.3, 0.4], one="x", label=[0, 0, 1, 1])
    with pytest.raises(ValueError, match="A continuous column must be cut into classes"):
        tl.information_retention(samples, "number")
    with pytest.raises(ValueError, match="has 1 classes with at least two"):
        tl.information_retention(samples, "one")
    with pytest.raises(ValueError, match="every class lies in a single group"):
        tl.batch_removal(samples, "label", groups_key="label")


def test_combat_covid_information_retention(shared_data):
    samples = read_h5ad(shared_data / "combat_covid_samplelevel_patpy.h5ad")
    out = tl.information_retention(samples, "Source", obsp_key=list(samples.obsp), n_neighbors=5, n_permutations=19)
    score = out.set_index("representation")["retention"]
    assert len(out) == 18
    assert out.loc[0, "representation"] in {
        "pseudobulk_scanvi_pool",
        "pseudobulk_scvi_pool",
        "gloscope_combat_JS_GMM_25",
    }
    assert out.loc[0, "p_value"] == 0.05
    assert score["random_vec"] < 0.05
    # Six stored matrices agree with each other and with none of the others, and know the pool but not the disease. Whatever
    # the reason in the file, both scores have to show it.
    d = {
        key: samples.obsp[key][np.triu_indices(137, 1)]
        for key in ("composition", "wasserstein_scvi", "pseudobulk_scvi")
    }
    assert np.corrcoef(d["composition"], d["wasserstein_scvi"])[0, 1] > 0.8
    assert abs(np.corrcoef(d["wasserstein_scvi"], d["pseudobulk_scvi"])[0, 1]) < 0.05
    assert (score[["composition", "mrvi", "wasserstein_scvi"]] < 0.06).all()
    removal = tl.batch_removal(samples, "Pool_ID", obsp_key=["wasserstein_scvi", "random_vec"], n_permutations=49)
    assert removal["representation"].tolist() == ["random_vec", "wasserstein_scvi"]
    assert removal.loc[0, "removal"] > 0.95
    assert removal.loc[1, "p_value"] == 0.02

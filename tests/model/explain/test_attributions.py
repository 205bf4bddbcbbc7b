"""Attributions against closed forms of a linear model, captum, and counts of forward passes."""

from __future__ import annotations

import contextlib

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from _linear import WEIGHT, fitted, linear_cohort

from scset_tools.model.explain._contrast import class_weights, contrast_weights
from scset_tools.model.explain._scorer import Probe, Scorer
from scset_tools.model.supervise._heads import make_head


@pytest.fixture(scope="module")
def model():
    return fitted(linear_cohort())


@pytest.fixture(scope="module")
def of_three():
    return fitted(linear_cohort(n_classes=3))


def probe_of(model, key="label", kind="class"):
    z = model.get_sample_representation()
    y = model.adata.obs.groupby("sample", observed=True)[key].first()[z.index].to_numpy()
    return Probe(z.to_numpy(), y, kind=kind)


def head_of(probe):
    """A head as fine-tuning leaves one, with the fit of a probe."""
    head = make_head(probe.kind, 3, classes=probe.classes).double()
    with torch.no_grad():
        head.linear.weight.copy_(probe.weight.T)
        head.linear.bias.copy_(probe.bias)
    return head


def moved_by(model, slope, start=0.0):
    """Closed form: mean over the cells of (x - start) times the slope of each feature, (samples, features)."""
    x = pd.DataFrame(np.asarray(model.adata.X, dtype=np.float64) - start)
    return x.groupby(model.adata.obs["sample"].to_numpy()).mean().to_numpy() * slope


@pytest.mark.parametrize("baseline", ["zeros", "mean", "reference"])
def test_probe_head_and_closed_form_are_the_same_log_odds(model, monkeypatch, baseline):
    probe = probe_of(model)
    weight = probe.weight.numpy()
    slope = WEIGHT @ (weight[:, 1] - weight[:, 0])
    by_sample = pd.DataFrame(model.adata.X).groupby(model.adata.obs["sample"].to_numpy()).mean()
    is_a = by_sample.index.map(model.adata.obs.groupby("sample")["label"].first()) == "a"
    start = {"zeros": 0.0, "mean": by_sample.mean().to_numpy(), "reference": by_sample[is_a].mean().to_numpy()}
    want = moved_by(model, slope, start[baseline])
    arguments = {"baseline": baseline, "reference": "a", "n_steps": 3, "n_cells": None}
    found = model.get_attributions("label", head="probe", **arguments)
    np.testing.assert_allclose(found.by_sample("b"), want, atol=1e-6)
    monkeypatch.setattr(type(model), "_head_of", lambda self, key: (self.module, head_of(probe)))
    tuned = model.get_attributions("label", head="finetuned", **arguments)
    assert (found.head, tuned.head) == ("probe", "finetuned")
    np.testing.assert_allclose(tuned.by_sample("b"), want, atol=1e-6)
    np.testing.assert_allclose(found.values, tuned.values, atol=1e-6)
    # of two classes the reference is the other one anyway
    if baseline != "reference":
        plain = model.get_attributions("label", head="probe", **{**arguments, "reference": None})
        np.testing.assert_allclose(plain.by_sample("b"), want, atol=1e-6)
        np.testing.assert_allclose(plain.by_sample("a"), -want, atol=1e-6)
    np.testing.assert_allclose(found.scores - found.baseline_scores, want.sum(1)[:, None], atol=1e-6)


def test_of_three_classes_against_a_reference_is_linear_and_against_all_is_captums(of_three):
    captum = pytest.importorskip("captum.attr")
    probe = probe_of(of_three)
    weight = probe.weight.numpy()
    found = of_three.get_attributions("label", reference="a", baseline="zeros", n_cells=None)
    assert found.classes == ["b", "c"]
    for c, name in ((1, "b"), (2, "c")):
        want = moved_by(of_three, WEIGHT @ (weight[:, c] - weight[:, 0]))
        np.testing.assert_allclose(found.by_sample(name), want, atol=1e-6)
    every = of_three.get_attributions("label", baseline="zeros", n_cells=None, n_steps=50)
    assert every.classes == ["a", "b", "c"]
    one = of_three.get_attributions("label", target=["c"], baseline="zeros", n_cells=None, n_steps=50)
    np.testing.assert_allclose(one.values[:, 0], every.values[:, 2], atol=1e-7)
    x = torch.from_numpy(np.asarray(of_three.adata[of_three.adata.obs["sample"] == "s04"].X, dtype=np.float64))

    def log_odds(cells):  # captum wants one row per example: a sample is one example of cells x features
        logits = probe.scores(cells.mean(1) @ torch.from_numpy(WEIGHT))
        p = logits.softmax(1)[:, 2]
        return torch.log(p / (1 - p))

    want = captum.IntegratedGradients(log_odds).attribute(x[None], n_steps=50, method="gausslegendre")[0]
    np.testing.assert_allclose(one.by_sample().loc["s04"], want.sum(0), atol=1e-6)
    cells = one.cells.loc[of_three.adata.obs["sample"] == "s04", "c"]
    np.testing.assert_allclose(cells, want.sum(1), atol=1e-6)


def test_classes_share_forward_passes(model, of_three):
    # three samples at a time: 4 batches of 7 gradients, and of the scores of cells and baseline; 1 looks for a mean cell
    for one in (model, of_three):
        one.module.n_passes = 0
        one.get_attributions("label", n_steps=7, batch_size=3, tolerance=1.0)
        n_for_the_probe = 1
        assert one.module.n_passes == 4 * (7 + 2) + n_for_the_probe


def test_numbers_have_one_score_in_their_units(model):
    probe = probe_of(model, "dose", "continuous")
    want = moved_by(model, WEIGHT @ probe.weight.numpy()[:, 0])
    found = model.get_attributions("dose", baseline="zeros", n_cells=None)
    assert (found.classes, found.kind) == (["dose"], "continuous")
    np.testing.assert_allclose(found.by_sample(), want, atol=1e-6)
    y = model.adata.obs.groupby("sample")["dose"].first().to_numpy()
    np.testing.assert_allclose(
        found.scores["dose"],
        probe.scores(torch.tensor(model.get_sample_representation().to_numpy())).numpy()[:, 0],
        atol=1e-5,
    )
    # the contrast is the covariance with the standardised number
    by_hand = [np.cov(want[:, j], y, ddof=0)[0, 1] / y.std() for j in range(4)]
    np.testing.assert_allclose(found.contrast()["dose"], by_hand, atol=1e-6)
    with pytest.raises(
        ValueError, match=r"'dose' is continuous: it has one score, and no target class .* reference \('1'\)"
    ):
        model.get_attributions("dose", reference=1)


def test_a_number_without_variance_in_the_label_has_a_mean():
    labels = pd.Series([2.0, 2.0, np.nan])
    np.testing.assert_allclose(contrast_weights(labels, ["x"], reference=None, is_number=True).sum(), 1)


def test_contrast_groups_and_ranks_are_means_over_samples(of_three):
    found = of_three.get_attributions("label", groupby="cell_type", n_cells=None)
    y = of_three.adata.obs.groupby("sample")["label"].first()[found.samples]
    table = found.by_sample("b")
    want = table[(y == "b").to_numpy()].mean() - table[(y != "b").to_numpy()].mean()
    np.testing.assert_allclose(found.contrast()["b"], want, atol=1e-6)
    assert list(found.rank_features("b").index) == list(want.sort_values(ascending=False).index)
    np.testing.assert_allclose(
        found.rank_features("b", by="mean")[found.feature_names], table[(y == "b").to_numpy()].mean(), atol=1e-6
    )
    of_group = found.by_group("b")
    sizes = of_three.adata.obs.groupby(["sample", "cell_type"]).size().unstack().loc[found.samples, ["B", "T"]]
    np.testing.assert_allclose(found.by_group("b", per_cell=True), of_group / sizes.fillna(1), atol=1e-9)
    of_cells = found.cells["b"].groupby([of_three.adata.obs["sample"], of_three.adata.obs["cell_type"]]).sum().unstack()
    np.testing.assert_allclose(of_group, of_cells.loc[found.samples, ["B", "T"]], atol=1e-6)
    zero = of_group.fillna(0)
    by_hand = zero[(y == "b").to_numpy()].mean() - zero[(y != "b").to_numpy()].mean()
    np.testing.assert_allclose(found.groups["b"], by_hand, atol=1e-6)
    both = found.by_group_and_feature("b")
    np.testing.assert_allclose(both.sum(), found.contrast()["b"], atol=1e-6)
    np.testing.assert_allclose(both.loc["T"], found.contrast(group="T")["b"], atol=1e-9)
    assert found.summary()["n_samples"].tolist() == [4, 4, 4]
    with pytest.raises(KeyError, match="Name a class of these attributions"):
        found.rank_features()
    with pytest.raises(KeyError, match="'NK' is not a group of these attributions"):
        found.by_sample("a", group="NK")


def test_weights_of_samples_without_a_label_or_without_others():
    labels = pd.Series(["a", "b", None, "a"])
    np.testing.assert_allclose(contrast_weights(labels, ["a"], reference=None)[:, 0], [0.5, -1, 0, 0.5])
    np.testing.assert_allclose(contrast_weights(labels, ["a"], reference="c")[:, 0], [0.5, 0, 0, 0.5])
    np.testing.assert_allclose(class_weights(labels, ["c"])[:, 0], 0.25)
    np.testing.assert_allclose(contrast_weights(labels, ["c"], reference=None)[:, 0], 0.25)


def test_missing_labels_and_missing_groups_are_left_out(model):
    adata = linear_cohort()
    adata.obs["stage"] = adata.obs["label"].where(~adata.obs["sample"].isin(["s02", "s03"]))
    adata.obs["some"] = adata.obs["cell_type"].where(adata.obs["cell_type"] == "T")
    found = model.get_attributions("stage", adata=adata, groupby="some", baseline="zeros", n_cells=None)
    rest = adata[adata.obs["stage"].notna()].copy()
    alone = model.get_attributions("stage", adata=rest, baseline="zeros", n_cells=None)
    np.testing.assert_allclose(found.contrast(), alone.contrast(), atol=1e-6)
    assert found.group_names == ["T"]
    assert found.labels.isna().sum() == 2


def test_features_and_samples_may_be_chosen(model):
    found = model.get_attributions("label", target="b", features=["f2", "f0"], samples=["s03", "s01", "s03"])
    whole = model.get_attributions("label", target="b")
    pd.testing.assert_frame_equal(found.by_sample(), whole.by_sample().loc[["s03", "s01", "s03"], ["f2", "f0"]])
    assert found.cells["b"].notna().sum() == model.adata.obs["sample"].isin(["s03", "s01"]).sum()
    pd.testing.assert_frame_equal(found.completeness_error, whole.completeness_error.loc[["s03", "s01", "s03"]])


def test_integer_and_float_classes_are_the_same_classes(model):
    a = linear_cohort()
    a.obs["y"] = (a.obs["label"] == "b").astype(int)
    b = a.copy()
    b.obs["y"] = b.obs["y"].astype(float)
    found = [model.get_attributions("y", adata=c, reference=0) for c in (a, b)]
    assert found[0].classes == found[1].classes == ["1"]
    np.testing.assert_array_equal(found[0].values, found[1].values)
    np.testing.assert_array_equal(found[0].contrast(), found[1].contrast())


def test_steps_are_doubled_for_samples_that_do_not_add_up(of_three):
    rough = of_three.get_attributions("label", n_steps=1, tolerance=1.0, baseline="zeros")
    fine = of_three.get_attributions("label", n_steps=1, tolerance=1e-4, baseline="zeros")
    assert rough.completeness_error.to_numpy().max() > 1e-3
    assert fine.completeness_error.to_numpy().max() <= 1e-4
    alone = of_three.get_attributions("label", n_steps=1, tolerance=1e-4, baseline="zeros", batch_size=1)
    np.testing.assert_allclose(alone.values, fine.values, atol=1e-7)


def test_written_by_name_also_where_var_is_another_or_repeats(model, tmp_path):
    found = model.get_attributions("label", groupby="cell_type")
    more = ad.concat([model.adata[:, ["f3", "f0"]], model.adata[:, ["f1"]]], axis=1)
    more.obs = model.adata.obs.copy()
    more.var["x"] = 0.0
    found.write(more)
    assert more.var["meanmodel_attribution_label_b"].notna().all()
    np.testing.assert_allclose(
        more.var["meanmodel_attribution_label_b"], found.contrast().loc[["f3", "f0", "f1"], "b"], rtol=1e-5
    )
    elsewhere = ad.AnnData(obs=model.adata.obs.copy(), obsm={"X_pca": model.adata.X})
    found.write(elsewhere, key_added="mine")
    assert {"mine_a", "mine_b"} <= set(elsewhere.obs)
    elsewhere.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_allclose(back.uns["mine"]["features"]["b"], found.contrast()["b"], rtol=1e-5)
    named_alike = model.adata.copy()
    named_alike.obs_names = ["cell"] * named_alike.n_obs
    model.get_attributions("label", adata=named_alike).write(named_alike)
    assert named_alike.obs["meanmodel_attribution_label_a"].notna().all()


def test_questions_that_cannot_be_asked(model, monkeypatch):
    with pytest.raises(ValueError, match="method='lime' is not one of"):
        model.get_attributions("label", method="lime")
    with pytest.raises(ValueError, match="head='mlp' is not one of"):
        model.get_attributions("label", head="mlp")
    with pytest.raises(ValueError, match="MeanModel has no attention: its network does not weigh cells"):
        model.get_attributions("label", method="attention")
    with pytest.raises(ValueError, match="MeanModel has no attention"):
        model.get_attention()
    with pytest.raises(ValueError, match=r"This MeanModel has no head for 'label': call finetune\('label'\)"):
        model.get_attributions("label", head="finetuned")
    with pytest.raises(ValueError, match=r"reference='z' is not a class of 'label': .*'a'"):
        model.get_attributions("label", reference="z")
    with pytest.raises(ValueError, match="target='z' is not a class"):
        model.get_attributions("label", target="z")
    with pytest.raises(ValueError, match="target and reference are both 'a'"):
        model.get_attributions("label", target="a", reference="a")
    with pytest.raises(ValueError, match="baseline='reference' needs a reference class"):
        model.get_attributions("label", baseline="reference")
    with pytest.raises(ValueError, match="`samples` is empty"):
        model.get_attributions("label", samples=[])
    with pytest.raises(KeyError, match="1 of 2 features are not read by the model: \\['g'\\]"):
        model.get_attributions("label", features=["f1", "g"])
    with pytest.raises(KeyError, match="'disease' is not a column"):
        model.get_attributions("disease")
    with pytest.raises(KeyError, match="'cluster' is not a column"):
        model.get_attributions("label", groupby="cluster")
    with pytest.raises(ValueError, match="Name one class to explain"):
        model.get_attribution_matrix("label", samples="s01")
    same = linear_cohort()
    same.obs["label"] = "a"
    with pytest.raises(ValueError, match="has 1 classes with samples: nothing to tell apart"):
        model.get_attributions("label", adata=same)


def test_log_odds_do_not_depend_on_how_logits_are_written():
    z = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    class Shifted:
        kind, classes = "class", ("a", "b", "c")

        def __init__(self, shift):
            self.shift = shift

        def scores(self, z):
            return z + self.shift * z.sum(1, keepdim=True)

    for arguments in ({"target": None, "reference": None}, {"target": ["c"], "reference": "a"}):
        plain, shifted = (Scorer(Shifted(s), "label", **arguments)(z) for s in (0.0, 4.0))
        torch.testing.assert_close(plain, shifted)
    p = z.softmax(1)
    torch.testing.assert_close(Scorer(Shifted(0.0), "l", target=None, reference=None)(z), torch.log(p / (1 - p)))


def test_weights_do_not_write_into_the_labels():
    """As pandas 3 has it, a column gives out its values for reading alone."""
    labels = pd.Series(["a", "b", "a", None])
    is_old = int(pd.__version__.split(".")[0]) < 3  # pandas 3 has it so always, and warns of the options
    as_new = (
        pd.option_context("mode.copy_on_write", True, "future.infer_string", True)
        if is_old
        else contextlib.nullcontext()
    )
    with as_new:
        for reference in (None, "a"):
            weights = contrast_weights(labels.astype("str"), ["a", "b"], reference=reference)
            np.testing.assert_allclose(weights[:, 1], [-0.5, 1, -0.5, 0])

"""Attributions of PaSCient: the road through the first layer, and what only heads that were trained give."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from _cohort import FIT
from test_pascient import counts_cohort, fit

import scset_tools as sst
from scset_tools.nn import integrated_gradients


@pytest.fixture(scope="module")
def trained():
    return fit(counts_cohort(), build={"log_normalize": True}, max_epochs=30, plan_kwargs={"lr": 5e-3})


def test_genes_that_differ_come_first_in_the_log_odds_of_predictions(trained):
    found = trained.get_attributions("condition", target="case", groupby="cell_type", n_cells=None)
    assert found.head == "finetuned"
    assert found.baseline == "zeros"
    assert set(found.rank_features().index[:2]) == {"marker_0", "marker_1"}
    assert set(found.rank_features(by="mean").index[:2]) == {"marker_0", "marker_1"}
    p = trained.predict_proba()
    np.testing.assert_allclose(found.scores["case"], np.log(p["case"] / p["control"]), rtol=1e-3, atol=1e-3)


def test_the_matrix_is_as_sparse_as_the_counts(trained):
    matrix = trained.get_attribution_matrix("condition", target="case", samples=["s01", "s05"])
    assert sp.issparse(matrix.X)
    x = trained.adata[matrix.obs_names].X
    assert set(zip(*matrix.X.nonzero(), strict=True)) <= set(zip(*x.nonzero(), strict=True))


@pytest.mark.parametrize("baseline", ["zeros", "mean", "reference"])
def test_the_hidden_road_equals_integrating_over_genes(trained, baseline):
    found = trained.get_attributions(
        "condition", reference="control", samples=["s03"], baseline=baseline, tolerance=1.0, n_cells=None
    )
    module, adata = trained.module.eval(), trained.adata
    batch = trained._dataset(adata)[0, [3]]
    x = module.features(batch.x).to_dense()
    start = None
    if baseline != "zeros":
        dense = np.log1p(adata.X.toarray() / adata.X.sum(axis=1) * 1e4)
        frame = pd.DataFrame(np.asarray(dense)).groupby(adata.obs["sample"].astype(str).to_numpy()).mean()
        frame = frame if baseline == "mean" else frame.loc[["s00", "s02", "s04", "s06"]]
        start = torch.tensor(frame.mean().to_numpy(dtype=np.float32))
    _, head = trained._head_of("condition")

    def score(x, ptr):
        logits = head.scores(module.from_first_layer(module.first(x), ptr))
        return logits[:, 0] - logits[:, 1]

    want = integrated_gradients(score, x, batch.ptr, baseline=start, n_steps=20)
    np.testing.assert_allclose(found.by_sample().loc["s03"], want.attributions.sum(0), rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(found.cells["case"].iloc[batch.rows], want.attributions.sum(1), rtol=2e-3, atol=2e-4)


def test_genes_are_written_in_the_order_of_var(trained):
    adata = counts_cohort()
    trained.annotate_attributions("condition", adata=adata, target="case")
    reordered = counts_cohort()[:, ::-1].copy()
    trained.annotate_attributions("condition", adata=reordered, target="case", key_added="mine")
    key = "pascient_attribution_condition_case"
    np.testing.assert_allclose(reordered.var["mine"][adata.var_names], adata.var[key], rtol=1e-3, atol=1e-6)


def test_other_kinds_of_targets_have_their_own_score():
    model = fit(counts_cohort(), labels_key={"age": "continuous"}, build={"log_normalize": True}, train_size=1.0)
    found = model.get_attributions("age")
    assert (found.kind, found.classes) == ("continuous", ["age"])
    np.testing.assert_allclose(found.scores["age"], model.predict()["age"], rtol=1e-4)
    with pytest.raises(ValueError, match="'age' is continuous: it has one score"):
        model.get_attributions("age", reference="20")


def test_a_class_that_no_column_is_called_stands_for_its_label(trained):
    found = trained.get_attributions("case", n_steps=4, tolerance=1.0)
    expected = trained.get_attributions("condition", target="case", n_steps=4, tolerance=1.0)
    assert (found.label_key, found.classes) == ("condition", ["case"])
    np.testing.assert_array_equal(found.values, expected.values)
    with pytest.raises(KeyError, match="no_such"):
        trained.get_attributions("no_such")


def test_trust_finds_what_was_planted():
    result = sst.model.trust_attributions(
        sst.PaSCient,
        counts_cohort(6),
        "condition",
        target="case",
        sample_key="sample",
        build={"log_normalize": True, "n_hidden": 8, "n_latent": 4, "aggregator": "mean"},
        train={
            **{k: v for k, v in FIT.items() if k != "seed"},
            "max_epochs": 20,
            "train_size": 1.0,
            "plan_kwargs": {"lr": 1e-2},
        },
        attribute={"reference": "control", "baseline": "reference"},
        by="mean",
        n_seeds=2,
        n_permutations=4,
    )
    assert result.stability.shape == (2, 2)
    assert result.null.shape == (8, 4)
    assert set(result.features.index[:2]) == {"marker_0", "marker_1"}
    assert len(result.n_found_in_null) == 4
    assert result.summary()["completeness_error_max"].item() < 0.05

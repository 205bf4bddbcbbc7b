"""Attributions of PaSCient: complete, aligned, the same by any road, and written back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from _cohort import FIT
from test_pascient import SMALL, counts_cohort, fit

import scset_tools as sst
from scset_tools.model._trust import _labelings, against_null
from scset_tools.nn import integrated_gradients


@pytest.fixture(scope="module")
def trained():
    return fit(counts_cohort(), build={"log_normalize": True}, max_epochs=30, plan_kwargs={"lr": 5e-3})


def test_genes_that_differ_come_first_and_sums_are_complete(trained):
    adata = trained.adata
    found = trained.get_attributions("case", reference="control", groupby="cell_type", reduce="sum")
    cases = [f"s{i:02d}" for i in range(1, 8, 2)]
    assert list(found.genes.index) == cases
    assert set(found.rank_genes().index[:2]) == {"marker_0", "marker_1"}
    assert (found.completeness_error < 0.01).all()
    difference = found.scores["score"] - found.scores["baseline_score"]
    np.testing.assert_allclose(found.genes.sum(axis=1), difference, rtol=0.01)
    by_sample = found.cells.groupby(adata.obs["sample"].astype(str)).sum(min_count=1)[cases]
    np.testing.assert_allclose(by_sample, found.genes.sum(axis=1), rtol=1e-4)
    assert found.cells[~adata.obs["sample"].isin(cases).to_numpy()].isna().all()
    # types add up to all cells, in cells and in genes
    np.testing.assert_allclose(found.groups.sum(axis=1), found.genes.sum(axis=1), rtol=1e-4)
    both = found.genes_of("B").to_numpy() + found.genes_of("T").to_numpy()
    np.testing.assert_allclose(both, found.genes, rtol=1e-4, atol=1e-6)
    p = trained.predict_proba(samples=cases)
    np.testing.assert_allclose(found.scores["score"], np.log(p["case"] / p["control"]).loc[cases], rtol=1e-3, atol=1e-3)


def test_means_are_the_averages_of_the_matrix(trained):
    adata = trained.adata
    matrix = trained.get_attribution_matrix("case", reference="control", samples=["s01", "s05"])
    assert sp.issparse(matrix.X)
    assert set(zip(*matrix.X.nonzero(), strict=True)) <= set(zip(*adata[matrix.obs_names].X.nonzero(), strict=True))
    found = trained.get_attributions("case", reference="control", samples=["s01", "s05"], groupby="cell_type")
    dense = pd.DataFrame(matrix.X.toarray(), index=matrix.obs_names, columns=matrix.var_names)
    obs = adata.obs.loc[matrix.obs_names]
    for sample in ("s01", "s05"):
        own = dense[(obs["sample"] == sample).to_numpy()]
        np.testing.assert_allclose(found.genes.loc[sample], own.mean(axis=0), rtol=1e-3, atol=1e-6)
        of_type = dense[((obs["sample"] == sample) & (obs["cell_type"] == "T")).to_numpy()]
        np.testing.assert_allclose(found.genes_of("T").loc[sample], of_type.mean(axis=0), rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(found.groups.loc[sample, "T"], of_type.to_numpy().mean(), rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(found.cells[matrix.obs_names], dense.mean(axis=1), rtol=1e-3, atol=1e-7)
    table = found.by_group_and_gene()
    assert table.shape == (2, 8)
    np.testing.assert_allclose(table.loc["T"], found.genes_of("T").mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.rank_groups()["T"], found.groups["T"].mean())


@pytest.mark.parametrize("baseline", ["zeros", "reference"])
def test_the_hidden_road_equals_integrating_over_genes(trained, baseline):
    found = trained.get_attributions(
        "case", reference="control", samples=["s03"], baseline=baseline, reduce="sum", n_steps=20, tolerance=1.0
    )
    module, adata = trained.module.eval(), trained.adata
    batch = trained._dataset(adata)[0, [3]]
    x = module.features(batch.x).to_dense()
    start = None
    if baseline == "reference":
        dense = np.log1p(adata.X.toarray() / adata.X.sum(axis=1) * 1e4)
        frame = pd.DataFrame(np.asarray(dense)).groupby(adata.obs["sample"].astype(str).to_numpy()).mean()
        start = torch.from_numpy(frame.loc[["s00", "s02", "s04", "s06"]].mean().to_numpy(dtype=np.float32))
    head = module.heads[0]

    def score(x, ptr):
        return head.score(module.from_first_layer(module.first(x), ptr), 0, 1)

    want = integrated_gradients(score, x, batch.ptr, baseline=start, n_steps=20)
    np.testing.assert_allclose(found.genes.loc["s03"], want.attributions.sum(0), rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(found.cells.iloc[batch.rows], want.attributions.sum(1), rtol=2e-3, atol=2e-4)


def test_one_step_methods(trained):
    weights = trained.get_attention()["head_0"]
    attention = trained.get_attributions("case", method="attention", samples=["s01"])
    rows = (trained.adata.obs["sample"] == "s01").to_numpy()
    np.testing.assert_allclose(attention.cells[rows], weights[rows], rtol=1e-4)
    assert attention.completeness_error.isna().all()
    first = trained.get_attributions("case", reference="control", method="gradient_x_input", samples=["s01"])
    assert np.isfinite(first.genes.to_numpy()).all()
    assert first.completeness_error.notna().all()


def test_a_draw_of_cells_leaves_the_others_without_a_score(trained):
    found = trained.get_attributions("case", n_cells=5)
    counts = found.cells.notna().groupby(trained.adata.obs["sample"].astype(str)).sum()
    assert counts[["s01", "s03"]].tolist() == [5, 5]
    assert counts["s00"] == 0


def test_batches_do_not_matter(trained):
    together = trained.get_attributions("case", groupby="cell_type", batch_size=8)
    alone = trained.get_attributions("case", groupby="cell_type", batch_size=1)
    np.testing.assert_allclose(alone.genes, together.genes, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(alone.group_genes, together.group_genes, rtol=1e-3, atol=1e-6)


def test_attributions_are_written_and_read_back(trained, tmp_path):
    import anndata as ad

    adata = counts_cohort()
    x = adata.X
    trained.annotate_attributions("case", adata=adata, reference="control", groupby="cell_type")
    key = "pascient_attribution_condition_case"
    found = trained.get_attributions("case", adata=adata, reference="control", groupby="cell_type")
    assert adata.X is x
    np.testing.assert_allclose(adata.obs[key], found.cells, rtol=1e-4)
    np.testing.assert_allclose(adata.var[key], found.genes.mean(axis=0), rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(adata.varm[key], found.by_group_and_gene().T, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(adata.uns[key], found.groups, rtol=1e-4, atol=1e-8)
    adata.write_h5ad(tmp_path / "a.h5ad")
    read = ad.read_h5ad(tmp_path / "a.h5ad")
    assert list(read.varm[key].columns) == ["B", "T"]
    assert read.uns[f"{key}_scores"]["completeness_error"].max() < 0.01
    reordered = counts_cohort()[:, ::-1].copy()
    trained.annotate_attributions("case", adata=reordered, reference="control", key_added="mine")
    np.testing.assert_allclose(reordered.var["mine"][adata.var_names], adata.var[key], rtol=1e-3, atol=1e-7)


def test_other_kinds_of_targets_have_their_own_score():
    adata = counts_cohort()
    model = fit(adata, labels_key={"age": "continuous"}, build={"log_normalize": True}, train_size=1.0)
    found = model.get_attributions("age")
    assert len(found.genes) == 8
    np.testing.assert_allclose(found.scores["score"], model.predict()["age"], rtol=1e-4)
    with pytest.raises(ValueError, match="'age' is continuous: it has one score, and no reference"):
        model.get_attributions("age", reference="20")


def test_unknown_classes_are_refused(trained):
    with pytest.raises(ValueError, match=r"target='flu' is not a class of this model. Targets: {'condition'"):
        trained.get_attributions("flu")
    with pytest.raises(ValueError, match="reference='healthy' is not a class of 'condition'"):
        trained.get_attributions("case", reference="healthy")
    with pytest.raises(ValueError, match="target and reference are both 'case'"):
        trained.get_attributions("case", reference="case")
    with pytest.raises(ValueError, match="'disease' is not a target of this model"):
        trained.get_attributions("case", label_key="disease")
    with pytest.raises(ValueError, match="`samples` is empty"):
        trained.get_attributions("case", samples=[])
    with pytest.raises(KeyError, match=r"'cluster' is not a column of adata.obs"):
        trained.get_attributions("case", groupby="cluster")
    found = trained.get_attributions("case")
    with pytest.raises(KeyError, match="'T' is not a group of these attributions"):
        found.genes_of("T")


# ---- trust


def test_trust_compares_seeds_and_permuted_labels():
    result = sst.model.trust_attributions(
        sst.PaSCient,
        counts_cohort(6),
        "case",
        sample_key="sample",
        label_key="condition",
        build={"log_normalize": True, "n_hidden": 8, "n_latent": 4, "aggregator": "mean"},
        train={**{k: v for k, v in FIT.items() if k != "seed"}, "max_epochs": 15, "train_size": 1.0},
        attribute={"reference": "control", "baseline": "reference"},
        n_seeds=2,
        n_permutations=4,
    )
    assert result.stability.shape == (2, 2)
    assert result.null.shape == (8, 4)
    assert set(result.genes.index[:2]) == {"marker_0", "marker_1"}
    assert len(result.n_found_in_null) == 4
    assert result.summary()["completeness_error_max"].item() < 0.05


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


def test_labelings_are_distinct_and_say_something_else():
    rng = np.random.default_rng(0)
    labels = np.array(["a", "a", "a", "b", "b", "b"])
    drawn = _labelings(labels, None, 100, rng)
    assert len({tuple(v) for v in drawn}) == len(drawn) == 18  # 20 labelings, without the real one and its mirror
    assert all(sorted(v) == sorted(labels) for v in drawn)
    paired = _labelings(np.array(["a", "b"] * 3), np.array([0, 0, 1, 1, 2, 2]), 100, rng)
    assert len(paired) == 6
    assert all(set(v[i : i + 2]) == {"a", "b"} for v in paired for i in (0, 2, 4))
    by_donor = _labelings(np.array(["a", "a", "b", "b", "c", "c"]), np.array([0, 0, 1, 1, 2, 2]), 3, rng)
    assert all(v[0] == v[1] and v[2] == v[3] for v in by_donor)
    with pytest.raises(ValueError, match="needs at least two seeds and two permuted labelings"):
        sst.model.trust_attributions(
            sst.PaSCient, counts_cohort(2), "case", sample_key="sample", label_key="condition", build=SMALL
        )

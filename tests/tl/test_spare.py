"""SPARE's metrics against slow loops from their definitions, the corrections against theirs, and the schema."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy import stats
from sklearn.metrics import f1_score

from scset_tools import tl
from scset_tools.tl._spare_scores import published_score

SCHEMA = {
    "relevant": {"disease": "classification", "severity": "ranking"},
    "technical": {"batch": "classification"},
    "contextual": {"age": "regression"},
}


def cohort(n: int = 40) -> AnnData:
    rng = np.random.default_rng(0)
    severity = rng.integers(0, 4, n)
    obs = pd.DataFrame(
        {
            "disease": np.where(severity > 1, "sick", "well"),
            "severity": pd.Categorical(
                np.array(["none", "mild", "hard", "worst"])[severity], ["none", "mild", "hard", "worst"], ordered=True
            ),
            "batch": rng.choice(["b1", "b2"], n),
            "age": np.where(rng.random(n) < 0.1, np.nan, rng.normal(50, 10, n)),
            "donor": np.arange(n) // 2,
        },
        index=[f"s{i}" for i in range(n)],
    )
    x = rng.normal(size=(n, 3))
    x[:, 0] += 2 * severity
    return AnnData(x, obs=obs)


def slow_score(d: np.ndarray, y: np.ndarray, task: str, k: int) -> float:
    """The published definition, sample by sample: weights 1 / distance, the sample itself at the largest distance of all."""
    predicted = []
    for i in range(len(y)):
        row = d[i].copy()
        row[i] = d.max()
        nearest = np.argsort(row, kind="stable")[:k]
        weights = [1 / row[j] for j in nearest]
        if task == "classification":
            votes = {c: sum(w for w, j in zip(weights, nearest, strict=True) if y[j] == c) for c in sorted(set(y))}
            predicted.append(max(votes, key=votes.get))
        else:
            predicted.append(sum(w * y[j] for w, j in zip(weights, nearest, strict=True)) / sum(weights))
    if task == "classification":
        n_classes = len(set(y))
        score = (f1_score(y, predicted, average="macro") - 1 / n_classes) / (1 - 1 / n_classes)
    else:
        score = stats.spearmanr(y, predicted).statistic
    return min(1.0, max(0.0, score))


@pytest.mark.parametrize("n_inputs", [50, pytest.param(334, marks=pytest.mark.slow)])
@pytest.mark.parametrize("task", ["classification", "regression", "ranking"])
def test_the_published_score_is_the_slow_loop(task, n_inputs):
    for seed in range(n_inputs):  # in the slow run a thousand over the three tasks
        rng = np.random.default_rng(seed)
        n = int(rng.integers(5, 25))
        x = rng.normal(size=(n, 2))
        d = np.linalg.norm(x[:, None] - x[None], axis=2)
        y = rng.integers(0, 3, n) if task != "regression" else rng.normal(size=n) + x[:, 0]
        if len(np.unique(y)) < 2:
            continue
        expected, before = slow_score(d, y, task, 3), d.copy()
        got = published_score(d, y, task=task, n_neighbors=3)
        assert got == pytest.approx(expected, nan_ok=True)
        np.testing.assert_array_equal(d, before)


def test_scores_and_totals():
    samples = cohort()
    samples.obsm["X_noise"] = np.random.default_rng(1).normal(size=(40, 3))
    result = tl.spare(samples, SCHEMA, use_rep=["X_noise", "X"], n_permutations=99)
    table = result.scores.set_index(["representation", "covariate"])
    d = tl.get_distances(samples)
    disease = (samples.obs["disease"] == "well").to_numpy().astype(int)
    assert table.loc[("X", "disease"), "spare"] == pytest.approx(slow_score(d, disease, "classification", 3))
    batch = (samples.obs["batch"] == "b2").to_numpy().astype(int)
    assert table.loc[("X", "batch"), "spare"] == pytest.approx(1 - slow_score(d, batch, "classification", 3))
    known = samples.obs["age"].notna().to_numpy()
    assert table.loc[("X", "age"), "n_samples"] == known.sum()
    summary = result.summary().set_index("representation")
    assert summary.index.tolist() == ["X", "X_noise"]
    relevant = table.loc["X"].loc[["disease", "severity"], "spare"].mean()
    assert summary.loc["X", "relevant"] == pytest.approx(relevant)
    assert summary.loc["X", "total"] == pytest.approx(2 / 3 * relevant + table.loc[("X", "batch"), "spare"] / 3)
    assert np.isnan(summary.loc["X", "trajectory"])


def test_corrected_scores_are_zero_by_chance_and_one_when_perfect():
    samples = cohort(60)
    samples.obsm["X_noise"] = np.random.default_rng(3).normal(size=(60, 2))
    samples.obsm["X_severity"] = samples.obs["severity"].cat.codes.to_numpy()[:, None] * 10.0
    table = tl.spare(samples, SCHEMA, use_rep=["X_noise", "X_severity"]).scores.set_index(
        ["representation", "covariate"]
    )
    assert abs(table.loc[("X_noise", "disease"), "corrected"]) < 0.3
    assert table.loc[("X_noise", "disease"), "p_value"] > 0.05
    assert table.loc[("X_severity", "disease"), "corrected"] == pytest.approx(1.0)
    assert table.loc[("X_severity", "severity"), ["corrected", "p_value"]].tolist() == pytest.approx([1.0, 0.005])
    inside = table[(table["ci_low"] <= table["corrected"] + 1e-9) & (table["corrected"] <= table["ci_high"] + 1e-9)]
    assert len(inside) >= len(table) - 1
    chance = table.loc[("X_noise", "disease"), "chance"]
    assert chance == pytest.approx(0.5, abs=0.05)  # of the F1 itself


def test_donors_are_no_neighbours_of_themselves():
    samples = cohort(40)
    samples.obsm["X_donor"] = (
        samples.obs["donor"].to_numpy()[:, None] * np.ones(2) + np.random.default_rng(0).normal(size=(40, 2)) / 99
    )
    samples.obs["of_donor"] = np.random.default_rng(5).permutation(np.arange(20) % 2)[samples.obs["donor"]].astype(str)
    schema = {"relevant": {"of_donor": "classification"}}
    free, held = (
        tl.spare(samples, schema, use_rep="X_donor", n_neighbors=1, groups_key=key).scores.iloc[0]
        for key in (None, "donor")
    )
    assert free["spare"] == held["spare"] > 0.9  # as published, the other sample of the donor gives the label away
    assert free["corrected"] > 0.8
    assert held["corrected"] < 0.4
    assert held["p_value"] > 0.01


def test_trajectory_and_replicates():
    samples = cohort()
    root = samples.obs_names[samples.obs["severity"] == "none"][0]
    result = tl.spare(samples, SCHEMA, trajectory_key="severity", root=root, replicate_key="donor", n_permutations=19)
    direct = tl.trajectory_correlation(
        AnnData(obs=samples.obs, obsp={"d": tl.get_distances(samples)}),
        "severity",
        obsp_key="d",
        method="dpt",
        root=root,
        n_permutations=0,
    )
    row = result.trajectory.iloc[0]
    assert row["corrected"] == direct.correlation
    assert row["spare"] == pytest.approx(stats.spearmanr(direct.ordering, samples.obs["severity"].cat.codes).statistic)
    assert result.replicates.iloc[0]["spare"] == tl.replicate_robustness(samples, "donor", n_permutations=0).robustness


def test_schemas(tmp_path):
    samples = cohort()
    path = tmp_path / "benchmark_schema.json"
    path.write_text(json.dumps(SCHEMA))
    a, b = (tl.spare(samples, schema, n_permutations=9).scores for schema in (path, SCHEMA))
    pd.testing.assert_frame_equal(a, b)
    path.write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        tl.spare(samples, str(path))
    with pytest.raises(ValueError, match=r"has \['biological'\]"):
        tl.spare(samples, {"biological": {"age": "regression"}})
    with pytest.raises(ValueError, match=r"1 are others: \['age: ordinal'\]"):
        tl.spare(samples, {"relevant": {"age": "ordinal"}})
    with pytest.raises(ValueError, match="stand in two parts"):
        tl.spare(samples, {"relevant": {"age": "regression"}, "contextual": {"age": "regression"}})
    with pytest.raises(KeyError, match="None of the 1 covariates"):
        tl.spare(samples, {"relevant": {"Hospitalstay": "regression"}})
    with pytest.warns(UserWarning, match=r"1 of 2 covariates of the schema are left out: \['Hospitalstay'\]"):
        result = tl.spare(samples, {"relevant": {"Hospitalstay": "regression", "age": "regression"}}, n_permutations=9)
    assert result.skipped["name"].tolist() == ["Hospitalstay"]
    with pytest.raises(ValueError, match="belong together"):
        tl.spare(samples, SCHEMA, trajectory_key="severity")


def test_distances_of_other_tools_by_name():
    samples = cohort()
    table = tl.get_distance_table(samples)
    shuffled = table.sample(frac=1, random_state=0).sample(frac=1, axis=1, random_state=1)
    ours = tl.spare(samples, SCHEMA, n_permutations=9).scores["spare"]
    theirs = tl.spare(samples, SCHEMA, distances={"pilot": shuffled}, n_permutations=9).scores
    assert theirs["spare"].tolist() == ours.tolist()
    samples.uns["sample_representations"] = ["mrvi"]  # as patpy leaves them
    samples.obsm["mrvi_distances"] = pd.DataFrame(table.to_numpy(), samples.obs_names, samples.obs_names)
    left = tl.spare(samples, SCHEMA, n_permutations=9).scores
    assert left["representation"].unique().tolist() == ["mrvi"]
    assert left["spare"].tolist() == ours.tolist()


def test_tables_of_distances_are_joined_by_name():
    samples = cohort()
    table = tl.get_distance_table(samples).rename_axis(index="donor", columns="donor")  # as pertpy's pairwise
    wide = pd.concat([table, table.iloc[:1].rename(index={"s0": "other"})]).assign(other=1.0)
    tl.read_distances(samples, wide.iloc[::-1], key_added="theirs")
    np.testing.assert_allclose(samples.obsp["theirs"], tl.get_distances(samples), rtol=1e-6)
    with pytest.raises(ValueError, match=r"have no row for 1 of 40 samples \(first: \['s3'\]"):
        tl.read_distances(samples, table.drop(index="s3"), key_added="x")
    with pytest.raises(ValueError, match=r"have no column for 2 of 40"):
        tl.read_distances(samples, table.drop(columns=["s3", "s4"]), key_added="x")
    with pytest.raises(ValueError, match="names more than once in the index"):
        tl.read_distances(samples, pd.concat([table, table.iloc[:2]]), key_added="x")
    with pytest.raises(ValueError, match="numbered, not named"):
        tl.read_distances(samples, pd.DataFrame(table.to_numpy()), key_added="x")
    with pytest.raises(TypeError, match="must be a DataFrame"):
        tl.read_distances(samples, table.to_numpy(), key_added="x")
    with pytest.raises(ValueError, match=r"distances 'table' has negative values"):
        tl.read_distances(samples, -table, key_added="x")


@pytest.mark.slow
def test_combat_in_one_call():
    path = Path(__file__).parents[3] / "shared" / "data" / "combat_covid_samplelevel_patpy.h5ad"
    if not path.exists():
        pytest.skip(f"no cohort at {path}")
    schema = {
        "relevant": {"Source": "classification", "Outcome": "ranking"},
        "technical": {"Pool_ID": "classification"},
    }
    summary = tl.spare(read_h5ad(path), schema, n_permutations=19).summary().set_index("representation")
    assert len(summary) == 18
    assert (
        summary.loc["gloscope_combat_KL_KNN_25", "corrected_relevant"]
        > summary.loc["random_vec", "corrected_relevant"] + 0.2
    )

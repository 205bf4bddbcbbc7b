"""Tables of other tools by name, and scores as decoupler's table: its univariate linear model is scipy's regression."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats

from scset_tools import tl

N = 20


@pytest.fixture
def samples() -> AnnData:
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"y": np.array(list("ab"))[np.arange(N) % 2]}, index=[f"s{i}" for i in range(N)])
    return AnnData(rng.normal(size=(N, 3)), obs=obs)


def diversity(samples: AnnData) -> pd.DataFrame:
    """As scirpy gives it for groups of cells: a row per sample, columns of numbers."""
    rng = np.random.default_rng(1)
    y = (samples.obs["y"] == "b").to_numpy(dtype=float)
    table = pd.DataFrame({"shannon": 3 * y + rng.normal(size=N), "n_clones": rng.integers(5, 90, N)}, samples.obs_names)
    return table.rename_axis("sample")


# ---- from other tools


def test_a_table_is_joined_by_name(samples):
    table = diversity(samples)
    moved = pd.concat([table, pd.DataFrame({"shannon": [9.0], "n_clones": [1]}, index=["other"])]).sample(
        frac=1, random_state=0
    )
    tl.read_table(samples, moved, key_added="tcr")
    got = samples.obsm["tcr"]
    assert list(got.index) == list(samples.obs_names)
    np.testing.assert_array_equal(got["shannon"], table["shannon"])
    assert got.dtypes.unique().tolist() == [np.float64]
    assert tl.association(samples, "y", use_rep="tcr").iloc[0]["feature"] == "shannon"
    assert tl.probe(samples, "y", use_rep="tcr", n_repeats=1, tune=False).summary().loc["auroc", "mean"] > 0.8
    assert tl.benchmark(samples, ["X", "tcr"], "y", n_repeats=1, tune=False, progress=False).summary()["rank"].size == 2


def test_samples_without_a_row_are_named_or_missing(samples):
    table = diversity(samples).drop(index=["s3", "s7"])
    with pytest.raises(ValueError, match=r"no row for 2 of 20 samples \(first: \['s3', 's7'\].*allow_missing=True"):
        tl.read_table(samples, table, key_added="tcr")
    assert "tcr" not in samples.obsm
    tl.read_table(samples, table, key_added="tcr", allow_missing=True)
    assert samples.obs_names[samples.obsm["tcr"]["shannon"].isna()].tolist() == ["s3", "s7"]
    assert tl.association(samples, "y", use_rep="tcr")["n"].tolist() == [18, 18]
    with pytest.raises(ValueError, match="missing or infinite"):
        tl.probe(samples, "y", use_rep="tcr")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda t: t.to_numpy(), TypeError, "must be a DataFrame with the names"),
        (lambda t: t.reset_index(drop=True), ValueError, "no row for 20 of 20 .* numbered, not named"),
        (
            lambda t: pd.concat([t, t.iloc[:1]]),
            ValueError,
            r"1 rows of the table occur more than once \(first: \['s0'\]",
        ),
        (lambda t: t.set_axis(["a", "a"], axis=1), ValueError, "1 columns of the table occur more than once"),
        (
            lambda t: t.assign(clonotype="CASS"),
            ValueError,
            r"1 of 3 columns of the table hold no numbers: \['clonotype'\]",
        ),
    ],
    ids=["matrix", "numbered", "twice", "columns", "texts"],
)
def test_what_is_no_table_of_samples_is_refused(samples, change, error, message):
    with pytest.raises(error, match=message):
        tl.read_table(samples, change(diversity(samples)), key_added="tcr")


def test_distances_as_pertpy_gives_them(samples):
    """Named axes, groups as categories in an order of their own, groups that are no samples; names are checked."""
    d = tl.get_distance_table(samples)
    names = pd.CategoricalIndex([*d.index[::-1], "control"], name="sample")
    theirs = pd.DataFrame(99.0, index=names, columns=names.rename("sample"))
    theirs.loc[d.index, d.index] = d.to_numpy()
    theirs.loc["control", "control"] = 0.0
    tl.read_distances(samples, theirs, key_added="edistance")
    np.testing.assert_allclose(samples.obsp["edistance"], d, rtol=1e-6)
    with pytest.raises(ValueError, match=r"no row for 1 of 20 samples \(first: \['s4'\]"):
        tl.read_distances(samples, theirs.drop(index="s4", columns="s4"), key_added="no")


# ---- to decoupler


def ranking(seed: int = 0) -> pd.Series:
    rng = np.random.default_rng(seed)
    scores = pd.Series(rng.normal(size=40), index=[f"g{i}" for i in range(40)])
    return scores.sort_values(ascending=False)


def network() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    rows = [(f"TF{j}", f"g{i}", rng.choice([-1.0, 1.0])) for j in range(4) for i in rng.choice(40, 8, replace=False)]
    return pd.DataFrame(rows, columns=["source", "target", "weight"])


def test_scores_are_rows_and_features_columns_by_name():
    one, other = ranking(0), ranking(1)
    table = tl.get_score_table({"COVID-19": one, "sepsis": other})
    assert table.index.tolist() == ["COVID-19", "sepsis"]
    assert table.columns.tolist() == sorted(one.index)
    for feature in one.index:  # each in the order of its own ranking
        assert table.loc["COVID-19", feature] == one[feature]
        assert table.loc["sepsis", feature] == other[feature]
    pd.testing.assert_frame_equal(tl.get_score_table(one, name="COVID-19"), table.iloc[:1])
    # what decoupler asks of a table: names as text, each once, numbers that are finite, no feature of zeros everywhere
    assert table.columns.is_unique
    assert table.index.is_unique
    assert all(isinstance(c, str) for c in table.columns)
    assert np.isfinite(table.to_numpy()).all()


def test_decouplers_linear_model_reads_it():
    decoupler = pytest.importorskip("decoupler", reason="the optional package decoupler is not installed")
    table, net = tl.get_score_table({"a": ranking(0), "b": ranking(1)}), network()
    activity, p_adjusted = decoupler.mt.ulm(data=table, net=net, tmin=5)
    for row in table.index:
        p_values = {}
        for source, targets in net.groupby("source"):
            weights = targets.set_index("target")["weight"].reindex(table.columns, fill_value=0.0)
            fit = stats.linregress(weights, table.loc[row])
            assert activity.loc[row, source] == pytest.approx(fit.slope / fit.stderr, rel=1e-4)
            p_values[source] = fit.pvalue
        expected = stats.false_discovery_control(list(p_values.values()))
        np.testing.assert_allclose(p_adjusted.loc[row, list(p_values)], expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        (["g1", "g2"], TypeError, "must be a Series .* not list"),
        ({"a": [1.0]}, TypeError, "a dict of other things"),
        ({}, ValueError, "scores is empty"),
        (pd.Series(["x"], index=["g1"]), TypeError, "'score' must be numbers"),
        (
            pd.Series([1.0, 2.0], index=["g1", "g1"]),
            ValueError,
            r"1 features of scores 'score' occur more than once \(first: \['g1'\]",
        ),
        (
            pd.Series([1.0, np.nan], index=["g1", "g2"]),
            ValueError,
            r"missing or infinite for 1 of 2 features \(first: \['g2'\]",
        ),
        (
            {"a": pd.Series([1.0, 2.0], index=["g1", "g2"]), "b": pd.Series([1.0], index=["g1"])},
            ValueError,
            r"'b' and 'a' are of other features: 1 are in one alone \(first: \['g2'\]",
        ),
    ],
    ids=["list", "dict", "empty", "texts", "twice", "missing", "others"],
)
def test_what_is_no_ranking_is_refused(scores, error, message):
    with pytest.raises(error, match=message):
        tl.get_score_table(scores)

"""Kinds of fault that public reports name in one function, asked of its siblings: each line failed once, or stands for one that did."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scset_tools import pl, tl
from scset_tools._permutation import permute_labels
from scset_tools.model.explain._null import labelings
from scset_tools.tl._permuted_tests import warn_of_few_groupings

N = 24


def make_samples(n: int = N, *, decimals: int | None = None, seed: int = 0) -> AnnData:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.normal(size=(n, 5))
    x[:, 0] += 2 * y
    obs = pd.DataFrame(
        {
            "y": np.array(list("ab"))[y],
            "z": rng.permutation(np.array(list("uv"))[y]),
            "donor": np.arange(n) // 2,
            "age": rng.permutation(n) + 20.0,
            "batch": np.array(list("pqr"))[np.arange(n) % 3],
            "t": rng.exponential(size=n),
            "e": np.arange(n) < 2,
        },
        index=[f"s{i:02d}" for i in range(n)],
    )
    return AnnData(x if decimals is None else x.round(decimals), obs=obs)


# ---- a test of one column or label that depends on what stands beside it


@pytest.mark.parametrize("run", [tl.information_retention, tl.batch_removal])
def test_a_label_is_permuted_as_if_it_were_alone(run):
    samples = make_samples()
    alone = run(samples, "z", n_permutations=49).iloc[0]
    beside = run(samples, ["y", "z", "batch"], n_permutations=49).set_index(alone.index[0]).loc["z"]
    assert (beside["p_value"], beside["chance"]) == (alone["p_value"], alone["chance"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "design",
    [
        {"n_permutations": 29},
        {"test": "kruskal", "n_permutations": 29},
        {"covariates": ["age"], "n_permutations": 19},
        {"groups_key": "donor", "n_permutations": 9},
        {"paired_by": "donor", "n_permutations": 29},
    ],
    ids=lambda d: "-".join(d),
)
def test_a_column_is_tested_as_if_it_were_alone_in_every_design(design):
    samples = make_samples()
    samples.X[3, 1], samples.X[5, 2], samples.X[:, 3] = np.nan, np.nan, samples.X[:, 3].round()
    beside = tl.association(samples, "y", **design).set_index("feature")
    columns = [c for c in ("statistic", "effect", "p_value", "p_permutation", "ci_low") if c in beside]
    for name in samples.var_names:
        alone = tl.association(samples[:, [name]].copy(), "y", **design).iloc[0]
        np.testing.assert_allclose(
            beside.loc[name, columns].astype(float), alone[columns].astype(float), rtol=1e-9, atol=1e-12
        )


def test_a_covariate_of_spare_is_scored_as_if_it_were_alone():
    samples = make_samples()
    both = {"relevant": {"y": "classification", "z": "classification"}, "technical": {"age": "regression"}}
    scores = [
        tl.spare(samples, schema, n_permutations=29).scores.set_index("covariate").loc["z"]
        for schema in (both, {"relevant": {"z": "classification"}})
    ]
    for column in ("spare", "corrected", "ci_low", "p_value"):
        assert scores[0][column] == scores[1][column]


# ---- ties, filled in the order of rows


def test_the_nearest_of_samples_at_one_distance_does_not_depend_on_rows():
    samples = make_samples(decimals=0)
    order = np.random.default_rng(1).permutation(N)
    plain = tl.neighbor_table(samples, "y").samples
    moved = tl.neighbor_table(samples[order].copy(), "y").samples.loc[plain.index]
    assert plain["nearest"].tolist() == moved["nearest"].tolist()


def test_neighbours_kept_do_not_depend_on_rows_where_distances_tie():
    order = np.random.default_rng(1).permutation(N)

    def kept(rows: np.ndarray) -> float:
        one, other = (make_samples(decimals=0, seed=seed)[rows].copy() for seed in (0, 1))
        return tl.representation_health(one, second=other).neighbors_kept

    assert kept(order) == pytest.approx(kept(np.arange(N)), abs=1e-12)
    same = AnnData(np.ones((N, 2)) * 1.0, obs=make_samples().obs)
    same.X[0] = 2.0
    health = tl.representation_health(same, second=same.copy(), n_neighbors=5)
    assert health.neighbors_kept < 0.3  # all others are as near: five of them are no more alike than by chance


@pytest.mark.parametrize(
    "genes", [{"g1", "g2", "g3"}, {"g1": 1.0, "g2": 2.0, "g3": 3.0}.keys(), {"g1": 3, "g2": 2, "g3": 1}]
)
def test_a_list_without_an_order_cannot_be_cut(genes):
    sets, background = {"A": ["g1", "g2"]}, [f"g{i}" for i in range(9)]
    with pytest.raises(TypeError, match=r"has no order .*so that n_top=2 would take any"):
        tl.enrichment(genes, sets, background=background, n_top=2)
    assert tl.enrichment(genes, sets, background=background)["n_overlap"].tolist() == [2]


@pytest.mark.parametrize("sizes", [[2] * 12, [1, 3] * 6])
def test_samples_of_one_donor_and_label_are_permuted_by_name(sizes):
    groups, codes = np.repeat(np.arange(12), sizes), np.arange(24) % 2 * (np.arange(24) > 6)
    names = np.arange(24)
    plain = codes[permute_labels(codes, groups, np.random.default_rng(0), order=names)]
    for seed in range(5):
        rows = np.random.default_rng(seed).permutation(24)
        moved = permute_labels(codes[rows], groups[rows], np.random.default_rng(0), order=names[rows])
        np.testing.assert_array_equal(codes[rows][moved], plain[rows])


def test_a_pilot_of_twelve_donors_is_enough():
    assert tl.power(make_samples(12), "y", [20], n_draws=3).pilot["n_samples"].min() == 6


# ---- permutations that cannot tell


def test_few_groupings_of_replicates_are_warned_of():
    with pytest.warns(UserWarning, match="'donor' of 4 samples can be grouped in 3 ways only: no p-value below 0.33"):
        tl.replicate_robustness(make_samples(4), "donor")
    # two pairs and two that have no replicate: 6! / (2! 2! 2! 2!) ways
    groups = np.array([0, 0, 1, 1, -1, -1])
    with pytest.warns(UserWarning, match="in 45 ways only"):
        warn_of_few_groupings(groups, np.where(groups < 0, -1, 2), 99, replicate_key="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tl.replicate_robustness(make_samples(), "donor")


def test_few_arrangements_of_batches_and_covariates_are_warned_of():
    few = make_samples(6)
    with pytest.warns(UserWarning, match="'y' of 6 samples can be arranged in 20 ways only: no p-value below 0.1"):
        tl.confounding(few, "y", batch_key="batch", cv=2, n_repeats=1)
    with pytest.warns(UserWarning, match=r"'y' of 6 samples .* \(199 were asked for\)"):
        tl.spare(few, {"relevant": {"y": "classification"}})


def test_labelings_of_donors_are_never_the_real_one_again():
    labels, donors = np.repeat(list("aabb"), 2), np.repeat(np.arange(4), 2)
    drawn = labelings(labels, donors, n=50, rng=np.random.default_rng(0))
    assert len(drawn) == 4  # 4! / (2! 2!) less the real one and the real one turned round
    assert all(len(set(v[donors == d])) == 1 for v in drawn for d in range(4))


# ---- names of genes that are none, or not written as they are elsewhere


@pytest.mark.filterwarnings("ignore:1 of 3 names in gene set 'A' are missing")
@pytest.mark.parametrize(
    ("genes", "members"),
    [
        (np.array([b"1", b"2"]), [b"1", b"2"]),  # as files give text
        ([1, 2], pd.Series([1, 2, np.nan])),  # a missing number makes floats of the others
        (pd.Series([5.0, 4.0, 0.0], index=[1.0, 2.0, np.nan]), ["1", "2"]),
    ],
    ids=["bytes", "numbers", "float-index"],
)
def test_one_gene_has_one_name(genes, members):
    n_top = 2 if isinstance(genes, pd.Series) else None
    out = tl.enrichment(genes, {"A": members}, background=[str(i) for i in range(9)], n_top=n_top)
    assert (out["n_set"].item(), out["n_overlap"].item(), out["genes"].item()) == (2, 2, "1;2")


def test_rows_of_a_table_of_sets_without_a_set_are_named():
    table = pd.DataFrame({"source": ["A", "A", None], "target": ["1", "2", "3"]})
    with pytest.warns(UserWarning, match=r"1 of 3 rows .* have no 'source' .*first gene: '3'"):
        assert tl.enrichment(["1"], table, background=list("1234"))["n_set"].tolist() == [2]


def test_a_table_is_no_list_of_genes():
    with pytest.raises(TypeError, match=r"a table with the columns \['case'\]"):
        tl.enrichment(pd.DataFrame({"case": [1.0]}, index=["g1"]), {"A": ["g1", "g2"]}, background=["g1", "g2"])


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"A\tna\tg1,1.0\tg2,-2e-1\n", {"A": ["g1", "g2"]}),
        (b"A\tna\tg1,1.0\tg2\n", {"A": ["g1,1.0", "g2"]}),  # one without a weight: the comma is part of a name
        ("A\tna\tg1\n".encode("utf-16-le"), "UTF-16 without a byte-order mark"),
        (b"A\tna\tg1\n\tna\tg2\n", "Line 2 of .* has no name of a gene set"),
    ],
    ids=["weights", "comma", "utf-16-without-mark", "no-name"],
)
def test_oddities_of_gmt_files(tmp_path, raw, found):
    path = tmp_path / "sets.gmt"
    path.write_bytes(raw)
    if isinstance(found, dict):
        assert tl.read_gmt(path) == found
        return
    with pytest.raises(ValueError, match=found):
        tl.read_gmt(path)


# ---- impossible scores


def test_power_names_no_impossible_score():
    table = tl.power(make_samples(14), "y", [4, 6, 20], n_draws=4, metric="auroc").table
    scores = table[["score", "ci_low", "ci_high", "critical"]]
    assert ((scores >= 0) & (scores <= 1)).all(axis=None)
    assert table["critical"].iloc[0] == 1.0  # 1.09 without the bound


def test_a_learning_curve_is_drawn_within_the_range_of_its_metric():
    table = pd.DataFrame({"n_train": [8, 8, 16, 16], "score": [1.0, 0.6, 1.0, 0.9], "metric": "auroc"})
    top = max(line[:, 1].max() for line in pl.learning_curve(table).collections[0].get_segments())
    assert top == 1.0
    unnamed = pl.learning_curve(table.drop(columns="metric")).collections[0].get_segments()
    assert max(line[:, 1].max() for line in unnamed) > 1  # a score of unknown range


# ---- survival, in words of events


@pytest.mark.filterwarnings("ignore:cv is lowered")
def test_power_speaks_of_events():
    with pytest.raises(ValueError, match=r"could be scored: too few of the 2 seen events of 't' in 24 donors\. Follow"):
        tl.power(make_samples(), "t", [20], probe="cox", event_key="e", n_draws=3)
    pilot = make_samples()
    pilot.obs["number"] = [0.0, 1.0, 2.0] + [0.0] * (N - 3)
    with pytest.raises(ValueError, match="too few different values of 'number'"):
        tl.power(pilot, "number", [20], probe="ridge", metric="spearman", n_draws=3)


# ---- fewer folds than asked


def test_confounding_says_that_it_makes_fewer_folds():
    rare = make_samples(20)
    rare.obs["y"] = ["a"] * 18 + ["b"] * 2
    with pytest.warns(UserWarning, match="cv is lowered from 5 to 2, because 'b' of 'y'"):
        tl.confounding(rare, "y", batch_key="batch", n_repeats=1)
    three = make_samples(12)
    three.obs["donor"] = np.arange(12) // 4
    with pytest.warns(UserWarning, match="cv is lowered from 5 to 3, because there are 3 groups"):
        tl.confounding(three, "y", batch_key="batch", groups_key="donor", n_repeats=1)


@pytest.mark.parametrize("probe", ["logistic", "svc", "knn", "ridge"])
def test_rare_classes_bring_no_words_of_scikit_learn(probe):
    rare = make_samples(20)
    rare.obs["y"] = ["a"] * 17 + ["b"] * 3
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tl.probe(rare, "y", probe=probe, n_repeats=1)
        tl.learning_curve(rare, "y", sizes=[6], probe=probe, n_subsamples=1)
    assert {str(w.message) for w in caught} == {
        "cv is lowered from 5 to 3, because 'b' of 'y' occurs in 3 groups only."
    }

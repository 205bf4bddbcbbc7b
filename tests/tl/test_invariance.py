"""Order and dtype mean nothing: rows, columns and categories permuted, names with a prefix, other dtypes: the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scset_tools import pp, profiles, tl

N = 24


def make_samples() -> AnnData:
    rng = np.random.default_rng(0)
    y = np.arange(N) % 3
    x = rng.integers(-40, 40, size=(N, 6)) / 8 + 2.0 * y[:, None] * (np.arange(6) == 0)  # exact in float32; with ties
    obs = pd.DataFrame(
        {
            "label": pd.Categorical(np.array(list("abc"))[y]),
            "two": pd.Categorical(np.where(y > 0, "case", "control")),
            "stage": pd.Categorical(np.array(["mild", "hi", "worst"])[y], ["mild", "hi", "worst"], ordered=True),
            "age": 20 + rng.permutation(N),
            "donor": np.arange(N) // 2,
            "batch": np.array(["b0", "b1"])[rng.integers(0, 2, N)],
            "t": rng.integers(1, 12, N).astype(float),
            "e": np.arange(N) % 4 > 0,
        },
        index=[f"s{i:02d}" for i in range(N)],
    )
    return AnnData(x, obs=obs, var=pd.DataFrame(index=[f"f{j}" for j in range(6)]), obsm={"X_copy": x.copy()})


def permuted_rows(s: AnnData) -> AnnData:
    return s[np.random.default_rng(1).permutation(s.n_obs)].copy()


def permuted_columns(s: AnnData) -> AnnData:
    return s[:, np.random.default_rng(2).permutation(s.n_vars)].copy()


def permuted_categories(s: AnnData) -> AnnData:
    s = s.copy()
    for key in ("label", "two"):
        s.obs[key] = s.obs[key].cat.reorder_categories(s.obs[key].cat.categories[::-1])
        s.obs[key] = s.obs[key].cat.add_categories(["never"])
    return s


def renamed(s: AnnData) -> AnnData:
    s = s.copy()
    s.obs_names = "cohort_" + s.obs_names
    return s


def other_dtypes(s: AnnData) -> AnnData:
    s = s.copy()
    s.X = s.X.astype(np.float32)
    s.obs["label"] = s.obs["label"].astype(object)
    s.obs["two"] = s.obs["two"].astype("string")
    s.obs["age"] = s.obs["age"].astype(object)
    s.obs["donor"] = s.obs["donor"].astype(float)
    s.obs["e"] = s.obs["e"].astype("Int64")
    return s


CHANGES = (permuted_rows, permuted_columns, permuted_categories, renamed, other_dtypes)


def all_at_once(s: AnnData) -> AnnData:
    for change in CHANGES:
        s = change(s)
    return s


QUICK = {"cv": 3, "n_repeats": 1, "tune": False}


def association(s: AnnData) -> object:
    table = tl.association(s, ["label", "two", "stage", "age"]).set_index(["label_key", "feature"]).sort_index()
    return table.drop(columns=["test", "effect_name", "highest"]), table["highest"].tolist()


def probe(s: AnnData, label: str, **kwargs: object) -> object:
    result = tl.probe(s, label, **{**QUICK, "n_permutations": 3, **kwargs})
    out = result.summary(interval="bootstrap", n_resamples=20).drop(columns=["sd"])
    return result.folds.drop(columns=["params", "is_tuned"]), out, result.p_value


def design(s: AnnData, **kwargs: object) -> object:
    """Tests of all columns in a design, permutations included, by name of the column."""
    table = tl.association(s, "two", n_permutations=19, **kwargs).set_index("feature").sort_index()
    return table.drop(columns=["label_key", "test", "effect_name", "highest"]), table["highest"].tolist()


def spare(s: AnnData) -> object:
    schema = {"relevant": {"label": "classification", "stage": "ranking"}, "technical": {"age": "regression"}}
    result = tl.spare(s, schema, use_rep="X", groups_key="donor", replicate_key="donor", n_permutations=9)
    columns = ["spare", "raw", "chance", "corrected", "ci_low", "ci_high", "p_value"]
    scores = result.scores.set_index("covariate")[columns].sort_index()
    return scores.drop(columns="spare"), result.replicates.drop(columns="representation")


def corrected(s: AnnData) -> object:
    """Distances between corrected vectors, in the order of names: those do not know the order of columns."""
    s = s.copy()
    pp.correct_samples(s, "batch", covariates=["two", "age"], key_added="corrected")
    return tl.get_distance_table(s, use_rep="corrected").sort_index(axis=0).sort_index(axis=1)


def proportions(s: AnnData) -> object:
    x = np.asarray(s[:, ["f0", "f1", "f2"]].X, dtype=float)
    table = pd.DataFrame(np.exp(x / 4), index=s.obs_names, columns=["T", "B", "M"])
    result = tl.retrieve_proportions(s, table, probe="ridge", cv=3, groups_key="donor")
    return result.per_type.sort_index(), result.predicted.sort_index()


def health(s: AnnData) -> object:
    second = s.copy()
    second.X = np.floor(s.X)
    found = tl.representation_health(s, second=second, nuisances=[]).summary()
    return found


def added(s: AnnData) -> object:
    result = tl.probe(s, "two", covariates=["age", "label"], groups_key="donor", **QUICK)
    return result.added().drop(columns="metric")


def benchmark(s: AnnData) -> object:
    return tl.benchmark(s, ["X", "X_copy"], "two", progress=False, baseline="X", **QUICK).differences()[
        ["difference", "p_value"]
    ]


def confounding(s: AnnData) -> object:
    found = tl.confounding(s, "two", batch_key="batch", covariate_keys=["age"], cv=3, n_repeats=1)
    return found.overlap, found.table.loc[found.table["predictor"] != "random vector", ["score", "ci_low", "ci_high"]]


CALLS: dict[str, Callable[[AnnData], object]] = {
    "association": association,
    "probe": lambda s: probe(s, "label"),
    "probe-tuned": lambda s: probe(s, "two", probe="ridge", tune=True, n_permutations=0),
    "probe-levels": lambda s: probe(s, "stage", probe="ridge", groups_key="donor"),
    "probe-numbers": lambda s: probe(s, "age", probe="ridge"),
    "probe-knn": lambda s: probe(s, "label", probe="knn"),
    "probe-times": lambda s: probe(s, "t", probe="cox", event_key="e"),
    "benchmark": benchmark,
    "learning-curve": lambda s: tl.learning_curve(s, "two", sizes=[8, 12], n_subsamples=1, cv=3, tune=False)["score"],
    "confounding": confounding,
    "neighbors": lambda s: (tl.neighbor_table(s, "label").summary(), tl.neighbor_accuracy(s, ["label", "two"])),
    "retention": lambda s: (
        tl.information_retention(s, ["label", "two"], n_permutations=9)
        .drop(columns=["representation", "kind"])
        .set_index("label_key")
    ),
    "replicates": lambda s: tl.replicate_robustness(s, "donor", n_permutations=9).summary(),
    "trajectory": lambda s: tl.trajectory_correlation(s, "age", n_permutations=9).summary()[["correlation", "p_value"]],
    "covariates": lambda s: design(s, covariates=["age", "batch"]),
    "blocks": lambda s: design(s, blocks_key="batch"),
    "mixed": lambda s: design(s, covariates="age", groups_key="donor"),
    "paired": lambda s: design(s, paired_by="donor"),
    "power": lambda s: tl.power(s, "two", [12, 40], groups_key="donor", n_draws=3, cv=3).table,
    "spare": spare,
    "correct": corrected,
    "benchmark-corrected": lambda s: tl.benchmark(
        s, ["X"], "two", batch_key="batch", batch_covariates="age", progress=False, **QUICK
    ).results[["auroc", "balanced_accuracy"]],
    "added": added,
    "proportions": proportions,
    "health": health,
    "batch-removal": lambda s: tl.batch_removal(s, "batch", n_permutations=9, groups_key="donor")[
        ["removal", "chance", "p_value"]
    ],
    "trajectory-diffusion": lambda s: tl.trajectory_correlation(
        s, "age", method="diffusion", n_neighbors=8, n_permutations=9
    ).summary()[["correlation", "p_value"]],
    "similarity": lambda s: tl.label_similarity(s, ["label", "two"]),
}


FAST = ("association", "neighbors", "similarity", "blocks", "paired", "correct", "health")
"""Those that are asked change by change."""


def numbers(found: object) -> list:
    """All numbers and texts of a result, tables by row."""
    if isinstance(found, tuple):
        return [n for part in found for n in numbers(part)]
    if isinstance(found, (pd.DataFrame, pd.Series)):
        return found.to_numpy(dtype=object).ravel().tolist()
    return list(found) if isinstance(found, list) else [found]


@pytest.fixture(scope="module")
def plain() -> dict[str, list]:
    return {}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "change"),
    [(name, all_at_once) for name in CALLS] + [(name, change) for name in FAST for change in CHANGES],
)
def test_the_same_numbers(name: str, change: Callable, plain: dict) -> None:
    if name not in plain:
        plain[name] = numbers(CALLS[name](make_samples()))
    got, expected = numbers(CALLS[name](change(make_samples()))), plain[name]
    is_number = [isinstance(v, (int, float, np.number)) for v in expected]
    assert [v for v, n in zip(got, is_number, strict=True) if not n] == [
        v for v, n in zip(expected, is_number, strict=True) if not n
    ]
    got, expected = ([v for v, n in zip(all_of, is_number, strict=True) if n] for all_of in (got, expected))
    assert got == pytest.approx(expected, rel=1e-4, abs=1e-5, nan_ok=True)


PROFILES = {
    "mean": lambda c: profiles.Mean(sample_key="sample").fit_transform(c),
    "fractions": lambda c: profiles.Fractions(sample_key="sample", cell_type_key="type").fit_transform(c),
    "types": lambda c: profiles.MeanPerType(sample_key="sample", cell_type_key="type").fit_transform(c),
}


def make_cells() -> AnnData:
    rng = np.random.default_rng(3)
    n = 120
    obs = pd.DataFrame(
        {"sample": rng.permutation(np.arange(n) % 6), "type": pd.Categorical(rng.choice(list("TBM"), n))}
    )
    obs.index = [f"c{i}" for i in range(n)]
    return AnnData(rng.integers(0, 9, (n, 4)).astype(float), obs=obs, var=pd.DataFrame(index=list("wxyz")))


def cells_of_other_dtypes(c: AnnData) -> AnnData:
    c = c.copy()
    c.X = c.X.astype(np.float32)
    c.obs["sample"], c.obs["type"] = c.obs["sample"].astype(str), c.obs["type"].astype(object)
    return c


def cells_with_other_categories(c: AnnData) -> AnnData:
    c = c.copy()
    c.obs["type"] = c.obs["type"].cat.reorder_categories(list("TMB")).cat.add_categories(["never"])
    return c


@pytest.mark.parametrize(
    "change", [permuted_rows, permuted_columns, cells_with_other_categories, renamed, cells_of_other_dtypes]
)
@pytest.mark.parametrize("name", PROFILES)
def test_profiles_have_the_same_numbers(name: str, change: Callable) -> None:
    expected, got = PROFILES[name](make_cells()), PROFILES[name](change(make_cells()))
    assert sorted(got.var_names) == sorted(expected.var_names)
    np.testing.assert_allclose(got[expected.obs_names, expected.var_names].X, expected.X, rtol=1e-5)

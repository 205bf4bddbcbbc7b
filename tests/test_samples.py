"""Ids to names, columns that go along with samples, and the one writer of sample-level AnnData."""

from __future__ import annotations

import datetime as dt

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scset_tools as sst
from scset_tools import _checks, _keys
from scset_tools._samples import as_text, sample_adata, sample_codes, sample_obs, storable, writable

SIZES = {"s0": 3, "s1": 4, "s2": 2}
NAMES = list(SIZES)
OF_CELL = np.repeat(NAMES, list(SIZES.values()))


@pytest.fixture
def cells() -> ad.AnnData:
    """Nine cells of three samples, with columns that are constant within samples and one that is not."""
    obs = pd.DataFrame({"sample": OF_CELL, "age": np.repeat([20.0, 30, 40], [3, 4, 2]), "cell": range(9)})
    obs.index = [f"c{i}" for i in range(9)]
    return ad.AnnData(np.arange(18, dtype=np.float32).reshape(9, 2), obs=obs, var=pd.DataFrame(index=["g0", "g1"]))


def mean(adata: ad.AnnData, **kwargs) -> ad.AnnData:
    return sst.profiles.Mean(sample_key="sample", **kwargs).fit_transform(adata)


# ---- names

TIMES = [dt.datetime(2020, 1, i + 1) for i in range(3)]
IDS = {  # three ids of each kind, and their names
    "text": (NAMES, NAMES),
    "numpy text": (np.asarray(NAMES, dtype="U9"), NAMES),
    "bytes": ([n.encode() for n in NAMES], NAMES),
    "string": (pd.array(NAMES, dtype="string"), NAMES),
    "str": (pd.array(NAMES, dtype=pd.StringDtype("python", na_value=np.nan)), NAMES),
    "category": (pd.Categorical(NAMES, categories=["s2", "unused", "s0", "s1"], ordered=True), NAMES),
    "int": ([2, 10, 7], ["2", "10", "7"]),
    "Int64": (pd.array([2, 10, 7], dtype="Int64"), ["2", "10", "7"]),
    "float": ([0.5, 1.0, 2.0], ["0.5", "1", "2"]),
    "bool": ([True, False, False], ["True", "False", "False"]),
    "date": (pd.to_datetime(TIMES), ["2020-01-01 00:00:00", "2020-01-02 00:00:00", "2020-01-03 00:00:00"]),
    "period": (pd.period_range("2020-01", periods=3, freq="M"), ["2020-01", "2020-02", "2020-03"]),
    "tuple": (pd.Series([("a", 1), ("a", 2), ("b", 1)]), ["('a', 1)", "('a', 2)", "('b', 1)"]),
    "interval": (pd.interval_range(0, 3), ["(0, 1]", "(1, 2]", "(2, 3]"]),
    "odd text": (["", " a\n", "é/\u200b=1"], ["", " a\n", "é/\u200b=1"]),
    "text and numbers": (pd.Series([3, "b", 1.5], dtype=object), ["3", "b", "1.5"]),
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_of_any_type_are_names(cells, kind):
    ids, names = IDS[kind]
    cells.obs["sample"] = pd.Series(ids).take(np.repeat(range(3), [3, 4, 2])).set_axis(cells.obs_names)
    codes, found = sample_codes(cells.obs["sample"], "sample")
    of_cell = np.repeat(np.asarray(names, dtype=object), [3, 4, 2])
    assert codes.dtype == np.int64
    assert found.tolist() == sorted(set(names))
    assert found[codes].tolist() == of_cell.tolist()
    samples = mean(cells)
    assert list(samples.obs_names) == sorted(set(names))
    want = pd.DataFrame(cells.X).groupby(of_cell).mean()
    np.testing.assert_allclose(samples[want.index].X, want, rtol=1e-6)


@pytest.mark.parametrize("as_category", [False, True])
def test_ids_that_are_the_same_text_are_refused_by_models_and_profiles(cells, as_category):
    cells.obs["sample"] = pd.Series([1] * 3 + ["1"] * 4 + [2] * 2, index=cells.obs_names, dtype=object)
    if as_category:
        cells.obs["sample"] = cells.obs["sample"].astype("category")
    for call in (lambda: mean(cells), lambda: sst.MAESTRO.setup_anndata(cells, "sample")):
        with pytest.raises(ValueError, match=r"adata.obs\['sample'\] differ in type only, not as text: \[1, '1'\]"):
            call()


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([1] * 3 + [True] * 4 + [2] * 2, ValueError, r"equal as numbers and differ as text: \['1', 'True'\]"),
        ([[1]] * 9, TypeError, r"holds list values \(first: \[1\]\), which name nothing"),
        ([None, *"aaaabbbb"], ValueError, r"missing for 1 of 9 cells \(first: \['c0'\]\)"),
    ],
)
def test_ids_that_name_no_sample(cells, ids, error, message):
    cells.obs["sample"] = pd.Series(ids, index=cells.obs_names, dtype=object)
    for call in (lambda: mean(cells), lambda: sst.MAESTRO.setup_anndata(cells, "sample")):
        with pytest.raises(error, match=message):
            call()


def test_measurements_name_no_samples_to_models_nor_to_profiles():
    cells = sst.datasets.composition_cohort(n_samples=2, n_cells=20)
    cells.obs["size"] = np.linspace(0.1, 3, 40)
    for take in (sst.ScSet.setup_anndata, sst.profiles.mean):
        with pytest.raises(
            ValueError, match=r"'size'.* holds 40 different numbers in 40 cells, such as 0\.1: they are measurements"
        ):
            take(cells, sample_key="size")
    cells.obs["size"] = cells.obs["size"].astype(str)  # names by decision
    assert sst.profiles.mean(cells, sample_key="size").n_obs == 40
    visit = pd.Series(
        np.repeat([1.1, 1.2, 2.1], 20), name="visit"
    )  # donor and visit, as pandas reads them from a table
    assert list(sample_codes(visit, "visit")[1]) == ["1.1", "1.2", "2.1"]


def test_text_of_names_does_not_depend_on_the_others():
    dates = pd.to_datetime(["2020-01-01", "2020-01-02 12:00"], format="ISO8601")
    assert as_text(dates[:1]).tolist() == as_text(dates).tolist()[:1]
    assert as_text([("a", 1), ("b", 2)]).shape == (2,)


def test_samples_are_asked_for_by_any_type(cells):
    cells.obs["sample"] = np.repeat([2, 10, 7], [3, 4, 2])
    index = sst.data.SampleIndex.from_obs(cells.obs, "sample")
    for asked in ([10, 7], ["10", "7"], np.array([10, 7]), pd.Series([10, 7]), (b"10", "7")):
        assert index.positions(asked).tolist() == [0, 2]
    assert index.positions(10).tolist() == index.positions("10").tolist() == [0]


# ---- columns


def test_columns_nobody_asked_for(cells):
    cells.obs["lists"] = pd.Series([[1, 2]] * 9, index=cells.obs_names, dtype=object)
    cells.obs["dicts"] = pd.Series([{}] * 9, index=cells.obs_names, dtype=object)
    cells.obs["arrays"] = pd.Series([np.zeros(2)] * 9, index=cells.obs_names, dtype=object)
    cells.obs["_scvi_sample"] = 0
    samples = mean(cells)
    assert list(samples.obs.columns) == ["age", "n_cells"]
    np.testing.assert_allclose(samples.X, pd.DataFrame(cells.X).groupby(OF_CELL).mean(), rtol=1e-6)
    assert samples.obs["n_cells"].tolist() == list(SIZES.values())
    assert samples.obs.index.name == "sample"


def test_columns_of_one_name_are_left_out_with_a_word(cells):
    twice = pd.concat([cells.obs, cells.obs[["age"]]], axis=1)
    cells = ad.AnnData(cells.X, obs=twice)
    with pytest.warns(UserWarning, match=r"several columns of one name: \['age'\]"):
        assert list(mean(cells).obs.columns) == ["n_cells"]
    cells = ad.AnnData(cells.X, obs=pd.concat([twice.iloc[:, :3], twice[["sample"]]], axis=1))
    for call in (lambda: mean(cells), lambda: sst.MAESTRO.setup_anndata(cells, "sample")):
        with pytest.raises(ValueError, match=r"2 columns named 'sample'\. Rename or drop all but one"):
            call()


PER_SAMPLE = {  # three values, and what a file gives back
    "mixed": (pd.Series([1, "unknown", 2.5], dtype=object), ["1", "unknown", "2.5"]),
    "date": (pd.to_datetime(TIMES).tz_localize("UTC"), [f"2020-01-0{i} 00:00:00+00:00" for i in (1, 2, 3)]),
    "delta": (pd.to_timedelta([1, 2, 3], unit="D"), ["1 days 00:00:00", "2 days 00:00:00", "3 days 00:00:00"]),
    "period": (pd.period_range("2020-01", periods=3, freq="M"), ["2020-01", "2020-02", "2020-03"]),
    "tuple": (pd.Series([("a", 1), ("b", 2), ("c", 3)]), ["('a', 1)", "('b', 2)", "('c', 3)"]),
    "string": (pd.array(["a", None, "c"], dtype="string"), ["a", None, "c"]),
    "string category": (pd.Series(["a", "b", "a"], dtype="string").astype("category"), ["a", "b", "a"]),
    "interval category": (pd.cut([1, 5, 9], [0, 4, 10]), ["(0, 4]", "(4, 10]", "(4, 10]"]),
    "Int64": (pd.array([1, None, 3], dtype="Int64"), [1, None, 3]),
    "objects of bool": (pd.Series([True, None, False], dtype=object), [True, None, False]),
    "objects of int": (pd.Series([1, None, 3], dtype=object), [1, None, 3]),
    "nothing": (pd.Series([None, None, None], dtype=object), [None, None, None]),
    "sparse": (pd.arrays.SparseArray([0.0, 0.0, 2.0]), [0.0, 0.0, 2.0]),
}


@pytest.mark.parametrize("kind", PER_SAMPLE)
def test_columns_of_samples_can_be_written(cells, kind, tmp_path):
    values, want = PER_SAMPLE[kind]
    cells.obs["what"] = pd.Series(values).take(np.repeat(range(3), [3, 4, 2])).set_axis(cells.obs_names)
    samples = mean(cells)
    for write, read in ((samples.write_h5ad, ad.read_h5ad), (samples.write_zarr, ad.read_zarr)):
        write(tmp_path / "samples")
        got = read(tmp_path / "samples").obs["what"].astype(object)
        assert got.where(got.notna(), None).tolist() == want
        (tmp_path / "samples").unlink(missing_ok=True) if (tmp_path / "samples").is_file() else None


def test_numbers_and_categories_stay_what_they_are():
    for column in (pd.Series([1.5, 2.5]), pd.Series([True, False]), pd.Series([1, 2], dtype="Int8")):
        assert storable(column) is column
    ordered = pd.Series(pd.Categorical(["lo", "hi"], categories=["lo", "mid", "hi"], ordered=True))
    assert storable(ordered).cat.ordered
    assert list(storable(ordered).cat.categories) == ["lo", "hi"]
    both = pd.Series(pd.Categorical([1, "1"], categories=[1, "1"]))
    assert list(storable(both).cat.categories) == ["1 (int)", "1 (str)"]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_obs_that_was_opened_lazily_is_read(cells, tmp_path):
    pytest.importorskip("xarray")
    cells.obs["sample"] = cells.obs["sample"].astype("category")
    want = mean(cells)
    cells.write_zarr(tmp_path / "cells.zarr")
    lazy = ad.experimental.read_lazy(tmp_path / "cells.zarr")
    samples = mean(lazy)
    pd.testing.assert_frame_equal(samples.obs, want.obs, check_categorical=False)
    np.testing.assert_allclose(samples.X, want.X)


# ---- the writer


def test_rows_are_the_samples_asked_for_and_columns_those_of_samples(cells):
    x = np.arange(6, dtype=np.float64).reshape(2, 3)
    out = sample_adata(x, cells, sample_key="sample", name="toy", samples=["s2", "s0"], provenance={"model": "Toy"})
    assert list(out.obs_names) == ["s2", "s0"]
    assert list(out.obs.columns) == ["age", "n_cells"]
    assert out.obs["n_cells"].tolist() == [2, 3]
    assert out.obs["age"].tolist() == [40, 20]
    assert list(out.var_names) == ["toy_0", "toy_1", "toy_2"]
    assert out.X.dtype == out.obsm["X_toy"].dtype == np.float32
    np.testing.assert_array_equal(out.X, x)
    out.obsm["X_toy"][:] = 0
    assert out.X.any()  # not the same memory


def test_models_and_profiles_say_the_same_of_their_samples(cells):
    profile = mean(cells)
    sst.MAESTRO.setup_anndata(cells, "sample")
    model = sst.MAESTRO(cells, n_hidden=8, n_latent=4, n_inducing=2, n_layers=1, n_heads=2, random_state=0)
    with pytest.warns(UserWarning, match="not trained"):
        samples = model.to_sample_adata()
    pd.testing.assert_frame_equal(samples.obs, profile.obs)
    assert (
        samples.uns["scset_tools"] == profile.uns["scset_tools"] == {"sample_key": "sample", "version": sst.__version__}
    )
    pd.testing.assert_frame_equal(sample_obs(cells, "sample"), profile.obs)


def test_provenance_survives_a_file(tmp_path):
    provenance = {
        "model": "Toy",
        "none": None,
        "nested": {"none": None, "rate": 0.5, "flag": True, 3: "three"},
        "rates": (0.2, 0.4),
        "names": ["a", "b"],
        "mixed": [1, "a"],
        "numbers": [np.int64(1), np.int64(2)],
        "empty": [],
        "text": np.str_("t"),
        "array": np.arange(3),
        "class": int,
    }
    adata = ad.AnnData(np.zeros((1, 1), np.float32), uns={"toy": writable(provenance)})
    adata.write_h5ad(tmp_path / "a.h5ad")
    read = ad.read_h5ad(tmp_path / "a.h5ad").uns["toy"]
    assert read["model"] == "Toy"
    assert set(read["nested"]) == {"rate", "flag", "3"}
    assert read["nested"]["rate"] == 0.5
    assert bool(read["nested"]["flag"]) is True
    assert list(read["rates"]) == [0.2, 0.4]
    assert list(read["names"]) == ["a", "b"]
    assert list(read["mixed"]) == ["1", "a"]
    assert list(read["numbers"]) == [1, 2]
    assert len(read["empty"]) == 0
    assert read["text"] == "t"
    assert list(read["array"]) == [0, 1, 2]
    assert read["class"] == "<class 'int'>"
    assert "none" not in read


def odd_cells():
    obs = pd.DataFrame(
        {"Sample/ID": ["a", "a", "b"], "disease/state": ["HIV+/ART", "HIV+/ART", "none"], "x\\y": [1, 1, 2]}
    )
    return ad.AnnData(np.ones((3, 2), np.float32), obs=obs.set_index(pd.Index(["c0", "c1", "c2"])))


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_samples_of_oddly_named_columns_come_back(tmp_path, suffix):
    samples = sst.profiles.Mean(sample_key="Sample/ID").fit_transform(odd_cells())
    assert list(samples.obs) == ["disease%2Fstate", "x%5Cy", "n_cells"]
    getattr(samples, f"write_{suffix}")(tmp_path / f"s.{suffix}")
    back = getattr(ad, f"read_{suffix}")(tmp_path / f"s.{suffix}")
    assert list(back.obs) == list(samples.obs)
    assert back.obs.index.name == samples.obs.index.name == "Sample%2FID"
    assert [_keys.name_of(c, back.uns) for c in back.obs] == ["disease/state", "x\\y", "n_cells"]
    assert list(_checks.require_obs(back, "disease/state")) == ["HIV+/ART", "none"]


def test_a_column_n_cells_of_the_user_is_kept():
    adata = odd_cells()
    adata.obs["n_cells"] = [5000, 5000, 6000]
    with pytest.warns(UserWarning, match="the samples have it as 'n_cells_in_obs'"):
        samples = sst.profiles.Mean(sample_key="Sample/ID").fit_transform(adata)
    assert list(samples.obs["n_cells"]) == [2, 1]
    assert list(samples.obs["n_cells_in_obs"]) == [5000, 6000]
    adata.obs["n_cells"] = [2, 2, 1]
    assert list(sst.profiles.Mean(sample_key="Sample/ID").fit_transform(adata).obs["n_cells"]) == [2, 1]


def test_nullable_floats_are_written_as_floats(cells, tmp_path):
    cells.obs["dose"] = pd.array(np.repeat([0.5, None, 2.0], [3, 4, 2]), dtype="Float64")
    cells.obs["long"] = np.repeat(np.array([1, 2, 3], dtype=np.longdouble), [3, 4, 2])
    samples = mean(cells)
    samples.write_h5ad(tmp_path / "samples.h5ad")
    obs = ad.read_h5ad(tmp_path / "samples.h5ad").obs
    np.testing.assert_array_equal(obs["dose"], [0.5, np.nan, 2.0])
    np.testing.assert_array_equal(obs["long"], [1, 2, 3])


def test_a_column_that_is_called_by_a_number_keeps_it(cells):
    cells.obs[5] = 1.0
    cells.obs["5"] = 2.0
    assert {5, "5"} <= set(mean(cells).obs.columns)


def test_a_lazily_read_frame_of_features_is_read(cells, tmp_path):
    cells.obsm["rep"] = pd.DataFrame(cells.X, index=cells.obs_names, columns=["a", "b"])
    want = mean(cells, use_rep="rep")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    lazy = ad.experimental.read_lazy(tmp_path / "cells.h5ad")
    got = mean(lazy, use_rep="rep")
    np.testing.assert_array_equal(got.X, want.X)
    assert list(got.var_names) == ["a", "b"]
    sst.MAESTRO.setup_anndata(lazy, "sample", use_rep="rep")

"""Random AnnData against a plain copy of the same content: the same numbers, or an error that names the object.

A cohort is drawn twice: plainly (dense float32, text, nothing else) and oddly: any storage and dtype, ids of any type, names of
any printable characters, columns that nobody asked for, rows in another order and, in some, a fault. What is computed of a
sound one must be what is computed of the plain one, to 1e-5; a fault must raise. ``make fuzz`` runs as many as asked for.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import scset_tools as sst

N_EXAMPLES = int(os.environ.get("SCSET_TOOLS_FUZZ_EXAMPLES", "40"))
TOLERANCE = 1e-5

MODELS = {
    "MAESTRO": (
        sst.MAESTRO,
        {"n_hidden": 8, "n_latent": 4, "n_inducing": 2, "n_layers": 1, "n_heads": 2, "n_cells": 4},
    ),
    "ScSet": (sst.ScSet, {"n_hidden": 8, "n_latent": 4, "n_cells": 4, "n_heads": 2}),
    "PaSCient": (sst.PaSCient, {"n_hidden": 8, "n_latent": 4}),
    "SelfGuidedMAE": (
        sst.SelfGuidedMAE,
        {
            "values": "normalized",
            "n_hidden": 4,
            "n_layers": 1,
            "n_heads": 2,
            "n_latents": 2,
            "n_latent_hidden": 4,
            "n_bins": 4,
        },
    ),
}
PROFILES = {
    "Mean": {},
    "KMeansFractions": {"n_clusters": 2},
    "KernelMean": {},
    "Fractions": {"cell_type_key": "type"},
    "MeanPerType": {"cell_type_key": "type"},
    "NumberOfCells": {},
}
TASKS = [*(("embed", m) for m in MODELS), *(("query", m) for m in MODELS), *(("profile", p) for p in PROFILES)]
TASKS += [("probe", "Mean"), ("train", "MAESTRO"), ("train", "PaSCient")]

names = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=6)


@dataclass
class Cohort:
    """The content, and how it is dressed up."""

    x: np.ndarray
    sample: np.ndarray  # number of the sample of each cell
    ids: list[str]  # names of the samples, as the plain copy has them
    features: list[str]
    types: np.ndarray
    labels: list[str]  # of each sample
    odd: dict[str, Any] = field(default_factory=dict)


ID_TYPES = ["object", "category", "string", "str", "Int64", "int", "uint8", "bytes", "tuple", "date", "period", "mixed"]
ID_TYPES += ["cat_of_int", "cat_of_string", "ordered"]
STORAGES = [
    "dense",
    "fortran",
    "float64",
    "int16",
    "uint8",
    "bool",
    "object",
    "masked",
    "matrix",
    "csr",
    "csr_array",
    "csc",
]
STORAGES += [
    "csc_array",
    "twice",
    "unsorted",
    "explicit_zeros",
    "h5_dense",
    "h5_csr",
    "h5_csc",
    "zarr",
    "dask",
    "dask_csr",
]
PLACES = ["X", "layer", "obsm", "frame"]
NAME_TYPES = ["object", "string", "str", "category"]
COLUMNS = [
    "lists",
    "dicts",
    "mixed",
    "date",
    "missing",
    "Int64",
    "interval",
    "bool_or_none",
    "bytes",
    "twice",
    "tuple",
    "nan",
]
FAULTS = [
    "nan",
    "inf",
    "-inf",
    "beyond",
    "hidden",
    "no_sample",
    "same_text",
    "list_ids",
    "text_column",
    "cube",
    "complex",
    "two",
]


@st.composite
def cohorts(draw: st.DrawFn) -> Cohort:
    n_samples, n_features = draw(st.integers(4, 8)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    sample = np.repeat(np.arange(n_samples), rng.integers(1, 5, n_samples))
    x = rng.integers(0, 4, (len(sample), n_features)) + (rng.random((len(sample), n_features)) < 0.5)
    x[:, 0] += 1  # no cell without signal
    x = x.astype(np.float32)
    types = np.where(rng.random(len(sample)) < 0.5, "T", "B")
    types[:2] = "T", "B"
    unique = st.lists(names, min_size=n_samples, max_size=n_samples, unique=True)
    odd = {
        "ids": draw(st.sampled_from(ID_TYPES)),
        "storage": draw(st.sampled_from(STORAGES)),
        "place": draw(st.sampled_from(PLACES)),
        "features": draw(st.sampled_from(NAME_TYPES)),
        "cells": draw(st.sampled_from(NAME_TYPES)),
        "label": draw(st.sampled_from(["object", "category", "string"])),
        "columns": draw(st.lists(st.sampled_from(COLUMNS), max_size=3, unique=True)),
        "column_names": draw(st.lists(names, min_size=3, max_size=3, unique=True)),
        "fault": draw(st.sampled_from([None, None, None, *FAULTS])),
        "task": draw(st.sampled_from(TASKS)),
        "order": rng.permutation(len(sample)),
        "rng": rng,
    }
    if odd["fault"] in ("cube", "text_column", "hidden", "complex"):
        odd["place"] = {"cube": "obsm", "text_column": "frame"}.get(odd["fault"], "X")
    features = draw(st.lists(names, min_size=n_features, max_size=n_features, unique=True))
    ids = (
        draw(unique)
        if odd["ids"] in ("object", "category", "string", "str", "bytes", "cat_of_string", "ordered")
        else None
    )
    labels = [str(v) for v in rng.permutation(np.arange(n_samples) % 2)]
    return Cohort(x, sample, _ids(odd["ids"], ids, n_samples), features, types, [f"l{v}" for v in labels], odd)


def _values(kind: str, ids: list[str] | None, n: int) -> list[Any]:
    """The ids as the odd copy holds them."""
    made: dict[str, Any] = {
        "Int64": range(3, 3 + n),
        "int": range(3, 3 + n),
        "uint8": range(3, 3 + n),
        "cat_of_int": range(3, 3 + n),
        "tuple": [("d", i) for i in range(n)],
        "date": [pd.Timestamp(2020, 1, 1 + i) for i in range(n)],
        "period": list(pd.period_range("2020-01", periods=n, freq="M")),
        "mixed": [i if i % 2 else f"s{i}" for i in range(n)],
    }
    return list(made[kind]) if kind in made else list(ids or [])


def _ids(kind: str, ids: list[str] | None, n: int) -> list[str]:
    return [str(v) for v in _values(kind, ids, n)]


def plain(c: Cohort) -> ad.AnnData:
    obs = pd.DataFrame(
        {"sample": np.asarray(c.ids, object)[c.sample], "type": c.types, "label": np.asarray(c.labels)[c.sample]}
    )
    obs.index = [f"c{i}" for i in range(len(obs))]
    return _placed(c, c.x.copy(), obs, pd.Index(c.features), "X")


def _placed(c: Cohort, x: Any, obs: pd.DataFrame, features: pd.Index, place: str) -> ad.AnnData:
    if place == "X":
        return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=features))
    if place == "layer":
        return ad.AnnData(None, obs=obs, var=pd.DataFrame(index=features), layers={"x": x})
    return ad.AnnData(None, obs=obs, obsm={"x": x}, shape=(len(obs), 0))


def odd(c: Cohort, folder: Path) -> ad.AnnData:
    o = c.odd
    order, fault = o["order"], o["fault"]
    obs = pd.DataFrame(index=pd.Index([f"c{i}" for i in range(len(order))]))
    ids = pd.Series(_values(o["ids"], c.ids, len(c.ids)), dtype=object)
    if o["ids"] == "bytes":
        ids = ids.map(lambda v: v.encode())
    per_cell = ids.iloc[c.sample].set_axis(obs.index)
    cast = {
        "object": object,
        "str": pd.StringDtype("python", na_value=np.nan),
        "cat_of_int": "category",
        "ordered": None,
    }
    cast |= {"bytes": object, "tuple": object, "mixed": object, "date": "datetime64[ns]", "period": "period[M]"}
    if o["ids"] == "cat_of_string":
        per_cell = per_cell.astype("string").astype("category")
    elif o["ids"] == "ordered":
        per_cell = pd.Series(pd.Categorical(per_cell, [*c.ids[::-1], "unused" * 3], ordered=True), index=obs.index)
    else:
        per_cell = per_cell.astype(cast.get(o["ids"], o["ids"]))
    if fault == "no_sample":
        per_cell = per_cell.astype(object).where(np.arange(len(order)) > 0, None)
    elif fault == "same_text":
        per_cell = per_cell.map(str).astype(object).where(c.sample != 0, 1).where(c.sample != 1, "1")
    elif fault == "list_ids":
        per_cell = pd.Series([[v] for v in c.sample], index=obs.index, dtype=object)
    obs["sample"] = per_cell
    obs["type"] = c.types
    obs["label"] = pd.Series(np.asarray(c.labels)[c.sample], index=obs.index).astype(o["label"])
    for name, kind in zip(o["column_names"], o["columns"], strict=False):
        _add_column(obs, name, kind, c)
    if fault == "two":
        obs = pd.concat([obs, obs[["sample"]]], axis=1)
    place = o["place"]
    x = _fault_in(c.x, fault)
    obs, x = obs.iloc[order], x[order]
    obs.index = obs.index.astype(_dtype(o["cells"]))
    features = pd.Index(c.features)
    if place == "frame":
        frame = pd.DataFrame(x, index=obs.index, columns=features)
        if fault == "text_column":
            frame[features[0]] = "text"
        elif fault is None and o["storage"] == "int16":
            frame = frame.astype("Int64")
        return _placed(c, frame, obs, features, place)
    if fault == "cube":
        return _placed(c, np.repeat(x[:, :, None], 2, axis=2), obs, features, place)
    return _placed(c, _stored(x, o["storage"], fault, folder), obs, features.astype(_dtype(o["features"])), place)


def _dtype(kind: str) -> Any:
    return pd.StringDtype("python", na_value=np.nan) if kind == "str" else kind


def _add_column(obs: pd.DataFrame, name: str, kind: str, c: Cohort) -> None:
    if name in obs:
        return
    n = len(obs)
    values: dict[str, Any] = {
        "lists": [[i] for i in range(n)],
        "dicts": [{} for _ in range(n)],
        "mixed": [i if i % 2 else f"v{i}" for i in c.sample],
        "date": [pd.Timestamp(2020, 1, 1 + i) for i in c.sample],
        "missing": [None] * n,
        "Int64": [None if i == 0 else int(i) for i in c.sample],
        "interval": [pd.Interval(i, i + 1) for i in c.sample],
        "bool_or_none": [[True, False, None][i % 3] for i in c.sample],
        "bytes": [b"x%d" % i for i in c.sample],
        "tuple": [(int(i), "x") for i in c.sample],
        "nan": [np.nan if i % 2 else 1.5 for i in c.sample],
    }
    if kind == "twice":
        obs.insert(0, name, 1)
        obs.insert(0, name, 2, allow_duplicates=True)
        return
    column = pd.Series(values[kind], index=obs.index, dtype=None if kind in ("date", "nan") else object)
    obs[name] = column.astype("Int64") if kind == "Int64" else column


def _fault_in(x: np.ndarray, fault: str | None) -> np.ndarray:
    values = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "beyond": 1e39}
    x = x.astype(np.float64)
    if fault in values:
        x[len(x) // 2, -1] = values[fault]
    return x


def _stored(x: np.ndarray, storage: str, fault: str | None, folder: Path) -> Any:
    if fault == "complex":
        return x.astype(np.complex128)
    if fault == "hidden":
        masked = np.ma.array(x, mask=False)
        masked[0, 0] = np.ma.masked
        return masked
    if fault in ("nan", "inf", "-inf", "beyond") and storage in ("int16", "uint8", "bool"):
        storage = "float64"
    if storage == "bool":
        storage = "uint8"
    kept = x if fault == "beyond" else x.astype(np.float32)
    if storage in ("int16", "uint8"):
        return x.astype(storage)
    if storage in ("twice", "unsorted", "explicit_zeros"):
        return _odd_csr(kept, storage)
    if storage.startswith(("h5", "zarr")):
        return _filed(kept, storage, folder)
    if storage.startswith("dask"):
        import dask.array as da

        lazy = da.from_array(kept, chunks=(3, -1))
        return lazy.map_blocks(sp.csr_matrix) if storage == "dask_csr" else lazy
    make: dict[str, Any] = {
        "dense": np.ascontiguousarray,
        "fortran": np.asfortranarray,
        "float64": np.asarray,
        "object": lambda v: v.astype(object),
        "masked": np.ma.array,
        "matrix": np.matrix,
        "csr": sp.csr_matrix,
        "csr_array": sp.csr_array,
        "csc": sp.csc_matrix,
        "csc_array": sp.csc_array,
    }
    return make[storage](x if storage == "float64" else kept)


def _odd_csr(x: np.ndarray, storage: str) -> sp.csr_matrix:
    n, g = x.shape
    columns, values = np.tile(np.arange(g)[::-1], (n, 1)), x[:, ::-1]
    if storage == "twice":
        half = values / 4
        columns, values = np.hstack([columns, columns]), np.hstack([half, values - half])
    if storage == "explicit_zeros":
        columns, values = columns[:, ::-1], x
    width = columns.shape[1]
    return sp.csr_matrix((values.ravel().copy(), columns.ravel().copy(), np.arange(n + 1) * width), shape=(n, g))


def _filed(x: np.ndarray, storage: str, folder: Path) -> Any:
    if storage == "zarr":
        import zarr

        group = zarr.open_group(str(folder / "x.zarr"), mode="w")
        ad.io.write_elem(group, "x", x)
        return group["x"]
    import h5py

    stored = {"h5_dense": np.asarray, "h5_csr": sp.csr_matrix, "h5_csc": sp.csc_matrix}[storage](x)
    file = h5py.File(folder / "x.h5", "w")
    ad.io.write_elem(file, "x", stored)
    return file["x"] if storage == "h5_dense" else ad.io.sparse_dataset(file["x"])


# ---- what is computed


def source(c: Cohort, *, is_plain: bool) -> dict[str, str]:
    place = "X" if is_plain else c.odd["place"]
    return {"X": {}, "layer": {"layer": "x"}}.get(place, {"use_rep": "x"})


def compute(c: Cohort, make: Any, *, is_plain: bool) -> pd.DataFrame:
    """The result of the task, by sample."""
    task, what = c.odd["task"]
    where = source(c, is_plain=is_plain)
    if task in ("profile", "probe"):
        arguments = {} if what in ("Fractions", "NumberOfCells") else where
        samples = getattr(sst.profiles, what)(sample_key="sample", **PROFILES[what], **arguments).fit_transform(make())
        if task == "profile":
            assert samples.obs["n_cells"].tolist() == _sizes(c, samples.obs_names)
            return samples.to_df()
        return sst.tl.probe(samples, "label", cv=2, n_repeats=1, tune=False).folds.select_dtypes("number").fillna(-1.0)
    cls, arguments = MODELS[what]
    labels = {"labels_key": "label"} if what == "PaSCient" or task == "train" else {}
    if task == "query" and not is_plain:
        # set up on the plain copy, in the same place, so that the odd one is new to the model
        known = "obsm" if c.odd["fault"] == "cube" else c.odd["place"]
        base = plain(c)
        x = pd.DataFrame(base.X, index=base.obs_names, columns=base.var_names) if known == "frame" else base.X
        first = _placed(c, x, base.obs, base.var_names, known)
    else:
        first = make()
    cls.setup_anndata(first, "sample", **labels, **where)
    model = cls(first, random_state=0, **arguments)
    if task == "train":
        model.train(max_epochs=1, batch_size=4, train_size=1.0, seed=0, accelerator="cpu", **QUIET)
    samples = model.to_sample_adata(make() if task == "query" else None)
    assert samples.obs["n_cells"].tolist() == _sizes(c, samples.obs_names)
    return samples.to_df()


QUIET = {"enable_progress_bar": False, "enable_model_summary": False}


def _sizes(c: Cohort, wanted: Any) -> list[int]:
    sizes = dict(zip(c.ids, np.bincount(c.sample).tolist(), strict=True))
    return [sizes[name] for name in wanted]


OBJECT = r"adata\.(X|obs|var_names|layers|obsm)|samples\.obs"
FEATURES_ONLY = {"nan", "inf", "-inf", "beyond", "hidden", "complex", "text_column", "cube"}


def is_looked_at(c: Cohort) -> bool:
    """Whether the task reads what is wrong."""
    return c.odd["fault"] not in FEATURES_ONLY or c.odd["task"][1] not in ("Fractions", "NumberOfCells")


def check(c: Cohort) -> None:
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        want = compute(c, lambda: plain(c), is_plain=True)
        try:
            made = odd(c, Path(folder))
        except (ValueError, TypeError, NotImplementedError):  # anndata itself refuses
            return
        if made.shape[0] != len(c.x):
            return
        if c.odd["fault"] is not None and is_looked_at(c):
            with pytest.raises((ValueError, TypeError, KeyError), match=OBJECT):
                compute(c, lambda: made, is_plain=False)
            return
        got = compute(c, lambda: made, is_plain=False)
    assert sorted(map(str, got.index)) == sorted(map(str, want.index))
    scale = max(1.0, float(np.abs(want.to_numpy()).max()))
    np.testing.assert_allclose(got.loc[want.index].to_numpy(), want.to_numpy(), atol=TOLERANCE * scale, rtol=0)


@settings(
    max_examples=N_EXAMPLES,
    deadline=None,
    derandomize="SCSET_TOOLS_FUZZ_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(cohorts())
def test_odd_data_give_the_numbers_of_plain_data_or_an_error(cohort: Cohort) -> None:
    check(cohort)

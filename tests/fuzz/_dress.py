"""A drawn cohort as AnnData: plainly, and as oddly as it says."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from _drawn import Cohort, id_values

NOT_FINITE = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "beyond": 1e39}


def plain(c: Cohort, place: str = "X") -> ad.AnnData:
    """Dense float32, text, nothing else."""
    label = pd.Series(_plain_labels(c)).iloc[c.sample].to_numpy()
    if c.odd["family"] == "levels":
        label = pd.Categorical(label, [0, 1, 2], ordered=True)
    obs = pd.DataFrame(
        {c.keys["sample"]: np.asarray(c.ids, object)[c.sample], c.keys["type"]: c.types, c.keys["label"]: label}
    )
    obs.index = [f"c{i}" for i in range(len(obs))]
    x = c.x.copy()
    if place == "frame":
        x = pd.DataFrame(x, index=obs.index, columns=c.features)
    return placed(x, obs, pd.Index(c.features), place)


def _plain_labels(c: Cohort) -> list[Any]:
    if c.odd["family"] == "class":
        return [None if v < 0 else c.classes[v] for v in c.labels]
    return [np.nan if v < 0 else float(v) for v in c.labels]


def placed(x: Any, obs: pd.DataFrame, features: pd.Index, place: str) -> ad.AnnData:
    """An AnnData with its features in one place."""
    if place == "X":
        return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=features))
    if place == "layer":
        return ad.AnnData(None, obs=obs, var=pd.DataFrame(index=features), layers={"x": x})
    return ad.AnnData(None, obs=obs, obsm={"x": x}, shape=(len(obs), 0))


def odd(c: Cohort, folder: Path) -> ad.AnnData:
    """The same content in the storage, the types and with the fault that were drawn."""
    o = c.odd
    order, fault, place = o["order"], o["fault"], o["place"]
    obs = _obs(c)
    x = c.x.astype(np.float64)
    if fault in NOT_FINITE:
        x[len(x) // 2, -1] = NOT_FINITE[fault]
    obs, x = obs.iloc[order], x[order]
    obs.index = obs.index.astype(_dtype(o["cells"]))
    features = pd.Index(c.features)
    if place == "frame":
        frame = pd.DataFrame(x, index=obs.index, columns=features)
        if fault == "text_column":
            frame[features[0]] = "text"
        elif fault not in NOT_FINITE and o["storage"] in ("int16", "int64"):
            frame = frame.astype("Int64")
        elif fault not in NOT_FINITE and o["storage"] == "float16":
            frame = frame.astype("Float32")
        adata = placed(frame, obs, features, place)
    elif fault == "cube":
        adata = placed(np.repeat(x[:, :, None], 2, axis=2), obs, features, place)
    else:
        adata = placed(_stored(x, o["storage"], fault, folder), obs, features.astype(_dtype(o["features"])), place)
    return _through_file(adata, o["file"], folder)


def _through_file(adata: ad.AnnData, kind: str | None, folder: Path) -> ad.AnnData:
    """Written and read again, where anndata can write it."""
    if kind is None:
        return adata
    path = folder / f"all.{'zarr' if kind == 'zarr' else 'h5ad'}"
    try:
        adata.write_zarr(path) if kind == "zarr" else adata.write_h5ad(path)
        if kind == "zarr":
            return ad.read_zarr(path)
        if kind == "lazy":
            return ad.experimental.read_lazy(path)
        return ad.read_h5ad(path, backed="r" if kind == "backed" and adata.X is not None else None)
    except Exception:  # noqa: BLE001  (anndata's own: lists, names with a slash)
        return adata


def _obs(c: Cohort) -> pd.DataFrame:
    o, sample_key, label_key = c.odd, c.keys["sample"], c.keys["label"]
    obs = pd.DataFrame(index=pd.Index([f"c{i}" for i in range(len(c.sample))]))
    obs[sample_key] = _sample_column(c, obs.index)
    types = c.types.astype(object)
    if o["fault"] == "no_type":
        types[0] = None
    obs[c.keys["type"]] = types
    obs[label_key] = _label_column(c, obs.index)
    for name, kind in zip(o["column_names"], o["columns"], strict=False):
        _add_column(obs, name, kind, c)
    return pd.concat([obs, obs[[sample_key]]], axis=1) if o["fault"] == "two" else obs


def _sample_column(c: Cohort, index: pd.Index) -> pd.Series:
    kind, fault = c.odd["ids"], c.odd["fault"]
    ids = pd.Series(id_values(kind, c.ids, len(c.ids)), dtype=object)
    if kind == "bytes":
        ids = ids.map(lambda v: v.encode())
    out = ids.iloc[c.sample].set_axis(index)
    of_kind: dict[str, Any] = dict.fromkeys(("bytes", "tuple", "mixed"), object)
    of_kind |= {"cat_of_int": "category", "date": "datetime64[ns]", "period": "period[M]", "str": _dtype("str")}
    if kind == "cat_of_string":
        out = out.astype("string").astype("category")
    elif kind == "ordered":
        out = pd.Series(pd.Categorical(out, [*c.ids[::-1], "unused" * 3], ordered=True), index=index)
    else:
        out = out.astype(of_kind.get(kind, kind))
    if fault == "no_sample":
        return out.astype(object).where(np.arange(len(out)) > 0, None)
    if fault == "same_text":
        return out.map(str).astype(object).where(c.sample != 0, 1).where(c.sample != 1, "1")
    if fault == "list_ids":
        return pd.Series([[v] for v in c.sample], index=index, dtype=object)
    return out


def _label_column(c: Cohort, index: pd.Index) -> pd.Series:
    """Labels of the cells in the type that was drawn."""
    o = c.odd
    family, kind = o["family"], o["label"]
    values: list[Any] = c.classes if family == "class" else [*range(len(c.ids))]
    if kind in ("text", "ordered_text"):
        values = [str(v) for v in values]
    elif kind in ("bool", "boolean", "cat_of_bool"):
        values = [False, True]
    elif kind == "truth":
        values = ["False", "True"]
    elif kind == "decimal":
        values = [Decimal(v) for v in values]
    of_cell = [o["missing"] if v < 0 else values[v] for v in c.labels[c.sample]]
    if o["fault"] == "varies":
        of_cell = [values[i % 2] for i in range(len(of_cell))]
        of_cell[:2] = values[:2]
    elif o["fault"] == "list_labels":
        return pd.Series([[v] for v in of_cell], index=index, dtype=object)
    elif o["fault"] == "infinite_label":
        of_cell = [float("inf") if s == 0 else v for s, v in zip(c.sample, of_cell, strict=True)]
        return pd.Series(of_cell, index=index, dtype=object)
    elif o["fault"] == "other_class":
        of_cell = ["never seen" if s == 0 else v for s, v in zip(c.sample, of_cell, strict=True)]
        return pd.Series(of_cell, index=index, dtype=object)
    out = pd.Series(of_cell, index=index, dtype=object)
    has_missing = bool(out.isna().any())
    if kind in ("unused", "backwards", "ordered", "ordered_text"):
        levels = values[:3] if family == "levels" else [*values[::-1], "never seen"]
        return pd.Series(pd.Categorical(out, levels, ordered=kind.startswith("ordered")), index=index)
    if kind in ("cat_of_string", "cat_of_int", "cat_of_bool", "category"):
        return (out.astype("string") if kind == "cat_of_string" else out).astype("category")
    if kind in ("int", "uint8", "bool", "float", "float32"):
        out = out.where(out.notna(), np.nan) if has_missing else out
        return out.astype(kind if not has_missing else "float64" if kind != "bool" else object)
    return out.astype(kind) if kind in ("boolean", "Int64", "Float64", "string") else out


def _dtype(kind: str) -> Any:
    return pd.StringDtype("python", na_value=np.nan) if kind == "str" else kind


def _add_column(obs: pd.DataFrame, name: str, kind: str, c: Cohort) -> None:
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


def _stored(x: np.ndarray, storage: str, fault: str | None, folder: Path) -> Any:
    if fault == "complex":
        return x.astype(np.complex128)
    if fault == "hidden":
        masked = np.ma.array(x, mask=False)
        masked[0, 0] = np.ma.masked
        return masked
    if fault in NOT_FINITE and storage in ("int16", "int64", "uint8", "bool", "csr_int", "float16"):
        storage = "float64"
    kept = x if fault == "beyond" else x.astype(np.float32)
    of_type = {"bool": "uint8", "int16": "int16", "int64": "int64", "uint8": "uint8", "float16": "float16"}
    of_type |= {"longdouble": "longdouble", "float64": "float64"}
    if storage in of_type:
        return x.astype(of_type[storage])
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
        "object": lambda v: v.astype(object),
        "masked": np.ma.array,
        "matrix": np.matrix,
        "csr": sp.csr_matrix,
        "csr_int": lambda v: sp.csr_matrix(v.astype(np.int32)),
        "csr_float64": lambda v: sp.csr_matrix(v.astype(np.float64)),
        "csr_array": sp.csr_array,
        "csc": sp.csc_matrix,
        "csc_array": sp.csc_array,
        "coo": sp.coo_matrix,
    }
    return make[storage](kept)


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

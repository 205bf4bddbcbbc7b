"""Neighbourhoods within tissues as sets of cells of their own."""

from __future__ import annotations

import warnings
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.spatial import cKDTree

from scset_tools import _checks, _samples
from scset_tools._numbers import checks_numbers
from scset_tools.data._index import SampleIndex, order_by_name

if TYPE_CHECKING:
    from anndata import AnnData

AXES = ("niche_x", "niche_y", "niche_z")
"""Columns with the position of the centre of a niche."""

ABOUT = ("is_centre", "niche_distance", "cell")
"""Columns of what a cell is in its niche."""

Members = tuple[np.ndarray, np.ndarray]
"""Rows of the cells of one niche, the centre first, and their distances from it."""


@checks_numbers
def niches(
    adata: AnnData,
    sample_key: str,
    *,
    n_neighbors: int | None = None,
    radius: float | None = None,
    graph_key: str | None = None,
    spatial_key: str = "spatial",
    n_niches: int | None = 50,
    min_cells: int = 5,
    max_cells: int = 256,
    key_added: str = "niche",
    seed: int = 0,
) -> AnnData:
    """Cells of drawn neighbourhoods of each tissue, a set per neighbourhood, for any model or profile to read.

    A niche is a centre and the cells about it. A cell may lie in several niches, and its row is then repeated: the result is an ordinary
    AnnData of cells whose samples are niches. Set a model up on it with ``sample_key="niche"``, and its vectors are those of niches;
    :func:`scset_tools.tl.aggregate_niches` turns them into one vector per tissue.

    Niches of one tissue share cells and surroundings. Never let a split cut a tissue: pass the column of tissues (or donors) as ``groups_key``
    wherever niches are split.

    Parameters
    ----------
    adata
        Cells with coordinates; in memory, or backed, of which the drawn rows alone are read.
    sample_key
        Column of ``adata.obs`` with the tissue of each cell. Coordinates are compared within a tissue only.
    n_neighbors
        A niche is the centre and this many nearest cells. Give this, ``radius`` or ``graph_key``.
    radius
        A niche is all cells at most this far from the centre, itself included, in the unit of the coordinates.
    graph_key
        A niche is the centre and its neighbours in the graph ``adata.obsp[graph_key]``: that of squidpy
        (``sq.gr.spatial_neighbors(adata, library_key=sample_key)`` writes ``"spatial_connectivities"``), or any other.
    spatial_key
        Key of ``adata.obsm`` with the coordinates, (cells, 2 or 3).
    n_niches
        Number of centres drawn from each tissue, uniformly over its cells, without replacement; of a tissue with fewer, all its cells.
        None: every cell is a centre.
    min_cells
        Fewest cells of a niche, the centre included: cells with fewer about them are no centres, and are counted in a warning. With
        ``n_neighbors`` all niches have as many cells.
    max_cells
        Most cells of a niche: of more, those nearest to the centre are kept, with a warning. With ``n_neighbors`` it is no limit.
    key_added
        Column of the result with the name of the niche.
    seed
        Seed of the draw. A tissue's centres depend on the seed, its name and its cells, not on the other tissues or the order of rows.

    Returns
    -------
    AnnData
        One row per niche and cell, niche by niche, with the features, layers, ``obsm`` and columns of ``adata``; ``obsp`` is left out. In memory,
        at most tissues x ``n_niches`` x ``max_cells`` (or ``n_neighbors`` + 1) rows, whatever the number of cells. Its ``obs`` has further:

        - ``obs[key_added]``: name of the niche, that of the tissue and that of the centre;
        - ``obs["niche_x"]``, ``obs["niche_y"]`` (and ``obs["niche_z"]``): position of the centre, float64, one per niche;
        - ``obs["is_centre"]``, ``obs["niche_distance"]``: whether the cell is the centre, and how far it is from it, float64;
        - ``obs["cell"]``: name of the cell in ``adata``.

        ``uns[key_added]`` holds the arguments.

    Raises
    ------
    KeyError
        If the column, the coordinates or the graph are not there.
    TypeError
        If not given an AnnData.
    ValueError
        If not exactly one of ``n_neighbors``, ``radius`` and ``graph_key`` is given, if coordinates are not finite or not of two or three
        dimensions, if a tissue has no more cells than ``n_neighbors``, if no cell of a tissue has ``min_cells`` about it, if the graph joins
        tissues, or if ``adata.obs`` has one of the columns that are written.

    Examples
    --------
    >>> import numpy as np, scset_tools as sst
    >>> cells = sst.datasets.composition_cohort(n_samples=4, n_cells=60)
    >>> cells.obsm["spatial"] = np.random.default_rng(0).random((cells.n_obs, 2))
    >>> niches = sst.pp.niches(cells, "sample", n_neighbors=9, n_niches=5)
    >>> sst.profiles.mean(niches, sample_key="niche").n_obs
    20
    """
    _checks.require_anndata(adata, caller="pp.niches")
    _require_one_rule(n_neighbors, radius, graph_key)
    taken = [name for name in (key_added, *AXES, *ABOUT) if name in adata.obs]
    if taken:
        msg = f"adata.obs has the columns {_checks.first(taken)} already, which pp.niches writes. Rename or drop them, or choose another key_added."
        raise ValueError(msg)
    column = _checks.require_obs(adata, sample_key)
    _checks.require_no_missing(column, sample_key)
    xy = _coordinates(adata, spatial_key)
    codes, names = _samples.sample_codes(column, sample_key)
    tissues = SampleIndex.from_codes(codes, names, by_name=order_by_name(adata.obs_names))
    if n_neighbors is not None:
        _require_enough(tissues, n_neighbors)
        min_cells = max_cells = n_neighbors + 1
    graph = None if graph_key is None else _graph(adata, graph_key, codes, names)
    found: list[list[Members]] = []
    n_alone = np.zeros(len(tissues), dtype=np.int64)
    n_cut = 0
    for i in range(len(tissues)):
        rows = tissues.cells(i)
        size = _sizes(xy, rows, n_asked=max_cells, radius=radius, graph=graph)
        fit = np.flatnonzero(size >= min_cells)
        n_alone[i] = len(rows) - len(fit)
        n_cut += int((size > max_cells).sum())
        rng = np.random.default_rng((seed, zlib.crc32(str(names[i]).encode("utf-8", "surrogatepass"))))
        chosen = fit if n_niches is None or n_niches >= len(fit) else np.sort(rng.choice(fit, n_niches, replace=False))
        found.append(_members(xy, rows, chosen, max_cells=max_cells, radius=radius, graph=graph))
    rule = f"radius={radius}" if radius is not None else f"graph_key={graph_key!r}"
    _report(tissues, n_alone, n_cut, rule=rule, min_cells=min_cells, max_cells=max_cells)
    params = {"sample_key": sample_key, "spatial_key": spatial_key, "n_neighbors": n_neighbors, "radius": radius}
    params |= {"graph_key": graph_key, "min_cells": min_cells, "max_cells": max_cells, "n_niches": n_niches}
    return _build(adata, names, found, xy, key_added=key_added, params=params | {"seed": seed})


def _require_one_rule(n_neighbors: int | None, radius: float | None, graph_key: str | None) -> None:
    rules = {"n_neighbors": n_neighbors, "radius": radius, "graph_key": graph_key}
    given = {name: value for name, value in rules.items() if value is not None}
    if len(given) != 1:
        msg = f"pp.niches takes exactly one of n_neighbors, radius and graph_key, but was given {given or 'none of them'}."
        raise ValueError(msg)


def _coordinates(adata: AnnData, spatial_key: str) -> np.ndarray:
    xy = _checks.dense(_checks.require_obsm(adata, spatial_key), f"adata.obsm[{spatial_key!r}]")
    if xy.ndim != 2 or xy.shape[1] not in (2, 3):
        msg = f"adata.obsm[{spatial_key!r}] must be cells x 2 or 3 coordinates, but has the shape {xy.shape}."
        raise ValueError(msg)
    bad = ~np.isfinite(xy).all(axis=1)
    if bad.any():
        msg = (
            f"adata.obsm[{spatial_key!r}] is not finite for {bad.sum()} of {len(bad)} cells (first: {_checks.first(adata.obs_names[bad])}). "
            "Drop these cells."
        )
        raise ValueError(msg)
    return xy


def _require_enough(tissues: SampleIndex, n_neighbors: int) -> None:
    is_short = tissues.sizes <= n_neighbors
    if is_short.any():
        short = [f"{n} ({size})" for n, size in zip(tissues.names[is_short], tissues.sizes[is_short], strict=True)]
        msg = (
            f"n_neighbors={n_neighbors} needs more cells than that in each tissue, but {is_short.sum()} of {len(tissues)} have fewer: "
            f"{_checks.first(short)}. Lower n_neighbors, or leave these out: adata = sst.pp.filter_samples(adata, sample_key, min_cells={n_neighbors + 1})."
        )
        raise ValueError(msg)


def _graph(adata: AnnData, graph_key: str, codes: np.ndarray, names: np.ndarray) -> sparse.csr_matrix:
    """The neighbours of each cell without itself, or an error if some are of another tissue."""
    if graph_key not in adata.obsp:
        msg = f"{graph_key!r} is not in adata.obsp. Keys: {_checks.first(adata.obsp.keys(), 20)}. sq.gr.spatial_neighbors of squidpy writes one."
        raise KeyError(msg)
    joined = sparse.coo_matrix(adata.obsp[graph_key])
    is_edge = (joined.data != 0) & (joined.row != joined.col)
    rows, columns = joined.row[is_edge], joined.col[is_edge]
    across = codes[rows] != codes[columns]
    if across.any():
        pairs = sorted({(names[a], names[b]) for a, b in zip(codes[rows[across]], codes[columns[across]], strict=True)})
        msg = (
            f"adata.obsp[{graph_key!r}] joins cells of different tissues by {across.sum()} of {len(across)} edges (first: "
            f"{_checks.first(f'{a} - {b}' for a, b in pairs)}). Build it within tissues: sq.gr.spatial_neighbors(adata, library_key=sample_key)."
        )
        raise ValueError(msg)
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=joined.shape)


def _sizes(
    xy: np.ndarray, rows: np.ndarray, *, n_asked: int, radius: float | None, graph: sparse.csr_matrix | None
) -> np.ndarray:
    """Number of cells of the niche of each cell of one tissue, (cells,)."""
    if graph is not None:
        return np.diff(graph.indptr)[rows] + 1
    if radius is not None:
        return np.asarray(cKDTree(xy[rows]).query_ball_point(xy[rows], radius, return_length=True))
    return np.full(len(rows), n_asked)


def _members(
    xy: np.ndarray,
    rows: np.ndarray,
    chosen: np.ndarray,
    *,
    max_cells: int,
    radius: float | None,
    graph: sparse.csr_matrix | None,
) -> list[Members]:
    """The niches about the chosen cells of one tissue: at most ``max_cells`` each, the nearest."""
    if not len(chosen):
        return []
    if graph is not None:
        return [_nearest(xy, c, graph.indices[graph.indptr[c] : graph.indptr[c + 1]], max_cells) for c in rows[chosen]]
    k = min(max_cells, len(rows))
    far, near = cKDTree(xy[rows]).query(xy[rows[chosen]], k=[*range(1, k + 1)])
    is_in = np.ones(far.shape, dtype=bool) if radius is None else far <= radius
    return [_nearest(xy, c, rows[near[j][is_in[j]]], max_cells) for j, c in enumerate(rows[chosen])]


def _nearest(xy: np.ndarray, centre: int, others: np.ndarray, max_cells: int) -> Members:
    """The centre, and the nearest of the others; some may lie at one place with it."""
    others = others[others != centre]
    distance = np.linalg.norm(xy[others] - xy[centre], axis=1)
    kept = np.argsort(distance, kind="stable")[: max_cells - 1]
    return np.r_[centre, others[kept]], np.r_[0.0, distance[kept]]


def _report(
    tissues: SampleIndex, n_alone: np.ndarray, n_cut: int, *, rule: str, min_cells: int, max_cells: int
) -> None:
    """Say which cells have too few about them, and which too many."""
    lost = n_alone == tissues.sizes
    if lost.any():
        msg = (
            f"No cell has min_cells={min_cells} cells in its niche by {rule} in {lost.sum()} of {len(tissues)} tissues: "
            f"{_checks.first(tissues.names[lost])}. Widen the niches (mind the unit of the coordinates), lower min_cells, or leave these tissues out."
        )
        raise ValueError(msg)
    if n_alone.any():
        counts = [f"{n} ({a} of {s})" for n, a, s in zip(tissues.names, n_alone, tissues.sizes, strict=True) if a]
        warnings.warn(
            f"{n_alone.sum()} of {tissues.sizes.sum()} cells have fewer than min_cells={min_cells} cells in their niche by {rule} and are no "
            f"centres, in tissues {_checks.first(counts)}.",
            stacklevel=3,
        )
    if n_cut:
        warnings.warn(
            f"{n_cut} of {tissues.sizes.sum()} cells have more than max_cells={max_cells} cells in their niche by {rule}: of the drawn niches "
            "the nearest cells are kept. Raise max_cells to keep all.",
            stacklevel=3,
        )


def _build(
    adata: AnnData,
    names: np.ndarray,
    found: list[list[Members]],
    xy: np.ndarray,
    *,
    key_added: str,
    params: dict[str, Any],
) -> AnnData:
    """The AnnData of repeated cells."""
    from anndata import AnnData

    flat = [(i, members, distance) for i, inside in enumerate(found) for members, distance in inside]
    rows = np.concatenate([members for _, members, _ in flat])
    size = np.array([len(members) for _, members, _ in flat])
    centre = np.array([members[0] for _, members, _ in flat])
    cells = adata.obs_names.astype(str).to_numpy(dtype=object)
    labels = pd.Index([f"{names[i]}: {cells[members[0]]}" for i, members, _ in flat], dtype=object)
    if not labels.is_unique:
        msg = f"Cells of one tissue share a name: {_checks.first(labels[labels.duplicated()])}. First: adata.obs_names_make_unique()."
        raise ValueError(msg)
    needed, place = np.unique(rows, return_inverse=True)
    part = adata[needed]  # each row is read once, also from a file
    part = part.to_memory() if adata.isbacked else part
    obs = _checks.obs_frame(part).iloc[place].copy()
    number = np.repeat(np.arange(len(labels)), size)
    obs[key_added] = pd.Categorical.from_codes(number, labels)
    for axis, name in enumerate(AXES[: xy.shape[1]]):
        obs[name] = xy[centre, axis][number]
    within = (rows == centre[number], np.concatenate([distance for _, _, distance in flat]), cells[rows])
    for name, values in zip(ABOUT, within, strict=True):
        obs[name] = values
    obs.index = pd.Index([f"{n}-{cell}" for n, cell in zip(number, cells[rows], strict=True)], dtype=object)
    out = AnnData(None if part.X is None else part.X[place], obs=obs, var=part.var.copy())
    for key, value in part.obsm.items():
        out.obsm[key] = value.iloc[place].set_axis(obs.index) if isinstance(value, pd.DataFrame) else value[place]
    for key, value in part.layers.items():
        out.layers[key] = value[place]
    out.uns.update({key: value for key, value in adata.uns.items() if not key.startswith("_scvi")})
    out.uns[key_added] = _samples.writable(params)
    return out

"""Does the main axis of the samples follow a covariate such as severity or time: an unsupervised ordering, then Spearman."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy import stats
from scipy.sparse.csgraph import connected_components

from scset_tools import _checks
from scset_tools._numbers import checks_numbers
from scset_tools._permutation import permute_labels, warn_of_few_rearrangements
from scset_tools._short_repr import ShortRepr
from scset_tools.tl._representation import get_distances, get_representation
from scset_tools.tl._splits import read_groups
from scset_tools.tl._targets import read_target

if TYPE_CHECKING:
    from anndata import AnnData

METHODS = ("pca", "diffusion", "dpt")


@dataclass(frozen=True, repr=False)
class TrajectoryResult(ShortRepr):
    """An ordering of the samples and its agreement with a covariate.

    Attributes
    ----------
    ordering
        Position of every sample on the axis (not only of those with the covariate). For ``"pca"`` and ``"diffusion"``, whose
        direction is arbitrary, turned so that it rises with the covariate.
    covariate_key
        Column that the order was compared with.
    method
        How samples were ordered.
    correlation
        Spearman's rho of ordering and covariate. Never negative for ``"pca"`` and ``"diffusion"``.
    p_value
        Share of permutations of the covariate with an absolute correlation at least as large (the true one counted).
    n_samples
        Samples compared: those with a value, without the root.
    """

    ordering: pd.Series
    covariate_key: str
    method: str
    correlation: float
    p_value: float
    n_samples: int

    def summary(self) -> pd.DataFrame:
        """One row: covariate, method, correlation, p-value and number of samples."""
        fields = ("covariate_key", "method", "correlation", "p_value", "n_samples")
        return pd.DataFrame({name: [getattr(self, name)] for name in fields})


@checks_numbers
def trajectory_correlation(
    samples: AnnData,
    covariate_key: str,
    *,
    use_rep: str | None = None,
    obsp_key: str | None = None,
    method: Literal["pca", "diffusion", "dpt"] = "pca",
    root: str | None = None,
    n_neighbors: int = 15,
    groups_key: str | None = None,
    n_permutations: int = 999,
    rng: np.random.Generator | int | None = 0,
) -> TrajectoryResult:
    """Order the samples without the covariate, then correlate the order with it.

    The ordering never sees the covariate; only its arbitrary direction is turned, which the permutation test takes into
    account by comparing absolute values. Reports only: nothing is written into ``samples``.

    Parameters
    ----------
    samples
        Sample-level AnnData.
    covariate_key
        Column of ``samples.obs``: numbers, or an ordered category. Samples without a value take part in the ordering only.
    use_rep
        Representation.
    obsp_key
        Stored distances instead, which are turned into vectors by classical scaling (principal coordinates; negative eigenvalues of
        distances that are not Euclidean are dropped).
    method
        ``"pca"``: first principal component. ``"diffusion"``: first non-trivial component of scanpy's diffusion map.
        ``"dpt"``: scanpy's diffusion pseudotime from ``root``.
    root
        Name of the sample that pseudotime starts from. It is left out of the correlation: who picks it knows its value.
    n_neighbors
        Size of the neighbourhoods of the two diffusion methods, at most the number of samples.
    groups_key
        Column with the donor or study. Groups exchange their values of the covariate whole.
    n_permutations
        Permutations for the p-value; 0 gives NaN.
    rng
        Seed or generator of the permutations.

    Returns
    -------
    TrajectoryResult

    Raises
    ------
    KeyError
        If a key or the root does not exist.
    ValueError
        If the covariate has no order or no variation, fewer than three samples have a value, the samples are all alike,
        or the neighbour graph falls apart.
    """
    if method not in METHODS:
        msg = f"method must be one of {METHODS}, but is {method!r}."
        raise ValueError(msg)
    if (root is None) == (method == "dpt"):
        msg = f"root and method='dpt' belong together, but root={root!r} and method={method!r}."
        raise ValueError(msg)
    is_level = isinstance(_checks.require_obs(samples, covariate_key).dtype, pd.CategoricalDtype)
    target = read_target(samples, covariate_key, target="ordinal" if is_level else "continuous")
    x = get_representation(samples, use_rep) if obsp_key is None else _principal_coordinates(samples, use_rep, obsp_key)
    if np.ptp(x, axis=0).max() == 0:
        msg = f"All {len(x)} samples have the same representation: there is no order."
        raise ValueError(msg)
    position = _first_component(x) if method == "pca" else _diffusion(x, method, _root_row(samples, root), n_neighbors)
    keep = np.ones(len(target), bool) if root is None else samples.obs_names[target.rows] != root
    rows, y = target.rows[keep], target.values[keep]
    if len(y) < 3:
        msg = f"{len(y)} samples have a value of samples.obs[{covariate_key!r}]; a correlation needs at least 3."
        raise ValueError(msg)
    if np.ptp(y) == 0 or np.ptp(position[rows]) == 0:
        msg = f"samples.obs[{covariate_key!r}], or the order of its {len(y)} samples, does not vary: no correlation."
        raise ValueError(msg)
    rho = float(stats.spearmanr(position[rows], y).statistic)
    groups = read_groups(samples, groups_key, rows)
    warn_of_few_rearrangements(y, groups, n_permutations, label_key=covariate_key, is_class=False)
    p_value = _permutation_p_value(
        position[rows], y, groups, read_groups(samples, None, rows), n_permutations=n_permutations, rng=rng
    )
    if method != "dpt" and rho < 0:
        rho, position = -rho, -position
    ordering = pd.Series(position, index=samples.obs_names, name=f"{method}_ordering")
    return TrajectoryResult(ordering, covariate_key, method, rho, p_value, len(y))


def _root_row(samples: AnnData, root: str | None) -> int:
    if root is None:
        return 0
    if root not in samples.obs_names:
        msg = f"root={root!r} is not in samples.obs_names. Names: {_checks.first(samples.obs_names)}."
        raise KeyError(msg)
    return int(samples.obs_names.get_loc(root))


def _first_component(x: np.ndarray) -> np.ndarray:
    """Scores of the first principal component, (samples,)."""
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    return u[:, 0] * s[0]


def _principal_coordinates(samples: AnnData, use_rep: str | None, obsp_key: str) -> np.ndarray:
    """Classical scaling: vectors whose Euclidean distances come nearest to the stored ones, largest axis first."""
    d = get_distances(samples, use_rep=use_rep, obsp_key=obsp_key)
    squared = ((d + d.T) / 2) ** 2
    centred = squared - squared.mean(axis=0) - squared.mean(axis=1, keepdims=True) + squared.mean()
    values, vectors = np.linalg.eigh(-centred / 2)
    is_positive = values > 1e-10 * max(values.max(), np.finfo(float).tiny)
    if not is_positive.any():
        return np.zeros((len(d), 1))
    return (vectors[:, is_positive] * np.sqrt(values[is_positive]))[:, ::-1]


def _diffusion(x: np.ndarray, method: str, root: int, n_neighbors: int) -> np.ndarray:
    """First diffusion component or pseudotime, (samples,), from a graph of Gaussian kernels on nearest neighbours."""
    import scanpy as sc
    from anndata import AnnData

    if n_neighbors < 2 or len(x) < 4:
        msg = f"Diffusion needs n_neighbors of at least 2 and at least 4 samples, but has {n_neighbors} and {len(x)}."
        raise ValueError(msg)
    graph = AnnData(np.zeros((len(x), 1), dtype=np.float32), obsm={"X_rep": x})
    with warnings.catch_warnings():
        # scanpy's own remarks (few samples, future defaults) are none of the caller's business
        warnings.simplefilter("ignore")
        sc.pp.neighbors(
            graph, n_neighbors=min(n_neighbors, len(x) - 1), use_rep="X_rep", method="gauss", random_state=0
        )
        n_parts = connected_components(graph.obsp["connectivities"], directed=False)[0]
        if n_parts > 1:
            msg = (
                f"The neighbour graph of {len(x)} samples falls into {n_parts} parts with n_neighbors={n_neighbors}: there is no "
                "path to order them along. Raise n_neighbors, or use method='pca'."
            )
            raise ValueError(msg)
        graph.uns["iroot"] = root
        sc.tl.diffmap(graph, n_comps=min(10, len(x) - 2), random_state=0)
        if method == "diffusion":
            return graph.obsm["X_diffmap"][:, 1].astype(np.float64)
        sc.tl.dpt(graph, n_dcs=min(10, len(x) - 2))
    return graph.obs["dpt_pseudotime"].to_numpy(dtype=np.float64)


def _permutation_p_value(
    position: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    order: np.ndarray,
    *,
    n_permutations: int,
    rng: np.random.Generator | int | None,
) -> float:
    """Two-sided p-value of Spearman's rho; whole groups are permuted if there are any."""
    if not n_permutations:
        return float("nan")
    a, b = stats.zscore(stats.rankdata(position)), stats.zscore(stats.rankdata(y))
    rng = np.random.default_rng(rng)
    null = np.empty(n_permutations)
    for i in range(n_permutations):
        shuffled = b[permute_labels(b, groups, rng, order=order)]
        null[i] = np.corrcoef(a, shuffled)[0, 1]  # groups of unequal size change the spread of b
    return float((1 + np.sum(~(np.abs(null) < abs(np.mean(a * b)) - 1e-12))) / (1 + n_permutations))

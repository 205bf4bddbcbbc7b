"""Who are a sample's nearest neighbours: label table (MAESTRO Fig. 3b) and k-nearest-neighbour accuracy on held-out samples.

Works from distances only, so a stored distance matrix is judged exactly like a representation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from scset_tools import _checks, _labels
from scset_tools._metrics import label_metrics
from scset_tools._numbers import checks_numbers
from scset_tools._short_repr import ShortRepr
from scset_tools.tl._distances import metric_scales
from scset_tools.tl._representation import get_distances, get_representation, require_defined
from scset_tools.tl._splits import read_groups

if TYPE_CHECKING:
    from anndata import AnnData

DISTANCES_AT_ONCE = 2**22
"""Distances between samples that are held together: all of them would take 3.2 GB for 20,000 samples."""


@dataclass(frozen=True, repr=False)
class NeighborTable(ShortRepr):
    """Labels of the nearest neighbours of the samples of each class.

    Attributes
    ----------
    label_key
        Column of ``obs`` that was tabulated.
    n_neighbors
        Number of neighbours asked per sample.
    proportions
        Classes x classes: rows the true class, columns the neighbour's class; rows sum to 1.
    chance
        The same table if every permitted neighbour were equally likely.
    counts
        Samples per true class.
    samples
        One row per sample: ``label``, ``nearest`` (name of the nearest permitted sample; of several at the same distance
        the first by name), ``share_same`` (share of its neighbours with its own label).
    n_missing
        Samples left out because the label is missing.
    """

    label_key: str
    n_neighbors: int
    proportions: pd.DataFrame
    chance: pd.DataFrame
    counts: pd.Series
    samples: pd.DataFrame
    n_missing: int

    def summary(self) -> pd.DataFrame:
        """One row per class and one for all samples: share of neighbours with the same label, and its chance level."""
        own, chance = np.diag(self.proportions), np.diag(self.chance)
        weight = self.counts.to_numpy() / self.counts.sum()
        out = pd.DataFrame(
            {
                "n_samples": [*self.counts, self.counts.sum()],
                "share_same": [*own, own @ weight],
                "chance": [*chance, chance @ weight],
            },
            index=pd.Index([*self.counts.index, "all samples"], name=self.label_key),
        )
        out["over_chance"] = out["share_same"] - out["chance"]
        return out


@checks_numbers
def neighbor_table(
    samples: AnnData,
    label_key: str,
    *,
    use_rep: str | None = None,
    obsp_key: str | None = None,
    metric: str = "euclidean",
    n_neighbors: int = 1,
    groups_key: str | None = None,
) -> NeighborTable:
    """Proportion of nearest-neighbour label given true label (MAESTRO section 4.3, Fig. 3b).

    Reports only: nothing is written into ``samples``.

    Parameters
    ----------
    samples
        Sample-level AnnData.
    label_key
        Column of ``samples.obs``. Values are classes; samples without a label are left out, as neighbours too.
    use_rep, obsp_key, metric
        Where the distances come from; see :func:`get_distances`.
    n_neighbors
        Neighbours per sample. The paper uses 1. Neighbours tied for the last place share it, so that the order of the
        rows never matters.
    groups_key
        Column with the donor or study: samples of one group are never each other's neighbours. Without it, repeated
        samples of a donor find each other and the table looks better than it is.

    Returns
    -------
    NeighborTable

    Raises
    ------
    ValueError
        If fewer than two samples have a label, if ``n_neighbors`` is not positive, or if a sample has no permitted
        neighbour (a single group).
    """
    distances = _distances_by_rows(samples, use_rep=use_rep, obsp_key=obsp_key, metric=metric)
    codes, classes = class_codes(samples, label_key)
    kept = np.flatnonzero(codes >= 0)
    known, names, codes = samples[kept], samples.obs_names[kept], codes[kept]
    is_class = np.eye(len(classes))[codes]  # (samples, classes)
    n = is_class.sum(axis=0)
    by_name = np.argsort(names.astype(str), kind="stable")
    votes, expected, nearest = np.empty_like(is_class), np.empty_like(is_class), np.empty(len(kept), dtype=int)
    n_rows = max(1, DISTANCES_AT_ONCE // samples.n_obs)
    for rows in np.split(np.arange(len(kept)), range(n_rows, len(kept), n_rows)):
        d = distances(kept[rows])[:, kept]
        is_candidate = candidates(known, groups_key=groups_key, rows=rows)
        weights = neighbor_weights(d, n_neighbors, is_candidate=is_candidate, names=names[rows])
        votes[rows] = (weights / weights.sum(axis=1, keepdims=True)) @ is_class
        expected[rows] = (is_candidate / is_candidate.sum(axis=1, keepdims=True)) @ is_class
        nearest[rows] = by_name[np.where(is_candidate, d, np.inf)[:, by_name].argmin(axis=1)]
    index, columns = pd.Index(classes, name=label_key), pd.Index(classes, name="neighbor")
    per_sample = pd.DataFrame(
        {
            "label": classes[codes],
            "nearest": names[nearest].to_numpy(),
            "share_same": votes[np.arange(len(codes)), codes],
        },
        index=names,
    )
    return NeighborTable(
        label_key=label_key,
        n_neighbors=n_neighbors,
        proportions=pd.DataFrame(is_class.T @ votes / n[:, None], index=index, columns=columns),
        chance=pd.DataFrame(is_class.T @ expected / n[:, None], index=index, columns=columns),
        counts=pd.Series(n.astype(int), index=index, name="n_samples"),
        samples=per_sample,
        n_missing=samples.n_obs - len(kept),
    )


@checks_numbers
def neighbor_accuracy(
    samples: AnnData,
    label_keys: str | Sequence[str],
    *,
    use_rep: str | None = None,
    obsp_key: str | None = None,
    metric: str = "euclidean",
    n_neighbors: int = 5,
    groups_key: str | None = None,
    held_out: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Accuracy of a k-nearest-neighbour classifier for several labels, such as disease and study (PaSCient Fig. 5a).

    A representation organised by biology is high for the disease and low for the study; both are needed to say so.
    Reports only: nothing is written into ``samples``.

    Parameters
    ----------
    samples
        Sample-level AnnData.
    label_keys
        Columns of ``samples.obs``. Values are classes; samples without a value are left out for that column.
    use_rep, obsp_key, metric
        Where the distances come from; see :func:`get_distances`.
    n_neighbors
        Neighbours that vote. Votes tied are decided for the class whose voters are nearer on average.
    groups_key
        Column with the donor or study: samples of one group never vote for each other.
    held_out
        Names of the samples to classify; only the other samples vote. Default: every sample is held out in turn
        (leave-one-out, or leave-one-group-out with ``groups_key``).

    Returns
    -------
    DataFrame
        One row per label: ``n_samples`` classified, ``n_classes`` among them, ``accuracy``, ``balanced_accuracy``, and
        what an uninformed classifier reaches: ``majority`` (share of the largest class) and ``chance_balanced`` (1 / classes).

    Raises
    ------
    KeyError
        If a column, or a sample named in ``held_out``, does not exist.
    ValueError
        If a label has fewer than two classes, or no sample can find a voter of its own class.
    """
    distances = get_distances(samples, use_rep=use_rep, obsp_key=obsp_key, metric=metric)
    keys = [label_keys] if isinstance(label_keys, str) else list(label_keys)
    is_candidate = candidates(samples, groups_key=groups_key, held_out=held_out)
    is_tested = np.ones(samples.n_obs, bool) if held_out is None else samples.obs_names.isin(list(held_out))
    rows = []
    for key in keys:
        codes, classes = class_codes(samples, key)
        predicted = knn_predict(
            distances,
            codes,
            n_neighbors,
            is_candidate=is_candidate,
            is_tested=is_tested,
            key=key,
            names=samples.obs_names,
        )
        use = is_tested & (codes >= 0)
        found = label_metrics(codes[use], predicted[use], len(classes))
        rows.append(
            {
                "label_key": key,
                "n_neighbors": n_neighbors,
                "n_samples": int(use.sum()),
                "n_classes": len(np.unique(codes[use])),
                "accuracy": found["accuracy"],
                "balanced_accuracy": found["balanced_accuracy"],
                "majority": np.bincount(codes[use]).max() / use.sum(),
                # a voter can belong to any class of the column, also one that is not among the tested
                "chance_balanced": 1 / len(classes),
            }
        )
    return pd.DataFrame(rows).set_index("label_key")


def class_codes(samples: AnnData, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Codes (-1 where missing) and names of the classes of a column of ``samples.obs``."""
    read = _labels.read_classes(_checks.require_obs(samples, key))
    n_known = (read.codes >= 0).sum()
    if n_known < 2:
        msg = f"samples.obs[{key!r}] has a value for {n_known} of {len(read.codes)} samples; at least two are needed."
        raise ValueError(msg)
    return read.codes, np.asarray(read.names, dtype=object)


def _distances_by_rows(
    samples: AnnData, *, use_rep: str | None, obsp_key: str | None, metric: str
) -> Callable[[np.ndarray], np.ndarray]:
    """What gives the distances of some samples to all, (rows, samples); of many samples, not all are held at once."""
    if obsp_key is not None or samples.n_obs**2 <= DISTANCES_AT_ONCE:
        d = get_distances(samples, use_rep=use_rep, obsp_key=obsp_key, metric=metric)
        return lambda rows: d[rows]
    x = get_representation(samples, use_rep)
    scales = metric_scales(x, metric)

    def of_rows(rows: np.ndarray) -> np.ndarray:
        d = cdist(x[rows], x, metric=metric, **scales)
        d[np.arange(len(rows)), rows] = 0
        require_defined(d, metric, samples.obs_names[rows])
        return d

    return of_rows


def candidates(
    samples: AnnData,
    *,
    groups_key: str | None = None,
    held_out: Sequence[str] | None = None,
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """Which samples (columns) may be a neighbour of which (rows, all or some): never oneself, one's own group, or a held-out one."""
    rows = np.arange(samples.n_obs) if rows is None else rows
    is_candidate = rows[:, None] != np.arange(samples.n_obs)
    if groups_key is not None:
        codes = read_groups(samples, groups_key, np.arange(samples.n_obs))
        is_candidate &= codes[rows, None] != codes[None, :]
    if held_out is not None:
        names = list(held_out)
        unknown = [n for n in names if n not in samples.obs_names]
        if unknown:
            msg = f"held_out names {len(unknown)} of {len(names)} samples that are not in samples.obs_names: {_checks.first(unknown)}."
            raise KeyError(msg)
        is_candidate &= ~samples.obs_names.isin(names)[None, :]
    return is_candidate


def neighbor_weights(distances: np.ndarray, k: int, *, is_candidate: np.ndarray, names: pd.Index) -> np.ndarray:
    """Weight of every candidate among the ``k`` nearest, (samples, samples): 1 inside, ties for the last place share it.

    Rows sum to ``k``, or to the number of candidates where there are fewer.
    """
    n_candidates = is_candidate.sum(axis=1)
    if (n_candidates == 0).any():
        lonely = names[n_candidates == 0]
        msg = (
            f"{len(lonely)} of {len(names)} samples have no permitted neighbour (first: {_checks.first(lonely)}): every other "
            "sample is in the same group or held out. Use another groups_key, or more samples."
        )
        raise ValueError(msg)
    d = np.where(is_candidate, distances, np.inf)
    n_wanted = np.minimum(k, n_candidates)
    in_part = np.partition(d, np.unique(n_wanted - 1), axis=1)
    last = np.take_along_axis(in_part, (n_wanted - 1)[:, None], axis=1)  # distance of the k-th nearest
    is_inside, is_last = d < last, is_candidate & (d == last)
    share = (n_wanted - is_inside.sum(axis=1)) / is_last.sum(axis=1)
    return is_inside + is_last * share[:, None]


def knn_predict(
    distances: np.ndarray,
    codes: np.ndarray,
    k: int,
    *,
    is_candidate: np.ndarray,
    is_tested: np.ndarray,
    key: str,
    names: pd.Index,
) -> np.ndarray:
    """Class voted by the ``k`` nearest labelled candidates, (samples,); -1 where untested or unlabelled."""
    use, n_classes = is_tested & (codes >= 0), codes.max() + 1
    if n_classes < 2:
        msg = f"samples.obs[{key!r}] has a single class; at least two are needed to predict it."
        raise ValueError(msg)
    allowed = (is_candidate & (codes >= 0)[None, :])[use]
    require_reachable(allowed, codes[use][:, None] == codes[None, :], key)
    d = distances[use]
    weights = neighbor_weights(d, k, is_candidate=allowed, names=names[use])
    out = np.full(len(codes), -1)
    out[use] = vote(weights, d, codes)
    return out


def require_reachable(is_candidate: np.ndarray, is_same: np.ndarray, key: str) -> None:
    """Raise ValueError if no row has a candidate of its own class: the vote could never be right."""
    if not (is_candidate & is_same).any():
        msg = (
            f"No sample can find a neighbour of its own class of samples.obs[{key!r}]: every class lies in a single group, "
            "is held out whole, or has one sample. Choose other groups, or leave groups_key out for this label."
        )
        raise ValueError(msg)


def vote(weights: np.ndarray, distances: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Class with the largest weight in each row; ties go to the class whose voters are nearer on average.

    ``weights`` and ``distances`` are (tested, samples), ``codes`` is (samples,) with -1 for samples that cannot vote.
    """
    is_class = np.eye(codes.max() + 2)[codes][:, :-1]  # code -1 picks the last row, whose class is cut off
    votes = weights @ is_class
    far = np.divide((weights * distances) @ is_class, votes, out=np.full_like(votes, np.inf), where=votes > 0)
    is_top = votes >= votes.max(axis=1, keepdims=True) - 1e-9  # shares of ties are fractions
    return np.where(is_top, far, np.inf).argmin(axis=1)

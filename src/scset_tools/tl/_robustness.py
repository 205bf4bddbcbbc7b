"""What a representation keeps, forgets and repeats: label information, batch information, replicates.

The three scores read distances only, so stored distance matrices and representations are compared on one scale, 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from warnings import warn

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from scset_tools import _checks
from scset_tools._metrics import chance_corrected_f1, label_metrics
from scset_tools._numbers import checks_numbers
from scset_tools._permutation import permute_labels, warn_of_few_rearrangements
from scset_tools._short_repr import ShortRepr
from scset_tools.tl._neighbors import candidates, class_codes, neighbor_weights, require_reachable, vote
from scset_tools.tl._permuted_tests import warn_of_few_groupings
from scset_tools.tl._representation import get_distances
from scset_tools.tl._splits import read_groups, seed_of

if TYPE_CHECKING:
    from anndata import AnnData

Keys = str | Sequence[str] | None


@dataclass(frozen=True, repr=False)
class RobustnessResult(ShortRepr):
    """How near the replicates of a sample are.

    Attributes
    ----------
    samples
        One row per sample that has a replicate: ``replicate`` (the shared value), ``n_replicates``, ``position`` (mean
        number of non-replicates nearer than a replicate; 0 is best), ``robustness`` = 1 - position / (N - 1).
    robustness
        Mean over these samples.
    chance
        Its expectation if distances knew nothing of replicates.
    p_value
        Share of random reassignments of the replicate groups that are at least as robust, with the +1 correction.
    n_samples
        N, all samples, which are what a replicate competes with.
    """

    samples: pd.DataFrame
    robustness: float
    chance: float
    p_value: float
    n_samples: int

    def summary(self) -> pd.DataFrame:
        """One row: the score, its chance level, p-value, and numbers of samples."""
        return pd.DataFrame(
            {
                "robustness": [self.robustness],
                "chance": [self.chance],
                "p_value": [self.p_value],
                "n_with_replicate": [len(self.samples)],
                "n_samples": [self.n_samples],
            }
        )


@checks_numbers
def replicate_robustness(
    samples: AnnData,
    replicate_key: str,
    *,
    use_rep: str | None = None,
    obsp_key: str | None = None,
    metric: str = "euclidean",
    n_permutations: int = 999,
    rng: np.random.Generator | int | None = 0,
) -> RobustnessResult:
    """Whether technical replicates find each other: 1 - U / (N - 1).

    U is the mean rank-based position of a sample's replicate: the number of the N samples that are nearer than it, other
    replicates of the same sample not counted and ties counted half. A replicate that is always the nearest sample gives 1,
    distances without information about 1/2. Reports only: nothing is written into ``samples``.

    Parameters
    ----------
    samples
        Sample-level AnnData.
    replicate_key
        Column of ``samples.obs`` whose equal values mark replicates of the same material. Samples with a missing or
        unique value have no replicate: they compete, but have no position of their own.
    use_rep, obsp_key, metric
        Where the distances come from; see :func:`get_distances`.
    n_permutations
        Random reassignments for the p-value; 0 gives NaN.
    rng
        Seed or generator of the reassignments.

    Returns
    -------
    RobustnessResult

    Raises
    ------
    ValueError
        If no sample has a replicate, or every sample is a replicate of every other.
    """
    d = get_distances(samples, use_rep=use_rep, obsp_key=obsp_key, metric=metric)
    codes, names = pd.factorize(_checks.require_obs(samples, replicate_key).astype(object), sort=True)
    sizes = np.bincount(codes[codes >= 0], minlength=len(names))
    has_replicate = (codes >= 0) & (sizes[codes] > 1)
    if not has_replicate.any():
        msg = (
            f"No sample has a replicate: samples.obs[{replicate_key!r}] has {len(names)} values for {(codes >= 0).sum()} "
            "labelled samples, each once. Use a column whose value is shared by replicates of the same material."
        )
        raise ValueError(msg)
    if (sizes[codes[has_replicate]] == len(codes)).any():
        msg = f"samples.obs[{replicate_key!r}] has one value for all {len(codes)} samples: no other sample is left to compare with."
        raise ValueError(msg)
    n = len(codes)
    groups, own = np.where(has_replicate, codes, -1), sizes[codes[has_replicate]]
    ranks = _mid_ranks(d)
    position = _positions(d, ranks, groups)[has_replicate]
    score, expected = 1 - position / (n - 1), 1 - (n - own) / 2 / (n - 1)
    rng = np.random.default_rng(rng)
    # the groups move over all samples: a sample without replicate could have been in any of them
    place = read_groups(samples, None, np.arange(n))  # by name, so that the order of the rows does not matter
    # reassigned groups of one size, and lone samples, are what they were
    of_kind = np.where(groups < 0, -1, sizes[np.maximum(codes, 0)])
    warn_of_few_groupings(groups, of_kind, n_permutations, replicate_key=replicate_key)
    by_name = np.argsort(place)
    null = [
        1 - np.nanmean(_positions(d, ranks, rng.permutation(groups[by_name])[place])) / (n - 1)
        for _ in range(n_permutations)
    ]
    p_value = (
        (1 + np.sum(np.asarray(null) >= score.mean() - 1e-12)) / (1 + n_permutations) if n_permutations else np.nan
    )
    table = pd.DataFrame(
        {
            "replicate": np.asarray(names)[codes[has_replicate]].astype(str),
            "n_replicates": own - 1,
            "position": position,
            "robustness": score,
        },
        index=samples.obs_names[has_replicate],
    )
    return RobustnessResult(table, float(score.mean()), float(expected.mean()), float(p_value), n)


@checks_numbers
def information_retention(
    samples: AnnData,
    label_keys: str | Sequence[str],
    *,
    use_rep: Keys = None,
    obsp_key: Keys = None,
    metric: str = "euclidean",
    n_neighbors: int = 5,
    groups_key: str | None = None,
    n_permutations: int = 199,
    rng: np.random.Generator | int | None = 0,
) -> pd.DataFrame:
    r"""How much of a label the nearest neighbours know: chance-corrected F1 of the SPARE benchmark.

    .. math:: \tilde F = \max\left(0,\; \frac{L}{L - 1}\left(F_1 - \frac{1}{L}\right)\right)

    with :math:`F_1` the macro F1 of a leave-one-out k-nearest-neighbour vote and :math:`L` the number of classes. 1/L is
    the chance level of balanced classes; with unequal classes an uninformed vote can be below it, which the clipping hides.
    The permutation columns say what these samples give by chance. Reports only: nothing is written into ``samples``.

    Parameters
    ----------
    samples
        Sample-level AnnData.
    label_keys
        Columns of ``samples.obs``. Values are classes, also of numbers. Samples without a value, and with a warning those
        of classes with a single sample, are left out for that label.
    use_rep
        One or several ``obsm`` keys (``"X"`` for ``samples.X``): each gets its rows in the table. With neither this nor ``obsp_key``,
        ``samples.X``.
    obsp_key
        One or several ``obsp`` keys with distances: each gets its rows too.
    metric
        Metric for representations.
    n_neighbors
        Neighbours that vote.
    groups_key
        Column with the donor or study: samples of one group never vote for each other.
    n_permutations
        Random reassignments of the labels for ``chance`` and ``p_value``; 0 gives NaN. Groups exchange their
        labels whole.
    rng
        Seed or generator of the reassignments.

    Returns
    -------
    DataFrame
        One row per representation and label, best first within a label: ``label_key``, ``representation``, ``kind``
        (``"obsm"`` or ``"obsp"``), ``n_samples``, ``n_classes``, ``f1_macro``, ``retention``, ``chance`` (mean retention
        of permuted labels) and ``p_value``.

    Raises
    ------
    ValueError
        If a label has fewer than two classes of at least two samples, or no sample can find a voter of its own class.
    """
    table = _retention_table(
        samples,
        label_keys,
        use_rep=use_rep,
        obsp_key=obsp_key,
        metric=metric,
        n_neighbors=n_neighbors,
        groups_key=groups_key,
        n_permutations=n_permutations,
        rng=rng,
    )
    return _ranked(table, "retention")


@checks_numbers
def batch_removal(
    samples: AnnData,
    batch_keys: str | Sequence[str],
    *,
    use_rep: Keys = None,
    obsp_key: Keys = None,
    metric: str = "euclidean",
    n_neighbors: int = 5,
    groups_key: str | None = None,
    n_permutations: int = 199,
    rng: np.random.Generator | int | None = 0,
) -> pd.DataFrame:
    """How little the nearest neighbours know of the batch: 1 - information retention of the batch.

    1 means that a neighbour vote cannot tell the batches apart. A representation that knows nothing at all also reaches 1,
    so read it next to :func:`information_retention`. Parameters as there, with the batch columns as labels.
    Reports only: nothing is written into ``samples``.

    Parameters
    ----------
    samples, use_rep, obsp_key, metric, n_neighbors, groups_key, n_permutations, rng
        See :func:`information_retention`.
    batch_keys
        Columns of ``samples.obs`` with technical batches.

    Returns
    -------
    DataFrame
        As of :func:`information_retention`, with ``batch_key`` and ``removal`` (and the ``chance`` of that) instead;
        ``p_value`` is small where the batch is still there.
    """
    table = _retention_table(
        samples,
        batch_keys,
        use_rep=use_rep,
        obsp_key=obsp_key,
        metric=metric,
        n_neighbors=n_neighbors,
        groups_key=groups_key,
        n_permutations=n_permutations,
        rng=rng,
    )
    table["removal"], table["chance"] = 1 - table["retention"], 1 - table["chance"]
    table = table.drop(columns="retention").rename(columns={"label_key": "batch_key"})
    columns = [*table.columns.drop(["removal", "chance", "p_value"]), "removal", "chance", "p_value"]
    return _ranked(table[columns], "removal")


def _mid_ranks(d: np.ndarray) -> np.ndarray:
    """How many others are nearer to i than j, ties half, (n, n); the diagonal is NaN."""
    n = len(d)
    is_off = ~np.eye(n, dtype=bool)
    out = np.full((n, n), np.nan)
    out[is_off] = (rankdata(d[is_off].reshape(n, n - 1), axis=1) - 1).ravel()
    return out


def _positions(d: np.ndarray, ranks: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Mean position of each sample's replicates among its non-replicates, (samples,); NaN where group is -1.

    The rank among all others less the rank among the replicates: what is left counts non-replicates only.
    """
    out = np.full(len(groups), np.nan)
    order = np.argsort(groups, kind="stable")
    order = order[groups[order] >= 0]
    for group in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        if len(group) == 2:  # the usual case, without a ranking of one
            out[group] = ranks[group, group[::-1]]
        else:
            square = np.ix_(group, group)
            out[group] = np.nanmean(ranks[square] - _mid_ranks(d[square]), axis=1)
    return out


def _as_list(keys: Keys) -> list[str]:
    return [] if keys is None else [keys] if isinstance(keys, str) else list(keys)


def _ranked(table: pd.DataFrame, score: str) -> pd.DataFrame:
    """Best first within a label, labels in the order asked."""
    by = table.columns[0]
    order = {key: i for i, key in enumerate(table[by].unique())}
    table = table.assign(_order=table[by].map(order)).sort_values(
        ["_order", score], ascending=[True, False], kind="stable"
    )
    return table.drop(columns="_order").reset_index(drop=True)


def _repeated_classes(samples: AnnData, key: str) -> tuple[np.ndarray, int]:
    """Codes and number of the classes with at least two samples; -1 for the rest, with a warning."""
    codes, classes = class_codes(samples, key)
    sizes = np.bincount(codes[codes >= 0], minlength=len(classes))
    if (sizes >= 2).sum() < 2:
        msg = (
            f"samples.obs[{key!r}] has {(sizes >= 2).sum()} classes with at least two samples (of {len(classes)} classes in "
            f"{sizes.sum()} labelled samples); two are needed. A continuous column must be cut into classes first "
            "(pandas.cut), or be given to trajectory_correlation."
        )
        raise ValueError(msg)
    if (sizes < 2).any():
        lone = classes[sizes < 2]
        msg = (
            f"{len(lone)} of {len(classes)} classes of samples.obs[{key!r}] have a single sample and are left out "
            f"(first: {_checks.first(lone.tolist())}): without it, no neighbour of the class is left."
        )
        warn(msg, UserWarning, stacklevel=4)
    new = np.full(len(classes) + 1, -1)  # code -1 picks the last entry
    new[np.flatnonzero(sizes >= 2)] = np.arange((sizes >= 2).sum())
    return new[codes], int((sizes >= 2).sum())


def _retention_table(
    samples: AnnData,
    label_keys: str | Sequence[str],
    *,
    use_rep: Keys,
    obsp_key: Keys,
    metric: str,
    n_neighbors: int,
    groups_key: str | None,
    n_permutations: int,
    rng: np.random.Generator | int | None,
) -> pd.DataFrame:
    labels = {key: _repeated_classes(samples, key) for key in _as_list(label_keys)}
    allowed = candidates(samples, groups_key=groups_key)
    groups, order = (read_groups(samples, key, np.arange(samples.n_obs)) for key in (groups_key, None))
    seed = seed_of(rng)  # the same for all labels and representations: each is tested as if it were alone
    reps = [("obsm", k) for k in _as_list(use_rep)] + [("obsp", k) for k in _as_list(obsp_key)] or [("obsm", "X")]
    rows = []
    for kind, rep in reps:
        which = {"use_rep": rep, "metric": metric} if kind == "obsm" else {"obsp_key": rep}
        distances = get_distances(samples, **which)
        for key, (codes, n_classes) in labels.items():
            use = np.flatnonzero(codes >= 0)
            y, d, is_candidate = codes[use], distances[np.ix_(use, use)], allowed[np.ix_(use, use)]
            require_reachable(is_candidate, y[:, None] == y[None, :], key)
            weights = neighbor_weights(d, n_neighbors, is_candidate=is_candidate, names=samples.obs_names[use])
            f1 = label_metrics(y, vote(weights, d, y), n_classes)["f1_macro"]
            of_group = groups[use]
            warn_of_few_rearrangements(y, of_group, n_permutations, label_key=key, is_class=True)
            draw, null = np.random.default_rng(seed), []
            for _ in range(n_permutations):
                shuffled = y[permute_labels(y, of_group, draw, order=order[use])]
                null.append(label_metrics(shuffled, vote(weights, d, shuffled), n_classes)["f1_macro"])
            rows.append(
                {
                    "label_key": key,
                    "representation": rep,
                    "kind": kind,
                    "n_samples": len(use),
                    "n_classes": n_classes,
                    "f1_macro": f1,
                    "retention": chance_corrected_f1(f1, n_classes),
                    "chance": np.mean([chance_corrected_f1(v, n_classes) for v in null]) if null else np.nan,
                    # of the F1 itself: the clipping would tie everything below chance
                    "p_value": (1 + np.sum(np.asarray(null) >= f1 - 1e-12)) / (1 + len(null)) if null else np.nan,
                }
            )
    return pd.DataFrame(rows)

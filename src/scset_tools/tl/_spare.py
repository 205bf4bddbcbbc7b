"""The SPARE benchmark of sample representations: its schema, its four metrics, and ours beside them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scset_tools import _checks, _labels
from scset_tools._numbers import checks_numbers
from scset_tools._permutation import warn_of_few_rearrangements
from scset_tools._short_repr import ShortRepr
from scset_tools.tl._distance_tables import in_sample_order
from scset_tools.tl._intervals import benjamini_hochberg
from scset_tools.tl._neighbors import candidates
from scset_tools.tl._representation import get_distances
from scset_tools.tl._robustness import replicate_robustness
from scset_tools.tl._spare_scores import TASKS, corrected_score, published_score
from scset_tools.tl._splits import read_groups, seed_of
from scset_tools.tl._trajectory import trajectory_correlation

if TYPE_CHECKING:
    from anndata import AnnData

TYPES = ("relevant", "technical", "contextual")
RELEVANT_WEIGHT = 2 / 3
"""Share of the relevant covariates in SPARE's total; the technical ones have the rest."""


@dataclass(frozen=True, repr=False)
class SpareResult(ShortRepr):
    """SPARE's scores of representations, as published and corrected.

    Attributes
    ----------
    scores
        One row per representation and covariate: ``representation``, ``covariate``, ``covariate_type``, ``task``, ``n_samples``, ``metric``
        (``"f1_macro"`` or ``"spearman"``), ``spare`` (as published; of technical covariates 1 less the score), ``raw``, ``chance``,
        ``corrected``, ``ci_low``, ``ci_high`` (0 is chance and 1 is perfect; technical ones turned round, so that 1 is chance), ``p_value``
        (that the covariate is known) and ``p_adjusted``.
    trajectory
        One row per representation: ``spare`` (Spearman of pseudotime and covariate), ``corrected`` (without the root, who was chosen by the
        covariate), ``p_value``; empty if none was asked.
    replicates
        One row per representation: ``spare`` (1 - U / (N - 1)), ``chance``, ``corrected``, ``p_value``; empty if none were asked.
    skipped
        Representations, covariates and questions that were left out, with the reason: ``what``, ``name``, ``reason``.
    """

    scores: pd.DataFrame
    trajectory: pd.DataFrame
    replicates: pd.DataFrame
    skipped: pd.DataFrame

    def summary(self) -> pd.DataFrame:
        """One row per representation, best corrected total first.

        Columns ``relevant``, ``technical``, ``contextual`` (means of covariates), ``trajectory``, ``replicates`` and ``total`` (2/3 relevant + 1/3
        technical) as published, and each again as ``corrected_...``. Missing where nothing of the kind was asked.
        """
        parts = {}
        for column, prefix in (("spare", ""), ("corrected", "corrected_")):
            wide = self.scores.pivot_table(index="representation", columns="covariate_type", values=column, sort=False)
            wide = wide.reindex(columns=list(TYPES))
            for name in ("trajectory", "replicates"):
                table = getattr(self, name)
                wide[name] = table.set_index("representation")[column] if len(table) else np.nan
            wide["total"] = RELEVANT_WEIGHT * wide["relevant"] + (1 - RELEVANT_WEIGHT) * wide["technical"]
            parts[column] = wide.add_prefix(prefix)
        out = pd.concat([parts["spare"], parts["corrected"]], axis=1).rename_axis(index=None, columns=None)
        by = "corrected_total" if out["corrected_total"].notna().any() else "corrected_relevant"
        out = out.sort_values(by, ascending=False, kind="stable")
        return out.rename_axis(index="representation").reset_index()


@checks_numbers
def spare(
    samples: AnnData,
    schema: Mapping[str, Mapping[str, str]] | str | PathLike[str],
    *,
    use_rep: str | Sequence[str] | None = None,
    obsp_key: str | Sequence[str] | None = None,
    distances: Mapping[str, pd.DataFrame] | None = None,
    n_neighbors: int = 3,
    groups_key: str | None = None,
    trajectory_key: str | None = None,
    root: str | None = None,
    replicate_key: str | None = None,
    n_permutations: int = 199,
    rng: np.random.Generator | int | None = 0,
) -> SpareResult:
    """Score representations as the SPARE benchmark does, with corrected scores beside them.

    What is corrected: samples of one donor are no neighbours of each other (``groups_key``), neighbours at one distance share their
    vote, chance is what permuted labels score and not 1 / classes, and every score has an interval and a p-value. Reports only: nothing is
    written into ``samples``.

    Parameters
    ----------
    samples
        Sample-level AnnData.
    schema
        Path of a ``benchmark_schema.json``, or its content: ``"relevant"``, ``"technical"`` and ``"contextual"``, each with names of columns of
        ``samples.obs`` (or ``var_names``) and their task: ``"classification"``, ``"regression"`` or ``"ranking"``. Columns that are not there are left
        out with a warning.
    use_rep
        One or several ``obsm`` keys (``"X"`` for ``samples.X``).
    obsp_key
        One or several ``obsp`` keys. With neither this nor ``use_rep``: the distances that patpy left
        (``uns["sample_representations"]``), else every full matrix of distances in ``obsp``, else ``samples.X``.
    distances
        Further distances, name -> DataFrame with the names of the samples as index and columns, in any order.
    n_neighbors
        Neighbours that predict; 3 in SPARE.
    groups_key
        Column with the donor.
    trajectory_key
        Covariate (numbers or ordered categories) that diffusion pseudotime should follow.
    root
        Sample from which pseudotime is counted.
    replicate_key
        Column whose equal values mark replicates.
    n_permutations
        Permuted labels for chance and p-value.
    rng
        Seed or generator.

    Returns
    -------
    SpareResult

    Raises
    ------
    KeyError
        If a key, or every covariate, is missing.
    ValueError
        If the schema has other parts or tasks, or distances are none.

    Examples
    --------
    >>> import scset_tools as sst
    >>> samples = sst.profiles.mean(sst.datasets.composition_cohort(n_samples=12, n_cells=40), sample_key="sample")
    >>> samples.obs["batch"] = ["a", "a", "b", "b"] * 3
    >>> schema = {"relevant": {"subtype": "classification"}, "technical": {"batch": "classification"}}
    >>> result = sst.tl.spare(samples, schema, n_permutations=19)
    >>> result.summary()["representation"].tolist()
    ['X']
    """
    _checks.require_anndata(samples, caller="tl.spare")
    if (trajectory_key is None) != (root is None):
        msg = f"trajectory_key and root belong together, but are {trajectory_key!r} and {root!r}."
        raise ValueError(msg)
    skipped: list[tuple[str, str, str]] = []
    covariates = _covariates(samples, read_schema(schema), skipped)
    found = _matrices(samples, use_rep, obsp_key, distances, skipped)
    groups, order = (read_groups(samples, key, np.arange(samples.n_obs)) for key in (groups_key, None))
    allowed = candidates(samples, groups_key=groups_key)
    seed = seed_of(rng)
    rows, paths, twins = [], [], []
    for covariate, (_, task, y) in covariates.items():
        has_value, is_class = ~np.isnan(y), task == "classification"
        warn_of_few_rearrangements(
            y[has_value], groups[has_value], n_permutations, label_key=covariate, is_class=is_class
        )
    for name, d in found.items():
        for covariate, (kind, task, y) in covariates.items():
            use = np.flatnonzero(~np.isnan(y))
            part, values = d[np.ix_(use, use)], y[use].astype(int) if task == "classification" else y[use]
            shared: dict[str, Any] = {"task": task, "n_neighbors": n_neighbors}
            theirs = published_score(part, values, **shared)
            ours = corrected_score(
                part,
                values,
                is_candidate=allowed[np.ix_(use, use)],
                groups=groups[use],
                order=order[use],
                names=samples.obs_names[use],
                n_permutations=n_permutations,
                seed=seed,
                **shared,
            )
            if kind == "technical":  # how little is known, so that more is better everywhere
                theirs, ours["corrected"] = 1 - theirs, 1 - ours["corrected"]
                ours["ci_low"], ours["ci_high"] = 1 - ours["ci_high"], 1 - ours["ci_low"]
            metric = "f1_macro" if task == "classification" else "spearman"
            about = {"representation": name, "covariate": covariate, "covariate_type": kind, "task": task}
            rows.append({**about, "n_samples": len(use), "metric": metric, "spare": theirs, **ours})
        of = _as_samples(samples, d)
        options: dict[str, Any] = {"obsp_key": "d", "n_permutations": n_permutations, "rng": seed}
        if trajectory_key is not None:
            paths.append(_trajectory(of, name, trajectory_key, skipped, root=root, groups_key=groups_key, **options))
        if replicate_key is not None:
            result = replicate_robustness(of, replicate_key, **options)
            corrected = (result.robustness - result.chance) / (1 - result.chance)
            found_here = {"spare": result.robustness, "chance": result.chance, "corrected": corrected}
            twins.append({"representation": name, **found_here, "p_value": result.p_value})
    scores = pd.DataFrame(rows)
    scores["p_adjusted"] = benjamini_hochberg(scores["p_value"].to_numpy())
    return SpareResult(
        scores,
        pd.DataFrame([p for p in paths if p]),
        pd.DataFrame(twins),
        pd.DataFrame(skipped, columns=["what", "name", "reason"]),
    )


def read_schema(schema: Mapping[str, Mapping[str, str]] | str | PathLike[str]) -> dict[str, dict[str, str]]:
    """A checked schema: type of covariate -> column -> task."""
    if not isinstance(schema, Mapping):
        try:
            schema = json.loads(Path(schema).read_text(encoding="utf-8-sig"))
        except json.JSONDecodeError as error:
            msg = f"{str(schema)!r} is not JSON: {error}."
            raise ValueError(msg) from error
    if not isinstance(schema, Mapping) or not schema or set(schema) - set(TYPES):
        odd = sorted(set(schema) - set(TYPES)) if isinstance(schema, Mapping) else [type(schema).__name__]
        msg = f"A schema has the parts {TYPES}, each with columns and their tasks, but this one has {_checks.first(odd) if odd else 'none of them'}."
        raise ValueError(msg)
    odd = [f"{c}: {t}" for part in schema.values() for c, t in dict(part).items() if t not in TASKS]
    if odd:
        msg = f"Tasks of a schema are {TASKS}, but {len(odd)} are others: {_checks.first(odd)}."
        raise ValueError(msg)
    seen = [column for part in schema.values() for column in part]
    twice = sorted({c for c in seen if seen.count(c) > 1})
    if twice:
        msg = f"{_checks.first(twice)} stand in two parts of the schema: a covariate is relevant, technical or contextual."
        raise ValueError(msg)
    return {kind: dict(part) for kind, part in schema.items()}


def _covariates(
    samples: AnnData, schema: dict[str, dict[str, str]], skipped: list[tuple[str, str, str]]
) -> dict[str, tuple[str, str, np.ndarray]]:
    """Column -> type, task and values, (samples,), NaN where missing."""
    out: dict[str, tuple[str, str, np.ndarray]] = {}
    asked = [(kind, column, task) for kind, part in schema.items() for column, task in part.items()]
    for kind, column, task in asked:
        if column in samples.obs:
            values = samples.obs[column]
        elif column in samples.var_names:
            x = samples[:, column].X
            values = pd.Series(
                np.asarray(x.toarray() if hasattr(x, "toarray") else x).ravel(), samples.obs_names, name=column
            )
        else:
            skipped.append(("covariate", column, "is neither in obs nor in var_names"))
            continue
        if task == "classification":
            codes = _labels.read_classes(values).codes
            y = np.where(codes < 0, np.nan, codes)
        elif _labels.is_ordered(values):
            codes = _labels.read_classes(values, kind="ordinal").codes
            y = np.where(codes < 0, np.nan, codes)
        else:
            y = _labels.read_numbers(values, way_out="Make it an ordered category, or a classification.")
        n_known = int((~np.isnan(y)).sum())
        if n_known < 4 or len(np.unique(y[~np.isnan(y)])) < 2:
            skipped.append(("covariate", column, f"has one value, or {n_known} samples"))
            continue
        out[column] = (kind, task, y)
    if not out:
        msg = f"None of the {len(asked)} covariates of the schema can be used: {_checks.first([c for _, c, _ in asked], 20)}. Columns: {_checks.first(samples.obs.columns, 20)}."
        raise KeyError(msg)
    left_out = [name for what, name, _ in skipped if what == "covariate"]
    if left_out:
        warnings.warn(
            f"{len(left_out)} of {len(asked)} covariates of the schema are left out: {_checks.first(left_out, 20)}. See result.skipped.",
            UserWarning,
            stacklevel=3,
        )
    return out


def _matrices(
    samples: AnnData,
    use_rep: Any,
    obsp_key: Any,
    distances: Mapping[str, pd.DataFrame] | None,
    skipped: list[tuple[str, str, str]],
) -> dict[str, np.ndarray]:
    """Name -> distances, (samples, samples)."""

    def as_list(keys: Any) -> list[str]:
        return [keys] if isinstance(keys, str) else list(keys or ())

    reps, stored, named = as_list(use_rep), as_list(obsp_key), dict(distances or {})
    out: dict[str, np.ndarray] = {}
    if not reps and not stored and not named:
        left = [str(name) for name in samples.uns.get("sample_representations", [])]
        named = {name: samples.obsm[f"{name}_distances"] for name in left if f"{name}_distances" in samples.obsm}
        for key in [] if named else samples.obsp:
            try:
                out[key] = get_distances(samples, obsp_key=key)
            except ValueError as error:
                skipped.append(("representation", key, str(error)))
        reps = [] if named or out else ["X"]
    out |= {rep: get_distances(samples, use_rep=rep) for rep in reps}
    out |= {key: get_distances(samples, obsp_key=key) for key in stored}
    return out | {name: in_sample_order(samples, table, name=name) for name, table in named.items()}


def _as_samples(samples: AnnData, d: np.ndarray) -> AnnData:
    from anndata import AnnData

    return AnnData(obs=samples.obs, obsp={"d": d})


def _trajectory(
    of: AnnData, name: str, key: str, skipped: list[tuple[str, str, str]], **options: Any
) -> dict[str, Any]:
    """Pseudotime against the covariate, with the root as published, and without."""
    try:
        result = trajectory_correlation(of, key, method="dpt", **options)
    except ValueError as error:
        skipped.append(("trajectory", name, str(error)))
        return {}
    column = of.obs[key]
    ranks = pd.Series(
        column.cat.codes.where(column.notna()) if _labels.is_ordered(column) else _labels.read_numbers(column),
        of.obs_names,
    )
    theirs = result.ordering.corr(ranks, method="spearman")
    return {"representation": name, "spare": theirs, "corrected": result.correlation, "p_value": result.p_value}

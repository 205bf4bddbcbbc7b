"""Many representations, labels and probes on identical folds, with paired differences to a baseline."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, clone
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from scset_tools import _checks
from scset_tools._backed import Backed
from scset_tools._joined import one_anndata
from scset_tools._numbers import checks_numbers
from scset_tools._samples import sample_obs
from scset_tools.tl._benchmark_result import KEYS, BenchmarkResult
from scset_tools.tl._corrected import CORRECTED, FoldCorrection
from scset_tools.tl._estimators import DISTANCE_PROBES, PROBES, Probe, auto_probe, choose_probe
from scset_tools.tl._learner import Learner
from scset_tools.tl._probe import check_kind_metric, fit_fold, fold_table, read_input, require_events
from scset_tools.tl._representation import get_representation
from scset_tools.tl._result import independent_units, metrics_of
from scset_tools.tl._splits import Fold, make_folds, read_groups, seed_of, usable_cv
from scset_tools.tl._targets import Target, read_target

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


@checks_numbers
def benchmark(
    data: AnnData | MuData,
    representations: Mapping[str, Any] | Sequence[str] | str,
    label_keys: Sequence[str] | str,
    *,
    sample_key: str | None = None,
    modalities: Sequence[str] | str | None = None,
    probes: Sequence[Probe] | Probe = ("auto",),
    groups_key: str | None = None,
    cv: int = 5,
    n_repeats: int = 5,
    tune: bool = True,
    target: str | Mapping[str, str] = "auto",
    event_key: str | Mapping[str, str] | None = None,
    baseline: str | None = None,
    metric: str | None = None,
    batch_key: str | None = None,
    batch_covariates: Sequence[str] | str = (),
    rng: np.random.Generator | int | None = 0,
    n_jobs: int = 1,
    progress: bool = True,
) -> BenchmarkResult:
    """Score many representations of the same samples on identical folds.

    The folds of a label depend on the label, the groups and the seed alone, and are those of :func:`probe` with the same
    arguments. Representations that have to be fitted are fitted anew on the training samples of each fold.

    Parameters
    ----------
    data
        Sample-level AnnData; or, with ``sample_key``, cells, also of a MuData.
    representations
        Sample-level data: name -> ``"X"``, a key of ``obsm``, or a key of ``obsp`` (a distance matrix: probes ``"knn"`` and ``"svc"`` only);
        or a list of such keys. Cells: name -> profile, an unfitted object with ``fit(adata, samples=names)`` and
        ``transform(adata)`` (to a sample-level AnnData), such as those of ``scset_tools.profiles``; it is cloned for each fold. A
        model that learns labels itself, ``scset_tools.model.ModelProfile(..., finetune={"end to end": {"mode": "end_to_end"}})``,
        is fine-tuned on the training samples of each fold: each of its ways is a row in the place of a probe.
    label_keys
        Columns of ``obs``; constant within samples if ``data`` holds cells.
    sample_key
        Column of ``data.obs`` with the sample of each cell. None: ``data`` is sample-level.
    modalities
        With a MuData: the modality that representations are fitted to, or several, whose cells are joined first
        (:func:`scset_tools.pp.join_modalities`); for representations of ``obsm`` join them yourself.
    probes
        See :func:`probe`; ``"auto"`` follows each label and representation, and rows bear the name of the probe that was taken. A probe that does not fit a label, or not a distance matrix, is left out there and listed in
        ``skipped`` of the result.
    groups_key, cv, n_repeats, tune
        As in :func:`probe`.
    target, event_key
        As in :func:`probe`, for all labels, or a dict from label to its own.
    baseline
        Name of the representation that the others are compared with.
    metric
        Metric of summary and differences; all metrics are computed in any case.
    batch_key
        Column of ``obs`` with the batch: every representation of vectors is judged a second time, as ``"<name>, corrected"``, with the batch
        effects subtracted that a linear model (see :func:`scset_tools.pp.correct_samples`) finds in the training samples of each fold. The cost on a
        label is the difference of the two rows; the gain is seen with the batch among ``label_keys``.
    batch_covariates
        Columns whose effects the correction keeps, of the training samples alone. Not a label of this call.
    rng
        Seed or generator.
    n_jobs
        Number of processes, over folds. Results do not depend on it. Each opens a backed file anew.
    progress
        Whether to show a progress bar over folds.

    Returns
    -------
    Results per fold, with ``summary()``, ``differences()`` and ``plot()``; see :class:`BenchmarkResult`.

    Raises
    ------
    KeyError
        If a key is missing.
    TypeError
        If cells come with something that is not a profile.
    ValueError
        As in :func:`probe`; if a key is ambiguous; if no probe fits a label; if a label varies within samples.

    Examples
    --------
    >>> import scset_tools as sst
    >>> cells = sst.datasets.composition_cohort(n_samples=12, n_cells=40)
    >>> profiles = {
    ...     "mean": sst.profiles.Mean(sample_key="sample"),
    ...     "random": sst.profiles.RandomVector(sample_key="sample"),
    ... }
    >>> result = sst.tl.benchmark(
    ...     cells, profiles, "subtype", sample_key="sample", cv=3, n_repeats=1, tune=False, progress=False
    ... )
    >>> sorted(result.results["representation"].unique())
    ['mean', 'random']
    """
    data = one_anndata(data, sample_key, modalities, caller="tl.benchmark")
    kinds, label_keys = _as_list(probes), _as_list(label_keys)
    events = [event for key in label_keys if (event := _of(event_key, key, None)) is not None]
    kept = _as_list(batch_covariates)
    if kept and batch_key is None:
        msg = f"batch_covariates={kept} are kept by a correction of batches: pass batch_key as well."
        raise ValueError(msg)
    own = [key for key in kept if key in (*label_keys, *events)]
    if own:
        msg = (
            f"batch_covariates {_checks.first(own)} are predicted as well. A correction that keeps a label subtracts its counterpart from the test "
            "samples by their batch, so that random vectors predict the label wherever batches differ in it. Leave it out."
        )
        raise ValueError(msg)
    used = [*label_keys, *events, *kept, *(key for key in (groups_key, batch_key) if key is not None)]
    samples, entries = _entries(data, representations, used, sample_key=sample_key)
    names_out = [
        name
        for entry in entries.values()
        for name in (
            [entry.name] if batch_key is None or entry.is_distance else [entry.name, f"{entry.name}{CORRECTED}"]
        )
    ]
    if baseline is not None and baseline not in names_out:
        msg = f"baseline={baseline!r} is not among the representations {_checks.first(names_out, 20)}."
        raise ValueError(msg)
    seed = seed_of(rng)
    labels, n_units, skipped, tasks = {}, {}, [], []
    for key in label_keys:
        label = read_target(samples, key, target=_of(target, key, "auto"), event_key=_of(event_key, key, None))
        if metric is not None:
            check_kind_metric(metric, label.kind)
        pairs, left_out = _fitting(entries, kinds, label)
        event = _of(event_key, key, None)
        skipped += left_out
        groups = read_groups(samples, groups_key, label.rows)
        folds = usable_cv(label, groups, cv)
        inputs = {
            name: entry if entry.profile is not None else entry.read(samples, label)
            for name, entry in entries.items()
            if any(name == other for _, other in pairs)
        }
        names = np.asarray(samples.obs_names)[label.rows]
        correction = None if batch_key is None else FoldCorrection.of(samples, label.rows, batch_key, covariates=kept)
        shared = {"label": label, "groups": groups, "pairs": pairs, "inputs": inputs, "tune": tune, "seed": seed}
        shared["correction"] = correction
        shared["learner"] = Learner(samples, label, event) if any(entry.ways for entry in entries.values()) else None
        # an open file cannot be sent to another process, its name can
        cells = None if sample_key is None else (data if n_jobs == 1 or not data.isbacked else Backed.of(data))
        made = make_folds(label.strata(folds), groups, cv=folds, n_repeats=n_repeats, seed=seed)
        require_events(label, made)
        tasks += [delayed(_run_fold)(fold=fold, cells=cells, names=names, **shared) for fold in made]
        labels[key], n_units[key] = label, independent_units(label, groups)
    named = [probe for probe in kinds if probe != "auto"]
    kinds = list(dict.fromkeys([*named, *PROBES, *(way for entry in entries.values() for way in entry.ways)]))
    done = Parallel(n_jobs=n_jobs, return_as="generator")(tasks)
    rows = pd.concat(list(tqdm(done, total=len(tasks), desc="folds", disable=not progress)), ignore_index=True)
    return BenchmarkResult(
        results=_ordered(rows, label_keys, kinds, names_out),
        targets={key: label.kind for key, label in labels.items()},
        n_missing={key: label.n_missing for key, label in labels.items()},
        baseline=baseline,
        metric=metric,
        skipped=pd.DataFrame(skipped, columns=[*KEYS, "reason"]),
        n_units=n_units,
    )


@dataclass(frozen=True)
class _Entry:
    """One representation: a profile to fit, or a key with what it holds, read once per label."""

    name: str
    key: str = ""
    is_distance: bool = False
    profile: Any = None
    x: np.ndarray | None = None

    @property
    def ways(self) -> tuple[str, ...]:
        """Ways in which a model learns labels itself."""
        return tuple(getattr(self.profile, "finetune", None) or ())

    def read(self, samples: AnnData, label: Target) -> _Entry:
        key = {"use_rep": None, "obsp_key": self.key} if self.is_distance else {"use_rep": self.key, "obsp_key": None}
        x, _ = read_input(samples, label, **key)
        return _Entry(self.name, self.key, self.is_distance, None, x)

    def fit(self, cells: AnnData, names: np.ndarray, train: np.ndarray, ask: Callable[[Any], Any]) -> Any:
        """What is asked of the profile, fitted on the samples of ``names`` at ``train``."""
        profile = clone(self.profile) if isinstance(self.profile, BaseEstimator) else deepcopy(self.profile)
        try:
            with threadpool_limits(1):
                profile.fit(cells, samples=list(names[train]))
                return ask(profile)
        except ValueError as error:
            msg = f"Representation {self.name!r}: {error}"
            raise ValueError(msg) from error
        finally:
            if hasattr(
                profile, "model_"
            ):  # a model and its trainer know each other: only this frees the cells of the fold
                del profile
                gc.collect()


def _run_fold(
    *,
    label: Target,
    groups: np.ndarray,
    fold: Fold,
    pairs: Sequence[tuple[str, str]],
    inputs: Mapping[str, _Entry],
    cells: AnnData | Backed | None,
    names: np.ndarray,
    tune: bool,
    seed: int,
    correction: FoldCorrection | None,
    learner: Learner | None = None,
) -> pd.DataFrame:
    """All probes and representations on one fold; a profile is fitted once for all probes."""
    tables = []
    if isinstance(cells, Backed):
        cells = cells.open()
    for name, entry in inputs.items():
        own = [p for p, other in pairs if other == name]
        if entry.ways:
            ask = partial(cast("Learner", learner).run, cells=cells, names=names, fold=fold, ways=own, seed=seed)
            fitted = entry.fit(cast("AnnData", cells), names, fold.train, ask)
            found = [(way, name, prediction) for way, prediction in zip(own, fitted, strict=True)]
        else:
            x = entry.x if cells is None else entry.fit(cells, names, fold.train, partial(_vectors, cells, names))
            variants = {name: cast("np.ndarray", x)}
            if correction is not None and not entry.is_distance:
                variants[f"{name}{CORRECTED}"] = correction(variants[name], fold.train, name=name)
            run: dict[str, Any] = {"groups": groups, "tune": tune, "is_distance": entry.is_distance, "seed": seed}
            found = [
                (probe, variant, fit_fold(label, fold, x=vectors, probe=probe, **run))
                for probe in own
                for variant, vectors in variants.items()
            ]
        for probe, variant, prediction in found:
            where = {"label": label.key, "target": label.kind, "probe": probe, "representation": variant}
            tables.append(fold_table(label, [fold], [prediction]).assign(**where))
    return pd.concat(tables, ignore_index=True)


def _vectors(cells: AnnData, names: np.ndarray, profile: Any) -> np.ndarray:
    return get_representation(profile.transform(cells)[list(names)])


def _entries(
    data: AnnData, representations: Any, used: Iterable[str], *, sample_key: str | None
) -> tuple[AnnData, dict[str, _Entry]]:
    """Sample-level labels, and each representation with what it is."""
    from anndata import AnnData

    _checks.require_anndata(data, caller="tl.benchmark")
    if not isinstance(representations, Mapping):
        representations = {key: key for key in _as_list(representations)}
    if not representations:
        msg = "There are no representations to compare: representations is empty."
        raise ValueError(msg)
    if sample_key is None:
        return data, {name: _key_entry(data, name, value) for name, value in representations.items()}
    odd = [name for name, v in representations.items() if not (hasattr(v, "fit") and hasattr(v, "transform"))]
    if odd:
        msg = (
            f"With sample_key, every representation must be a profile with fit and transform, but {_checks.first(odd)} are "
            "not. Keys of obsm and obsp are for sample-level data, without sample_key."
        )
        raise TypeError(msg)
    for key in used:
        _checks.require_constant_within_sample(data, key, sample_key)
    samples = AnnData(obs=sample_obs(data, sample_key))
    return samples, {name: _Entry(name, profile=value) for name, value in representations.items()}


def _key_entry(samples: AnnData, name: str, key: Any) -> _Entry:
    if not isinstance(key, str):
        msg = (
            f"Representation {name!r} must be 'X', a key of obsm or a key of obsp, not {type(key).__name__}. "
            "Profiles need cells: pass a cell-level AnnData and sample_key."
        )
        raise TypeError(msg)
    if key in samples.obsm and key in samples.obsp:
        msg = f"Representation {name!r}: {key!r} is in both samples.obsm and samples.obsp. Rename one of them."
        raise ValueError(msg)
    if key not in samples.obsm and key not in samples.obsp and key != "X":
        both = [*samples.obsm.keys(), *samples.obsp.keys()]
        msg = f"Representation {name!r}: {key!r} is neither in obsm nor in obsp. Keys: {_checks.first(both, 40)}."
        raise KeyError(msg)
    return _Entry(name, key, key in samples.obsp)


def _fitting(
    entries: Mapping[str, _Entry], probes: Sequence[str], label: Target
) -> tuple[list[tuple[str, str]], list[tuple[str, str, str, str]]]:
    """Pairs (probe, representation) that can be run for a label, and those that cannot, with the reason."""
    pairs = [(way, name) for name, entry in entries.items() for way in entry.ways]
    skipped = []
    entries = {name: entry for name, entry in entries.items() if not entry.ways}
    for asked in probes if entries else ():
        if asked not in ("auto", *PROBES):
            choose_probe(asked, kind=label.kind, label_key=label.key, is_distance=False)
        for name, entry in entries.items():
            probe = auto_probe(label.kind, is_distance=entry.is_distance) if asked == "auto" else asked
            if label.kind not in PROBES[probe][1]:
                skipped.append((label.key, probe, name, f"{probe!r} does not predict a {label.kind!r} target"))
            elif entry.is_distance and probe not in DISTANCE_PROBES:
                skipped.append((label.key, probe, name, f"{probe!r} needs vectors, not distances"))
            elif (probe, name) not in pairs:
                pairs.append((probe, name))
    if not pairs:
        fitting = tuple(p for p, (_, kinds) in PROBES.items() if label.kind in kinds)
        msg = (
            f"None of the probes {tuple(probes)} fits label {label.key!r} (read as {label.kind!r}) and these representations: "
            f"{sorted({reason for *_, reason in skipped})}. For vectors use one of {fitting}, for distances one of "
            f"{tuple(p for p in fitting if p in DISTANCE_PROBES)}."
        )
        raise ValueError(msg)
    return pairs, skipped


def _ordered(rows: pd.DataFrame, label_keys: list[str], probes: list[str], names: list[str]) -> pd.DataFrame:
    """Rows by label, probe and representation as given, then fold; keys first, then metrics."""
    place = [
        rows[column].map({value: i for i, value in enumerate(order)})
        for column, order in zip(KEYS, [label_keys, probes, names], strict=True)
    ]
    rows = rows.iloc[np.lexsort((rows["fold"], rows["repeat"], *reversed(place)))].reset_index(drop=True)
    head = ["label", "target", "probe", "representation", "repeat", "fold"]
    return rows[[*head, *metrics_of(rows), "n_train", "n_test", "is_tuned", "params"]]


def _as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _of(value: Any, key: str, default: Any) -> Any:
    """The entry of a label in a dict, or the value that holds for all."""
    return value.get(key, default) if isinstance(value, Mapping) else value

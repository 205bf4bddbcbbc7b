"""Everything that a report computes, part by part; each is plain values and tables, kept as soon as it is there."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from anndata import AnnData

from scset_tools import _labels, tl
from scset_tools._joined import JOINED
from scset_tools.data._split import split_samples
from scset_tools.reporting._cohort import describe
from scset_tools.reporting._parts import KeptProfile, Parts, Say
from scset_tools.reporting._request import METRIC, PROBE, Request

if TYPE_CHECKING:
    from scset_tools.model import ModelProfile

TRAINED_SHARE = 0.7
UNTRAINED = ", untrained"
N_CELLS_EXPLAINED = 100
"""Cells of a sample that attributions read: enough for contrasts of features, and a report has dozens of runs of them."""
TOLERANCE = 0.05
"""Completeness error of attributions from which steps are doubled: means over samples are shown, not single ones; the largest is told."""
N_FEATURES_SHOWN = 20
BASELINE = "mean"
"""What models are compared with, if it is among the profiles."""


def gather(request: Request, parts: Parts, say: Say) -> dict[str, Any]:
    """All parts of a report, in the order in which they are shown.

    A part that cannot be made of these data, as an attribution to a label of one sample per class, holds the ``reason`` instead.

    Parameters
    ----------
    request
        What is asked.
    parts
        Where results are kept.
    say
        Told of each step.
    """
    steps: list[tuple[str, str, Callable[[], dict[str, Any]]]] = [
        ("cohort", "looking at the cohort", lambda: describe(request)),
        ("split", "splitting the samples", lambda: _split(request)),
    ]
    found: dict[str, Any] = {}
    for name in request.profiles:
        steps.append((f"fit {name}", f"{name}: fitting", partial(_fit_profile, request, name, found)))
    for name in request.models:
        steps.append((f"fit {name}", f"{name}: training on {TRAINED_SHARE:.0%} of the samples", partial(_fit_model, request, name, found)))  # fmt: skip
    if request.label_key is not None:
        steps.append(("scores", _cost(request), lambda: _scores(request, parts, say)))
        if request.batch_key is not None:
            steps.append(("confounding", "asking what else predicts the label", lambda: _confounding(request, found)))
        steps.append(("chance", "permuting the label", lambda: _permuted(request, found)))
        if request.kind == "class":
            steps.append(("neighbours", "finding neighbours", lambda: _neighbours(request, found)))
            for name in request.models:
                what = (
                    f"{name}: attributions of {request.n_seeds} seeds and {request.n_permutations} permuted labelings"
                )
                steps.append((f"trust {name}", what, partial(_trust, request, name)))
    for i, (name, what, make) in enumerate(steps):
        started = time.process_time()
        say(f"[{i + 1}/{len(steps)}] {what}")
        found[name] = parts.get(name, partial(_noting, make))
        for note in found[name]["notes"]:
            say(f"      {note}")
        if "reason" in found[name]:
            say(f"      not done: {found[name]['reason']}")
        elif time.process_time() - started > 5:
            say(f"      {time.process_time() - started:.0f} s of processor")
    return found


def _cost(request: Request) -> str:
    n = request.cv * request.n_repeats
    return f"scoring on {n} folds, with every method fitted anew in each"


def _noting(make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A part with what the library warned of under way, or with the reason why it cannot be made."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            part = make()
        except (KeyError, ValueError, TypeError) as error:  # what the library says of data that do not fit
            part = {"reason": str(error.args[0]) if error.args else str(error)}
    ours = [str(w.message) for w in caught if w.category is UserWarning and "scset_tools" in w.filename]
    return {"notes": [t for t in dict.fromkeys(ours) if "is not trained" not in t], **part}


# ---- vectors


def _split(request: Request) -> dict[str, Any]:
    """Samples that the models of the maps are trained on; all of them, if none can be held out."""
    names = list(request.obs.index.astype(str))
    groups = None if request.groups_key is None else pd.factorize(np.array(request.text_of(request.groups_key)))[0]
    if groups is not None:  # a missing donor is a donor of its own
        groups = np.where(groups < 0, len(names) + np.arange(len(names)), groups)
    strata = None
    if request.events is not None:
        strata = np.array([str(v) for v in request.events])
    elif request.label_key is not None and request.kind != "continuous":
        strata = np.array([str(v) for v in request.text_of(request.label_key)])
    n_units = len(names) if groups is None else len(np.unique(groups))
    if n_units < 4:
        return {"training": names, "held_out": []}
    train, held_out, _ = split_samples(len(names), TRAINED_SHARE, groups=groups, strata=strata, rng=request.seed)
    return {"training": [names[i] for i in train], "held_out": [names[i] for i in held_out]}


def model_profile(request: Request, name: str, *, is_trained: bool = True) -> ModelProfile:
    """A model in the place of a profile.

    Parameters
    ----------
    request
        What is asked.
    name
        Name of the model.
    is_trained
        Whether it is trained.
    """
    from scset_tools.model import ModelProfile

    train = {"enable_progress_bar": False, "seed": request.seed, **request.training(name)}
    return ModelProfile(
        request.models[name],
        sample_key=request.sample_key,
        setup=_setup(request, name),
        build={"random_state": request.seed, **request.build},
        train=train if is_trained else None,
    )


def learns_from_labels(request: Request, name: str) -> bool:
    """Whether a model of the request sees the label when it is trained."""
    return bool(request.models[name]._learns_from_labels)


def _setup(request: Request, name: str) -> dict[str, Any]:
    setup = {"use_rep": request.use_rep, "layer": request.layer}
    if JOINED in request.adata.uns and "open" in request.models[name]._panels:  # as setup_mudata does
        setup["panel"] = "open"
    if learns_from_labels(request, name):
        setup |= {"labels_key": request.label_key, "event_key": request.event_key}
    return {k: v for k, v in setup.items() if v is not None}


def _fit_profile(request: Request, name: str, found: dict[str, Any]) -> dict[str, Any]:
    from sklearn.base import clone

    samples = clone(request.profiles[name]).fit_transform(request.adata, samples=found["split"]["training"])
    return _vectors(samples, found) | _health(samples)


def _fit_model(request: Request, name: str, found: dict[str, Any]) -> dict[str, Any]:
    fitted = model_profile(request, name).fit(request.adata, samples=found["split"]["training"])
    samples = fitted.transform(request.adata)
    of = {} if request.seed is None else {"rng": request.seed}
    return _vectors(samples, found) | _health(fitted.model_, **of)


def _vectors(samples: AnnData, found: dict[str, Any]) -> dict[str, Any]:
    x = tl.get_representation(samples)
    is_training = np.isin(samples.obs_names, found["split"]["training"])
    xy, share = _plane(x, is_training)
    return {"x": x, "xy": xy, "share": share, "samples": list(samples.obs_names)}


def _plane(x: np.ndarray, is_training: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """First two principal components of the training samples, and their share of the variance; others are projected."""
    centred = x - x[is_training].mean(axis=0)
    _, s, vt = np.linalg.svd(centred[is_training], full_matrices=False)
    vt = np.vstack([vt[:2], np.zeros((max(0, 2 - len(vt)), x.shape[1]))])
    s = np.append(s, [0.0, 0.0])
    sign = np.sign(vt[np.arange(2), np.abs(vt).argmax(axis=1)])
    total = float(np.sum(s**2))
    return centred @ (vt * np.where(sign == 0, 1, sign)[:, None]).T, [float(v) for v in s[:2] ** 2 / (total or 1.0)]


def _health(samples: Any, **arguments: Any) -> dict[str, Any]:
    if getattr(samples, "n_vars", 2) == 1:
        return {"health": None, "sentence": "One number per sample: a control, not a representation."}
    try:
        health = tl.representation_health(samples, **arguments)
    except ValueError as error:
        return {"health": None, "sentence": str(error)}
    return {"health": health.summary(), "sentence": str(health)}


# ---- what the label adds


def _samples_of(request: Request, part: dict[str, Any]) -> AnnData:
    """Vectors that were kept, with the columns of the samples."""
    return AnnData(np.asarray(part["x"], dtype=np.float64), obs=request.obs.loc[part["samples"]].copy())


def _scores(request: Request, parts: Parts, say: Say) -> dict[str, Any]:
    n = request.cv * request.n_repeats
    done: dict[str, int] = {}

    def told(name: str) -> None:
        done[name] = done.get(name, 0) + 1
        say(f"      {name}: fold {done[name]} of {n}")

    entries: dict[str, Any] = dict(request.profiles)
    for name in request.models:
        entries[name] = KeptProfile(model_profile(request, name), name=name, parts=parts, say=told)
        entries[f"{name}{UNTRAINED}"] = model_profile(request, name, is_trained=False)
    kind = request.kind
    baseline = BASELINE if BASELINE in request.profiles else next(iter(entries))
    bench = tl.benchmark(
        request.adata,
        entries,
        request.label,
        sample_key=request.sample_key,
        probes=PROBE[kind],
        event_key=request.event_key,
        groups_key=request.groups_key,
        cv=request.cv,
        n_repeats=request.n_repeats,
        baseline=baseline,
        metric=METRIC[kind],
        rng=request.seed,
        progress=False,
    )
    n_classes = request.labels.nunique()
    differences = bench.differences() if len(entries) > 1 else pd.DataFrame()
    folds = bench.results.drop_duplicates(["repeat", "fold"])
    return {
        "summary": bench.summary(),
        "differences": differences,
        "metric": METRIC[kind],
        "chance": {"class": 1 / n_classes, "time_to_event": 0.5}.get(kind, 0.0),
        "probe": PROBE[kind],
        "baseline": baseline,
        "n_samples": int(len(request.labels) - bench.n_missing[request.label]),
        "n_missing": int(bench.n_missing[request.label]),
        "n_folds": int(folds["fold"].nunique()),
        "n_repeats": int(folds["repeat"].nunique()),
    }


def _confounding(request: Request, found: dict[str, Any]) -> dict[str, Any]:
    if request.kind == "time_to_event":
        msg = (
            "What else predicts the label is asked of classes and numbers, not of times to an event. "
            f"tl.probe(..., probe='cox', event_key={request.event_key!r}, groups_key={request.batch_key!r}) holds whole batches out."
        )
        raise ValueError(msg)
    name = primary(request)
    result = tl.confounding(
        _samples_of(request, found[f"fit {name}"]),
        request.label,
        batch_key=cast("str", request.batch_key),
        groups_key=request.groups_key,
        cv=request.cv,
        rng=request.seed,
    )
    return {
        "table": result.summary(),
        "verdict": result.verdict,
        "is_separable": result.is_separable,
        "representation": name,
        "overlap": result.overlap,
    }


def primary(request: Request) -> str:
    """The representation that the sentence to publish is about: the first model that sees no labels, else the baseline.

    It is named before any score is known: the best of several scores would be too good.
    """
    for name in request.models:
        if not learns_from_labels(request, name):
            return name
    return BASELINE if BASELINE in request.profiles else next(iter(request.profiles))


def _permuted(request: Request, found: dict[str, Any]) -> dict[str, Any]:
    """p-value of the label in the vectors of the primary representation, which knows no label."""
    name = primary(request)
    result = tl.probe(
        _samples_of(request, found[f"fit {name}"]),
        request.label,
        probe=PROBE[request.kind],
        event_key=request.event_key,
        metric=METRIC[request.kind],
        groups_key=request.groups_key,
        cv=request.cv,
        n_repeats=1,
        tune=False,
        n_permutations=199,
        rng=request.seed,
    )
    return {"representation": name, "p_value": result.p_value, "n_permutations": 199}


def _neighbours(request: Request, found: dict[str, Any]) -> dict[str, Any]:
    """Who is near whom: a table for vectors that know no label, and held-out samples by the votes of the training samples."""
    held_out = found["split"]["held_out"]
    keys = [request.label, *([request.batch_key] if request.batch_key is not None else [])]
    out: dict[str, Any] = {"tables": {}, "accuracy": [], "reasons": []}
    for name in [*request.profiles, *request.models]:
        samples = _samples_of(request, found[f"fit {name}"])
        try:
            if held_out:
                table = tl.neighbor_accuracy(samples, keys, held_out=held_out, groups_key=request.groups_key)
                rows = table.reset_index().to_dict("records")
                out["accuracy"] += [{"representation": name, **row} for row in rows]
            if name == primary(request):
                near = tl.neighbor_table(samples, request.label, groups_key=request.groups_key)
                out["tables"][name] = {"proportions": near.proportions, "summary": near.summary().reset_index()}
        except (KeyError, ValueError) as error:
            out["reasons"].append(f"{name}: {error.args[0]}")
    return out


def _trust(request: Request, name: str) -> dict[str, Any]:
    from scset_tools.model import trust_attributions

    attribute: dict[str, Any] = {"n_cells": N_CELLS_EXPLAINED, "tolerance": TOLERANCE}
    if request.cell_type_key is not None:
        attribute["groupby"] = request.cell_type_key
    target = request.explained
    result = trust_attributions(
        request.models[name],
        request.adata,
        request.label,
        sample_key=request.sample_key,
        target=target,
        groups_key=request.groups_key,
        setup={k: v for k, v in _setup(request, name).items() if k != "labels_key"},
        build=dict(request.build),
        train={k: v for k, v in request.training(name).items() if k != "seed"},
        attribute=attribute,
        n_seeds=request.n_seeds,
        n_permutations=request.n_permutations,
        rng=request.seed,
    )
    shown = result.features.reindex(result.features["mean"].abs().sort_values(ascending=False, kind="stable").index)
    groups = pd.DataFrame()
    if request.cell_type_key is not None:
        groups = pd.concat([a.groups[target] for a in result.attributions], axis=1).agg(["mean", "std"], axis=1)
        groups = groups.sort_values("mean", key=np.abs, ascending=False, kind="stable").rename_axis("group")
        groups = groups.reset_index()
    return {
        "target": target,
        "features": shown.head(N_FEATURES_SHOWN).rename_axis("feature").reset_index(),
        "n_features": len(result.features),
        "groups": groups,
        "summary": result.summary(),
        "alpha": result.alpha,
        "sentence": repr(result),
        "classes": list(_labels.read_classes(request.labels).names),
    }

"""The public function: check, gather, write."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scset_tools import _checks, _whole
from scset_tools._joined import to_read
from scset_tools._numbers import checks_numbers
from scset_tools.reporting._parts import Parts, Say
from scset_tools.reporting._request import Request

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


@checks_numbers
def report(
    adata: AnnData | MuData,
    output: str | Path,
    *,
    sample_key: str,
    label_key: str | None = None,
    event_key: str | None = None,
    groups_key: str | None = None,
    batch_key: str | None = None,
    cell_type_key: str | None = None,
    modalities: Sequence[str] | str | None = None,
    use_rep: str | Mapping[str, str] | None = None,
    layer: str | Mapping[str, str] | None = None,
    models: Sequence[str] | str = ("MAESTRO",),
    profiles: Mapping[str, Any] | None = None,
    build: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    target: str | None = None,
    cv: int = 5,
    n_repeats: int = 1,
    n_seeds: int = 3,
    n_permutations: int = 10,
    seed: int = 0,
    title: str | None = None,
    full_training: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """One self-contained HTML page on a cohort: what is in it, what its samples' vectors know, and what may be said of it.

    Sections: the sentences that may be published and those that may not; samples, cells, missing labels and design;
    cross-validated scores with intervals of profiles, models and untrained models on the same folds; what else predicts the
    label, with ``batch_key``; maps in which held-out samples stand apart from those trained on; labels of neighbours; health
    of the vectors; attributions with other seeds and permuted labels. A part that cannot be made of these data says why.

    The page works without a network, sorts its tables, shows a sample in every map at once, follows a dark screen and prints
    whole. It holds no date: the same cells and arguments give the same file. Results are kept in ``<output>.parts`` until the
    page is written, each model of each fold as soon as it is there, so that a run that was stopped goes on; cells, labels and
    arguments are part of a checksum, and another cohort never goes on from it.

    Parameters
    ----------
    adata
        Cells; of a MuData those of ``modalities``.
    output
        File to write.
    sample_key
        Column of ``adata.obs`` with the sample of each cell.
    label_key
        Column with the label of each sample: classes, levels, numbers, or times with an ``event_key``; missing values are allowed. Default: a
        report without scores.
    event_key
        Column that says whether the event of a time was seen (True or 1) or the sample was censored (False or 0): scores are then the
        concordance of a Cox model.
    groups_key
        Column with the donor or study of each sample, which no split cuts.
    batch_key
        Column with the technical batch of each sample.
    cell_type_key
        Column with the type of each cell: adds fractions of types, and attributions by type.
    modalities
        With a MuData: the modality to read, or several, of which the complete cells are joined first
        (:func:`scset_tools.pp.join_modalities`). MAESTRO and ScSet then read an open panel.
    use_rep
        Key of ``obsm`` to read, of several modalities one for all or by name. Default: ``X``.
    layer
        Layer to read, likewise.
    models
        Names of models, as ``"MAESTRO"`` or ``["maestro", "pascient"]``; none for profiles alone.
    profiles
        Name -> unfitted profile of :mod:`scset_tools.profiles`. Default: means, k-means fractions, number of cells, and
        fractions where there are cell types.
    build
        Arguments of the constructors of all models.
    train
        Arguments of ``train`` of all models, for instance ``{"max_epochs": 20}``.
    target
        Class that attributions explain. Default: of two the second, of more the most frequent.
    cv
        Folds. Every model is trained in each.
    n_repeats
        How often samples are split anew, with as many trainings more.
    n_seeds
        Trainings that attributions are compared over.
    n_permutations
        Permuted labelings that a model is trained on, to see what attributions are by chance.
    seed
        Of all that is drawn.
    title
        Heading. Default: the name of the label and the sample column.
    full_training
        Whether models are trained by their own defaults. Otherwise MAESTRO and ScSet take about 50 steps of at most 500 cells of each sample,
        unless ``train`` says how long: a report trains a model for the maps, in each fold and for each seed.
    overwrite
        Whether a file may be replaced.
    progress
        Whether to write each step to standard error.

    Returns
    -------
    Path of the page.

    Raises
    ------
    KeyError
        If a column or key is not there.
    OSError
        If the file is there already or cannot be written; before anything is computed.
    TypeError
        If ``adata`` is no AnnData or MuData.
    ValueError
        If a MuData comes without ``modalities``, there are fewer than three samples, a column varies within samples, the label has one
        value only or its times cannot be read, or a name is no model.

    Examples
    --------
    >>> import tempfile
    >>> import scset_tools as sst
    >>> cells = sst.datasets.composition_cohort(n_samples=12, n_cells=40)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     keys = {"sample_key": "sample", "label_key": "subtype"}
    ...     path = sst.report(cells, f"{folder}/report.html", **keys, models=(), progress=False)
    ...     "You may write" in path.read_text()
    True
    """
    path = Path(output)
    require_writable(path, overwrite=overwrite)
    cells, use_rep, layer = to_read(adata, sample_key, modalities, use_rep=use_rep, layer=layer, caller="report")
    request = Request(
        cells,
        sample_key,
        label_key=label_key,
        event_key=event_key,
        groups_key=groups_key,
        batch_key=batch_key,
        cell_type_key=cell_type_key,
        use_rep=use_rep,
        layer=layer,
        models=models_of([models] if isinstance(models, str) else models, label_key=label_key),
        profiles=usual_profiles(
            sample_key=sample_key, cell_type_key=cell_type_key, use_rep=use_rep, layer=layer, seed=seed
        )
        if profiles is None
        else dict(profiles),
        build=dict(build or {}),
        train=dict(train or {}),
        target=target,
        cv=cv,
        n_repeats=n_repeats,
        n_seeds=n_seeds,
        n_permutations=n_permutations,
        seed=seed,
        title=title or usual_title(label_key, sample_key),
        full_training=full_training,
    )
    say = _to_stderr if progress else _nowhere
    parts, text = make(request, path, say)
    try:
        place = path.with_name(f".{path.name}.part")
        place.write_text(text, encoding="utf-8")
        _whole.replace(place, path)
    except OSError as error:
        raise _whole.unwritable(path, error) from error
    parts.drop()
    return path


def make(request: Request, path: Path, say: Say) -> tuple[Parts, str]:
    """The parts, to be dropped once the page is written, and the page.

    Parameters
    ----------
    request
        What is asked.
    path
        Where the page will be: parts are kept beside it.
    say
        Told of each step.
    """
    from scset_tools import __version__
    from scset_tools.reporting._gather import BASELINE, gather, learns_from_labels, primary
    from scset_tools.reporting._page import page, plain_title

    fingerprint = request.fingerprint()
    parts = Parts(path.with_name(f"{path.name}.parts"), fingerprint)
    if len(parts):
        say(f"going on from {len(parts)} results in {path.name}.parts")
    with _quiet() if request.models else nullcontext():
        found = gather(request, parts, say)
    found["asked"] = {
        "title": plain_title(request.title),
        "label_key": request.label_key,
        "event_key": request.event_key,
        "groups_key": request.groups_key,
        "batch_key": request.batch_key,
        "kind": None if request.label_key is None else request.kind,
        "models": list(request.models),
        "called": {name: cls.__name__ for name, cls in request.models.items()},
        "profiles": list(request.profiles),
        "learns": {name: learns_from_labels(request, name) for name in request.models},
        "primary": primary(request),
        "baseline": BASELINE if BASELINE in request.profiles else primary(request),
        "version": __version__,
        "fingerprint": fingerprint,
        "call": _call(request),
        "training": {name: request.training(name) for name in request.models},
    }
    return parts, page(found)


@contextmanager
def _quiet() -> Iterator[None]:
    """Training libraries keep their notes to themselves: a report trains a dozen models."""
    import scvi  # noqa: F401  (it sets the level of its logger when it is imported)

    loggers = [logging.getLogger(name) for name in ("scvi", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")]  # fmt: skip
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def require_writable(path: Path, *, overwrite: bool) -> None:
    """Raise at once where a page could not be written after minutes of work.

    Parameters
    ----------
    path
        File to write.
    overwrite
        Whether it may be there already.
    """
    if path.is_dir():
        raise IsADirectoryError(21, f"{path} cannot be written: it is a folder.")
    if path.exists() and not overwrite:
        raise FileExistsError(17, f"{path} is there already: take another name, or pass overwrite=True.")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(2, f"{path} cannot be written: {folder} is no folder.")
    if not os.access(folder, os.W_OK):
        raise PermissionError(13, f"{path} cannot be written: {folder} may not be written to.")


def models_of(names: Sequence[str], *, label_key: str | None) -> dict[str, Any]:
    """Classes of models by name in lower case.

    Parameters
    ----------
    names
        As users write them.
    label_key
        Label of the report: some models have nothing to learn from without.
    """
    if not names:
        return {}
    from scset_tools import model

    known = {
        name.lower(): cls
        for name, cls in vars(model).items()
        if isinstance(cls, type) and issubclass(cls, model.SampleModelClass) and cls is not model.SampleModelClass
    }
    unknown = [name for name in names if str(name).lower() not in known]
    if unknown:
        msg = f"{_checks.first(unknown)} is no model. There are {_checks.first(sorted(known))}."
        raise ValueError(msg)
    found = {name.lower(): known[name.lower()] for name in names}
    needy = [name for name, cls in found.items() if cls._learns_from_labels]
    if needy and label_key is None:
        msg = f"{needy[0]} learns from labels: name their column, label_key=... (--label-key)."
        raise ValueError(msg)
    return found


def usual_profiles(
    *, sample_key: str, cell_type_key: str | None, use_rep: str | None, layer: str | None, seed: int
) -> dict[str, Any]:
    """The baselines of a report.

    Parameters
    ----------
    sample_key, cell_type_key, use_rep, layer, seed
        As of :func:`report`.
    """
    from scset_tools import profiles

    reads: dict[str, Any] = {"sample_key": sample_key, "use_rep": use_rep, "layer": layer}
    found: dict[str, Any] = {
        "mean": profiles.Mean(**reads),
        "kmeans_fractions": profiles.KMeansFractions(**reads, rng=seed),
        "number_of_cells": profiles.NumberOfCells(sample_key=sample_key),
    }
    if cell_type_key is not None:
        found["fractions"] = profiles.Fractions(sample_key=sample_key, cell_type_key=cell_type_key)
    return found


def usual_title(label_key: str | None, sample_key: str) -> str:
    """A heading for who gave none.

    Parameters
    ----------
    label_key, sample_key
        As of :func:`report`.
    """
    return f"Cohort report: samples of {sample_key!r}" + ("" if label_key is None else f", label {label_key!r}")


def _call(request: Request) -> str:
    """The arguments that are not the default ones, as one would type them."""
    keys = ("sample_key", "label_key", "event_key", "groups_key", "batch_key", "cell_type_key", "use_rep", "layer")
    given = [f"{key}={getattr(request, key)!r}" for key in (*keys, "target") if getattr(request, key) is not None]
    given += [f"models={list(request.models)!r}", f"profiles={list(request.profiles)!r}"]
    given += [f"{key}={dict(getattr(request, key))!r}" for key in ("build", "train") if getattr(request, key)]
    given += [f"{key}={getattr(request, key)}" for key in ("cv", "n_repeats", "n_seeds", "n_permutations", "seed")]
    given += ["full_training=True"] * request.full_training
    return f"report(cells, {', '.join(given)})"


def _to_stderr(message: str) -> None:
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def _nowhere(message: str) -> None:
    del message

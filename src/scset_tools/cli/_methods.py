"""Methods by name: every model and every profile of the package, without loading them for ``--help``."""

from __future__ import annotations

import difflib
import inspect
import json
import logging
from collections.abc import Sequence
from typing import Any

import scset_tools
from scset_tools import _checks
from scset_tools.cli._exit import CommandError, ExitCode

UNTRAINED = "-untrained"
"""Ending of the name of a model whose weights stay random: the control that a trained one has to beat."""

PROFILES = {
    "fractions": "Fractions",
    "fractions_and_means": "FractionsAndMeans",
    "kernel_mean": "KernelMean",
    "kmeans_fractions": "KMeansFractions",
    "kmeans_means": "KMeansMeans",
    "mean": "Mean",
    "mean_per_type": "MeanPerType",
    "mixture_fractions": "MixtureFractions",
    "number_of_cells": "NumberOfCells",
    "otke": "OTKE",
    "random_vector": "RandomVector",
    "sequencing_depth": "SequencingDepth",
}
"""Name on the command line, which is that of the function, and class in :mod:`scset_tools.profiles`; a test compares."""


BENCHMARKED = ("mean", "kmeans_fractions", "number_of_cells")
"""What `benchmark` compares on cells unless told otherwise: two profiles that are hard to beat, and a control."""

LEARN_FROM_LABELS = ("pascient",)
"""Models that have nothing to learn from without labels."""


def models() -> dict[str, str]:
    """Name on the command line and public name of every model: those that the package loads from its models."""
    lazy = scset_tools._LAZY
    return {name.lower(): name for name, module in lazy.items() if module == "scset_tools.model" and name != "model"}


def model_class(name: str) -> Any:
    """The class of a model, or an error that lists the names."""
    if name not in models():
        raise _unknown("model", name, sorted(models()))
    cls = getattr(scset_tools, models()[name])
    quiet_libraries()
    return cls


def quiet_libraries() -> None:
    """No advertising and no notes of the training libraries, which set their levels when they are imported."""
    import scvi

    scvi.settings.verbosity = logging.ERROR
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)


def profile(name: str, **offered: Any) -> Any:
    """A profile with those of the offered arguments that it takes and that are given.

    Parameters
    ----------
    name
        One of `PROFILES`.
    **offered
        Arguments by name; None: not given.
    """
    cls = getattr(scset_tools.profiles, PROFILES[name])
    takes = inspect.signature(cls).parameters
    missing = [key for key, p in takes.items() if p.default is p.empty and key in offered and offered[key] is None]
    if missing:
        msg = f"{name} needs {', '.join('--' + key.replace('_', '-') for key in missing)}."
        raise CommandError(msg, ExitCode.USAGE)
    return cls(**{key: value for key, value in offered.items() if key in takes and value is not None})


def require_method(name: str) -> None:
    """Raise unless this is the name of a model or of a profile."""
    if name not in models() and name not in PROFILES:
        raise _unknown("method", name, [*sorted(models()), *PROFILES])


def require_labels(name: str, setup: dict[str, Any], build: dict[str, Any], *, option: str = "--labels-key") -> None:
    """Raise where a model that learns from labels is given none; PaSCient may contrast cell types instead."""
    if name in LEARN_FROM_LABELS and setup.get("labels_key") is None and not build.get("contrastive_weight"):
        raise CommandError(f"{name} learns from labels: name their column with {option}.", ExitCode.USAGE)


def require_accelerator(name: str) -> None:
    """Raise where there is no such device, before Lightning does in many lines."""
    if name not in ("auto", "cpu", "gpu", "cuda"):
        raise CommandError(f"--accelerator takes cpu, gpu or auto, but was given {name!r}.", ExitCode.USAGE)
    if name in ("gpu", "cuda"):
        import torch

        if not torch.cuda.is_available():
            msg = f"--accelerator {name}: torch {torch.__version__} finds no GPU here. Pass --accelerator cpu, or auto."
            raise CommandError(msg, ExitCode.USAGE)


def require_arguments(name: str, build: dict[str, Any], train: dict[str, Any]) -> None:
    """Raise if a model has no such argument of its constructor or of ``train``, before anything is read.

    Parameters
    ----------
    name
        Of a model, trained or not.
    build, train
        Arguments by name, of ``--build`` and ``--train``.
    """
    if not (build or train):
        return
    cls = model_class(name.removesuffix(UNTRAINED))
    require_known("--build", build, cls.__init__)
    if train:
        from lightning.pytorch import Trainer as LightningTrainer
        from scvi.train import Trainer

        require_known("--train", train, cls.train, Trainer.__init__, LightningTrainer.__init__)


def require_known(option: str, given: dict[str, Any], *functions: Any) -> None:
    """A mistyped argument is told with the nearest names, or with those that there are.

    Parameters
    ----------
    option
        Of the command line.
    given
        Arguments by name.
    *functions
        What takes them.
    """
    known = [name for name in _checks.arguments_of(*functions) if name != "registry"]
    try:
        _checks.require_known_arguments(given, known, of=option)
    except TypeError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error


def takes_cell_types(name: str) -> bool:
    """Whether a model or profile reads ``cell_type_key``."""
    name = name.removesuffix(UNTRAINED)
    function = getattr(scset_tools.profiles, PROFILES[name]) if name in PROFILES else model_class(name).setup_anndata
    return "cell_type_key" in inspect.signature(function).parameters


def starting_with_method(incomplete: str) -> list[str]:
    """Methods of `fit`, for the completion of the shell."""
    return [name for name in (*sorted(models()), *PROFILES) if name.startswith(incomplete)]


def starting_with_compared(incomplete: str) -> list[str]:
    """The same with untrained models, for `benchmark`."""
    names = [variant for name in sorted(models()) for variant in (name, name + UNTRAINED)]
    return [name for name in (*names, *PROFILES) if name.startswith(incomplete)]


def _unknown(kind: str, name: str, known: Sequence[str]) -> CommandError:
    near = difflib.get_close_matches(name.lower(), known, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    return CommandError(f"{name!r} is not a {kind}.{meant} There are {_checks.first(known, 40)}.", ExitCode.USAGE)


def settings_of(pairs: Sequence[str] | None, option: str) -> dict[str, Any]:
    """Arguments from texts: ``n_latent=8`` or ``views=["random"]``. Values that parse as JSON are that, others are text.

    Parameters
    ----------
    pairs
        Texts ``name=value``.
    option
        Name of the option, for the message.
    """
    settings = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            msg = f"{option} takes name=value, as in {option} n_latent=16, but was given {pair!r}."
            raise CommandError(msg, ExitCode.USAGE)
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = {"True": True, "False": False, "None": None}.get(value, value)
    return settings

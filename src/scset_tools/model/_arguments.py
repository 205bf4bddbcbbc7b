"""Arguments that are handed on: one that nobody takes is told by its name before anything is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from scvi.train import Trainer, TrainRunner
from torch.utils.data import DataLoader

from scset_tools._checks import arguments_of, require_known_arguments
from scset_tools.data._splitter import make_loader
from scset_tools.train import TwoRatePlan

TRANSFERRED = ("source_registry", "extend_categories", "allow_missing_labels")
"""Arguments of scvi-tools' ``register_fields`` and of its fields, which come where a set-up is carried over."""
OF_LOADER = {"dataset", "sampler", "batch_sampler", "shuffle", "drop_last", "generator"}
"""What the splitter decides, and no argument of a data loader can."""


def require_setup_arguments(cls: Any, given: Mapping[str, Any], *, method: str = "setup_anndata") -> None:
    """Raise TypeError for what ``setup_anndata`` does not take.

    Parameters
    ----------
    cls
        Class of the model.
    given
        Arguments by name.
    method
        How messages call what was called.
    """
    carried = given.get("source_registry") or {}
    # a model of another version may have registered more
    known = {*_of_method(cls, "setup_anndata"), *TRANSFERRED, *carried.get("setup_args", ())}
    if given.keys() - known:
        elsewhere = {_constructor(cls): arguments_of(cls), f"{cls.__name__}.train": _of_method(cls, "train")}
        known_first = [*_of_method(cls, "setup_anndata"), *TRANSFERRED]
        require_known_arguments(given, known_first, of=f"{cls.__name__}.{method}", elsewhere=elsewhere)


def require_train_arguments(
    cls: Any,
    given: Mapping[str, Any],
    *,
    method: str = "train",
    plan: type | None = None,
    splitter: type | None = None,
    extra: Iterable[str] = (),
) -> None:
    """Raise TypeError for what ``train`` (or ``finetune``), the plan, the splitter or the trainer do not take.

    Parameters
    ----------
    cls
        Class of the model.
    given
        Arguments by name, ``plan_kwargs`` and ``datasplitter_kwargs`` among them.
    method
        Name of the method.
    plan, splitter
        Classes that take ``plan_kwargs`` and ``datasplitter_kwargs``. Default: those of the model.
    extra
        Further arguments that are taken.
    """
    of = f"{cls.__name__}.{method}"
    of_runner = [n for n in arguments_of(TrainRunner) if n not in ("model", "training_plan", "data_splitter")]
    of_trainer = [*of_runner, *arguments_of(Trainer), "ckpt_path"]
    of_plan = arguments_of(plan or cls._training_plan_cls)
    of_splitter = [*arguments_of(splitter or cls._data_splitter_cls, make_loader, DataLoader)]
    places = {
        of: _of_method(cls, method),
        "plan_kwargs={...}": of_plan,
        "datasplitter_kwargs={...}": [n for n in of_splitter if n not in OF_LOADER],
    }
    others = {_constructor(cls): arguments_of(cls), f"{cls.__name__}.setup_anndata": _of_method(cls, "setup_anndata")}
    for name in ("plan_kwargs", "datasplitter_kwargs"):
        nested = given.get(name) or {}
        elsewhere = {place: names for place, names in {**places, **others}.items() if not place.startswith(name)}
        known = next(names for place, names in places.items() if place.startswith(name))
        require_known_arguments(nested, known, of=f"{name} of {of}", elsewhere=elsewhere)
    known = [*places.pop(of), *extra, *of_trainer]
    require_known_arguments(given, known, of=of, elsewhere={**places, **others})


def require_profile_arguments(
    cls: Any,
    *,
    setup: Mapping[str, Any] | None,
    build: Mapping[str, Any] | None,
    train: Mapping[str, Any] | None,
    finetune: Mapping[str, Mapping[str, Any]] | None,
) -> None:
    """Raise TypeError for what the methods of a model do not take.

    Parameters
    ----------
    cls
        Class of the model.
    setup, build, train
        Arguments of ``setup_anndata``, of the constructor and of ``train``.
    finetune
        Ways to learn a label, by name, each with the arguments of ``finetune``, and ``n_labels``.
    """
    require_setup_arguments(cls, setup or {})
    elsewhere = {"setup={...}": _of_method(cls, "setup_anndata"), "train={...}": _of_method(cls, "train")}
    require_known_arguments(build or {}, arguments_of(cls), of=_constructor(cls), elsewhere=elsewhere)
    require_train_arguments(cls, train or {})
    for way in (finetune or {}).values():
        require_train_arguments(cls, way, method="finetune", plan=TwoRatePlan, extra=("n_labels",))


def _constructor(cls: Any) -> str:
    return f"{cls.__name__}(adata, ...)"


def _of_method(cls: Any, name: str) -> list[str]:
    """Arguments of a method and of those that it overrides: an override may hand on whatever it is given."""
    found = [vars(c)[name] for c in cls.__mro__ if name in vars(c)]
    return arguments_of(*(getattr(method, "__func__", method) for method in found))

"""Put splitter, plan, callbacks and trainer together and run them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
import torch
from scvi.train import SaveCheckpoint
from scvi.train._callbacks import LoudEarlyStopping  # not exported

from scset_tools.model._fingerprint import START, fingerprint, start_of
from scset_tools.model._health import MIN_SAMPLES, TwoDraws
from scset_tools.model._runner import SampleTrainRunner
from scset_tools.train import ExpectedTime, ResumeCheckpoint, SaveBestModel, StopAtPlateau, WatchHealth
from scset_tools.train._health import METRICS as HEALTH
from scset_tools.train._quiet import without_adverts
from scset_tools.train._run_folder import alone_in, require_room
from scset_tools.train._threads import warn_of_more_threads

MONITOR = "loss_validation"
OF_STEPS = ("gradient_clip_val", "gradient_clip_algorithm", "precision", "accumulate_grad_batches")
"""Arguments of the trainer that change what a step does."""
VALIDATION_SHARE = 0.1
"""Of the samples, where something watches validation and the user did not say how to split."""


def default_max_epochs(n_steps: int, n_batches: int) -> int:
    """Epochs that make about so many steps of the optimiser, at least one.

    Parameters
    ----------
    n_steps
        Number of steps wanted.
    n_batches
        Number of batches of an epoch, whatever they hold: samples or cells.
    """
    return max(1, round(n_steps / max(1, n_batches)))


def run_training(
    model: Any,
    *,
    max_epochs: int | None,
    early_stopping: bool,
    stop_at_plateau: bool | str = False,
    watch_health: bool = False,
    checkpoint_dir: Path | None,
    splitter_kwargs: dict[str, Any],
    plan_kwargs: dict[str, Any],
    trainer_kwargs: dict[str, Any],
    about: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Train ``model.module`` and set what scvi-tools models have after training (history, indices, trainer).

    ``about`` is what else a checkpoint must agree in, by aspect.
    """
    require_known_device(trainer_kwargs.get("accelerator"))
    warn_of_more_threads()
    resume = None if checkpoint_dir is None else ResumeCheckpoint(checkpoint_dir)
    state = None
    if resume is not None:
        require_room(resume.path.parent, 4 * sum(p.numel() for p in model.module.parameters()))
        state = resume.read()
        if state is not None and splitter_kwargs.get("seed") is None:
            splitter_kwargs = {**splitter_kwargs, "seed": state.get("seed")}  # if it was drawn, so was the split
    splitter_kwargs = _with_validation(
        splitter_kwargs,
        trainer_kwargs,
        plan_kwargs,
        early_stopping=early_stopping,
        stop_at_plateau=stop_at_plateau,
    )
    if pins_memory(trainer_kwargs.get("accelerator")):
        splitter_kwargs = {"pin_memory": True, **splitter_kwargs}
    splitter = model._data_splitter_cls(model.adata_manager, **splitter_kwargs)
    plan = model._training_plan_cls(model.module, **{"seed": splitter.seed, **plan_kwargs})
    plan.sample_names = splitter.names_of
    trainer_kwargs = _trainer_arguments(
        trainer_kwargs,
        n_validation=splitter.n_val,
        n_watched=splitter.n_watched,
        early_stopping=early_stopping,
        stop_at_plateau=stop_at_plateau,
        is_distributed=_is_distributed(trainer_kwargs.get("strategy")),
    )
    health = _health(model, splitter, trainer_kwargs) if watch_health else None
    if plan.reduce_lr_on_plateau:
        where = (splitter.n_val, splitter.n_watched)
        _require_validation("lr_schedule='plateau'", plan.lr_scheduler_metric, "lr_scheduler_metric", *where)
    if max_epochs is None:
        max_epochs = default_max_epochs(model._default_steps(splitter), splitter.n_batches())
    if resume is not None:
        of_training = {
            **splitter_kwargs,
            **plan_kwargs,
            **{k: trainer_kwargs[k] for k in OF_STEPS if k in trainer_kwargs},
        }
        start, run = start_of(model, None if state is None else state.get("run"))
        resume.fingerprint = fingerprint(model, splitter, arguments=of_training, about={**about, START: start})
        resume.run = run if state is None else state.get("run", run)
    if resume is not None and state is not None:
        resume.require_same_run(state)
        resume.require_epochs_left(state, max_epochs)
        trainer_kwargs.setdefault("ckpt_path", str(resume.path))
    if state is None:
        model._before_training(model.module, splitter)
    # as names and before training: a checkpoint of the model has them, and rows mean nothing in another AnnData
    model.train_samples_, model.validation_samples_, model.test_samples_ = splitter.names()
    with without_adverts():
        # said whether or not it was asked for, and not true: here every process sees all validation samples
        warnings.filterwarnings("ignore", message="early_stopping was automatically disabled")
        runner = SampleTrainRunner(
            model, training_plan=plan, data_splitter=splitter, max_epochs=max_epochs, **trainer_kwargs
        )
    model.start_, model.run_ = None, None if resume is None else {"start": start, "name": resume.run}
    if resume is not None:
        # after all others, and unknown to scvi's trainer, which would add its own
        runner.trainer.callbacks.append(resume)
    earlier, was_trained = model.history_, model.is_trained_
    # scvi's own merge of histories drops metrics that the first run did not have
    model.history_, model.is_trained_ = None, False
    is_first = resume is not None and runner.trainer.is_global_zero
    try:
        with without_adverts(), alone_in(resume.path.parent) if resume and is_first else nullcontext():
            # a teacher is in eval mode on purpose; the plan puts the rest in training mode
            warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
            runner()
        model.stopped_after_ = None
        if "fsdp" not in str(trainer_kwargs.get("strategy")).lower():  # where no process holds the whole module
            model._after_training(splitter)
        if health is not None:
            health.look_at_the_end()
    finally:
        if not model.is_trained_ and runner.trainer.global_step:
            model.stopped_after_ = [int(runner.trainer.current_epoch), int(max_epochs)]
        model.is_trained_ = model.is_trained_ or was_trained
        seen = {} if health is None else health.history()
        model.history_ = _join(earlier if was_trained else None, {**(model.history_ or {}), **seen})
    # several processes take the split of the first one, which they do not know before
    model.train_samples_, model.validation_samples_, model.test_samples_ = splitter.names()


def pins_memory(accelerator: Any) -> bool:
    """Whether batches wait in page-locked memory, from which a GPU takes them while the host goes on.

    Parameters
    ----------
    accelerator
        As given by the user.
    """
    return torch.cuda.is_available() and str(accelerator).lower() in ("none", "auto", "gpu", "cuda")


def require_known_device(accelerator: Any) -> None:
    """Raise ValueError for a kind of device that the models cannot compute on.

    Parameters
    ----------
    accelerator
        As given by the user.
    """
    if str(accelerator).lower() == "mps":
        msg = "accelerator='mps' is not supported: parts of the losses are computed in float64, which it lacks. Use 'cpu'."
        raise ValueError(msg)


def _health(model: Any, splitter: Any, trainer_kwargs: dict[str, Any]) -> WatchHealth | None:
    """A watch on the vectors of the training samples, if these are enough and each process holds the whole module."""
    if splitter.n_train < MIN_SAMPLES or "fsdp" in str(trainer_kwargs.get("strategy")).lower():
        return None
    callbacks = trainer_kwargs["callbacks"]
    is_watched = any(getattr(callback, "monitor", None) in HEALTH for callback in callbacks)
    watch = WatchHealth(TwoDraws(model, splitter), every_epoch=is_watched)
    callbacks.insert(0 if is_watched else len(callbacks), watch)  # before those that watch it, after those that stop
    return watch


def _is_distributed(strategy: Any) -> bool:
    name = strategy if isinstance(strategy, str) else getattr(strategy, "strategy_name", type(strategy).__name__)
    return any(word in str(name).lower() for word in ("ddp", "fsdp"))


def _trainer_arguments(
    given: dict[str, Any],
    *,
    n_validation: int,
    n_watched: int,
    early_stopping: bool,
    stop_at_plateau: bool | str,
    is_distributed: bool,
) -> dict[str, Any]:
    out = {
        "log_every_n_steps": 1,
        "early_stopping_monitor": MONITOR,
        "checkpointing_monitor": MONITOR,
        # scvi-tools asks cuDNN for a search of its fastest kernel whenever a size changes, and here every batch has its own
        "benchmark": False,
        **given,
        "callbacks": list(given.get("callbacks") or []),  # scvi's trainer appends to it
        "early_stopping": early_stopping,
    }
    wants_best = out.pop("enable_checkpointing", False)
    if wants_best and not any(isinstance(c, SaveCheckpoint) for c in out["callbacks"]):
        out["callbacks"].append(SaveBestModel(monitor=out["checkpointing_monitor"]))
    if n_validation:
        out.setdefault("check_val_every_n_epoch", 1)  # scvi's default is never
    else:
        out["limit_val_batches"] = 0  # scvi's trainer turns validation on along with some of its options
    if early_stopping:
        monitor = out["early_stopping_monitor"]
        _require_validation("early_stopping", monitor, "early_stopping_monitor", n_validation, n_watched)
    elif stop_at_plateau and not any(isinstance(c, StopAtPlateau) for c in out["callbacks"]):
        out["callbacks"].append(StopAtPlateau() if stop_at_plateau is True else StopAtPlateau(stop_at_plateau))
    out["callbacks"].append(ExpectedTime())
    for callback in out["callbacks"]:
        if isinstance(callback, (SaveCheckpoint, StopAtPlateau)):
            _require_validation(type(callback).__name__, callback.monitor, "monitor", n_validation, n_watched)
    if early_stopping and is_distributed:
        # scvi's trainer drops it with several processes; here each sees all validation samples, so that they agree
        out["early_stopping"] = False
        out["callbacks"].append(
            LoudEarlyStopping(
                monitor=out["early_stopping_monitor"],
                min_delta=out.pop("early_stopping_min_delta", 0.0),
                patience=out.pop("early_stopping_patience", 45),
                mode=out.pop("early_stopping_mode", "min"),
                warmup_epochs=out.pop("early_stopping_warmup_epochs", 0),
            )
        )
    return out


def _with_validation(
    splitter_kwargs: dict[str, Any],
    trainer_kwargs: dict[str, Any],
    plan_kwargs: dict[str, Any],
    *,
    early_stopping: bool,
    stop_at_plateau: bool | str,
) -> dict[str, Any]:
    """Hold a share of the samples out if something watches validation and no split was asked for; nothing otherwise."""
    if any(splitter_kwargs.get(name) is not None for name in ("train_size", "validation_size", "external_indexing")):
        return splitter_kwargs
    watched = [callback.monitor for callback in trainer_kwargs.get("callbacks") or () if hasattr(callback, "monitor")]
    if early_stopping:
        watched.append(trainer_kwargs.get("early_stopping_monitor", MONITOR))
    elif isinstance(stop_at_plateau, str):
        watched.append(stop_at_plateau)
    if trainer_kwargs.get("enable_checkpointing"):
        watched.append(trainer_kwargs.get("checkpointing_monitor", MONITOR))
    if plan_kwargs.get("lr_schedule") == "plateau":
        watched.append(plan_kwargs.get("lr_scheduler_metric", MONITOR))
    if not any("validation" in str(metric) for metric in watched):
        return splitter_kwargs
    return {**splitter_kwargs, "train_size": 1 - VALIDATION_SHARE}


def _require_validation(what: str, metric: str, argument: str, n_validation: int, n_watched: int) -> None:
    if "validation" in metric and not n_watched:
        reason, way_out = "there are no validation samples", "Leave some (train_size=0.8)"
        if n_validation:
            reason = f"none of the {n_validation} validation samples has a label"
            way_out = "Split so that some have one (stratify=True, another seed, external_indexing)"
        msg = f"{what} watches {metric!r}, but {reason}. {way_out}, or watch {argument}='loss_train'."
        raise ValueError(msg)


def _join(earlier: dict[str, pd.DataFrame] | None, later: dict[str, pd.DataFrame] | None) -> dict[str, pd.DataFrame]:
    """Histories of two runs, one after the other, as numbers; a metric of only one run is kept."""
    later = {name: frame.astype(float) for name, frame in (later or {}).items()}
    if not earlier:
        return later
    n_before = max((int(frame.index.max()) + 1 for frame in earlier.values() if len(frame)), default=0)
    joined = dict(earlier)
    for name, frame in later.items():
        frame = frame[frame.index >= 0]  # what was before this run is the end of the earlier one
        frame = frame.set_axis(frame.index + n_before)
        joined[name] = pd.concat([earlier[name], frame]) if name in earlier else frame
    return joined

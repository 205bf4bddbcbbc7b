"""Optimise a module's loss: optimiser, schedule, logging and averaged weights."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Literal, cast

import lightning.pytorch as pl
import torch

from scset_tools._checks import first
from scset_tools.train._sample_mean import SampleMean

SCHEDULES = ("constant", "cosine", "plateau")


class SampleTrainingPlan(pl.LightningModule):
    """Optimises ``module.loss(batch)`` and logs ``loss_train``, ``loss_validation`` and the module's other metrics.

    Not a subclass of scvi-tools' plan, which logs an evidence bound and passes a variational autoencoder's arguments to the
    module. The attributes that scvi-tools' runner and its mlflow logger read are there.

    Parameters
    ----------
    module
        A module with ``metrics`` (names), ``loss(batch) -> LossOutput`` (which may have ``weights``, the numbers of samples behind
        metrics that are not of all) and, if it keeps averaged weights, ``after_step``.
    lr
        Learning rate at the start.
    lr_min
        Learning rate at the end of a cosine schedule.
    lr_schedule
        ``"constant"``, ``"cosine"`` (from ``lr`` to ``lr_min`` over the run) or ``"plateau"`` (lowered whenever
        a metric stops improving).
    lr_factor, lr_patience, lr_scheduler_metric
        Of ``"plateau"``: what the learning rate is multiplied by, after how many epochs without a better value, and of which
        metric.
    n_steps_warmup
        Number of steps over which the learning rate grows linearly to ``lr``.
    weight_decay
        Decoupled weight decay (AdamW) of matrices. Biases, norms and single vectors are not decayed.
    eps, betas
        Of AdamW.
    clip_apart
        Names of parts of the model whose gradients are clipped by their own norm (``gradient_clip_val`` each), the rest of them together.
        Default: one norm of all. Where clipping acts in most steps, one norm lets the part of larger gradients decide how far the other moves.
    seed
        Seed of what a module draws in a training step (dropout, noise). Each step is seeded by (seed, step, rank), so that a
        run that is interrupted and resumed draws what an uninterrupted one would have drawn.
    compile
        Whether :func:`torch.compile` makes one program of the loss of a training step, as far as it can: sizes of sets are numbers that
        differ from batch to batch, at which it is cut into pieces. The first steps take long.
    compile_kwargs
        Of :func:`torch.compile`. Default: ``dynamic=True``, so that not every size is compiled anew.
    """

    # read by scvi.train.TrainRunner and scvi.utils.mlflow_logger
    n_obs_training: int | None = None
    n_obs_validation: int | None = None
    n_epochs_kl_warmup = n_steps_kl_warmup = None
    max_kl_weight = min_kl_weight = 0.0

    steps_unseen: dict[str, int] = {"cpu": 1}  # noqa: RUF012
    """After how many steps at most the loss is looked at, by kind of device; others 16: to look makes the host wait for the GPU."""

    def __init__(
        self,
        module: Any,
        *,
        lr: float = 1e-3,
        lr_min: float = 0.0,
        lr_schedule: Literal["constant", "cosine", "plateau"] = "constant",
        n_steps_warmup: int = 0,
        lr_factor: float = 0.5,
        lr_patience: int = 10,
        lr_scheduler_metric: str = "loss_validation",
        weight_decay: float = 1e-2,
        eps: float = 1e-8,
        betas: tuple[float, float] = (0.9, 0.999),
        clip_apart: Sequence[str] = (),
        seed: int = 0,
        compile: bool = False,
        compile_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if compile_kwargs and not compile:
            msg = f"compile_kwargs={compile_kwargs} has no effect without compile=True."
            raise ValueError(msg)
        if lr_schedule not in SCHEDULES:
            msg = f"lr_schedule={lr_schedule!r} is not one of {first(SCHEDULES)}."
            raise ValueError(msg)
        if lr_schedule == "plateau" and n_steps_warmup:
            msg = f"n_steps_warmup={n_steps_warmup} is for the schedules 'constant' and 'cosine': 'plateau' has no warm-up."
            raise ValueError(msg)
        absent = [name for name in clip_apart if not isinstance(getattr(module, name, None), torch.nn.Module)]
        if absent or isinstance(clip_apart, str):
            parts = first(name for name, _ in module.named_children())
            msg = f"clip_apart={clip_apart!r} must be a list of parts of the model, which are {parts}."
            raise ValueError(msg)
        self.module = module
        self._compiled: Any = (
            torch.compile(module.loss, **{"dynamic": True, **(compile_kwargs or {})}) if compile else None
        )
        self.clip_apart = tuple(clip_apart)
        self.lr, self.lr_min, self.lr_schedule, self.n_steps_warmup = lr, lr_min, lr_schedule, n_steps_warmup
        self.lr_factor, self.lr_patience, self.lr_scheduler_metric = lr_factor, lr_patience, lr_scheduler_metric
        self.weight_decay, self.eps, self.betas, self.seed = weight_decay, eps, betas, seed
        self.reduce_lr_on_plateau = lr_schedule == "plateau"
        self._unseen: list[
            tuple[torch.Tensor, int, str, Any]
        ] = []  # losses that nobody looked at, each with its step and cells
        self.sample_names: Callable[[Any], list[str]] | None = None  # names of the samples of a batch, for messages
        self.meters = torch.nn.ModuleDict(
            {
                f"{name}_{part}": SampleMean()
                for name in ("loss", *self.module.metrics)
                for part in ("train", "validation", "test")
            }
        )

    def setup(self, stage: str) -> None:
        """Put the module in training mode: scvi-tools leaves it in eval mode, and Lightning keeps the mode it finds."""
        if stage == "fit":
            self.module.train()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Loss of one batch, with whatever it draws seeded by the step."""
        key = (self.seed * 1_000_003 + self.global_step) * 1_000_003 + batch_idx * 1_009 + self.global_rank
        _seed_draws(key % 2**63, self.device)
        return self._weighed(self._step(batch, "train"))

    def _weighed(self, out: Any) -> torch.Tensor:
        """The loss, so that the mean of its gradients over processes is that over all samples: one may have fewer than the others."""
        trainer = self._trainer
        if trainer is None or trainer.world_size == 1:
            return cast("torch.Tensor", out.loss)
        own = out.loss.new_tensor(
            float(getattr(out, "weights", {}).get("loss", out.n_obs_minibatch)), dtype=torch.float32
        )
        total: Any = trainer.strategy.reduce(own.clone(), reduce_op="sum")
        return cast("torch.Tensor", out.loss * (own * trainer.world_size / total.clamp_min(1)))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss of one batch of validation samples."""
        self._step(batch, "validation")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss of one batch of test samples."""
        self._step(batch, "test")

    def _step(self, batch: Any, part: str) -> Any:
        loss = self.module.loss if self._compiled is None or part != "train" else self._compiled
        try:
            out = loss(batch)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # of a matrix that is no longer finite
            raise ValueError(
                self._complaint(f"The loss cannot be computed in step {self.global_step} ({part}): {error}", batch)
            ) from error
        cells = SimpleNamespace(rows=getattr(batch, "rows", None))
        self._unseen.append((out.loss.detach(), self.global_step, part, cells))
        if len(self._unseen) >= self.steps_unseen.get(self.device.type, 16):
            self._look_at_losses()
        weights = getattr(out, "weights", {})
        # metrics as objects: Lightning's own mean over processes is too large when they saw unequal numbers of samples
        for name, value in {"loss": out.loss, **out.extra_metrics}.items():
            meter = cast("SampleMean", self.meters[f"{name}_{part}"])
            # a part without a single label has the weight 0 and the mean NaN
            meter.update(value.detach().float(), weight=weights.get(name, out.n_obs_minibatch))
            self.log(
                f"{name}_{part}",
                meter,
                on_step=False,
                on_epoch=True,
                prog_bar=name == "loss",
                batch_size=max(int(out.n_obs_minibatch), 1),
            )
        return out

    def _look_at_losses(self) -> None:
        """Raise for the first loss since the last look that is not finite."""
        unseen, self._unseen = self._unseen, []
        if not unseen or bool(torch.stack([loss for loss, *_ in unseen]).isfinite().all()):
            return
        loss, step, part, cells = next(found for found in unseen if not bool(found[0].isfinite()))
        raise ValueError(self._complaint(f"The loss is {float(loss)} in step {step} ({part})", cells))

    def _complaint(self, what: str, batch: Any = None) -> str:
        """What went wrong, with the samples of the batch and the ways out."""
        samples = (
            ""
            if batch is None or self.sample_names is None
            else f" Samples of the batch: {first(self.sample_names(batch))}."
        )
        return (
            f"{what}.{samples} Their features were finite when they were read, so training diverged: lower the learning rate "
            f"(plan_kwargs={{'lr': {self.lr / 10:g}}}), clip the gradient (gradient_clip_val=1.0), scale the features, or train "
            "in single precision (precision='32-true')."
        )

    def on_train_end(self) -> None:
        """Refuse weights that the last step made unusable."""
        self._look_at_losses()
        bad = [name for name, p in self.module.named_parameters() if not torch.isfinite(p).all()]
        if bad:
            raise ValueError(self._complaint(f"Weights are not finite after the last step: {first(bad)}"))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Let the module average its weights after the optimiser really stepped (accumulated batches do not count)."""
        super().optimizer_step(*args, **kwargs)
        self.module.after_step(self.global_step)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by one norm of all gradients, or by that of each part of ``clip_apart`` and of the rest."""
        if not self.clip_apart:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        if gradient_clip_val is None or gradient_clip_algorithm == "value":
            msg = f"clip_apart={self.clip_apart} needs gradient_clip_val, a norm, but it is {gradient_clip_val} ({gradient_clip_algorithm})."
            raise ValueError(msg)
        parts = [list(getattr(self.module, name).parameters()) for name in self.clip_apart]
        known = {id(p) for part in parts for p in part}
        for part in (*parts, [p for p in self.module.parameters() if id(p) not in known]):
            torch.nn.utils.clip_grad_norm_(part, gradient_clip_val)

    def on_validation_end(self) -> None:
        """Let a plateau schedule see the metrics of validation."""
        self._step_plateau("_validation")

    def on_train_epoch_end(self) -> None:
        """Look at the losses of the last steps, and let a plateau schedule see the metrics of training."""
        self._look_at_losses()
        self._step_plateau("_train")

    def _step_plateau(self, part: str) -> None:
        scheduler = self.lr_schedulers()
        if not isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            return
        if self.lr_scheduler_metric.endswith(part) and not self.trainer.sanity_checking:
            scheduler.step(float(self.trainer.callback_metrics[self.lr_scheduler_metric]))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the seed, which may have been drawn. Weights after a loss that is not finite are not saved."""
        self._look_at_losses()
        checkpoint["seed"] = self.seed

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """What is optimised: matrices with decay, everything else without."""
        trained = [p for p in self.module.parameters() if p.requires_grad]
        is_matrix = [p.ndim > 1 and min(p.shape) > 1 for p in trained]
        groups = [
            {"params": [p for p, m in zip(trained, is_matrix, strict=True) if m], "weight_decay": self.weight_decay},
            {"params": [p for p, m in zip(trained, is_matrix, strict=True) if not m], "weight_decay": 0.0},
        ]
        return [g for g in groups if g["params"]]

    def configure_optimizers(self) -> Any:
        """AdamW with decay on matrices only, and the learning-rate schedule."""
        # asked for by group: an optimiser that is fused as a whole takes gradients as a scaler left them, and those cannot be clipped
        groups = [{**group, "fused": can_fuse(group["params"])} for group in self._parameter_groups()]
        optimizer = torch.optim.AdamW(groups, lr=self.lr, eps=self.eps, betas=self.betas)
        if self.lr_schedule == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=self.lr_factor, patience=self.lr_patience, min_lr=self.lr_min
            )
            # Lightning would step it after the checkpoint of the epoch is written, and not at all in an epoch that is resumed
            config = {"scheduler": plateau, "monitor": self.lr_scheduler_metric, "frequency": sys.maxsize}
            return {"optimizer": optimizer, "lr_scheduler": config}
        if self.lr_schedule == "constant" and not self.n_steps_warmup:
            return optimizer
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._lr_factor_at)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _lr_factor_at(self, step: int) -> float:
        """lr(step) / lr: linear warm-up, then lr_min + (lr - lr_min) (1 + cos(pi t)) / 2 with t from 0 to 1 for a cosine."""
        if step < self.n_steps_warmup:
            return (step + 1) / self.n_steps_warmup
        if self.lr_schedule == "constant" or step == self.n_steps_warmup:
            return (
                1.0  # when the schedule is made, before Lightning knows the number of steps and the epoch it resumes in
            )
        n_steps = self.trainer.estimated_stepping_batches
        done = min(1.0, (step - self.n_steps_warmup) / max(1, n_steps - self.n_steps_warmup))
        low = self.lr_min / self.lr
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done))


def can_fuse(params: Sequence[torch.Tensor]) -> bool:
    """Whether torch steps these parameters in one call: one by one, the dozens of small ones of a model take longer than their arithmetic.

    Parameters
    ----------
    params
        Parameters of one group.
    """
    for device, dtype in {(p.device, p.dtype) for p in params}:
        trial = torch.zeros(1, device=device, dtype=dtype, requires_grad=True)
        trial.grad = torch.zeros_like(trial)
        try:
            torch.optim.AdamW([trial], fused=True).step()
        except RuntimeError:  # a device or a type without this kernel, which torch says in the first step only
            return False
    return True


def _seed_draws(seed: int, device: torch.device) -> None:
    """Seed what a module draws on its device. On a CPU ``torch.manual_seed`` would take milliseconds to do no more."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)

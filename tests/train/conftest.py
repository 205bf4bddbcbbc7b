"""A toy module and a trainer, so that the plan is tested without any model of this package."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from scvi.module.base import LossOutput
from scvi.train._logger import SimpleLogger
from torch import nn

from scset_tools.train import SampleTrainingPlan


class ToyModule(nn.Module):
    """Linear regression with dropout and a frozen copy, which notes what happens to it."""

    metrics = ("size",)

    def __init__(self, dropout_rate: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(2)
        self.token = nn.Parameter(torch.zeros(1, 3))
        self.dropout = nn.Dropout(dropout_rate)
        self.average = nn.Linear(3, 2).requires_grad_(False).eval()
        self.steps: list[int] = []
        self.drawn: list[float] = []
        self.modes: list[bool] = []

    @property
    def device(self) -> torch.device:
        return self.token.device

    def train(self, mode: bool = True) -> ToyModule:
        super().train(mode)
        self.average.eval()
        return self

    def loss(self, batch: dict[str, torch.Tensor]) -> LossOutput:
        self.modes.append(self.training and self.dropout.training)
        if self.training:
            self.drawn.append(float(torch.rand(())))
        out = self.norm(self.linear(self.dropout(batch["x"] + self.token)))
        size = len(batch["x"])
        loss = batch["loss"].mean() + 0.0 * out.sum() if "loss" in batch else (out - batch["y"]).square().mean()
        return LossOutput(loss=loss, n_obs_minibatch=size, extra_metrics={"size": torch.tensor(float(size))})

    def after_step(self, step: int) -> None:
        self.steps.append(step)


class Batches(torch.utils.data.Dataset):
    def __init__(self, batches: Sequence[dict[str, torch.Tensor]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return self.batches[i]


def make_batches(sizes: Sequence[int], *, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [{"x": torch.randn(n, 3, generator=generator), "y": torch.randn(n, 2, generator=generator)} for n in sizes]


def make_loader(batches: Sequence[dict[str, torch.Tensor]]) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(Batches(batches), batch_size=None)


@pytest.fixture
def toy() -> Callable[..., ToyModule]:
    """Build the toy module with the same weights each time."""

    def build(**arguments: Any) -> ToyModule:
        torch.manual_seed(0)
        return ToyModule(**arguments)

    return build


@pytest.fixture
def fit() -> Callable[..., pl.Trainer]:
    """Fit a plan on batches of the given sizes; returns the trainer."""

    def run(
        plan: SampleTrainingPlan,
        train: Sequence[Any] = (4, 4, 4, 4),
        validation: Sequence[Any] | None = None,
        *,
        last: Sequence[pl.Callback] = (),
        ckpt_path: str | None = None,
        model: Any = None,
        **arguments: Any,
    ) -> pl.Trainer:
        loaders = [
            None if part is None else make_loader(part if isinstance(part[0], dict) else make_batches(part, seed=i))
            for i, part in enumerate((train, validation))
        ]
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            logger=SimpleLogger(),
            enable_progress_bar=any(isinstance(c, pl.callbacks.ProgressBar) for c in arguments.get("callbacks", ())),
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **{"log_every_n_steps": 1, "max_epochs": 2, "enable_checkpointing": False, **arguments},
        )
        trainer._model = model
        trainer.callbacks.extend(last)
        with warnings.catch_warnings():
            for message in (
                "The '.*_dataloader' does not have many workers",
                "You defined a `validation_step` but have no `val_dataloader`",
                r"Found \d+ module\(s\) in eval mode",  # the toy's average, on purpose
            ):
                warnings.filterwarnings("ignore", message=message)
            trainer.fit(plan, *loaders, ckpt_path=ckpt_path)
        return trainer

    return run

"""Training stops when what is watched no longer improves, and says beforehand what it may take."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from scset_tools.train import ExpectedTime, ResumeCheckpoint, SampleTrainingPlan, StopAtPlateau
from scset_tools.train._expected_time import in_words


def steps_made(losses, callback, *, n_steps=400, steps_per_epoch=1, name="loss_train"):
    """Steps until the callback stops a run whose steps have these losses."""
    trainer = SimpleNamespace(
        should_stop=False, global_step=0, estimated_stepping_batches=n_steps, progress_bar_callback=None
    )
    while not trainer.should_stop and trainer.global_step < n_steps:
        of_epoch = losses[trainer.global_step : trainer.global_step + steps_per_epoch]
        trainer.global_step += steps_per_epoch
        trainer.callback_metrics = {name: torch.tensor(float(np.mean(of_epoch)))}
        callback.on_train_epoch_end(trainer, None)
    return trainer.global_step


def falling(n=400, floor=0.0):
    return floor + np.exp(-np.arange(n) / 10)


@pytest.mark.parametrize("floor", [0.0, 5.0])
def test_a_loss_that_falls_for_ever_is_flat_when_nothing_is_left_to_gain(floor):
    # blocks of 20 steps with means of 0.454, 0.0615, 0.0083, 0.0011, ...: the last that gains 1 % of the fall before it is
    # the fourth, which ends at step 80, and 80 steps are waited
    assert steps_made(falling(floor=floor), StopAtPlateau()) == 160
    assert steps_made(falling(floor=floor), StopAtPlateau(min_delta=0.1)) == 140
    assert steps_made(falling(floor=floor), StopAtPlateau(patience=40)) == 100


def test_a_loss_that_keeps_improving_is_trained_to_the_end():
    assert steps_made(np.linspace(1, 0, 200), StopAtPlateau(), n_steps=200) == 200


def test_noise_is_averaged():
    noise = np.random.default_rng(0).normal(0, 0.01, 400)
    assert steps_made(np.linspace(1, 0, 400) + noise, StopAtPlateau()) == 400
    assert steps_made(falling() + noise, StopAtPlateau()) < 260


def test_short_runs_are_not_cut():
    assert steps_made(np.ones(74), StopAtPlateau(), n_steps=74) == 74
    assert steps_made(np.ones(100), StopAtPlateau(), n_steps=100) == 75  # a block of 15, and 60 steps


def test_steps_count_and_not_epochs():
    assert steps_made(falling(), StopAtPlateau(), steps_per_epoch=10) == 160
    assert steps_made(falling(1000), StopAtPlateau(), n_steps=1000, steps_per_epoch=100) == 400  # one epoch is a block


def test_another_metric_and_high_values_that_are_good():
    assert steps_made(-falling(), StopAtPlateau(mode="max")) == 160
    assert steps_made(falling(), StopAtPlateau("error_train"), name="error_train") == 160
    with pytest.raises(
        KeyError, match=r"'accuracy_train' no longer improves, but this is not logged. Logged are: \['lo"
    ):
        steps_made(falling(), StopAtPlateau("accuracy_train"))


def test_a_metric_that_is_nan_is_waited_for():
    assert steps_made(np.array([np.nan] * 100 + list(falling(300))), StopAtPlateau()) == 260


def test_arguments():
    with pytest.raises(ValueError, match="mode='low' is not one of"):
        StopAtPlateau(mode="low")
    with pytest.raises(ValueError, match="patience=0 must be 1 step or more"):
        StopAtPlateau(patience=0)


class Losses(pl.Callback):
    """Make the training losses up, one for each step, and die before one if asked."""

    def __init__(self, losses, die_at=None):
        self.losses, self.die_at = losses, die_at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.die_at:
            msg = "killed"
            raise RuntimeError(msg)
        batch["loss"].fill_(float(self.losses[trainer.global_step]))


def batches(n):
    return [{"x": torch.ones(2, 3), "loss": torch.zeros(2)} for _ in range(n)]


def test_a_resumed_run_stops_where_an_uninterrupted_one_does(toy, fit, tmp_path):
    def run(die_at=None, **arguments):
        callbacks = [Losses(falling(), die_at), StopAtPlateau(patience=20)]
        plan = SampleTrainingPlan(toy())
        return fit(plan, batches(5), callbacks=callbacks, max_epochs=20, **arguments).global_step

    last = {"last": [ResumeCheckpoint(tmp_path)]}
    with pytest.raises(RuntimeError, match="killed"):
        run(die_at=43, **last)
    last["ckpt_path"] = str(tmp_path / "last.ckpt")
    assert run(**last) == run() < 100
    assert run(**last) == run()  # one that had stopped does nothing more


# ---- the expected time


class Bar(pl.callbacks.ProgressBar):
    """A progress bar that shows nothing."""

    def disable(self):
        pass


def train(toy, fit, *, max_epochs, has_bar=True):
    callbacks = [ExpectedTime(), *([Bar()] if has_bar else [])]
    fit(SampleTrainingPlan(toy()), (4,) * 5, callbacks=callbacks, max_epochs=max_epochs)


@pytest.fixture
def clock(monkeypatch):
    """A clock on which each step takes two seconds."""
    ticks = itertools.count(0.0, 2.0)
    monkeypatch.setattr("scset_tools.train._expected_time.time.perf_counter", lambda: next(ticks))


@pytest.mark.usefixtures("clock")
def test_the_time_is_told_once_beside_a_progress_bar(toy, fit, capsys):
    train(toy, fit, max_epochs=8)
    said = capsys.readouterr().out
    # told after the fourth step, six seconds after the first: 36 are left
    assert said.count("Training may take about 72 s: 36 steps of 2 s, in 8 epochs at most.") == 1
    train(toy, fit, max_epochs=8, has_bar=False)
    assert "Training may take" not in capsys.readouterr().out


@pytest.mark.usefixtures("clock")
def test_short_training_is_not_announced(toy, fit, capsys):
    train(toy, fit, max_epochs=2)
    assert "Training may take" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "words"), [(42.4, "42 s"), (99, "99 s"), (150, "2 min"), (3600, "60 min"), (9000, "2.5 h")]
)
def test_times_in_words(seconds, words):
    assert in_words(seconds) == words

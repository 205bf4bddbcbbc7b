"""Checkpoints on a toy module: of the best model, and of the whole state of training."""

from __future__ import annotations

import errno
import os

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from scvi.train._callbacks import LoudEarlyStopping

from scset_tools.train import ResumeCheckpoint, SampleTrainingPlan, SaveBestModel


class Model:
    """What SaveBestModel asks of a model of scvi-tools."""

    def __init__(self, module):
        self.module, self.is_trained_, self.trainer, self.saved = module, False, None, []

    def _after_training(self, splitter):
        pass

    def save(self, path, *, save_anndata, overwrite):
        self.saved.append((os.path.basename(path), self.is_trained_, self.module.training))
        os.makedirs(path, exist_ok=overwrite)
        state = {"model_state_dict": self.module.state_dict(), "var_names": np.array(["a"]), "attr_dict": {}}
        torch.save(state, os.path.join(path, "model.pt"))


class Script(pl.Callback):
    """Make the validation losses up, note the weights after each epoch, and die in an epoch if asked."""

    def __init__(self, module, losses=(), die_in=None):
        self.module, self.losses, self.die_in, self.weights = module, losses, die_in, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == self.die_in and batch_idx == 1:
            msg = "killed"
            raise RuntimeError(msg)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if self.losses:
            batch["loss"].fill_(self.losses[trainer.current_epoch])

    def on_validation_end(self, trainer, pl_module):
        self.weights.append(self.module.linear.weight.detach().clone())


def validation():
    return [{"x": torch.ones(2, 3), "loss": torch.zeros(2)}]


def state(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


# ---- the best model


def fit_best(toy, fit, folder, losses, *, last=(), **arguments):
    module = toy()
    model, script = Model(module), Script(module, losses)
    best = SaveBestModel(dirpath=str(folder), **arguments)
    fit(
        SampleTrainingPlan(module, lr=0.1),
        validation=validation(),
        model=model,
        callbacks=[script, best],
        last=last,
        max_epochs=len(losses),
        enable_checkpointing=True,
    )
    return model, script, best


def test_the_best_model_is_kept_and_loaded_at_the_end(toy, fit, tmp_path):
    model, script, best = fit_best(toy, fit, tmp_path, [5.0, 2.0, 3.0, 4.0], load_best_on_end=True)
    assert [p.name for p in tmp_path.iterdir()] == [os.path.basename(best.best_model_path)]
    assert os.path.basename(best.best_model_path) == "epoch=1-step=8-loss_validation=2.0"
    assert torch.equal(model.module.linear.weight, script.weights[1])
    kept = torch.load(os.path.join(best.best_model_path, "model.pt"), weights_only=False)["model_state_dict"]
    assert same(kept, state(model.module))


def test_the_last_weights_stay_unless_the_best_are_asked_for(toy, fit, tmp_path):
    model, script, best = fit_best(toy, fit, tmp_path, [5.0, 2.0, 3.0])
    assert torch.equal(model.module.linear.weight, script.weights[2])
    assert os.path.isdir(best.best_model_path)


def test_nothing_is_saved_beside_the_checkpoint_of_another_callback(toy, fit, tmp_path):
    resume = ResumeCheckpoint(tmp_path / "resume")
    model, *_ = fit_best(toy, fit, tmp_path / "best", [1.0, 2.0, 3.0, 4.0], last=[resume])
    assert [name for name, *_ in model.saved] == ["epoch=0-step=4-loss_validation=1.0"]
    assert resume.path.exists()


def test_saving_leaves_modes_and_training_state_as_they_were(toy, fit, tmp_path):
    model, *_ = fit_best(toy, fit, tmp_path, [3.0, 2.0, 1.0])
    assert [(trained, training) for _, trained, training in model.saved] == [
        (True, False)
    ] * 3  # saved as a trained model
    assert not model.is_trained_
    assert model.module.training
    assert not model.module.average.training  # scvi-tools' own callback would have put it in training mode


def test_every_process_saves_to_the_directory_of_the_first(toy, fit, tmp_path, monkeypatch):
    strategy = pl.strategies.SingleDeviceStrategy
    monkeypatch.setattr(strategy, "broadcast", lambda self, obj, src=0: str(tmp_path / "of_the_first"))
    *_, best = fit_best(toy, fit, tmp_path / "mine", [1.0])
    assert os.path.dirname(best.best_model_path) == str(tmp_path / "of_the_first")


# ---- the state of training


def train(toy, fit, folder, *, die_in=None, resume=False, losses=(), every=1, plan=None, callbacks=(), **arguments):
    """One run, or one part of it: until it dies, or from where it died."""
    module = toy(dropout_rate=0.3)
    script, checkpoint = Script(module, losses, die_in), ResumeCheckpoint(folder, every_n_epochs=every)
    arguments = {"max_epochs": 8, "callbacks": [script, *callbacks], "last": [checkpoint], **arguments}
    plan = SampleTrainingPlan(module, **{"lr": 0.1, "lr_schedule": "cosine", **(plan or {})})
    arguments.setdefault("validation", validation() if losses else (3,))
    if die_in is not None:
        with pytest.raises(RuntimeError, match="killed"):
            fit(plan, **arguments)
        return module, None
    return module, fit(plan, **arguments, ckpt_path=str(checkpoint.path) if resume else None)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({}, id="cosine"),
        pytest.param({"die_in": 1}, id="early"),
        pytest.param({"die_in": 7}, id="late"),
        pytest.param({"every": 3}, id="every_third_epoch"),
        pytest.param({"accumulate_grad_batches": 3}, id="accumulated"),
        pytest.param({"check_val_every_n_epoch": 2}, id="validation_every_second_epoch"),
        pytest.param({"plan": {"lr_schedule": "constant", "n_steps_warmup": 30}}, id="warmup"),
        pytest.param(
            {"plan": {"lr_schedule": "plateau", "lr_patience": 1}, "losses": [9.0, 1, 2, 3, 4, 5, 6, 7]}, id="plateau"
        ),
        pytest.param(
            {"plan": {"lr_schedule": "plateau", "lr_patience": 0, "lr_scheduler_metric": "loss_train"}},
            id="plateau_train",
        ),
    ],
)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(toy, fit, tmp_path, arguments):
    arguments = dict(arguments)
    die_in = arguments.pop("die_in", 4)
    whole, trainer = train(toy, fit, tmp_path / "whole", **arguments)
    train(toy, fit, tmp_path / "cut", die_in=die_in, **arguments)
    resumed, again = train(toy, fit, tmp_path / "cut", resume=True, **arguments)
    assert same(state(whole), state(resumed))
    assert again.current_epoch == 8
    assert again.global_step == trainer.global_step
    assert again.logger.history.keys() == trainer.logger.history.keys()
    for name, frame in trainer.logger.history.items():
        pd.testing.assert_frame_equal(again.logger.history[name].astype(float), frame.astype(float))
    assert list(again.logger.history["loss_train"].index) == list(range(8))


def test_early_stopping_counts_on_after_an_interruption(toy, fit, tmp_path):
    losses = [5.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]

    def stopping():
        return [LoudEarlyStopping(monitor="loss_validation", patience=3, mode="min", warmup_epochs=0)]

    whole, trainer = train(toy, fit, tmp_path / "whole", losses=losses, callbacks=stopping())
    assert trainer.current_epoch == 5  # epochs 2, 3 and 4 are no better than epoch 1
    train(toy, fit, tmp_path / "cut", losses=losses, callbacks=stopping(), die_in=4)
    resumed, again = train(toy, fit, tmp_path / "cut", losses=losses, callbacks=stopping(), resume=True)
    assert again.current_epoch == 5
    assert same(state(whole), state(resumed))
    # a run that had stopped stays stopped
    finished, once_more = train(toy, fit, tmp_path / "cut", losses=losses, callbacks=stopping(), resume=True)
    assert once_more.global_step == trainer.global_step
    assert same(state(whole), state(finished))


def test_the_best_model_is_remembered_after_an_interruption(toy, fit, tmp_path):
    losses = [5.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]

    def run(part, **arguments):
        module = toy(dropout_rate=0.3)
        best = SaveBestModel(dirpath=str(tmp_path / f"best_{part}"), load_best_on_end=True)
        script = Script(module, losses, arguments.pop("die_in", None))
        checkpoint = ResumeCheckpoint(tmp_path / part.split("_")[0])
        plan = SampleTrainingPlan(module, lr=0.1)
        fit(
            plan,
            validation=validation(),
            model=Model(module),
            max_epochs=8,
            enable_checkpointing=True,
            callbacks=[script, best],
            last=[checkpoint],
            **arguments,
        )
        return module, best

    whole, _ = run("whole")
    with pytest.raises(RuntimeError, match="killed"):
        run("cut", die_in=4)
    ckpt_path = str(tmp_path / "cut" / "last.ckpt")
    resumed, best = run("cut_again", ckpt_path=ckpt_path)  # another directory, as the default has the time in its name
    assert same(state(whole), state(resumed))
    assert os.path.dirname(best.best_model_path) == str(tmp_path / "best_cut")
    assert best.best_model_score == 1.0
    finished, _ = run("cut_once_more", ckpt_path=ckpt_path)  # nothing left to train, and still the best weights
    assert same(state(whole), state(finished))


def test_a_finished_run_has_its_history_and_can_be_prolonged(toy, fit, tmp_path):
    done, _ = train(toy, fit, tmp_path, plan={"lr_schedule": "constant"})
    again, resumed = train(toy, fit, tmp_path, plan={"lr_schedule": "constant"}, resume=True)
    assert same(state(done), state(again))
    assert len(resumed.logger.history["loss_train"]) == len(resumed.logger.history["loss_validation"]) == 8
    longer, prolonged = train(toy, fit, tmp_path, plan={"lr_schedule": "constant"}, resume=True, max_epochs=11)
    whole, _ = train(toy, fit, tmp_path / "whole", plan={"lr_schedule": "constant"}, max_epochs=11)
    assert same(state(whole), state(longer))
    assert list(prolonged.logger.history["loss_train"].index) == list(range(11))


def test_a_run_killed_while_writing_leaves_the_previous_file_whole(toy, fit, tmp_path, monkeypatch):
    train(toy, fit, tmp_path, max_epochs=2)
    before = (tmp_path / "last.ckpt").read_bytes()

    def half_written(self, path, *args, **kwargs):
        path.write_bytes(b"half")
        msg = "killed"
        raise RuntimeError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(pl.Trainer, "save_checkpoint", half_written)
        with pytest.raises(RuntimeError, match="killed"):
            train(toy, fit, tmp_path, max_epochs=3, resume=True)
    assert (tmp_path / "last.ckpt").read_bytes() == before
    train(toy, fit, tmp_path, max_epochs=3, resume=True)
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_the_state_of_a_run_can_be_read(toy, fit, tmp_path):
    checkpoint = ResumeCheckpoint(tmp_path)
    assert checkpoint.read() is None
    train(toy, fit, tmp_path, plan={"seed": 4711}, max_epochs=1)
    state = checkpoint.read()
    assert state["seed"] == 4711
    assert state["fingerprint"] == {}
    assert state["history"]["loss_train"]["index"] == [0]


def test_a_full_disk_is_told_with_the_file_and_leaves_the_state_before(toy, fit, tmp_path, monkeypatch):
    train(toy, fit, tmp_path, max_epochs=1)
    before = (tmp_path / "last.ckpt").read_bytes()

    def full(self, path, **kwargs):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", full)
    with pytest.raises(
        OSError, match=r"last.ckpt cannot be written: No space left on device. The state before this epoch"
    ):
        train(toy, fit, tmp_path, max_epochs=3, resume=True)
    assert (tmp_path / "last.ckpt").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]

"""What train() does when nothing is asked for: how long it takes, when it stops, and what it holds out."""

from __future__ import annotations

import pytest
from _cohort import make_cohort
from test_contract import MODELS

from scset_tools.model._training import _with_validation, default_max_epochs
from scset_tools.train import ExpectedTime, StopAtPlateau

FEW = {"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu", "seed": 0}


@pytest.fixture(params=MODELS, ids=str)
def model(request):
    cls, arguments = MODELS[request.param]
    adata = make_cohort()
    cls.setup_anndata(adata, "sample", labels_key="condition")
    return cls(adata, random_state=0, **arguments)


def of_kind(model, kind):
    return [c for c in model.trainer.callbacks if isinstance(c, kind)]


def test_nothing_is_held_out_unless_something_watches_it(model):
    model.train(**FEW)
    assert model.train_samples_ == model.sample_names
    assert model.validation_samples_ == []
    assert "loss_validation" not in model.history
    watched = {"selfguidedmae": "unexplained_train"}.get(model.name, "loss_train")
    assert [c.monitor for c in of_kind(model, StopAtPlateau)] == [watched]
    assert len(of_kind(model, ExpectedTime)) == 1
    model.train(**FEW, early_stopping=True)
    assert (len(model.train_samples_), len(model.validation_samples_)) == (7, 1)
    assert not of_kind(model, StopAtPlateau)


@pytest.mark.parametrize(
    ("asked", "is_watching"),
    [
        ({}, False),
        ({"early_stopping": True}, True),
        ({"early_stopping": True, "trainer": {"early_stopping_monitor": "loss_train"}}, False),
        ({"stop_at_plateau": "loss_validation"}, True),
        ({"trainer": {"enable_checkpointing": True}}, True),
        ({"trainer": {"enable_checkpointing": True, "checkpointing_monitor": "loss_train"}}, False),
        ({"trainer": {"callbacks": [StopAtPlateau("loss_validation"), ExpectedTime()]}}, True),
        ({"plan": {"lr_schedule": "plateau"}}, True),
        ({"plan": {"lr_schedule": "plateau", "lr_scheduler_metric": "loss_train"}}, False),
    ],
)
def test_what_watches_validation(asked, is_watching):
    asked = {"early_stopping": False, "stop_at_plateau": True, "trainer": {}, "plan": {}, **asked}
    trainer, plan = asked.pop("trainer"), asked.pop("plan")
    split = _with_validation({"train_size": None}, trainer, plan, **asked)
    assert split == {"train_size": 0.9 if is_watching else None}
    for given in ({"train_size": 0.5}, {"validation_size": 0.2}, {"external_indexing": [["a"]]}):
        assert _with_validation(given, trainer, plan, **asked) == given  # what was asked for is done


def test_a_plateau_stops_training_unless_told_otherwise():
    cls, arguments = MODELS["pascient"]
    adata = make_cohort()
    cls.setup_anndata(adata, "sample", labels_key="condition")
    model = cls(adata, random_state=0, **arguments)
    model.train(**FEW, validation_size=0.25, stop_at_plateau="loss_validation")
    assert [c.monitor for c in of_kind(model, StopAtPlateau)] == ["loss_validation"]
    assert (len(model.train_samples_), len(model.validation_samples_)) == (6, 2)
    model.train(**FEW, stop_at_plateau=False)
    assert not of_kind(model, StopAtPlateau)
    own = StopAtPlateau(patience=7)
    model.train(**FEW, callbacks=[own])
    assert of_kind(model, StopAtPlateau) == [own]
    with pytest.raises(
        ValueError, match=r"StopAtPlateau watches 'loss_validation', but there are no validation samples"
    ):
        model.train(**FEW, stop_at_plateau="loss_validation", train_size=1.0)
    many = {**FEW, "max_epochs": 100}
    model.train(**many, plan_kwargs={"lr": 1e-12})  # nothing is learned
    assert len(model.history["loss_train"]) < 110


def test_default_epochs_count_the_batches(model):
    wanted = model._default_steps(splitter := model._data_splitter_cls(model.adata_manager, batch_size=4, seed=0))
    n_cells_or_samples = model.adata.n_obs if model.name == "selfguidedmae" else 8
    assert splitter.n_batches() == -(-n_cells_or_samples // 4)
    assert default_max_epochs(wanted, splitter.n_batches()) == round(wanted / splitter.n_batches())
    assert default_max_epochs(100, 1000) == 1

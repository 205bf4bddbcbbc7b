from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from scset_tools import pl
from scset_tools.pl._style import OKABE_ITO


def history(n: int = 5, names: tuple[str, ...] = ("loss_train", "loss_validation", "reconstruction_train")) -> dict:
    return {
        name: pd.DataFrame({name: np.arange(n) + 10.0 * i}, index=pd.Index(range(n), name="epoch"))
        for i, name in enumerate(names)
    }


def test_loss_of_training_and_validation_on_one_axis(legend_texts):
    ax = pl.training_history(history())
    solid, dashed = ax.lines
    np.testing.assert_array_equal(solid.get_ydata(), np.arange(5))
    np.testing.assert_array_equal(dashed.get_ydata(), np.arange(5) + 10.0)
    np.testing.assert_array_equal(dashed.get_xdata(), np.arange(5))
    assert (solid.get_linestyle(), dashed.get_linestyle()) == ("-", "--")
    assert solid.get_color() == dashed.get_color() == OKABE_ITO[0]
    assert legend_texts(ax) == ["train", "validation"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")


def test_several_metrics_have_a_colour_each(legend_texts):
    ax = pl.training_history(history(), metrics=["loss", "reconstruction"])
    assert [line.get_color() for line in ax.lines] == [OKABE_ITO[0], OKABE_ITO[0], OKABE_ITO[1]]
    assert legend_texts(ax) == ["metric", "loss", "reconstruction", "part", "train", "validation"]


def test_a_model_and_other_spellings(legend_texts):
    spelled = history(names=("train_loss_step", "train_loss_epoch", "validation_loss", "elbo_train", "lr"))
    ax = pl.training_history(SimpleNamespace(history=spelled))
    assert [line.get_ydata()[0] for line in ax.lines] == [10.0, 20.0]
    assert legend_texts(ax) == ["train", "validation"]
    assert len(pl.training_history(spelled, metrics="lr").lines) == 1


def test_without_a_loss_everything_is_drawn():
    assert len(pl.training_history(history(names=("elbo_train", "kl_train"))).lines) == 2


def test_one_epoch_is_a_visible_point():
    assert [line.get_marker() for line in pl.training_history(history(n=1)).lines] == ["o", "o"]


def test_gaps_stay_gaps():
    gappy = history()
    gappy["loss_validation"].iloc[1::2] = np.nan
    assert np.isnan(pl.training_history(gappy).lines[1].get_ydata()).sum() == 2


def test_errors():
    with pytest.raises(KeyError, match=r"\['accuracy'\] is not in the history. Metrics: \['loss', 'reconstruction'\]"):
        pl.training_history(history(), metrics="accuracy")
    with pytest.raises(ValueError, match="no curve with a finite value"):
        pl.training_history({})
    with pytest.raises(ValueError, match="SimpleNamespace has no history yet"):
        pl.training_history(SimpleNamespace(history=None))
    with pytest.raises(TypeError, match=r"takes a model with .history or a dict .* given list"):
        pl.training_history([1, 2])

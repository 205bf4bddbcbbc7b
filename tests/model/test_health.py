"""The health of the vectors is noted while a model learns."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from _cohort import FIT, make_cohort
from test_contract import MODELS, assert_same_weights, fit

import scset_tools as sst
from scset_tools._spread import effective_rank, share_between
from scset_tools.train import StopAtPlateau

NAMES = ["effective_rank_train", "share_between_train"]


@pytest.mark.parametrize("kind", MODELS)
def test_rows_before_training_after_some_epochs_and_at_the_end(kind):
    quick = {"max_epochs": 6, "train_size": 1.0, "batch_size": 64}
    model = fit(kind, make_cohort(), **quick)
    for name in NAMES:
        assert list(model.history[name].index) == [-1, 0, 1, 3, 5]
        assert np.isfinite(model.history[name].to_numpy()).all()
    # those of the vectors that the trained model gives: of few cells of the samples, as the rows are
    final = ["effective_rank_final", "share_between_final"]
    sizes = model.adata.obs["sample"].value_counts()
    n_cells = int(min(model._health_cells, np.quantile(sizes, 0.1) // 2))
    given = [model.get_sample_representation(n_cells=n_cells, seed=seed).to_numpy(dtype=float) for seed in (0, 1)]
    assert [list(model.history[name].index) for name in final] == [[5], [5]]
    assert model.history[final[0]].iloc[0, 0] == pytest.approx(effective_rank((given[0] + given[1]) / 2), rel=1e-4)
    assert model.history[final[1]].iloc[0, 0] == pytest.approx(share_between(*given), rel=1e-3)
    # the last row is of the vectors that the model gives, before they are whitened
    whitening = getattr(model.module, "whitening", None)
    fitted = copy.deepcopy(whitening)
    if whitening is not None:
        whitening.reset()
    draws = [model.get_sample_representation(n_cells=n_cells, seed=seed).to_numpy(dtype=float) for seed in (0, 1)]
    assert model.history[NAMES[0]].iloc[-1, 0] == pytest.approx(effective_rank((draws[0] + draws[1]) / 2), rel=1e-4)
    assert model.history[NAMES[1]].iloc[-1, 0] == pytest.approx(share_between(*draws), rel=1e-3)
    if whitening is not None:
        model.module.whitening = fitted
    # watching changes nothing of what is learned
    unseen = fit(kind, make_cohort(), **quick, watch_health=False)
    assert not {*NAMES, *final} & set(unseen.history)
    assert_same_weights(model, unseen)
    health = sst.tl.representation_health(model)
    assert health.n_samples == 8
    assert 0 < health.effective_rank <= 6


def test_a_second_training_goes_on_in_the_history():
    model = fit("scset", make_cohort(), max_epochs=3)
    model.train(**{**FIT, "max_epochs": 2})
    assert list(model.history[NAMES[0]].index) == [-1, 0, 1, 2, 3, 4]


def test_health_can_be_watched():
    model = fit("scset", make_cohort(), max_epochs=5, callbacks=[StopAtPlateau(NAMES[1], mode="max", patience=2)])
    assert len(model.history[NAMES[1]]) == len(model.history["loss_train"]) + 1  # every epoch, and before


def test_a_resumed_run_keeps_its_rows(tmp_path):
    constant = {"plan_kwargs": {"lr_schedule": "constant"}}
    fit("scset", make_cohort(), max_epochs=2, checkpoint_dir=tmp_path, **constant)
    resumed = fit("scset", make_cohort(), max_epochs=4, checkpoint_dir=tmp_path, **constant)
    whole = fit("scset", make_cohort(), max_epochs=4, **constant)
    assert resumed.history[NAMES[0]].equals(whole.history[NAMES[0]])


def test_two_samples_are_too_few_to_tell():
    adata = make_cohort(2)
    assert not set(NAMES) & set(fit("scset", adata, train_size=1.0).history)

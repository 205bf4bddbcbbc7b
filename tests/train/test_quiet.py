"""Training says what concerns it and nothing else."""

from __future__ import annotations

import logging
import warnings

import pytest

import scset_tools as sst
from scset_tools.train._quiet import LOGGERS, without_adverts

pytestmark = pytest.mark.platform


def test_adverts_are_kept_back_and_the_rest_passes(caplog):
    logger = logging.getLogger(LOGGERS[0])
    logger.propagate = True
    with caplog.at_level(logging.INFO, LOGGERS[0]), warnings.catch_warnings(record=True) as caught, without_adverts():
        warnings.simplefilter("always", UserWarning)
        logger.info("💡 Tip: buy")
        logger.info("GPU available: False, used: False")
        warnings.warn("`isinstance(treespec, LeafSpec)` is deprecated", FutureWarning, stacklevel=1)
        warnings.warn("something of the run", UserWarning, stacklevel=1)
    assert [r.getMessage() for r in caplog.records] == ["GPU available: False, used: False"]
    assert [str(w.message) for w in caught] == ["something of the run"]
    assert logger.filters == []


def test_a_training_is_quiet_and_a_set_up_is_shown(caplog, capsys):
    cells = sst.datasets.composition_cohort(n_samples=8, n_cells=20)
    sst.MAESTRO.setup_anndata(cells, sample_key="sample")
    model = sst.MAESTRO(cells, n_latent=4, n_hidden=8)
    with caplog.at_level(logging.INFO, LOGGERS[0]):
        model.train(1, accelerator="cpu", enable_progress_bar=False)
    assert not [r for r in caplog.records if "Tip" in r.getMessage()]
    model.view_anndata_setup()
    assert "sample" in capsys.readouterr().out

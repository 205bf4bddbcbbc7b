"""Fit a model to the cells of a file: what ``fit`` does between reading and writing."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback

from scset_tools._modalities import is_mudata
from scset_tools.cli._exit import CommandError, ExitCode
from scset_tools.cli._methods import require_known

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from anndata import AnnData

    from scset_tools.cli._session import Session


OWN_OPTIONS = ("use_rep", "layer", "labels_key", "batch_key", "cell_type_key")
"""Arguments of ``setup_anndata`` that have an option of their own on the command line."""


class ReportEpochs(Callback):
    """Every epoch to the log; to the terminal at most ten times, unless a progress bar shows them already.

    Parameters
    ----------
    session
        Where to report to.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report.

        Parameters
        ----------
        trainer, pl_module
            Given by Lightning.
        """
        del pl_module
        done, total = trainer.current_epoch + 1, trainer.max_epochs or 0
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self._session.event("epoch", epoch=done, epochs=total, **metrics)
        if not self._session.shows_progress and (done == total or done % max(1, total // 10) == 0):
            losses = ", ".join(f"{n} {v:.4g}" for n, v in metrics.items() if n.startswith("loss"))
            self._session.say(f"epoch {done} of {total}{': ' + losses if losses else ''}")


def fit_model(
    cls: Any, cells: AnnData, *, session: Session, setup: dict[str, Any], build: dict[str, Any], train: dict[str, Any]
) -> Any:
    """Set a model up on cells, build and train it.

    Parameters
    ----------
    cls
        Class of the model.
    cells
        Cells of the training samples.
    session
        Where to report to.
    setup, build, train
        Arguments of ``setup_anndata``, of the constructor and of ``train``.
    """
    takes = inspect.signature(cls.setup_anndata).parameters
    refused = [f"--{name.replace('_', '-')}" for name in setup if name in OWN_OPTIONS and name not in takes]
    if refused:
        raise CommandError(f"{cls.__name__} takes no {', '.join(refused)}.", ExitCode.USAGE)
    given = {k: v for k, v in setup.items() if k not in ("modality", "modalities")}
    given = {k: v for k, v in given.items() if k != "paired" or not is_mudata(cells)}
    require_known("--setup", given, cls.setup_anndata)
    (cls.setup_mudata if is_mudata(cells) else cls.setup_anndata)(cells, **setup)
    model = cls(cells, **build)
    session.say(
        f"training {cls.__name__} on {len(model.sample_names)} samples, {cells.n_obs} cells, {model._n_input} features"
    )
    session.event("model", model=cls.__name__, n_samples=len(model.sample_names), n_cells=int(cells.n_obs))
    model.train(enable_progress_bar=session.shows_progress, callbacks=[ReportEpochs(session)], **train)
    return model

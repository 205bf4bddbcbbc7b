"""What every module of this package writes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass, LossOutput

from scset_tools import _checks
from scset_tools.data._batch import SampleBatch

Batch = Any
"""A :class:`~scset_tools.data._batch.SampleBatch`, or the :class:`~scset_tools.data._cells.CellBatch` of a model of genes."""

Pieces = Callable[[], Iterator[SampleBatch]]
"""One sample in pieces: each call starts over."""


@dataclass
class SampleLoss(LossOutput):
    """A loss and its metrics, of which some may speak of a part of the samples alone."""

    weights: dict[str, int] = field(default_factory=dict)
    """Number of samples behind ``"loss"`` and each metric, where it is not that of the batch: what means over batches weigh by."""


class SampleModule(BaseModuleClass):
    """A network over samples, and its loss.

    Subclasses scvi-tools' base for ``device`` and ``on_load``; its ``inference`` and ``generative``, made for variational
    autoencoders, are neither required nor used.
    """

    is_open: bool = False
    """Whether features may be missing: NaN in all cells of a sample."""

    metrics: tuple[str, ...] = ()
    """Names of the metrics that ``loss`` returns beside the loss."""

    frozen: tuple[str, ...] = ()
    """Names of the :meth:`named_parts` that do not learn, in ``train`` as in ``finetune``."""

    @abstractmethod
    def loss(self, batch: Batch) -> LossOutput:
        """Loss of a batch, averaged over its samples.

        Parameters
        ----------
        batch
            Samples to learn from.
        """

    @abstractmethod
    def represent(self, batch: Batch) -> torch.Tensor:
        """One vector per sample, (samples, n_latent). No randomness, and no influence of batch mates.

        Parameters
        ----------
        batch
            Samples to represent.
        """

    @abstractmethod
    def represent_in_pieces(self, pieces: Pieces) -> torch.Tensor:
        """The vector of one sample of any size in bounded memory, (1, n_latent), equal to ``represent``.

        Parameters
        ----------
        pieces
            Gives the sample in pieces; each call starts over.
        """

    def _location(self, batch: SampleBatch) -> tuple[Any, Any]:
        """``mean`` and ``scale`` of a module that keeps them by batch: (features,), or of the batch of each cell, (cells, features)."""
        module: Any = self
        codes = batch.covariates.get(REGISTRY_KEYS.BATCH_KEY)
        return (module.mean[0], module.scale[0]) if codes is None else (module.mean[codes], module.scale[codes])

    # ---- what is explained of it

    def represent_features(self, x: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The vectors if the cells of the batch had the features ``x``, (samples, n_latent), with a gradient.

        Parameters
        ----------
        x
            Features, (cells, features).
        batch
            Samples, with features of their own.
        """
        return self.represent(replace(batch, x=self._with_missing(x, batch)))

    def _with_missing(self, x: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Features in the place of those of a batch: what is missing there stays missing."""
        return torch.where(batch.x.isnan(), torch.nan, x) if self.is_open else x

    def baseline(self, batch: Batch) -> torch.Tensor | None:
        """The mean of the registered cells, (cells, features), if the module keeps it; attributions start there.

        Parameters
        ----------
        batch
            Samples whose cells are replaced.
        """
        del batch
        return None

    def attention(self, batch: Batch) -> torch.Tensor:
        """Weight of each cell in the pooling of its sample, (cells, n_heads), where there is one.

        Parameters
        ----------
        batch
            Samples.
        """
        raise NotImplementedError

    def attention_in_pieces(self, pieces: Pieces) -> torch.Tensor:
        """The same for one sample of any size.

        Parameters
        ----------
        pieces
            Gives the sample in pieces; each call starts over.
        """
        raise NotImplementedError

    @property
    def no_attention(self) -> str | None:
        """Why there is no attention; None if there is."""
        return "its network does not weigh cells" if type(self).attention is SampleModule.attention else None

    def partial_modules(self) -> Sequence[torch.nn.Module]:
        """The last part of the encoder, which ``finetune(mode="partial")`` trains beside the head; none by default."""
        return ()

    def named_parts(self) -> dict[str, torch.nn.Module]:
        """Parts that can be frozen, by the name that users give them: those that the module is made of, if they learn."""
        children = self.named_children()
        return {n: c for n, c in children if n in self.frozen or any(p.requires_grad for p in c.parameters())}

    def freeze(self, names: Sequence[str]) -> None:
        """Let some parts learn no more; others that were frozen learn again.

        Parameters
        ----------
        names
            Of :meth:`named_parts`.

        Raises
        ------
        ValueError
            If there is no such part, or nothing is left to learn.
        """
        known = self.named_parts()
        absent = [name for name in names if name not in known]
        if absent or isinstance(names, str):
            msg = f"freeze={names!r} must be a list of parts of {type(self).__name__}, which are {_checks.first(known, 50)}."
            raise ValueError(msg)
        if not set(known) - set(names):
            msg = f"freeze={list(names)} leaves nothing to learn."
            raise ValueError(msg)
        self.frozen = tuple(names)
        for name, part in known.items():
            part.requires_grad_(requires_grad=name not in names)

    def after_step(self, step: int) -> None:
        """Called after each step of the optimiser; a module that averages its weights does so here.

        Parameters
        ----------
        step
            Number of steps made so far.
        """

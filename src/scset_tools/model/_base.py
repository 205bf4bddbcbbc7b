"""The base of every model: set up, train, save, load, embed samples."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import rich.pretty  # noqa: F401  (scvi-tools prints a set-up through it, and rich 15 no longer loads it by itself)
from anndata import AnnData

from scset_tools import _checks, _keys
from scset_tools._docs import docs
from scset_tools._joined import CELL_MODALITIES, JOINED
from scset_tools._samples import as_text, sample_adata
from scset_tools.data._splitter import SampleDataSplitter
from scset_tools.model._arguments import require_setup_arguments
from scset_tools.model._inference import represent_samples
from scset_tools.model._init_params import record_init_params, seeded
from scset_tools.model._joint import modality_vectors, sample_mudata
from scset_tools.model._outputs import provenance_of
from scset_tools.model._preset import Preset
from scset_tools.model._pretrained import StartedModel
from scset_tools.model._setup import fields_of, read_labels_key
from scset_tools.model._training import run_training
from scset_tools.model.supervise._targets import Keys
from scset_tools.train import SampleTrainingPlan

if TYPE_CHECKING:
    from mudata import MuData


class SampleModelClass(StartedModel):
    """Base of models that map a sample, a set of cells, to one vector.

    A model sets ``_module_cls``, builds ``self.module`` in its constructor and inherits the rest.

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`, or MuData registered with :meth:`setup_mudata`.
    registry
        Registry of a saved model; used by :meth:`load`.
    """

    _data_splitter_cls = SampleDataSplitter
    _training_plan_cls = SampleTrainingPlan
    _plan_defaults: dict[str, Any] = {}  # noqa: RUF012  (a model replaces it, nobody changes it)
    _presets: dict[str, Callable[[], Preset]] = {}  # noqa: RUF012
    _own_keys: tuple[str, ...] = ()
    """Arguments of ``setup_anndata`` that this model alone has."""
    _forbid_zero_cells = False
    _seeded = staticmethod(seeded)
    _health_cells = 64
    """Cells of a sample that are embedded to watch its vector in training."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            record_init_params(cls)

    @classmethod
    def preset(cls, name: str) -> Preset:
        """Arguments by name: ``p = Model.preset("paper")``, then ``Model(adata, **p.model)`` and ``train(**p.train)``.

        Parameters
        ----------
        name
            ``"default"`` (a CPU, minutes), or one of the model's own: see its page in the user guide.
        """
        known = {"default": Preset, **cls._presets}
        _checks.require_choice("name", name, tuple(known))
        return known[name]()

    # ---- registration

    @classmethod
    @docs.get_sections(base="setup_anndata", sections=["Parameters"])
    @docs.dedent
    def setup_anndata(
        cls,
        adata: AnnData,
        sample_key: str,
        *,
        layer: str | None = None,
        use_rep: str | None = None,
        labels_key: Keys | None = None,
        event_key: str | Mapping[str, str] | None = None,
        batch_key: str | None = None,
        min_cells: int = 1,
        panel: Literal["fixed", "open"] = "fixed",
        **kwargs: Any,
    ) -> None:
        """Register an AnnData for this model. ``obs`` and ``X`` are not touched; ``uns`` gets scvi-tools' own entries.

        Parameters
        ----------
        %(param_adata)s
        %(param_sample_key)s
        %(param_layer)s
        %(param_use_rep)s
        labels_key
            What to predict: a column of ``adata.obs``, several, or columns with their kind, ``"class"``, ``"ordinal"``,
            ``"continuous"`` or ``"time_to_event"``. Without a kind, ordered categories are ordinal, numbers of more than two values
            continuous, and all else classes. One value per sample; missing means unlabelled.
        event_key
            Makes a column of ``labels_key`` the time to an event: column of ``adata.obs`` that is True or 1 where the event was seen and
            False or 0 where follow-up ended before; for all columns, or by column.
        %(param_batch_key)s
        min_cells
            Fewest cells that each sample must have.
        panel
            ``"fixed"``: all samples have all features, and so have those that are embedded later. ``"open"``, for MAESTRO and ScSet: samples may lack
            markers, in all of their cells (a column of NaN, ``uns["panels"]``, or the mask of CytoVI); later ones may lack others, and
            columns are found by the names of their markers (:func:`scset_tools.pp.marker_names`), in any order.
        **kwargs
            Passed to :meth:`scvi.data.AnnDataManager.register_fields`; used when a saved model is loaded.

        Raises
        ------
        KeyError
            If a key is not in ``adata``.
        ValueError
            If features are not finite, sample names are missing, a label varies within a sample, there is only one sample,
            or a sample has fewer than ``min_cells`` cells.
        TypeError
            If given anything but an AnnData, or an argument that nobody takes.

        Warns
        -----
        UserWarning
            If each "sample" has the cells of several samples, donors or libraries, by a column of ``adata.obs`` with such a name.
        """
        require_setup_arguments(cls, kwargs)
        own = {name: kwargs.pop(name, None) for name in cls._own_keys}
        _checks.require_registrable(
            adata, sample_key, layer=layer, use_rep=use_rep, caller=f"{cls.__name__}.setup_anndata"
        )
        cls._require_panel(panel, use_rep)
        kinds, events = read_labels_key(adata.obs, labels_key, event_key)
        reads = {"layer": layer, "use_rep": use_rep, "batch_key": batch_key, "min_cells": min_cells, "panel": panel}
        fields = fields_of(
            sample_key,
            kinds=kinds or {},
            event_keys=events or {},
            forbid_zero_cells=cls._forbid_zero_cells,
            others=cls._other_fields(sample_key, **own),
            layer_field=cls._layer_field_cls,
            **reads,
        )
        given = {"sample_key": sample_key, "labels_key": kinds, "event_key": events, **reads, **own}
        cls._register(adata, fields, cls._get_setup_method_args(cls=cls, adata=adata, **given), **kwargs)

    @classmethod
    def _other_fields(cls, sample_key: str) -> tuple[Any, ...]:
        """Further fields of a model, of the arguments that ``_own_keys`` names."""
        return ()

    # ---- training

    @docs.get_sections(base="train", sections=["Parameters"])
    @docs.dedent
    def train(
        self,
        max_epochs: int | None = None,
        *,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        batch_size: int = 16,
        n_cells: int | None = None,
        train_size: float | None = None,
        validation_size: float | None = None,
        groups_key: str | None = None,
        stratify: bool = False,
        external_indexing: Sequence[Sequence[str]] | None = None,
        early_stopping: bool = False,
        stop_at_plateau: bool | str = True,
        watch_health: bool = True,
        gradient_clip_val: float | None = None,
        checkpoint_dir: str | os.PathLike | None = None,
        seed: int | None = None,
        datasplitter_kwargs: dict[str, Any] | None = None,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the model.

        Parameters
        ----------
        max_epochs
            Most passes over the training samples. Default: what makes 400 steps, more for cohorts of more than 320 samples.
            What it will take is printed after the first steps, beside the progress bar.
        accelerator, devices
            As in scvi-tools: ``"auto"`` takes a GPU if there is one.
        batch_size
            Number of samples in a batch.
        n_cells
            Most cells read from a sample in a step, drawn anew each epoch. Default: all.
        train_size
            Share of the samples (or groups) to train on. Default: all; 0.9 if validation is watched (as by ``early_stopping``).
        validation_size
            Share to validate on. Default: what training leaves.
        groups_key
            Column of ``adata.obs`` with the donor or study of each sample; a group is never cut by the split.
        stratify
            Whether to split each class of ``labels_key`` in like proportions.
        external_indexing
            Names of the training, validation and test samples, instead of shares.
        early_stopping
            Whether to stop when ``early_stopping_monitor`` (``loss_validation``) has not improved for
            ``early_stopping_patience`` epochs. It takes the place of ``stop_at_plateau``.
        stop_at_plateau
            Whether to stop when ``loss_train`` no longer improves (:class:`~scset_tools.train.StopAtPlateau`), or the name of
            another logged metric to watch. False trains for ``max_epochs``.
        watch_health
            Whether to note now and then in ``history`` along how many directions vectors of the training samples vary before whitening
            (``effective_rank_train``) and which share of their variance is between samples and not between draws of their
            cells (``share_between_train``); epoch -1 is before training. ``effective_rank_final`` and ``share_between_final`` are those of
            the vectors that the trained model gives. See :func:`scset_tools.tl.representation_health`.
        gradient_clip_val
            Largest norm of the gradient.
        checkpoint_dir
            Directory for the state of training, written after each epoch. If it already holds one, training goes on from
            there, to the same final weights as without the interruption.
        seed
            Seed of the split, of the order of samples, and of every draw. Default: ``scvi.settings.seed``, or random.
        datasplitter_kwargs
            Further arguments of :class:`~scset_tools.data._splitter.SampleDataSplitter` (``num_workers``, ``max_cells_per_batch``).
        plan_kwargs
            Arguments of :class:`~scset_tools.train.SampleTrainingPlan` (``lr``, ``lr_schedule``, ``weight_decay``).
        **trainer_kwargs
            Arguments of :class:`scvi.train.Trainer` and of Lightning's (``precision``, ``accumulate_grad_batches``, ``callbacks``,
            ``early_stopping_patience``, ``enable_progress_bar``, ``strategy``).
        """
        self._require_trainable(trainer_kwargs, plan_kwargs=plan_kwargs, datasplitter_kwargs=datasplitter_kwargs)
        self.fits_ = self.finetune_history_ = None  # of vectors that are about to change
        run_training(
            self,
            max_epochs=max_epochs,
            early_stopping=early_stopping,
            stop_at_plateau=stop_at_plateau,
            watch_health=watch_health,
            checkpoint_dir=None if checkpoint_dir is None else Path(checkpoint_dir),
            splitter_kwargs={
                "train_size": train_size,
                "validation_size": validation_size,
                "groups_key": groups_key,
                "stratify": stratify,
                "external_indexing": external_indexing,
                "batch_size": batch_size,
                "n_cells": n_cells,
                "seed": seed,
                **(datasplitter_kwargs or {}),
            },
            plan_kwargs={**self._plan_defaults, **(plan_kwargs or {})},
            trainer_kwargs={
                "accelerator": accelerator,
                "devices": devices,
                "gradient_clip_val": gradient_clip_val,
                **trainer_kwargs,
            },
        )

    def freeze(self, parts: Sequence[str]) -> None:
        """Let parts of the network learn no more, in :meth:`train` as in :meth:`finetune`; all others learn.

        Parameters
        ----------
        parts
            Names of parts, those of ``model.module.named_parts()``, such as ``"pooling"`` or ``"decoder"``. An empty list frees all.

        Raises
        ------
        ValueError
            If there is no such part, or nothing is left to learn.
        """
        self.module.freeze(parts)
        self.frozen_ = list(parts)

    def _before_training(self, module: Any, splitter: SampleDataSplitter) -> None:
        """What a module takes from the training samples before the first step; not called where a run is resumed."""

    def _after_training(self, splitter: SampleDataSplitter) -> None:
        """What a model takes from the training samples after the last step of a training that came to its end."""

    def _default_steps(self, splitter: SampleDataSplitter) -> int:
        """Steps of training by default: 400, or 20 passes over the samples where these are more, and 10,000 at most."""
        return min(10_000, max(400, 20 * splitter.n_batches()))

    # ---- results

    @docs.dedent
    def get_sample_representation(
        self,
        adata: AnnData | None = None,
        *,
        samples: Sequence[str] | None = None,
        n_cells: int | None = None,
        seed: int | None = None,
        batch_size: int = 16,
    ) -> pd.DataFrame:
        """One vector per sample. Uses all cells, in memory that does not grow with their number.

        Parameters
        ----------
        adata
            Cells of the samples to embed; they need not be those of training. Default: the registered AnnData.
        %(param_inference)s

        Returns
        -------
        DataFrame of shape (samples, n_latent), float32, indexed by sample name.
        """
        self._warn_if_untrained("its vectors come from random weights")
        with self._reading(adata) as cells:
            dataset = self._dataset(cells, n_cells, seed=seed)
            positions = dataset.index.positions(samples)
            vectors = represent_samples(self.module, dataset, positions, batch_size=batch_size)
        names = pd.Index(as_text(dataset.index.names[positions]), name=self._sample_key)
        return pd.DataFrame(vectors, index=names)

    @docs.dedent
    def to_sample_adata(
        self,
        adata: AnnData | None = None,
        *,
        samples: Sequence[str] | None = None,
        n_cells: int | None = None,
        batch_size: int = 16,
        key_added: str | None = None,
    ) -> AnnData:
        """A sample-level AnnData: one row per sample, ready for scanpy and :mod:`scset_tools.tl`.

        Parameters
        ----------
        adata
            Cells of the samples to embed. Default: the registered AnnData.
        %(param_samples)s
        %(param_n_cells)s
        %(param_batch_size)s
        key_added
            Prefix of what is written. Default: the model's name in lower case.

        Returns
        -------
        AnnData with ``X`` and ``obsm["X_<key_added>"]`` (samples, n_latent; float32), ``obs`` with the columns that are
        constant within samples and ``n_cells``, and ``uns["<key_added>"]`` with arguments and provenance. Of several modalities
        (:meth:`setup_mudata`) also ``obsm["X_<key_added>_<modality>"]``, the vectors by each of them alone (NaN for samples that lack
        it), and ``obs["has_<modality>"]``.
        """
        cells, how = self._cells_of(adata), {"n_cells": n_cells, "batch_size": batch_size}
        representation = self.get_sample_representation(cells, samples=samples, **how)
        out = sample_adata(
            representation.to_numpy(),
            cells,
            sample_key=self._sample_key,
            name=key_added or self.name,
            samples=list(representation.index),
            provenance=provenance_of(self),
        )
        out.obs = out.obs.drop(columns=CELL_MODALITIES, errors="ignore")
        if self._is_open and JOINED in cells.uns:
            for name, vectors in modality_vectors(self, cells, representation.index, **how).items():
                out.obsm[f"{_keys.representation(key_added or self.name)}_{_keys.key(name)}"] = vectors.to_numpy()
                out.obs[f"has_{_keys.key(name)}"] = vectors.notna().all(axis=1).to_numpy()
        return out

    def to_sample_mudata(self, adata: AnnData | None = None, **kwargs: Any) -> MuData:
        """A sample-level MuData of a model of several modalities: the joint vectors, and those by each modality alone.

        Parameters
        ----------
        adata
            Cells of the samples to embed, as a MuData. Default: the registered one.
        **kwargs
            Arguments of :meth:`to_sample_adata`.

        Returns
        -------
        MuData with the modalities ``"joint"``, the result of :meth:`to_sample_adata`, and one for each modality of the model, with the samples that
        have it. ``obs`` is that of ``"joint"``, and each modality has that of its samples.

        Raises
        ------
        ValueError
            If the model does not read several modalities by an open panel.
        """
        return sample_mudata(self.to_sample_adata(adata, **kwargs), kwargs.get("key_added") or self.name)

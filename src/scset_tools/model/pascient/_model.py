"""PaSCient, as users call it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, cast

import numpy as np
import torch
from anndata import AnnData
from scvi import REGISTRY_KEYS

from scset_tools import _checks
from scset_tools._checks import require_choice
from scset_tools.data._fields import CellTypeField
from scset_tools.data._gene_field import GeneField, require_unique_genes
from scset_tools.data._splitter import SampleDataSplitter
from scset_tools.model._arguments import require_setup_arguments
from scset_tools.model._base import SampleModelClass
from scset_tools.model._init_params import with_arguments_of
from scset_tools.model._setup import label_values, read_labels_key, targets_of
from scset_tools.model.pascient._aggregators import AGGREGATORS
from scset_tools.model.pascient._checkpoint import PUBLISHED_TARGET
from scset_tools.model.pascient._explain import FirstLayerSpace
from scset_tools.model.pascient._module import CELL_TYPE_KEY, PaSCientModule
from scset_tools.model.pascient._presets import PRESETS
from scset_tools.model.pascient._sampler import PaSCientSplitter
from scset_tools.model.pascient._scale import fit_scale
from scset_tools.model.pascient._setup import check_scale
from scset_tools.model.pascient._start import StartedPaSCient
from scset_tools.model.supervise._finetune import vectors_of
from scset_tools.model.supervise._labels_of import Labels
from scset_tools.model.supervise._targets import Target, require_two_values
from scset_tools.train import KeepBest


class PaSCient(StartedPaSCient):
    """Attention multiple-instance learning: labels of samples from all their cells, with attributions to cells and genes.

    A linear layer embeds each cell, attention pools the cells of a sample, a small network maps the pooled vector to the
    sample's vector, and one head per target predicts from it.

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`.
    registry
        Registry of a saved model; used by :meth:`load`.
    n_hidden
        Width of the hidden state of a cell.
    n_latent
        Length of a sample's vector.
    n_encoder_layers
        Hidden layers of the cell encoder past the first, linear one; 0 is the paper's linear encoder.
    aggregator
        ``"attention"`` (non-linear, the paper's choice), ``"linear_attention"``, ``"gated_attention"`` (the paper's formula),
        ``"abmil"`` (gated attention of Ilse et al.), ``"feature_softmax"`` (what the published code calls linear attention),
        ``"mean"``, ``"sum"`` (DeepSets), ``"transformer"``, ``"set_transformer"`` (ISAB and PMA).
    n_heads
        Attention heads of the two transformers.
    n_layers
        Their blocks.
    n_inducing
        Their inducing points.
    dropout_rate
        Dropout in the sample encoder and in transformers.
    init_scale
        Size of the initial weights of the first layer, relative to PyTorch's (which 1 gives). What was drawn and never
        unlearned shows in the attributions as noise that differs from seed to seed; small weights leave what was learned.
    log_normalize
        Whether the features are raw counts, which the model then scales to 10,000 per cell and takes ``log1p`` of; with genes
        left out beforehand, the total is that of the genes that are there. Otherwise features are taken for transformed already.
    standardize
        Whether the first layer reads features (after ``log_normalize``) less their mean over the training cells, divided by one number
        for all: the root of their mean variance. Without it, little is learned from features that lie far from zero.
    depth
        Fewest and most reads to which the counts of each cell are thinned in a training step (multinomial); None does not.
        Needs ``log_normalize=True``.
    gene_mask_rate
        Share of the genes of each cell that are set to zero in a training step.
    contrastive_weight
        Weight of a supervised contrastive loss over cells by type (needs ``cell_type_key``); 0 leaves it out.
    contrastive_temperature
        Temperature of the contrastive loss.
    n_contrastive_cells
        Number of cells of a batch that it compares.
    published_classes, n_slots
        Set by :meth:`from_checkpoint`.
    random_state
        Seed of the initial weights. Default: ``scvi.settings.seed``, or random.

    Notes
    -----
    Follows the PaSCient paper; the user guide lists where paper and published code disagree and which is followed.

    Examples
    --------
    >>> import scset_tools as sst
    >>> adata = sst.datasets.perturbation_cohort(n_samples=6, n_cells=40)
    >>> sst.PaSCient.setup_anndata(adata, sample_key="sample", labels_key="subtype")
    >>> model = sst.PaSCient(adata, n_hidden=16, n_latent=4, random_state=0)
    >>> model.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu", seed=0)
    >>> model.predict_proba().shape
    (6, 2)
    """

    _module_cls = PaSCientModule
    _presets = PRESETS
    _own_keys = ("cell_type_key",)
    _why_fixed = "its first layer is one product with the sparse counts of all genes, where one that is not measured is a zero like any other"
    _data_splitter_cls = PaSCientSplitter
    _space_cls = FirstLayerSpace
    _default_baseline = "zeros"
    _read = {"sparse": True}  # noqa: RUF012
    _layer_field_cls = GeneField
    _learns_from_labels = True
    _plan_defaults = {"lr": 1e-3, "weight_decay": 1e-4}  # noqa: RUF012

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict | None = None,
        *,
        n_hidden: int = 128,
        n_latent: int = 64,
        n_encoder_layers: int = 0,
        aggregator: Literal[
            "attention",
            "linear_attention",
            "gated_attention",
            "abmil",
            "feature_softmax",
            "mean",
            "sum",
            "transformer",
            "set_transformer",
        ] = "attention",
        n_heads: int = 4,
        n_layers: int = 1,
        n_inducing: int = 32,
        dropout_rate: float = 0.0,
        init_scale: float = 0.1,
        log_normalize: bool = False,
        standardize: bool = True,
        depth: tuple[float, float] | None = None,
        gene_mask_rate: float = 0.0,
        contrastive_weight: float = 0.0,
        contrastive_temperature: float = 0.1,
        n_contrastive_cells: int = 1024,
        published_classes: Sequence[str] | None = None,
        n_slots: int | None = None,
        random_state: int | None = None,
    ) -> None:
        super().__init__(adata, registry)
        require_choice("aggregator", aggregator, AGGREGATORS)
        if depth is not None and (not log_normalize or not 0 < depth[0] <= depth[1]):
            msg = f"depth={depth} thins counts: it must be a range of positive numbers, with log_normalize=True and raw counts."
            raise ValueError(msg)
        if contrastive_weight and self.registry["setup_args"].get("cell_type_key") is None:
            msg = f"contrastive_weight={contrastive_weight} compares cells by type: give `cell_type_key` to setup_anndata."
            raise ValueError(msg)
        if self.adata is not None:
            source = self.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY)
            check_scale(source, log_normalize=log_normalize, setup_args=self.registry["setup_args"])
        self._standardize = standardize
        targets = targets_of(self.registry)
        if published_classes is not None:
            targets = [Target(PUBLISHED_TARGET, "class", PUBLISHED_TARGET, tuple(published_classes))]
        with self._seeded(random_state):
            self.module = self._module_cls(
                self._n_input,
                targets,
                n_hidden=n_hidden,
                n_latent=n_latent,
                n_encoder_layers=n_encoder_layers,
                aggregator=aggregator,
                n_heads=n_heads,
                n_layers=n_layers,
                n_inducing=n_inducing,
                dropout_rate=dropout_rate,
                init_scale=init_scale,
                log_normalize=log_normalize,
                depth=None if depth is None else (float(depth[0]), float(depth[1])),
                gene_mask_rate=gene_mask_rate,
                contrastive_weight=contrastive_weight,
                contrastive_temperature=contrastive_temperature,
                n_contrastive_cells=n_contrastive_cells,
                n_slots=n_slots,
            )
        self._model_summary_string = (
            f"PaSCient with n_hidden: {n_hidden}, n_latent: {n_latent}, aggregator: {aggregator}; targets: "
            f"{[f'{t.name} ({t.kind})' for t in self.module.targets]}; {self.summary_stats['n_sample']} samples, "
            f"{self._n_input} features."
        )

    @classmethod
    @with_arguments_of(SampleModelClass.setup_anndata.__func__)
    def setup_anndata(cls, adata: AnnData, sample_key: str, *, cell_type_key: str | None = None, **kwargs: Any) -> None:
        """Register an AnnData for this model. ``obs`` and ``X`` are not touched; ``uns`` gets scvi-tools' own entries.

        The batch is registered as for the other models and not used by the network: against effects of a study, hold studies out
        (``groups_key`` of :meth:`train`).

        Parameters
        ----------
        cell_type_key
            Column of ``adata.obs`` with the type of each cell, for the contrastive term. May be missing.
        %(others)s

        Raises
        ------
        KeyError
            If a key is not in ``adata``.
        ValueError
            As for the other models; and if a gene stands twice in ``adata.var_names``, or a label has one value only.
        TypeError
            If given anything but an AnnData.
        """
        _checks.require_anndata(adata, caller=f"{cls.__name__}.setup_anndata")
        require_setup_arguments(cls, kwargs)
        if kwargs.get("use_rep") is None:
            require_unique_genes(adata.var_names)
        if "source_registry" not in kwargs:
            kinds, _ = read_labels_key(adata.obs, kwargs.get("labels_key"), kwargs.get("event_key"))
            for key, kind in (kinds or {}).items():
                require_two_values(_checks.require_constant_within_sample(adata, key, sample_key), key, kind)
        super().setup_anndata(adata, sample_key, cell_type_key=cell_type_key, **kwargs)

    @classmethod
    def _other_fields(cls, sample_key: str, *, cell_type_key: str | None = None) -> tuple[Any, ...]:
        del sample_key
        return () if cell_type_key is None else (CellTypeField(CELL_TYPE_KEY, cell_type_key),)

    @with_arguments_of(SampleModelClass.train)
    def train(
        self,
        max_epochs: int | None = None,
        *,
        n_cells: int | None = 1_500,
        resampling: Literal[
            "none",
            "downsample_label",
            "oversample_label",
            "oversample_tissue",
            "oversample_label_and_tissue",
            "rake_label_and_tissue",
        ] = "none",
        tissue_key: str | None = None,
        class_weight: Literal["balanced"] | None = None,
        keep_best: bool | str = False,
        datasplitter_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Train the model. The paper splits studies 60/20/20: ``groups_key="study", train_size=0.6, validation_size=0.2``.

        Parameters
        ----------
        max_epochs
            Most passes over the training samples. Default: what makes about 400 steps.
        n_cells
            Most cells read from a sample in a step, drawn anew each epoch. None: all.
        resampling
            How often the training samples are seen: as they are, as many of each label (fewer of the frequent, or more of the
            rare), of each tissue, or of each pair of label and tissue (a label then weighs the more the more tissues it is in).
            ``"rake_label_and_tissue"``: as many of each label and, at once, of each tissue; where no weights do both, labels are even and a
            warning names the rest. Validation and test samples are as they are. An epoch of resampled samples has more steps; by default as
            many steps are made as without.
        tissue_key
            Column of ``adata.obs`` with the tissue of each sample, for the resampling.
        class_weight
            ``"balanced"`` weighs each class, or level, by one over its frequency among the training samples; the mean weight of
            these is 1, whatever the batches.
        keep_best
            Whether to keep the weights of the epoch with the best accuracy on the validation samples (of a label without classes its error, or
            concordance), or the name of another metric of ``history``. It needs validation samples; it does not stop the training.
        datasplitter_kwargs
            Further arguments of the splitter (``num_workers``, ``max_cells_per_batch``).
        %(others)s

        Raises
        ------
        ValueError
            If there is nothing to learn from, or a class has no training sample.

        Warns
        -----
        UserWarning
            If class weights and a resampling by label correct for the same imbalance twice.
        """
        module = self.module
        if any(t.registry_key not in self.registry["field_registries"] for t in module.targets):
            msg = "This PaSCient has published weights and no labels to learn from. Embed samples with it, and fit a classifier on the vectors (tl.probe)."
            raise ValueError(msg)
        if not module.targets and module.contrast is None:
            msg = "This PaSCient has nothing to learn from: give `labels_key` to setup_anndata."
            raise ValueError(msg)
        if class_weight not in (None, "balanced"):
            msg = f"class_weight={class_weight!r} is not one of ['balanced', None]."
            raise ValueError(msg)
        if class_weight is not None and "label" in resampling:
            warnings.warn(
                f"class_weight={class_weight!r} and resampling={resampling!r} both correct for rare classes, which are then "
                "counted twice over. Use one of them.",
                UserWarning,
                stacklevel=2,
            )
        self.unlearned_ = None
        with_classes = [t.registry_key for t in module.targets if t.classes]
        best = self._best_of(keep_best)
        if best is not None:
            kwargs["callbacks"] = [*(kwargs.get("callbacks") or []), best]
        super().train(
            max_epochs,
            n_cells=n_cells,
            datasplitter_kwargs={
                "resampling": resampling,
                "tissue_key": tissue_key,
                "label_registry_key": with_classes[0] if with_classes else None,
                "on_split": partial(self._see_split, balance=class_weight is not None, best=best),
                **(datasplitter_kwargs or {}),
            },
            **kwargs,
        )
        if any(target.kind == "time_to_event" for target in module.targets):
            self._set_baselines()

    def _set_baselines(self) -> None:
        """Baseline hazards of times to an event, from the vectors of the training samples."""
        dataset = self._dataset(self.adata)
        train = dataset.index.positions(self.train_samples_)
        vectors = torch.from_numpy(vectors_of(self.module, dataset, "sample", positions=train)).to(self.module.device)
        for target, head in zip(self.module.targets, self.module.heads, strict=True):
            if target.kind == "time_to_event":
                labels = Labels(target, label_values(dataset.labels, target).numpy())
                rows = train[labels.is_known[train]]
                head.set_baseline(vectors[rows], labels.tensor()[rows].to(vectors.device))

    def _best_of(self, keep_best: bool | str) -> KeepBest | None:  # noqa: FBT001
        """What keeps the best epoch; for True that of the first label's accuracy, error or concordance."""
        if keep_best is False:
            return None
        known = self.module.metrics
        name = f"{known[1]}_validation" if keep_best is True else keep_best
        if name not in [f"{metric}_{part}" for metric in ("loss", *known) for part in ("train", "validation")]:
            msg = f"keep_best={keep_best!r} is not a metric of this model: {_checks.first(('loss', *known))}, with _validation or _train after it."
            raise ValueError(msg)
        return KeepBest(name, mode="max" if name.startswith(("accuracy", "concordance")) else "min")

    def _before_training(self, module: PaSCientModule, splitter: SampleDataSplitter) -> None:
        """Find location and scale of the features, once: a model that is trained further keeps those of its weights."""
        if self._standardize and not self.is_trained_:
            fit_scale(module, cast("PaSCientSplitter", splitter))

    def _default_steps(self, splitter: SampleDataSplitter) -> int:
        """As many as for the samples as they are, resampled or not."""
        return min(10_000, max(400, 20 * cast("PaSCientSplitter", splitter).n_plain_batches()))

    def _see_split(self, splitter: PaSCientSplitter, *, balance: bool, best: KeepBest | None = None) -> None:
        """Refuse a split that leaves a class without training samples; give the heads the training labels."""
        has_loss = np.full(len(splitter.index), self.module.contrast is not None)
        for target, head in zip(self.module.targets, self.module.heads, strict=True):
            labels = Labels(target, splitter.labels(target))
            labels.require_classes(splitter.train_samples, splitter.index.names)
            has_loss |= labels.is_known
            head.prepare(labels.known(splitter.train_samples), balance=balance)
        splitter.n_watched = int(has_loss[splitter.validation_samples].sum())
        if best is not None and best.monitor.endswith("_validation") and not splitter.n_watched:
            msg = (
                f"keep_best watches {best.monitor!r}, but there are no validation samples with a label. Leave some (train_size=0.8), or watch "
                "keep_best='loss_train'."
            )
            raise ValueError(msg)

    def _finetune_defaults(self, mode: str, level: str) -> dict[str, Any]:
        return {**super()._finetune_defaults(mode, level), "n_cells": 1_500}

    def _supervised_splitter(self, level: str) -> tuple[type, dict[str, Any]]:
        return PaSCientSplitter, {}

    @property
    def cell_types(self) -> list[str]:
        """Names of the cell types that were registered, if any."""
        fields = self.registry["field_registries"]
        return (
            [str(c) for c in fields[CELL_TYPE_KEY]["state_registry"]["categorical_mapping"]]
            if CELL_TYPE_KEY in fields
            else []
        )

"""SelfGuidedMAE, as users call it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scset_tools import _keys
from scset_tools._checks import require_choice
from scset_tools.data._cell_splitter import CellDataSplitter, GeneSampleSplitter
from scset_tools.data._cells import GeneDataset
from scset_tools.data._splitter import SampleDataSplitter
from scset_tools.model._base import SampleModelClass
from scset_tools.model._init_params import with_arguments_of
from scset_tools.model.selfguided._checkpoint import PublishedModel
from scset_tools.model.selfguided._encoder import POOLS
from scset_tools.model.selfguided._explain import TokenSpace
from scset_tools.model.selfguided._frequency import frequency_table
from scset_tools.model.selfguided._masking import CANDIDATES, MASKINGS
from scset_tools.model.selfguided._module import SelfGuidedMAEModule
from scset_tools.model.selfguided._plan import MaskingPlan
from scset_tools.model.selfguided._pooling import SAMPLE_POOLINGS
from scset_tools.model.selfguided._presets import EVEN, PRESETS, TWO_RATES, WATCHED, head_on_cells
from scset_tools.model.selfguided._vocabulary import gene_numbers
from scset_tools.model.supervise._finetune import vectors_of

VALUES = ("counts", "normalized")


class SelfGuidedMAE(PublishedModel):
    """Masked autoencoder over the genes of a cell that learns which genes to hide.

    A transformer reads the expressed genes of a cell, of which a part is hidden; a decoder of linear cost predicts the hidden
    values. Learned latents attend to the genes first, and what they attend to is hidden more often. A sample is
    represented by the mean of its cells.

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`. Which genes it has is which genes the model reads.
    registry
        Registry of a saved model; used by :meth:`load`.
    values
        What the registered values are: ``"counts"``, which enter as ``log1p(x / sum(x) * 10,000)``, or ``"normalized"`` values,
        which enter as they are. With a selection of genes, normalise by the total of all genes beforehand.
    masking
        ``"self_guided"`` or ``"random"``: whether hidden genes are drawn in proportion to the latents' attention, or evenly. All
        else is equal, so the two can be compared.
    mask_candidates
        Among which genes the mask chooses: ``"expressed"`` ones, with other genes hidden evenly, or ``"all"``, as in the paper: the
        latents attend to the whole vector of genes, zeros included, and it is for the mask to find the expressed ones.
    mask_rate
        Share of the expressed genes that are hidden.
    zero_mask_rate
        Share of the unexpressed genes that are hidden; with ``mask_candidates="all"`` the sum of the two counts.
    n_hidden
        Width of the encoder.
    n_layers
        Number of its blocks.
    n_heads
        Number of its attention heads.
    n_ff
        Inner width of its feed-forward layers. Default: ``2 * n_hidden``.
    n_bins
        Bins of the value embedding.
    bin_alpha
        Weight of its direct path.
    n_latents
        Number of latents. 0 leaves them out, with ``masking="random"``.
    n_latent_hidden
        Width of the latents.
    n_latent_heads
        Attention heads of the latents.
    importance_spread
        Relative standard deviation of the importance over genes before training, by which guided masks begin to differ from
        random ones. How sharp the attention is is learned from there.
    attention_weight
        Weight of the penalty on latents that attend to the same genes (lambda_attn).
    n_decoder_hidden
        Width of the decoder.
    n_decoder_layers
        Blocks of the decoder.
    n_decoder_heads
        Attention heads of the decoder.
    dim_decoder_head
        Width of one of them. Default: ``n_decoder_hidden / n_decoder_heads``.
    n_decoder_features
        Random features of the decoder's attention; None for the ``elu(x) + 1`` kernel, whose cost with one block grows with the
        expressed genes alone.
    n_decoder_norms
        Layer norms after the decoder's last block; scFoundation has two.
    pool
        From genes to a cell: ``"mean"``, ``"max"``, or ``"all"`` (read-depth tokens, max and mean).
    sample_pooling
        From cells to a sample: ``"mean"``, or ``"attention"`` (cells weighted by their likeness to the mean).
    read_depth_tokens
        Whether two tokens tell the encoder the wanted and the actual depth of the cell. Needs counts.
    target_depth
        The wanted depth, log10 of counts. Default: that of the cell.
    dropout_rate
        Dropout in the encoder.
    genes
        Names of the genes of the vocabulary. Default: those of the data. Features of the data that are not among them are
        not read.
    random_state
        Seed of the initial weights. Default: ``scvi.settings.seed``, or random.

    Notes
    -----
    Follows Self-guided masking (Naziri et al. 2025) on the backbone of scFoundation (Hao et al. 2024); the user guide lists
    what the paper leaves open and what is chosen here.

    Examples
    --------
    >>> import anndata as ad, numpy as np, scset_tools as sst
    >>> adata = ad.AnnData(np.random.default_rng(0).poisson(1.0, (120, 30)))
    >>> adata.obs["donor"] = [f"donor_{i % 6}" for i in range(120)]
    >>> sst.SelfGuidedMAE.setup_anndata(adata, sample_key="donor")
    >>> model = sst.SelfGuidedMAE(adata, n_hidden=8, n_layers=1, n_heads=2)
    >>> model.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    >>> model.get_cell_representation().shape
    (120, 8)
    >>> model.to_sample_adata().shape
    (6, 8)
    """

    _why_fixed = "what it hides and predicts is a choice among all genes"
    _one_scale = "it embeds values of all features by one map of values, and modalities have scales of their own"
    _module_cls = SelfGuidedMAEModule
    _presets = PRESETS
    _data_splitter_cls = CellDataSplitter
    _dataset_cls = GeneDataset
    _space_cls = TokenSpace
    _default_baseline = "zeros"
    _health_cells = 16  # a cell is a set of genes here, and costs as much as a sample elsewhere
    _training_plan_cls = MaskingPlan
    _plan_defaults = {"lr": 1e-3, "lr_min": 1e-5, "lr_schedule": "cosine", "weight_decay": 5e-4}  # noqa: RUF012

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict | None = None,
        *,
        values: Literal["counts", "normalized"] = "counts",
        masking: Literal["self_guided", "random"] = "self_guided",
        mask_candidates: Literal["expressed", "all"] = "expressed",
        mask_rate: float = 0.3,
        zero_mask_rate: float = 0.03,
        n_hidden: int = 64,
        n_layers: int = 2,
        n_heads: int = 2,
        n_ff: int | None = None,
        n_bins: int = 16,
        bin_alpha: float = 1.0,
        n_latents: int = 32,
        n_latent_hidden: int = 64,
        n_latent_heads: int = 2,
        importance_spread: float = 0.3,
        attention_weight: float = 0.1,
        n_decoder_hidden: int = 32,
        n_decoder_layers: int = 1,
        n_decoder_heads: int = 2,
        dim_decoder_head: int | None = None,
        n_decoder_features: int | None = None,
        n_decoder_norms: int = 1,
        pool: Literal["mean", "max", "all"] = "mean",
        sample_pooling: Literal["mean", "attention"] = "mean",
        read_depth_tokens: bool = False,
        target_depth: float | None = None,
        dropout_rate: float = 0.0,
        genes: Sequence[str] | None = None,
        random_state: int | None = None,
    ) -> None:
        super().__init__(adata, registry)
        for name, value, choices in (
            ("values", values, VALUES),
            ("masking", masking, MASKINGS),
            ("mask_candidates", mask_candidates, CANDIDATES),
            ("pool", pool, POOLS),
            ("sample_pooling", sample_pooling, tuple(SAMPLE_POOLINGS)),
        ):
            require_choice(name, value, choices)
        if mask_rate == zero_mask_rate == 0:
            msg = "mask_rate and zero_mask_rate are both 0: there is nothing to learn from."
            raise ValueError(msg)
        if masking == "self_guided" and not n_latents:
            msg = "masking='self_guided' needs latents: n_latents=0 goes with masking='random'."
            raise ValueError(msg)
        if read_depth_tokens and values != "counts":
            msg = "read_depth_tokens=True needs values='counts': normalised values no longer tell how deep a cell was read."
            raise ValueError(msg)
        vocabulary = self.get_var_names() if genes is None else np.asarray(genes).astype(str)
        gene_ids = gene_numbers(self.get_var_names(), vocabulary)
        self._read = {
            "gene_ids": None if genes is None else gene_ids,
            "expect_counts": values == "counts",
        }
        with self._seeded(random_state):
            self.module = self._module_cls(
                torch.from_numpy(gene_ids),
                n_genes=len(vocabulary),
                n_hidden=n_hidden,
                n_layers=n_layers,
                n_heads=n_heads,
                n_ff=2 * n_hidden if n_ff is None else n_ff,
                n_bins=n_bins,
                bin_alpha=bin_alpha,
                n_latents=n_latents,
                n_latent_hidden=n_latent_hidden,
                n_latent_heads=n_latent_heads,
                importance_spread=importance_spread,
                n_decoder_hidden=n_decoder_hidden,
                n_decoder_layers=n_decoder_layers,
                n_decoder_heads=n_decoder_heads,
                dim_decoder_head=dim_decoder_head,
                n_decoder_features=n_decoder_features,
                n_decoder_norms=n_decoder_norms,
                masking=masking,
                mask_candidates=mask_candidates,
                mask_rate=mask_rate,
                zero_mask_rate=zero_mask_rate,
                attention_weight=attention_weight,
                pool=pool,
                sample_pooling=sample_pooling,
                target_sum=1e4 if values == "counts" else None,
                read_depth_tokens=read_depth_tokens,
                target_depth=target_depth,
                dropout_rate=dropout_rate,
            )
        if self.adata is not None:
            cast("GeneDataset", self._dataset(self.adata)).genes.counts()  # culprits come to light now, not in epoch 3
        self._model_summary_string = (
            f"SelfGuidedMAE with n_hidden: {n_hidden}, n_layers: {n_layers}, masking: {masking} of {mask_rate} of the expressed "
            f"and {zero_mask_rate} of the other genes, candidates: {mask_candidates}; {self.summary_stats['n_sample']} samples, {self._n_input} genes."
        )

    @with_arguments_of(SampleModelClass.train)
    def train(
        self,
        max_epochs: int | None = None,
        *,
        batch_size: int = 64,
        gradient_clip_val: float | None = 1.0,
        datasplitter_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Learn to predict hidden genes.

        Training stops early where ``unexplained_train``, the share of the variance of the hidden values that is not predicted, no
        longer falls: the loss itself grows while the masks learn to hide what is hard to predict. ``plan_kwargs={"lr": 1e-4,
        "lr_backbone": 1e-5}`` are the two rates of the paper, for a pretrained backbone. With ``early_stopping=True`` patience is 5 epochs.

        Parameters
        ----------
        max_epochs
            Most passes over the cells of the training samples. Default: what makes 1,000 steps, or one pass if that is more.
        batch_size
            Number of cells in a batch. Its cells have like numbers of expressed genes and come from any training samples;
            samples (or, with ``groups_key``, donors) are never cut by the split.
        datasplitter_kwargs
            Further arguments of the splitter (``num_workers``).
        %(others)s

        """
        if kwargs.get("stop_at_plateau", True) is True:
            kwargs["stop_at_plateau"] = WATCHED
        if kwargs.get("early_stopping"):
            kwargs.setdefault("early_stopping_patience", 5)
        if self.checkpoint_ is not None:
            kwargs["plan_kwargs"] = {**TWO_RATES, **(kwargs.get("plan_kwargs") or {})}
        super().train(
            max_epochs,
            batch_size=batch_size,
            gradient_clip_val=gradient_clip_val,
            datasplitter_kwargs={**self._read, **(datasplitter_kwargs or {})},
            **kwargs,
        )
        self._warn_of_even_masks()

    def _warn_of_even_masks(self) -> None:
        """Say so if the importance of genes was so even that the guided mask was as good as a random one."""
        history = self.history.get("perplexity_train")
        if history is None or not float(history.iloc[-1, 0]) > EVEN:
            return
        first, last = (float(history.iloc[i, 0]) for i in (0, -1))
        spread = self.init_params_["non_kwargs"]["importance_spread"]
        msg = (
            f"The guided mask was nearly a random one: the perplexity of the importance of genes is {last:.4f} of an even one (in "
            f"the first epoch {first:.4f}). Build the model with a larger importance_spread (it has {spread}) or attention_weight "
            f"(it has {self.module.attention_weight}), train longer, or take masking='random', which costs less."
        )
        warnings.warn(msg, UserWarning, stacklevel=3)

    def get_cell_representation(self, adata: AnnData | None = None) -> pd.DataFrame:
        """One vector per cell, from all its expressed genes.

        Parameters
        ----------
        adata
            Cells to embed; they need not be those of training. Default: the registered AnnData.

        Returns
        -------
        DataFrame of shape (cells, n_output), float32, indexed by ``adata.obs_names``.
        """
        self._warn_if_untrained("its vectors come from random weights")
        with self._reading(adata) as cells:
            vectors = vectors_of(self.module, self._dataset(cells), "cell")
        return pd.DataFrame(vectors, index=cells.obs_names)

    def annotate_cell_representation(self, adata: AnnData | None = None, *, key_added: str | None = None) -> None:
        """Write one vector per cell; see :meth:`get_cell_representation`.

        Parameters
        ----------
        adata
            Cells to annotate. Default: the registered AnnData.
        key_added
            Default: ``"X_selfguidedmae"``.

        Writes
        ------
        ``obsm[key_added]``, (cells, n_output), float32.
        """
        cells = self._cells_of(adata)
        vectors = self.get_cell_representation(cells).to_numpy()
        cells.obsm[_keys.key(key_added or _keys.representation(self.name))] = vectors

    def get_masking_frequency(self) -> pd.DataFrame:
        """How often each gene was hidden in all training so far (the paper's Figure 2).

        Returns
        -------
        DataFrame indexed by the features that the model reads: ``times_masked`` (times hidden, expressed or not),
        ``share_masked`` (of all visits to cells), ``times_expressed`` (visits to cells that express it), ``share_masked_expressed``
        (how often it was hidden where it was expressed: with random masking about ``mask_rate`` for every gene) and
        ``mean_when_masked`` (mean value when hidden, on the scale that the encoder reads; NaN if never hidden). A feature without a
        match in the vocabulary has NaN everywhere.
        """
        if not int(self.module.counts.n_cells):
            msg = "Nothing was hidden yet: the masking frequency is counted while train() runs."
            raise ValueError(msg)
        return frequency_table(self.module.counts, self.module.gene_ids, self.get_var_names())

    def annotate_masking_frequency(self, adata: AnnData | None = None) -> None:
        """Write how often each gene was hidden; see :meth:`get_masking_frequency`.

        Parameters
        ----------
        adata
            AnnData whose ``var`` is annotated. Default: the registered AnnData.

        Writes
        ------
        ``var["selfguidedmae_<column>"]`` for each column, float64.
        """
        cells = self._cells_of(adata)
        table = self.get_masking_frequency()
        if not cells.var_names.equals(table.index):
            msg = (
                f"adata.var_names ({cells.n_vars}) are not the {len(table)} features that the model reads: use "
                "get_masking_frequency() for the table."
            )
            raise ValueError(msg)
        for column in table:
            cells.var[_keys.of_model(self.name, column)] = table[column].to_numpy()

    def _finetune_defaults(self, mode: str, level: str) -> dict[str, Any]:
        if level == "sample":
            return {**super()._finetune_defaults(mode, level), "n_cells": 32, "batch_size": 8}
        return head_on_cells(mode, is_published=self.checkpoint_ is not None)

    def _supervised_splitter(self, level: str) -> tuple[type, dict[str, Any]]:
        return (CellDataSplitter if level == "cell" else GeneSampleSplitter), dict(self._read)

    def _default_steps(self, splitter: SampleDataSplitter) -> int:
        return max(1000, splitter.n_batches())

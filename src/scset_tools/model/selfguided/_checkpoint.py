"""The door to scFoundation's published weights."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from scset_tools.model._base import SampleModelClass
from scset_tools.model.selfguided._scfoundation import (
    LICENCE,
    coverage,
    gene_names,
    load_weights,
    read_checkpoint,
    sizes,
    translate,
)

if TYPE_CHECKING:
    from anndata import AnnData


class PublishedModel(SampleModelClass):
    """What :class:`~scset_tools.model.SelfGuidedMAE` does with checkpoints of scFoundation."""

    checkpoint_: dict[str, Any] | None = None
    """Of a model from a checkpoint: its version, and how far data and checkpoint agree on genes."""

    @classmethod
    def from_scfoundation(
        cls,
        path: str | os.PathLike,
        version: str = "cell",
        *,
        adata: AnnData,
        genes: str | os.PathLike | Sequence[str],
        accept_license: bool = False,
        **kwargs: Any,
    ) -> Self:
        """A model with the weights of scFoundation, to embed cells at once or to go on pretraining with a guided mask.

        The file is read without running code from it. Genes of the checkpoint that the data lack count as not expressed and
        are never hidden; features that the checkpoint does not know are not read. ``train`` then uses two learning rates: 1e-5
        for what comes from the checkpoint, 1e-4 for latents and adapter. The adapter starts without any effect; the latents' attention
        is made as sharp on the embeddings of the checkpoint as ``importance_spread`` says, so that masks are guided from the start.

        Parameters
        ----------
        path
            The published file ``models.ckpt``.
        version
            ``"cell"`` (also ``"ce"``), ``"rde"`` or ``"gene"``: which of its models.
        adata
            AnnData registered with :meth:`setup_anndata`; counts, and gene symbols as ``var_names``.
        genes
            Names of the checkpoint's genes in its order, or the path of ``OS_scRNA_gene_index.19264.tsv``, which comes with
            scFoundation.
        accept_license
            Whether you accept the licence of the weights, which are for research only.
        **kwargs
            Further arguments of the constructor (``masking``, ``mask_rate``, ``pool``, ...). Sizes are those of the checkpoint.

        Returns
        -------
        The model; ``checkpoint_`` tells version and gene coverage.

        Raises
        ------
        ValueError
            If the licence is not accepted, the file holds more than tensors and plain values, tensors are missing or do not
            fit, or data and checkpoint share no gene.
        KeyError
            If the file does not hold the version.

        Warns
        -----
        UserWarning
            If fewer than half of the features are genes of the checkpoint.
        """
        if not accept_license:
            raise ValueError(LICENCE)
        content = read_checkpoint(path, version)
        weights = translate(content["state_dict"])
        build = sizes(weights, content["config"])
        names = gene_names(genes, len(weights["encoder.gene_embedding.weight"]))
        if clash := sorted(set(build) & set(kwargs)):
            msg = f"{clash} are read from the checkpoint: leave them out."
            raise ValueError(msg)
        defaults = {
            "n_latents": 128,
            "n_latent_hidden": 256,
            "n_latent_heads": 8,
            "mask_candidates": "all",
            "pool": "all",
            "read_depth_tokens": True,
            "target_depth": 4.0,
            "dropout_rate": 0.1,
        }
        build_model: Any = cls  # the constructor is that of the model that this is mixed into
        model = build_model(adata, genes=names, **{**defaults, **build, **kwargs})
        load_weights(model.module, weights)
        model.module.encoder.calibrate_latents()
        covered = coverage(model.get_var_names(), names)
        if covered["share_of_features"] < 0.5:
            msg = (
                f"Only {covered['n_matched']} of {covered['n_features']} features are genes of the checkpoint; unmatched ones are "
                f"not read (first: {covered['unmatched_features'][:5]}). Are var_names gene symbols?"
            )
            warnings.warn(msg, UserWarning, stacklevel=2)
        model.checkpoint_ = {"version": version, **covered}
        model.is_trained_ = True
        model.module.eval()
        return model

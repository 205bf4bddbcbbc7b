"""Several modalities of the same cells as one AnnData, and results back to each modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from scset_tools import _checks
from scset_tools._joined import JOINED, give_back, joined_cells
from scset_tools._modalities import modality_of

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def join_modalities(
    mdata: MuData,
    sample_key: str,
    *,
    modalities: Sequence[str] | None = None,
    use_rep: Mapping[str, str] | None = None,
    layer: Mapping[str, str] | None = None,
    join: Literal["inner", "outer"] = "inner",
) -> AnnData:
    """Join modalities that were measured on the same cells: a cell has the features of all of them.

    Every model, profile and function that takes cells takes the result. A sample that lacks a modality altogether has NaN
    there, which :class:`~scset_tools.model.MAESTRO` and :class:`~scset_tools.model.ScSet` leave out with
    ``setup_anndata(..., panel="open")``: it is neither zero nor imputed.

    Models standardise each feature, so a modality weighs by the number of its features. Reduce one of thousands first:
    ``sc.pp.pca(mdata["rna"], n_comps=20)`` and ``use_rep={"rna": "X_pca"}``.

    Parameters
    ----------
    mdata
        Modalities over cells (``axis=0``).
    sample_key
        Column with the sample of each cell, of ``mdata.obs`` or of the ``obs`` of every modality.
    modalities
        Which to join, two at least. Default: all.
    use_rep
        Entry of ``obsm`` of a modality to take instead of its ``X``.
    layer
        Layer of a modality to take instead.
    join
        ``"inner"``: cells that every modality of their sample has. ``"outer"``: all cells, also those of modalities that share none; what a cell
        lacks is NaN, and with ``panel="open"`` models take cells of one sample that differ in their modalities.

    Returns
    -------
    AnnData of cells in the order of ``mdata``; ``X`` is float32, sparse where all modalities
    are and no cell lacks one. Features are called ``"CD4@rna"``, and ``var["modality"]`` says where they are from, ``obs["cell_modalities"]`` which ones a cell has. ``obs`` holds the columns of ``mdata.obs``, and those of a modality as ``"rna:n_counts"``. :func:`to_modalities` writes
    results back.

    Raises
    ------
    TypeError
        If given anything but a MuData.
    KeyError
        If a modality, ``sample_key``, an entry of ``obsm`` or a layer is missing.
    ValueError
        If fewer than two modalities are asked for, modalities of a sample have no cell in common (they are not paired: train a model on
        each and join the samples with :func:`scset_tools.tl.join_samples`), or a cell is in different samples.

    Warns
    -----
    UserWarning
        If cells are left out that a modality of their sample lacks.

    Examples
    --------
    >>> import mudata, scset_tools as sst
    >>> cells = sst.datasets.perturbation_cohort(n_samples=4, n_cells=30)
    >>> mdata = mudata.MuData({"rna": cells[:, :8].copy(), "adt": cells[:, 8:].copy()})
    >>> sst.pp.join_modalities(mdata, "sample").var["modality"].value_counts().to_dict()
    {'rna': 8, 'adt': 6}
    """
    names = list(mdata.mod) if modalities is None and hasattr(mdata, "mod") else list(modalities or ())
    if len(names) < 2:
        modality_of(mdata, next(iter(names), ""), caller="pp.join_modalities")  # no MuData, or no such modality
        msg = f"pp.join_modalities needs two modalities at least, but was given {_checks.first(names)}."
        raise ValueError(msg)
    _checks.require_choice("join", join, ("inner", "outer"))
    return joined_cells(
        mdata,
        sample_key,
        modalities=names,
        use_rep=use_rep,
        layer=layer,
        keep_incomplete=join == "outer",
        caller="pp.join_modalities",
    )


def to_modalities(adata: AnnData, mdata: MuData) -> None:
    """Write what models and functions wrote to joined cells back to the modalities.

    New columns of ``obs`` and entries of ``obsm`` go to the cells of every modality, NaN (or missing) for cells that were left out; new columns
    of ``var`` and entries of ``varm`` to the features they belong to, where the joined features are those of the modality's ``X``.

    Parameters
    ----------
    adata
        From :func:`join_modalities`.
    mdata
        The MuData it was made of.

    Raises
    ------
    ValueError
        If ``adata`` was not made by :func:`join_modalities`, or has features of a modality that ``mdata`` lacks.
    """
    if JOINED not in adata.uns:
        msg = "pp.to_modalities takes an AnnData from pp.join_modalities: this one has no uns['modalities']."
        raise ValueError(msg)
    give_back(adata, mdata, caller="pp.to_modalities")

"""A MuData and its modalities, for whoever takes one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scset_tools import _checks

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def is_mudata(data: object) -> Any:
    """Whether this is a MuData; without importing mudata, which takes a while."""
    return any(base.__name__ == "MuData" for base in type(data).__mro__)


def modality_of(mdata: MuData, modality: Any, *, caller: str = "The model") -> AnnData:
    """The AnnData of a modality, or an error that says what there is."""
    if not is_mudata(mdata):
        msg = f"{caller} takes a MuData, but was given {type(mdata).__name__}. An AnnData goes to setup_anndata."
        raise TypeError(msg)
    if mdata.is_view:
        msg = f"{caller} was given a view of a MuData. Copy it first: mdata = mdata.copy()."
        raise ValueError(msg)
    if mdata.axis != 0:
        msg = (
            f"{caller} needs a MuData whose modalities share cells (axis=0), but was given one with axis={mdata.axis}."
        )
        raise ValueError(msg)
    if not isinstance(modality, str):
        msg = f"{caller} reads one modality, but was given {_checks.first(modality)}. Several are `modalities`: setup_mudata(mdata, sample_key, modalities=[...]), or pp.join_modalities(mdata, sample_key)."
        raise TypeError(msg)
    if modality not in mdata.mod:
        msg = f"{modality!r} is not a modality of the MuData. Modalities: {_checks.first(mdata.mod, 20)}."
        raise KeyError(msg)
    return mdata.mod[modality]

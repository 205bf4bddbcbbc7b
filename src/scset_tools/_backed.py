"""A backed AnnData in other processes: its file is opened anew, the rest goes along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self

    from anndata import AnnData


@dataclass(frozen=True)
class Backed:
    """What another process needs to open a backed AnnData as it is here.

    Attributes
    ----------
    file
        Path of the h5ad file.
    rows, columns
        Which part of the file this is, if it is a view.
    parts
        What is in memory: ``obs``, ``var`` and ``obsm``.
    """

    file: str
    rows: Any
    columns: Any
    parts: dict[str, Any]

    @classmethod
    def of(cls, adata: AnnData) -> Self:
        """Describe a backed AnnData.

        Parameters
        ----------
        adata
            The AnnData.
        """
        rows, columns = (adata._oidx, adata._vidx) if adata.is_view else (None, None)
        parts = {"obs": adata.obs.copy(), "var": adata.var.copy(), "obsm": dict(adata.obsm)}
        return cls(str(adata.filename), rows, columns, parts)

    def open(self) -> AnnData:
        """The AnnData, with its file opened anew for reading."""
        from anndata import read_h5ad

        adata = read_h5ad(self.file, backed="r")
        if self.rows is not None:
            adata = adata[self.rows, self.columns]
            return adata
        adata.obs, adata.var = self.parts["obs"], self.parts["var"]
        for key, value in self.parts["obsm"].items():
            adata.obsm[key] = value
        return adata

"""Open a cohort on disk: cells and features in memory, values where they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anndata import AnnData


def read_store(path: str | Path) -> AnnData:
    """Open a zarr file of cells, such as :func:`write_store` writes, without reading its values.

    Parameters
    ----------
    path
        Folder of the zarr file.

    Returns
    -------
    AnnData whose ``X`` is read from the file when rows are asked for; the rest is in memory. Layers are left on disk.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If it holds no AnnData.
    """
    import anndata
    import zarr
    from anndata.io import read_elem, sparse_dataset

    path = Path(path)
    if not path.is_dir():
        msg = f"There is no folder {path}."
        raise FileNotFoundError(msg)
    try:
        group: Any = zarr.open_group(path, mode="r")
    except Exception as error:  # zarr raises whatever the broken part leads to
        msg = f"{path} is no zarr file: {error}"
        raise ValueError(msg) from error
    if group.attrs.get("encoding-type") != "anndata" or "X" not in group:
        msg = f"{path} holds no AnnData with X (encoding-type {group.attrs.get('encoding-type')!r})."
        raise ValueError(msg)
    x = group["X"]
    parts = {name: read_elem(group[name]) for name in ("obs", "var", "obsm", "varm", "uns") if name in group}
    adata = anndata.AnnData(**parts)
    adata.X = sparse_dataset(x) if isinstance(x, zarr.Group) else x
    return adata

"""Arrays on disk in other processes: an open file cannot be sent there, its name can."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class InFile:
    """An array of an h5 file: where it is.

    Attributes
    ----------
    file
        Path of the file.
    name
        Path of the array in it.
    is_sparse
        Whether anndata reads it as a sparse array.
    """

    file: str
    name: str
    is_sparse: bool

    def open(self) -> Any:
        """The array, from the file opened anew for reading."""
        import h5py

        found = h5py.File(self.file, "r")[self.name]
        if not self.is_sparse:
            return found
        from anndata.io import sparse_dataset

        return sparse_dataset(found)


def located(source: Any) -> Any:
    """Where an array of an open h5 file is; any other array as it is.

    Parameters
    ----------
    source
        The array.
    """
    import h5py

    if isinstance(source, h5py.Dataset):
        return InFile(source.file.filename, source.name, is_sparse=False)
    group = getattr(source, "group", None)
    if isinstance(group, h5py.Group):
        return InFile(group.file.filename, group.name, is_sparse=True)
    return source

"""Rows of a sparse matrix on their way from the file to the first layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass  # not frozen: Lightning sets the fields of a copy when it changes the precision of its input
class SparseRows:
    """Cells x features in compressed rows: row ``i`` has ``values[indptr[i]:indptr[i + 1]]`` in columns ``indices[...]``.

    Three plain tensors rather than one of torch's sparse tensors, because they can be pinned, sent between processes and
    cast like any other, and make no warning.

    Attributes
    ----------
    indptr
        Where each row begins and ends, (cells + 1,), integer.
    indices
        Column of each value, ascending within a row, (n_values,), of the type of ``indptr``.
    values
        What is not zero, (n_values,), floating point.
    n_features
        Number of columns.
    """

    indptr: Tensor
    indices: Tensor
    values: Tensor
    n_features: int

    @classmethod
    def from_scipy(cls, rows: csr_array) -> SparseRows:
        """Share memory with a compressed matrix of scipy; entries are put in order and merged if they are not.

        Parameters
        ----------
        rows
            Matrix in CSR format.
        """
        rows.sum_duplicates()
        return cls(
            torch.from_numpy(rows.indptr), torch.from_numpy(rows.indices), torch.from_numpy(rows.data), rows.shape[1]
        )

    @classmethod
    def from_dense(cls, x: Tensor) -> SparseRows:
        """Compress a dense matrix.

        Parameters
        ----------
        x
            (cells, features).
        """
        is_stored = x != 0
        indptr = torch.cat([is_stored.new_zeros(1, dtype=torch.int64), is_stored.sum(1).cumsum(0)])
        return cls(indptr, is_stored.nonzero()[:, 1], x[is_stored], x.shape[1])

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and features."""
        return len(self), self.n_features

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """Where the values lie."""
        return self.values.device

    def row_of_value(self) -> Tensor:
        """Row of each value, (n_values,), int64."""
        rows = torch.arange(len(self), device=self.device)
        return torch.repeat_interleave(rows, self.indptr.diff(), output_size=len(self.values))

    def to_dense(self) -> Tensor:
        """The same as a dense tensor, (cells, features)."""
        dense = self.values.new_zeros(self.shape)
        dense[self.row_of_value(), self.indices.long()] = self.values
        return dense

    def with_values(self, values: Tensor) -> SparseRows:
        """Other values in the same places.

        Parameters
        ----------
        values
            (n_values,).
        """
        return replace(self, values=values)

    def to(self, *args: Any, **kwargs: Any) -> SparseRows:
        """Move to a device; a type is that of the values alone."""
        values = self.values.to(*args, **kwargs)
        kwargs.pop("dtype", None)
        return SparseRows(
            self.indptr.to(values.device, non_blocking=kwargs.get("non_blocking", False)),
            self.indices.to(values.device, non_blocking=kwargs.get("non_blocking", False)),
            values,
            self.n_features,
        )

    def pin_memory(self) -> SparseRows:
        """The same rows in page-locked memory."""
        return SparseRows(
            self.indptr.pin_memory(), self.indices.pin_memory(), self.values.pin_memory(), self.n_features
        )

"""Write rows to a zarr file one block after the other, in bounded memory, so that a stopped run can go on."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from scipy import sparse

CHUNK = 2**15
"""Stored values of a chunk, the least that is read at once."""
CHUNKS_PER_SHARD = 128
"""Chunks of a file of the store."""
ROWS_PER_CHUNK = 256


class SparseWriter:
    """A CSR matrix that grows by rows, as anndata reads it.

    Values are written shard by shard; what does not fill one waits in :attr:`rest`.

    Parameters
    ----------
    group
        Group to write to.
    n_features
        Number of columns.
    state
        From :meth:`state` of a run that was stopped, with the ``lengths`` of all its rows. Default: a new matrix.
    """

    def __init__(self, group: Any, n_features: int, *, state: dict[str, np.ndarray] | None = None) -> None:
        self.group, self.n_features = group, n_features
        kinds = {"data": np.float32, "indices": np.int32}
        if state is None:
            from zarr.codecs import BloscCodec

            for name, dtype in kinds.items():
                group.create_array(
                    name,
                    shape=(0,),
                    dtype=dtype,
                    chunks=(CHUNK,),
                    shards=(CHUNK * CHUNKS_PER_SHARD,),
                    # small whole numbers: bits of one weight together are mostly zeros, and decoded four times as quickly as by zstd
                    compressors=BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"),
                    overwrite=True,
                )
        self.n_written = 0 if state is None else int(state["n_written"])
        self.rest = {k: np.zeros(0, t) if state is None else state[k] for k, t in kinds.items()}
        self.lengths = [] if state is None else [state["lengths"]]  # of rows; joined at the end, not at every block
        for name in kinds:  # what a stopped run wrote after its last state is written again
            group[name].resize((self.n_written,))

    def append(self, x: sparse.csr_array) -> None:
        """Add rows.

        Parameters
        ----------
        x
            The rows, with sorted indices.
        """
        self.lengths.append(np.diff(x.indptr).astype(np.int32))
        size = CHUNK * CHUNKS_PER_SHARD
        n_waiting = len(self.rest["data"])
        n_whole = (n_waiting + len(x.data)) // size * size
        new = {"data": x.data, "indices": x.indices.astype(np.int32, copy=False)}
        if n_whole:  # what waits and what fills it up, then shard by shard: each passes through memory alone
            first = size - n_waiting
            bounds = range(first, n_whole - n_waiting + 1, size)
            self._write({k: np.concatenate([self.rest[k], v[:first]]) for k, v in new.items()})
            for lo, hi in itertools.pairwise(bounds):
                self._write({k: v[lo:hi] for k, v in new.items()})
            # copies, not views, which would keep all alive
            self.rest = {k: v[n_whole - n_waiting :].copy() for k, v in new.items()}
        else:
            self.rest = {k: np.concatenate([self.rest[k], v]) for k, v in new.items()}

    def _write(self, values: dict[str, np.ndarray]) -> None:
        n = len(values["data"])
        if n == 0:
            return
        for name, piece in values.items():
            array = self.group[name]
            array.resize((self.n_written + n,))
            array[self.n_written :] = piece
        self.n_written += n

    def state(self) -> dict[str, np.ndarray]:
        """What a later run needs to go on from here, beside what :meth:`last` gave: no more than a shard."""
        return {"n_written": np.array(self.n_written), **self.rest}

    def last(self) -> dict[str, np.ndarray]:
        """What a later run needs to know of the rows that were added last."""
        return {"lengths": self.lengths[-1]}

    def close(self) -> None:
        """Write what waits, and what makes a matrix of it."""
        self._write(self.rest)
        indptr = np.concatenate([np.zeros(1, np.int64), *self.lengths])
        np.cumsum(indptr, out=indptr)
        self.group.create_array("indptr", data=indptr, chunks=(max(1, min(len(indptr), CHUNK)),), overwrite=True)
        self.group.attrs.update(
            {
                "encoding-type": "csr_matrix",
                "encoding-version": "0.1.0",
                "shape": [len(indptr) - 1, self.n_features],
            }
        )


class DenseWriter:
    """A dense matrix of known size that is filled by rows, as anndata reads it.

    Parameters
    ----------
    root
        Group that gets the array ``X``.
    shape
        Its rows and columns.
    state
        From :meth:`state` of a run that was stopped. Default: a new matrix.
    """

    def __init__(self, root: Any, shape: tuple[int, int], *, state: dict[str, np.ndarray] | None = None) -> None:
        if state is None:
            width = max(1, shape[1])
            root.create_array(
                "X",
                shape=shape,
                dtype=np.float32,
                chunks=(ROWS_PER_CHUNK, width),
                shards=(ROWS_PER_CHUNK * CHUNKS_PER_SHARD, width),
                overwrite=True,
            )
        self.array = root["X"]
        self.n_written = 0 if state is None else int(state["n_written"])

    def append(self, x: np.ndarray) -> None:
        """Fill the next rows.

        Parameters
        ----------
        x
            The rows.
        """
        self.array[self.n_written : self.n_written + len(x)] = x
        self.n_written += len(x)

    def state(self) -> dict[str, np.ndarray]:
        """What a later run needs to go on from here."""
        return {"n_written": np.array(self.n_written)}

    def last(self) -> dict[str, np.ndarray]:
        """What a later run needs to know of the rows that were added last: nothing, their number is known."""
        return {}

    def close(self) -> None:
        """Write what makes an array of anndata of it."""
        self.array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})

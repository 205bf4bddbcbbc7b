"""Stretches of a one-dimensional zarr array in shards, decoded straight to where they are wanted.

zarr-python sends every chunk through its event loop, which takes several times as long as decoding it. Chunks of the kind that
:func:`scset_tools.pp.write_store` and anndata write are decoded here by the library that zarr uses itself; what is stored in any
other way is left to zarr.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

NOWHERE = np.uint64(2**64 - 1)
"""Place of a chunk, in the index of a shard, that was not written: it holds the fill value."""

Piece = tuple[int, int, np.ndarray]
"""First and last (excluded) place in an array, and the array to fill with what stands there."""


class ShardedValues:
    """Reads a sharded array of zarr (version 3) in a folder: chunks of little-endian values, compressed by blosc or zstd.

    Parameters
    ----------
    array
        Array for which :meth:`reads` is true.
    """

    def __init__(self, array: Any) -> None:
        from zarr.codecs import BloscCodec

        sharding = array.metadata.codecs[0]
        self.dtype = np.dtype(array.dtype)
        self.chunk = int(sharding.chunk_shape[0])
        self.shard = int(array.metadata.chunk_grid.chunk_shape[0])
        self._fill = array.fill_value
        self._folder = Path(array.store.root) / array.path
        self._key = array.metadata.encode_chunk_key
        self._decompress = _blosc if isinstance(sharding.codecs[1], BloscCodec) else _zstd
        self._known: dict[int, tuple[tuple[int, int], np.ndarray]] = {}

    @staticmethod
    def reads(array: Any) -> bool:
        """Whether an array is stored in the one way that this class reads.

        Parameters
        ----------
        array
            Array of an h5 or zarr file.
        """
        try:
            import google_crc32c  # noqa: F401
            from numcodecs import blosc, zstd  # noqa: F401
            from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec
            from zarr.storage import LocalStore
        except ImportError:
            return False
        codecs: Any = getattr(getattr(array, "metadata", None), "codecs", ())  # of version 3 alone
        if len(codecs) != 1 or not isinstance(codecs[0], ShardingCodec) or not isinstance(array.store, LocalStore):
            return False
        kinds: list[Any] = [tuple(map(type, found)) for found in (codecs[0].codecs, codecs[0].index_codecs)]
        plain: list[Any] = [found[0] for found in (codecs[0].codecs, codecs[0].index_codecs)]
        return (
            kinds[0] in ((BytesCodec, BloscCodec), (BytesCodec, ZstdCodec))
            and kinds[1] == (BytesCodec, Crc32cCodec)
            and all(getattr(codec.endian, "value", codec.endian) in ("little", None) for codec in plain)
            and getattr(codecs[0].index_location, "value", codecs[0].index_location) == "end"
            and len(array.shape) == 1
            and np.dtype(array.dtype).kind in "biuf"
            and np.dtype(array.dtype).isnative
        )

    def read(self, pieces: Iterable[Piece]) -> None:
        """Fill arrays with what stands in some places; a chunk that two neighbours share is decoded once.

        Parameters
        ----------
        pieces
            What to read, best in ascending order.
        """
        held: tuple[int, np.ndarray] = (-1, np.zeros(0, self.dtype))
        for lo, hi, out in pieces:
            for shard in range(lo // self.shard, -(-hi // self.shard)):
                start = shard * self.shard
                a, b = max(lo, start), min(hi, start + self.shard)
                held = self._from_shard(shard, a - start, b - start, out[a - lo : b - lo], held)

    def _from_shard(
        self, shard: int, lo: int, hi: int, out: np.ndarray, held: tuple[int, np.ndarray]
    ) -> tuple[int, np.ndarray]:
        path = self._folder / self._key((shard,))
        try:
            file = path.open("rb", buffering=0)
        except FileNotFoundError:  # nothing but the fill value
            out[:] = self._fill
            return held
        with file:
            index = self._index(shard, file, path)
            for chunk in range(lo // self.chunk, -(-hi // self.chunk)):
                start = chunk * self.chunk
                a, b = max(lo, start), min(hi, start + self.chunk)
                target = out[a - lo : b - lo]
                if b - a == self.chunk and target.dtype == self.dtype and target.flags.c_contiguous:
                    self._decode(file, index[chunk], target)
                    continue
                number = shard * (self.shard // self.chunk) + chunk
                if held[0] != number:
                    held = number, np.empty(self.chunk, self.dtype)
                    self._decode(file, index[chunk], held[1])
                target[:] = held[1][a - start : b - start]
        return held

    def _decode(self, file: Any, place: np.ndarray, out: np.ndarray) -> None:
        if place[0] == NOWHERE:
            out[:] = self._fill
            return
        file.seek(int(place[0]))
        self._decompress(_exactly(file, int(place[1])), out)

    def _index(self, shard: int, file: Any, path: Path) -> np.ndarray:
        """Where each chunk of a shard begins, and its length in bytes; kept for as long as the file stays as it is."""
        found = os.fstat(file.fileno())
        stamp = found.st_mtime_ns, found.st_size
        known = self._known.get(shard)
        if known is None or known[0] != stamp:
            import google_crc32c

            n_bytes = 16 * (self.shard // self.chunk)
            file.seek(max(0, found.st_size - n_bytes - 4))
            raw = _exactly(file, n_bytes + 4)
            if google_crc32c.value(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
                msg = f"The index of {path} does not fit its checksum: the file is damaged. Write the store again."
                raise ValueError(msg)
            known = self._known[shard] = stamp, np.frombuffer(raw[:-4], "<u8").reshape(-1, 2)
        return known[1]


def _zstd(stored: bytes, out: np.ndarray) -> None:
    from numcodecs import zstd

    zstd.decompress(stored, out)


def _blosc(stored: bytes, out: np.ndarray) -> None:
    from numcodecs import blosc

    n_bytes = int.from_bytes(stored[4:8], "little")  # of the header
    if n_bytes != out.nbytes:  # fewer would leave a part of the chunk as it was in memory
        msg = f"A chunk holds {n_bytes} bytes instead of {out.nbytes}: the file is damaged. Write the store again."
        raise ValueError(msg)
    blosc.decompress(stored, out)


def _exactly(file: Any, n: int) -> bytes:
    """So many bytes of a file, or an error."""
    read = file.read(n)
    if len(read) != n:
        msg = f"{file.name} ends too early: the file is damaged. Write the store again."
        raise ValueError(msg)
    return read

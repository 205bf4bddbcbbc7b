"""A checksum inside a checkpoint, so that a flipped bit or a missing end is noticed before anything is taken from it.

torch writes a zip archive and does not compare the checksums of its members when it reads it. The checksum of the whole file is
put where an archive may hold a comment: at its very end, where no reader of archives minds it.
"""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from typing import BinaryIO

_MARK = b"scset-tools checksum "
_SIZE = len(_MARK) + 32
_END = 22
"""Bytes of the last record of an archive without a comment; its last two are the length of the comment."""


def seal(path: Path) -> None:
    """Add the checksum to a file that torch has written, and see it on the disk.

    Parameters
    ----------
    path
        The file.
    """
    with path.open("r+b") as file:
        n = file.seek(0, os.SEEK_END)
        file.seek(max(0, n - _END))
        if not file.read(4).startswith(b"PK\x05\x06"):
            return  # no archive: a strategy that writes otherwise
        file.seek(n - 2)
        file.write(struct.pack("<H", _SIZE))
        digest = _digest(file, n)
        file.seek(n)
        file.write(_MARK + digest)
        file.flush()
        os.fsync(file.fileno())


def is_sealed(path: Path) -> bool:
    """Whether the file ends in a checksum and is what the checksum was made of.

    Parameters
    ----------
    path
        The file.
    """
    with path.open("rb") as file:
        n = file.seek(0, os.SEEK_END) - _SIZE
        if n <= 0:
            return False
        file.seek(n)
        comment = file.read()
        return comment.startswith(_MARK) and comment[len(_MARK) :] == _digest(file, n)


def _digest(file: BinaryIO, n: int) -> bytes:
    """Checksum of the first ``n`` bytes, in hexadecimal digits."""
    file.seek(0)
    digest = hashlib.blake2b(digest_size=16)
    while n > 0 and (block := file.read(min(n, 2**20))):
        digest.update(block)
        n -= len(block)
    return digest.hexdigest().encode()

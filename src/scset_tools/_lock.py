"""A file that one process holds against others: the system lets go of it when that process ends, however it ends."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

fcntl: Any = None
with suppress(ImportError):  # Windows: no lock
    import fcntl


@contextmanager
def held(path: Path, complaint: Callable[[str], str], *, is_removed: bool = False) -> Iterator[None]:
    """Hold a file against other processes, where the system has locks (not on Windows, nor on some file systems of networks).

    Parameters
    ----------
    path
        File to hold; made if it is not there.
    complaint
        What to say if another process holds it, of the words for that process.
    is_removed
        Whether to remove the file at the end.

    Raises
    ------
    RuntimeError
        If another process holds it.
    """
    if fcntl is None:
        yield
        return
    while True:
        with path.open("a+") as file:
            try:
                # not flock: a forked worker would hold it too, and outlive a killed run by some seconds
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    file.seek(0)
                    raise RuntimeError(complaint(file.read().strip() or "another process")) from None
                yield  # a file system without locks
                return
            if not _is_at(file, path):  # removed between the opening and the lock, by the process that held it
                continue
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            try:
                yield
            finally:
                if is_removed:
                    path.unlink(missing_ok=True)
            return


def _is_at(file: Any, path: Path) -> bool:
    """Whether an open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False

"""The next batch is read while the step computes: decoding and copying hold up no other thread."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from torch.utils.data import DataLoader

_END = object()


class ReadAhead(Iterator[Any]):
    """What an iterator gives, in its order, each item made by a thread while the one before is in use.

    One item waits at most. An error of the iterator is raised where its item would have come. The thread ends with the iterator,
    or when this is closed or no longer used; an item that is being made then is made to its end and dropped.

    Parameters
    ----------
    items
        The iterator; no one else may use it.
    """

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._next: Future[Any] | None = self._pool.submit(next, items, _END)

    def __next__(self) -> Any:
        if self._next is None:
            raise StopIteration
        try:
            item = self._next.result()
        except BaseException:
            self.close()
            raise
        if item is _END:
            self.close()
            raise StopIteration
        self._next = self._pool.submit(next, self._items, _END)
        return item

    def close(self) -> None:
        """Make no more items."""
        self._next = None
        # not waited for: where the last reference goes may be the thread itself
        self._pool.shutdown(wait=False, cancel_futures=True)

    def __del__(self) -> None:
        if hasattr(self, "_pool"):
            self.close()


class AheadLoader(DataLoader):
    """A loader without workers that makes the next batch while the last one is in use.

    Takes the arguments of :class:`torch.utils.data.DataLoader`.
    """

    def __iter__(self) -> Any:
        return ReadAhead(super().__iter__())

"""The newest of many things, so that a gateway that runs for days does not fill the memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Newest(Generic[_T]):
    """Keeps the newest items, oldest first, and always the very newest one.

    :param most: the most items to keep.
    :param most_bytes: the most bytes that the items may take together.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        # Each item and its size in bytes.
        self._items: deque[tuple[_T, int]] = deque()
        self._bytes = 0

    def add(self, item: _T, size: int) -> None:
        """Keep an item, and forget the oldest ones that exceed a bound.

        :param item: the item.
        :param size: its size in bytes.
        """
        self._items.append((item, size))
        self._bytes += size
        while len(self._items) > self._most or (
            self._bytes > self._most_bytes and len(self._items) > 1
        ):
            self._bytes -= self._items.popleft()[1]

    def remove(self, item: _T) -> None:
        """Forget an item.

        :param item: an item that is kept.
        """
        index = next(index for index, (each, _) in enumerate(self._items) if each is item)
        self._bytes -= self._items[index][1]
        del self._items[index]

    def __iter__(self) -> Iterator[_T]:
        return iter([item for item, _ in self._items])

"""A bounded cache that threads share: a value that two of them want is made by one."""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")
_ABSENT: Any = object()


class Cache(Generic[Value]):
    """Values by key, the least lately used dropped first.

    All together they take no more than `limit`, but one is kept even where it takes more; `size_of` tells what a value
    takes, by default 1.
    """

    def __init__(self, limit: int, size_of: Callable[[Value], int] = lambda _: 1) -> None:
        self.limit, self.size = limit, 0
        self._size_of = size_of
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._making: dict[Hashable, threading.Event] = {}
        self._lock = threading.Lock()
        self._users = 0

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def get(self, key: Hashable, make: Callable[[], Value], usable: Callable[[Value], bool] | None = None) -> Value:
        """The value of a key; `make` makes one where none is there that is `usable`, and its error passes on."""
        while True:
            with self._lock:
                known: Value = self._values.get(key, _ABSENT)
                if known is not _ABSENT and (usable is None or usable(known)):
                    self._values.move_to_end(key)
                    return known
                begun = self._making.get(key)
                if begun is None:
                    begun = self._making[key] = threading.Event()
                    break
            begun.wait()
        try:
            value = make()
            self._keep(key, value)
        finally:
            with self._lock:
                del self._making[key]
            begun.set()
        return value

    def _keep(self, key: Hashable, value: Value) -> None:
        with self._lock:
            if key in self._values:
                self.size -= self._size_of(self._values.pop(key))
            self._values[key] = value
            self.size += self._size_of(value)
            while self.size > self.limit and len(self._values) > 1:
                self.size -= self._size_of(self._values.popitem(last=False)[1])

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Count one user more while the block runs; the last one leaves nothing behind."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._values.clear()
                    self.size = 0

"""How long work tells what it has done: one callable, so that a terminal, a log and a test can all listen."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Progress = Callable[[int, int, str], None]
"""Called as `progress(done, total, unit)`, `total` 0 where it is not known; cheap to call often."""


def silent(done: int, total: int, unit: str) -> None:
    """The listener that does not listen."""


_audience: ContextVar[Progress] = ContextVar("audience", default=silent)


@contextlib.contextmanager
def listening(listener: Progress) -> Iterator[None]:
    """Let a listener hear, through `broadcast`, all work that runs inside the block in this context."""
    token = _audience.set(listener)
    try:
        yield
    finally:
        _audience.reset(token)


def broadcast(listener: Progress) -> Progress:
    """A listener that passes what it hears to `listener` and to whoever is listening around it."""
    around = _audience.get()

    def tell(done: int, total: int, unit: str) -> None:
        listener(done, total, unit)
        around(done, total, unit)

    return tell

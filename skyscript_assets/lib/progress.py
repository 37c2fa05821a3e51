"""How long work tells what it has done: one callable, so that a terminal, a log and a test can all listen."""

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called as `progress(done, total, unit)`, `total` 0 where it is not known; cheap to call often."""


def silent(done: int, total: int, unit: str) -> None:
    """The listener that does not listen."""

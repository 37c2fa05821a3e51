import threading
from collections.abc import Iterator

import pytest

from skyscript_assets.lib.lookahead import in_order


def test_what_a_thread_keeps_open_is_closed_on_that_thread_however_the_work_ends() -> None:
    local = threading.local()
    opened: list[int] = []
    closed: list[int] = []

    def work(item: int) -> int:
        if not hasattr(local, "open"):
            local.open = True
            opened.append(threading.get_ident())
        if item == 30:
            raise ValueError("thirty")
        return item

    def close() -> None:
        if hasattr(local, "open"):
            closed.append(threading.get_ident())

    def run(count: int) -> Iterator[int]:
        return in_order(work, range(count), threads=3, ahead=10, close=close)

    assert list(run(20)) == list(range(20))
    with pytest.raises(ValueError, match="thirty"):
        list(run(40))
    begun = in_order(work, range(20), threads=3, ahead=10, close=close)
    assert next(begun) == 0
    begun.close()
    assert next(run(0), None) is None
    assert sorted(closed) == sorted(opened) != []

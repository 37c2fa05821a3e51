"""Work that threads do ahead of its use, its results in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int,
    ahead: int | None = None,
    close: Callable[[], None] | None = None,
) -> Generator[Result, None, None]:
    """Work on items on threads and give the results in the order of the items.

    Args:
        work: Called on a thread with each item; its error is raised where its result would be given.
        items: Taken as they are needed, on the caller's thread.
        threads: Threads.
        ahead: Items begun and not yet given at most, so that memory is bounded; default: one more than threads.
        close: Called on each thread in the end, however that comes: for what the thread keeps open between items.
    """
    most = threads + 1 if ahead is None else ahead
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= most:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            if close is not None:
                _on_each_thread(pool, threads, close)


def _on_each_thread(pool: ThreadPoolExecutor, threads: int, call: Callable[[], None]) -> None:
    met = Barrier(threads)  # no thread takes the call of another

    def wait_and_call(_: int) -> None:
        met.wait()
        call()

    list(pool.map(wait_and_call, range(threads)))

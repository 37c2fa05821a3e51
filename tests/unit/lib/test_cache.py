import threading

import pytest

from skyscript_assets.lib.cache import Cache
from skyscript_assets.lib.errors import CorruptInputError


def never() -> str:
    pytest.fail("it is there")


def test_the_least_lately_used_value_goes_first_and_the_limit_holds() -> None:
    cache: Cache[str] = Cache(2 * 300, len)
    for key in "ab":
        cache.get(key, lambda: "x" * 300)
    cache.get("a", never)
    cache.get("c", lambda: "x" * 300)
    assert cache.size == 600
    cache.get("a", never)
    assert "b" not in cache
    cache.get("large", lambda: "x" * 30_000)
    assert cache.size == 30_000


def test_a_value_that_two_threads_want_is_made_once() -> None:
    cache: Cache[str] = Cache(10)
    begun, go, made = threading.Event(), threading.Event(), []

    def slow() -> str:
        made.append(1)
        begun.set()
        go.wait()
        return "x"

    threads = [threading.Thread(target=cache.get, args=("a", slow)) for _ in range(3)]
    for thread in threads:
        thread.start()
    begun.wait()
    go.set()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_an_error_reaches_who_asked_and_is_not_kept() -> None:
    cache: Cache[str] = Cache(10)

    def fail() -> str:
        raise CorruptInputError("torn")

    with pytest.raises(CorruptInputError, match="torn"):
        cache.get("a", fail)
    assert cache.get("a", lambda: "x") == "x"


def test_a_value_that_is_no_longer_usable_is_made_anew_and_counted_once() -> None:
    cache: Cache[str] = Cache(10, len)
    cache.get("a", lambda: "old")
    assert cache.get("a", lambda: "newer", lambda value: value != "old") == "newer"
    assert cache.get("a", never, lambda value: value != "old") == "newer"
    assert cache.size == 5


def test_the_last_user_leaves_nothing_behind() -> None:
    cache: Cache[str] = Cache(10)
    with cache.used():
        with cache.used():
            cache.get("a", lambda: "x")
        assert "a" in cache
    assert "a" not in cache
    assert cache.size == 0

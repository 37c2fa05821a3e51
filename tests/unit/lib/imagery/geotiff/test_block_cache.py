import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.imagery.geotiff.block_cache import BlockCache
from skyscript_assets.lib.imagery.geotiff.raster import BLOCKS, RasterReader
from skyscript_assets.lib.imagery.reader import Pixels

Factory = Callable[..., Path]


def block(side: int = 10) -> Pixels:
    return Pixels(np.zeros((side, side, 3), np.uint8), None)


def test_the_least_lately_used_block_goes_first_and_the_limit_holds() -> None:
    cache = BlockCache(2 * 300)
    for key in "ab":
        cache.get(key, block)
    cache.get("a", lambda: pytest.fail("a is there"))
    cache.get("c", block)
    assert cache.nbytes == 600
    cache.get("a", lambda: pytest.fail("a is there"))
    made: list[str] = []
    cache.get("b", lambda: made.append("b") or block())
    assert made == ["b"]
    cache.get("large", lambda: block(100))
    assert cache.nbytes == 30_000


def test_a_block_that_two_threads_want_is_made_once() -> None:
    cache, begun, go, made = BlockCache(10_000), threading.Event(), threading.Event(), []

    def slow() -> Pixels:
        made.append(1)
        begun.set()
        go.wait()
        return block()

    threads = [threading.Thread(target=cache.get, args=("a", slow)) for _ in range(3)]
    for thread in threads:
        thread.start()
    begun.wait()
    go.set()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_an_error_reaches_who_asked_and_is_not_kept() -> None:
    cache = BlockCache(10_000)

    def fail() -> Pixels:
        raise CorruptInputError("torn")

    with pytest.raises(CorruptInputError, match="torn"):
        cache.get("a", fail)
    assert cache.get("a", block).nbytes == 300


def test_the_last_reader_leaves_nothing_behind() -> None:
    cache = BlockCache(10_000)
    cache.join()
    cache.join()
    cache.get("a", block)
    cache.leave()
    assert cache.nbytes == 300
    cache.leave()
    assert cache.nbytes == 0


def test_scanlines_are_read_many_at_a_time(
    tmp_path: Path, write_raster: Factory, textured: Callable, scene_of: Any
) -> None:
    values = textured(300, 500)
    path = write_raster(tmp_path / "a.tif", values, tiled=False, blockysize=1, compress="lzw")
    loaded: list[Any] = []
    with RasterReader(scene_of(path)) as reader:
        decode = reader._decode
        reader._decode = lambda y, x: loaded.append((y, x)) or decode(y, x)  # type: ignore[method-assign]
        read = reader.read_inside(10, 100, 200, 300)
    assert np.array_equal(np.moveaxis(read.rgb, -1, 0), values[:, 100:400, 10:210])
    assert len(loaded) == 4
    assert BLOCKS.nbytes == 0

import numpy as np
import pytest
from numba.core import caching

from skyscript_assets.lib.compiled import compiled
from skyscript_assets.lib.imagery.geotiff.predictor import undo_differences


def test_a_function_is_compiled_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])

    @compiled("int64(int64)")
    def twice(number: int) -> int:
        return 2 * number

    assert twice(21) == 42


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_differences_are_summed_along_rows_modulo_256(bands: int) -> None:
    block = np.random.default_rng(0).integers(0, 256, (5, 37, bands), dtype=np.uint8)
    expected = np.cumsum(block, axis=1, dtype=np.uint8)
    undo_differences(block)
    assert np.array_equal(block, expected)

"""Real sets of others, read as pairs."""

from pathlib import Path

import numpy as np
import pytest

from skyscript_assets.lib.pairs.foreign import foreign_pairs
from skyscript_assets.lib.pairs.reader import Pairs

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("name", "count", "different", "side"), [("eurosat", 2700, 2695, 64), ("ucmerced", 1050, 1049, 256)]
)
def test_a_published_set_is_read_whole(shared_data: Path, name: str, count: int, different: int, side: int) -> None:
    folder = shared_data / "benchmarks" / name
    if not folder.exists():
        pytest.skip(f"real data is absent: {folder} does not exist")
    foreign = foreign_pairs(folder / f"{name}_test.csv", title="label")
    shapes = [pair.image.shape for pair in Pairs(foreign)]
    assert len(shapes) == count
    assert np.median(shapes, axis=0).tolist() == [side, side, 3]
    table = foreign.with_digests().table
    assert len(set(table["sha256"].to_pylist())) == different, "as published: some images are there twice"
    assert len(set(table["phash"].to_pylist())) > 0.98 * count

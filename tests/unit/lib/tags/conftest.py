"""Small tables of objects, and an encoder that needs no weights."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from numpy.typing import NDArray

from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.settings.plant import SizeSettings
from skyscript_assets.lib.tables import BBOX_TYPE, TAGS_TYPE, rows_to_table, write_table
from skyscript_assets.lib.tags import features

SCHEMA = pa.schema([("object_id", pa.string()), ("tags", TAGS_TYPE), ("bbox", BBOX_TYPE), ("geometry", pa.binary())])
DEGREE_M = 111_319.49079327358
"""A degree on the sphere of radius 6,378,137 m."""

ObjectRow = tuple[str, Mapping[str, str], float, float]
"""(object id, tags, width in metres, height in metres)."""


@pytest.fixture(scope="session")
def write_objects_table() -> Callable[[Path, Sequence[ObjectRow]], Path]:
    """Writes `objects.parquet` with boxes of given size on the equator, only the columns that are counted."""

    def write(path: Path, rows: Sequence[ObjectRow]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        table = [
            {
                "object_id": object_id,
                "tags": tags,
                "bbox": {"xmin": 0.0, "ymin": 0.0, "xmax": width / DEGREE_M, "ymax": height / DEGREE_M},
                "geometry": shapely.to_wkb(shapely.box(0, 0, width / DEGREE_M, height / DEGREE_M)),
            }
            for object_id, tags, width, height in rows
        ]
        write_table(path, rows_to_table(table, SCHEMA))
        return path

    return write


@pytest.fixture(scope="session")
def chip_settings() -> Callable[..., SizeSettings]:
    def make(**changes: Any) -> SizeSettings:
        return SizeSettings(**changes)

    return make


@pytest.fixture(scope="session")
def bag_of_words() -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """An encoder: the normalised sum of a fixed random vector for each word."""

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.zeros((len(texts), 512), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.split():
                row += np.random.default_rng(int(unit_hash("word", word) * 2**53)).normal(size=512)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)

    return encode


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts other rows in the place of the packaged vocabulary, none until it is called."""
    path = tmp_path / "packaged.csv"
    monkeypatch.setattr(features, "BASE_FILE", path)

    def write(rows: str) -> None:
        path.write_text("# whose counts these are\n" + ",".join(features.BASE_COLUMNS) + "\n" + rows, encoding="utf-8")

    write("")
    return write

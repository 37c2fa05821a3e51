import base64
import io
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from skyscript_assets import metadata


def test_hostile_text_of_a_table_is_shown_and_does_nothing() -> None:
    shown = metadata.rows(pa.table({"tag": ["<img src=x onerror=alert(1)>", "a|b\nc & d"]})).value
    assert "<img" not in shown
    assert "&lt;img" in shown
    assert "a\\|b c &amp; d" in shown
    assert len(shown.splitlines()) == 4


def test_long_values_are_cut_and_rows_are_bounded() -> None:
    shown = metadata.rows(pa.table({"text": ["x" * 500] * 50}), limit=3).value
    assert len(shown.splitlines()) == 5
    assert max(map(len, shown.splitlines())) < 130


def test_a_picture_is_shown_in_place_and_one_that_is_too_large_is_named(tmp_path: Path) -> None:
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    Image.new("RGB", (8, 8)).save(small)
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(large)
    assert metadata.image(small, "small").value.startswith("![small](data:image/png;base64,")
    assert metadata.image(large, "large") == dg.MetadataValue.path(str(large))
    shrunk = metadata.shrunk_image(large, "large").value
    data = base64.b64decode(shrunk.partition("base64,")[2].rstrip(")"))
    assert len(data) <= metadata.MAX_PREVIEW_BYTES
    assert Image.open(io.BytesIO(data)).format == "JPEG"


def test_a_drawing_leaves_no_file(tmp_path: Path) -> None:
    drawn: list[Path] = []

    def draw(path: Path) -> None:
        drawn.append(path)
        Image.new("RGB", (4, 4)).save(path)

    assert "data:image/png;base64," in metadata.drawn(draw, "title").value
    assert not drawn[0].exists()


def test_columns_of_all_tables_are_told_those_of_the_main_one_under_dagster_s_name() -> None:
    schema = pa.schema([("id", pa.string()), ("n", pa.int32())])
    shown = metadata.column_schemas({"main.parquet": schema, "more.parquet": schema})
    assert set(shown) == {"dagster/column_schema", "columns of more.parquet"}
    assert [(column.name, column.type) for column in shown["dagster/column_schema"].columns] == [
        ("id", "string"),
        ("n", "int32"),
    ]
    assert metadata.column_schemas({}) == {}


def test_lineage_names_the_asset_of_each_column() -> None:
    shown = metadata.column_lineage({"chip_plan": ["chip_id"], "captions": ["title"]})
    deps = shown["dagster/column_lineage"].deps_by_column
    assert deps["title"][0].asset_key == dg.AssetKey("captions")
    assert metadata.column_lineage({}) == {}


def test_counts_that_are_no_plain_values_are_json() -> None:
    shown = metadata.counts({"n": 1, "by": {"a": 1}, "none": None, "ok": True})
    assert shown == {"n": 1, "by": dg.MetadataValue.json({"a": 1}), "ok": True}


def test_progress_is_logged_with_rate_and_time_left_and_not_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, lines = iter([0.0, 1.0, 20.0, 21.0]), []
    monkeypatch.setattr(metadata.time, "monotonic", lambda: next(clock))
    log = type("Log", (), {"info": lambda self, line: lines.append(line)})()
    report = metadata.log_progress(log)
    for done in (1, 50, 60):
        report(done, 100, "chips")
    assert lines == ["50 of 100 chips, 2.5 a second, about 20 s left"]

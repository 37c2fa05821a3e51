import ast
import base64
import datetime as dt
import io
import json
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from skyscript_assets import metadata

HOSTILE = "![x](http://127.0.0.1:9/leak.png) <img src=http://127.0.0.1:9/leak.png>"
PACKAGE = Path(metadata.__file__).parent


def test_text_of_a_table_is_never_markdown() -> None:
    shown = metadata.rows(pa.table({"tag": [HOSTILE], "tags": [{"name": HOSTILE[:20]}]}))
    assert isinstance(shown, dg.TableMetadataValue)
    assert shown.records[0].data == {"tag": HOSTILE, "tags": str({"name": HOSTILE[:20]})}
    assert shown.schema.columns[0] == dg.TableColumn("tag", "string")


def test_only_pictures_are_markdown_and_their_titles_are_written_in_the_code() -> None:
    made, titles = [], []
    for path in PACKAGE.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match call:
                case ast.Call(func=ast.Attribute(attr="md" | "MarkdownMetadataValue")):
                    made.append(path.name)
                case ast.Call(func=ast.Attribute(ast.Name("metadata"), "image" | "drawn" | "image_bytes"), args=args):
                    titles.append(args[1])
    assert made == ["metadata.py"], "metadata.image_bytes alone makes Markdown"
    assert len(titles) > 8
    written = [ast.unparse(title) for title in titles if not isinstance(title, ast.Constant)]
    assert written == ["name.capitalize()"], "the contact sheets, named in assets/chips.py"


def test_long_values_are_cut_and_rows_are_bounded() -> None:
    shown = metadata.rows(pa.table({"text": ["x" * 500] * 50}), limit=3)
    assert [len(record.data["text"]) for record in shown.records] == [120] * 3


def test_numbers_stay_numbers_where_a_browser_can_read_them() -> None:
    values = [True, None, 3, 2**60, 1 / 3, float("nan"), float("-inf"), dt.date(2020, 1, 2)]
    shown = [metadata.rows(pa.table({"v": [value]})).records[0].data["v"] for value in values]
    assert shown == [True, None, 3, str(2**60), 0.333333, "nan", "-inf", "2020-01-02"]
    assert "NaN" not in json.dumps(shown)


def test_a_picture_is_shown_in_place_and_one_that_is_too_large_is_made_smaller(tmp_path: Path) -> None:
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    Image.new("RGB", (8, 8)).save(small)
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(large)
    assert metadata.image(small, "small").value.startswith("![small](data:image/png;base64,")
    shrunk = metadata.image(large, "large").value
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


def test_the_command_that_follows_one_row_has_its_id(tmp_path: Path) -> None:
    table = pa.table({"object_id": ["w1", "w2"], "chip_id": ["w1_S_20200101_0a", "w2_S_20200101_0b"]})
    pq.write_table(table, tmp_path / "main.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "empty.parquet")
    pq.write_table(table.drop_columns("chip_id"), tmp_path / "objects.parquet")
    plain = pa.schema([("key", pa.string())])
    told = metadata.follow(tmp_path, {"plain.parquet": plain, "main.parquet": table.schema})
    assert told == {"follow one": dg.MetadataValue.text("skyscript why w1_S_20200101_0a")}
    objects = metadata.follow(tmp_path, {"objects.parquet": table.schema.remove(1)})
    assert objects == {"follow one": dg.MetadataValue.text("skyscript why w1")}
    assert metadata.follow(tmp_path, {"empty.parquet": table.schema, "plain.parquet": plain}) == {}


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

"""A release: its files, what is said of it, and that none of others' text is more than text."""

import csv
import datetime as dt
import hashlib
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import geopandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from markdown_it import MarkdownIt
from PIL import Image

from skyscript_assets.cli.newcomer import UNKNOWN
from skyscript_assets.lib.errors import CorruptInputError, SkyScriptError, TooLittleDataError
from skyscript_assets.lib.pairs import export as pairs_export
from skyscript_assets.lib.release import data
from skyscript_assets.lib.release.data import DATA_SCHEMA, read_removed
from skyscript_assets.lib.release.text import markdown, plain
from skyscript_assets.lib.settings.plant import PlanSettings

HOSTILE = [
    "<script>alert(1)</script> | *a* [b](javascript:c) ![d](http://e.example/f.png) `g` $h$ <!-- i",
    '\'); DROP TABLE pairs; -- \\ "j"',
    "\u202egnp.exe \u200b\u2067שלום\u2069 🌳👩‍🌾",
    '=HYPERLINK("http://k.example") @everyone www.l.example',
    "m" * 255,
]
Write = Callable[..., tuple[Path, dict[str, Any]]]


@pytest.fixture
def partitions(write_partition: Callable[..., Any]) -> dict[tuple[str, str], Any]:
    """Two sources over one region; every text of others is hostile."""
    facts: list[dict[str, Any]] = [
        {"title": text, "natural_long": text, "center_tags": {"building": "yes", "note": text}, "attribution": text}
        for text in HOSTILE
    ]
    facts[1]["split"], facts[2]["split"], facts[3]["west"] = "val", "test", 179.9
    names = [{"object_id": name, "chip_id": f"{name}_T_20200601_00000000"} for name in ("a0", "w1")]
    other = [{"image": 10 + n, "gsd_m": 10.0, **name} for n, name in enumerate(names)]
    return {("here", "S"): write_partition(facts), ("here", "T"): write_partition(other, source="T")}


def test_the_files_hold_every_pair_by_source_and_split(partitions: Any, released: Write) -> None:
    out, counts = released(partitions, style="natural_long")
    assert counts["splits"] == {"train": 5, "validation": 1, "test": 1}
    assert counts["sources"] == {"S": 5, "T": 2}
    names = sorted(path.relative_to(out / "data").as_posix() for path in data.data_files(out))
    assert names == [f"S/{name}-here-00000.parquet" for name in ("test", "train", "validation")] + [
        "T/train-here-00000.parquet"
    ]
    table = pq.read_table(out / "data/S/train-here-00000.parquet")
    assert table.schema.equals(DATA_SCHEMA)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == DATA_SCHEMA.names
    row = table.to_pylist()[0]
    assert row["text"] == row["natural_long"] == HOSTILE[0]
    assert row["tags"] == ["building=yes", *(f"note={part}" for part in HOSTILE[0].split(";"))]
    assert hashlib.sha256(row["image"]["bytes"]).hexdigest() == row["sha256"]
    assert Image.open(io.BytesIO(row["image"]["bytes"])).size == (120, 100)
    found = duckdb.sql(f"SELECT source, count(*) FROM '{out}/data/*/*.parquet' GROUP BY 1 ORDER BY 1").fetchall()
    assert found == [("S", 5), ("T", 2)]


def test_row_groups_and_files_are_bounded(partitions: Any, released: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs_export, "ROWS_OF_GROUP", 1)
    monkeypatch.setattr(data, "FILE_BYTES", 20_000)
    out, _ = released(partitions)
    train = [pq.ParquetFile(path) for path in sorted((out / "data/S").glob("train-*"))]
    assert len(train) > 1
    assert sum(file.metadata.num_rows for file in train) == 3
    assert all(file.metadata.row_group(i).num_rows == 1 for file in train for i in range(file.num_row_groups))


def test_digests_hold_and_the_same_input_gives_the_same_bytes(partitions: Any, released: Write) -> None:
    out, _ = released(partitions)
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=out, check=True)
    again, _ = released(partitions, "again")
    assert (out / "SHA256SUMS").read_text() == (again / "SHA256SUMS").read_text()


def test_a_killed_release_goes_on(partitions: Any, released: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = released(partitions)
    read = data.samples_of
    asked = []

    def killed(rows: Any, few: Any, wanted: Any) -> Any:
        asked.extend(few)
        for number, sample in enumerate(read(rows, few, wanted)):
            if ("here", "T") in few and number == 1 and len(asked) == 2:
                raise KeyboardInterrupt
            yield sample

    monkeypatch.setattr(data, "samples_of", killed)
    with pytest.raises(KeyboardInterrupt):
        released(partitions, "killed")
    out, _ = released(partitions, "killed")
    assert asked == [("here", "S"), ("here", "T"), ("here", "T")]
    assert (out / "SHA256SUMS").read_text() == (whole / "SHA256SUMS").read_text()
    assert not list(out.glob(".*"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("licence", one) for one in ("", "Unknown", "n/a", UNKNOWN, "proprietary", "CC BY-NC-ND 4.0")),
        ("licence", "All rights reserved"),
        *(("attribution", one) for one in ("", "?", UNKNOWN)),
    ],
)
def test_a_licence_that_forbids_it_or_an_owner_nobody_knows_stops_it(
    write_partition: Any, released: Write, name: str, value: str
) -> None:
    with pytest.raises(SkyScriptError, match=f"source S: its {name} is"):
        released({("here", "S"): write_partition([{}, {name: value}])})


def test_the_card_says_what_there_is_and_nothing_in_it_is_syntax(partitions: Any, released: Write) -> None:
    out, _ = released(partitions, licence=HOSTILE[0], contact=HOSTILE[1])
    text = (out / "README.md").read_text("utf-8")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "other"
    assert front["size_categories"] == ["n<1K"]
    (one, two) = front["configs"]
    assert [each["split"] for each in one["data_files"]] == ["train", "validation", "test"]
    assert two["data_files"] == [{"split": "train", "path": "data/T/train-*.parquet"}]
    assert "5 train, 1 validation, 1 test" in text
    assert all(f"`{name}`" in text for name in DATA_SCHEMA.names)
    for name in ("README.md", "DATASHEET.md", "LICENSE.md"):
        shown = (out / name).read_text("utf-8")
        assert "$h$" not in shown
        page = MarkdownIt("gfm-like", {"linkify": False}).render(shown.split("\n---\n")[-1])
        syntax = ("<script", "<!-- i", "<em>", 'href="javascript', 'src="http', "\u202e")
        assert [tag for tag in syntax if tag in page] == []
        assert HOSTILE[4] not in page or name == "LICENSE.md"
    (out / "credits.json").read_text("utf-8").index(json.dumps(HOSTILE[1])[1:-1])
    cited = yaml.safe_load((out / "CITATION.cff").read_text("utf-8"))
    assert (cited["title"], cited["authors"]) == ("roofs", [{"name": "A. Mapper"}])


def test_how_it_was_made_is_told(partitions: Any, released: Write) -> None:
    plan = PlanSettings(snapshot="first", quota=40, sampling="squares", square_share=0.25, seed=3)
    out, _ = released(partitions, plan=plan, policy="paper", authors=[HOSTILE[1]])
    text = (out / "README.md").read_text("utf-8")
    assert "all objects of 25% of squares of 0.01 degrees are drawn (seed 3)" in text
    told = json.loads((out / "croissant.json").read_text("utf-8"))
    assert "policy of the paper" in told["rai:personalSensitiveInformation"][0]
    assert told["creator"][0]["name"] == HOSTILE[1]


def test_what_the_manifest_drops_is_told(partitions: Any, released: Write, write_partition: Any) -> None:
    again = [{"image": 10, "object_id": "w9", "chip_id": "w9_U_20200601_00000000"}]
    out, _ = released(partitions | {("here", "U"): write_partition(again, source="U")})
    assert "let through between splits: duplicate 1." in (out / "README.md").read_text("utf-8")


def test_text_stays_text() -> None:
    assert plain("a\n\u202eb\u200b  c") == "a b c"
    assert plain("x" * 300, 100) == "x" * 99 + "…"
    assert markdown("chip_id _a_") == "chip_id &#95;a&#95;"
    rendered = MarkdownIt("gfm-like", {"linkify": False}).render(" ".join(markdown(each, 300) for each in HOSTILE))
    assert rendered.startswith("<p>&lt;script&gt;alert(1)&lt;/script&gt; | *a* [b]")
    assert "שלום" in rendered
    assert "🌳" in rendered


def test_croissant_states_ground_resolution_sampling_and_bias(partitions: Any, released: Write) -> None:
    out, _ = released(partitions, published=dt.date(2026, 1, 2))
    text = (out / "croissant.json").read_text("utf-8")
    assert "<" not in text
    told = json.loads(text)
    assert "http://mlcommons.org/croissant/1.1" in told["conformsTo"]
    assert told["geocr:coordinateReferenceSystem"] == "OGC:CRS84"
    assert "at most about 40 objects" in told["geocr:samplingStrategy"]
    assert "here 100.0%" in told["geocr:spatialBias"]
    assert told["datePublished"] == "2026-01-02"
    assert [each["@id"] for each in told["recordSet"]] == ["S", "T"]
    fields = {field["name"]: field for field in told["recordSet"][0]["field"]}
    assert fields["gsd_m"]["equivalentProperty"] == "geocr:spatialResolution"
    assert list(fields) == DATA_SCHEMA.names
    arrays = [name for name, field in fields.items() if field.get("isArray")]
    assert arrays == [field.name for field in DATA_SCHEMA if pa.types.is_list(field.type)]
    for file in (each for each in told["distribution"] if each["@type"] == "cr:FileObject"):
        assert hashlib.sha256((out / file["contentUrl"]).read_bytes()).hexdigest() == file["sha256"]


def test_items_lie_where_the_chips_do(partitions: Any, released: Write) -> None:
    out, _ = released(partitions)
    items = geopandas.read_parquet(out / "items.parquet").set_index("id")
    assert items.crs.to_authority() == ("OGC", "CRS84")
    assert len(items) == 7
    across = items.loc["a3_S_20200601_00000003"]
    assert across.geometry.geom_type == "MultiPolygon"
    (box,) = (row["bbox"] for row in pq.read_table(out / "items.parquet").to_pylist() if row["id"] == across.name)
    assert box["xmin"] == 179.9 > box["xmax"]
    assert (out / across.assets["pair"]["href"]).is_file()
    collection = json.loads((out / "collection.json").read_text("utf-8"))
    assert collection["id"] == across.collection == "roofs"
    assert all(-180 <= side <= 180 for box in collection["extent"]["spatial"]["bbox"] for side in box)


def test_what_is_asked_to_go_stays_out(partitions: Any, released: Write, tmp_path: Path) -> None:
    first, _ = released(partitions)
    asked = tmp_path / "removed.txt"
    asked.write_text("a0  # a house\n\na1_S_20200601_00000001\nw7\n", encoding="utf-8")
    out, counts = released(partitions, "second", version="1.1.0", asked=asked, before=first)
    assert counts["removed"] == 3
    assert counts["changes"] == {"added": 0, "removed": 3, "changed": 0}
    with (out / "changes.csv").open(encoding="utf-8", newline="") as file:
        assert [row["chip_id"] for row in csv.DictReader(file)] == [
            *("a0_S_20200601_00000000", "a0_T_20200601_00000000", "a1_S_20200601_00000001"),
        ]
    assert "3 pairs that were asked for stay out" in (out / "README.md").read_text("utf-8")
    for name in out.rglob("*"):
        assert name.is_dir() or name.name == "changes.csv" or b"a0_S_20200601" not in name.read_bytes()


def test_a_list_of_ids_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("a1\na2,a3\n", encoding="utf-8")
    with pytest.raises(CorruptInputError, match=r"ids\.csv, line 2"):
        read_removed(tmp_path / "ids.csv")


def test_an_earlier_release_that_is_none_is_refused(partitions: Any, released: Write, tmp_path: Path) -> None:
    with pytest.raises(TooLittleDataError, match="holds no pair"):
        released(partitions, before=tmp_path)
    (tmp_path / "data/S").mkdir(parents=True)
    pq.write_table(
        pq.read_table(data.data_files(tmp_path / "release")[0]).select(["text"]), tmp_path / "data/S/a.parquet"
    )
    with pytest.raises(CorruptInputError, match="not those of a release"):
        released(partitions, before=tmp_path)

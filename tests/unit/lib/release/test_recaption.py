"""Captions of a release that are written again, from what travels with it."""

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import shapely

from skyscript_assets.lib.captions.write import CaptionInputs, write_captions
from skyscript_assets.lib.errors import (
    CorruptInputError,
    OutputBusyError,
    OutputSchemaError,
    StorageError,
    TooLittleDataError,
    UpstreamMissingError,
)
from skyscript_assets.lib.files import file_sha256, locked
from skyscript_assets.lib.osm.objects import OBJECT_SCHEMA
from skyscript_assets.lib.release.data import SUMS_FILE, ReleaseConfig
from skyscript_assets.lib.release.push import read_sums
from skyscript_assets.lib.release.recaption import CHANGED, GONE, SAME, SILENT, recaption
from skyscript_assets.lib.settings.load import GivenFile
from skyscript_assets.lib.settings.plant import CaptionSettings, ReleaseSettings
from skyscript_assets.lib.tables import rows_to_table, write_table
from skyscript_assets.lib.tags.snapshot import TAGS_FILE, TAGS_SCHEMA
from tests.caption_world import LEFT, RULES, TOP, VISIBLE, ground
from tests.unit.lib.release.conftest import CHIPS, PLAN, SETTINGS

CAPTIONS = CaptionSettings()


def thing(object_id: str, shape: shapely.Geometry, **tags: str) -> dict[str, Any]:
    """A map object, given in pixels."""
    shape = ground(shape)
    row: dict[str, Any] = dict.fromkeys(OBJECT_SCHEMA.names) | {"object_id": object_id, "tags": tags}
    box = dict(zip(("xmin", "ymin", "xmax", "ymax"), shape.bounds, strict=True))
    return row | {"geometry": shapely.to_wkb(shape), "bbox": box, "osm_type": "way", "osm_id": 1, "version": 3}


@pytest.fixture
def made(tmp_path: Path, write_partition: Any, released: Callable[..., Any]) -> Path:
    """A release of houses at a road, with a tree and a hut beside each: which comes first, nothing but order tells."""
    objects = [
        thing("n1", shapely.Point(9000, 9000), building="yes"),  # far away, the first of its tags
        thing("w1", shapely.LineString([(-50, 80), (2000, 80)]), highway="residential", name="High Street"),
    ]
    facts = []
    for n in range(3):
        x = 300 * n
        objects += [
            thing(f"a{n}", shapely.box(x + 40, 20, x + 70, 60), building="house", note="mine"),
            thing(f"n{n}7", shapely.Point(x + 20, 20), natural="tree"),
            thing(f"n{n}8", shapely.Point(x + 90, 20), building="yes"),
        ]
        sides = zip(("xmin", "ymin", "xmax", "ymax"), ground(shapely.box(x, 0, x + 120, 100)).bounds, strict=True)
        window = [0.5, 0.0, LEFT + x * 0.5, 0.0, -0.5, TOP]
        facts.append({"transform": window, "bbox": dict(sides), "split": ("train", "val", "test")[n]})
    folders = write_partition(facts)
    snapshot, home = tmp_path / "snapshot", tmp_path / "objects"
    snapshot.mkdir()
    home.mkdir()
    tags = [{"key": key, "value": value, "coarsest_gsd_m": gsd_m} for (key, value), gsd_m in VISIBLE.items()]
    write_table(snapshot / TAGS_FILE, pa.Table.from_pylist(tags, schema=TAGS_SCHEMA))
    write_table(home / "objects.parquet", rows_to_table(objects, OBJECT_SCHEMA))
    inputs = CaptionInputs(folders.plan, folders.chips, home / "objects.parquet", snapshot, RULES)
    assert write_captions(inputs, CAPTIONS, folders.captions)["captions"] == 3
    partitions = {("here", "S"): dataclasses.replace(folders, objects=home)}
    folder: Path = released(partitions, style="title_multi_objects")[0]
    return folder


def again(
    made: Path, out: Path, captions: CaptionSettings = CAPTIONS, removed: Path | None = None, **more: Any
) -> dict[str, int]:
    settings = ReleaseSettings.model_validate(SETTINGS | {"style": "title_multi_objects"} | more)
    asked = removed and GivenFile(path=removed, sha256="")
    config = ReleaseConfig(
        settings=settings, previous=None, removed=asked, plan=PLAN, zoom=1, policy="ours", chips=CHIPS
    )
    return dict(recaption(made, settings, config, captions, RULES, out))


def pairs(release: Path) -> dict[str, dict[str, Any]]:
    rows = [row for path in (release / "data").rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    return {row["chip_id"]: row for row in rows}


def changes(release: Path) -> list[dict[str, str]]:
    with (release / "changes.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_by_the_same_rules_nothing_changes(made: Path, tmp_path: Path) -> None:
    texts = {row["text"] for row in pairs(made).values()}
    assert texts == {"building of house, surrounded by road of residential; building; natural tree"}
    assert again(made, tmp_path / "again") == {SAME: 3}
    for path in made.rglob("*.parquet"):
        other = tmp_path / "again" / path.relative_to(made)
        assert pq.read_table(other).equals(pq.read_table(path)), path.name
        if "data" in path.parts:
            assert other.read_bytes() == path.read_bytes(), path.name
    assert changes(tmp_path / "again") == []
    assert all(file_sha256(tmp_path / "again" / name) == one for name, one in read_sums(tmp_path / "again").items())


def test_other_rules_change_words_and_no_image(made: Path, tmp_path: Path) -> None:
    out, before = tmp_path / "again", pairs(made)
    assert again(made, out, CaptionSettings(max_surrounding=1), version="1.1.0", style="title") == {CHANGED: 3}
    for chip_id, row in pairs(out).items():
        assert row["text"] == row["title"] == "building of house"
        assert row["title_multi_objects"] == "building of house, surrounded by road of residential"
        assert (row["image"], row["sha256"]) == (before[chip_id]["image"], before[chip_id]["sha256"])
        assert row["score"] is row["scorer"] is None, "it was that of other words"
    assert {one["change"] for one in changes(out)} == {"changed"}
    assert "1.1.0" in (out / "README.md").read_text()
    assert SUMS_FILE not in read_sums(out)
    assert again(out, tmp_path / "back") == {CHANGED: 3}
    assert pairs(tmp_path / "back")[chip_id]["text"] == before[chip_id]["text"]


def test_who_is_removed_and_what_says_nothing_stays_out(made: Path, tmp_path: Path) -> None:
    tags = pq.read_table(made / TAGS_FILE)
    write_table(made / TAGS_FILE, tags.filter(pc.not_equal(tags["key"], "building")))
    with pytest.raises(TooLittleDataError, match="nothing is said of any pair"):
        again(made, tmp_path / "again")
    write_table(made / TAGS_FILE, tags)
    (tmp_path / "asked.txt").write_text("a1\n")
    assert again(made, tmp_path / "again", removed=tmp_path / "asked.txt") == {SAME: 2, GONE: 1}
    assert {row["object_id"] for row in pairs(tmp_path / "again").values()} == {"a0", "a2"}
    for name in ("rebuild.parquet", "objects.parquet"):
        assert "a1" not in pq.read_table(tmp_path / "again" / name)["object_id"].to_pylist()
    assert SILENT not in again(tmp_path / "again", tmp_path / "next")


def test_an_image_that_is_another_one_stops_it(made: Path, tmp_path: Path) -> None:
    path = next((made / "data/S").glob("train-*"))
    table = pq.read_table(path)
    images = [{**one, "bytes": one["bytes"] + b"x"} for one in table["image"].to_pylist()]
    pq.write_table(table.set_column(0, table.schema.field("image"), pa.array(images, table.schema[0].type)), path)
    with pytest.raises(CorruptInputError, match=r"the image of a0_S\S+ is not the one that rebuild\.parquet lists"):
        again(made, tmp_path / "again")
    path.unlink()
    with pytest.raises(CorruptInputError, match=r"1 pairs of rebuild\.parquet, such as a0_S\S+, are not in its data"):
        again(made, tmp_path / "again")
    assert not list(tmp_path.glob("*again*"))


def test_a_folder_is_written_by_one_and_never_over(made: Path, tmp_path: Path) -> None:
    (tmp_path / ".again.partial").mkdir()
    with locked(tmp_path / ".again.partial", "it"), pytest.raises(OutputBusyError, match="again is being written"):
        again(made, tmp_path / "again")
    (tmp_path / "again").mkdir()
    with pytest.raises(StorageError, match="again exists"):
        again(made, tmp_path / "again")


def test_a_release_that_lacks_what_captions_are_made_of_says_so(made: Path, tmp_path: Path) -> None:
    write_table(made / TAGS_FILE, pa.table({"key": ["building"]}))
    with pytest.raises(OutputSchemaError, match=r"tags\.parquet: column value"):
        again(made, tmp_path / "again")
    (made / TAGS_FILE).unlink()
    with pytest.raises(UpstreamMissingError, match=r"tags\.parquet does not exist"):
        again(made, tmp_path / "again")
    (made / "objects.parquet").write_bytes(b"PAR1")
    with pytest.raises(CorruptInputError, match=r"objects\.parquet is not a whole Parquet file"):
        again(made, tmp_path / "again")
    assert not list(tmp_path.glob("*again*"))

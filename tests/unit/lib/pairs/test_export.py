"""A selection of pairs in formats of others."""

import csv
import fcntl
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import shapely
from PIL import Image

from skyscript_assets.lib.errors import (
    CorruptInputError,
    OutputBusyError,
    SkyScriptError,
    StorageError,
    TooLittleDataError,
)
from skyscript_assets.lib.pairs.export import FORMATS, export
from skyscript_assets.lib.pairs.manifest import write_manifest
from skyscript_assets.lib.pairs.selection import Selection
from skyscript_assets.lib.pairs.table import PartitionFolders
from skyscript_assets.lib.settings.base import STYLES

WritePartition = Callable[..., PartitionFolders]
HOSTILE = 'tree, "x"\n<img src=x>\u202eß🌳'


def region(object_id: str, shape: shapely.Geometry, phrase: str, *, focus: bool = False) -> dict[str, Any]:
    box = [int(side) for side in shape.bounds]
    return {"object_id": object_id, "focus": focus, "phrase": phrase, "box": box, "geometry": shapely.to_wkb(shape)}


REGIONS = [
    region("a0", shapely.box(10, 20, 60, 70), "building with roof shape of flat", focus=True),
    region("r1", shapely.box(0, 0, 30, 30).difference(shapely.box(5, 5, 15, 15)), "natural woodland"),
    region("n2", shapely.Point(5, 5), "natural tree"),
]


@pytest.fixture
def made(tmp_path: Path, write_partition: WritePartition) -> tuple[Path, dict[tuple[str, str], PartitionFolders]]:
    """A manifest of five pairs, one of which has no score and one a finer GSD, in their partition."""
    facts: list[dict[str, Any]] = [{"regions": REGIONS}, {"title_multi_objects": HOSTILE}, {"gsd_m": 0.2}]
    facts += [{"split": "test"}, {"scored": False}]
    partitions = {("here", "S"): write_partition(facts)}
    write_manifest(partitions, tmp_path)
    return tmp_path / "manifest.parquet", partitions


def written(made: tuple[Path, Any], form: str, **wanted: Any) -> tuple[Path, dict[str, int]]:
    out = made[0].parent / form
    return out, export(form, *made, Selection(**wanted), out)


def test_shards_hold_image_text_and_facts(made: tuple[Path, Any]) -> None:
    out, counts = written(made, "webdataset", style="natural_long", prefix="a photo: ")
    assert counts == {"train": 3, "test": 1}
    assert json.loads((out / "train/sizes.json").read_text()) == {"000000.tar": 3}
    with tarfile.open(out / "train/000000.tar") as tar:
        texts = [tar.extractfile(one).read() for one in tar if one.name.endswith(".txt")]  # type: ignore[union-attr]
    assert texts[0] == b"a photo: Building number 0."


def test_csvs_have_the_names_of_the_published_data(made: tuple[Path, Any]) -> None:
    out, _ = written(made, "skyscript", style="title_multi_objects")
    with (out / "train.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["filepath"] for row in rows] == ["images/a0_S_20.jpg", "images/a1_S_20.jpg", "images/a2_S_20.jpg"]
    assert rows[1]["title_multi_objects"] == rows[1]["caption"] == HOSTILE
    assert Image.open(out / rows[0]["filepath"]).size == (120, 100)


def test_parquet_holds_images_as_datasets_reads_them(made: tuple[Path, Any]) -> None:
    out, _ = written(made, "parquet")
    table = pq.read_table(out / "train.parquet")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    row = table.to_pylist()[0]
    assert Image.open(io.BytesIO(row["image"]["bytes"])).size == (120, 100)
    assert json.loads(row["facts"])["osm"]["object_id"] == "a0"


def test_folders_and_talks_name_each_image_once(made: tuple[Path, Any]) -> None:
    out, _ = written(made, "imagefolder", style="title_multi_objects")
    told = [json.loads(line) for line in (out / "train/metadata.jsonl").read_text("utf-8").splitlines()]
    assert [one["text"] for one in told][1] == HOSTILE
    assert sorted(one["file_name"] for one in told) == sorted(path.name for path in (out / "train").glob("*.jpg"))
    drawing = Image.open(out / "train" / told[0]["conditioning_file_name"])
    colours = json.loads((out / "classes.json").read_text())
    assert set(colours) == {"building", "natural woodland", "natural tree"}
    seen = [drawing.getpixel(at) for at in ((40, 60), (20, 10), (5, 5), (110, 90))]
    assert seen == [*(tuple(colours[name]) for name in ("building", "natural woodland", "natural tree")), (0, 0, 0)]
    assert drawing.size == (120, 100)
    out, _ = written(made, "llava")
    (talk,) = json.loads((out / "test.json").read_text())
    assert (out / talk["image"]).is_file()
    assert talk["conversations"][1] == {"from": "gpt", "value": "building number 3"}


def test_areas_become_boxes_and_polygons(made: tuple[Path, Any]) -> None:
    out, _ = written(made, "coco")
    told = json.loads((out / "instances_train.json").read_text())
    building, wood = told["annotations"]
    assert [one["name"] for one in told["categories"]] == ["building", "natural woodland"]
    assert (building["bbox"], building["area"], building["image_id"]) == ([10, 20, 50, 50], 2500, 1)
    assert wood["area"] == 800
    assert len(wood["segmentation"]) == 1
    assert wood["id"] != building["id"]
    out, _ = written(made, "coco-captions")
    told = json.loads((out / "captions_train.json").read_text("utf-8"))
    assert len(told["annotations"]) == 3 * len(STYLES)
    assert len({one["id"] for one in told["annotations"]}) == 3 * len(STYLES)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"splits": ("test",)}, ["a3"]),
        ({"share": 0.4, "splits": ("train",)}, ["a2"]),
        ({"max_gsd_m": 0.3}, ["a2"]),
        ({"tags": (("building", "yes"),), "splits": ("train",)}, ["a0", "a1", "a2"]),
        ({"sources": ("S",), "regions": ("here",), "splits": ("test",)}, ["a3"]),
    ],
)
def test_a_selection_keeps_what_is_asked_for(made: tuple[Path, Any], wanted: Any, names: list[str]) -> None:
    out, _ = written(made, "llava", **wanted)
    talks = [talk for path in out.glob("t*.json") for talk in json.loads(path.read_text())]
    assert [talk["id"].split("_")[0] for talk in talks] == names


@pytest.mark.parametrize("form", FORMATS)
def test_whose_it_is_stands_beside_every_format(made: tuple[Path, Any], form: str) -> None:
    out, _ = written(made, form)
    told = json.loads((out / "credits.json").read_text("utf-8"))
    assert told["captions and geometry"]["licence"] == "ODbL-1.0"
    (images,) = told["images"]
    assert images["images"] == 4
    assert images["attribution"]
    assert images["licence"]


def test_bad_selections_leave_nothing_behind(made: tuple[Path, Any], write_partition: WritePartition) -> None:
    manifest, partitions = made
    before = sorted(manifest.parent.iterdir())
    with pytest.raises(TooLittleDataError, match="no pair"):
        written(made, "coco", tags=(("building", "house"),))
    with pytest.raises(StorageError, match="exists"):
        export("coco", manifest, partitions, Selection(), manifest.parent)
    chips = partitions["here", "S"].chips / "part-00000.tar"
    data = chips.read_bytes()
    chips.write_bytes(data[:1000] + bytes([data[1000] ^ 255]) + data[1001:])
    with pytest.raises(CorruptInputError, match="damaged"):
        written(made, "parquet")
    assert sorted(manifest.parent.iterdir()) == before


def test_chips_that_were_made_again_since_are_not_taken_for_those_of_the_manifest(made: tuple[Path, Any]) -> None:
    path = made[1]["here", "S"].chips / "chips.parquet"
    chips = pq.read_table(path)
    digests = ["0" * 64, *chips["sha256"].to_pylist()[1:]]
    pq.write_table(chips.set_column(chips.schema.get_field_index("sha256"), "sha256", [digests]), path)
    with pytest.raises(CorruptInputError, match=r"1 images, such as a0_S\S+, were made again .* run training_manifest"):
        written(made, "llava")


def test_what_a_killed_export_left_is_no_part_of_the_next(made: tuple[Path, Any]) -> None:
    left = made[0].parent / ".llava.partial"
    left.mkdir()
    (left / "half.json").write_text("[")
    out, _ = written(made, "llava")
    assert not left.exists()
    assert not (out / "half.json").exists()


def test_two_exports_never_write_one_folder(made: tuple[Path, Any]) -> None:
    first = made[0].parent / ".llava.partial"
    first.mkdir()
    (first / "half.json").write_text("[")
    handle = os.open(first, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(OutputBusyError, match="is being written by another process"):
        written(made, "llava")
    assert (first / "half.json").exists(), "what the other writes is left alone"
    os.close(handle)
    written(made, "llava")


def test_an_unknown_licence_stops_it(tmp_path: Path, write_partition: WritePartition) -> None:
    partitions = {("here", "S"): write_partition([{"licence": " Unknown"}])}
    write_manifest(partitions, tmp_path)
    with pytest.raises(SkyScriptError, match="source S: its licence is ' Unknown'"):
        export("coco", tmp_path / "manifest.parquet", partitions, Selection(), tmp_path / "out")
    assert not (tmp_path / "out").exists()

"""Benchmarks cut from chips of held-out cells."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skyscript_assets.lib.benchmarks.held_out import (
    FROZEN_FILE,
    HeldOutBenchmark,
    HeldOutRetrieval,
    OwnBenchmark,
    build_held_out,
)
from skyscript_assets.lib.benchmarks.items import BENCHMARK_FILE, BenchmarkSpec, iter_images, read_items, read_model
from skyscript_assets.lib.captions.audit import VERDICT_COLUMNS
from skyscript_assets.lib.errors import CorruptInputError, TooLittleDataError
from skyscript_assets.lib.pairs.table import PartitionFolders
from skyscript_assets.lib.settings.base import Shared
from skyscript_assets.lib.tables import read_table

WritePartition = Callable[..., PartitionFolders]
Build = Callable[..., dict[str, Any]]


def chip(what: str, **facts: Any) -> dict[str, Any]:
    said = {"object_id": "a0", "focus": True, "main": what}
    return {"split": "test", "statements": [said], "center_tags": {"surface": "asphalt"}} | facts


CHIPS = [
    chip("road"),
    chip("road", object_id="a99"),  # the same object is in a training chip of the other source
    chip("road", center_tags={"surface": "gravel"}),
    chip("building", center_tags={}),
    chip("building", center_tags={"surface": "gravel;dirt"}),
    chip("building", split="train"),
    chip("pier"),
    chip("road", object_id="a0"),
]


@pytest.fixture
def build(tmp_path: Path, write_partition: WritePartition) -> Build:
    """Builds a benchmark of source S from `CHIPS`, or others; source T has a training chip of object a99."""
    shared = Shared(folder=tmp_path, zoom=15, geofabrik_mirror="", boxes=())

    def built(benchmark: OwnBenchmark, chips: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        number = len(list(tmp_path.glob("out*")))
        one = write_partition(CHIPS if chips is None else chips, f"here{number}")
        other = write_partition([{"object_id": "a99"}, {}], f"here{number}", "T")
        pairs = {(f"here{number}", "S"): one, (f"here{number}", "T"): other}
        mine = {pair: folders for pair, folders in pairs.items() if pair[1] == "S"}
        inputs = {"chip_plan": {pair: folders.plan for pair, folders in pairs.items()}}
        inputs |= {"image_chips": {pair: folders.chips for pair, folders in mine.items()}}
        inputs |= {"captions": {pair: folders.captions for pair, folders in mine.items()}}
        inputs |= {"clip_scores": {pair: folders.scores for pair, folders in mine.items()}}
        out = tmp_path / f"out{number}"
        out.mkdir()
        return build_held_out(benchmark, shared, inputs, out) | {"out": out}

    return built


def held_out(**stated: Any) -> HeldOutBenchmark:
    return HeldOutBenchmark(title="mine", sources=("S",), **{"min_per_class": 1} | stated)


def test_things_of_held_out_objects_are_told_apart(build: Build) -> None:
    told = build(held_out(min_per_class=2))
    assert told["positives"] == {"building": 2, "road": 2}
    assert told["too few"] == {"pier": 1}
    assert told["skipped"] == {"its object is in a training pair": 1, "its object is shown": 1}
    items = read_items(told["out"])
    assert items["label"].to_pylist() == [truth[0] for truth in items["truth"].to_pylist()]
    spec = read_model(told["out"] / BENCHMARK_FILE, BenchmarkSpec)
    assert [one.text for one in spec.classes] == ["building", "road"]
    assert (spec.licence, spec.synthetic, spec.split_zoom) == ("CC0-1.0", False, 15)
    assert all(image.startswith(b"\xff\xd8") for batch in iter_images(told["out"], ["test"]) for image in batch)


def test_values_of_a_key_are_told_apart(build: Build) -> None:
    told = build(held_out(attribute="surface"))
    assert told["positives"] == {"surface of asphalt": 2, "surface of gravel": 1}
    assert told["skipped"]["nothing is said"] == 2, "no value, and two values"


def test_a_class_has_no_more_than_asked_and_another_seed_draws_others(build: Build) -> None:
    many = [chip("road") for _ in range(20)] + [chip("building") for _ in range(20)]
    drawn = []
    for seed in (0, 0, 1):
        told = build(held_out(per_class=5, seed=seed), many)
        assert set(told["positives"].values()) == {5}
        drawn.append(read_items(told["out"])["item_id"].to_pylist())
    assert drawn[0] == drawn[1] != drawn[2]


def test_captions_are_found_back(build: Build) -> None:
    told = build(HeldOutRetrieval(title="mine", sources=("S",), style="title", prefix="seen: ", items=3))
    captions = read_table(told["out"] / "captions.parquet").to_pylist()
    assert [one["item_id"] for one in captions] == read_items(told["out"])["item_id"].to_pylist()
    assert len(captions) == 3
    assert all(one["caption"].startswith("seen: building number") for one in captions)


def test_a_frozen_list_gives_these_images_or_none(build: Build, tmp_path: Path) -> None:
    first = build(held_out(min_per_class=2))
    (tmp_path / "v1.csv").write_bytes((first["out"] / FROZEN_FILE).read_bytes())
    more = build(held_out(min_per_class=2, frozen="v1.csv"), [*CHIPS, chip("road"), chip("road")])
    assert read_items(more["out"])["item_id"] == read_items(first["out"])["item_id"]
    with pytest.raises(CorruptInputError, match=r"v1\.csv: 1 of 4 frozen images are missing or have changed, such as"):
        build(held_out(frozen="v1.csv"), [chip("road", image=7), *CHIPS[1:]])
    (tmp_path / "v1.csv").write_text("item,label\n")
    with pytest.raises(CorruptInputError, match="its columns are not item_id,label,sha256"):
        build(held_out(frozen="v1.csv"))


def test_only_what_every_reader_found_right_is_shown(build: Build, tmp_path: Path) -> None:
    ids = read_items(build(held_out())["out"])["item_id"].to_pylist()
    with (tmp_path / "read.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(VERDICT_COLUMNS)
        rows.writerows([("a", one, "title", "x", 1, "") for one in ids])
        rows.writerow(("b", ids[0], "title", "x", 0, ""))
    told = build(held_out(verdicts=("read.csv",)))
    assert read_items(told["out"])["item_id"].to_pylist() == ids[1:]
    assert told["skipped"]["not verified"] == 2, "one that a reader refused, one that nobody read"


def test_too_little_says_what_was_left_out(build: Build) -> None:
    with pytest.raises(TooLittleDataError, match=r"give 0 classes and 0 items.*too few: \{'building': 2, 'pier': 1"):
        build(held_out(min_per_class=9))

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import simplejpeg

from skyscript_assets.lib.cache import Cache
from skyscript_assets.lib.chips import cut as cut_module
from skyscript_assets.lib.chips.cut import CHIP_SCHEMA, CutInputs, cut_chips
from skyscript_assets.lib.chips.failures import FAILURE_SCHEMA, is_failure
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA
from skyscript_assets.lib.chips.quality import REASONS
from skyscript_assets.lib.chips.workers import AHEAD, Workers
from skyscript_assets.lib.errors import (
    CorruptInputError,
    NoSpaceError,
    SceneError,
    TooManyFailuresError,
    UpstreamMissingError,
)
from skyscript_assets.lib.imagery.geotiff import raster as raster_module
from skyscript_assets.lib.imagery.geotiff.raster import RasterReader
from skyscript_assets.lib.imagery.reader import Pixels, Window
from skyscript_assets.lib.imagery.scenes import Scene, write_scenes
from skyscript_assets.lib.settings.plant import ChipSettings
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.lib.tables import read_table, rows_to_table, write_table
from skyscript_assets.lib.tar import TarShard, read_member

SETTINGS = ChipSettings(part_size=10, jpeg_quality=95)
TABLES = ("chips.parquet", "failures.parquet")
LUMA = np.array([0.299, 0.587, 0.114])
Factory = Callable[..., Path]


class Killed(BaseException):
    """What a kill looks like from within."""


class Plant:
    """The folders of the stages around cutting, with two scenes of which the second is bad in places."""

    def __init__(self, folder: Path, write_raster: Factory, scene_of: Any, textured: Any, write_plan: Any) -> None:
        self.folder = folder
        for name in ("plan", "scenes", "out"):
            (folder / name).mkdir()
        self.good_values, bad_values = textured(), textured(seed=1)
        bad_values[:, :, :100] = 0
        bad_values[:, :, 100:200] = 90
        self.good = scene_of(write_raster(folder / "good.tif", self.good_values))
        self.bad = scene_of(write_raster(folder / "bad.tif", bad_values, nodata=0), attribution="Another surveyor")
        write_scenes(folder / "scenes", [self.good, self.bad])
        self._write_plan = write_plan

    def plan(self, windows: list[tuple[Scene, int, int, int, int]]) -> None:
        self.rows = self._write_plan(self.folder / "plan", windows)

    def cut(
        self,
        out: str = "out",
        settings: ChipSettings = SETTINGS,
        open_scene: Any = RasterReader,
        replaced: str | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        (self.folder / out).mkdir(exist_ok=True)
        earlier = None if replaced is None else self.folder / replaced
        inputs = CutInputs(self.folder / "plan", self.folder / "scenes", open_scene, earlier)
        return cut_chips(inputs, settings, self.folder / out, **{"max_failed_share": 0.5} | more)

    def chips(self, out: str = "out") -> list[dict[str, Any]]:
        table = read_table(self.folder / out / "chips.parquet", CHIP_SCHEMA)
        assert table.schema.names == CHIP_SCHEMA.names
        return table.to_pylist()

    def failures(self, out: str = "out") -> list[dict[str, Any]]:
        return read_table(self.folder / out / "failures.parquet", FAILURE_SCHEMA).to_pylist()

    def jpeg(self, chip: dict[str, Any], out: str = "out") -> bytes:
        return read_member(self.folder / out / chip["shard"], chip["offset"], chip["length"])

    def files(self, out: str = "out") -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted((self.folder / out).iterdir())}


@pytest.fixture
def plant(tmp_path: Path, write_raster: Factory, scene_of: Any, textured: Callable, write_chip_plan: Callable) -> Plant:
    return Plant(tmp_path, write_raster, scene_of, textured, write_chip_plan)


def many(plant: Plant, count: int = 25) -> list[tuple[Scene, int, int, int, int]]:
    rng = np.random.default_rng(0)
    return [(plant.good, int(rng.integers(0, 200)), int(rng.integers(0, 100)), 100, 90) for _ in range(count)]


def test_chips_are_jpegs_of_their_windows_in_plan_order(plant: Plant) -> None:
    windows = many(plant)
    plant.plan(windows)
    summary = plant.cut()
    assert (summary["planned"], summary["ok"], dict(summary["rejected"]), summary["parts"]) == (25, 25, {}, 3)
    assert summary["bytes"] == sum(len(data) for name, data in plant.files().items() if name.endswith(".tar"))
    chips = plant.chips()
    assert [chip["chip_id"] for chip in chips] == [row["chip_id"] for row in plant.rows]
    assert [chip["shard"] for chip in chips[::10]] == ["part-00000.tar", "part-00001.tar", "part-00002.tar"]
    for chip, (_, column, row, width, height) in zip(chips, windows, strict=True):
        data = plant.jpeg(chip)
        image = simplejpeg.decode_jpeg(data, colorspace="RGB")
        truth = np.moveaxis(plant.good_values[:, row : row + height, column : column + width], 0, -1)
        assert image.shape == (chip["height"], chip["width"], 3) == truth.shape
        # Colours are stored at half the resolution (4:2:0), so only the greys come back nearly as they were.
        assert np.abs(image @ LUMA - truth @ LUMA).mean() < 3
        assert chip["sha256"] == hashlib.sha256(data).hexdigest()
        assert (chip["status"], chip["reason"], chip["licence"]) == ("ok", None, "CC0-1.0")
        assert (chip["attribution"], chip["synthetic"]) == ("A surveyor", False)
        assert chip["datetime"] == plant.good.datetime


def test_a_rejected_chip_keeps_its_reason_and_its_image(plant: Plant) -> None:
    plant.plan([(plant.bad, 0, 0, 100, 90), (plant.bad, 100, 0, 100, 90), (plant.bad, 200, 0, 100, 90)])
    summary = plant.cut()
    assert (summary["ok"], dict(summary["rejected"])) == (1, {"blank": 1, "no-data": 1})
    chips = plant.chips()
    assert [(chip["status"], chip["reason"]) for chip in chips] == [
        ("rejected", "no-data"),
        ("rejected", "blank"),
        ("ok", None),
    ]
    assert chips[0]["nodata_share"] == 1
    assert simplejpeg.decode_jpeg(plant.jpeg(chips[1]), colorspace="RGB").shape == (90, 100, 3)
    assert chips[2]["attribution"] == "Another surveyor"


def test_an_undecodable_window_is_rejected_as_unreadable_and_the_others_are_cut(
    plant: Plant, write_raster: Factory, scene_of: Any, textured: Callable
) -> None:
    path = write_raster(plant.folder / "torn.tif", textured(640, 640))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    torn = scene_of(path)
    write_scenes(plant.folder / "scenes", [plant.good, torn])
    plant.plan([(torn, 0, 0, 100, 90), (torn, 500, 500, 100, 90), (plant.good, 0, 0, 100, 90)])
    summary = plant.cut(max_failed_share=1.0)
    assert (dict(summary["rejected"]), summary["failed"]) == ({"unreadable": 1}, 1)
    chips = plant.chips()
    assert [chip["reason"] for chip in chips] == [None, "unreadable", None]
    assert {chips[1][name] for name in ("shard", "offset", "length", "phash", "sha256", "sharpness")} == {None}
    assert (chips[1]["width"], chips[1]["licence"]) == (100, "CC0-1.0")


def test_equal_inputs_make_equal_bytes_however_the_threads_run(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.plan([*many(plant), (plant.bad, 150, 50, 100, 90)])
    plant.cut()
    monkeypatch.setattr(cut_module, "BATCH", 3)
    plant.cut("again", workers=3)
    assert plant.files() == plant.files("again")
    assert set(plant.files()) == {*TABLES, "part-00000.tar", "part-00001.tar", "part-00002.tar"}


def test_a_killed_run_goes_on_after_its_last_whole_part(plant: Plant) -> None:
    def kill(done: int, total: int, unit: str) -> None:
        if done > 20:
            raise Killed

    plant.plan(many(plant))
    with pytest.raises(Killed):
        plant.cut(progress=kill)
    assert not (plant.folder / "out/chips.parquet").exists()
    (plant.folder / "out/.part-00002.tar.tmp").write_bytes(b"half")
    stamp = (plant.folder / "out/part-00000.tar").stat().st_mtime_ns
    summary = plant.cut()
    assert (summary["parts"], summary["parts_kept"], summary["ok"]) == (3, 2, 25)
    assert (plant.folder / "out/part-00000.tar").stat().st_mtime_ns == stamp
    plant.cut("fresh")
    assert plant.files() == plant.files("fresh")


def test_parts_of_other_settings_or_another_plan_or_size_are_not_kept(plant: Plant) -> None:
    def leave_parts() -> None:
        with pytest.raises(KeyboardInterrupt):
            plant.cut(progress=interrupt)

    def interrupt(done: int, total: int, unit: str) -> None:
        if done > 20:
            raise KeyboardInterrupt

    plant.plan(many(plant))
    leave_parts()
    assert plant.cut(settings=SETTINGS.model_copy(update={"jpeg_quality": 60}))["parts_kept"] == 0
    leave_parts()
    with (plant.folder / "out/part-00001.tar").open("ab") as file:
        file.write(b"more")
    assert plant.cut()["parts_kept"] == 1
    leave_parts()
    plant.plan(many(plant)[::-1])
    assert plant.cut()["parts_kept"] == 0
    leave_parts()
    (plant.folder / "out/.part-00000.parquet").write_bytes(b"torn")
    assert plant.cut()["parts_kept"] == 1


def test_tars_of_an_earlier_larger_plan_are_removed(plant: Plant) -> None:
    plant.plan(many(plant))
    plant.cut()
    plant.plan(many(plant)[:5])
    plant.cut()
    assert set(plant.files()) == {*TABLES, "part-00000.tar"}


def test_an_empty_plan_makes_an_explicitly_empty_table(plant: Plant) -> None:
    plant.plan([])
    counts = plant.cut()
    assert counts.pop("rejected") == {}
    assert not any(counts.values())
    assert plant.chips() == []
    assert pq.read_schema(plant.folder / "out/chips.parquet").names == CHIP_SCHEMA.names


def test_progress_counts_up_to_the_plan(plant: Plant) -> None:
    told: list[tuple[int, int, str]] = []
    plant.plan(many(plant))
    plant.cut(progress=lambda *what: told.append(what))
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1] == (25, 25, "chips")


def test_a_plan_of_other_scenes_is_refused(plant: Plant) -> None:
    plant.plan(many(plant))
    write_scenes(plant.folder / "scenes", [plant.bad])
    with pytest.raises(CorruptInputError, match="names scene good"):
        plant.cut()


def test_an_image_that_changed_or_vanished_is_named(plant: Plant, write_raster: Factory, textured: Callable) -> None:
    plant.plan(many(plant))
    write_raster(plant.folder / "good.tif", textured(seed=7))
    with pytest.raises(SceneError, match="good.tif has changed"):
        plant.cut()
    (plant.folder / "good.tif").unlink()
    with pytest.raises(TooManyFailuresError, match="good.tif does not exist"):
        plant.cut()


def test_a_missing_plan_is_an_upstream_that_is_missing(plant: Plant) -> None:
    with pytest.raises(UpstreamMissingError, match="plan.parquet"):
        plant.cut()


class Flaky(RasterReader):
    """A reader whose windows at some columns cannot be read, as long as they are in `broken`."""

    broken: ClassVar[dict[int, BaseException]] = {}
    reads = 0

    def read_inside(self, window: Window) -> Pixels:
        type(self).reads += 1
        if window.column in self.broken:
            raise self.broken[window.column]
        return super().read_inside(window)


@pytest.fixture
def flaky() -> type[Flaky]:
    class Fresh(Flaky):
        broken: ClassVar[dict[int, BaseException]] = {}
        reads = 0

    return Fresh


def spread(plant: Plant, count: int = 25) -> list[tuple[Scene, int, int, int, int]]:
    """Windows whose column is their number, so that a test can name each of them."""
    return [(plant.good, number, 3 * number, 100, 90) for number in range(count)]


def test_what_cannot_be_read_is_a_failure_and_the_rest_is_cut(plant: Plant, flaky: type[Flaky]) -> None:
    secret = "GET https://me:pw@tiles.test/a.tif?sig=SECRET timed out"
    flaky.broken = {3: TimeoutError(secret), 12: CorruptInputError("torn"), 20: ConnectionError("refused")}
    plant.plan(spread(plant))
    summary = plant.cut(open_scene=flaky)
    assert (summary["ok"], summary["failed"], dict(summary["rejected"])) == (22, 3, {"unreadable": 3})
    failures = plant.failures()
    assert [row["chip_id"] for row in failures] == [plant.rows[number]["chip_id"] for number in (3, 12, 20)]
    assert [row["reason"] for row in failures] == ["timeout", "unreadable", "http"]
    assert failures[0]["error"] == "GET https://tiles.test/a.tif timed out"
    assert {(row["scene_id"], row["attempts"]) for row in failures} == {("good", 1)}
    assert all(row["first"] == row["last"] for row in failures)


def test_without_failures_their_table_is_an_empty_table(plant: Plant) -> None:
    plant.plan(spread(plant, 3))
    assert plant.cut()["failed"] == 0
    assert plant.failures() == []


def test_a_retry_reads_only_what_failed_and_leaves_the_rest_as_it_is(plant: Plant, flaky: type[Flaky]) -> None:
    flaky.broken = {3: TimeoutError("slow"), 12: CorruptInputError("torn")}
    plant.plan(spread(plant))
    plant.cut(open_scene=flaky)
    before, first = plant.files(), plant.failures()
    flaky.broken, flaky.reads = {12: CorruptInputError("still torn")}, 0
    summary = plant.cut("again", open_scene=flaky, replaced="out", only_failed=True)
    assert flaky.reads == 2
    assert (summary["ok"], summary["failed"], summary["retried"], summary["recovered"]) == (24, 1, 2, 1)
    after = plant.files("again")
    for name in ("part-00000.tar", "part-00001.tar", "part-00002.tar"):
        assert after[name] == before[name]
    chips = plant.chips("again")
    assert [chip["chip_id"] for chip in chips] == [row["chip_id"] for row in plant.rows]
    assert (chips[3]["shard"], chips[3]["status"]) == ("part-00003.tar", "ok")
    assert hashlib.sha256(plant.jpeg(chips[3], "again")).hexdigest() == chips[3]["sha256"]
    (failure,) = plant.failures("again")
    assert (failure["attempts"], failure["error"], failure["first"]) == (2, "still torn", first[1]["first"])
    assert failure["last"] > failure["first"]
    # The image of a chip that was read at last is the one that it would have had at once.
    plant.cut("fresh")
    assert plant.jpeg(chips[3], "again") == plant.jpeg(plant.chips("fresh")[3], "fresh")
    # A further retry takes the part of this one as it is, and adds its own.
    flaky.broken = {}
    last = plant.cut("third", open_scene=flaky, replaced="again", only_failed=True)
    assert (last["ok"], last["failed"], plant.failures("third")) == (25, 0, [])
    assert plant.files("third")["part-00003.tar"] == after["part-00003.tar"]
    assert plant.chips("third")[12]["shard"] == "part-00004.tar"


def test_a_retry_that_reads_nothing_adds_no_part(plant: Plant, flaky: type[Flaky]) -> None:
    flaky.broken = {3: TimeoutError("slow")}
    plant.plan(spread(plant))
    plant.cut(open_scene=flaky)
    plant.cut("again", open_scene=flaky, replaced="out", only_failed=True)
    tables = ("failures.parquet",)
    assert {k: v for k, v in plant.files("again").items() if k not in tables} == {
        k: v for k, v in plant.files().items() if k not in tables
    }
    assert plant.failures("again")[0]["attempts"] == 2


def test_a_run_that_failed_goes_on_with_what_had_failed(plant: Plant, flaky: type[Flaky]) -> None:
    flaky.broken = {number: TimeoutError("slow") for number in (1, 2, 11, 21)}
    plant.plan(spread(plant))
    with pytest.raises(TooManyFailuresError, match=r"4 of 25 chips could not be read \(timeout\).*slow"):
        plant.cut(open_scene=flaky, max_failed_share=0.15)
    assert not (plant.folder / "out/chips.parquet").exists()
    flaky.broken = {}
    summary = plant.cut(open_scene=flaky, max_failed_share=0.15)
    assert (summary["ok"], summary["parts_kept"], summary["retried"], summary["recovered"]) == (25, 2, 3, 3)
    # Another share alone makes no part worthless.
    assert plant.cut("other", max_failed_share=0.15)["ok"] == 25


@contextlib.contextmanager
def killed_at_rename(number: int) -> Iterator[None]:
    """The block is killed instead of its n-th rename."""
    replace, left = os.replace, number

    def counted(source: Any, target: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed
        replace(source, target)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "replace", counted)
        yield


def test_a_retry_killed_at_any_moment_can_be_repeated(plant: Plant, flaky: type[Flaky]) -> None:
    flaky.broken = {3: TimeoutError("slow"), 12: CorruptInputError("torn")}
    plant.plan(spread(plant))
    plant.cut(open_scene=flaky)
    flaky.broken = {}
    for moment in range(1, 5):
        with killed_at_rename(moment):
            plant.cut(f"k{moment}", open_scene=flaky, replaced="out", only_failed=True)
        summary = plant.cut(f"k{moment}", open_scene=flaky, replaced="out", only_failed=True)
        assert (summary["ok"], summary["failed"]) == (25, 0)
        chips = plant.chips(f"k{moment}")
        for chip in chips:
            assert hashlib.sha256(plant.jpeg(chip, f"k{moment}")).hexdigest() == chip["sha256"]
        left_over = {name for name in plant.files(f"k{moment}") if name.startswith(".")}
        assert left_over == set()


def test_a_run_killed_at_any_rename_makes_the_same_in_the_end(plant: Plant) -> None:
    plant.plan(spread(plant))
    plant.cut("whole")
    for moment in range(1, 9):
        with killed_at_rename(moment):
            plant.cut(f"k{moment}")
        plant.cut(f"k{moment}")
        assert plant.files(f"k{moment}") == plant.files("whole")


def test_chips_of_the_same_windows_are_taken_over_from_the_earlier_output(plant: Plant, flaky: type[Flaky]) -> None:
    plant.plan(spread(plant))
    plant.cut()
    plant.plan([*spread(plant)[5:], (plant.good, 100, 20, 64, 64)])
    summary = plant.cut("again", open_scene=flaky, replaced="out")
    assert (summary["ok"], summary["copied"], flaky.reads) == (21, 20, 1)
    plant.cut("fresh")
    assert plant.files("again") == plant.files("fresh")


def test_another_image_or_another_encoding_is_read_again(
    plant: Plant, write_raster: Factory, scene_of: Any, textured: Callable
) -> None:
    plant.plan(spread(plant))
    plant.cut()
    other = SETTINGS.model_copy(update={"jpeg_quality": 60})
    assert plant.cut("coarse", settings=other, replaced="out")["copied"] == 0
    # A limit of rejection judges the old measures anew.
    stern = SETTINGS.model_copy(update={"min_sharpness": 1e6})
    summary = plant.cut("stern", settings=stern, replaced="out")
    assert (summary["copied"], dict(summary["rejected"])) == (25, {"blurred": 25})
    scene = scene_of(write_raster(plant.folder / "good.tif", textured(seed=7)))
    write_scenes(plant.folder / "scenes", [scene])
    assert plant.cut("changed", replaced="out")["copied"] == 0


def test_an_earlier_chip_that_is_damaged_is_read_again(plant: Plant) -> None:
    plant.plan(spread(plant))
    plant.cut()
    whole = plant.files()
    tar = plant.folder / "out/part-00001.tar"
    data = bytearray(tar.read_bytes())
    data[2_000] ^= 255
    tar.write_bytes(data)
    (plant.folder / "out/part-00002.tar").unlink()
    summary = plant.cut("again", replaced="out")
    assert summary["copied"] == 19
    assert plant.files("again") == whole


def test_an_output_of_another_version_has_nothing_to_give(plant: Plant) -> None:
    plant.plan(spread(plant))
    plant.cut()
    table = pq.read_table(plant.folder / "out/chips.parquet").drop_columns(["window_digest"])
    pq.write_table(table, plant.folder / "out/chips.parquet")
    assert plant.cut("again", replaced="out")["copied"] == 0


def test_every_reason_is_given(plant: Plant, write_raster: Factory, scene_of: Any, textured: Callable) -> None:
    values = textured(600, 300, seed=3)
    values[:, :, :100] = 0
    values[:, :, 100:200] = 90
    values[:, :, 200:300] = np.random.default_rng(0).integers(236, 240, (3, 300, 100))
    ramp = np.linspace(20, 180, 100).astype(np.uint8)
    values[:, :, 300:400] = ramp
    values[:, 30:40, 430:440] = 0
    scene = scene_of(write_raster(plant.folder / "all.tif", values, nodata=0))
    torn_path = write_raster(plant.folder / "torn.tif", textured(640, 640))
    torn_path.write_bytes(torn_path.read_bytes()[: torn_path.stat().st_size // 2])
    write_scenes(plant.folder / "scenes", [scene, torn := scene_of(torn_path)])
    windows = [(scene, column, 0, 100, 100) for column in (0, 400, 200, 100, 300, 500, 500)]
    plant.plan([*windows, (torn, 500, 500, 100, 100)])
    table = pq.read_table(plant.folder / "plan/plan.parquet").to_pylist()
    boxes = [[0, 0, 50, 50]] * 8
    boxes[1], boxes[5] = [28, 28, 42, 42], [10, 10, 15, 13]
    boxes[6] = [10, 10, 11, 11]
    rows = [row | {"focus_box": box} for row, box in zip(table, boxes, strict=True)]
    write_table(plant.folder / "plan/plan.parquet", rows_to_table(rows, PLAN_SCHEMA))
    plant.cut(max_failed_share=1.0)
    found = [chip["reason"] for chip in plant.chips()]
    assert found == ["no-data", "focus-hidden", "cloud", "blank", "blurred", "too-small", None, "unreadable"]
    assert set(REASONS) == set(found) - {None}
    assert plant.chips()[1]["focus_valid_share"] == pytest.approx(1 - 100 / 196, abs=1e-5)


def test_an_image_without_any_data_or_numbers_rejects_its_chips(
    plant: Plant, write_raster: Factory, scene_of: Any
) -> None:
    empty = np.zeros((4, 128, 128), np.uint8)
    clear = scene_of(write_raster(plant.folder / "clear.tif", empty, photometric="RGB", alpha="YES"))
    nan = np.full((3, 128, 128), np.nan, np.float32)
    nans = scene_of(write_raster(plant.folder / "nan.tif", nan), scale_low=(0.0,) * 3, scale_high=(1.0,) * 3)
    write_scenes(plant.folder / "scenes", [clear, nans])
    plant.plan([(clear, 0, 0, 100, 90), (nans, 0, 0, 100, 90)])
    assert dict(plant.cut()["rejected"]) == {"no-data": 2}


def test_a_scene_that_vanished_fails_alone_and_one_that_changed_meanwhile_fails_all(
    plant: Plant, write_raster: Factory, textured: Callable
) -> None:
    plant.plan([*spread(plant, 9), (plant.bad, 200, 0, 100, 90)])
    (plant.folder / "bad.tif").rename(plant.folder / "away.tif")
    summary = plant.cut()
    assert (summary["ok"], summary["failed"]) == (9, 1)
    assert plant.failures()[0]["reason"] == "missing"
    (plant.folder / "away.tif").rename(plant.folder / "bad.tif")
    assert plant.cut("again", replaced="out", only_failed=True)["ok"] == 10

    def change(done: int, total: int, unit: str) -> None:
        write_raster(plant.folder / "good.tif", textured(seed=9))

    with pytest.raises(SceneError, match="has changed while its chips were cut"):
        plant.cut("third", progress=change)
    assert not (plant.folder / "third/chips.parquet").exists()


def test_a_full_disk_is_said_to_be_full_and_leaves_nothing_half_written(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.plan(spread(plant))
    store, key = Store(plant.folder / "data"), OutputKey("image_chips", ("here", "S"))
    add = TarShard.add
    left = 15

    def full(self: TarShard, name: str, data: bytes) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return add(self, name, data)

    monkeypatch.setattr(TarShard, "add", full)
    with pytest.raises(NoSpaceError, match="no space is left"), store.writing(key, "f") as out:
        cut_chips(CutInputs(plant.folder / "plan", plant.folder / "scenes"), SETTINGS, out)
    assert store.record(key) is None
    assert {path.name for path in out.iterdir()} == {"part-00000.tar", ".part-00000.parquet"}
    monkeypatch.setattr(TarShard, "add", add)
    with store.writing(key, "f") as out:
        assert cut_chips(CutInputs(plant.folder / "plan", plant.folder / "scenes"), SETTINGS, out)["parts_kept"] == 1


def test_a_full_disk_met_by_a_reader_is_no_failure_of_a_chip() -> None:
    assert not is_failure(OSError(errno.ENOSPC, "full"))
    assert is_failure(OSError(errno.EIO, "torn"))


def test_a_scene_is_opened_once_a_thread_and_closed_by_the_thread_that_opened_it(plant: Plant) -> None:
    opened: list[tuple[str, int]] = []
    closed: list[tuple[str, int]] = []
    at_once: list[int] = []

    class Counting(RasterReader):
        def __enter__(self) -> Any:
            opened.append((self.scene.scene_id, threading.get_ident()))
            at_once.append(len(opened) - len(closed))
            return super().__enter__()

        def __exit__(self, *error: Any) -> None:
            closed.append((self.scene.scene_id, threading.get_ident()))
            super().__exit__(*error)

    plant.plan([*spread(plant, 40), *((plant.bad, 200, number, 64, 64) for number in range(40))])
    plant.cut(open_scene=Counting, workers=2)
    assert max(at_once) <= 2
    assert sorted(opened) == sorted(closed)
    assert len(opened) <= 2 * 2 * 2
    plant.cut("one", open_scene=Counting, workers=1)
    assert len(opened) <= 8 + 2


def test_decoded_pixels_are_bounded_and_gone_in_the_end(
    plant: Plant, write_raster: Factory, scene_of: Any, textured: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = scene_of(write_raster(plant.folder / "wide.tif", textured(1500, 1500), blockxsize=128, blockysize=128))
    write_scenes(plant.folder / "scenes", [scene])
    cache = Cache(8 * 128 * 128 * 3, lambda block: block.nbytes)
    most: list[int] = []
    keep = cache._keep

    def spy(key: Any, block: Any) -> None:
        keep(key, block)
        most.append(cache.size)

    monkeypatch.setattr(cache, "_keep", spy)
    monkeypatch.setattr(raster_module, "BLOCKS", cache)
    rng = np.random.default_rng(0)
    plant.plan([(scene, *map(int, rng.integers(0, 1400, 2)), 100, 90) for _ in range(60)])
    assert plant.cut(workers=2)["ok"] == 60
    assert max(most) <= cache.limit
    assert cache.size == 0


def test_what_is_cut_does_not_run_ahead_of_what_is_written(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[int] = []
    cut, written = 0, 0
    add, work = TarShard.add, Workers.cut

    def counted(self: Workers, task: Any) -> Any:
        nonlocal cut
        cut += len(task.rows)
        alive.append(cut - written)
        return work(self, task)

    def wrote(self: TarShard, name: str, data: bytes) -> Any:
        nonlocal written
        written += 1
        return add(self, name, data)

    monkeypatch.setattr(Workers, "cut", counted)
    monkeypatch.setattr(TarShard, "add", wrote)
    monkeypatch.setattr(cut_module, "BATCH", 2)
    plant.plan(many(plant, 120))
    plant.cut(workers=2)
    assert max(alive) <= 2 * (AHEAD * 2 + 2)

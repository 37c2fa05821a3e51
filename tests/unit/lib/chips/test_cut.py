import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import simplejpeg

from skyscript_assets.lib.chips import cut as cut_module
from skyscript_assets.lib.chips.cut import CHIP_SCHEMA, ChipSummary, cut_chips
from skyscript_assets.lib.errors import CorruptInputError, MissingInputError, SceneError, UpstreamMissingError
from skyscript_assets.lib.imagery.scenes import Scene, write_scenes
from skyscript_assets.lib.settings import ChipSettings
from skyscript_assets.lib.shards.tar import read_member
from skyscript_assets.lib.tables import read_table

SETTINGS = ChipSettings(snapshot="s", quota=1, part_size=10, jpeg_quality=95)
LUMA = np.array([0.299, 0.587, 0.114])
Factory = Callable[..., Path]


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

    def cut(self, out: str = "out", settings: ChipSettings = SETTINGS, **more: Any) -> ChipSummary:
        (self.folder / out).mkdir(exist_ok=True)
        return cut_chips(self.folder / "plan", self.folder / "scenes", settings, self.folder / out, **more)

    def chips(self, out: str = "out") -> list[dict[str, Any]]:
        table = read_table(self.folder / out / "chips.parquet", CHIP_SCHEMA)
        assert table.schema.names == CHIP_SCHEMA.names
        return table.to_pylist()

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
    assert (summary.planned, summary.ok, dict(summary.rejected), summary.parts) == (25, 25, {}, 3)
    assert summary.bytes == sum(len(data) for name, data in plant.files().items() if name.endswith(".tar"))
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
    assert (summary.ok, dict(summary.rejected)) == (1, {"blank": 1, "no-data": 1})
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
    assert dict(plant.cut().rejected) == {"unreadable": 1}
    chips = plant.chips()
    assert [chip["reason"] for chip in chips] == [None, "unreadable", None]
    assert {chips[1][name] for name in ("shard", "offset", "length", "phash", "sha256", "sharpness")} == {None}
    assert (chips[1]["width"], chips[1]["licence"]) == (100, "CC0-1.0")


def test_equal_inputs_make_equal_bytes_however_the_threads_run(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.plan([*many(plant), (plant.bad, 150, 50, 100, 90)])
    plant.cut()
    monkeypatch.setattr(cut_module, "WORKERS", 1)
    monkeypatch.setattr(cut_module, "BATCH", 3)
    plant.cut("again")
    assert plant.files() == plant.files("again")
    assert set(plant.files()) == {"chips.parquet", "part-00000.tar", "part-00001.tar", "part-00002.tar"}


def test_a_killed_run_goes_on_after_its_last_whole_part(plant: Plant) -> None:
    class Killed(BaseException):
        pass

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
    assert (summary.parts, summary.parts_kept, summary.ok) == (3, 2, 25)
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
    assert plant.cut(settings=SETTINGS.model_copy(update={"jpeg_quality": 60})).parts_kept == 0
    leave_parts()
    with (plant.folder / "out/part-00001.tar").open("ab") as file:
        file.write(b"more")
    assert plant.cut().parts_kept == 1
    leave_parts()
    plant.plan(many(plant)[::-1])
    assert plant.cut().parts_kept == 0
    leave_parts()
    (plant.folder / "out/.part-00000.parquet").write_bytes(b"torn")
    assert plant.cut().parts_kept == 1


def test_tars_of_an_earlier_larger_plan_are_removed(plant: Plant) -> None:
    plant.plan(many(plant))
    plant.cut()
    plant.plan(many(plant)[:5])
    plant.cut()
    assert set(plant.files()) == {"chips.parquet", "part-00000.tar"}


def test_an_empty_plan_makes_an_explicitly_empty_table(plant: Plant) -> None:
    plant.plan([])
    assert plant.cut() == ChipSummary(planned=0, ok=0)
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
    with pytest.raises(MissingInputError, match="good.tif does not exist"):
        plant.cut()


def test_a_missing_plan_is_an_upstream_that_is_missing(plant: Plant) -> None:
    with pytest.raises(UpstreamMissingError, match="plan.parquet"):
        plant.cut()

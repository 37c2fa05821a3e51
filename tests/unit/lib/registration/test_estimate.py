"""Offsets of scenes of a town whose true offset is known: signs, rules, bad input, killed runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from PIL import Image

from skyscript_assets.lib.errors import MissingInputError, SceneError, UpstreamMissingError
from skyscript_assets.lib.imagery.geotiff.raster import RasterReader
from skyscript_assets.lib.imagery.scenes import Scene
from skyscript_assets.lib.registration import estimate as estimate_module
from skyscript_assets.lib.registration.estimate import SceneOffset, estimate_scene, write_offsets
from skyscript_assets.lib.registration.outlines import Outlines, read_outlines
from skyscript_assets.lib.registration.shift import OFFSET_SCHEMA, read_shifts
from skyscript_assets.lib.settings.plant import OffsetSettings
from skyscript_assets.lib.tables import read_table

SETTINGS = OffsetSettings(search_radius_m=12, windows=16)
Town = Callable[..., Scene]


def estimate(scene: Scene, settings: OffsetSettings = SETTINGS) -> SceneOffset:
    return estimate_scene(RasterReader(scene), read_outlines(scene.path.parent / "objects.parquet"), settings)


def rows(folder: Path) -> list[dict[str, Any]]:
    return read_table(folder / "offsets.parquet", OFFSET_SCHEMA).to_pylist()


@pytest.mark.parametrize("shift", [(0.0, 0.0), (6.3, -3.2), (-8.0, 9.1)])
def test_a_shift_is_found_with_its_sign(town: Town, shift: tuple[float, float]) -> None:
    found = estimate(town(shift))
    assert found.status == "estimated"
    assert found.best == pytest.approx(shift, abs=0.15)
    assert found.best_px == pytest.approx((shift[0] / 0.5, -shift[1] / 0.5), abs=0.3)
    assert found.confidence > 0.9
    assert found.windows_used >= 0.8 * found.windows_tried
    assert found.resolution_m == 0.25


@pytest.mark.parametrize("grid", ["another zone", "Web Mercator", "degrees", "turned"])
def test_east_and_north_mean_the_same_in_every_crs(town: Town, grid: str) -> None:
    found = estimate(town((4.0, -7.0), grid=grid))
    assert found.status == "estimated"
    assert found.best == pytest.approx((4.0, -7.0), abs=0.2)


def test_fine_scenes_are_averaged_before_they_are_matched(town: Town) -> None:
    scene = town((3.0, 3.0))
    assert estimate_module.resolution_of(scene, SETTINGS).factor == 1
    fine = Scene(**{**vars(scene), "gsd_m": 0.1})
    assert estimate_module.resolution_of(fine, SETTINGS).factor == 3
    wide = estimate_module.resolution_of(fine, OffsetSettings(search_radius_m=50))
    assert wide.radius_px <= estimate_module.MAX_SEARCH_PX
    assert wide.side_px * wide.factor <= estimate_module.MAX_READ_SIDE_PX


def test_pixels_are_averaged_where_all_of_them_hold_data() -> None:
    rgb = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    valid = np.ones((4, 4), dtype=bool)
    valid[0, 0] = False
    levels, usable = estimate_module.average(estimate_module.Pixels(rgb, valid), 2)
    assert levels[1, 1] == pytest.approx(rgb[2:, 2:].reshape(4, 3).mean(axis=0))
    assert usable.tolist() == [[False, True], [True, True]]


def test_pixels_too_coarse_for_the_radius_leave_it_unresolved(town: Town) -> None:
    coarse = Scene(**{**vars(town()), "gsd_m": 10.0})
    found = estimate(coarse)
    assert (found.status, found.resolution_m, found.windows_tried) == ("unresolved", 5.0, 0)
    assert found.row()["dx_m"] is None


def test_a_scene_with_too_little_in_osm_is_not_estimated(town: Town) -> None:
    scene = town((5.0, 5.0))
    few = read_outlines(scene.path.parent / "objects.parquet").geometry[:3]
    for outlines in (Outlines.of(few, [0.0] * 3), Outlines.of([], [])):
        found = estimate_scene(RasterReader(scene), outlines, SETTINGS)
        assert found.status == "too-few-objects"
        assert found.best is None
        assert found.confidence == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda values: np.random.default_rng(1).integers(0, 255, values.shape).astype(np.uint8),
        lambda values: values[:, ::-1, ::-1].copy(),
        lambda values: np.rot90(values, axes=(1, 2)).copy(),
    ],
    ids=["noise", "upside down", "turned"],
)
def test_an_image_of_something_else_is_not_estimated(
    town: Town, change: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    found = estimate(town((2.0, 2.0), change=change))
    assert found.status == "disagree"
    row = found.row()
    assert (row["dx_m"], row["dy_m"], row["dx_px"], row["dy_px"]) == (None, None, None, None)


@pytest.mark.parametrize("level", [0, 90])
def test_an_image_without_structure_is_not_estimated(town: Town, level: int) -> None:
    found = estimate(town(change=lambda values: np.full_like(values, level)))
    assert found.status == "too-few-objects"
    assert found.windows_tried == 16


def test_a_shift_beyond_the_radius_is_not_estimated(town: Town) -> None:
    assert estimate(town((11.0, -9.5)), OffsetSettings(search_radius_m=5, windows=16)).status != "estimated"


def test_borders_without_data_are_no_edges(town: Town) -> None:
    def torn(values: NDArray[Any]) -> NDArray[Any]:
        values[:, :, :230] = 0
        values[:, np.add.outer(np.arange(600), np.arange(600)) > 950] = 0
        return values

    found = estimate(town((6.0, 4.0), change=torn, nodata=0))
    assert found.status == "estimated"
    assert found.best == pytest.approx((6.0, 4.0), abs=0.2)


def test_values_that_are_not_numbers_hold_no_data(town: Town) -> None:
    def holes(values: NDArray[Any]) -> NDArray[Any]:
        floats = values.astype(np.float32)
        floats[:, 100:160, 200:420] = np.nan
        floats[1, 300:330, :] = np.inf
        return floats

    found = estimate(town((-5.0, 2.0), change=holes))
    assert found.status == "estimated"
    assert found.best == pytest.approx((-5.0, 2.0), abs=0.2)
    nothing = estimate(town(change=lambda values: np.full(values.shape, np.nan, np.float32)))
    assert nothing.status == "too-few-objects"


def test_windows_are_spread_over_the_scene(town: Town) -> None:
    scene = town()
    lengths = read_outlines(scene.path.parent / "objects.parquet").lengths
    chosen = np.array(estimate_module.choose_windows(scene, lengths, 40.0, 9))
    assert len(chosen) == 9
    west, south, east, north = scene.bounds
    parts = np.floor((chosen - (west, south)) / (east - west, north - south) * 2.999).astype(int)
    assert len({tuple(part) for part in parts.tolist()}) >= 6
    assert set(parts[:, 0].tolist()) == set(parts[:, 1].tolist()) == {0, 1, 2}
    assert estimate_module.choose_windows(scene, (lengths[0] + 1.0, lengths[1]), 40.0, 9) == []


# --------------------------------------------------------------------------------------------------------- the table


def test_the_table_says_what_was_found(tmp_path: Path, town: Town, index: Callable[..., Path]) -> None:
    good, noise = town((6.0, -4.0), name="good"), town(name="noise", change=lambda v: np.full_like(v, 70))
    folder = index(good, noise)
    summary = write_offsets(folder, tmp_path / "objects.parquet", SETTINGS, tmp_path, open_scene=RasterReader)
    assert summary == {
        "scenes": 2,
        "status": {"estimated": 1, "too-few-objects": 1},
        "kept": 0,
        "median_shift_m": pytest.approx(np.hypot(6, 4), abs=0.2),
    }
    estimated, other = rows(tmp_path)
    assert (estimated["scene_id"], estimated["status"]) == ("good", "estimated")
    assert (estimated["dx_m"], estimated["dy_m"]) == pytest.approx((6.0, -4.0), abs=0.15)
    assert len(estimated["windows"]) == estimated["windows_tried"]
    assert sum(window["used"] for window in estimated["windows"]) == estimated["windows_used"]
    assert (other["status"], other["dx_m"]) == ("too-few-objects", None)
    assert read_shifts(tmp_path) == {"good": (estimated["dx_m"], estimated["dy_m"])}
    with Image.open(tmp_path / "offsets.jpg") as figure:
        assert figure.width > 600
    assert (tmp_path / "offsets.jpg").stat().st_size < 150_000


def test_no_scenes_make_an_explicitly_empty_table(tmp_path: Path, index: Callable[..., Path]) -> None:
    summary = write_offsets(index(), tmp_path / "none.parquet", SETTINGS, tmp_path, open_scene=RasterReader)
    assert summary == {"scenes": 0, "status": {}, "kept": 0, "median_shift_m": None}
    assert rows(tmp_path) == []
    assert not (tmp_path / "offsets.jpg").exists()


@pytest.mark.parametrize("torn", [b"", b"PAR1"])
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, town: Town, index: Callable[..., Path], torn: bytes) -> None:
    scenes = [town((2.0 * i, 1.0), name=name) for i, name in enumerate("abc")]
    folder, objects = index(*scenes), tmp_path / "objects.parquet"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    write_offsets(folder, objects, SETTINGS, whole, open_scene=RasterReader)
    opened: list[str] = []

    def dying(scene: Scene) -> RasterReader:
        if scene.scene_id == "c":
            raise KeyboardInterrupt
        return RasterReader(scene)

    def watched(scene: Scene) -> RasterReader:
        opened.append(scene.scene_id)
        return RasterReader(scene)

    with pytest.raises(KeyboardInterrupt):
        write_offsets(folder, objects, SETTINGS, killed, open_scene=dying)
    (killed / ".part-00002.parquet").write_bytes(torn)
    summary = write_offsets(folder, objects, SETTINGS, killed, open_scene=watched)
    assert summary["kept"] == 2
    assert opened[0] == "c"
    assert rows(killed) == rows(whole)
    names = {path.name for path in killed.iterdir()}
    assert names == {path.name for path in whole.iterdir()} == {"offsets.parquet", "offsets.jpg"}
    for name in names:
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_a_missing_image_is_named(tmp_path: Path, town: Town, index: Callable[..., Path]) -> None:
    scene = town()
    folder = index(scene)
    scene.path.unlink()
    with pytest.raises(MissingInputError, match=r"town\.tif does not exist"):
        write_offsets(folder, tmp_path / "objects.parquet", SETTINGS, tmp_path, open_scene=RasterReader)
    assert not (tmp_path / "offsets.parquet").exists()
    with pytest.raises(UpstreamMissingError, match="objects"):
        write_offsets(folder, tmp_path / "x" / "objects.parquet", SETTINGS, tmp_path, open_scene=RasterReader)


def test_a_damaged_image_loses_the_windows_that_cannot_be_read(town: Town) -> None:
    scene = town((3.0, 5.0), compress="deflate")
    scene.path.write_bytes(scene.path.read_bytes()[: scene.path.stat().st_size * 4 // 5])
    found = estimate(scene)
    assert len(found.windows) < found.windows_tried
    assert found.status == "estimated"
    assert found.best == pytest.approx((3.0, 5.0), abs=0.2)


def test_a_scene_whose_crs_cannot_be_read_is_named(town: Town) -> None:
    scene = Scene(**{**vars(town()), "crs": "nonsense"})
    with pytest.raises(SceneError, match="town"):
        estimate(scene)


def test_a_footprint_may_be_in_parts(town: Town) -> None:
    scene = town((3.0, -3.0))
    west, south, east, north = scene.bounds
    middle = (west + east) / 2
    parts = shapely.MultiPolygon(
        [shapely.box(west, south, middle, north), shapely.box(middle + 1e-6, south, east, north)]
    )
    assert estimate(Scene(**{**vars(scene), "footprint": parts})).status == "estimated"

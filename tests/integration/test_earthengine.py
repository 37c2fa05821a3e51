"""Earth Engine through Google's own client, against a stand-in on this machine that speaks the same REST calls."""

import datetime as dt
import importlib.util
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import Transformer

from skyscript_assets.lib import http
from skyscript_assets.lib.errors import (
    CorruptInputError,
    MissingInputError,
    RefusedError,
    SceneError,
    SettingsError,
    UnreachableError,
)
from skyscript_assets.lib.imagery.reader import GeoBox, Pixels, Window
from skyscript_assets.lib.imagery.scenes import Scene, read_scenes
from skyscript_assets.lib.imagery.sources.earthengine import reader as reader_module
from skyscript_assets.lib.imagery.sources.earthengine import session
from skyscript_assets.lib.imagery.sources.earthengine.index import index_earth_engine
from skyscript_assets.lib.imagery.sources.earthengine.reader import EarthEngineReader, pieces
from skyscript_assets.lib.imagery.sources.earthengine.settings import EarthEngineSource
from skyscript_assets.lib.imagery.sources.kind import Search
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, load_settings
from tests.earth_engine_server import EarthEngineServer, StoredImage, earth_engine_server, write_key_file
from tests.tile_server import painted

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(importlib.util.find_spec("ee") is None, reason="the extra `earthengine` is not installed"),
]

SETTINGS = load_settings(PACKAGED_PROFILES / "demo")
GRID = Affine(1.0, 0, 550_000, 0, -1.0, 4_180_000)
COLLECTION = "PLANES/PHOTOS"


def ground_of(transform: Affine, crs: int = 32610, size: tuple[int, int] = (600, 500)) -> shapely.Geometry:
    frame = shapely.box(0, 0, *size)
    to_wgs84 = Transformer.from_crs(crs, 4326, always_xy=True)
    return shapely.transform(frame, lambda p: np.column_stack(to_wgs84.transform(*(transform @ (p[:, 0], p[:, 1])))))


REGION = tuple(shapely.bounds(ground_of(GRID)).tolist())


def stored(name: str, year: int, cloud: float, *, transform: Affine = GRID, **facts: Any) -> StoredImage:
    facts = {"footprint": ground_of(transform), "properties": {"CLOUD": cloud}} | facts
    return StoredImage(f"{COLLECTION}/{name}", dt.datetime(year, 6, 1, 10, tzinfo=dt.UTC), transform, **facts)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[EarthEngineServer]:
    import ee
    from ee import deprecation

    # The client looks up deprecated data sets at Google; nothing here leaves this machine.
    monkeypatch.setattr(deprecation, "_FetchDataCatalogStac", dict)
    monkeypatch.setattr(http, "FIRST_PAUSE_S", 0.0)
    with earth_engine_server() as running:
        running.collections[COLLECTION] = [stored("a", 2019, 5), stored("b", 2020, 10), stored("c", 2021, 40)]
        monkeypatch.setenv("EE_KEY_FILE", str(write_key_file(tmp_path / "key.json", running.address)))
        yield running
    ee.Reset()
    session._connected.clear()


@pytest.fixture
def source(server: EarthEngineServer) -> Callable[..., EarthEngineSource]:
    def make(**facts: Any) -> EarthEngineSource:
        known = {
            "title": "Photographs",
            "gsd_m": 1.0,
            "collection": COLLECTION,
            "licence": "CC0-1.0",
            "attribution": "A painter",
            "credentials_variable": "EE_KEY_FILE",
            "url": server.address,
            "tries": 3,
        }
        return EarthEngineSource(**known | facts)

    return make


@pytest.fixture
def index(tmp_path: Path) -> Callable[..., tuple[dict[str, Any], list[Scene]]]:
    def run(source: EarthEngineSource, bbox: Any = REGION) -> tuple[dict[str, Any], list[Scene]]:
        out = tmp_path / "scenes"
        out.mkdir(exist_ok=True)
        return index_earth_engine(Search("here", "P", source, SETTINGS.shared, bbox, out)), read_scenes(out)

    return run


@pytest.fixture
def scene(server: EarthEngineServer, source: Callable[..., Any], index: Callable[..., Any]) -> Scene:
    server.collections[COLLECTION] = [stored("a", 2019, 5, masked=(100, 80))]
    (found,) = index(source())[1]
    server.asked.clear()
    return found


def window_of(scene: Scene, column: int, row: int, width: int, height: int) -> GeoBox:
    return GeoBox(scene.crs, tuple((Affine(*scene.transform) @ Affine.translation(column, row))[:6]), width, height)


def read_one(scene: Scene, source: EarthEngineSource, *place: int) -> Pixels:
    with EarthEngineReader(scene, source) as reader:
        return reader.read(*window_of(scene, *place))


# --------------------------------------------------------------------------------------------------------------- scenes


def test_each_image_is_a_scene_on_its_own_grid(server: EarthEngineServer, source: Any, index: Any) -> None:
    summary, scenes = index(source())
    assert summary == {"images": 3, "scenes": 3, "left_out": {}}
    assert [scene.datetime.year for scene in scenes] == [2019, 2020, 2021]
    first = scenes[0]
    assert (first.crs, first.transform, first.width, first.height) == ("EPSG:32610", tuple(GRID[:6]), 600, 500)
    assert first.hrefs == (f"earthengine://{COLLECTION}/a",)
    assert first.gsd_m == pytest.approx(1.0, rel=5e-4)
    assert first.footprint.symmetric_difference(ground_of(GRID)).area < 1e-4 * first.footprint.area
    assert server.asked == ["/v1/projects/a-project/value:compute"]


def test_images_are_chosen_by_date_and_cloud_the_clearest_first(source: Any, index: Any) -> None:
    def years(**facts: Any) -> list[int]:
        return sorted(scene.datetime.year for scene in index(source(**facts))[1])

    assert years(start=dt.date(2020, 1, 1)) == [2020, 2021]
    assert years(start=dt.date(2020, 1, 1), end=dt.date(2021, 1, 1)) == [2020]
    assert years(cloud_property="CLOUD", max_cloud_percent=20) == [2019, 2020]
    assert years(cloud_property="CLOUD", max_cloud_percent=100, max_scenes=1) == [2019]
    assert years(max_scenes=1) == [2021]
    (clear,) = index(source(cloud_property="CLOUD", max_scenes=1))[1]
    assert clear.cloud_share == pytest.approx(0.05)


def test_images_elsewhere_are_no_scenes(server: EarthEngineServer, source: Any, index: Any) -> None:
    west, south, east, north = REGION
    assert index(source(), bbox=(west + 1, south, east + 1, north))[1] == []
    extent = {"west": 0.0, "south": 0.0, "east": 1.0, "north": 1.0}
    server.asked.clear()
    counts, scenes = index(source(extent=extent))
    assert (counts["why_none"], scenes) == ("the region lies outside sources.yaml: P.extent", [])
    assert server.asked == []


def test_images_of_another_resolution_or_on_no_grid_are_left_out_and_counted(
    server: EarthEngineServer, source: Any, index: Any
) -> None:
    coarse = GRID @ Affine.scale(5)
    server.collections[COLLECTION] += [
        stored("coarse", 2018, 0, transform=coarse),
        stored("lost", 2018, 0, crs="EPSG:999999"),
    ]
    summary, scenes = index(source())
    assert (len(scenes), summary["left_out"]) == (3, {"crs": 1, "gsd": 1})
    server.collections[COLLECTION] = [stored("coarse", 2018, 0, transform=coarse)]
    with pytest.raises(SceneError, match="correct gsd_m"):
        index(source())


def test_bands_that_are_not_there_are_named_with_those_that_are(source: Any, index: Any) -> None:
    with pytest.raises(SceneError, match="has no band 'B4'; it has B, G, N, R"):
        index(source(bands=("B4", "G", "B")))


def test_images_that_are_not_8_bit_need_a_scaling(server: EarthEngineServer, source: Any, index: Any) -> None:
    server.collections[COLLECTION] = [stored("a", 2019, 5, levels=("uint16", 20))]
    with pytest.raises(SceneError, match=r"earthengine://PLANES/PHOTOS/a is not 8-bit: state sources.yaml: P.scaling"):
        index(source())
    (fixed,) = index(source(scaling={"low": 0, "high": 5100}))[1]
    assert (fixed.scale_low, fixed.scale_high) == ((0,) * 3, (5100,) * 3)
    pixels = read_one(fixed, source(scaling={"low": 0, "high": 5100}), 100, 50, 200, 100)
    np.testing.assert_array_equal(pixels.rgb, painted(100, 50, 200, 100))
    (stretched,) = index(source(scaling={"percentiles": [2, 98]}))[1]
    limits = np.percentile(painted(0, 0, 600, 500).astype(int) * 20, [2, 98], axis=(0, 1))
    assert np.array([stretched.scale_low, stretched.scale_high]) == pytest.approx(limits, abs=60)


# --------------------------------------------------------------------------------------------------------------- pixels


def test_pixels_lie_where_they_were_painted(scene: Scene, source: Any) -> None:
    for place in [(0, 100, 50, 60), (333, 222, 100, 77), (scene.width - 3, scene.height - 2, 3, 2)]:
        pixels = read_one(scene, source(), *place)
        assert pixels.valid.all()
        np.testing.assert_array_equal(pixels.rgb, painted(*place))


def test_masked_pixels_hold_no_data_whatever_their_value(scene: Scene, source: Any) -> None:
    pixels = read_one(scene, source(), 60, 50, 100, 100)
    expected = np.ones((100, 100), dtype=bool)
    expected[:30, :40] = False
    np.testing.assert_array_equal(pixels.valid, expected)
    assert not pixels.rgb[:30, :40].any()


def test_windows_on_another_grid_are_resampled(scene: Scene, source: Any) -> None:
    with EarthEngineReader(scene, source()) as reader:
        transform = Affine(*scene.transform) @ Affine.translation(200.5, 200.5)
        pixels = reader.read(scene.crs, tuple(transform[:6]), 20, 20)
    assert pixels.valid.all()
    assert np.abs(pixels.rgb[..., 0].astype(int) - painted(200, 200, 20, 20)[..., 0]).max() <= 1


def test_requests_stay_below_the_documented_limits(
    server: EarthEngineServer, scene: Scene, source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "MAX_REQUEST_BYTES", 25 * 5000)
    monkeypatch.setattr(reader_module, "MAX_REQUEST_SIDE", 150)
    place = (100, 100, 310, 240)
    pixels = read_one(scene, source(), *place)
    np.testing.assert_array_equal(pixels.rgb, painted(*place))
    sizes = [grid["dimensions"] for grid in server.grids]
    assert len(sizes) > 6
    assert all(size["width"] <= 150 and size["width"] * size["height"] <= 5000 for size in sizes)


def test_pieces_cover_a_window_once() -> None:
    found = pieces(Window(7, 9, 5000, 6000))
    assert sum(piece.width * piece.height for piece in found) == 5000 * 6000
    assert all(piece.width * piece.height * 25 <= 48_000_000 for piece in found)
    assert (found[0].column, found[0].row) == (7, 9)
    assert max(piece.row + piece.height for piece in found) == 6009


def test_many_windows_are_asked_for_together_and_come_each_in_its_place(
    server: EarthEngineServer, scene: Scene, source: Any
) -> None:
    places = [(100 + 37 * k % 400, 100 + 53 * k % 300, 64, 48) for k in range(70)]
    with EarthEngineReader(scene, source(connections=8)) as reader:
        for index, pixels in reader.read_many([window_of(scene, *place) for place in places]):
            assert isinstance(pixels, Pixels)
            np.testing.assert_array_equal(pixels.rgb, painted(*places[index]))
    assert len(server.asked) == len(set(places))


# --------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    "refusal",
    [(429, "Too many concurrent aggregations."), (400, "Computation timed out."), (503, "Try later."), (429, "x")],
)
def test_what_may_pass_is_tried_again(
    server: EarthEngineServer, scene: Scene, source: Any, refusal: tuple[int, str]
) -> None:
    server.refusals = [refusal, refusal]
    assert read_one(scene, source(), 200, 200, 10, 10).valid.all()
    assert len(server.asked) == 3


def test_the_wish_when_to_come_back_is_granted(
    server: EarthEngineServer, scene: Scene, source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(http.time, "sleep", pauses.append)
    server.refusals, server.retry_after = [(429, "Too many requests.")], "7"
    assert read_one(scene, source(), 200, 200, 10, 10).valid.all()
    assert pauses == [7.0]


def test_a_quota_that_stays_used_up_is_one_error_for_the_stage(
    server: EarthEngineServer, scene: Scene, source: Any
) -> None:
    server.always = (429, "Quota exceeded for quota metric 'requests'.")
    with pytest.raises(
        UnreachableError, match=r"source P: .* wants fewer requests \(429: Quota exceeded.*run again later"
    ):
        with EarthEngineReader(scene, source(connections=1)) as reader:
            list(reader.read_many([window_of(scene, 200, 200, 10, 10)]))
    assert len(server.asked) == 3


def test_a_window_that_takes_too_long_is_an_error_for_itself_alone(
    server: EarthEngineServer, scene: Scene, source: Any
) -> None:
    server.refusals = [(400, "Computation timed out.")] * 3
    windows = [window_of(scene, 100, 100, 10, 10), window_of(scene, 500, 400, 10, 10)]
    with EarthEngineReader(scene, source(connections=1)) as reader:
        found = dict(reader.read_many(windows))
    assert isinstance(found[0], CorruptInputError)
    assert isinstance(found[1], Pixels)


def test_an_image_that_is_gone_is_an_error_for_its_windows(
    server: EarthEngineServer, scene: Scene, source: Any
) -> None:
    server.collections[COLLECTION] = []
    with pytest.raises(RefusedError, match="not found"):
        read_one(scene, source(), 0, 0, 10, 10)


def test_a_collection_that_is_not_there_is_named(source: Any, index: Any) -> None:
    with pytest.raises(RefusedError, match="asset 'NOTHING' not found.*check collection"):
        index(source(collection="NOTHING"))


def test_a_stalled_answer_ends_in_time(server: EarthEngineServer, scene: Scene, source: Any) -> None:
    server.stall = True
    with pytest.raises(UnreachableError, match="Earth Engine: 3 .* failed, at last with: no answer came in time"):
        read_one(scene, source(timeout_s=0.3, project="another-project"), 0, 0, 10, 10)


@pytest.mark.parametrize(
    "body",
    [
        lambda body: body[:-10],
        lambda _: b"<html>",
        lambda body: body.replace(b"'shape': (10, 10)", b"'shape': (99, 99)"),
        lambda body: body.replace(b"('red', '|u1')", b"('red', '|O1')"),
    ],
    ids=["cut", "html", "shape", "objects"],
)
def test_an_answer_that_is_no_such_array_is_an_error_for_its_window(
    server: EarthEngineServer, scene: Scene, source: Any, body: Any
) -> None:
    server.body = body
    with pytest.raises(CorruptInputError, match="sends no array of pixels"):
        read_one(scene, source(), 200, 200, 10, 10)


def test_an_expired_token_is_renewed(server: EarthEngineServer, scene: Scene, source: Any) -> None:
    server.expired = {"token-1", "token-2"}
    assert read_one(scene, source(), 200, 200, 10, 10).valid.all()


# ---------------------------------------------------------------------------------------------------------- credentials


def test_refused_credentials_are_one_error_with_the_remedy(
    server: EarthEngineServer, source: Any, index: Any, tmp_path: Path
) -> None:
    server.token_status = 400
    with pytest.raises(
        MissingInputError, match="refuses the credentials.*check the key file that EE_KEY_FILE"
    ) as caught:
        index(source())
    assert "PRIVATE KEY" not in "".join(traceback.format_exception(caught.value))


def test_a_project_without_permission_is_one_error_for_the_stage(
    server: EarthEngineServer, scene: Scene, source: Any
) -> None:
    server.always = (403, "Caller does not have required permission to use project a-project.")
    with pytest.raises(MissingInputError, match="refuses the credentials or the project .*permission"):
        read_one(scene, source(), 0, 0, 10, 10)


def test_a_missing_variable_or_file_is_named(
    source: Any, index: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EE_KEY_FILE", str(tmp_path / "nothing.json"))
    with pytest.raises(MissingInputError, match=r"EE_KEY_FILE names .*nothing.json, which cannot be read"):
        index(source())
    (tmp_path / "nothing.json").write_text('{"private_key": "secret"}', encoding="utf-8")
    with pytest.raises(MissingInputError, match="no key file of a service account") as caught:
        index(source())
    assert '"secret"' not in "".join(traceback.format_exception(caught.value))
    monkeypatch.delenv("EE_KEY_FILE")
    with pytest.raises(SettingsError, match="set the environment variable EE_KEY_FILE"):
        index(source())


def test_without_any_credentials_the_message_says_how_to_get_some(
    source: Any, index: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ee

    def none() -> Any:
        raise ee.EEException("Please authorize access")

    monkeypatch.setattr(ee.data, "get_persistent_credentials", none)
    with pytest.raises(MissingInputError, match="earthengine authenticate.*gcloud auth.*credentials_variable"):
        index(source(credentials_variable=None))


def test_without_the_package_the_message_says_what_to_install(
    source: Any, index: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "installed", lambda: False)
    with pytest.raises(MissingInputError, match=r"pip install 'skyscript-assets\[earthengine\]'"):
        index(source())

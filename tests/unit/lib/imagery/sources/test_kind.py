import dataclasses
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from skyscript_assets.demo import scene as demo_scene
from skyscript_assets.lib import plugins
from skyscript_assets.lib.errors import CorruptInputError, SceneError, SettingsError
from skyscript_assets.lib.imagery.geotiff.raster import RasterReader
from skyscript_assets.lib.imagery.scenes import write_scenes
from skyscript_assets.lib.imagery.sources.earthengine import index as earthengine
from skyscript_assets.lib.imagery.sources.kind import Search, check_source, check_terms, open_scene, source_kind
from skyscript_assets.lib.imagery.sources.stac.reader import RemoteReader
from skyscript_assets.lib.settings.base import BBox
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, Settings, load_settings
from skyscript_assets.lib.settings.sources import Source, Terms
from tests.scenes import SCENE
from tests.web import feature
from tests.workshop import shared_in

FACTS: dict[str, Any] = {"title": "t", "gsd_m": 0.5, "licence": "l", "attribution": "a"}


def source(**facts: Any) -> Source:
    found: Source = TypeAdapter(Source).validate_python(FACTS | facts)
    return found


FILES = source(kind="files", paths=["*.tif"])
STAC = source(kind="stac", catalog="catalog.json", assets=["image"], allow_local_hrefs=True)
SYNTHETIC = source(kind="synthetic", datetime=dt.date(2023, 6, 1))
REMOTE = source(kind="xyz", url="https://example.org/{z}/{x}/{y}.png", datetime=dt.date(2020, 6, 1))


@pytest.fixture
def settings() -> Settings:
    return load_settings(PACKAGED_PROFILES / "skyscript")


def missing(source: Source, settings: Settings) -> list[str]:
    needed = source_kind(source.kind).requirements(source, settings.shared)
    return [requirement.remedy for requirement in needed if not requirement.met]


def depends_on(source: Source, settings: Any) -> dict[str, Any]:
    found: dict[str, Any] = source_kind(source.kind).depends_on(source, settings)
    return found


def test_the_kind_of_a_source_decides_which_reader_opens_its_scenes(
    tmp_path: Path, write_raster: Any, scene_of: Any, textured: Any
) -> None:
    scene = scene_of(write_raster(tmp_path / "a.tif", textured()))
    assert type(open_scene(scene, FILES)) is RasterReader
    assert type(open_scene(scene, SYNTHETIC)) is RasterReader
    assert type(open_scene(scene, STAC)) is RemoteReader


def test_a_source_is_indexed_by_its_kind(tmp_path: Path, write_raster: Any, textured: Any) -> None:
    write_raster(tmp_path / "a.tif", textured(), tags={"TIFFTAG_DATETIME": "2019:07:02 10:30:00"})
    item = feature("a", (0, 0, 1, 1), {"image": "a.tif"}) | {"geometry": None}
    (tmp_path / "catalog.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item]}), "utf-8")
    for described in (FILES, STAC):
        search = Search("here", "S", described, shared_in(tmp_path), (-180.0, -90.0, 180.0, 90.0), tmp_path)
        assert source_kind(described.kind).index(search)["scenes"] == 1
    (tmp_path / "catalog.json").write_text('{"type": "FeatureCollection", "features": []}', encoding="utf-8")
    with pytest.raises(CorruptInputError, match="leads to no item at all"):
        source_kind("stac").index(search)


def test_only_a_painting_is_made_from_objects() -> None:
    assert [source_kind(described.kind).needs_objects for described in (SYNTHETIC, FILES, STAC)] == [True, False, False]


# -------------------------------------------------------------------------------------------------- what is depended on


def test_an_index_is_stale_when_a_file_that_it_read_changes(tmp_path: Path) -> None:
    before = depends_on(STAC, shared_in(tmp_path))
    (tmp_path / "catalog.json").write_text("{}", encoding="utf-8")
    assert depends_on(STAC, shared_in(tmp_path)) != before
    remote = STAC.model_copy(update={"catalog": "https://example.org/stac"})
    assert depends_on(remote, shared_in(tmp_path))["files"] == []


def test_another_painter_makes_painted_scenes_stale_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [depends_on(described, shared_in(tmp_path)) for described in (SYNTHETIC, FILES, STAC, REMOTE)]
    assert before[0]["version"] == demo_scene.PAINTER_VERSION
    changed = dataclasses.replace(demo_scene.KIND, version="another")
    monkeypatch.setattr(demo_scene, "KIND", changed)
    plugins.load.cache_clear()
    after = [depends_on(described, shared_in(tmp_path)) for described in (SYNTHETIC, FILES, STAC, REMOTE)]
    plugins.load.cache_clear()
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True, True, True]


@pytest.mark.parametrize(
    ("described", "changed", "stale"),
    [
        (REMOTE, {"title": "another"}, False),
        (REMOTE, {"requests_per_second": 9.0, "connections": 3, "cache_mb": 1, "contact": "me"}, False),
        (REMOTE, {"api_key_variable": "KEY", "api_key_parameter": "k", "api_key_header": "K"}, False),
        (REMOTE, {"max_zoom": 3}, True),
        (REMOTE, {"attribution": "another"}, True),
        (STAC, {"requester_pays": True, "token": {"env": "TOKEN"}}, False),
        (STAC, {"assets": ("red",)}, True),
        (FILES, {"choice": {"dates": 3}}, False),
        (FILES, {"bands": (3, 2, 1)}, True),
    ],
)
def test_how_images_are_reached_and_chosen_makes_no_index_stale(
    tmp_path: Path, described: Source, changed: dict[str, Any], stale: bool
) -> None:
    other = source(**described.model_dump(exclude_unset=True) | changed)
    assert (depends_on(other, shared_in(tmp_path)) != depends_on(described, shared_in(tmp_path))) == stale


# --------------------------------------------------------------------------------------------------------- requirements


def test_a_painted_source_needs_nothing() -> None:
    demo = load_settings(PACKAGED_PROFILES / "demo")
    assert [source_kind(source.kind).requirements(source, demo.shared) for source in demo.sources.values()] == [
        []
    ] * len(demo.sources)


def test_files_must_be_there(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    assert missing(source(kind="files", paths=[str(path)]), settings) == [f"{path} does not exist"]
    assert missing(source(kind="files", paths=[str(tmp_path / "*.tif")]), settings) == ["no file matches its paths"]
    path.write_bytes(b"")
    assert missing(source(kind="files", paths=[str(path)]), settings) == []


def test_a_service_may_need_a_key(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NLS_API_KEY", raising=False)
    assert missing(settings.sources["FI"], settings) == ["NLS_API_KEY is not set"]
    monkeypatch.setenv("NLS_API_KEY", "x")
    assert missing(settings.sources["FI"], settings) == []
    assert missing(settings.sources["ES"], settings) == []


def test_earth_engine_needs_package_credentials_and_project(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG", "EE_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(earthengine, "installed", lambda: False)
    install, login, project = missing(settings.sources["P3"], settings)
    assert "skyscript-assets[earthengine]" in install
    assert "earthengine authenticate" in login
    assert "project" in project
    with_key = source(kind="earthengine", collection="A/B", credentials_variable="EE_KEY_FILE")
    assert missing(with_key, settings)[1:] == ["EE_KEY_FILE is not set"]
    monkeypatch.setenv("EE_KEY_FILE", str(tmp_path / "key.json"))
    assert missing(with_key, settings)[1:] == [f"{tmp_path / 'key.json'} does not exist"]


# ------------------------------------------------------------------------------------- what is stated and what is there

HERE = BBox(west=8.9, south=47.3, east=9.1, north=47.5)
ELSEWHERE = BBox(west=20.0, south=60.0, east=21.0, north=61.0)
"""The rasters of these tests lie at 9.0 E, 47.4 N; their pixels are half a metre wide."""


@pytest.fixture
def rasters(tmp_path: Path, write_raster: Any, textured: Any) -> Path:
    for name, year in (("a", 2019), ("b", 2021)):
        write_raster(tmp_path / f"{name}.tif", textured(), tags={"TIFFTAG_DATETIME": f"{year}:07:02 10:30:00"})
    return tmp_path


def test_a_remote_or_painted_source_tells_what_it_states(tmp_path: Path) -> None:
    assert check_source("R", REMOTE, shared_in(tmp_path)) == {"gsd_m": 0.5, "extent": None, "datetime": "2020-06-01"}
    painted = SYNTHETIC.model_copy(update={"extent": HERE})
    facts = check_source("P", painted, shared_in(tmp_path))
    assert facts == {"gsd_m": 0.5, "extent": HERE.model_dump(), "datetime": "2023-06-01"}


def test_files_are_counted_measured_and_dated(rasters: Path) -> None:
    facts = check_source("F", FILES.model_copy(update={"extent": HERE}), shared_in(rasters, HERE))
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["gsd_m"], facts["files"]) == (0.5, 2)
    assert facts["finest_m"] == facts["coarsest_m"] == pytest.approx(0.5, rel=0.01)
    assert (facts["earliest"], facts["latest"]) == ("2019-07-02T10:30:00+00:00", "2021-07-02T10:30:00+00:00")


def test_a_gsd_that_one_file_contradicts_is_refused_as_by_the_index(rasters: Path) -> None:
    wrong = FILES.model_copy(update={"gsd_m": 5.0})
    with pytest.raises(
        SceneError, match=r"a.tif has pixels of 0.5 m on the ground, but .*F.gsd_m says 5: correct"
    ) as told:
        check_source("F", wrong, shared_in(rasters))
    with pytest.raises(SceneError) as index_told:
        source_kind("files").index(Search("here", "F", wrong, shared_in(rasters), HERE.bounds, rasters))
    assert str(told.value) == str(index_told.value)


def test_a_date_must_be_known(tmp_path: Path, write_raster: Any, textured: Any) -> None:
    write_raster(tmp_path / "a.tif", textured())
    with pytest.raises(SceneError, match=r"a.tif has no TIFFTAG_DATETIME: state sources.yaml: F.datetime"):
        check_source("F", FILES, shared_in(tmp_path))
    dated = source(kind="files", paths=["*.tif"], datetime="2020-06-01")
    assert check_source("F", dated, shared_in(tmp_path))["earliest"].startswith("2020-06-01")


def test_an_extent_without_any_file_is_refused(rasters: Path) -> None:
    with pytest.raises(SceneError, match=r"no image of source F .*47\.40.* lies in sources.yaml: F.extent: correct"):
        check_source("F", FILES.model_copy(update={"extent": ELSEWHERE}), shared_in(rasters, HERE))


@pytest.mark.parametrize(
    ("extent", "boxes", "refused"),
    [
        (BBox(west=8.9, south=47.0, east=9.1, north=48.0), [BBox(west=8.9, south=47.0, east=9.1, north=47.2)], True),
        (BBox(west=8.9, south=47.0, east=9.1, north=48.0), [ELSEWHERE, HERE], False),
        (BBox(west=8.9, south=47.0, east=9.1, north=48.0), [ELSEWHERE], False),
        (BBox(west=8.9, south=47.0, east=9.1, north=48.0), [BBox(west=8, south=46, east=9.1, north=47.1), None], False),
        (None, [ELSEWHERE], False),
    ],
    ids=["beside the only region", "in one of two", "for no region at all", "a region without a box", "no extent"],
)
def test_a_file_must_lie_in_a_region_where_that_is_stated(
    rasters: Path, extent: BBox | None, boxes: list[BBox | None], refused: bool
) -> None:
    described = FILES.model_copy(update={"extent": extent})
    if refused:
        with pytest.raises(SceneError, match=r"F.extent and the bbox of a region in regions.yaml: correct"):
            check_source("F", described, shared_in(rasters, *boxes))
    else:
        assert check_source("F", described, shared_in(rasters, *boxes))["files"] == 2


def items(folder: Path, *hrefs: str) -> None:
    ring = [[8.999, 47.39], [9.005, 47.39], [9.005, 47.41], [8.999, 47.41], [8.999, 47.39]]
    features = [
        {
            "type": "Feature",
            "id": Path(href).stem,
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"datetime": "2020-06-01T00:00:00Z"},
            "assets": {"image": {"href": href}},
        }
        for href in hrefs
    ]
    collection = {"type": "FeatureCollection", "features": features}
    (folder / "catalog.json").write_text(json.dumps(collection), encoding="utf-8")


def test_a_catalog_here_needs_one_image_as_stated(rasters: Path) -> None:
    items(rasters, "a.tif", "b.tif", "gone.tif")
    assert check_source("S", STAC, shared_in(rasters))["items"] == 3
    wrong = STAC.model_copy(update={"gsd_m": 5.0})
    with pytest.raises(SceneError, match=r"source S: none of 3 items can be used; a: .*S.gsd_m says 5: correct it"):
        check_source("S", wrong, shared_in(rasters))
    with pytest.raises(SceneError, match=r"no image of source S .* lies in sources.yaml: S.extent"):
        check_source("S", STAC.model_copy(update={"extent": ELSEWHERE}), shared_in(rasters))


def test_images_elsewhere_are_not_asked_for(rasters: Path) -> None:
    items(rasters, "https://images.invalid/a.tif")
    assert check_source("S", STAC.model_copy(update={"gsd_m": 5.0}), shared_in(rasters))["items"] == 1
    remote = STAC.model_copy(update={"catalog": "https://stac.invalid"})
    assert check_source("S", remote, shared_in(rasters)) == {"gsd_m": 0.5, "extent": None}


def test_a_credit_is_filled_in_and_tells_of_unknown_places(tmp_path: Path) -> None:
    facts = vars(SCENE) | {"datetime": dt.datetime(2021, 7, 5, tzinfo=dt.UTC)}
    image = {name: facts[name] for name in ("scene_id", "datetime", "footprint", "gsd_m", "crs", "transform", "width")}
    image |= {name: facts[name] for name in ("height", "hrefs", "fingerprint")}
    credited = FILES.model_copy(update={"attribution": "© {year} A, data {month}/{year} of {dataset}"})
    found = Search("here", "S", credited, shared_in(tmp_path), (0, 0, 1, 1), tmp_path).scene(**image)
    assert found.attribution == "© 2021 A, data 07/2021 of t"
    with pytest.raises(ValidationError, match="{yaer} is no place"):
        source(kind="files", paths=["a.tif"], attribution="© {yaer} A")


def test_terms_have_to_be_accepted() -> None:
    bound = FILES.model_copy(update={"terms": Terms(says="No bulk downloads.")})
    with pytest.raises(SettingsError, match=r"No bulk downloads\..*`accepted: true` under sources.yaml: S.terms"):
        check_terms("S", bound)
    check_terms("S", bound.model_copy(update={"terms": Terms(says="None.", accepted=True)}))
    check_terms("S", FILES)


def test_a_kind_that_cannot_search_across_180_degrees_says_so(tmp_path: Path) -> None:
    search = Search("fiji", "F", FILES, shared_in(tmp_path), (177.0, -20.0, 182.0, -12.0), tmp_path)
    asked: list[object] = []
    kind = dataclasses.replace(source_kind("files"), index=lambda search: asked.append(search) or {})
    write_scenes(tmp_path, [])
    assert kind.find(search) == {"coarser_than_pixels": 0}
    with pytest.raises(
        SceneError, match=r"region fiji lies across 180 degrees .*make two regions of it, one with east: 180"
    ):
        dataclasses.replace(kind, across_180=False).find(search)
    dataclasses.replace(kind, across_180=False).find(dataclasses.replace(search, bbox=(177.0, -20.0, 180.0, -12.0)))
    assert len(asked) == 2


@pytest.mark.parametrize("name", ["stac", "xyz", "wmts", "wms", "wcs", "earthengine"])
def test_no_service_is_asked_about_a_region_across_180_degrees(name: str, tmp_path: Path) -> None:
    # A box beyond 180 degrees would find nothing east of it, without a word.
    search = Search("fiji", "F", FILES, shared_in(tmp_path), (177.0, -20.0, 182.0, -12.0), tmp_path)
    with pytest.raises(SceneError, match=r"fiji lies across 180 degrees .*make two regions of it"):
        source_kind(name).find(search)

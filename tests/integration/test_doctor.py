"""`skyscript doctor`: what is missing on this machine, and where services differ from the settings."""

import datetime as dt
import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from click.testing import CliRunner

from skyscript_assets.cli import main
from skyscript_assets.lib import http
from tests.earth_engine_server import StoredImage, earth_engine_server, write_key_file
from tests.tile_server import (
    TileServer,
    encoded,
    matrix_set,
    tile_server,
    wcs_document,
    wms_document,
    wmts_document,
)
from tests.web import FileServer, StacApi, feature, running
from tests.workshop import tiny_files, write_profile

pytestmark = pytest.mark.integration

HELSINKI = {"west": 24.93, "south": 60.16, "east": 24.95, "north": 60.18}
IMAGE: dict[str, Any] = {"title": "T", "gsd_m": 0.5, "licence": "CC0-1.0", "attribution": "A"}
FACTS = IMAGE | {"datetime": "2020-06-01", "requests_per_second": 100.0}
TM35 = matrix_set("TM35", "urn:ogc:def:crs:EPSG::3067", "-548576 8388608", 0.5)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_PAUSE_S", 0.0)


@pytest.fixture
def server() -> Iterator[TileServer]:
    with tile_server() as started:
        started.documents["/wmts"] = wmts_document(TM35, ["TM35"], kvp=f"{started.address}/kvp?")
        yield started


Rows = dict[tuple[str, str], tuple[str, str]]


@pytest.fixture
def doctor(tmp_path: Path) -> Callable[..., tuple[int, Rows]]:
    """Writes a profile of some sources and asks; gives the exit code, and sign and remedy by key and what is told."""

    def ask(*arguments: str, regions: dict[str, Any] | None = None, **sources: dict[str, Any]) -> tuple[int, Rows]:
        files: dict[str, Any] = tiny_files()
        region = {"title": "Here", "path": str(tmp_path / "here.osm"), "bbox": HELSINKI}
        files["regions"]["regions"] = regions or {"here": region}
        files["sources"]["sources"] = sources
        models = files["models"]["models"]
        files["models"]["models"] = {"metadata-only": models["metadata-only"] | {"sources": list(sources)}}
        files["benchmarks"]["benchmarks"]["ground-cover"]["sources"] = list(sources)
        files["benchmarks"]["comparisons"] = []
        profile, data = write_profile(tmp_path / "profile", files), tmp_path / "data"
        environment = {"SKYSCRIPT_SETTINGS": str(profile), "SKYSCRIPT_DATA": str(data), "COLUMNS": "1000"}
        environment["DAGSTER_HOME"] = str(tmp_path / "home")
        result = CliRunner().invoke(main, ["doctor", *arguments], env=environment)
        cells = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in result.output.splitlines()]
        rows = {
            (row[1], row[2].partition(":")[0]): (row[0] + " " + row[2], row[3])
            for row in cells
            if len(row) == 4 and row[0]
        }
        assert rows, result.output
        assert not data.exists()
        return result.exit_code, rows

    (tmp_path / "here.osm").write_text("<osm/>")
    return ask


def wmts(server: TileServer, **facts: Any) -> dict[str, Any]:
    return {**FACTS, "kind": "wmts", "url": f"{server.address}/wmts", "layer": "photos", **facts}


def test_what_is_missing_here_is_told_with_its_remedy(
    doctor: Callable[..., tuple[int, Rows]], server: TileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("THE_KEY", raising=False)
    terms = {"says": "Ask us."}
    code, rows = doctor(
        KEYED=wmts(server, api_key_variable="THE_KEY"),
        TERMS=wmts(server, terms=terms),
        AGREED=wmts(server, terms=terms | {"accepted": True}),
        FILES=IMAGE | {"kind": "files", "paths": ["gone.tif"]},
    )
    assert code == 1
    assert rows["KEYED", "THE_KEY (the service's key)"] == ("✗ THE_KEY (the service's key)", "THE_KEY is not set")
    assert rows["TERMS", "terms accepted"][0].startswith("✗")
    assert rows["TERMS", "terms accepted"][1].startswith("Ask us.")
    assert "sources.yaml: TERMS.terms.accepted: true" in rows["TERMS", "terms accepted"][1]
    assert rows["AGREED", "terms accepted"] == ("✓ terms accepted", "")
    assert rows["FILES", "its files on this machine"][1].endswith("gone.tif does not exist")
    assert server.requests == []
    (tmp_path / "here.osm").unlink()
    code, rows = doctor(AGREED=wmts(server))
    assert (code, rows["here", f"extract {tmp_path}/here.osm"][1]) == (1, "it does not exist")


def test_a_machine_with_all_that_is_needed_is_told_so(
    doctor: Callable[..., tuple[int, Rows]], server: TileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", "k")
    code, rows = doctor(KEYED=wmts(server, api_key_variable="THE_KEY"))
    assert (code, {sign[0] for sign, _ in rows.values()}) == (0, {"✓"})
    told = " ".join(what for _, what in rows)
    for word in ("Python 3.", "GPU", "extras", "memory", "SKYSCRIPT_DATA", "DAGSTER_HOME"):
        assert word in told


def test_a_folder_that_cannot_be_used_is_missing(
    doctor: Callable[..., tuple[int, Rows]], server: TileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skyscript_assets.cli.newcomer.MIN_FREE_BYTES", 1 << 60)
    monkeypatch.setattr("skyscript_assets.cli.newcomer.DEMO_MEMORY_GB", 1 << 30)
    code, rows = doctor(A=wmts(server))
    signs = {what.partition(" ")[0]: sign[0] for (_, what), (sign, _) in rows.items()}
    assert (code, signs["SKYSCRIPT_DATA"], signs["DAGSTER_HOME"], signs["memory"]) == (1, "✗", "✗", "!")


def test_services_are_compared_with_the_settings_and_one_that_fails_hinders_no_other(
    doctor: Callable[..., tuple[int, Rows]], server: TileServer
) -> None:
    closed = server.address.rsplit(":", 1)[0] + ":9"
    template = f"{server.address}/{{z}}/{{x}}/{{y}}.png"
    xyz = {**FACTS, "kind": "xyz", "url": template}
    code, rows = doctor(
        "--services",
        GOOD=wmts(server),
        LAYER=wmts(server, layer="maps"),
        COARSE=wmts(server, gsd_m=10.0),
        SET=wmts(server, matrix_set="TM99"),
        FORMAT=wmts(server, format="image/webp"),
        OTHERWISE=xyz | {"gsd_m": 0.5},
        CLOSED=xyz | {"url": f"{closed}/{{z}}/{{x}}/{{y}}.png", "gsd_m": 0.6},
        KEYLESS=wmts(server, api_key_variable="NO_SUCH_KEY"),
    )
    assert code == 1
    told = {key: row for (key, what), row in rows.items() if what == "service"}
    good, nothing = told["GOOD"]
    assert nothing == ""
    for fact in ("✓ service: 0.5 m, EPSG:3067, 2020-06-01 (guess), CC0-1.0", "at 24.9400 60.1700"):
        assert fact in good
    for key, words in {
        "LAYER": "LAYER.layer: 'maps' is not offered; there are photos",
        "COARSE": "no resolution near 10 m",
        "SET": "SET.matrix_set: 'TM99' is not offered; there are TM35",
        "FORMAT": "FORMAT.format: 'image/webp' is not offered",
        "CLOSED": "check the network and the address",
    }.items():
        assert told[key][0] == "✗ service"
        assert words in told[key][1]
    sign, remedy = told["OTHERWISE"]
    assert sign.startswith("! service: 0.596 m")
    assert remedy == "pixels are 0.596 m on the ground here: OTHERWISE.gsd_m says 0.5"
    assert "KEYLESS" not in told


def test_a_service_that_refuses_or_sends_a_page_is_a_row_and_its_key_is_not_shown(
    doctor: Callable[..., tuple[int, Rows]], server: TileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "right"
    monkeypatch.setenv("THE_KEY", "wrong-key")
    xyz = FACTS | {"kind": "xyz", "url": f"{server.address}/{{z}}/{{x}}/{{y}}.png", "gsd_m": 0.6}
    code, rows = doctor("--services", REFUSED=xyz | {"api_key_variable": "THE_KEY"})
    assert (code, rows["REFUSED", "service"][0]) == (1, "✗ service")
    assert "403" in rows["REFUSED", "service"][1]
    assert "wrong-key" not in str(rows)
    server.key, server.everything = "", (200, {"Content-Type": "text/html"}, b"<html>log in</html>")
    code, rows = doctor("--services", PAGE=xyz)
    assert (code, rows["PAGE", "service"][0]) == (1, "✗ service")
    assert "log in" in rows["PAGE", "service"][1]


def test_dates_terms_and_pictures_that_differ_are_told(
    doctor: Callable[..., tuple[int, Rows]], server: TileServer
) -> None:
    server.maps = lambda query: (0, 0, int(query["WIDTH"]), int(query["HEIGHT"]))
    server.documents["/wms"] = wms_document(
        "1.3.0",
        crs="EPSG:25835",
        extra='<Dimension name="time" units="ISO8601" default="2018-07-01">2018-07-01</Dimension>',
        service="<AccessConstraints>CC BY 4.0, ask us</AccessConstraints>",
        href=f"{server.address}/wms",
    )
    wms = {**FACTS, "kind": "wms", "url": f"{server.address}/wms", "layer": "photos"}
    stated = {key: value for key, value in wms.items() if key != "datetime"}
    code, rows = doctor("--services", OTHER=wms, RIGHT=stated | {"licence": "CC-BY-4.0"})
    assert code == 0
    assert rows["RIGHT", "service"][1] == ""
    assert rows["OTHER", "service"][0].startswith("! service: 0.5 m, EPSG:25835")
    assert rows["OTHER", "service"][1] == (
        "stated with the images is 'CC BY 4.0, ask us': OTHER.licence says 'CC0-1.0'; the service states the time "
        "2018-07-01: OTHER.datetime says 2020-06-01; leave it out"
    )
    grey = np.random.default_rng(0).integers(0, 255, (256, 256)).astype(np.uint8)
    server.everything = (200, {"Content-Type": "image/png"}, encoded(grey[..., None].repeat(3, 2)))
    code, rows = doctor("--services", GREY=wmts(server))
    assert (code, rows["GREY", "service"][1]) == (
        0,
        "the window is of one colour, or grey: GREY.bands, assets, scaling or layer",
    )
    server.everything = (404, {}, b"")
    code, rows = doctor("--services", EMPTY=wmts(server))
    assert "the window holds no data" in rows["EMPTY", "service"][1]


def test_a_coverage_is_asked_for_its_description_and_one_window(
    doctor: Callable[..., tuple[int, Rows]], server: TileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "right"
    monkeypatch.setenv("THE_KEY", "right")
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", "EPSG:3067", [24.94], [60.17])
    left, bottom = round(x) - 2000, round(y) - 2000
    corners = {"lower": f"{left} {bottom} 2019-01-01", "upper": f"{left + 4000} {bottom + 4000} 2021-06-01"}
    server.documents["/wcs"] = wcs_document(crs="EPSG:3067", labels="E N time", **corners)
    server.format, server.media_type = "TIFF", "image/tiff"
    server.maps = lambda _: (0, 0, 256, 256)
    wcs = {**FACTS, "kind": "wcs", "url": f"{server.address}/wcs", "layer": "photos", "api_key_variable": "THE_KEY"}
    dated = {key: value for key, value in wcs.items() if key != "datetime"}
    code, rows = doctor(
        "--services", GUESSED=wcs | {"tile_px": 256}, RIGHT=dated | {"tile_px": 256}, COARSE=wcs | {"gsd_m": 5.0}
    )
    assert code == 1
    assert rows["RIGHT", "service"][0].startswith("✓ service: 0.5 m, EPSG:3067, 2021-06-01 (stated), CC0-1.0")
    assert rows["GUESSED", "service"] == (
        rows["RIGHT", "service"][0].replace("✓", "!").replace("2021-06-01 (stated)", "2020-06-01 (guess)"),
        "the service states the time 2021-06-01: GUESSED.datetime says 2020-06-01; leave it out",
    )
    assert rows["COARSE", "service"][0] == "✗ service"
    assert "no resolution near 5 m" in rows["COARSE", "service"][1]


@pytest.mark.skipif(importlib.util.find_spec("ee") is None, reason="the extra `earthengine` is not installed")
def test_earth_engine_is_asked_for_images_and_one_window(
    doctor: Callable[..., tuple[int, Rows]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ee import deprecation

    monkeypatch.setattr(deprecation, "_FetchDataCatalogStac", dict)
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", "EPSG:32635", [24.94], [60.17])
    grid = Affine(0.8, 0, round(x) - 240, 0, -0.8, round(y) + 200)
    with earth_engine_server() as google:
        when = dt.datetime(2015, 6, 1, tzinfo=dt.UTC)
        google.collections["SKY/RGB"] = [StoredImage("SKY/RGB/one", when, grid, crs="EPSG:32635")]
        monkeypatch.setenv("EE_KEY_FILE", str(write_key_file(tmp_path / "key.json", google.address)))
        sky = IMAGE | {"kind": "earthengine", "collection": "SKY/RGB", "gsd_m": 0.8, "url": google.address}
        sky |= {"credentials_variable": "EE_KEY_FILE"}
        asked = {"NAME": sky | {"collection": "SKY/GREY"}, "BAND": sky | {"bands": ["R", "G", "X"]}}
        code, rows = doctor("--services", RIGHT=sky, FINE=sky | {"gsd_m": 0.3}, **asked)
        assert len(google.grids) == 1
    assert code == 1
    assert rows["RIGHT", "service"][0].startswith("✓ service: 0.8 m, EPSG:32635, 2015-06-01 (stated), CC0-1.0")
    assert {key: rows[key, "service"][0] for key in ("NAME", "BAND", "FINE")} == dict.fromkeys(
        ("NAME", "BAND", "FINE"), "✗ service"
    )
    assert "SKY/GREY" in rows["NAME", "service"][1]
    assert "BAND.bands" in rows["BAND", "service"][1]
    assert "correct gsd_m in sources.yaml" in rows["FINE", "service"][1]


@pytest.fixture
def web() -> Iterator[FileServer]:
    with running(FileServer()) as started:
        yield started


def test_a_catalog_is_asked_for_one_item_and_one_window(
    doctor: Callable[..., tuple[int, Rows]],
    web: FileServer,
    write_raster: Callable[..., Path],
    textured: Callable,
    tmp_path: Path,
) -> None:
    grid = Affine(0.5, 0, 385_500, 0, -0.5, 6_672_200)
    names = [f"scene{number}" for number in range(6)]
    hrefs = [
        web.put(
            f"{n}.tif",
            write_raster(tmp_path / f"{n}.tif", textured(2000, 1600, seed=7), crs="EPSG:32635", transform=grid),
        )
        for n in names
    ]
    with rasterio.open(tmp_path / "scene0.tif") as dataset:
        box = rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    items = [
        feature(name, box, {"image": href}, datetime=f"2022-06-01T10:{number * 5:02}:00Z", license="CC-BY-4.0")
        for number, (name, href) in enumerate(zip(names, hrefs, strict=True))
    ]
    api = StacApi(web, items)
    stac = {"kind": "stac", "catalog": api.url, "collection": "aerial", "assets": ["image"], "depth": 5}
    source = IMAGE | stac
    box_of_items = dict(zip(("west", "south", "east", "north"), box, strict=True))
    region = {"here": {"title": "Here", "path": str(tmp_path / "here.osm"), "bbox": box_of_items}}
    code, rows = doctor("--services", regions=region, S=source)
    assert code == 0
    assert rows["S", "service"][0].startswith("! service: 0.5 m, EPSG:32635, 2022-06-01 (stated), CC-BY-4.0")
    assert rows["S", "service"][1] == "stated with the images is 'CC-BY-4.0': S.licence says 'CC0-1.0'"
    assert len({asked.path for asked in web.asked if asked.path.endswith(".tif")}) == 1
    right = source | {"licence": "CC-BY-4.0"}
    code, rows = doctor(
        "--services",
        regions=region,
        NAME=right | {"collection": "areal"},
        ASSET=right | {"assets": ["visual"]},
        GSD=right | {"gsd_m": 5.0},
        LATER=right | {"since": "2024-01-01"},
        BAND=right | {"bands": [1, 2, 4]},
    )
    assert code == 1
    for key, words in {
        "NAME": "has no collection 'areal'",
        "ASSET": "it has no asset 'visual'; it has image",
        "GSD": "has pixels of 0.5 m on the ground, but sources.yaml: GSD.gsd_m says 5",
        "LATER": "nothing at",
        "BAND": "has 3 bands, but sources.yaml: BAND.bands asks for [1, 2, 4]",
    }.items():
        assert rows[key, "service"][0] == "✗ service"
        assert words in rows[key, "service"][1]


def test_a_source_without_a_place_is_not_asked(
    doctor: Callable[..., tuple[int, Rows]], server: TileServer, tmp_path: Path
) -> None:
    region = {"here": {"title": "Here", "path": str(tmp_path / "here.osm")}}
    extent = {"west": 24.0, "south": 60.0, "east": 25.0, "north": 61.0}
    code, rows = doctor("--services", regions=region, A=wmts(server), B=wmts(server, extent=extent))
    assert code == 1
    assert "state sources.yaml: A.extent" in rows["A", "service"][1]
    assert "at 24.5000 60.5000" in rows["B", "service"][0]


def test_a_source_that_has_nothing_of_the_first_region_says_why(
    doctor: Callable[..., tuple[int, Rows]], server: TileServer, tmp_path: Path
) -> None:
    monaco = {"title": "There", "path": str(tmp_path / "here.osm")}
    monaco["bbox"] = {"west": 7.418, "south": 43.732, "east": 7.423, "north": 43.736}
    server.documents["/wcs"] = wcs_document(
        crs="EPSG:3067", labels="E N", lower="380000 6670000", upper="390000 6680000"
    )
    wcs = {**FACTS, "kind": "wcs", "url": f"{server.address}/wcs", "layer": "photos"}
    code, rows = doctor("--services", regions={"there": monaco}, FI=wcs)
    assert (code, rows["FI", "service"][0]) == (1, "✗ service")
    assert "the region lies outside where" in rows["FI", "service"][1]
    assert "TM35FIN" in rows["FI", "service"][1]


def test_a_region_across_180_degrees_is_refused_as_the_stage_refuses_it(
    doctor: Callable[..., tuple[int, Rows]], server: TileServer, tmp_path: Path
) -> None:
    place = {"title": "A place", "path": str(tmp_path / "here.osm")}
    # Its middle lies west of the line: what is looked at does not reach across.
    fiji = place | {"bbox": {"west": 177.0, "south": -20.0, "east": -179.0, "north": -12.0}}
    regions = {"here": place | {"bbox": HELSINKI}, "fiji": fiji}
    finland = {"west": 19.0, "south": 59.4, "east": 31.6, "north": 70.1}
    code, rows = doctor("--services", regions=regions, WORLD=wmts(server), FINLAND=wmts(server, extent=finland))
    assert (code, rows["WORLD", "service"][0], rows["FINLAND", "service"][0][0]) == (1, "✗ service", "✓")
    assert "lies across 180 degrees (177.0, -20.0, 181.0, -12.0)" in rows["WORLD", "service"][1]
    assert "make two regions of it" in rows["WORLD", "service"][1]

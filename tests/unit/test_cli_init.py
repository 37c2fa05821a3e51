"""`skyscript init`: what headers say becomes a profile that loads; what they cannot say stands there as unknown."""

import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from click.testing import CliRunner, Result
from pyproj import Transformer

from skyscript_assets.cli import main
from skyscript_assets.lib.imagery.sources.kind import check_source
from skyscript_assets.lib.settings.load import Settings, load_settings

Factory = Callable[..., Path]
OSM = '<osm version="0.6"><bounds minlat="47.3" minlon="8.9" maxlat="47.5" maxlon="9.1"/></osm>'
LATER = Affine(0.5, 0, 500_200, 0, -0.5, 5_250_000)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.osm").write_text(OSM)
    return tmp_path


def init(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["init", *arguments], env={"COLUMNS": "200"})


def made(*arguments: str) -> Settings:
    result = init(*arguments, "--osm", "here.osm", "mine")
    assert result.exit_code == 0, result.output
    return load_settings(Path("mine"))


def test_files_of_one_resolution_and_layout_become_a_source_that_is_true_of_them(
    here: Path, write_raster: Factory, textured: Callable
) -> None:
    write_raster(here / "a.tif", textured())
    write_raster(here / "b.tif", textured(seed=1), transform=LATER)
    result = init("a.tif", "b.tif", "--osm", "here.osm", "--licence", "CC-BY-4.0", "--date", "2023-06-01", "mine")
    assert result.exit_code == 0, result.output
    settings = load_settings(here / "mine")
    ((key, source),) = settings.sources.items()
    assert (key, source.gsd_m, source.licence, source.date_is) == ("OWN-0-5M", 0.5, "CC-BY-4.0", "stated")
    assert source.attribution == "unknown: state it before you publish"
    facts = check_source(key, source, settings.shared)
    assert (facts["files"], facts["earliest"][:10]) == (2, "2023-06-01")
    (region,) = settings.regions.values()
    assert region.path == str(here / "here.osm")
    assert region.bbox is not None
    corners = Transformer.from_crs(32632, 4326, always_xy=True).transform([500_000, 500_350], [5_249_900, 5_250_000])
    (west, east), (south, north) = corners
    assert region.bbox.bounds == pytest.approx((west, south, east, north), abs=2e-5)
    assert shapely.box(*region.bbox.bounds).contains(shapely.box(west, south, east, north))
    assert settings.plant.split.zoom == 16
    assert "# metres on the ground" in (here / "mine/sources.yaml").read_text()
    shown = " ".join(result.output.split())
    assert f"export SKYSCRIPT_SETTINGS={here}/mine skyscript run captions/here/OWN-0-5M" in shown
    assert "│ 2 │ 0.5 │ 0.03 │" in shown  # two of 150 m by 100 m


def test_resolutions_bands_types_and_dates_are_kept_apart(
    here: Path, write_raster: Factory, textured: Callable
) -> None:
    write_raster(here / "fine.tif", textured())
    write_raster(here / "coarse.tif", textured(), transform=Affine(30, 0, 500_000, 0, -30, 5_250_000))
    write_raster(here / "dated.tif", textured(), tags={"TIFFTAG_DATETIME": "2019:07:02 10:30:00"})
    write_raster(here / "grey.tif", textured()[:1])
    write_raster(here / "deep.tif", textured().astype(np.uint16) * 9)
    bgr = write_raster(here / "bgr.tif", textured(), photometric="MINISBLACK")
    colours(bgr, "blue", "green", "red")
    settings = made("*.tif")
    by_file = {Path(source.paths[0]).stem: source for source in settings.sources.values()}  # type: ignore[attr-defined]
    assert sorted(by_file) == ["bgr", "coarse", "dated", "deep", "fine", "grey"]
    assert {name: source.bands for name, source in by_file.items() if name in ("fine", "grey", "bgr")} == {
        "fine": (1, 2, 3),
        "grey": (1, 1, 1),
        "bgr": (3, 2, 1),
    }
    assert (by_file["dated"].datetime, by_file["dated"].date_is) == (None, "stated")
    assert by_file["deep"].scaling.percentiles == (2, 98)
    assert by_file["coarse"].gsd_m == 30
    # A tile of the split is 600 pixels wide at least: 18 km at 47 degrees north.
    assert settings.plant.split.zoom == 10
    for key, source in settings.sources.items():
        check_source(key, source, settings.shared)


def colours(path: Path, *names: str) -> None:
    import rasterio

    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [rasterio.enums.ColorInterp[name] for name in names]


def test_a_date_that_no_file_tells_is_called_a_guess(here: Path, write_raster: Factory, textured: Callable) -> None:
    path = write_raster(here / "a.tif", textured())
    os.utime(path, (1_600_000_000, 1_600_000_000))
    (source,) = made("a.tif").sources.values()
    assert (source.datetime, source.date_is) == (dt.datetime(2020, 9, 13), "guess")  # type: ignore[attr-defined]


def test_resolution_is_metres_on_the_ground(here: Path, write_raster: Factory, textured: Callable) -> None:
    # At 60 degrees north Web Mercator stretches by 2.
    grid = Affine(1.0, 0, 2_700_000, 0, -1.0, 8_399_837.9)
    write_raster(here / "a.tif", textured(), crs="EPSG:3857", transform=grid)
    result = init("a.tif", "--osm", "europe/finland")
    assert result.exit_code == 0, result.output
    settings = load_settings(here / "profile")
    assert [source.gsd_m for source in settings.sources.values()] == [0.5]
    assert [region.geofabrik for region in settings.regions.values()] == ["europe/finland"]


def test_bad_images_are_named_and_the_others_used(here: Path, write_raster: Factory, textured: Callable) -> None:
    write_raster(here / "good.tif", textured())
    whole = write_raster(here / "cut.tif", textured(600, 400, seed=1)).read_bytes()
    (here / "cut.tif").write_bytes(whole[: len(whole) // 2])
    write_raster(here / "nowhere.tif", textured(), crs=None)
    (here / "text.tif").write_text("no image")
    result = init("*.tif", "gone.tif", "--osm", "here.osm", "mine")
    assert result.exit_code == 0, result.output
    assert sum(line.startswith("left out") for line in result.output.splitlines()) == 4
    for reason in ("cut.tif cannot be decoded", "nowhere.tif has no CRS", "text.tif cannot be read", "gone.tif does"):
        assert reason in result.output
    (source,) = load_settings(here / "mine").sources.values()
    assert source.paths == (str(here / "good.tif"),)  # type: ignore[attr-defined]
    (here / "good.tif").unlink()
    refused = init("*.tif", "--osm", "here.osm", "other")
    assert refused.exit_code == 1
    assert "none of 3 images can be used: " in refused.output
    assert not (here / "other").exists()


@pytest.mark.parametrize("easting", [818_000, 500_000])
def test_images_around_the_antimeridian_get_no_box_around_the_globe(
    here: Path, write_raster: Factory, textured: Callable, easting: int
) -> None:
    # Taveuni, Fiji: one file across 180 degrees, or one on either side.
    grid = Affine(10.0, 0, easting, 0, -10.0, 8_140_000)
    write_raster(here / "a.tif", textured(), crs="EPSG:32760", transform=grid)
    write_raster(here / "b.tif", textured(), crs="EPSG:32701", transform=Affine(10.0, 0, 190_000, 0, -10.0, 8_140_000))
    result = init("*.tif", "--osm", "australia-oceania/fiji", "mine")
    assert result.exit_code == 1
    assert "both sides of 180 degrees" in " ".join(result.output.split())
    assert not (here / "mine").exists()


def test_all_files_of_a_folder_are_named_by_a_glob(here: Path, write_raster: Factory, textured: Callable) -> None:
    (here / "images [1]").mkdir()
    for seed in (0, 1):
        write_raster(here / f"images [1]/{seed}.tif", textured(seed=seed))
    settings = made("images [1]/0.tif", "images [1]/1.tif")
    ((key, source),) = settings.sources.items()
    assert source.paths == (f"{here}/images [[]1]/*.tif",)  # type: ignore[attr-defined]
    assert check_source(key, source, settings.shared)["files"] == 2


def test_nothing_is_overwritten(here: Path, write_raster: Factory, textured: Callable) -> None:
    write_raster(here / "a.tif", textured())
    made("a.tif")
    (here / "mine/sources.yaml").write_text("mine")
    refused = init("a.tif", "--osm", "here.osm", "mine")
    assert (refused.exit_code, (here / "mine/sources.yaml").read_text()) == (1, "mine")
    assert "mine is there already" in refused.output
    assert [path.name for path in here.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("osm", "told"),
    [
        (None, "europe/switzerland"),
        ("gone.osm.pbf", "neither a file nor a name at Geofabrik"),
        ("far.osm", "name another extract"),
        ("a.tif", "is no OSM extract"),
    ],
)
def test_an_extract_that_will_not_do_is_refused_with_what_would(
    here: Path, write_raster: Factory, textured: Callable, osm: str | None, told: str
) -> None:
    write_raster(here / "a.tif", textured())
    (here / "far.osm").write_text(OSM.replace("47.", "17."))
    result = init("a.tif", *(["--osm", osm] if osm else []), "mine")
    assert result.exit_code == 1
    assert told in " ".join(result.output.split())
    assert not (here / "mine").exists()


def test_what_is_stated_stands_in_the_profile_to_the_letter(
    here: Path, write_raster: Factory, textured: Callable
) -> None:
    write_raster(here / "a.tif", textured())
    words = 'a: "b" # \\1 {year}\n[é]'
    (source,) = made("a.tif", "--attribution", words, "--licence", words).sources.values()
    assert (source.attribution, source.licence) == (words, words)
    refused = init("a.tif", "--osm", "here.osm", "--attribution", "{photographer}", "other")
    assert refused.exit_code == 1
    assert "sources.OWN-0-5M.attribution" in refused.output
    assert not (here / "other").exists()

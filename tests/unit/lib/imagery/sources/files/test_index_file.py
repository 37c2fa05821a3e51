import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely

from skyscript_assets.lib.errors import CorruptInputError, SceneError
from skyscript_assets.lib.imagery.scenes import UNUSABLE_FILE, read_scenes
from skyscript_assets.lib.imagery.sources.files.index import KIND, index_files
from skyscript_assets.lib.imagery.sources.files.index_file import read_index
from skyscript_assets.lib.imagery.sources.files.settings import FilesSource
from skyscript_assets.lib.imagery.sources.kind import Search
from tests.workshop import shared_in

WHEN = dt.datetime(2021, 5, 1, 9, tzinfo=dt.UTC)


def write_index(path: Path, properties: list[dict[str, Any]], **more: Any) -> Path:
    features = [{"type": "Feature", "geometry": None, "properties": facts} | more for facts in properties]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return path


def test_geojson_and_geoparquet_list_paths_with_their_times(tmp_path: Path) -> None:
    expected = [(tmp_path / "images/a.tif", WHEN), (tmp_path / "b.tif", None)]
    rows = [{"path": "images/a.tif", "datetime": "2021-05-01T09:00:00Z"}, {"location": "b.tif", "datetime": None}]
    assert read_index(write_index(tmp_path / "i.geojson", rows)) == expected
    frame = geopandas.GeoDataFrame(
        {"location": ["images/a.tif", "b.tif"], "datetime": [WHEN, None]}, geometry=[shapely.Point(0, 0)] * 2
    )
    frame.to_parquet(tmp_path / "i.parquet")
    assert read_index(tmp_path / "i.parquet") == expected


def test_an_item_collection_names_its_asset(tmp_path: Path) -> None:
    assets = {"visual": {"href": "a.tif", "roles": ["data"]}, "thumbnail": {"href": "a.jpg", "roles": ["thumbnail"]}}
    path = write_index(tmp_path / "i.json", [{"datetime": "2021-05-01T09:00:00Z"}], assets=assets)
    assert read_index(path) == [(tmp_path / "a.tif", WHEN)]
    assert read_index(path, "thumbnail") == [(tmp_path / "a.jpg", WHEN)]
    with pytest.raises(SceneError, match="thumbnail, visual: name the one to read as `index_asset`"):
        read_index(path, "red")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({}, "names no raster"),
        ({"path": "http://127.0.0.1/a.tif"}, "use `kind: stac`"),
        ({"path": "/vsicurl/http://127.0.0.1/a.tif"}, "use `kind: stac`"),
        ({"path": "a.tif", "datetime": "June"}, "unreadable time 'June'"),
    ],
)
def test_an_entry_that_cannot_be_used_is_named(tmp_path: Path, facts: dict[str, Any], message: str) -> None:
    with pytest.raises(SceneError, match=rf"i\.json: entry 1.*{message}"):
        read_index(write_index(tmp_path / "i.json", [{"path": "a.tif"}, facts]))


@pytest.mark.parametrize("content", [b"", b"[]", b'{"features": [1]}', b"\xff\xfe"])
@pytest.mark.parametrize("name", ["i.json", "i.parquet"])
def test_what_is_no_index_is_corrupt(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorruptInputError, match=name):
        read_index(tmp_path / name)


def test_scenes_take_path_and_time_from_the_index(
    tmp_path: Path, write_raster: Callable[..., Path], textured: Callable
) -> None:
    write_raster(tmp_path / "a.tif", textured())
    write_raster(tmp_path / "b.tif", textured(seed=1), tags={"TIFFTAG_DATETIME": "2019:07:02 10:30:00"})
    write_index(tmp_path / "i.json", [{"path": "a.tif", "datetime": "2021-05-01T09:00:00Z"}, {"path": "b.tif"}])
    facts = {"title": "t", "gsd_m": 0.5, "licence": "l", "attribution": "a", "index": "i.json"}
    source = FilesSource.model_validate(facts)
    profile = shared_in(tmp_path)
    index_files(Search("here", "S", source, profile, (-180, -90, 180, 90), tmp_path))
    times = {scene.path.name: scene.datetime for scene in read_scenes(tmp_path)}
    assert times == {"a.tif": WHEN, "b.tif": dt.datetime(2019, 7, 2, 10, 30, tzinfo=dt.UTC)}
    stamps = KIND.depends_on(source, profile)["files"]
    assert [Path(stamp["path"]).name for stamp in stamps] == ["a.tif", "b.tif", "i.json"]
    (tmp_path / "b.tif").unlink()
    assert index_files(Search("here", "S", source, profile, (-180, -90, 180, 90), tmp_path))["unusable"] == 1
    (listed,) = json.loads((tmp_path / UNUSABLE_FILE).read_text())
    assert (Path(listed["item"]).name, listed["reason"].endswith("b.tif does not exist")) == ("b.tif", True)
    assert [scene.path.name for scene in read_scenes(tmp_path)] == ["a.tif"]

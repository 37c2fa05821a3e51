import datetime as dt
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from skyscript_assets.lib.errors import CorruptInputError, UpstreamMissingError
from skyscript_assets.lib.imagery.scenes import SCENE_SCHEMA, acquisition_time, covers, read_scenes, write_scenes
from skyscript_assets.lib.settings.base import BBox
from skyscript_assets.lib.tables import rows_to_table
from tests.scenes import SCENE


def test_scenes_come_back_as_they_were_written_sorted_by_id(tmp_path: Path) -> None:
    elsewhere = replace(
        SCENE, scene_id="a", hrefs=("/images/a.tif",), scale_low=(0.0,) * 3, scale_high=(3000.0,) * 3, nodata=0.0
    )
    write_scenes(tmp_path, [SCENE, elsewhere])
    assert read_scenes(tmp_path) == [elsewhere, SCENE]


def test_a_file_name_is_looked_for_beside_the_table_and_an_absolute_path_where_it_is(tmp_path: Path) -> None:
    write_scenes(tmp_path, [SCENE, replace(SCENE, scene_id="a", hrefs=("/images/a.tif",))])
    elsewhere, beside = read_scenes(tmp_path)
    assert beside.path == tmp_path / "scene.tif"
    assert elsewhere.path == Path("/images/a.tif")


def test_no_scenes_make_an_explicitly_empty_geoparquet(tmp_path: Path) -> None:
    write_scenes(tmp_path, [])
    assert read_scenes(tmp_path) == []
    assert b"geo" in pq.read_schema(tmp_path / "scenes.parquet").metadata


def test_a_missing_table_is_an_upstream_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UpstreamMissingError, match=r"scenes\.parquet"):
        read_scenes(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("geometry", b"no", "footprint"), ("bands", [1, 2], "3 bands"), ("transform", [], "6 coefficients")],
)
def test_a_broken_row_is_named(tmp_path: Path, key: str, value: object, message: str) -> None:
    write_scenes(tmp_path, [SCENE])
    row = {**pq.read_table(tmp_path / "scenes.parquet").to_pylist()[0], key: value}
    pq.write_table(rows_to_table([row], SCENE_SCHEMA), tmp_path / "scenes.parquet")
    with pytest.raises(CorruptInputError, match=f"scene b .*{message}"):
        read_scenes(tmp_path)


def test_a_region_and_a_source_overlap_unless_their_boxes_are_apart() -> None:
    monaco = BBox(west=7.4, south=43.7, east=7.5, north=43.8)
    finland = BBox(west=19, south=59, east=32, north=71)
    assert not covers(monaco, finland)
    assert covers(monaco, BBox(west=7.45, south=43.0, east=9.0, north=44.0))
    assert covers(monaco, None)
    assert covers(None, finland)


def test_a_time_without_a_zone_is_utc_and_a_date_is_its_midnight() -> None:
    noon = dt.datetime(2020, 5, 1, 12, tzinfo=dt.UTC)
    assert acquisition_time(dt.datetime(2020, 5, 1, 12)) == noon
    assert acquisition_time(dt.datetime(2020, 5, 1, 14, tzinfo=dt.timezone(dt.timedelta(hours=2)))) == noon
    assert acquisition_time(dt.date(2020, 5, 1)) == dt.datetime(2020, 5, 1, tzinfo=dt.UTC)

from pathlib import Path

import pyarrow as pa
import pytest
import shapely

from skyscript_assets.lib.errors import UpstreamMissingError
from skyscript_assets.lib.osm.extract import stage_extract
from skyscript_assets.lib.osm.meaning import is_gone, is_hidden
from skyscript_assets.lib.osm.objects import write_objects
from skyscript_assets.lib.osm.sight import SIGHT_SCHEMA, out_of_sight
from skyscript_assets.lib.settings.base import BBox, Shared
from skyscript_assets.lib.settings.regions import Region
from skyscript_assets.lib.tables import read_table, rows_to_table, write_table

SCHEMA = SIGHT_SCHEMA.append(pa.field("geometry", pa.binary()))


@pytest.mark.parametrize(
    "tags",
    [
        {"parking": "underground", "amenity": "parking"},
        {"layer": "-2", "railway": "rail"},
        {"layer": "-1", "railway": "platform"},
        {"layer": "-1", "highway": "footway", "footway": "sidewalk"},
        {"level": "-2;-1", "railway": "platform"},
        {"layer": "-1", "building": "yes"},
        {"indoor": "room"},
        {"highway": "primary", "tunnel": "yes"},
        {"waterway": "stream", "tunnel": "culvert", "layer": "-1"},
        {"highway": "footway", "covered": "yes"},
        {"highway": "footway", "covered": "arcade"},
        {"location": "underground", "man_made": "pipeline"},
        {"location": "indoor", "power": "substation"},
        {"highway": "proposed", "proposed": "primary"},
        {"railway": "abandoned", "surface": "gravel"},
        {"railway": "razed"},
        {"disused:amenity": "fuel", "name": "Shell"},
        {"was:building": "yes"},
        {"building": "yes", "demolished": "yes"},
    ],
)
def test_what_lies_below_the_ground_or_indoors_or_does_not_stand_is_hidden(tags: dict[str, str]) -> None:
    assert is_hidden(tags)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"layer": "-1", "highway": "primary"},
        {"layer": "-1", "railway": "rail"},
        {"layer": "-1", "leisure": "park"},
        {"layer": "-2", "waterway": "river"},
        {"layer": "-5", "landuse": "residential"},
        {"level": "-1;0", "amenity": "fountain"},
        {"building": "roof", "covered": "yes"},
        {"building": "carport"},
        {"building": "yes", "power": "substation", "location": "indoor"},
        {"highway": "bus_stop", "covered": "yes"},
        {"highway": "cycleway", "railway": "abandoned"},
        {"building": "yes", "disused:amenity": "pub"},
        {"building": "yes", "abandoned": "yes"},
        {"landuse": "construction", "construction": "residential"},
        {"highway": "construction", "construction": "primary"},
        {"tunnel": "no", "highway": "track"},
    ],
)
def test_what_shows_from_above_is_not_hidden(tags: dict[str, str]) -> None:
    assert not is_hidden(tags)


def test_a_lifecycle_prefix_or_value_says_nothing_of_a_picture() -> None:
    for tag in [("abandoned:building", "yes"), ("construction:highway", "primary"), ("railway", "disused")]:
        assert is_gone(*tag)
    for tag in [("highway", "construction"), ("building", "ruins"), ("service", "disused"), ("removal", "yes")]:
        assert not is_gone(*tag)


def write_rows(path: Path, *rows: tuple[str, shapely.Geometry, dict[str, str]]) -> Path:
    table = []
    for object_id, geometry, tags in rows:
        box = dict(zip(("xmin", "ymin", "xmax", "ymax"), shapely.bounds(geometry).tolist(), strict=True))
        table.append({"object_id": object_id, "tags": tags, "bbox": box, "geometry": shapely.to_wkb(geometry)})
    write_table(path, rows_to_table(table, SCHEMA))
    return path


def test_points_inside_a_building_are_out_of_sight_but_not_those_on_its_roof(tmp_path: Path) -> None:
    corner = shapely.Polygon([(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)])
    path = write_rows(
        tmp_path / "objects.parquet",
        ("a1", corner, {"building": "retail"}),
        ("a2", shapely.box(5, 0, 7, 2), {"building": "roof"}),
        ("n3", shapely.Point(0.5, 0.5), {"shop": "clothes"}),
        ("n4", shapely.Point(1.5, 1.5), {"amenity": "bench"}),
        ("n5", shapely.Point(0.5, 1.5), {"man_made": "chimney"}),
        ("n6", shapely.Point(6, 1), {"amenity": "fuel"}),
        ("w7", shapely.LineString([(0.2, 0.2), (0.4, 0.4)]), {"barrier": "fence"}),
        ("n8", shapely.Point(0.5, 0.5), {}),
    )
    assert out_of_sight(path).tolist() == [False, False, True, False, False, False, False, True]


def test_narrow_ways_under_trees_and_roofs_are_out_of_sight(tmp_path: Path) -> None:
    def way(*places: tuple[float, float]) -> shapely.LineString:
        return shapely.LineString(places)

    path = write_rows(
        tmp_path / "objects.parquet",
        ("a1", shapely.box(0, 0, 2, 2), {"natural": "wood"}),
        ("r2", shapely.box(2, 0, 4, 2), {"landuse": "forest"}),
        ("w3", way((0.5, 1), (1.5, 1), (3, 1.5)), {"highway": "path"}),
        ("w4", way((1, 3), (1, 1.9)), {"highway": "path"}),
        ("w5", way((1, 2.1), (1, 1.9), (1, 0.5)), {"waterway": "stream"}),
        ("w6", way((0.5, 1), (1.5, 1)), {"highway": "track"}),
        ("w7", way((5, 1), (6, 1)), {"highway": "footway"}),
        ("a8", shapely.box(5, 0, 7, 2), {"landuse": "meadow"}),
        ("a9", shapely.box(8, 0, 9, 1), {"building": "yes"}),
        ("w10", way((8.1, 0.5), (8.9, 0.5)), {"highway": "steps"}),
    )
    assert out_of_sight(path).tolist() == [False, False, True, False, True, False, False, False, False, True]


def test_no_objects_are_none_out_of_sight(tmp_path: Path) -> None:
    assert out_of_sight(write_rows(tmp_path / "objects.parquet")).tolist() == []
    with pytest.raises(UpstreamMissingError, match="none"):
        out_of_sight(tmp_path / "none.parquet")


def test_what_geneva_has_underground_is_out_of_sight(shared_cases: Path, tmp_path: Path) -> None:
    """Nine objects: car parks below the ground, ways in tunnels and passages."""
    ground = BBox(west=6.098, south=46.194, east=6.16, north=46.229)
    region = Region(title="Geneva", path=str(shared_cases / "90-places" / "underground_geneva.osm"), bbox=ground)
    stage_extract("geneva", region, Shared(folder=tmp_path, zoom=12, geofabrik_mirror="", boxes=()), tmp_path)
    write_objects(tmp_path, tmp_path)
    path = tmp_path / "objects.parquet"
    assert read_table(path).num_rows == 9
    assert out_of_sight(path).all()

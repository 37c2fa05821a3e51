"""What the painter sees in tags: roles, materials, widths, heights, roofs, seasons, the sea."""

import datetime as dt
from collections import Counter

import numpy as np
import pytest
import shapely

from skyscript_assets.demo.painter import kernels as k
from skyscript_assets.demo.painter.fields import Fields, rng_of
from skyscript_assets.demo.painter.ground import (
    add_area,
    add_barrier,
    add_crossings,
    add_rail,
    add_road,
    add_stream,
    road_look,
)
from skyscript_assets.demo.painter.houses import add_building
from skyscript_assets.demo.painter.layers import GROUND, ROOFS, THINGS, Shape, Studio, built
from skyscript_assets.demo.painter.looks import (
    MATERIALS,
    SURFACE_NAMES,
    Look,
    Surface,
    area_material,
    parse_colour,
    season_of,
    srgb_to_linear,
)
from skyscript_assets.demo.painter.objects import MapObject, role_of
from skyscript_assets.demo.painter.props import add_cars, add_thing, add_trees
from skyscript_assets.demo.painter.shapes import frame_of, rectangles, sea_polygons, stations
from skyscript_assets.lib.osm.meaning import layer_of, number
from skyscript_assets.lib.osm.roads import road_class, road_width_m

MARKS = built(0, marks=1)


def studio(urban: float = 0.0, pixel_m: float = 0.3) -> Studio:
    maps = np.full((len(k.MAPS), 400, 400), urban, np.float32)
    return Studio(pixel_m, 0, Fields(maps, -1000.0, 10.0, np.zeros((400, 400), np.intp), None))


def item(geometry: shapely.Geometry, role: str = "area", object_id: str = "a1", **tags: str) -> MapObject:
    return MapObject(object_id, {key.replace("__", ":"): value for key, value in tags.items()}, geometry, role)


def union(shapes: list[Shape]) -> shapely.Geometry:
    return shapely.union_all([shape.polygon for shape in shapes])


def looks(shapes: list[Shape]) -> list[Look]:
    return [shape.look for shape in shapes]


@pytest.mark.parametrize(
    ("object_id", "tags", "role"),
    [
        ("a1", {"building": "yes"}, "building"),
        ("a1", {"building": "no", "landuse": "grass"}, "area"),
        ("a1", {"building:part": "yes"}, "building"),
        ("a1", {"man_made": "storage_tank"}, "building"),
        ("a1", {"amenity": "shelter"}, "building"),
        ("r1", {"natural": "water"}, "area"),
        ("a1", {"landuse": "residential"}, "zone"),
        ("a1", {"barrier": "hedge"}, "barrier"),
        ("a1", {"boundary": "administrative"}, None),
        ("w1", {"highway": "residential"}, "road"),
        ("w1", {"highway": "proposed"}, None),
        ("w1", {"highway": "footway", "tunnel": "yes"}, None),
        ("w1", {"railway": "tram"}, "rail"),
        ("w1", {"railway": "platform"}, "road"),
        ("w1", {"waterway": "stream"}, "stream"),
        ("w1", {"natural": "coastline"}, "coastline"),
        ("w1", {"natural": "tree_row"}, "tree_row"),
        ("w1", {"power": "line"}, None),
        ("w1", {"route": "ferry"}, None),
        ("n1", {"natural": "tree"}, "tree"),
        ("n1", {"highway": "crossing", "crossing": "unmarked"}, None),
        ("n1", {"highway": "crossing"}, "crossing"),
        ("n1", {"highway": "street_lamp"}, "thing"),
        ("n1", {"amenity": "cafe"}, None),
        ("n1", {}, None),
    ],
)
def test_an_object_plays_the_part_its_tags_give_it(object_id: str, tags: dict[str, str], role: str | None) -> None:
    assert role_of(object_id, tags) == role


def test_levels_and_numbers_of_tags_are_bounded() -> None:
    assert layer_of({"bridge": "yes"}) == 1
    assert layer_of({"layer": "99"}) == 5
    assert layer_of({"layer": "ground"}) == 0
    assert number({"height": "12.5 m"}, "height", 0, 100) == 12.5
    assert number({"height": "900"}, "height", 0, 100) is None
    assert number({"height": "tall"}, "height", 0, 100) is None


@pytest.mark.parametrize(
    ("tags", "material"),
    [
        ({"landuse": "forest"}, "wood"),
        ({"natural": "wood", "leaf_type": "broadleaved"}, "broadleaves"),
        ({"leisure": "pitch", "sport": "tennis"}, "clay"),
        ({"leisure": "pitch", "sport": "soccer", "surface": "artificial_turf"}, "artificial"),
        ({"leisure": "track"}, "tartan"),
        ({"amenity": "parking", "surface": "gravel"}, "gravel"),
        ({"highway": "pedestrian", "area": "yes"}, "paving"),
        ({"area:highway": "footway"}, "paving"),
        ({"leisure": "swimming_pool"}, "pool"),
        ({"amenity": "school"}, None),
    ],
)
def test_an_area_is_made_of_what_its_tags_say(tags: dict[str, str], material: str | None) -> None:
    assert area_material(tags) == material


def test_every_surface_has_a_name_and_looks_are_of_known_surfaces() -> None:
    assert SURFACE_NAMES[1] == "building"
    assert set(SURFACE_NAMES) == {int(surface) for surface in Surface}
    made_by_ways = {Surface.BUILDING, Surface.ROAD, Surface.PATH}
    assert {look.surface for look in MATERIALS.values()} == set(Surface) - made_by_ways
    soft = [surface for surface in Surface if k._TREES <= surface <= k._BARE]
    assert soft == [Surface.TREES, Surface.GRASS, Surface.FARMLAND, Surface.SAND, Surface.BARE]
    assert Surface.WATER == k._WATER


def test_colours_are_read_as_osm_writes_them_and_weathered() -> None:
    red, dark = parse_colour("red"), parse_colour("dark_red")
    assert red is not None
    assert dark is not None
    assert red[0] > red[1]
    assert red[0] < 255
    assert dark[0] < red[0]
    assert parse_colour("#b4c9b3") is not None
    assert [parse_colour(text) for text in (None, "", "chartreuse-ish", "9" * 99)] == [None] * 4
    assert srgb_to_linear((0, 255, 188)) == pytest.approx([0, 1, 0.503], abs=0.01)


def test_seasons_follow_the_hemisphere() -> None:
    january = dt.date(2020, 1, 15)
    assert season_of(january, 60.0).leaf < 0.2
    assert season_of(january, -35.0).leaf == 1.0
    assert season_of(january, 5.0).green == 1.0
    assert season_of(dt.date(2020, 10, 6), 60.0).autumn > 0.9
    summer, winter = (season_of(day, 60.0).tint((90, 120, 60), 1.0) for day in (dt.date(2020, 7, 1), january))
    assert winter[0] > summer[0]
    assert season_of(january, 60.0).tint((90, 120, 60), 0.0) == pytest.approx([90, 120, 60])


def material_of(**tags: str) -> tuple[str, Surface | None]:
    name, road = road_class(tags)
    look = road_look(studio(), item(shapely.LineString(), "road", "w1", **tags), name, road.rank)
    return next(name for name, known in MATERIALS.items() if (known.a, known.b) == (look.a, look.b)), look.surface


def test_roads_take_width_and_surface_from_tags_before_their_class() -> None:
    name, road = road_class({"highway": "primary"})
    assert name == "primary"
    assert road_width_m({"width": "12"}, road) == 12
    assert road_width_m({"lanes": "4"}, road) == pytest.approx(13.4)
    assert road_width_m({}, road) == road.width_m
    assert material_of(highway="primary", surface="sett") == ("paving", Surface.ROAD)
    assert material_of(highway="footway", surface="gravel") == ("gravel", Surface.PATH)
    assert material_of(highway="track", tracktype="grade1") == ("asphalt", Surface.ROAD)
    assert material_of(railway="platform") == ("concrete", Surface.PAVED)
    assert road_class({"highway": "nonsense"})[0] == "road"


@pytest.mark.parametrize(("urban", "surface"), [(0.0, Surface.GRASS), (1.0, Surface.PAVED)])
def test_roads_have_verges_in_the_country_and_pavements_in_town(urban: float, surface: Surface) -> None:
    here = studio(urban)
    add_road(here, item(shapely.LineString([(0, 0), (80, 0)]), "road", "w1", highway="secondary"))
    wide = [shape for shape in [*here.shapes[GROUND], *here.shapes[built(0)]] if shape.polygon.bounds[3] > 5.5]
    assert {shape.look.surface for shape in wide} >= {surface}
    assert len(here.shapes[MARKS]) > 5
    assert here.roads[0][1:] == (8.0, 0)


def test_a_bridge_is_raised_and_has_edges_but_no_verge() -> None:
    here = studio()
    add_road(here, item(shapely.LineString([(0, 0), (30, 0)]), "road", "w1", highway="steps", bridge="yes"))
    assert [shape.look.height_m > 5 for shape in here.shapes[built(1)]] == [True, True]
    assert not here.shapes[GROUND]


def test_zebra_stripes_lie_across_the_nearest_road() -> None:
    here = studio()
    here.roads.append((shapely.LineString([(0, 0), (40, 0)]), 6.0, 0))
    add_crossings(here, [shapely.Point(20, 0.4), shapely.Point(20, 50)])
    x0, y0, x1, y1 = union(here.shapes[MARKS]).bounds
    assert x1 - x0 == pytest.approx(3.0)
    assert 4.5 < y1 - y0 < 6.5
    add_crossings(studio(), [shapely.Point(20, 0.4)])
    add_crossings(here, [])


def test_a_railway_has_ballast_and_a_tram_rails_alone() -> None:
    for kind, bodies in (("rail", 1), ("tram", 0)):
        here = studio()
        add_rail(here, item(shapely.LineString([(0, 0), (50, 0)]), "rail", "w1", railway=kind))
        assert len(here.shapes[built(0)]) == bodies
        assert Surface.RAIL in {look.surface for look in looks(here.shapes[MARKS])}
        assert len(here.shapes[MARKS]) == 3


def test_barriers_and_streams_have_the_width_of_their_kind() -> None:
    here, line = studio(), shapely.LineString([(0, 0), (20, 0)])
    add_barrier(here, item(line, "barrier", "w1", barrier="hedge"))
    assert shapely.area(union(here.shapes[THINGS])) == pytest.approx(22.0, rel=0.01)
    assert looks(here.shapes[THINGS])[0].surface == Surface.TREES
    add_stream(here, item(line, "stream", "w3", waterway="river", width="10"))
    assert union(here.shapes[GROUND]).bounds[3] == pytest.approx(5.0)


def test_thin_marks_are_widened_to_a_pixel_and_fade_by_as_much() -> None:
    here = studio(pixel_m=0.5)
    here.stroke(MARKS, [shapely.LineString([(0, 0), (10, 0)])], 0.3, Look((0, 0, 0), (0, 0, 0), opacity=0.8))
    (mark,) = here.shapes[MARKS]
    assert mark.polygon.area == pytest.approx(5.0)
    assert mark.look.opacity * 0.5 == pytest.approx(0.8 * 0.3)


def roof_of(plan: shapely.Geometry, urban: float = 0.0, **tags: str) -> tuple[Shape, np.ndarray]:
    """A building's shape, and its height on a grid of half metres."""
    here = studio(urban)
    add_building(here, item(plan, "building", **tags))
    (shape,) = here.shapes[ROOFS]
    row = np.array([*shape.roof, 0, len(shape.walls)], np.float64)
    places = (np.arange(200) + 0.5) * 0.5
    height = np.zeros((200, 200))
    for r, c in np.argwhere(shapely.contains_xy(plan, *np.meshgrid(places, places))):
        height[r, c] = shape.look.height_m + k.roof_rise(row, shape.walls, places[c], places[r])
    return shape, height


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        ("flat", k.FLAT),
        ("gabled", k.GABLED),
        ("hipped", k.HIPPED),
        ("pyramidal", k.HIPPED),
        ("dome", k.DOME),
        ("round", k.GABLED),
    ],
)
def test_a_tagged_roof_gets_its_shape(shape: str, code: int) -> None:
    found, height = roof_of(
        shapely.box(20, 30, 60, 50), building="yes", roof__shape=shape, height="12", roof__colour="#803020"
    )
    assert found.roof[0] == code
    assert found.look.a[0] > 1.5 * found.look.a[1]
    middle, eaves = height[80, 80], height[60, 80]
    assert height.max() <= 12.5
    if code == k.FLAT:
        assert eaves == middle + 0.5  # the parapet
    else:
        assert middle > eaves + 1
    assert (height[80, 41] < middle - 1) == (code in {k.HIPPED, k.DOME})


def test_the_roof_of_an_irregular_house_follows_its_wings() -> None:
    plan = shapely.union(shapely.box(10, 10, 20, 60), shapely.box(10, 50, 60, 60))
    found, height = roof_of(plan, building="yes", roof__shape="gabled", height="10")
    assert found.roof[0] == k.HIPPED
    assert height[60, 30] > height[60, 21] + 0.5
    assert height[110, 80] > height[101, 80] + 0.5


def test_untagged_buildings_are_higher_in_town_and_furnished() -> None:
    eaves = {}
    for urban in (0.0, 1.0):
        here = studio(urban)
        for n in range(12):
            add_building(here, item(shapely.box(0, 60 * n, 40, 60 * n + 30), "building", f"a{n}", building="yes"))
        eaves[urban] = np.mean([look.height_m for look in looks(here.shapes[ROOFS])])
        assert len(here.shapes[THINGS]) > 10
        assert len({look.a for look in looks(here.shapes[ROOFS])}) > 1
    assert eaves[1.0] > 2 * eaves[0.0]
    assert roof_of(shapely.box(0, 0, 9, 9), man_made="silo")[0].roof[0] == k.FLAT


def test_levels_give_a_height_and_materials_a_colour() -> None:
    plan = shapely.box(0, 0, 30, 30)
    low, high = (
        roof_of(plan, building="yes", building__levels=n, roof__shape="flat", roof__material="copper")[0].look
        for n in ("2", "8")
    )
    assert high.height_m - low.height_m == pytest.approx(6 * 3.1, abs=0.01)
    assert low.a == (142, 172, 156)


def test_trees_have_the_crown_of_their_tags_and_rows_have_many() -> None:
    here = studio()
    add_trees(here, item(shapely.Point(50, 50), "tree", "n1", diameter_crown="10", height="14"))
    assert here.trees[0][:4] == (50, 50, 5, 14)
    add_trees(here, item(shapely.LineString([(10, 80), (90, 80)]), "tree_row", "w2", leaf_type="needleleaved"))
    assert len(here.trees) == 13
    assert all(tree[4] == 1 for tree in here.trees[1:])


def test_fields_have_crops_with_rows_along_them_and_small_areas_lie_on_large_ones() -> None:
    here = studio()
    add_area(here, item(rectangles(50, 50, np.cos(0.5), np.sin(0.5), 40, 20)[0], landuse="farmland"))
    add_area(here, item(shapely.box(45, 45, 55, 55), landuse="grass"))
    field, meadow = here.shapes[GROUND]
    assert field.order < meadow.order
    assert field.look.rows[0] % np.pi == pytest.approx(0.5)
    assert field.look.rows[2] > 0
    crops = set()
    for n in range(20):
        add_area(here, item(shapely.box(0, 0, 9, 9), object_id=f"a{n}", landuse="farmland"))
        crops.add(here.shapes[GROUND][-1].look.a)
    assert len(crops) > 2


def test_parking_grounds_have_bays_and_cars_inside() -> None:
    here, ground = studio(), shapely.box(10, 10, 70, 45)
    add_area(here, item(ground, amenity="parking"))
    assert 15 < here.made["car"] < 130
    assert shapely.area(shapely.difference(union(here.shapes[THINGS]), shapely.buffer(ground, 1))) < 1
    assert len(here.shapes[MARKS]) > here.made["car"]
    tiny = studio()
    add_area(tiny, item(shapely.box(0, 0, 2, 2), amenity="parking"))
    assert tiny.made == Counter()


@pytest.mark.parametrize(
    ("tags", "size"),
    [
        ({"sport": "soccer"}, (105, 68)),
        ({"sport": "tennis"}, (36, 18)),
        ({"sport": "tennis"}, (52, 36)),
        ({"sport": "basketball"}, (28, 15)),
        ({"sport": "beachvolleyball"}, (20, 12)),
        ({"leisure": "track"}, (120, 60)),
    ],
)
def test_lines_of_a_pitch_stay_on_it(tags: dict[str, str], size: tuple[int, int]) -> None:
    here, ground = studio(), shapely.box(0, 0, *size)
    add_area(here, MapObject("a1", {"leisure": "pitch", **tags}, ground, "area"))
    lines = union(here.shapes[MARKS])
    assert shapely.area(lines) > 5
    assert shapely.covers(shapely.buffer(ground, 0.01), lines)


@pytest.mark.parametrize(
    "pair", ["highway=street_lamp", "power=tower", "man_made=silo", "amenity=fountain", "natural=rock"]
)
def test_point_things_are_drawn_where_they_stand(pair: str) -> None:
    here, (key, value) = studio(), pair.split("=")
    assert role_of("n1", {key: value}) == "thing"
    add_thing(here, MapObject("n1", {key: value}, shapely.Point(5, 5), "thing"))
    (shape,) = here.shapes[THINGS]
    assert shape.look.height_m > 0
    assert shapely.contains(shape.polygon, shapely.Point(5, 5))


def test_cars_are_longer_than_wide() -> None:
    here, one = studio(), np.ones(1)
    add_cars(here, rng_of(1), one, one, one, 0 * one)
    frame = frame_of(union(here.shapes[THINGS]))
    assert frame.a > 2 * frame.b
    assert abs(frame.ux) == pytest.approx(1)


def test_frames_lie_along_the_longer_side() -> None:
    frame = frame_of(rectangles(10.0, 20.0, np.cos(0.5), np.sin(0.5), 8.0, 3.0)[0])
    assert (frame.a, frame.b) == pytest.approx((8.0, 3.0))
    assert abs(frame.ux * np.cos(0.5) + frame.uy * np.sin(0.5)) == pytest.approx(1.0)
    assert np.isfinite(frame_of(shapely.Polygon([(0, 0), (5, 0), (0, 0)])).a)


def test_stations_follow_a_line() -> None:
    x, y, ux, uy = stations(shapely.LineString([(0, 0), (10, 0), (10, 10)]), 5.0, 2.5)
    assert list(zip(x, y, strict=True)) == [(2.5, 0), (7.5, 0), (10, 2.5), (10, 7.5)]
    assert (ux[0], uy[0]) == pytest.approx((1, 0))
    assert (ux[3], uy[3]) == pytest.approx((0, 1))


def test_the_sea_lies_to_the_right_of_the_coast() -> None:
    # Local y grows southward: walking east, the right-hand side is south.
    eastward = shapely.LineString([(-10, 50), (40, 60), (110, 50)])
    (sea,) = sea_polygons([eastward], shapely.box(0, 0, 100, 100))
    assert shapely.contains_xy(sea, 50, 90)
    assert not shapely.contains_xy(sea, 50, 10)
    (other,) = sea_polygons([shapely.reverse(eastward)], shapely.box(0, 0, 100, 100))
    assert shapely.contains_xy(other, 50, 10)
    assert sea_polygons([], shapely.box(0, 0, 100, 100)) == []


def test_an_island_is_land_in_the_sea() -> None:
    # With land on the left and y to the south, an island is walked around this way in local metres.
    island = shapely.LinearRing([(40, 40), (40, 60), (60, 60), (60, 40)])
    sea = sea_polygons([shapely.LineString(island.coords)], shapely.box(0, 0, 100, 100))
    assert shapely.area(shapely.union_all(sea)) == pytest.approx(9600)

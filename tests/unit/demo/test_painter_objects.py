"""What the painter sees in tags: roles, materials, widths, heights, roofs, seasons, the sea."""

import datetime as dt

import numpy as np
import pytest
import shapely

from skyscript_assets.demo.painter.coast import sea_polygons
from skyscript_assets.demo.painter.grid import Block
from skyscript_assets.demo.painter.ground import area_material
from skyscript_assets.demo.painter.layers import LayerBuilder, Style, burn
from skyscript_assets.demo.painter.markings import add_graves, add_parking, add_pitch_lines
from skyscript_assets.demo.painter.noise import CoarseField, rng_of
from skyscript_assets.demo.painter.objects import MapObject, role_of
from skyscript_assets.demo.painter.palette import (
    MATERIAL_INDEX,
    MATERIALS,
    SURFACE_NAMES,
    Surface,
    parse_colour,
    season_of,
    srgb_to_linear,
)
from skyscript_assets.demo.painter.props import POINT_THINGS, add_boat, add_thing, add_truck
from skyscript_assets.demo.painter.roofs import Roof, make_buildings, roof_pixels
from skyscript_assets.demo.painter.shapes import frames_of, rectangles, stations
from skyscript_assets.demo.painter.vegetation import Canopy, TreeBuilder, grow, make_crown_tile, plant
from skyscript_assets.demo.painter.ways import add_barrier, add_crossings, add_road, add_stream, road_material
from skyscript_assets.lib.osm.meaning import is_hidden, layer_of, number
from skyscript_assets.lib.osm.roads import road_class, road_width_m

SUMMER = season_of(dt.date(2020, 7, 1), 60.0)
COUNTRY = CoarseField(np.zeros((2, 2), np.float32), 0.0, 0.0, 1000.0)
TOWN = CoarseField(np.ones((2, 2), np.float32), 0.0, 0.0, 1000.0)
EVERYWHERE = (-1000.0, -1000.0, 1000.0, 1000.0)


def item(geometry: shapely.Geometry, role: str = "area", object_id: str = "a1", **tags: str) -> MapObject:
    return MapObject(object_id, {key.replace("__", ":"): value for key, value in tags.items()}, geometry, role)


def block(side: int = 200, pixel_m: float = 0.5) -> Block:
    return Block(0, 0, side, side, (slice(0, side), slice(0, side)), pixel_m)


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
        ("w1", {"power": "line"}, "power_line"),
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


def test_what_lies_below_the_ground_or_indoors_is_hidden() -> None:
    assert is_hidden({"parking": "underground", "amenity": "parking"})
    assert is_hidden({"layer": "-2", "railway": "rail"})
    assert is_hidden({"indoor": "room"})
    assert not is_hidden({"layer": "-1", "highway": "primary"})


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
        ({"highway": "pedestrian", "area": "yes"}, "square"),
        ({"area:highway": "footway"}, "paving"),
        ({"leisure": "swimming_pool"}, "pool"),
        ({"amenity": "school"}, None),
    ],
)
def test_an_area_is_made_of_what_its_tags_say(tags: dict[str, str], material: str | None) -> None:
    found = area_material(tags)
    assert (found[0] if found else None) == material


def test_every_surface_has_a_name_and_every_material_a_surface() -> None:
    assert SURFACE_NAMES[1] == "building"
    assert set(SURFACE_NAMES) == {int(surface) for surface in Surface}
    assert {material.surface for material in MATERIALS} >= set(Surface) - {Surface.BUILDING}
    assert len(MATERIAL_INDEX) == len(MATERIALS)


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


def test_roads_take_width_from_tags_before_their_class() -> None:
    name, road = road_class({"highway": "primary"})
    assert name == "primary"
    assert road_width_m({"width": "12"}, road) == 12
    assert road_width_m({"lanes": "4"}, road) == pytest.approx(13.4)
    assert road_width_m({}, road) == road.width_m
    assert road_material({"surface": "sett"}, road) == "sett"
    assert road_material({"surface": "gravel"}, "footway") == "gravel_path"
    assert road_material({"tracktype": "grade1"}, "track") == "asphalt"
    assert road_class({"highway": "nonsense"})[0] == "road"
    assert road_class({"railway": "platform"})[0] == "platform"


@pytest.mark.parametrize(("around", "material"), [(COUNTRY, "grass"), (TOWN, "square")])
def test_roads_have_verges_in_the_country_and_pavements_in_town(around: CoarseField, material: str) -> None:
    ground, built, marks = LayerBuilder(), LayerBuilder(), LayerBuilder()
    road = item(shapely.LineString([(0, 0), (80, 0)]), "road", "w1", highway="secondary")
    add_road(road, ground, built, marks, around, 1)
    layers = [layer.freeze(EVERYWHERE) for layer in (ground, built, marks)]
    used = {MATERIALS[index].name for layer in layers[:2] for index in layer.material if index >= 0}
    assert used >= {"asphalt", material}
    assert len(layers[2].polygons) > 5


def test_a_bridge_is_raised_and_steps_have_treads() -> None:
    ground, built, marks = LayerBuilder(), LayerBuilder(), LayerBuilder()
    line = shapely.LineString([(0, 0), (30, 0)])
    add_road(item(line, "road", "w1", highway="steps", bridge="yes"), ground, built, marks, COUNTRY, 1)
    assert built.freeze(EVERYWHERE).height_m.max() > 5
    assert len(marks.freeze(EVERYWHERE).polygons) > 20
    assert len(ground.freeze(EVERYWHERE).polygons) == 0


def test_zebra_stripes_lie_across_the_nearest_road() -> None:
    marks = LayerBuilder()
    nodes = [item(shapely.Point(20, 0.4), "crossing", "n1"), item(shapely.Point(20, 50), "crossing", "n2")]
    add_crossings(nodes, [(shapely.LineString([(0, 0), (40, 0)]), 6.0, 0)], marks)
    stripes = shapely.union_all(marks.freeze(EVERYWHERE).polygons)
    x0, y0, x1, y1 = stripes.bounds
    assert x1 - x0 == pytest.approx(3.0)
    assert 4.5 < y1 - y0 < 6.5
    add_crossings(nodes, [], marks)


def test_barriers_and_streams_have_the_width_of_their_kind() -> None:
    things, ground = LayerBuilder(), LayerBuilder()
    line = shapely.LineString([(0, 0), (20, 0)])
    add_barrier(item(line, "barrier", "w1", barrier="hedge"), things)
    add_barrier(item(shapely.box(0, 10, 5, 20), "barrier", "a2", barrier="hedge"), things)
    layer = things.freeze(EVERYWHERE)
    assert sorted(shapely.area(layer.polygons)) == pytest.approx([22.0, 50.0], rel=0.01)
    assert set(layer.surface) == {Surface.TREES}
    (water,) = add_stream(item(line, "stream", "w3", waterway="river", width="10"), ground)
    assert shapely.bounds(water)[3] == pytest.approx(5.0)


def test_later_polygons_cover_earlier_ones_and_holes_stay_open() -> None:
    ring = shapely.Polygon(shapely.box(10, 10, 90, 90).exterior, [shapely.box(30, 30, 50, 50).exterior])
    burnt = burn(np.array([ring, shapely.box(60, 60, 95, 95)], dtype=object), block())
    assert burnt[40, 40] == 1
    assert burnt[80, 80] == 0
    assert burnt[140, 140] == 2
    assert burn(np.array([shapely.Polygon()], dtype=object), block()).max() == 0


def test_thin_marks_are_widened_and_fade_by_as_much() -> None:
    marks = LayerBuilder()
    marks.add(shapely.box(0, 0, 10, 0.3), 0.0, Style(opacity=0.8))
    marks.widen(0.1)
    layer = marks.freeze(EVERYWHERE)
    width = np.diff(shapely.bounds(layer.polygons[0])[[1, 3]])[0]
    assert width == pytest.approx(0.5)
    assert layer.opacity[0] * 0.5 == pytest.approx(0.8 * 0.3, rel=0.03)


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        ("flat", Roof.FLAT),
        ("gabled", Roof.GABLED),
        ("hipped", Roof.HIPPED),
        ("pyramidal", Roof.PYRAMIDAL),
        ("skillion", Roof.SKILLION),
        ("dome", Roof.DOME),
        ("round", Roof.ROUND),
    ],
)
def test_a_tagged_roof_gets_its_shape(shape: str, code: Roof) -> None:
    plan = shapely.box(20, 30, 60, 50)
    house = item(plan, "building", building="yes", roof__shape=shape, height="12", roof__colour="#803020")
    buildings = make_buildings([house], COUNTRY, LayerBuilder(), 0)
    assert buildings.shape[0] == code
    roofs = roof_pixels(buildings, np.array([0]), block())
    height = np.zeros((200, 200), np.float32)
    height.ravel()[roofs.pixels] = roofs.height_m
    middle, eaves = height[80, 80], height[60, 80]
    assert height.max() <= 12.5
    if code == Roof.FLAT:
        assert eaves == middle + 0.5  # the parapet
    elif code == Roof.SKILLION:
        assert abs(height[98, 80] - height[62, 80]) > 1
    else:
        assert middle > eaves + 1
    ends_fall = height[80, 41] < middle - 1
    assert ends_fall == (code in {Roof.HIPPED, Roof.PYRAMIDAL, Roof.DOME})


def test_the_roof_of_an_irregular_house_follows_its_wings() -> None:
    plan = shapely.union(shapely.box(10, 10, 20, 60), shapely.box(10, 50, 60, 60))
    house = item(plan, "building", building="yes", roof__shape="gabled", height="10")
    buildings = make_buildings([house], COUNTRY, LayerBuilder(), 0)
    assert buildings.shape[0] == Roof.WINGS
    roofs = roof_pixels(buildings, np.array([0]), block())
    height = np.zeros((200, 200), np.float32)
    height.ravel()[roofs.pixels] = roofs.height_m
    assert height[60, 30] > height[60, 21] + 0.5
    assert height[110, 80] > height[101, 80] + 0.5


def test_untagged_buildings_are_higher_in_town_and_furnished() -> None:
    plans = [item(shapely.box(0, 60 * n, 40, 60 * n + 30), "building", f"a{n}", building="yes") for n in range(12)]
    things = LayerBuilder()
    town, country = (make_buildings(plans, around, things, 0) for around in (TOWN, COUNTRY))
    assert town.eaves_m.mean() > 2 * country.eaves_m.mean()
    assert len(things.freeze(EVERYWHERE).polygons) > 10
    tank = make_buildings([item(shapely.box(0, 0, 9, 9), "building", man_made="silo")], COUNTRY, things, 0)
    assert tank.shape[0] == Roof.FLAT


def test_levels_give_a_height() -> None:
    plan = shapely.box(0, 0, 30, 30)
    low, high = (
        make_buildings(
            [item(plan, "building", building="yes", building__levels=n, roof__shape="flat")], COUNTRY, LayerBuilder(), 0
        )
        for n in ("2", "8")
    )
    assert high.eaves_m[0] - low.eaves_m[0] == pytest.approx(6 * 3.1, abs=0.01)


def test_crowns_stand_whole_or_not_at_all() -> None:
    tile = make_crown_tile("lone", 0.5, SUMMER, 1)
    here = block()
    chance = np.zeros(here.shape, np.float32)
    chance[:, :100] = 1.0
    canopy = Canopy(np.zeros(here.shape, np.float32), np.zeros((3, *here.shape), np.float32))
    crowns = grow(canopy, tile, chance, here)
    assert crowns > 5
    whole = Canopy(np.zeros(here.shape, np.float32), np.zeros((3, *here.shape), np.float32))
    grow(whole, tile, np.ones(here.shape, np.float32), here)
    assert canopy.height_m[:, 120:].max() == 0
    assert np.array_equal(canopy.height_m[:, :85], whole.height_m[:, :85])
    assert canopy.height_m[:, 100:112].max() > 0  # crowns reach over the border
    assert grow(canopy, tile, np.zeros(here.shape, np.float32), here) == 0


def test_a_mapped_tree_has_the_crown_of_its_tags() -> None:
    trees = TreeBuilder(SUMMER, 0)
    trees.add_object(item(shapely.Point(50, 50), "tree", "n1", diameter_crown="10", height="14"))
    trees.add_object(item(shapely.LineString([(10, 80), (90, 80)]), "tree_row", "w2", leaf_type="needleleaved"))
    here = block()
    canopy = Canopy(np.zeros(here.shape, np.float32), np.zeros((3, *here.shape), np.float32))
    plant(canopy, trees.freeze(), here)
    crown = canopy.height_m[70:130, 70:130]
    assert (crown > 0).sum() * 0.25 == pytest.approx(np.pi * 25, rel=0.3)
    assert crown.max() == pytest.approx(14, rel=0.05)
    assert len(trees.freeze().x) == 13
    TreeBuilder(SUMMER, 0).freeze()


def test_leaves_fall_in_winter() -> None:
    winter = make_crown_tile("broadleaves", 1.0, season_of(dt.date(2020, 1, 15), 60.0), 1)
    summer = make_crown_tile("broadleaves", 1.0, SUMMER, 1)
    assert np.array_equal(winter.height_m, summer.height_m)
    assert (winter.colour[:, 0] / winter.colour[:, 1]).mean() > (summer.colour[:, 0] / summer.colour[:, 1]).mean()


def test_parking_grounds_have_bays_and_cars_inside() -> None:
    ground = shapely.box(10, 10, 70, 45)
    marks, things = LayerBuilder(), LayerBuilder()
    cars = add_parking(item(ground, amenity="parking"), marks, things, 0)
    assert 15 < cars < 130
    bodies = shapely.union_all(things.freeze(EVERYWHERE).polygons)
    assert shapely.area(shapely.difference(bodies, shapely.buffer(ground, 1))) < 1
    assert len(marks.freeze(EVERYWHERE).polygons) > cars
    assert add_parking(item(shapely.box(0, 0, 40, 3), amenity="parking"), marks, things, 0) > 0
    assert add_parking(item(shapely.box(0, 0, 2, 2), amenity="parking"), marks, things, 0) == 0


@pytest.mark.parametrize(
    ("tags", "material", "size"),
    [
        ({"sport": "soccer"}, "turf", (105, 68)),
        ({"sport": "tennis"}, "clay", (36, 18)),
        ({"sport": "tennis"}, "clay", (52, 36)),
        ({"sport": "basketball"}, "hard_court", (28, 15)),
        ({"sport": "beachvolleyball"}, "sand_court", (20, 12)),
        ({"leisure": "track"}, "tartan", (120, 60)),
    ],
)
def test_lines_of_a_pitch_stay_on_it(tags: dict[str, str], material: str, size: tuple[int, int]) -> None:
    marks, things = LayerBuilder(), LayerBuilder()
    ground = shapely.box(0, 0, *size)
    add_pitch_lines(MapObject("a1", tags, ground, "area"), material, marks, things)
    lines = shapely.union_all(marks.freeze(EVERYWHERE).polygons)
    assert shapely.area(lines) > 5
    assert shapely.covers(shapely.buffer(ground, 0.01), lines)


def test_a_gravel_pitch_has_no_lines_and_a_cemetery_has_graves() -> None:
    marks = LayerBuilder()
    add_pitch_lines(item(shapely.box(0, 0, 30, 20), sport="boules"), "gravel_court", marks, LayerBuilder())
    assert len(marks.freeze(EVERYWHERE).polygons) == 0
    add_graves(item(shapely.box(0, 0, 40, 40), landuse="cemetery"), marks, 0)
    assert len(marks.freeze(EVERYWHERE).polygons) > 40


@pytest.mark.parametrize("pair", sorted(POINT_THINGS, key=str))
def test_every_point_thing_can_be_drawn(pair: tuple[str, str]) -> None:
    things = LayerBuilder()
    add_thing(MapObject("n1", {pair[0]: pair[1]}, shapely.Point(5, 5), "thing"), things)
    layer = things.freeze(EVERYWHERE)
    assert layer.height_m.max() > 0
    assert shapely.distance(shapely.union_all(layer.polygons), shapely.Point(5, 5)) < 1


def test_boats_and_lorries_are_longer_than_wide() -> None:
    for draw in (
        lambda things: add_boat(things, rng_of(1), 0.0, 0.0),
        lambda things: add_truck(things, rng_of(1), 0.0, 0.0, 1.0, 0.0),
    ):
        things = LayerBuilder()
        draw(things)
        frame = frames_of(np.array([shapely.union_all(things.freeze(EVERYWHERE).polygons)], dtype=object))
        assert frame.a[0] > 1.5 * frame.b[0]


def test_frames_lie_along_the_longer_side() -> None:
    turned = rectangles(10.0, 20.0, np.cos(0.5), np.sin(0.5), 8.0, 3.0)
    frame = frames_of(turned)
    assert (frame.a[0], frame.b[0]) == pytest.approx((8.0, 3.0))
    assert abs(frame.ux[0] * np.cos(0.5) + frame.uy[0] * np.sin(0.5)) == pytest.approx(1.0)
    thin = frames_of(np.array([shapely.Polygon([(0, 0), (5, 0), (0, 0)])], dtype=object))
    assert np.isfinite(thin.a[0])


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
    wider = shapely.union_all(sea_polygons([eastward], shapely.box(0, 0, 100, 100), 30.0))
    assert shapely.contains_xy(wider, 50, 120)
    assert not shapely.contains_xy(wider, 50, -10)
    assert sea_polygons([], shapely.box(0, 0, 100, 100)) == []


def test_an_island_is_land_in_the_sea() -> None:
    # With land on the left and y to the south, an island is walked around this way in local metres.
    island = shapely.LinearRing([(40, 40), (40, 60), (60, 60), (60, 40)])
    sea = sea_polygons([shapely.LineString(island.coords)], shapely.box(0, 0, 100, 100))
    assert shapely.area(shapely.union_all(sea)) == pytest.approx(9600)

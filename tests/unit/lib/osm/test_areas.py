import numpy as np
import pyarrow as pa
import pytest

from skyscript_assets.lib.osm.areas import AREA_ONLY, AREA_UNLESS, closed_way_kinds
from skyscript_assets.lib.osm.pbf.blocks import Tags


def closed_way_kind(tags: dict[str, str]) -> str:
    """What a closed way with these tags is, among others with other tags."""
    ways = [{"building": "yes"}, tags, {"highway": "residential"}]
    texts = [text for way in ways for pair in way.items() for text in pair]
    offsets = np.cumsum([0, *map(len, ways)])
    places = np.arange(offsets[-1]) * 2
    area, line = closed_way_kinds(Tags(offsets, places, places + 1, pa.array(texts, pa.string())))
    return {(True, False): "area", (False, True): "line", (True, True): "both"}[bool(area[1]), bool(line[1])]


def test_a_roundabout_stays_a_line() -> None:
    assert closed_way_kind({"highway": "residential", "junction": "roundabout"}) == "line"


def test_a_building_is_an_area() -> None:
    assert closed_way_kind({"building": "yes", "addr:street": "Aleksanterinkatu"}) == "area"


@pytest.mark.parametrize(
    "tags",
    [
        {"barrier": "fence"},
        {"barrier": "hedge"},
        {"railway": "rail"},
        {"waterway": "canal"},
        {"highway": "pedestrian"},
        {"natural": "coastline"},
        {"man_made": "pipeline"},
        {"power": "line"},
        {"aeroway": "taxiway"},
        {"leisure": "track"},
        {"route": "ferry"},
    ],
)
def test_what_runs_along_stays_a_line(tags: dict[str, str]) -> None:
    assert closed_way_kind(tags) == "line"


@pytest.mark.parametrize(
    "tags",
    [
        {"natural": "water"},
        {"landuse": "forest"},
        {"railway": "station"},
        {"waterway": "riverbank"},
        {"highway": "rest_area"},
        {"power": "substation"},
        {"leisure": "pitch"},
        {"amenity": "parking"},
    ],
)
def test_what_covers_ground_is_an_area(tags: dict[str, str]) -> None:
    assert closed_way_kind(tags) == "area"


def test_a_fenced_pitch_is_both() -> None:
    assert closed_way_kind({"leisure": "pitch", "barrier": "fence"}) == "both"


def test_area_yes_wins_over_every_key() -> None:
    assert closed_way_kind({"area": "yes", "highway": "pedestrian", "barrier": "wall"}) == "area"


def test_area_no_makes_a_line_of_anything() -> None:
    assert closed_way_kind({"area": "no", "leisure": "pitch"}) == "line"


def test_a_value_no_has_no_say() -> None:
    assert closed_way_kind({"building": "no", "barrier": "wall"}) == "line"
    assert closed_way_kind({"landuse": "grass", "barrier": "no"}) == "area"


def test_a_way_without_a_telling_key_is_a_line() -> None:
    assert closed_way_kind({"name": "Ring", "surface": "asphalt"}) == "line"
    assert closed_way_kind({}) == "line"


def test_no_key_has_two_rules() -> None:
    assert not set(AREA_UNLESS) & set(AREA_ONLY)

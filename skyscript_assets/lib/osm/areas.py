"""When a closed way is an area, a line, or both; and which relations are areas.

OpenStreetMap has no area type: a closed way means what its tags say. The rules here are those of the community's
polygon-feature list (wiki page "Overpass turbo/Polygon Features", used by osmtogeojson and OSMnx), with three
differences: walls, hedges and ditches stay lines, as the wiki asks for `area=yes` where their area is meant; some keys
that editors treat as areas (wiki page "Area", iD's area keys) are added; and a way that has tags of both sorts, such as
a fenced pitch, becomes both a line and an area, as `osmium export` does with `linear_tags` and `area_tags`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

ClosedWayKind = Literal["line", "area", "both"]

RELATION_AREA_TYPES = frozenset({"multipolygon", "boundary"})
"""Values of `type` of the relations that are areas."""

AREA_UNLESS: dict[str, frozenset[str]] = {
    "aeroway": frozenset({"holding_position", "jet_bridge", "parking_position", "runway", "taxiway"}),
    "allotments": frozenset(),
    "amenity": frozenset({"bench"}),
    "area:highway": frozenset(),
    "attraction": frozenset({"roller_coaster", "summer_toboggan", "train", "water_slide"}),
    "boundary": frozenset(),
    "building": frozenset(),
    "building:part": frozenset(),
    "cemetery": frozenset(),
    "club": frozenset(),
    "craft": frozenset(),
    "emergency": frozenset(),
    "golf": frozenset({"cartpath", "hole", "path"}),
    "healthcare": frozenset(),
    "historic": frozenset({"citywalls"}),
    "junction": frozenset({"circular", "jughandle", "roundabout"}),
    "landcover": frozenset(),
    "landuse": frozenset(),
    "leisure": frozenset({"slipway", "track"}),
    "man_made": frozenset({"cutline", "dyke", "embankment", "goods_conveyor", "pipeline"}),
    "military": frozenset({"trench"}),
    "natural": frozenset({"arete", "cliff", "coastline", "earth_bank", "gully", "ridge", "tree_row", "valley"}),
    "office": frozenset(),
    "place": frozenset(),
    "playground": frozenset({"balancebeam", "zipwire"}),
    "public_transport": frozenset(),
    "ruins": frozenset(),
    "shop": frozenset(),
    "telecom": frozenset({"line"}),
    "tourism": frozenset(),
}
"""Keys whose closed ways are areas, but for these values, which are lines."""

AREA_ONLY: dict[str, frozenset[str]] = {
    "aerialway": frozenset({"station"}),
    "barrier": frozenset(),
    "highway": frozenset({"bus_stop", "elevator", "escape", "platform", "rest_area", "services"}),
    "indoor": frozenset({"area", "corridor", "level", "room"}),
    "power": frozenset({"compensator", "converter", "generator", "plant", "substation", "switchgear", "transformer"}),
    "railway": frozenset(
        {"depot", "halt", "platform", "roundhouse", "signal_box", "station", "traverser", "turntable", "wash"}
    ),
    "route": frozenset(),
    "waterway": frozenset({"boatyard", "dam", "dock", "fuel", "riverbank"}),
}
"""Keys whose closed ways are lines, but for these values, which are areas."""


def closed_way_kind(tags: Mapping[str, str]) -> ClosedWayKind:
    """What a closed way with these tags is.

    `area=yes` makes it an area and `area=no` a line, whatever else it says. Otherwise each tag with a key of
    `AREA_UNLESS` or `AREA_ONLY` has its say; tags of both sorts make it both. Without such a tag it is a line.
    """
    said = tags.get("area")
    if said == "yes":
        return "area"
    if said == "no":
        return "line"
    area = line = False
    for key, value in tags.items():
        if key in AREA_UNLESS:
            is_area = value not in AREA_UNLESS[key]
        elif key in AREA_ONLY:
            is_area = value in AREA_ONLY[key]
        else:
            continue
        if value != "no":
            area |= is_area
            line |= not is_area
    if area:
        return "both" if line else "area"
    return "line"

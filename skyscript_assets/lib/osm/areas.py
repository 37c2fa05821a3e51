"""When a closed way is an area, a line, or both; and which relations are areas.

OpenStreetMap has no area type: a closed way means what its tags say. The rules here are those of the community's
polygon-feature list (wiki page "Overpass turbo/Polygon Features", used by osmtogeojson and OSMnx), with three
differences: walls, hedges and ditches stay lines, as the wiki asks for `area=yes` where their area is meant; some keys
that editors treat as areas (wiki page "Area", iD's area keys) are added; and a way that has tags of both sorts, such as
a fenced pitch, becomes both a line and an area, as `osmium export` does with `linear_tags` and `area_tags`.

The rules are told once, as the two tables below. `closed_way_kind` reads them for one way, `closed_way_kinds` for the
many of a block, and `osmium_export_config` writes them down for osmium.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skyscript_assets.lib.osm.pbf.blocks import Tags

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


_AREA, _LINE, _YES, _NO = 1, 2, 4, 8
"""What a tag says of a closed way, as bits that are gathered over its tags."""

_KEYS = pa.array([*AREA_UNLESS, *AREA_ONLY, "area"], pa.string())
_VALUES = pa.array(sorted({"yes", "no"}.union(*AREA_UNLESS.values(), *AREA_ONLY.values())), pa.string())


def _verdicts() -> NDArray[np.uint8]:
    """What each key says with each value: [keys + 1, values + 1], the last of either for all others."""
    values = [*_VALUES.to_pylist(), None]
    said = np.zeros((len(_KEYS) + 1, len(values)), np.uint8)
    for row, key in enumerate(_KEYS.to_pylist()):
        for column, value in enumerate(values):
            if key == "area":
                said[row, column] = {"yes": _YES, "no": _NO}.get(value or "", 0)
            elif value != "no":
                is_area = value in AREA_ONLY[key] if key in AREA_ONLY else value not in AREA_UNLESS[key]
                said[row, column] = _AREA if is_area else _LINE
    return said


_VERDICTS = _verdicts()


def closed_way_kinds(tags: Tags) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of many closed ways are areas, and which are lines: `closed_way_kind` for [n] ways at once."""
    key, value = (
        pc.fill_null(pc.index_in(tags.strings, value_set=known), len(known)).to_numpy() for known in (_KEYS, _VALUES)
    )
    said = np.append(_VERDICTS[key[tags.keys], value[tags.values]], np.uint8(0))
    some = tags.offsets[1:] > tags.offsets[:-1]
    bits = np.zeros(len(some), np.uint8)
    bits[some] = np.bitwise_or.reduceat(said, tags.offsets[:-1][some])
    area = ((bits & _YES) != 0) | ((bits & (_AREA | _NO)) == _AREA)
    line = ~area | ((bits & (_LINE | _YES)) == _LINE)
    return area, line


def osmium_export_config() -> dict[str, Any]:
    """These rules as the configuration of `osmium export` (its manual, "CONFIG FILE" and "AREA HANDLING").

    One thing cannot be said there: that a closed way of which no tag says anything is a line. With `linear_tags` set to
    null, osmium makes lines of just those and of what is a line alone; the lists add what is both.
    """
    linear = [f"{key}={','.join(sorted(lines))}" for key, lines in AREA_UNLESS.items() if lines]
    linear += [f"{key}!={','.join(sorted({*areas, 'no'}))}" for key, areas in AREA_ONLY.items()]
    area = [f"{key}!={','.join(sorted({*lines, 'no'}))}" for key, lines in AREA_UNLESS.items()]
    area += [f"{key}={','.join(sorted(areas))}" for key, areas in AREA_ONLY.items() if areas]
    return {"attributes": {"type": True, "id": True}, "linear_tags": linear, "area_tags": area}

"""What tags say of how an object lies: hidden or in sight, on which layer, with which measures, what cannot be told."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

Tags = Mapping[str, str]

_THINGS = """
    power man_made aeroway railway waterway highway building building:part bridge barrier natural landuse leisure
    amenity tourism historic military shop office craft public_transport aerialway golf emergency place
"""
MAIN_KEYS = frozenset(_THINGS.split())
"""Keys that name a thing; all others say something of it."""

_OTHERS = "area:highway ford healthcare industrial landcover piste:type playground seamark:type traffic_calming"
THING_KEYS = MAIN_KEYS.union(_OTHERS.split())
"""The same, and those that name one where no main key does."""

OPEN_BUILDINGS = frozenset({"no", "roof", "carport", "ruins", "grandstand", "stadium"})
"""Values of `building` within whose outline things may be in the open."""


class Untold(NamedTuple):
    """Tags that no picture tells on some objects, though it does on others.

    `tags`, a regular expression, is found where `key=value` begins. The objects have the key `key`, if any, and
    in its value the expression `value` is found; the first letter of their ids is among `kinds` (node, line of a way,
    area of a way, of a relation), and the longer side of their boxes is below `below_m`, metres.
    """

    tags: str
    key: str = ""
    value: str = ""
    kinds: str = "nwar"
    below_m: float = math.inf


_USES = (
    "amenity=(?!(shelter|greenhouse)$)|leisure=(?!stadium$)|tourism=(?!artwork$)|landuse=(?!greenhouse_horticulture$)"
    "|(shop|office|craft|club|healthcare|sport|industrial|substation|recycling_type|outdoor_seating|drive_through)="
    "|man_made=(works|wastewater_plant)$|power=(?!generator$)"
)
_WHOLE = "building(:part)?=(?!(ruins|collapsed)$)"

UNTOLD: tuple[Untold, ...] = (
    # What a building is used for, and what is under its roof: its form alone is seen.
    Untold(_USES, "building", f"^(?!({'|'.join(sorted(OPEN_BUILDINGS))})$)"),
    Untold("amenity=parking$|parking=(surface|street_side)", "building", "^(roof|carport)$"),
    # Where a vehicle stops is a point on its way; a platform or a transformer that is a point is a pole at most.
    Untold("", "public_transport", "^stop_position$"),
    Untold("(public_transport|highway|railway)=platform$|power=transformer$", kinds="n"),
    # A point tells nothing of what covers ground, nor where it does.
    Untold("amenity=(school|hospital|college|university|kindergarten|monastery|prison)$|healthcare=|place=", kinds="n"),
    Untold("(landuse|tourism)=(?!artwork$)|highway=motorway_junction$|leisure=(marina|park|sports_centre)$", kinds="n"),
    Untold("(shop|office|industrial)=|amenity=(parking|fuel|bus_station)$|parking=", kinds="n"),
    Untold("(highway|footway)=crossing$|crossing=", "crossing", "^unmarked$"),
    # Walls without a roof are no church any more.
    Untold(_WHOLE, "historic", "^ruins$"),
    Untold(_WHOLE, "ruins", "^(?!no$)"),
    # Sand for horses, tartan for runners: no road.
    Untold("highway=", "sport", "(horse|dog|camel)_racing"),
    Untold("highway=", "leisure", "^track$"),
    Untold("leisure=track$", "sport", "(long_jump|shot_put|javelin|discus)"),
    # Over rock and scree there is no trodden line.
    Untold("highway=(path|footway)", "sac_scale", "alpine_hiking$"),
    Untold("highway=(path|footway)", "trail_visibility", "^(bad|horrible|no)$"),
    # A slope is an area; a line of it is a way down, over whatever is there in summer.
    Untold("piste:type=|sport=skiing|leisure=track", "piste:type", kinds="w"),
    # A table, and a door.
    Untold("leisure=pitch$", "sport", "^(table_tennis|chess|billiards)$"),
    Untold("building=", "building", "^entrance$"),
    # Cabinets.
    Untold("power=(sub_?station|station)$", below_m=10.0),
)

_NOT_THERE = frozenset({"proposed", "planned", "razed", "demolished", "removed", "destroyed", "dismantled"})
GONE = _NOT_THERE | {"abandoned", "disused"}
LIFE_STAGES = GONE | {"was", "construction"}
"""Values of main keys, and prefixes (wiki: Lifecycle prefix), of what does not stand there, or no longer as such."""

_GROUND_LEISURE = frozenset({"park", "garden", "golf_course", "nature_reserve", "pitch", "playground", "swimming_pool"})
_FOOTWAYS = frozenset({"footway", "path", "steps", "pedestrian", "corridor", "platform", "elevator"})
_RAILS = frozenset({"rail", "light_rail", "tram", "subway", "narrow_gauge", "monorail", "funicular", "preserved"})

_NUMBER = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)")


def number(tags: Tags, key: str, least: float, most: float) -> float | None:
    """A number of a tag within limits, its unit (metres) dropped; None where there is none."""
    match = _NUMBER.match(tags.get(key, "")[:24])
    if match is None:
        return None
    value = float(match.group(1))
    return value if least <= value <= most else None


def is_yes(tags: Tags, key: str) -> bool:
    """Whether a key is present and not denied."""
    return tags.get(key, "no") not in {"no", "none", "false", "0"}


def layer_of(tags: Tags) -> int:
    """OSM's `layer`, bounded to -5..5; a bridge without it is on layer 1."""
    try:
        layer = int(tags.get("layer", "0"))
    except ValueError:
        layer = 0
    if is_yes(tags, "bridge") or tags.get("man_made") == "bridge":
        layer = max(1, layer)
    return max(-5, min(5, layer))


def is_gone(key: str, value: str) -> bool:
    """Whether a tag says what is planned or was there once: by a prefix, or as the value of a main key.

    Such a tag says nothing of a picture. `construction` as a value is no such thing: a site shows.
    """
    first, colon, _ = key.partition(":")
    return first in LIFE_STAGES if colon else key in LIFE_STAGES or (key in MAIN_KEYS and value in GONE)


def is_hidden(tags: Tags) -> bool:
    """Whether an object lies under the ground, below a roof or inside a building, or does not stand there.

    A living main tag outweighs what is gone: a cycle path on an abandoned railway, a house with a pub that closed.
    """
    if is_yes(tags, "tunnel") or is_yes(tags, "indoor") or tags.get("location") in {"underground", "underwater"}:
        return True
    if tags.get("location") in {"indoor", "inside"} and "building" not in tags:
        return True
    if tags.get("parking") == "underground" or (tags.get("parking") == "multi-storey" and "building" not in tags):
        return True
    if _is_covered(tags) or _is_below(tags) or any(is_yes(tags, key) for key in _NOT_THERE):
        return True
    gone = any(is_gone(key, value) for key, value in tags.items())
    return gone and not any(key in MAIN_KEYS and value not in GONE for key, value in tags.items())


def _is_covered(tags: Tags) -> bool:
    """Below a roof, unless the object is the roof: buildings, and the shelters that `covered` tells of at stops."""
    if tags.get("covered", "no") in {"no", "partial"} or "building" in tags:
        return False
    return tags.get("highway") != "bus_stop" and "shelter" not in tags.values()


def _is_below(tags: Tags) -> bool:
    """On levels or a layer below the ground; one layer down roads and rails may lie in a cutting, footways do not.

    Where mappers put ground (a park, a river) below its bridges and buildings, it is the ground all the same.
    """
    levels = re.findall(r"-?\d+", tags.get("level", "")[:40].replace("--", "-"))
    if levels and all(int(number) < 0 for number in levels):
        return True
    layer = layer_of(tags)
    if layer >= 0 or any(key in tags for key in ("natural", "landuse", "waterway", "place", "boundary")):
        return False
    if tags.get("leisure") in _GROUND_LEISURE:
        return False
    in_cutting = tags.get("highway", "footway") not in _FOOTWAYS or tags.get("railway") in _RAILS
    return layer < -1 or not in_cutting

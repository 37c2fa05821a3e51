"""Roads by class: how wide they are and how important, from their tags."""

from __future__ import annotations

from typing import NamedTuple

from skyscript_assets.lib.osm.meaning import Tags, number


class RoadClass(NamedTuple):
    """How a class of road is built: width in metres, and rank: from 20 driven on, from 29 with hard shoulders."""

    width_m: float
    rank: int


ROAD_CLASSES: dict[str, RoadClass] = {
    "motorway": RoadClass(10.5, 30),
    "trunk": RoadClass(10.0, 29),
    "primary": RoadClass(9.5, 28),
    "secondary": RoadClass(8.0, 27),
    "tertiary": RoadClass(7.2, 26),
    "motorway_link": RoadClass(6.0, 25),
    "trunk_link": RoadClass(6.0, 25),
    "primary_link": RoadClass(5.5, 25),
    "secondary_link": RoadClass(5.5, 25),
    "tertiary_link": RoadClass(5.5, 25),
    "unclassified": RoadClass(6.2, 24),
    "residential": RoadClass(5.8, 23),
    "living_street": RoadClass(5.0, 22),
    "road": RoadClass(5.0, 22),
    "busway": RoadClass(6.0, 24),
    "raceway": RoadClass(9.0, 24),
    "turning_circle": RoadClass(9.0, 23),
    "service": RoadClass(3.8, 20),
    "track": RoadClass(2.8, 12),
    "pedestrian": RoadClass(6.0, 15),
    "cycleway": RoadClass(2.6, 14),
    "footway": RoadClass(2.0, 13),
    "bridleway": RoadClass(1.8, 11),
    "path": RoadClass(1.4, 11),
    "steps": RoadClass(2.4, 16),
    "platform": RoadClass(3.0, 17),
    "pier": RoadClass(2.4, 18),
    "breakwater": RoadClass(5.0, 18),
    "groyne": RoadClass(3.0, 18),
}
"""Classes of `highway`, and what is built like a road: platforms, piers, breakwaters, groynes."""


def road_class(tags: Tags) -> tuple[str, RoadClass]:
    """The class of a road, path, platform or pier by its tags."""
    name = tags.get("highway") or tags.get("man_made") or tags.get("railway") or "road"
    if name not in ROAD_CLASSES:
        name = "platform" if "platform" in (tags.get("railway"), tags.get("public_transport")) else "road"
    return name, ROAD_CLASSES[name]


def road_width_m(tags: Tags, road: RoadClass) -> float:
    """Width by tag, by lanes, else by class."""
    width = number(tags, "width", 0.8, 40.0)
    if width is not None:
        return width
    lanes = number(tags, "lanes", 1, 10)
    if lanes is not None and road.rank >= 20:
        return max(3.4, 3.2 * lanes + (2.5 if road.rank >= 29 else 0.6))
    return road.width_m

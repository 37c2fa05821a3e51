"""Roads by class: how wide they are and how important, from their tags."""

from skyscript_assets.lib.osm.meaning import MEANING, RoadClass, Tags, number


def road_class(tags: Tags) -> tuple[str, RoadClass]:
    """The class of a road, path, platform or pier by its tags."""
    name = tags.get("highway") or tags.get("man_made") or tags.get("railway") or "road"
    if name not in MEANING.roads:
        name = "platform" if "platform" in (tags.get("railway"), tags.get("public_transport")) else "road"
    return name, MEANING.roads[name]


def road_width_m(tags: Tags, road: RoadClass) -> float:
    """Width by tag, by lanes, else by class."""
    width = number(tags, "width", 0.8, 40.0)
    if width is not None:
        return width
    lanes = number(tags, "lanes", 1, 10)
    if lanes is not None and road.rank >= 20:
        return max(3.4, 3.2 * lanes + (2.5 if road.rank >= 29 else 0.6))
    return road.width_m

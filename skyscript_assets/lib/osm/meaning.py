"""What tags say of how an object lies: hidden or in sight, on which layer, with which measures, what cannot be told."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from skyscript_assets.lib.settings.base import Model, read_yaml
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES

Tags = Mapping[str, str]


class Untold(Model):
    """A rule of `untold`: the tags that it silences, and the objects on which it does."""

    tags: str
    key: str = ""
    value: str = ""
    kinds: str = "nwar"
    below_m: float = math.inf


class Need(Model):
    """A rule of `needs`."""

    attributes: str
    things: tuple[str, ...]


class RoadClass(NamedTuple):
    """How a class of road is built: width in metres, and rank: from 20 driven on, from 29 with hard shoulders."""

    width_m: float
    rank: int


class Meaning(Model):
    """`settings/tag_meaning.yaml`, where each list is told of.

    It is read here, by `sight`, by `areas` and `roads`, by `registration.outlines` (`motor_roads`, `without_edges`), by
    `chips.sampling` (`needs`, `untold`), by `captions.surroundings` (`textures`, `shores`) and by `captions.facts`
    (`on_ground`, `at_grade`, `overhead`).
    """

    main_keys: frozenset[str]
    other_keys: frozenset[str]
    needs: tuple[Need, ...]
    open_buildings: frozenset[str]
    untold: tuple[Untold, ...]
    not_there: frozenset[str]
    no_longer: frozenset[str]
    other_stages: frozenset[str]
    ground_leisure: frozenset[str]
    footways: frozenset[str]
    rails: frozenset[str]
    out_of_doors: frozenset[str]
    woods: frozenset[str]
    narrow: frozenset[str]
    textures: dict[str, frozenset[str]]
    shores: dict[str, frozenset[str]]
    on_ground: frozenset[str]
    at_grade: frozenset[str]
    overhead: frozenset[str]
    area_unless: dict[str, frozenset[str]]
    area_only: dict[str, frozenset[str]]
    roads: dict[str, RoadClass]
    motor_roads: frozenset[str]
    without_edges: frozenset[str]


MEANING = read_yaml(PACKAGED_PROFILES / "tag_meaning.yaml", Meaning)
GONE = MEANING.not_there | MEANING.no_longer
LIFE_STAGES = GONE | MEANING.other_stages
"""Prefixes of keys of what does not stand there, or no longer as such; of values of main keys those of `GONE` alone."""

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
    return first in LIFE_STAGES if colon else key in LIFE_STAGES or (key in MEANING.main_keys and value in GONE)


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
    if _is_covered(tags) or _is_below(tags) or any(is_yes(tags, key) for key in MEANING.not_there):
        return True
    gone = any(is_gone(key, value) for key, value in tags.items())
    return gone and not any(key in MEANING.main_keys and value not in GONE for key, value in tags.items())


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
    if tags.get("leisure") in MEANING.ground_leisure:
        return False
    in_cutting = tags.get("highway", "footway") not in MEANING.footways or tags.get("railway") in MEANING.rails
    return layer < -1 or not in_cutting

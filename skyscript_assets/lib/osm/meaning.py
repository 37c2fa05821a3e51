"""What tags say of how an object lies: hidden or in sight, on which layer, with which measures."""

from __future__ import annotations

import re
from collections.abc import Mapping

Tags = Mapping[str, str]

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


def is_hidden(tags: Tags) -> bool:
    """Whether an object lies under the ground, inside a building, or no longer exists."""
    if is_yes(tags, "tunnel") or is_yes(tags, "indoor") or tags.get("location") in {"underground", "indoor"}:
        return True
    if tags.get("parking") in {"underground", "multi-storey"} and "building" not in tags:
        return True
    return layer_of(tags) < -1 or (layer_of(tags) < 0 and "highway" not in tags and "railway" not in tags)

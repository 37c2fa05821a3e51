"""One spelling for each value: lists are taken apart, numbers and their units written in one way, case is folded.

OSM lists several values of one key with semicolons (wiki: "Semi-colon value separator"): a pitch that is
`sport=tennis;basketball` carries two tags as far as counting, sampling and captions are concerned. Which of the values
may be used at all is the business of `skyscript_assets.lib.tags.text`.
"""

from __future__ import annotations

import re
from functools import lru_cache

from skyscript_assets.lib.tags.text import clean_value

MAX_LIST = 16
"""Most values taken from one list; OSM's 255 characters hold no sensible list of more."""

_QUANTITY = re.compile(r"([-+]?)0*(\d+)(?:[.,](\d+))?\s*([A-Za-z°%'\"/²³]{0,8})")


@lru_cache(maxsize=262_144)
def normal_values(value: str) -> tuple[str, ...]:
    """The values that a tag's value lists, each in its normal spelling, each once, in their order.

    `Asphalt` becomes `asphalt`; `tennis; basketball` two values; `19,90MW` becomes `19.9 MW`; `03` becomes `3`. Control
    and zero-width characters go, as everywhere.

    Args:
        value: A tag's value as it stands in OpenStreetMap.

    Returns:
        At most `MAX_LIST` values; none where nothing readable is left.
    """
    parts = (_normal(part) for part in clean_value(value, 255).split(";"))
    return tuple(dict.fromkeys(part for part in parts if part))[:MAX_LIST]


def _normal(value: str) -> str:
    value = value.strip()
    quantity = _QUANTITY.fullmatch(value)
    if quantity is None:
        # `Asphalt` is a slip of the hand, `FI:331` a code and `D` a class of its own.
        return value.lower() if value.isascii() and value[1:].islower() else value
    sign, whole, decimals, unit = quantity.groups()
    decimals = (decimals or "").rstrip("0")
    number = f"{sign.replace('+', '')}{whole}{'.' if decimals else ''}{decimals}"
    return f"{number} {unit}" if unit else number

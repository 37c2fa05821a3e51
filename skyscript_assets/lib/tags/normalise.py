"""One spelling for each value: lists are taken apart, numbers and their units written in one way, slips of case folded.

OSM lists several values of one key with semicolons (wiki: "Semi-colon value separator"): a pitch that is
`sport=tennis;basketball` carries two tags as far as counting, sampling and captions are concerned. Which of the values
may be used at all is the business of `skyscript_assets.lib.tags.text`.
"""

import re
from functools import lru_cache

from skyscript_assets.lib.tags.text import clean_value

MAX_LIST = 16
"""Most values taken from one list; OSM's 255 characters hold no sensible list of more."""

MAX_LENGTH = 255
"""Longest value looked at, characters: OSM's limit."""

NORMAL_ALREADY = (
    r"^(?:[a-z_][!-:<-~]*(?: [!-:<-~]+)*"
    r"|[A-Z](?:[!-:<-~]*(?: [!-:<-~]+)+|[!-:<-~]*[A-Z][!-:<-~]*)"
    r"|0|[1-9][0-9]{0,15}|[0-9]+[-/:][0-9][0-9:/-]*)$"
)
"""Most values of up to `MAX_LENGTH` bytes that are their own normal spelling, as a regular expression of RE2.

Words that begin in lower case, names of several words or capitals, whole numbers, dates: a table of tags has Python
look at the others alone."""

_QUANTITY = re.compile(r"([-+]?)(\d{0,20})(?:([.,])(\d{1,20}))?\s*([A-Za-z°%'\"/²³]{0,8})", re.ASCII)
_HEX_COLOUR = re.compile(r"#([0-9A-Fa-f]{6}|[0-9A-Fa-f]{3})")


@lru_cache(maxsize=262_144)
def normal_values(value: str) -> tuple[str, ...]:
    """The values that a tag's value lists, each in its normal spelling, each once, in their order.

    `Asphalt` becomes `asphalt`; `tennis; basketball` two values; `19,90MW` becomes `19.9 MW`; `03` becomes `3` and `.5`
    becomes `0.5`. Control and zero-width characters go, as everywhere. There are at most `MAX_LIST` values of at most
    `MAX_LENGTH` characters; none where nothing readable is left.
    """
    listed = (_normal(each.strip()) for each in clean_value(value, MAX_LENGTH).split(";"))
    return tuple(dict.fromkeys(each for each in listed if each))[:MAX_LIST]


def _normal(value: str) -> str:
    quantity = _QUANTITY.fullmatch(value)
    if quantity is not None and (quantity[2] or quantity[4]):
        return _quantity(value, *quantity.groups(default=""))
    # `Asphalt` is a slip of the hand, `FI:331` a code, `D` a class of its own, and `Old oak` no class at all.
    slip = value.isascii() and value[1:].islower() and " " not in value
    return value.lower() if slip or _HEX_COLOUR.fullmatch(value) else value


def _quantity(value: str, sign: str, whole: str, mark: str, decimals: str, unit: str) -> str:
    """A number and its unit; `1,234` may mean either of two numbers and stays."""
    whole = whole.lstrip("0")
    if mark == "," and len(decimals) == 3 and whole:
        return value
    decimals = decimals.rstrip("0")
    number = f"{whole or '0'}{'.' if decimals else ''}{decimals}"
    sign = "-" if sign == "-" and number != "0" else ""
    return f"{sign}{number}{' ' if unit[:1].isalpha() else ''}{unit}"

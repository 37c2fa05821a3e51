"""From tags to words, in the wording of SkyScript (AAAI 2024, arXiv 2312.12856): "landuse of quarry".

How the words of several tags and objects become a caption belongs to `compose`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL.ImageColor import getrgb

from skyscript_assets.lib.captions.rules import CaptionRules
from skyscript_assets.lib.tags.text import NEVER_SAID, attribute_reason, clean_value, text_reason

MAX_LIST = 3
"""Values of a list (`a;b;c;d`) that are named at most."""

_NAMED = "black grey silver white maroon red brown orange yellow beige olive green teal blue navy purple"
BASIC_COLOURS = {name: getrgb("saddlebrown" if name == "brown" else name)[:3] for name in _NAMED.split()}
"""Names for `#rrggbb`, by the nearest in RGB (CSS Color Module Level 4, section 6.1; its own brown is a dark red)."""

_HEX_COLOUR = re.compile(r"#([0-9a-fA-F]{6}|[0-9a-fA-F]{3})")
_NUMBER = re.compile(r"(\d+)(?:\.(\d+))?")
_COLON = re.compile(r"(?<!\d):|:(?!\d)")
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True)
class Phrase:
    """What one tag says.

    Attributes:
        key: The tag's key.
        value: The tag's value.
        alone: In a list of phrases: "power pole", "surface is asphalt".
        nominal: Within a clause: "power pole", "surface of asphalt".
        kind: What is true whatever its value is: "building" of "building of office"; else the nominal.
    """

    key: str
    value: str
    alone: str
    nominal: str
    kind: str


def may_be_said(key: str, value: str) -> bool:
    """Whether a tag may reach a caption at all: no name, address, contact, identifier, note, free text, rule or belief.

    Numbers may: whether a picture shows them is groundability's decision.

    Args:
        key: A tag's key.
        value: One value.
    """
    return text_reason(key, clean_value(value)) in (None, "number") and attribute_reason(key) not in NEVER_SAID


def phrases(tags: Mapping[str, str], rules: CaptionRules) -> list[Phrase]:
    """What an object's tags say, the main tag first; what may not be said of a list or at all is left out.

    Args:
        tags: Tags of one object that can be seen at the chip's GSD; values may be lists (`a;b`).
        rules: Caption rules.
    """
    rank = {key: i for i, key in enumerate(rules.order)}
    ordered = sorted(tags.items(), key=lambda tag: (rank.get(tag[0], len(rank)), tag))
    said = (_phrase(key, ";".join(v for v in value.split(";") if may_be_said(key, v)), rules) for key, value in ordered)
    return [phrase for phrase in said if phrase is not None]


def clause(said: Sequence[Phrase]) -> str:
    """One object in a multi-object caption: "power minor line with cables of 3 and voltage of 16000"."""
    attributes = " and ".join(phrase.nominal for phrase in said[1:])
    return f"{said[0].nominal} with {attributes}" if attributes else said[0].nominal


def _phrase(key: str, value: str, rules: CaptionRules) -> Phrase | None:
    """The words of one tag, None where nothing readable is left of it."""
    name = rules.key_names.get(key) or _words(key)
    text = _value_words(key, value, rules)
    if not name or not text:
        return None
    if text in ("yes", "no"):
        said = (rules.affirmed if text == "yes" else rules.denied).format(key=name)
        return Phrase(key, value, said, said, said)
    if key in rules.beside:
        said = f"{name} {text}"
        return Phrase(key, value, said, said, said)
    verb = "is" if key in rules.is_keys else "of"
    return Phrase(key, value, f"{name} {verb} {text}", f"{name} of {text}", name)


def _words(text: str) -> str:
    """`_` and `:` become spaces, but not a colon between digits (1:12)."""
    return _SPACES.sub(" ", _COLON.sub(" ", clean_value(text).replace("_", " "))).strip()


def _value_words(key: str, value: str, rules: CaptionRules) -> str:
    """A value in words: lists are joined by "and", numbers get their key's unit, hex colours a name."""
    listed = map(_words, value.split(";"))
    distinct = list(dict.fromkeys(words for words in listed if words))[:MAX_LIST]
    return " and ".join(_measure(words, rules.units.get(key)) for words in distinct)


def _measure(text: str, unit: str | None) -> str:
    number = _NUMBER.fullmatch(text)
    if number:
        decimals = (number[2] or "").rstrip("0")
        plain = f"{number[1]}.{decimals}" if decimals else number[1]
        return f"{plain} {unit}" if unit else plain
    if unit and (joined := re.fullmatch(rf"([\d.]+)\s*{re.escape(unit)}", text)):
        return f"{joined[1]} {unit}"
    return _colour_name(text) if _HEX_COLOUR.fullmatch(text) else text


def _colour_name(hex_colour: str) -> str:
    rgb = getrgb(hex_colour)
    return min(BASIC_COLOURS, key=lambda name: math.dist(rgb, BASIC_COLOURS[name]))

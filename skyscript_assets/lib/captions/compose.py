"""From tags to the two captions of a chip, in the wording of SkyScript (AAAI 2024, arXiv 2312.12856).

The single-object caption lists the focus object's phrases: "landuse of quarry, resource of bauxite". The multi-object
caption makes one clause of them, "landuse of quarry with resource of bauxite", and adds what lies around: ", surrounded
by natural tree; road of footway". Which objects lie around a chip belongs to `write`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from skyscript_assets.lib.captions.rules import CaptionRules
from skyscript_assets.lib.tags.text import NEVER_SAID, attribute_reason, clean_value, text_reason

Role = Literal["main", "attribute", "surrounding"]

MAX_LIST = 3
"""Values of a list (`a;b;c;d`) that are named at most."""

BASIC_COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "silver": (192, 192, 192),
    "white": (255, 255, 255),
    "maroon": (128, 0, 0),
    "red": (255, 0, 0),
    "brown": (139, 69, 19),
    "orange": (255, 165, 0),
    "yellow": (255, 255, 0),
    "beige": (245, 245, 220),
    "olive": (128, 128, 0),
    "green": (0, 128, 0),
    "teal": (0, 128, 128),
    "blue": (0, 0, 255),
    "navy": (0, 0, 128),
    "purple": (128, 0, 128),
}
"""Names for `#rrggbb`, by the nearest in RGB (CSS Color Module Level 4, section 6.1)."""

_WITH, _SURROUNDED, _NEXT = " with ", ", surrounded by ", "; "
"""What joins a multi-object caption; a value that holds one of them only makes a statement shorter."""

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
        nominal: As a part of a clause: "power pole", "surface of asphalt".
    """

    key: str
    value: str
    alone: str
    nominal: str


@dataclass(frozen=True)
class TraceRow:
    """Which tag put which words into a caption."""

    key: str
    value: str
    phrase: str
    role: Role


@dataclass(frozen=True)
class CaptionPair:
    """The two captions of a chip.

    Attributes:
        title: The focus object alone.
        title_multi_objects: The focus object and its surroundings.
        trace: Every phrase of either caption.
        named: Which of the surrounding objects given are named, by index.
    """

    title: str
    title_multi_objects: str
    trace: tuple[TraceRow, ...]
    named: tuple[int, ...]


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
    return f"{said[0].nominal}{_WITH}{attributes}" if attributes else said[0].nominal


def caption_pair(
    center_tags: Mapping[str, str],
    surrounding: Sequence[Mapping[str, str]],
    rules: CaptionRules,
    max_surrounding: int = 4,
    max_length: int = 300,
) -> CaptionPair | None:
    """Write both captions of a chip from tags: see `compose`."""
    around = [phrases(tags, rules) for tags in surrounding]
    return compose(phrases(center_tags, rules), around, max_surrounding, max_length)


def compose(
    said: Sequence[Phrase], around: Sequence[Sequence[Phrase]], max_surrounding: int, max_length: int
) -> CaptionPair | None:
    """Write both captions of a chip.

    Args:
        said: What the focus object says, by the tags that can be seen at the chip's GSD.
        around: What each object around it says, the most prominent first; those that read like an earlier one or like
            the focus object are passed over.
        max_surrounding: Surrounding objects named at most.
        max_length: Longest caption, characters; attributes and surroundings that do not fit are left out.

    Returns:
        The captions, or None where the focus object says nothing.
    """
    if not said:
        return None
    kept = _fitting(said, max_length)
    focus = clause(kept)
    title, multi = _listed(kept)[:max_length].rstrip(), focus[:max_length].rstrip()
    trace = [TraceRow(p.key, p.value, p.alone, "attribute" if i else "main") for i, p in enumerate(kept)]
    texts = {focus, clause(said)}
    named: list[int] = []
    for i, other in enumerate(around):
        if len(named) == max_surrounding:
            break
        text = clause(other) if other else focus
        longer = multi + (_NEXT if named else _SURROUNDED) + text
        if text not in texts and len(longer) <= max_length:
            multi = longer
            texts.add(text)
            named.append(i)
            trace += [TraceRow(p.key, p.value, p.nominal, "surrounding") for p in other]
    return CaptionPair(title, multi, tuple(trace), tuple(named))


def statements_of(multi: str) -> list[tuple[str, ...]]:
    """What a multi-object caption states, object by object, from its whole clause to its bare key.

    "building of office with roof shape of flat" states just that, and so "building of office", and so "building": each
    is true of the chip whatever else is in it.

    Args:
        multi: A caption written by `compose`.

    Returns:
        For each object its statements, the longest first, each once.
    """
    focus, _, around = multi.partition(_SURROUNDED)
    found = []
    for text in (focus, *(around.split(_NEXT) if around else ())):
        main = text.partition(_WITH)[0]
        found.append(tuple(dict.fromkeys((text, main, main.partition(" of ")[0]))))
    return found


def _listed(said: Sequence[Phrase]) -> str:
    return ", ".join(phrase.alone for phrase in said)


def _fitting(said: Sequence[Phrase], max_length: int) -> list[Phrase]:
    """The main phrase and every attribute, in order, with which both captions still fit."""
    kept = list(said[:1])
    for phrase in said[1:]:
        longer = [*kept, phrase]
        if max(len(_listed(longer)), len(clause(longer))) <= max_length:
            kept = longer
    return kept


def _phrase(key: str, value: str, rules: CaptionRules) -> Phrase | None:
    """The words of one tag, None where nothing readable is left of it."""
    name = rules.key_names.get(key) or _words(key)
    text = _value_words(key, value, rules)
    if not name or not text:
        return None
    if text in ("yes", "no"):
        template = rules.affirmed if text == "yes" else rules.denied
        said = template.format(key=name)
        return Phrase(key, value, said, said)
    if key in rules.beside:
        return Phrase(key, value, f"{name} {text}", f"{name} {text}")
    verb = "is" if key in rules.is_keys else "of"
    return Phrase(key, value, f"{name} {verb} {text}", f"{name} of {text}")


def _words(text: str) -> str:
    """`_` and `:` become spaces, but not a colon between digits (1:12)."""
    return _SPACES.sub(" ", _COLON.sub(" ", clean_value(text).replace("_", " "))).strip()


def _value_words(key: str, value: str, rules: CaptionRules) -> str:
    """A value in words: lists are joined by "and", numbers get their key's unit, hex colours a name."""
    parts = [_words(part) for part in value.split(";")]
    distinct = list(dict.fromkeys(part for part in parts if part))[:MAX_LIST]
    return " and ".join(_measure(part, rules.units.get(key)) for part in distinct)


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
    digits = hex_colour[1:] if len(hex_colour) == 7 else "".join(digit * 2 for digit in hex_colour[1:])
    rgb = [int(digits[i : i + 2], 16) for i in (0, 2, 4)]
    return min(BASIC_COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(rgb, BASIC_COLOURS[name], strict=True)))

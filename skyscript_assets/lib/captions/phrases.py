"""From tags to words, in the wording of SkyScript (AAAI 2024, arXiv 2312.12856): "landuse of quarry".

The rules were found in SkyScript's own captions; those of tags and keys are data (`settings/caption_rules.yaml`).

How the words of several tags and objects become a caption belongs to `compose`.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from PIL.ImageColor import getrgb

from skyscript_assets.lib.captions.rules import CaptionRules
from skyscript_assets.lib.settings.base import CaptionPolicy
from skyscript_assets.lib.tags.text import NEVER_SAID, attribute_reason, clean_value, text_reason

MAX_LIST = 3
"""Values of a list (`a;b;c;d`) that are named at most."""

_NAMED = "black grey silver white maroon red brown orange yellow beige olive green teal blue navy purple"
BASIC_COLOURS = {name: getrgb("saddlebrown" if name == "brown" else name)[:3] for name in _NAMED.split()}
"""Names for `#rrggbb`, by the nearest in RGB (CSS Color Module Level 4, section 6.1; its own brown is a dark red)."""

_HEX_COLOUR = re.compile(r"#([0-9a-fA-F]{6}|[0-9a-fA-F]{3})")
_LISTED = re.compile(r"[;,]")
_COLON = re.compile(r"(?<!\d):|:(?!\d)")
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True)
class Phrase:
    """What one tag says.

    `text` are its words: "power pole", "surface of asphalt". `kind` is what is true whatever its value is, "building"
    of "building of office", else the text.
    """

    key: str
    value: str
    text: str
    kind: str


def may_be_said(key: str, value: str) -> bool:
    """Whether a tag may reach a caption at all: no name, address, contact, identifier, note, free text, rule or belief.

    Numbers may: whether a picture shows them is groundability's decision. `value` is a single one.
    """
    return text_reason(key, clean_value(value)) in (None, "number") and attribute_reason(key) not in NEVER_SAID


def phrases(
    tags: Mapping[str, str],
    rules: CaptionRules,
    frequency: Mapping[tuple[str, str], int] | None = None,
    policy: CaptionPolicy = "ours",
) -> list[Phrase]:
    """What an object's tags say, the main tag first; what may not be said of a list or at all is left out.

    The tags are those that can be seen at the chip's GSD; values may be lists (`a;b`). By the frequency of each key and
    value frequent tags come first, as in SkyScript's captions, where 791 ordered pairs hold without a contradiction;
    without it they are in the order of the rules, which has things first. The policy tells whether what the rules name
    as the paper's own is said too.
    """
    rank = {key: i for i, key in enumerate(rules.order)}

    def place(tag: tuple[str, str]) -> tuple[int, int, tuple[str, str]]:
        times = max((frequency.get((tag[0], value), 0) for value in tag[1].split(";")), default=0) if frequency else 0
        return (-times, rank.get(tag[0], len(rank)), tag)

    said = []
    for key, value in sorted(tags.items(), key=place):
        listed = value.split(";")
        if not is_among(key, rules.paper_keys):
            listed = [each for each in listed if may_be_said(key, each)]
        elif policy != "paper":
            continue
        said.append(_phrase(key, ";".join(listed), rules))
    return [phrase for phrase in said if phrase is not None]


def is_among(key: str, patterns: Iterable[str]) -> bool:
    """Whether a key is one of some, in which `*` stands for any text."""
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def as_neighbour(said: Sequence[Phrase]) -> Sequence[Phrase]:
    """What of an object's phrases is said where it surrounds another: a road is said by its `highway` tag alone.

    So are 776 of 776 in SkyScript's own captions.
    """
    return [phrase for phrase in said if phrase.key == "highway"] or said


def clause(said: Sequence[Phrase]) -> str:
    """One object in a multi-object caption: "power minor line with cables of 3 and voltage of 16000"."""
    attributes = " and ".join(phrase.text for phrase in said[1:])
    return f"{said[0].text} with {attributes}" if attributes else said[0].text


def _phrase(key: str, value: str, rules: CaptionRules) -> Phrase | None:
    """The words of one tag, None where nothing readable is left of it, and of what it denies."""
    prefix, _, last = key.rpartition(":")
    values = [words for words in dict.fromkeys(map(_value_words, _LISTED.split(value))) if words]
    values = [words for words in values if words not in ("yes", "no")][:MAX_LIST] or values[:1]
    if not values or values == ["no"]:
        return None
    if words := rules.tag_names.get(f"{last}={value}"):
        text = f"{_key_words(prefix, rules)} {words}".strip()
        return Phrase(key, value, text, text)
    name, said = _key_words(key, rules), " and ".join(values)
    if not name:
        return None
    if said == "yes":
        return Phrase(key, value, name, name)
    if last in rules.beside:
        return Phrase(key, value, f"{name} {said}", f"{name} {said}")
    verb = "is" if is_among(last, rules.is_keys) else "of"
    return Phrase(key, value, f"{name} {verb} {said}", name)


def _key_words(key: str, rules: CaptionRules) -> str:
    return rules.key_names.get(key) or _words(":".join(rules.key_names.get(part, part) for part in key.split(":")))


def _words(text: str) -> str:
    """`_` and `:` become spaces, but not a colon between digits (1:12)."""
    return _SPACES.sub(" ", _COLON.sub(" ", clean_value(text).replace("_", " "))).strip()


def _value_words(value: str) -> str:
    words = _words(value)
    if not _HEX_COLOUR.fullmatch(words):
        return words
    rgb = getrgb(words)
    return min(BASIC_COLOURS, key=lambda name: math.dist(rgb, BASIC_COLOURS[name]))

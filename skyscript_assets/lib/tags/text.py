"""What a tag says in plain words, and which tags are nobody's business to say: the policy.

OSM values are untrusted text. Three questions are answered here, from the key and the value alone: how the tag reads
(`tag_text`), whether it is text, a name, a contact, a number or an identifier rather than a class of things
(`text_reason`), and whether it is an attribute that no picture shows, whatever its value (`attribute_reason`). Whether
one of the remaining tags can be seen is decided by labels and the model: see `skyscript_assets.lib.tags.groundability`.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

MAX_VALUE_LENGTH = 100
"""Longest cleaned value, characters. OSM itself allows 255 (wiki: Elements, "Tag")."""

MAX_TEXT_LENGTH = 160
"""Longest text of a tag, characters; MiniLM reads at most 256 word pieces."""

MAX_CLASS_LENGTH = 40
"""Values longer than this, characters, are taken for free text: classes of the wiki's Map Features are shorter."""

MAX_CLASS_WORDS = 5
"""Values of more words than this are taken for free text."""

_SPACES = re.compile(r"\s+")
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cn", "Co", "Cs"})
"""Unicode categories of control, format (zero-width, bidirectional), unassigned, private and surrogate characters."""

_WORD_REASONS: dict[str, str] = {
    word: reason
    for reason, words in {
        "name": "name names housename artist architect branch inscription label destination surname",
        "organisation": "operator owner brand network manufacturer model",
        "address": "addr address postcode postal",
        "contact": "contact phone fax email mobile website url facebook twitter instagram youtube tiktok",
        "identifier": "ref id uuid code number wikidata wikipedia wikimedia mapillary image panoramax uri",
        "source": "attribution",
        "note": "note fixme todo comment description history info",
        "time": "date hours times interval conditional timestamp year",
    }.items()
    for word in words.split()
}
"""Reason why a key that holds such a word (between `:` and `_`) carries text and not a class."""

_PREFIX_REASONS: tuple[tuple[str, str], ...] = (
    ("source", "source"),
    ("created_by", "source"),
    ("is_in", "address"),
    ("was:", "note"),
    *((f"{prefix}", "identifier") for prefix in ("gns:", "clc:", "mml:", "bfs:", "swisstopo:", "opengeodb:", "siren:")),
    *((f"{prefix}", "identifier") for prefix in ("tiger:", "gnis:", "naptan:", "ruian:", "iso3166", "nhd:", "kms:")),
)
"""The same for what a lower-case key begins with: edit history, and the fields of imported registers."""

_CLASS_KEYS = frozenset({"crossing_ref", "generator:source", "plant:source"})
"""Keys that look like text by the rules above and hold classes all the same."""

_COUNT_KEYS = frozenset(
    {
        *("admin_level", "heritage", "layer", "level", "mtb:scale"),
        *("building:levels", "building:min_level", "roof:levels"),
        *("lanes", "maxspeed", "oneway", "tracks"),
        *("cables", "circuits", "frequency", "gauge", "voltage", "wires"),
    }
)
"""Keys whose numbers are few and stand for classes: they are labelled. Numbers of all other keys are measurements."""

_NUMBER = re.compile(r"[-+~<>≈]?\d+([.,]\d+)?\s*([a-zA-Z°%'\"/²³]{0,8})")
_LINK = re.compile(r"https?:|www\.|@", re.IGNORECASE)
_SENTENCE = re.compile(r"[\[\](){}<>\"!?=]|[^\x00-\x7f]|[A-Z].* | .*[A-Z]")

_ATTRIBUTE_KEYS: dict[str, str] = {
    key: reason
    for reason, keys in {
        "access or traffic rule": (
            "access foot bicycle motor_vehicle motorcar motorcycle motorhome horse hgv psv bus vehicle moped mofa boat "
            "goods hazmat dog taxi tourist_bus agricultural oneway maxspeed overtaking hiking traffic_sign priority"
        ),
        "belief": "religion denomination",
        "service or equipment indoors": (
            "cuisine diet payment currency smoking internet_access wheelchair tactile_paving fee charge toilets "
            "takeaway delivery indoor min_age reservation recycling_type stars vending atm opening_hours"
        ),
        "administration": (
            "boundary admin_level border_type heritage usage designation type noname noexit snowplowing winter_service "
            "ownership timezone population protect_class protection_title iata icao"
        ),
        "rating of a route": "sac_scale mtb trail_visibility",
        "engineering value": "gauge voltage frequency level layer railway:signal railway:radio railway:track_class",
        "parking rule": "parking:condition parking:ticket",
        "profession or offer": "healthcare social_facility community_centre club government clothes",
        "device": "surveillance camera acoustic",
        "lighting": "lit",
        "not there, or not any more": "proposed planned razed demolished removed destroyed dismantled vacant not",
    }.items()
    for key in keys.split()
}
"""Attributes that no picture taken from above shows, by a key's first part or first two parts (between `:`)."""


def clean_value(value: str, limit: int = MAX_VALUE_LENGTH) -> str:
    """A value without control, zero-width, bidirectional and unassigned characters, on one line, of bounded length.

    Args:
        value: Any text.
        limit: Greatest length of the answer, characters.
    """
    normal = unicodedata.normalize("NFC", value[: 4 * limit])
    spaced = _SPACES.sub(" ", normal)
    kept = spaced if spaced.isascii() and spaced.isprintable() else _printable(spaced)
    return _SPACES.sub(" ", kept).strip()[:limit].rstrip()


def _printable(text: str) -> str:
    return "".join(character for character in text if unicodedata.category(character) not in _UNPRINTABLE)


def tag_text(key: str, value: str) -> str:
    """The words of a tag as they are embedded: `landuse=farm_land` reads "landuse farm land".

    Args:
        key: A tag's key.
        value: A tag's value.

    Returns:
        Key and value in plain words, at most `MAX_TEXT_LENGTH` characters.
    """
    words = f"{clean_value(key)} {clean_value(value)}".replace("_", " ").replace(":", " ").replace(";", ", ")
    return _SPACES.sub(" ", words).strip()[:MAX_TEXT_LENGTH].rstrip()


def text_reason(key: str, value: str) -> str | None:
    """Why a tag is text, a name, a contact, a number or an identifier, and not a class of things.

    Such tags are never labelled, never embedded and never reach a caption.

    Returns:
        One of name, organisation, address, contact, identifier, source, note, time, number, free text; None for a tag
        that names a class.
    """
    reason = _text_key_reason(key)
    if reason is not None:
        return reason
    value = value.strip()
    if _LINK.search(value):
        return "contact"
    if _NUMBER.fullmatch(value) and not _is_count_key(key):
        return "number"
    words = value.replace("_", " ").split()
    if not words or len(value) > MAX_CLASS_LENGTH or len(words) > MAX_CLASS_WORDS or _SENTENCE.search(value):
        return "free text"
    return None


@lru_cache(maxsize=65_536)
def _text_key_reason(key: str) -> str | None:
    lower = key.lower()
    if lower in _CLASS_KEYS:
        return None
    for prefix, reason in _PREFIX_REASONS:
        if lower.startswith(prefix):
            return reason
    words = re.split(r"[:_]", lower)
    if words[-1] == "source":
        return "source"
    return next((_WORD_REASONS[word] for word in words if word in _WORD_REASONS), None)


@lru_cache(maxsize=65_536)
def _is_count_key(key: str) -> bool:
    return key in _COUNT_KEYS or key.partition(":")[0] in _COUNT_KEYS


def attribute_reason(key: str) -> str | None:
    """Why a key holds an attribute that no picture from above shows, such as access rules or religion; else None.

    These tags are classes: the label file carries the frequent ones, with reasons, and the policy covers the rest, so
    that a model never has to guess about `religion=hindu`.
    """
    first, *others = key.split(":")
    reason = _ATTRIBUTE_KEYS.get(first)
    return reason if reason is not None or not others else _ATTRIBUTE_KEYS.get(f"{first}:{others[0]}")


def excluded_reason(key: str, value: str) -> str | None:
    """Why the policy keeps a tag out of captions, or None where labels and the model decide."""
    return text_reason(key, value) or attribute_reason(key)

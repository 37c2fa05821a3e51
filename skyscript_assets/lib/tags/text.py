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

import pyarrow as pa
import pyarrow.compute as pc

MAX_VALUE_LENGTH = 100
"""Longest cleaned value, characters. OSM itself allows 255 (wiki: Elements, "Tag")."""

MAX_TEXT_LENGTH = 160
"""Longest text of a tag, characters; MiniLM reads at most 256 word pieces."""

MAX_CLASS_LENGTH = 40
"""Values longer than this, characters, are taken for free text: classes of the wiki's Map Features are shorter."""

MAX_CLASS_WORDS = 5
"""Values of more words than this are taken for free text."""

_SPACES = re.compile(r"\s+")
_KEY = re.compile(r"[A-Za-z0-9_:.-]+")
_KEY_WORDS = re.compile(r"[:_.-]")
_PLAIN = r"^[!-~]+( [!-~]+)*$"
"""Printable ASCII on one line without spaces at its ends."""

_UNPRINTABLE = frozenset({"Cc", "Cf", "Cn", "Co", "Cs"})
"""Unicode categories of control, format (zero-width, bidirectional), unassigned, private and surrogate characters."""

MAX_KEY_LENGTH = 60
"""Keys longer than this, characters, are taken for free text."""

_WORD_REASONS: dict[str, str] = {
    word: reason
    for reason, words in {
        "name": (
            "name names name2 housename artist sculptor author authors creator designer architect composer founder "
            "branch inscription label destination surname etymology subject slogan dedication"
        ),
        "organisation": (
            "operator owner brand network manufacturer model provider sponsor licensee carrier company franchise agency"
        ),
        "address": (
            "addr address housenumber postcode postal zip city country state province county municipality district "
            "region parish"
        ),
        "contact": (
            "contact phone telephone fax email mobile website url webcam vhf whatsapp telegram skype hashtag "
            "facebook twitter instagram youtube tiktok linkedin pinterest flickr"
        ),
        "identifier": (
            "ref id uuid guid code number wikidata wikipedia wikimedia mapillary image panoramax uri reference geohash "
            "hash lat lon latitude longitude latitud longitud callsign registration mmsi imo isbn vatin "
            "canvec dcgis dibavod fantoir geobase geobasenhn gnis ibge ksj2 lacounty linz linz2osm lojic massgis "
            "mvdgis naptan ngbe nhd nhn bev nrcan nvdb nycdoitt nysgissam osak ruian statscan teryt tiger uir usgs yh"
        ),
        "source": "attribution converted acquisition technique",
        "note": (
            "note notes fixme checkme todo comment description history info message remark remarks text warning "
            "verified undefined complete accuracy reviewed tag"
        ),
        "time": (
            "date hours times interval conditional timestamp year time duration hourly last lunch breakfast brunch "
            "dinner maxstay built unveiled established"
        ),
    }.items()
    for word in words.split()
}
"""Reason why a key that holds such a word (between `:` and `_`) carries text and not a class.

Among the identifiers are the namespaces of imported registers: what stands behind them is a field of a table.
"""

_PREFIX_REASONS: tuple[tuple[str, str], ...] = (
    ("source", "source"),
    ("survey:", "source"),
    ("created_by", "source"),
    ("is_in", "address"),
    ("was:", "note"),
    ("direction_", "name"),
    ("seamark:information", "note"),
    *((f"{prefix}", "identifier") for prefix in ("gns:", "clc:", "mml:", "bfs:", "swisstopo:", "opengeodb:", "siren:")),
    *((f"{prefix}", "identifier") for prefix in ("iso3166", "kms:")),
    *((f"{prefix}", "identifier") for prefix in ("noaa:", "rednap:", "ign:", "noise:", "immo_", "_")),
)
"""The same for what a lower-case key begins with: edit history, and the fields of imported registers and tracks."""

_KEY_REASONS: dict[str, str] = {
    **dict.fromkeys(("from", "to", "via", "graffiti:tag", "identity", "zone:hsl"), "name"),
    **dict.fromkeys(("street", "target"), "address"),
    "sound": "source",
    "defibrillator:location": "note",
}
"""The same for whole lower-case keys."""

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

_COUNT = re.compile(r"[-+]?\d{0,7}([.,]\d{1,3})?( ?[a-zA-Z]{1,4})?", re.ASCII)
"""Numbers that may stand for a class under such a key; longer ones are identifiers."""

_TAXON_KEYS = frozenset({"genus", "species", "taxon"})
_TAXON = re.compile(r"[A-Z][a-z]+( x)?( [a-z][a-z-]+){1,2}")
"""Scientific names of plants and animals: the only classes of several words with a capital."""

# Digits, what stands between digits, and at most one unit: 12, .3, 1,5 m, 5'6", 1800-1900, 3.5|2.5, 2012-03-18, 7:30.
_NUMBER = re.compile(r"(?!24/7$)[-+~<>≈≤≥±(]{0,2}[.,]?\d[\d.,:/|x×*+()'\"~ -]*\s*([a-zA-Z°%'\"/²³]{0,8})")
_LINK = re.compile(r"(https?|ftp):|www\.|@|[a-z]{3}\.(com|org|net|info|eu)\b|[a-z]{4}\.[a-z]{2}(/|$)", re.IGNORECASE)
_CLOCK = re.compile(r"\d:\d\d|\d{4}[-/]\d\d", re.ASCII)
_DIGEST = re.compile(r"(?=.*\d)[0-9a-f]{8,}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SENTENCE = re.compile(
    r"[\[\](){}<>\"!?=&*^`~$\\]|[^\x20-\x7e]|[A-Z].* | .*[A-Z]|[,.:] | - |^'|\||^[^A-Za-z0-9]*$|[a-z]_?[A-Z]", re.DOTALL
)

_ATTRIBUTE_KEYS: dict[str, str] = {
    key: reason
    for reason, keys in {
        "access or traffic rule": (
            "access foot bicycle motor_vehicle motorcar motorcycle motorhome horse hgv psv bus vehicle moped mofa boat "
            "goods hazmat dog taxi tourist_bus agricultural oneway maxspeed overtaking hiking traffic_sign priority "
            "caravan caravans trailer snowmobile ski inline_skates carriage hov coach minibus cargo restriction "
            "enforcement maxheight maxwidth maxlength maxweight maxaxleload maxbogieload minspeed toll priority_road "
            "junction_priority turn change placement hgv_1 red_turn driving_side mindistance zone traffic"
        ),
        "belief": "religion denomination mass worship",
        "service or equipment indoors": (
            "cuisine diet payment currency smoking internet_access wheelchair tactile_paving fee charge toilets "
            "takeaway delivery indoor min_age reservation recycling_type stars vending atm opening_hours "
            "cuisine_1 wifi wlan self_service self_checkout changing_table highchair high_chair air_conditioning "
            "karaoke drink fuel gambling scuba_diving cash_in rooms beds"
        ),
        "whom it is for": (
            "community male female unisex gay lgbtq erotic refugee residents baby blind after_school group_only"
        ),
        "administration": (
            "boundary admin_level border_type heritage usage designation type noname noexit snowplowing winter_service "
            "ownership timezone population protect_class protection_title iata icao protect_title nohousenumber "
            "default_language language capital is_capital importance old_boundary maritime diplomatic supervised "
            "historic:civilization historic:period historic:era"
        ),
        "rating of a route": "sac_scale mtb trail_visibility osmc horse_scale rating piste:difficulty lcn rcn ncn",
        "engineering value": (
            "gauge voltage frequency level layer railway:signal railway:radio railway:track_class railway:pzb "
            "railway:jkv railway:kvb railway:bidirectional railway:preferred_direction railway:traffic_mode "
            "railway:local_operated railway:position railway:turnout_side communication structure_gauge"
        ),
        "parking rule": "parking:condition parking:ticket parking:fee parking:enforcement",
        "profession or offer": "healthcare social_facility community_centre club government clothes lawyer",
        "device": "surveillance camera acoustic traffic_signals monitoring recording seamark:light seamark:fog_signal",
        "lighting": "lit",
        "kind that cannot be told": "garden:type reservoir_type content substance storage site",
        "not there, or not any more": "proposed planned razed demolished removed destroyed dismantled vacant not",
    }.items()
    for key in keys.split()
}
"""Attributes that no picture taken from above shows, by a key's first word or first two words (between `:`)."""

_ATTRIBUTE_WORDS: dict[str, str] = {
    **dict.fromkeys(("access", "oneway", "except", "lanes", "maxweight"), "access or traffic rule"),
    **dict.fromkeys(("wheelchair", "fee", "covid19", "internet_access"), "service or equipment indoors"),
    **dict.fromkeys(("disabled", "women", "parent"), "whom it is for"),
    "denomination": "belief",
    "lit": "lighting",
}
"""The same for words that stand after a key's first one: `piste:lit`, `cycleway:right:oneway`, `turn:lanes`."""

NEVER_SAID = frozenset(
    {"access or traffic rule", "administration", "belief", "lighting", "parking rule", "whom it is for"}
)
"""Reasons of `attribute_reason` that keep a tag out of captions even where a person's label calls it visible."""


def clean_value(value: str, limit: int = MAX_VALUE_LENGTH) -> str:
    """A value without control, zero-width, bidirectional and unassigned characters, on one line, of bounded length.

    Args:
        value: Any text.
        limit: Greatest length of the answer, characters.
    """
    spaced = _SPACES.sub(" ", value[: 4 * limit])
    if not spaced.isprintable():
        spaced = _SPACES.sub(" ", _printable(spaced))
    if not spaced.isascii():
        # Composed last: what stood between two characters that compose is gone then.
        spaced = unicodedata.normalize("NFC", spaced)
    return spaced.strip()[:limit].rstrip()


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


def tag_texts(keys: pa.Array, values: pa.Array) -> pa.Array:
    """The words of many tags: `tag_text` of each, at once for those of plain ASCII.

    Args:
        keys: Keys, strings.
        values: As many values, strings.
    """
    plain = pc.and_(_plain(keys), _plain(values))
    texts = pc.binary_join_element_wise(keys, values, " ")
    for found, written in (("_", " "), (":", " "), (";", ", ")):
        texts = pc.replace_substring(texts, found, written)
    texts = pc.utf8_trim_whitespace(pc.replace_substring_regex(texts, " {2,}", " "))
    texts = pc.utf8_rtrim_whitespace(pc.utf8_slice_codeunits(texts, 0, MAX_TEXT_LENGTH))
    left = pc.invert(plain)
    others = [
        tag_text(*tag) for tag in zip(keys.filter(left).to_pylist(), values.filter(left).to_pylist(), strict=True)
    ]
    return pc.replace_with_mask(texts, left, pa.array(others, pa.string()))


def _plain(texts: pa.Array) -> pa.Array:
    short = pc.less_equal(pc.binary_length(texts), MAX_VALUE_LENGTH)
    return pc.and_(short, pc.match_substring_regex(texts, _PLAIN))


def class_mask(keys: pa.Array, values: pa.Array) -> pa.Array:
    """Which of many tags name a class: `text_reason` is None.

    Args:
        keys: Keys, strings.
        values: As many values, strings.

    Returns:
        Booleans.
    """
    encoded = keys.dictionary_encode()
    of_class = pa.array([_text_key_reason(key) is None for key in encoded.dictionary.to_pylist()], pa.bool_())
    mask = of_class.take(encoded.indices)
    tags = zip(keys.filter(mask).to_pylist(), values.filter(mask).to_pylist(), strict=True)
    return pc.replace_with_mask(mask, mask, pa.array([text_reason(*tag) is None for tag in tags], pa.bool_()))


def text_reason(key: str, value: str) -> str | None:
    """Why a tag is text, a name, a contact, a number or an identifier, and not a class of things.

    Such tags are never labelled, never embedded and never reach a caption.

    Args:
        key: A tag's key.
        value: A tag's value, one of a list (`normalise.normal_values`) or as it stands in OpenStreetMap.

    Returns:
        One of name, organisation, address, contact, identifier, source, note, time, number, free text; None for a tag
        that names a class.
    """
    reason = _text_key_reason(key)
    return _text_value_reason(key, value.strip()) if reason is None else reason


def _text_value_reason(key: str, value: str) -> str | None:
    if _NUMBER.fullmatch(value):
        return None if _COUNT.fullmatch(value) and _is_count_key(key) else "number"
    if _LINK.search(value):
        return "contact"
    if _CLOCK.search(value):
        return "time"
    if _DIGEST.fullmatch(value):
        return "identifier"
    if key.partition(":")[0] in _TAXON_KEYS and _TAXON.fullmatch(value):
        return None
    words = value.replace("_", " ").split()
    if not words or len(value) > MAX_CLASS_LENGTH or len(words) > MAX_CLASS_WORDS or _SENTENCE.search(value):
        return "free text"
    return None


@lru_cache(maxsize=65_536)
def _text_key_reason(key: str) -> str | None:
    lower = key.lower()
    if lower in _CLASS_KEYS:
        return None
    if lower in _KEY_REASONS:
        return _KEY_REASONS[lower]
    for prefix, reason in _PREFIX_REASONS:
        if lower.startswith(prefix):
            return reason
    words = _KEY_WORDS.split(lower)
    if words[-1] == "source":
        return "source"
    reasons = (_WORD_REASONS[word] for word in words if word in _WORD_REASONS)
    return next(reasons, None if _KEY.fullmatch(key) and len(key) <= MAX_KEY_LENGTH else "free text")


@lru_cache(maxsize=65_536)
def _is_count_key(key: str) -> bool:
    return key in _COUNT_KEYS or key.partition(":")[0] in _COUNT_KEYS


@lru_cache(maxsize=65_536)
def attribute_reason(key: str) -> str | None:
    """Why a key holds an attribute that no picture from above shows, such as access rules or religion; else None.

    These tags are classes: the label file carries the frequent ones, with reasons, and the policy covers the rest, so
    that a model never has to guess about `religion=hindu`.
    """
    first, *others = key.split(":")
    reason = _ATTRIBUTE_KEYS.get(first)
    if reason is not None or not others:
        return reason
    reason = _ATTRIBUTE_KEYS.get(f"{first}:{others[0]}")
    return reason or next((_ATTRIBUTE_WORDS[word] for word in others if word in _ATTRIBUTE_WORDS), None)

"""What a tag says in plain words, and which tags are nobody's business to say: the policy.

OSM values are untrusted text. Three questions are answered here, from the key and the value alone: how the tag reads
(`tag_text`), whether it is text, a name, a contact, a number or an identifier rather than a class of things
(`text_reason`), and whether it is an attribute that no picture shows, whatever its value (`attribute_reason`). Whether
one of the remaining tags can be seen is decided by labels and the model: see `skyscript_assets.lib.tags.groundability`.
"""

import re
import unicodedata
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.settings.base import ByWord, Model, read_yaml
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES

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

_COUNT = re.compile(r"[-+]?\d{0,7}([.,]\d{1,3})?( ?[a-zA-Z]{1,4})?", re.ASCII)
"""Numbers that may stand for a class under a key of `count_keys`; longer ones are identifiers."""

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


class Policy(Model):
    """The lists of `settings/tag_policy.yaml`, which tells what each is of; by word where they stand behind reasons."""

    text_words: ByWord
    text_prefixes: ByWord
    text_keys: ByWord
    class_keys: frozenset[str]
    count_keys: frozenset[str]
    attribute_keys: ByWord
    attribute_words: ByWord
    never_said: frozenset[str]


POLICY = read_yaml(PACKAGED_PROFILES / "tag_policy.yaml", Policy)
NEVER_SAID = POLICY.never_said
"""Reasons of `attribute_reason` that keep a tag out of captions even where a person's label calls it visible."""


def clean_value(value: str, limit: int = MAX_VALUE_LENGTH) -> str:
    """A value without control, zero-width, bidirectional and unassigned characters, in one line of at most `limit`."""
    spaced = _SPACES.sub(" ", value[: 4 * limit])
    if not spaced.isprintable():
        printable = (character for character in spaced if unicodedata.category(character) not in _UNPRINTABLE)
        spaced = _SPACES.sub(" ", "".join(printable))
    if not spaced.isascii():
        # Composed last: what stood between two characters that compose is gone then.
        spaced = unicodedata.normalize("NFC", spaced)
    return spaced.strip()[:limit].rstrip()


def tag_text(key: str, value: str) -> str:
    """The words of a tag as they are embedded, `MAX_TEXT_LENGTH` characters at most.

    `landuse=farm_land` reads "landuse farm land".
    """
    words = f"{clean_value(key)} {clean_value(value)}".replace("_", " ").replace(":", " ").replace(";", ", ")
    return _SPACES.sub(" ", words).strip()[:MAX_TEXT_LENGTH].rstrip()


def tag_texts(keys: pa.Array, values: pa.Array) -> pa.Array:
    """The words of many tags, keys and as many values: `tag_text` of each, at once for those of plain ASCII."""
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
    """Which of many tags, keys and as many values, name a class: `text_reason` is None."""
    encoded = keys.dictionary_encode()
    of_class = pa.array([_text_key_reason(key) is None for key in encoded.dictionary.to_pylist()], pa.bool_())
    mask = of_class.take(encoded.indices)
    tags = zip(keys.filter(mask).to_pylist(), values.filter(mask).to_pylist(), strict=True)
    return pc.replace_with_mask(mask, mask, pa.array([text_reason(*tag) is None for tag in tags], pa.bool_()))


def text_reason(key: str, value: str) -> str | None:
    """Why a tag is text, a name, a contact, a number or an identifier, and not a class of things.

    One of name, organisation, address, contact, identifier, source, note, time, number, free text; None for a tag that
    names a class. Others are never labelled, never embedded and never reach a caption. The value is one of a list
    (`normalise.normal_values`), or as it stands in OpenStreetMap.
    """
    reason = _text_key_reason(key)
    return _text_value_reason(key, value.strip()) if reason is None else reason


def _text_value_reason(key: str, value: str) -> str | None:
    if _NUMBER.fullmatch(value):
        counted = not POLICY.count_keys.isdisjoint((key, key.partition(":")[0]))
        return None if counted and _COUNT.fullmatch(value) else "number"
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
    if lower in POLICY.class_keys:
        return None
    if lower in POLICY.text_keys:
        return POLICY.text_keys[lower]
    for prefix, reason in POLICY.text_prefixes.items():
        if lower.startswith(prefix):
            return reason
    words = _KEY_WORDS.split(lower)
    if words[-1] == "source":
        return "source"
    reasons = (POLICY.text_words[word] for word in words if word in POLICY.text_words)
    return next(reasons, None if _KEY.fullmatch(key) and len(key) <= MAX_KEY_LENGTH else "free text")


@lru_cache(maxsize=65_536)
def attribute_reason(key: str) -> str | None:
    """Why a key holds an attribute that no picture from above shows, such as access rules or religion; else None.

    These tags are classes: the label file carries the frequent ones, with reasons, and the policy covers the rest, so
    that a model never has to guess about `religion=hindu`.
    """
    first, *others = key.split(":")
    reason = POLICY.attribute_keys.get(first)
    if reason is not None or not others:
        return reason
    reason = POLICY.attribute_keys.get(f"{first}:{others[0]}")
    return reason or next((POLICY.attribute_words[word] for word in others if word in POLICY.attribute_words), None)

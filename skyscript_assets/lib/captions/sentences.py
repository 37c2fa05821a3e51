"""Captions in sentences: what is said of a chip by the templates of `settings/caption_styles.yaml`.

What is true of a chip belongs to `facts`, what it is called to `grammar`, and whether a sentence is proved to `verify`.
"""

import functools
import re
from collections.abc import Sequence

from skyscript_assets.lib.captions.facts import Fact
from skyscript_assets.lib.captions.grammar import listed
from skyscript_assets.lib.settings.base import SENTENCES

_GROUP = re.compile(r"\[(.*?)\]")
_SLOT = re.compile(r"\{(\w+)\}")


def sentences(style: str, facts: Sequence[Fact], max_length: int) -> tuple[str, list[Fact]]:
    """What a style of `caption_styles.yaml` says of a chip, and the facts that it states.

    What matters most comes first and is said always; the last facts are left out until the caption fits into
    `max_length`.
    """
    kept = list(facts)
    while True:
        text, used = _written(SENTENCES[style], kept)
        if len(text) <= max_length or len(kept) == 1:
            return text, used
        kept.pop()


def _written(templates: Sequence[str], facts: Sequence[Fact]) -> tuple[str, list[Fact]]:
    said: dict[str, list[str]] = {}
    for fact in facts:
        said.setdefault(fact.slot, []).append(fact.phrase)
    phrases = {slot: listed(some) for slot, some in said.items()}
    given, written, slots = frozenset(phrases), [], set[str]()
    for template in templates:
        form, named = _form(template, given)
        if named:
            text = form.format_map(phrases)
            written.append(text[:1].upper() + text[1:])
            slots |= named
    return " ".join(written), [fact for fact in facts if fact.slot in slots]


@functools.cache
def _parts(template: str) -> list[list[tuple[str, frozenset[str]]]]:
    """The parts of a template in order: of each what may stand there, with its slots; of a group nothing may."""
    parts = [[*part.split("|"), ""] if i % 2 else [part] for i, part in enumerate(_GROUP.split(template))]
    return [[(each, frozenset(_SLOT.findall(each))) for each in options] for options in parts]


@functools.lru_cache(maxsize=65_536)
def _form(template: str, given: frozenset[str]) -> tuple[str, frozenset[str]]:
    """A template of which what the given slots fill is left, and these slots: none where it cannot be said."""
    form, filled = "", frozenset[str]()
    for options in _parts(template):
        chosen = next((one for one in options if one[1] <= given), None)
        if chosen is None:
            return "", frozenset()
        form += chosen[0]
        filled |= chosen[1]
    return form, filled
